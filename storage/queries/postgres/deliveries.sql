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
-- The next of these lanes that may be attempted, in the order of the lanes, but for those that another process holds.
select due.* from json_each(:lanes) as lanes cross join lateral (
    select * from deliveries
    where lane = lanes.value and next_attempt_at <= :now and status = 'pending' and lease_until is null and id >= ''
      and not exists (
          select 1 from lane_holders where lane_holders.lane = deliveries.lane and process_id <> :process_id
      )
    order by lane, next_attempt_at, id
    limit :limit
    {skip_locked}
) as due
limit :limit;
