-- Each value in the metadata of a task, as text, so that tasks are found by it. Of keys and values no more than their
-- first 100 characters: an index holds nothing much longer.

create table task_metadata (
    task_id text not null references tasks (id),
    key text not null,
    value text not null,
    account_id text not null,
    primary key (task_id, key, value)
) strict, without rowid;

-- A NUL, which JSON can say and its functions cut texts off at, is stored as what stands for it; what looks like one after
-- an escaped backslash is none. `->` gives a number as it is written; it finds no key that has quotes in it.
insert or ignore into task_metadata (task_id, key, value, account_id)
select tasks.id, substr(has.key, 1, 100),
    substr(
        case
            when has.type = 'text' then has.value
            when has.type in ('true', 'false', 'null') then has.type
            else coalesce(tasks.metadata -> has.fullkey, cast(has.value as text))
        end,
        1, 100
    ),
    tasks.account_id
from tasks, json_each(
    case
        when instr(tasks.metadata, '\u0000') = 0 then tasks.metadata
        else replace(replace(replace(tasks.metadata, '\\', char(1)), '\u0000', '\ufffd'), char(1), '\\')
    end
) as has;

create index task_metadata_by_value on task_metadata (account_id, key, value, task_id);

-- What is to be forgotten of kept outputs is found without what is leaving, or stays.
drop index kept_files_by_age;
create index kept_files_by_age on kept_files (created_at) where status = 'kept';
create index kept_files_arriving on kept_files (created_at) where status = 'arriving';
create index kept_files_leaving on kept_files (name) where status = 'leaving';
