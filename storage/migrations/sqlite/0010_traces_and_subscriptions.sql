-- Since when an endpoint takes what it takes now (its types, its filter, whether it is enabled): what is said of an
-- event that happened before is said with that reserve. For those that are there already, nobody knows better.
alter table endpoints add column subscribed_at integer not null default 0;
update endpoints set subscribed_at = updated_at;
-- it is asked for all that an event could have gone to
create index endpoints_deleted on endpoints (account_id, deleted_at) where deleted_at is not null;

-- The W3C trace context of whoever submitted the task, or of the trace that was begun for it.
alter table tasks add column traceparent text;
alter table tasks add column tracestate text;
