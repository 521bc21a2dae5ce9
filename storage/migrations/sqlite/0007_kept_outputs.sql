-- Outputs that are kept: their files in the store, and when to say that one is about to be lost.

create table kept_files (
    name text primary key,
    account_id text not null references accounts (id),
    task_id text not null references tasks (id),
    place integer not null check (place >= 0),
    role text not null check (role in ('output', 'preview')),
    status text not null check (status in ('arriving', 'kept', 'leaving')),
    content_type text not null,
    size integer not null check (size >= 0),
    sha256 text not null,
    created_at integer not null
) strict;
-- an output is kept once
create unique index kept_files_by_output on kept_files (task_id, place, role) where status = 'kept';
create index kept_files_by_task on kept_files (task_id);
create index kept_files_by_age on kept_files (created_at);

create table expiring_outputs (
    task_id text not null references tasks (id),
    place integer not null,
    notice_at integer not null,
    primary key (task_id, place)
) strict, without rowid;
create index expiring_outputs_due on expiring_outputs (notice_at);
-- what was made before there was a store, and is still there
insert into expiring_outputs (task_id, place, notice_at)
select tasks.id, output.key, (unixepoch(output.value ->> 'expires_at') - 3 * 86400) * 1000
from tasks, json_each(tasks.outputs) as output
where unixepoch(output.value ->> 'expires_at') > unixepoch();
