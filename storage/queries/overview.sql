-- Statements for people who look at the whole of an account. Each reads a bounded number of rows: the latest ones.

-- name: count_tasks_over_time
-- By span and status; `first_id` bounds what is looked at in the index of ids, which begin with their moments.
select (created_at - :since) / :span as bucket, status, count(*) as number
from (
    select created_at, status from tasks
    where account_id = :account_id and id >= :first_id
    order by id desc limit :limit
) as found
group by bucket, status;

-- name: latest_delivered
-- When each came to be, and when it had arrived; without the archive's, whose endpoint is :but_endpoint_id.
select created_at, finished_at, status, replay_of from (
    select created_at, finished_at, status, replay_of, endpoint_id from deliveries
    where account_id = :account_id and id >= :first_id
    order by id desc limit :limit
) as found
where status = 'delivered' and replay_of is null and endpoint_id <> :but_endpoint_id;

-- name: count_dead_of_account$
-- Up to :limit.
select count(*) from (
    select 1 from deliveries where account_id = :account_id and status = 'dead' limit :limit
) as found;

-- name: list_dead_letters
select * from deliveries
where account_id = :account_id and status = 'dead' and id < coalesce(:before_id, 'dlv_g')
order by id desc
limit :limit;

-- name: latest_attempts_to_endpoint
-- Of its latest deliveries, those begun since a moment.
select attempts.started_at, attempts.duration_ms, attempts.outcome from (
    select id from deliveries where endpoint_id = :endpoint_id and account_id = :account_id order by id desc limit :limit
) as found
join attempts on attempts.delivery_id = found.id
where attempts.started_at >= :since;
