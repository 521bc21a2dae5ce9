-- Statements about chat bots, what they were asked, and their messages. A deleted bot stays as a row.

-- name: insert_bot!
insert into bots (
    id, account_id, platform, config, credentials, allow, open_tasks, description, created_at, updated_at
) values (
    :id, :account_id, :platform, :config, :credentials, :allow, :open_tasks, :description, :created_at, :updated_at
);

-- name: get_bot^
select * from bots where id = :id and deleted_at is null;

-- name: list_bots
select * from bots
where account_id = :account_id and deleted_at is null
  and id < coalesce(:before_id, 'bot_g')  -- after all ids, and found in the index
order by id desc
limit :limit;

-- name: count_bots
select account_id, count(*) as number from bots
where account_id in (select value from json_each(:accounts)) and deleted_at is null
group by account_id;

-- name: save_bot!
update bots set
    config = :config, credentials = :credentials, allow = :allow, open_tasks = :open_tasks,
    description = :description, updated_at = :updated_at
where id = :id and deleted_at is null;

-- name: delete_bot!
update bots set deleted_at = :now, updated_at = :now, credentials = null where id = :id and deleted_at is null;

-- name: stop_commands_of_bot!
update commands set next_try_at = null where bot_id = :bot_id and next_try_at is not null;

-- name: insert_command!
-- The same once more is no second one.
insert into commands (id, bot_id, key, person, asked, next_try_at, created_at)
values (:id, :bot_id, :key, :person, :asked, :next_try_at, :created_at)
on conflict (bot_id, key) do nothing;

-- name: command_by_key^
select * from commands where bot_id = :bot_id and key = :key;

-- name: due_commands
-- Not those that are begun already, nor those of accounts and bots that have enough of them. An account's first is as
-- far from its turn as it has others begun, its second one further, and so on. Cross joins keep SQLite to their order:
-- by what is due, however much there is of what is done.
with turns as (
    select commands.id, commands.next_try_at, bots.account_id,
        row_number() over (partition by bots.account_id order by commands.next_try_at, commands.id)
        + (select count(*) from json_each(:accounts) where value = bots.account_id) as turn
    from commands cross join bots
    where bots.id = commands.bot_id and commands.next_try_at <= :now and commands.taken_by is null
      and commands.id not in (select value from json_each(:begun))
      and commands.bot_id not in (select value from json_each(:busy_bots))
      and bots.account_id not in (select value from json_each(:busy_accounts))
),
chosen as (select * from turns order by turn, next_try_at, id limit :limit)

select commands.*, chosen.account_id
from chosen cross join commands
where commands.id = chosen.id
order by chosen.turn, chosen.next_try_at, chosen.id
{skip_locked};

-- name: take_commands!
update commands set taken_by = :process_id where id in (select value from json_each(:ids));

-- name: give_back_commands!
update commands set taken_by = null
where taken_by = :process_id and id not in (select value from json_each(:but));

-- name: inherit_commands!
-- Begun by processes that are no more: any, or these.
update commands set taken_by = null
where taken_by is not null
  and (cast(:processes as text) is null or taken_by in (select value from json_each(:processes)));

-- name: commands_beginning
-- Not by LIKE: the prefix is a platform's, and may hold what LIKE takes for a wildcard.
select * from commands
where bot_id = :bot_id and person = :person and created_at >= :since
  and substr(key, 1, length(cast(:prefix as text))) = :prefix
order by id
limit :limit;

-- name: next_command_at$
select min(commands.next_try_at)
from commands cross join bots
where bots.id = commands.bot_id and commands.next_try_at is not null and commands.taken_by is null
  and commands.id not in (select value from json_each(:begun))
  and commands.bot_id not in (select value from json_each(:busy_bots))
  and bots.account_id not in (select value from json_each(:busy_accounts));

-- name: save_command!
update commands set tries = :tries, next_try_at = :next_try_at, task_id = :task_id, taken_by = null where id = :id;

-- name: tasks_of_person
-- Newest first; with those commands that are still to become one.
select commands.id as command_id, tasks.*
from commands left join tasks on tasks.id = commands.task_id
where commands.bot_id = :bot_id and commands.person = :person
  and (commands.next_try_at is not null or tasks.id is not null)
order by commands.id desc
limit :limit;

-- name: count_open_of_person$
-- Not what the provider may have, but whose callback may be lost: it would be open for good.
select count(*) from commands left join tasks on tasks.id = commands.task_id
where commands.bot_id = :bot_id and commands.person = :person
  and (
      commands.next_try_at is not null
      or tasks.status = 'queued'
      or (tasks.status in ('submitted', 'processing', 'unconfirmed') and tasks.overdue_at is null)
  );

-- name: is_task_of_bot$
select count(*) from commands where bot_id = :bot_id and task_id = :task_id;

-- name: get_chat_message^
select * from chat_messages where endpoint_id = :endpoint_id and task_id = :task_id;

-- name: save_chat_message!
insert into chat_messages (endpoint_id, task_id, reference, sequence)
values (:endpoint_id, :task_id, :reference, :sequence)
on conflict (endpoint_id, task_id) do update set reference = excluded.reference, sequence = excluded.sequence;

-- name: old_commands
-- Those go that are done, and whose task is.
select commands.id,
    commands.next_try_at is null
    and (tasks.id is null or tasks.status in ('succeeded', 'failed', 'rejected')) as goes
from commands left join tasks on tasks.id = commands.task_id
where commands.id > :after and commands.id < :bound
order by commands.id limit :limit;

-- name: forget_commands!
delete from commands where id in (select value from json_each(:ids));

-- name: delete_chat_messages!
delete from chat_messages where endpoint_id in (select value from json_each(:ids));

-- name: delete_chat_messages_of_tasks!
delete from chat_messages where task_id in (select value from json_each(:ids));
