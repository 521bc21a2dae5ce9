-- What waits is found lane by lane: what waits for one that is full is not passed over one by one, however much it is.
alter table deliveries add column lane text not null default '';
update deliveries set lane = (select substr(endpoints.lane, 1, 350) from endpoints where endpoints.id = deliveries.endpoint_id)
where status = 'pending';
alter table endpoints drop column lane;

-- Of each of these indexes something is said that only statements say for which it is made: so no planner takes another one,
-- by old statistics, and reads all that waits.
-- First attempts before retries, however long these are due.
create index deliveries_in_lane on deliveries (lane, (case when attempts > 0 then 1 else 0 end), next_attempt_at, id)
    where status = 'pending' and lease_until is null and id >= '';
drop index deliveries_due;
create index deliveries_due on deliveries (next_attempt_at)
    where status = 'pending' and lease_until is null and next_attempt_at >= 0;
drop index deliveries_waiting;
create index deliveries_waiting on deliveries (endpoint_id, attempts)
    where status = 'pending' and lease_until is null and attempts >= 0;
