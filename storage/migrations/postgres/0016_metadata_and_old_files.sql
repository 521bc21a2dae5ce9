-- Each value in the metadata of a task, as text, so that tasks are found by it. Of keys and values no more than their
-- first 100 characters: an index holds nothing much longer.

create table task_metadata (
    task_id text collate "C" not null references tasks (id),
    key text collate "C" not null,
    value text collate "C" not null,
    account_id text collate "C" not null,
    primary key (task_id, key, value)
);

-- A NUL, which JSON can say and text cannot hold, is stored as what stands for it in every parameter.
insert into task_metadata (task_id, key, value, account_id)
select tasks.id, left(has.key, 100), left(coalesce(has.value, 'null'), 100), tasks.account_id
from tasks cross join lateral json_each_text(
    cast(
        case
            when strpos(tasks.metadata, '\u0000') = 0 then tasks.metadata
            else regexp_replace(tasks.metadata, '(?<!\\)((\\\\)*)\\u0000', '\1\\ufffd', 'g')
        end as json
    )
) as has
on conflict do nothing;

create index task_metadata_by_value on task_metadata (account_id, key, value, task_id);

alter table task_metadata set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- What is to be forgotten of kept outputs is found without what is leaving, or stays.
drop index kept_files_by_age;
create index kept_files_by_age on kept_files (created_at) where status = 'kept';
create index kept_files_arriving on kept_files (created_at) where status = 'arriving';
create index kept_files_leaving on kept_files (name) where status = 'leaving';
