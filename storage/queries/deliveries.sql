-- Statements about deliveries. Pending and without a lease: waits for its moment. With one: somebody has it in hand.

-- name: insert_delivery*!
insert into deliveries (
    id, account_id, event_id, event_type, task_id, endpoint_id, lane, status, next_attempt_at, lease_until, leased_by,
    replay_of, created_at
) values (
    :id, :account_id, :event_id, :event_type, :task_id, :endpoint_id, :lane, 'pending', :next_attempt_at, :lease_until,
    :leased_by, :replay_of, :created_at
);

-- name: lanes_waited_for
-- Those for which something waits, and since or until when; but for those that are full, or held by another process, and for
-- the retries of those that take no more of these. From each lane to the next is one step, however much waits in it.
with recursive waiting (lane) as (
    select min(lane) from deliveries where status = 'pending' and lease_until is null and id >= ''
    union all
    select (
        select min(deliveries.lane) from deliveries
        where status = 'pending' and lease_until is null and id >= '' and deliveries.lane > waiting.lane
    ) from waiting where lane is not null
), found (lane, next_attempt_at) as materialized (
    select lane, (
        select min(next_attempt_at) from deliveries
        where status = 'pending' and lease_until is null and id >= '' and deliveries.lane = waiting.lane
          and case when attempts > 0 then 1 else 0 end = attempted
    )
    from waiting cross join (select 0 as attempted union all select 1) as kinds
    where lane is not null and lane not in (select value from json_each(:busy_lanes))
      and (attempted = 0 or lane not in (select value from json_each(:no_retries)))
      and not exists (
          select 1 from lane_holders where lane_holders.lane = waiting.lane and process_id <> :process_id
      )
)
select lane, min(next_attempt_at) as next_attempt_at from found
where next_attempt_at is not null
group by lane
order by min(next_attempt_at), lane
limit :limit;

-- name: next_lease_end$
select min(lease_until) from deliveries where lease_until is not null;

-- name: leases_ending
-- Of what a process has in its hands, that which it would not have for much longer.
select id from deliveries where lease_until is not null and lease_until <= :before and leased_by = :process_id
{skip_locked};

-- name: leased_deliveries
-- What the database says that a process has in its hands.
select id from deliveries where lease_until is not null and leased_by = :process_id;

-- name: endpoints_awaited
-- Those of these for which something that was never attempted waits in the database.
select listed.value as endpoint_id from json_each(:ids) as listed
where (
    select true from deliveries
    where endpoint_id = listed.value and status = 'pending' and lease_until is null and attempts >= 0
      and attempts <= 0
    limit 1
);

-- name: move_deliveries!
-- What is under way to an endpoint that leads somewhere else now.
update deliveries set lane = :lane where endpoint_id = :endpoint_id and status = 'pending';

-- name: inherit_deliveries!
-- Gives back what was in the hands of processes that are no more.
update deliveries set lease_until = null
where lease_until is not null and leased_by in (select value from json_each(:processes));

-- name: rescue_deliveries!
-- Gives back what was in the hand of a process that is no more.
update deliveries set lease_until = null where lease_until is not null and lease_until <= :now;

-- name: bury_waiting!
-- What waits for an endpoint that takes no more becomes dead letters, which a person can replay.
update deliveries set status = 'dead', next_attempt_at = null, reason = :reason, finished_at = :now
where endpoint_id = :endpoint_id and status = 'pending' and lease_until is null and attempts >= 0;

-- name: bury_leased!
-- And what somebody has in hand for it, few as they are. `|| ''` keeps the planner from all that has gone there.
update deliveries set status = 'dead', next_attempt_at = null, lease_until = null, reason = :reason,
    finished_at = :now
where endpoint_id || '' = :endpoint_id and lease_until >= 0;

-- name: bury_delivery*!
update deliveries set status = 'dead', next_attempt_at = null, lease_until = null, reason = :reason,
    finished_at = :now
where id = :id and status = 'pending';

-- name: revive_delivery*!
-- What was buried meanwhile, for a reason of its own, stays so.
update deliveries set status = 'pending', next_attempt_at = :now, finished_at = null
where id = :id and status = 'dead' and reason = :reason;

-- name: insert_attempt*!
insert into attempts (delivery_id, number, started_at, duration_ms, status_code, outcome, reason, excerpt)
values (:delivery_id, :number, :started_at, :duration_ms, :status_code, :outcome, :reason, :excerpt)
on conflict (delivery_id, number) do nothing;

-- name: get_delivery^
select * from deliveries where id = :id and account_id = :account_id;

-- name: list_deliveries
-- Newest first. A filter that is null filters nothing. 'dlv_g' is after all ids; a bound in this form is found in the
-- index. So are the task, the event and the endpoint in the statements for these alone.
select * from deliveries
where account_id = :account_id
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:endpoint_id as text) is null or endpoint_id = :endpoint_id)
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
  and (cast(:status as text) is null or status = :status)
  and (cast(:event_id as text) is null or event_id = :event_id)
  and (cast(:task_id as text) is null or task_id = :task_id)
order by id desc
limit :limit;

-- name: list_dead_deliveries
-- The dead have an index of their own.
select * from deliveries
where account_id = :account_id and status = 'dead'
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:endpoint_id as text) is null or endpoint_id = :endpoint_id)
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
order by id desc
limit :limit;

-- name: list_pending_deliveries
-- Those that are pending are few beside those that have ended. `|| ''` keeps the planner from the latter. What waits is found
-- in the account's lanes, those of hosts and its endpoints' own: what waits for other accounts, however much, is not read.
select * from deliveries
where account_id || '' = :account_id
  and id in (
      select id from deliveries
      where status = 'pending' and lease_until is null and id >= '' and lane > cast(:account_id as text) || '/'
        and lane < cast(:account_id as text) || '0'  -- which comes after '/'
      union all
      select id from deliveries
      where status = 'pending' and lease_until is null and attempts >= 0
        and endpoint_id in (select value from json_each(:own_endpoints))
      union all
      select id from deliveries where lease_until >= 0
  )
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:endpoint_id as text) is null or endpoint_id = :endpoint_id)
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
order by id desc
limit :limit;

-- name: list_deliveries_of_task
select * from deliveries
where account_id = :account_id and task_id = :task_id
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:endpoint_id as text) is null or endpoint_id = :endpoint_id)
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
  and (cast(:status as text) is null or status = :status)
  and (cast(:event_id as text) is null or event_id = :event_id)
order by id desc
limit :limit;

-- name: list_deliveries_of_event
-- `|| ''` keeps the planner from the account's deliveries.
select * from deliveries
where account_id || '' = :account_id and event_id = :event_id
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:endpoint_id as text) is null or endpoint_id = :endpoint_id)
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
  and (cast(:status as text) is null or status = :status)
  and (cast(:task_id as text) is null or task_id = :task_id)
order by id desc
limit :limit;

-- name: list_deliveries_to_endpoint
select * from deliveries
where account_id = :account_id and endpoint_id = :endpoint_id
  and id < coalesce(:before_id, 'dlv_g')
  and (cast(:but_endpoint_id as text) is null or endpoint_id <> :but_endpoint_id)
  and (cast(:status as text) is null or status = :status)
  and (cast(:event_id as text) is null or event_id = :event_id)
  and (cast(:task_id as text) is null or task_id = :task_id)
order by id desc
limit :limit;

-- name: latest_deliveries_of_event
-- The newest of an event to each of these endpoints, and how many there are.
select deliveries.*, found.number from (
    select max(id) as id, count(*) as number from deliveries
    where event_id = :event_id and endpoint_id in (select value from json_each(:endpoint_ids))
    group by endpoint_id
) as found join deliveries on deliveries.id = found.id;

-- name: list_attempts
select * from attempts where delivery_id = :delivery_id order by number;

-- name: oldest_due$
-- In two parts, of which each has an index of its own.
select min(at) from (
    select min(next_attempt_at) as at from deliveries
    where status = 'pending' and lease_until is null and next_attempt_at >= 0 and next_attempt_at <= :now
    union all
    select min(next_attempt_at) from deliveries where lease_until is not null and next_attempt_at <= :now
) as due;

-- name: count_dead$
select count(*) from deliveries where status = 'dead';

-- name: failed_since
-- The dead letters of an endpoint, for a replay that began then; one that was replayed since is left out, and so is what the
-- replay itself has made: where each dies at once it would never end. `|| ''` keeps the planner from all that went there.
select deliveries.* from deliveries
where account_id = :account_id and endpoint_id || '' = :endpoint_id and status = 'dead' and created_at >= :since
  and id > :after_id and (replay_of is null or created_at < :began)
  and not exists (
      select 1 from deliveries as again
      where again.event_id = deliveries.event_id and again.endpoint_id = deliveries.endpoint_id
        and again.replay_of = deliveries.id
  )
order by id
limit :limit;

-- name: deliveries_of_events
-- The first duty of each of these events to this endpoint.
select * from deliveries
where endpoint_id = :endpoint_id and replay_of is null and event_id in (select value from json_each(:event_ids));
