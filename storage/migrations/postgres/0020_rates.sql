-- Attempts to an endpoint begin no more often than so many times a minute; null is no limit. Those that are bound to tasks
-- share their lanes, and have none.
alter table endpoints add column rate_per_minute integer
    check (rate_per_minute is null or (rate_per_minute between 1 and 60000 and task_id is null));
