-- Statements about events.

-- name: insert_event*!
insert into events (position, id, account_id, task_id, type, sequence, at, body)
values (:position, :id, :account_id, :task_id, :type, :sequence, :at, :body);

-- name: events_by_id
-- With the trace contexts of their tasks, for they are about to be told.
select events.*, tasks.traceparent, tasks.tracestate
from events left join tasks on tasks.id = events.task_id
where events.id in (select value from json_each(:ids));

-- name: get_event^
select * from events where id = :id and account_id = :account_id;

-- name: list_events
-- In the order of the log. A filter that is null filters nothing.
select * from events
where account_id = :account_id
  and position > :after_position
  and (cast(:type as text) is null or type = :type)
order by position
limit :limit;

-- name: list_events_latest
-- Newest first, for people who look at a log.
select * from events
where account_id = :account_id
  and position < coalesce(:before_position, 9223372036854775807)
  and (cast(:type as text) is null or type = :type)
order by position desc
limit :limit;

-- name: list_task_events
select * from events where task_id = :task_id and position > :after_position order by position limit :limit;

-- name: event_position$
select position from events where id = :id and account_id = :account_id;

-- name: last_position$
select max(position) from events where account_id = :account_id;

-- name: position_from$
-- Of any account's event. The newest one is never forgotten: where there is none, there never was one, or a backup without
-- it was restored.
select position from events where position >= :position order by position limit 1;

-- name: moment_up_to$
-- Of an account's last event up to a position.
select at from events where account_id = :account_id and position <= :position order by position desc limit 1;
