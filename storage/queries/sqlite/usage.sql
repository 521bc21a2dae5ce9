-- name: usage_by_metadata
-- What tasks that ended in a span of time have cost, by one of the values in their metadata, as text: the one by which tasks
-- are found. A NUL, which JSON can say and its functions cut texts off at, is read as what stands for it; what looks like one
-- after an escaped backslash is none. `->` gives a number as it is written; it finds no key that has quotes in it.
select (
        select case
            when has.type = 'text' then has.value
            when has.type in ('true', 'false', 'null') then has.type
            else coalesce(tasks.metadata -> has.fullkey, cast(has.value as text))
        end
        from json_each(
            case
                when instr(tasks.metadata, '\u0000') = 0 then tasks.metadata
                else replace(replace(replace(tasks.metadata, '\\', char(1)), '\u0000', '\ufffd'), char(1), '\\')
            end
        ) as has
        where has.key = :key
    ) as value,
    cost, count(*) as tasks
from tasks
where account_id = :account_id and finished_at >= :since and finished_at < :until and cost is not null
group by 1, 2;
