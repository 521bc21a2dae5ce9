-- Statements about tasks, as PostgreSQL wants them.

-- name: family^
-- The first that a task descends from, as far as they are kept, and how many descend from that, counted up to :most:
-- no more of a recursive query is carried out than is asked for.
with recursive line (id, parent_id) as (
    select id, parent_id from tasks where id = :id
    union all
    select tasks.id, tasks.parent_id from tasks join line on tasks.id = line.parent_id
),
root (id) as (select id from line where not exists (select 1 from tasks where tasks.id = line.parent_id)),
family (id) as (
    select id from root
    union all
    select tasks.id from tasks join family on tasks.parent_id = family.id
)
select (select id from root) as root,
    (select count(*) from (select 1 from family limit cast(:most as integer) + 1) as counted) - 1 as number;

-- name: due_to_send
-- Tasks whose create may go out to this provider now; those on their way have `sending_since`. Accounts take turns, who
-- was served longest ago first (:served is a JSON object of numbers); an account's own go by their age.
with recursive accounts (id) as (
    select min(account_id) from tasks
    where provider = :provider and next_send_at is not null and sending_since is null
    union all
    select (
        select min(account_id) from tasks
        where provider = :provider and account_id > accounts.id
          and next_send_at is not null and sending_since is null
    ) from accounts where accounts.id is not null
)
select tasks.* from (
    select due.id, due.next_send_at, coalesce(cast(cast(:served as json) ->> accounts.id as bigint), 0) as served,
        row_number() over (partition by accounts.id order by due.next_send_at, due.id) as turn
    from accounts cross join lateral (
        select id, next_send_at from tasks
        where provider = :provider and account_id = accounts.id
          and next_send_at <= :now and sending_since is null
        order by next_send_at, id limit :limit
    ) as due
) as line
join tasks on tasks.id = line.id
order by line.turn, line.served, line.next_send_at, line.id
limit :limit;

-- name: advance_task*!
-- As `save_task`, where only what the provider says has changed.
update tasks set
    status = :status, outputs = :outputs, error_code = :error_code, error_message = :error_message,
    error_refusal = :error_refusal, cost = :cost, sequence = :sequence, updated_at = :updated_at,
    submitted_at = :submitted_at, finished_at = :finished_at
where id = :id and status = :status_before and sequence = :sequence_before;

-- name: due_deadlines
select * from tasks
where deadline_at <= :now and overdue_at is null and finished_at is null
order by deadline_at
limit :limit
{skip_locked};

-- name: next_deadline_at$
select min(deadline_at) from tasks
where overdue_at is null and finished_at is null;
