-- name: usage_by_metadata
-- What tasks that ended in a span of time have cost, by one of the values in their metadata, as text.
select (
        select case when has.type in ('true', 'false', 'null') then has.type else cast(has.value as text) end
        from json_each(tasks.metadata) as has where has.key = :key
    ) as value,
    cost, count(*) as tasks
from tasks
where account_id = :account_id and finished_at >= :since and finished_at < :until and cost is not null
group by 1, 2;
