-- Chat bots: who may command them, what they were asked, and which of their messages stands for which task.

create table bots (
    id text primary key,
    account_id text not null references accounts (id),
    platform text not null,
    config text not null,
    credentials text,
    allow text not null,
    open_tasks integer not null check (open_tasks >= 1),
    description text,
    created_at integer not null,
    updated_at integer not null,
    deleted_at integer
) strict;
create index bots_by_account on bots (account_id, id) where deleted_at is null;

-- what was asked, on disk before it is answered; `asked` is sealed: it holds addresses that let one speak
create table commands (
    id text primary key,
    bot_id text not null references bots (id),
    key text not null,
    person text not null,
    asked text not null,
    tries integer not null default 0 check (tries >= 0),
    next_try_at integer,
    task_id text,
    created_at integer not null,
    unique (bot_id, key)
) strict;
create index commands_due on commands (next_try_at) where next_try_at is not null;
create index commands_by_person on commands (bot_id, person, id);
create index commands_by_task on commands (task_id) where task_id is not null;

-- the one message in a chat that is edited as a task goes on; `reference` is the platform's name of it
create table chat_messages (
    endpoint_id text not null references endpoints (id),
    task_id text not null references tasks (id),
    reference text not null,
    sequence integer not null,
    primary key (endpoint_id, task_id)
) strict, without rowid;
create index chat_messages_by_task on chat_messages (task_id);
