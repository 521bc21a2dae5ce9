-- Statements about tasks. Lists of ids come as JSON arrays.

-- name: insert_task*!
insert into tasks (
    id, account_id, type, provider, status, input, places, external_task_id, provider_external_id, extras,
    path, metadata, parent_id, rule_id, depth, traceparent, tracestate, created_at, updated_at, deadline_at,
    next_send_at
) values (
    :id, :account_id, :type, :provider, :status, :input, :places, :external_task_id, :provider_external_id, :extras,
    :path, :metadata, :parent_id, :rule_id, :depth, :traceparent, :tracestate, :created_at, :updated_at, :deadline_at,
    :next_send_at
);

-- name: insert_task_metadata*!
insert into task_metadata (task_id, key, value, account_id) values (:task_id, :key, :value, :account_id);

-- name: insert_task_file*!
insert into task_files (sha256, task_id) values (:sha256, :task_id);

-- name: get_task^
select * from tasks where id = :id and account_id = :account_id;

-- name: glance_at_tasks
-- So much of them as is told where the same task is asked about again and again. Of all accounts.
select id, account_id, type, status, external_task_id, error_message, outputs, cost, created_at, updated_at
from tasks where id in (select value from json_each(:ids));

-- name: find_task^
-- By any of its names; what could be two tasks' is that of the one whose own it is.
select * from (
    select 1 as turn, tasks.* from tasks where id = :name and account_id = :account_id and type in (:type, :other_type)
    union all
    select 2 as turn, tasks.* from tasks
    where account_id = :account_id and external_task_id = :name and type in (:type, :other_type)
    union all
    select 3 as turn, tasks.* from tasks
    where account_id = :account_id and provider_task_id = :name and type in (:type, :other_type)
) as found
order by turn, id desc
limit 1;

-- name: get_tasks
select * from tasks where id in (select value from json_each(:ids));

-- name: tasks_to_change
-- Many at once, for the batch that is about to change them.
select * from tasks where id in (select value from json_each(:ids)) order by id {for_update};

-- name: free_tasks_to_change
-- The same, but for those that somebody else is changing.
select * from tasks where id in (select value from json_each(:ids)) order by id {skip_locked};

-- name: mark_sent_by!
update tasks set sent_by = :process_id where id in (select value from json_each(:ids));

-- name: find_external_task_ids
-- Which of these (account, external id) pairs are taken: {"account": …, "external": …} each.
select tasks.account_id, tasks.external_task_id, tasks.id
from json_each(:pairs) as pair
join tasks on tasks.account_id = pair.value ->> 'account' and tasks.external_task_id = pair.value ->> 'external';

-- name: list_children
-- In the order in which they were made. Found by their parent: `|| ''` keeps the planner from the account's tasks.
select id, type, status from tasks
where parent_id = :parent_id and account_id || '' = :account_id
order by id limit :limit;

-- name: standing_rules_of_line
-- The standing follow-ups that made a task and those that it descends from; one that is forgotten counts as such.
with recursive line (parent_id, rule_id) as (
    select parent_id, rule_id from tasks where id = :id
    union all
    select tasks.parent_id, tasks.rule_id from tasks join line on tasks.id = line.parent_id
)
select line.rule_id from line left join endpoints on endpoints.id = line.rule_id
where line.rule_id is not null and endpoints.task_id is null;

-- name: find_followed
-- What rules have already made of tasks: {"parent": …, "rule": …} each.
select tasks.parent_id, tasks.rule_id, tasks.id
from json_each(:pairs) as pair
join tasks on tasks.parent_id = pair.value ->> 'parent' and tasks.rule_id = pair.value ->> 'rule';

-- name: let_go_of_external_id!
update tasks set external_task_id = id where id = :id and status = 'rejected';

-- name: save_task*!
-- The condition on status and sequence is a guard, and no caller counts the rows: whoever saves a task holds its row since it
-- read it.
update tasks set
    status = :status, provider_task_id = :provider_task_id, outputs = :outputs, error_code = :error_code,
    error_message = :error_message, error_refusal = :error_refusal, cost = :cost, sequence = :sequence,
    updated_at = :updated_at, submitted_at = :submitted_at,
    finished_at = :finished_at, overdue_at = :overdue_at, sends = :sends, sending_since = :sending_since,
    next_send_at = :next_send_at, awaits_slot = :awaits_slot
where id = :id and status = :status_before and sequence = :sequence_before;

-- name: insert_transition*!
insert into transitions (task_id, sequence, before_status, after_status, at)
values (:task_id, :sequence, :before_status, :after_status, :at);

-- name: list_transitions
select * from transitions where task_id = :task_id order by sequence;

-- name: task_before$
-- When the last one that sorts before an id was made.
select created_at from tasks where account_id = :account_id and id < :id order by id desc limit 1;

-- name: task_from$
-- When the first one that sorts from an id on was made.
select created_at from tasks where account_id = :account_id and id >= :id order by id limit 1;

-- name: task_ids
-- Newest first, as in the three that follow. Each reads an index of its own, and nothing else.
-- Ids are `task_` and hexadecimal digits: 'task_g' is after all of them. A bound in this form is found in the index.
select id from tasks
where account_id = :account_id
  and id >= coalesce(:first_id, 'task_') and id < coalesce(:before_id, 'task_g')
order by id desc
limit :limit;

-- name: task_ids_in_status
select id from tasks
where status = :status and account_id = :account_id
  and id >= coalesce(:first_id, 'task_') and id < coalesce(:before_id, 'task_g')
order by id desc
limit :limit;

-- name: task_ids_of_type
select id from tasks
where account_id = :account_id and type = :type
  and id >= coalesce(:first_id, 'task_') and id < coalesce(:before_id, 'task_g')
order by id desc
limit :limit;

-- name: task_ids_with_metadata
select task_id as id from task_metadata
where account_id = :account_id and key = :key and value = :value
  and task_id >= coalesce(:first_id, 'task_') and task_id < coalesce(:before_id, 'task_g')
order by task_id desc
limit :limit;

-- name: of_these_in_status
-- Newest first, as in the two that follow. None of them reads more than an index, either.
select id from tasks
where status = :status and account_id = :account_id and id in (select value from json_each(:ids))
order by id desc;

-- name: of_these_of_type
select id from tasks
where account_id = :account_id and type = :type and id in (select value from json_each(:ids))
order by id desc;

-- name: of_these_with_metadata
select task_id as id from task_metadata
where account_id = :account_id and key = :key and value = :value
  and task_id in (select value from json_each(:ids))
order by task_id desc;

-- name: list_tasks
-- Of these, newest first. A bound that is null bounds nothing.
select * from tasks
where id in (select value from json_each(:ids))
  and (cast(:created_after as bigint) is null or created_at >= :created_after)
  and (cast(:created_before as bigint) is null or created_at < :created_before)
order by id desc;

-- name: list_tasks_of_type
-- Newest first. What is skipped is skipped in the index.
select * from tasks
where id in (
    select id from tasks where account_id = :account_id and type = :type order by id desc limit :limit offset :skip
)
order by id desc;

-- name: list_tasks_of_two_types
-- As above. What may be on the page is looked for in the index for each of them.
select * from tasks
where id in (
    select id from (
        select id from (
            select id from tasks where account_id = :account_id and type = :type order by id desc limit :reach
        ) as one
        union all
        select id from (
            select id from tasks where account_id = :account_id and type = :other_type order by id desc limit :reach
        ) as other
    ) as both_types
    order by id desc limit :limit offset :skip
)
order by id desc;

-- name: count_tasks_by_status
select status, count(*) as number from tasks group by status;

-- name: next_sends
-- Of each provider for which a create waits: when the first may go out.
with recursive providers (name) as (
    select min(provider) from tasks where next_send_at is not null and sending_since is null
    union all
    select (
        select min(provider) from tasks
        where provider > providers.name and next_send_at is not null and sending_since is null
    ) from providers where providers.name is not null
)
select providers.name as provider, (
    select min(next_send_at) from tasks
    where provider = providers.name and next_send_at is not null and sending_since is null
) as next_send_at
from providers where providers.name is not null;

-- name: interrupted_sends
-- Creates that were on their way when their process died: any, or one of these. `>= 0` and `|| ''` lead the planner to
-- the few that are on their way, instead of all by their ids.
select * from tasks
where sending_since >= 0
  and (cast(:processes as text) is null or sent_by in (select value from json_each(:processes)))
order by id || ''
limit :limit
{for_update};

-- name: insert_callback*!
insert into callbacks (id, task_id, provider, received_at, verdict, reason, body)
values (:id, :task_id, :provider, :received_at, :verdict, :reason, :body);

-- name: list_callbacks
select * from callbacks
where task_id = :task_id and id > coalesce(:after_id, 'cbk_')
order by id
limit :limit;

-- name: list_latest_callbacks
select * from callbacks
where task_id = :task_id
order by id desc
limit :limit;

-- name: find_idempotency_keys
-- Those of these (account, key) pairs that are remembered: {"account": …, "key": …} each.
select idempotency_keys.*
from json_each(:pairs) as pair
join idempotency_keys
  on idempotency_keys.account_id = pair.value ->> 'account' and idempotency_keys.key = pair.value ->> 'key';

-- name: insert_idempotency_key*!
insert into idempotency_keys (account_id, key, body_hash, task_id, created_at)
values (:account_id, :key, :body_hash, :task_id, :created_at)
on conflict (account_id, key) do update set
    body_hash = excluded.body_hash, task_id = excluded.task_id, created_at = excluded.created_at,
    answer_status = null, answer_body = null;

-- name: remember_answer*!
update idempotency_keys set answer_status = :answer_status, answer_body = :answer_body
where account_id = :account_id and key = :key and task_id = :task_id and answer_status is null;
