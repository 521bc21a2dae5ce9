-- Statements about endpoints. A deleted one stays as a row, for the deliveries that went to it.

-- name: insert_endpoint*!
insert into endpoints (
    id, account_id, task_id, kind, config, credentials, types, filter, description, rate_per_minute, enabled,
    disabled_reason, secrets, created_at, updated_at, subscribed_at
) values (
    :id, :account_id, :task_id, :kind, :config, :credentials, :types, :filter, :description, :rate_per_minute,
    :enabled, :disabled_reason, :secrets, :created_at, :updated_at, :created_at
);

-- name: ensure_endpoint*!
insert into endpoints (
    id, account_id, task_id, kind, config, credentials, types, filter, description, rate_per_minute, enabled,
    disabled_reason, secrets, created_at, updated_at, subscribed_at
) values (
    :id, :account_id, :task_id, :kind, :config, :credentials, :types, :filter, :description, :rate_per_minute,
    :enabled, :disabled_reason, :secrets, :created_at, :updated_at, :created_at
)
on conflict (id) do nothing;

-- name: get_endpoint^
-- An archive is nobody's to look at or to change.
select * from endpoints
where id = :id and account_id = :account_id and kind <> 'archive' and deleted_at is null;

-- name: list_endpoints
select * from endpoints
where account_id = :account_id and task_id is null and kind <> 'archive' and deleted_at is null
  and id < coalesce(:before_id, 'end_g')  -- after all ids, and found in the index
order by id desc
limit :limit;

-- name: ids_of_own_endpoints
-- Of an account, those that are bound to no task, its archive too.
select id from endpoints where account_id = :account_id and task_id is null and deleted_at is null;

-- name: count_endpoints
-- Each account's own.
select account_id, count(*) as number from endpoints
where account_id in (select value from json_each(:accounts)) and task_id is null and kind <> 'archive'
  and deleted_at is null
group by account_id;

-- name: endpoints_of
-- Those that events of these accounts and tasks may go to, but for archives, which get theirs without being asked.
select * from endpoints
where account_id in (select value from json_each(:accounts)) and task_id is null and kind <> 'archive'
  and deleted_at is null
union all
select * from endpoints
where task_id in (select value from json_each(:tasks)) and deleted_at is null;

-- name: endpoints_of_tasks
-- As `endpoints_of`, of these tasks and their accounts.
select * from endpoints
where account_id in (select account_id from tasks where id in (select value from json_each(:ids)))
  and task_id is null and kind <> 'archive' and deleted_at is null
union all
select * from endpoints
where task_id in (select value from json_each(:ids)) and deleted_at is null;

-- name: endpoints_by_id
select * from endpoints where id in (select value from json_each(:ids)) and deleted_at is null;

-- name: endpoints_at
-- Those that an event of this account, and of this task, could have gone to, the oldest first: also what was deleted
-- after it, and what was made after it and is still there. Archives are nobody's to look at.
select * from (
    select * from endpoints
    where account_id = :account_id and task_id is null and deleted_at is null and id > :after_id
    union all
    select * from endpoints
    where task_id = :task_id and deleted_at is null and id > :after_id
    union all
    select * from endpoints
    where account_id = :account_id and deleted_at >= :at and created_at <= :at and id > :after_id
      and (task_id is null or task_id = :task_id)
) as candidates
where kind <> 'archive'
order by id
limit :limit;

-- name: endpoint_at
-- One alone, whatever task it is bound to.
select * from endpoints
where id = :id and account_id = :account_id and kind <> 'archive' and (deleted_at is null or deleted_at >= :at);

-- name: save_endpoint!
update endpoints set
    subscribed_at = case
        when types <> :types or filter is distinct from :filter or enabled <> :enabled then :updated_at
        else subscribed_at
    end,
    config = :config, credentials = :credentials, types = :types, filter = :filter, description = :description,
    rate_per_minute = :rate_per_minute, enabled = :enabled, disabled_reason = :disabled_reason, secrets = :secrets,
    failures = :failures, failing_since = :failing_since, updated_at = :updated_at
where id = :id and deleted_at is null;

-- name: save_endpoint_health*!
-- Only what attempts change: a person's edit in between stays.
update endpoints set failures = :failures, failing_since = :failing_since,
    subscribed_at = case
        when cast(:disabled_reason as text) is not null and enabled = 1 then :updated_at else subscribed_at
    end,
    enabled = case when :disabled_reason is null then enabled else 0 end,
    disabled_reason = coalesce(:disabled_reason, disabled_reason), updated_at = :updated_at
where id = :id;

-- name: forget_endpoint_failures*!
update endpoints set failures = 0, failing_since = null, updated_at = :updated_at
where id = :id and failures > 0;

-- name: delete_endpoint!
update endpoints set deleted_at = :now, updated_at = :now
where id = :id and deleted_at is null;
