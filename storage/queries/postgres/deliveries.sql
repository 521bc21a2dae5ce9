-- Statements about deliveries, as PostgreSQL says them.

-- name: lease_delivery*!
update deliveries set lease_until = :lease_until, leased_by = :leased_by where id = :id;

-- name: record_outcome*!
update deliveries set
    status = :status, attempts = :attempts, next_attempt_at = :next_attempt_at, lease_until = null,
    reason = :reason, finished_at = :finished_at
where id = :id and (status = 'pending' or :status = 'delivered');

-- name: give_back*!
update deliveries set lease_until = null where id = :id and status = 'pending';

-- name: due_deliveries
-- The next of these lanes that may be attempted, in the order of the lanes, but for those that another process holds. Of each
-- lane first attempts, then retries, where it takes any.
select due.* from (
    select value as lane, attempted
    from json_each(:lanes) with ordinality as lanes (value, place) cross join (values (0), (1)) as kinds (attempted)
    where attempted = 0 or value not in (select value from json_each(:no_retries))
    order by place, attempted
) as asked cross join lateral (
    select * from deliveries
    where lane = asked.lane and case when attempts > 0 then 1 else 0 end = asked.attempted and next_attempt_at <= :now
      and status = 'pending' and lease_until is null and id >= ''
      and not exists (
          select 1 from lane_holders where lane_holders.lane = deliveries.lane and process_id <> :process_id
      )
    order by next_attempt_at, id
    limit :limit
    {skip_locked}
) as due
limit :limit;
