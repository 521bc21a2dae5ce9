-- Statements about deliveries, as SQLite says them: in this form many rows are one statement. One by one each of them would
-- cost the writer a turn of the interpreter, which it has to wait for.

-- name: lease_delivery*!
with leased (id, lease_until, leased_by) as (values (:id, :lease_until, :leased_by))
update deliveries set lease_until = leased.lease_until, leased_by = leased.leased_by
from leased where deliveries.id = leased.id;

-- name: record_outcome*!
with outcome (id, status, attempts, next_attempt_at, reason, finished_at) as (
    values (:id, :status, :attempts, :next_attempt_at, :reason, :finished_at)
)
update deliveries set
    status = outcome.status, attempts = outcome.attempts, next_attempt_at = outcome.next_attempt_at, lease_until = null,
    reason = outcome.reason, finished_at = outcome.finished_at
from outcome
where deliveries.id = outcome.id and (deliveries.status = 'pending' or outcome.status = 'delivered');

-- name: give_back*!
with given (id) as (values (:id))
update deliveries set lease_until = null from given where deliveries.id = given.id and deliveries.status = 'pending';

-- name: due_deliveries
-- The next of these lanes that may be attempted, in the order of the lanes, but for those that another process holds. Of each
-- lane first attempts, then retries, where it takes any.
select deliveries.* from json_each(:lanes) as lanes cross join (select 0 as attempted union all select 1) as kinds
cross join deliveries
where deliveries.lane = lanes.value and case when attempts > 0 then 1 else 0 end = attempted and next_attempt_at <= :now
  and (attempted = 0 or lanes.value not in (select value from json_each(:no_retries)))
  and status = 'pending' and lease_until is null and deliveries.id >= ''
  and not exists (
      select 1 from lane_holders where lane_holders.lane = deliveries.lane and process_id <> :process_id
  )
limit :limit;
