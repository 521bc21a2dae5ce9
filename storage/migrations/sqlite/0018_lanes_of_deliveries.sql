-- What waits is found lane by lane: what waits for one that is full is not passed over one by one, however much it is.
alter table deliveries add column lane text not null default '';
update deliveries set lane = (select endpoints.lane from endpoints where endpoints.id = deliveries.endpoint_id)
where status = 'pending';
create index deliveries_in_lane on deliveries (lane, next_attempt_at, id)
    where status = 'pending' and lease_until is null;
alter table endpoints drop column lane;

-- Found by their endpoint: what waits for one that is disabled, the retries, which may be due in hours, first; and whether
-- any of it was never attempted, for then newer ones line up behind it.
drop index deliveries_waiting;
create index deliveries_waiting on deliveries (endpoint_id, attempts) where status = 'pending' and lease_until is null;
