-- Statements that forget, each a bounded number of rows. Ids begin with the moment at which they were made (UUIDv7),
-- so an id that no row has yet, made for a moment, bounds what is older: no index on times is needed.
-- Where not all that is old may go, the next are looked at after the last of those before, and tell whether they go: each
-- is looked at once, however many stay.

-- name: old_deliveries
-- Whether each has ended.
select id, status <> 'pending' as goes from deliveries where id > :after and id < :bound order by id limit :limit;

-- name: delete_attempts!
delete from attempts where delivery_id in (select value from json_each(:ids));

-- name: delete_deliveries!
delete from deliveries where id in (select value from json_each(:ids));

-- name: forget_callbacks!
delete from callbacks where id in (select id from callbacks where id < :bound order by id limit :limit);

-- name: old_events
-- Not the newest goes: positions in the log go on from it. Nor what is still to be delivered, or whose task goes on.
select events.id,
    (events.task_id is null or tasks.status in ('succeeded', 'failed', 'rejected'))
    and not exists (select 1 from deliveries where deliveries.event_id = events.id)
    and events.position < (select max(position) from events) as goes
from events left join tasks on tasks.id = events.task_id
where events.id > :after and events.id < :bound
order by events.id limit :limit;

-- name: forget_events!
delete from events where id in (select value from json_each(:ids));

-- name: old_endpoints
-- Deleted ones go, and those bound to tasks that have ended, once no delivery speaks of them.
select endpoints.id,
    (endpoints.deleted_at is not null or coalesce(tasks.status, '') in ('succeeded', 'failed', 'rejected'))
    and not exists (select 1 from deliveries where deliveries.endpoint_id = endpoints.id) as goes
from endpoints left join tasks on tasks.id = endpoints.task_id
where endpoints.id > :after and endpoints.id < :bound
order by endpoints.id limit :limit;

-- name: forget_endpoints!
delete from endpoints where id in (select value from json_each(:ids));

-- name: forget_idempotency_keys!
delete from idempotency_keys where (account_id, key) in (
    select account_id, key from idempotency_keys where created_at < :before order by created_at limit :limit
);

-- name: forget_ended_sessions!
delete from ended_sessions where nonce in (
    select nonce from ended_sessions where ends_at < :before order by ends_at limit :limit
);

-- name: old_tasks
-- Those go that ended long ago, and of which nothing else is left.
select tasks.id,
    finished_at is not null and finished_at < :before
    and not exists (select 1 from callbacks where callbacks.task_id = tasks.id)
    and not exists (select 1 from events where events.task_id = tasks.id)
    and not exists (select 1 from endpoints where endpoints.task_id = tasks.id)
    and not exists (select 1 from deliveries where deliveries.task_id = tasks.id)
    and not exists (select 1 from kept_files where kept_files.task_id = tasks.id)
    -- while an event of its parent could be delivered again, it tells that this was done
    and not exists (select 1 from events where events.task_id = tasks.parent_id) as goes,
    exists (select 1 from task_files where task_files.task_id = tasks.id) as has_files
from tasks
where tasks.id > :after and tasks.id < :bound
order by tasks.id limit :limit;

-- name: files_of_tasks
select distinct sha256 from task_files where task_id in (select value from json_each(:ids));

-- name: delete_task_files!
delete from task_files where task_id in (select value from json_each(:ids));

-- name: delete_task_metadata!
delete from task_metadata where task_id in (select value from json_each(:ids));

-- name: delete_transitions!
delete from transitions where task_id in (select value from json_each(:ids));

-- name: delete_task_idempotency!
delete from idempotency_keys where task_id in (select value from json_each(:ids));

-- name: delete_tasks!
delete from tasks where id in (select value from json_each(:ids));

-- name: files_in_use
select distinct sha256 from task_files where sha256 in (select value from json_each(:hashes));
