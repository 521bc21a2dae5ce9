-- name: usage_by_metadata
-- What tasks that ended in a span of time have cost, by one of the values in their metadata, as text.
-- A NUL, which JSON can say and text cannot hold, is read as what stands for it in every parameter.
select (
        select coalesce(has.value, 'null')
        from json_each_text(
            cast(
                case
                    when strpos(tasks.metadata, '\u0000') = 0 then tasks.metadata
                    else regexp_replace(tasks.metadata, '(?<!\\)((\\\\)*)\\u0000', '\1\\ufffd', 'g')
                end as json
            )
        ) as has
        where has.key = :key
        limit 1
    ) as value,
    cost, count(*) as tasks
from tasks
where account_id = :account_id and finished_at >= :since and finished_at < :until and cost is not null
group by 1, 2;
