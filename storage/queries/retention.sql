-- Statements that forget, each a bounded number of rows. Ids begin with the moment at which they were made (UUIDv7),
-- so an id that no row has yet, made for a moment, bounds what is older: no index on times is needed.
-- Where not all that is old may go, a slice is what lies between two ids: `:after`, up to which all was looked at
-- before, and `:last`. So each row is looked at once, however many stay.

-- name: next_old_deliveries$
select max(id) from (select id from deliveries where id > :after and id < :bound order by id limit :limit) as found;

-- name: next_old_events$
select max(id) from (select id from events where id > :after and id < :bound order by id limit :limit) as found;

-- name: next_old_endpoints$
select max(id) from (select id from endpoints where id > :after and id < :bound order by id limit :limit) as found;

-- name: next_old_commands$
select max(id) from (select id from commands where id > :after and id < :bound order by id limit :limit) as found;

-- name: next_old_tasks$
select max(id) from (select id from tasks where id > :after and id < :bound order by id limit :limit) as found;

-- name: old_deliveries
select id from deliveries where id > :after and id <= :last and status <> 'pending';

-- name: delete_attempts!
delete from attempts where delivery_id in (select value from json_each(:ids));

-- name: delete_deliveries!
delete from deliveries where id in (select value from json_each(:ids));

-- name: forget_callbacks!
delete from callbacks where id in (select id from callbacks where id < :bound order by id limit :limit);

-- name: forget_events!
-- Not the newest: positions in the log go on from it. Not those that are still to be delivered, or whose task goes on.
delete from events where id in (
    select events.id from events left join tasks on tasks.id = events.task_id
    where events.id > :after and events.id <= :last
      and (events.task_id is null or tasks.status in ('succeeded', 'failed', 'rejected'))
      and not exists (select 1 from deliveries where deliveries.event_id = events.id)
      and events.position < (select max(position) from events)
);

-- name: old_endpoints
-- Deleted ones, and those bound to tasks that have ended, once no delivery speaks of them.
select endpoints.id from endpoints left join tasks on tasks.id = endpoints.task_id
where endpoints.id > :after and endpoints.id <= :last
  and (endpoints.deleted_at is not null or tasks.status in ('succeeded', 'failed', 'rejected'))
  and not exists (select 1 from deliveries where deliveries.endpoint_id = endpoints.id);

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
-- Those of which nothing else is left. `|| ''` keeps the planner from all of one status.
select tasks.id from tasks
where tasks.id > :after and tasks.id <= :last
  and status || '' in ('succeeded', 'failed', 'rejected')
  and not exists (select 1 from callbacks where callbacks.task_id = tasks.id)
  and not exists (select 1 from events where events.task_id = tasks.id)
  and not exists (select 1 from endpoints where endpoints.task_id = tasks.id)
  and not exists (select 1 from deliveries where deliveries.task_id = tasks.id)
  and not exists (select 1 from kept_files where kept_files.task_id = tasks.id)
  -- while an event of its parent could be delivered again, it tells that this was done
  and not exists (select 1 from events where events.task_id = tasks.parent_id);

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
