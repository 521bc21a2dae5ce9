-- name: any_awaiting_slot^
select 1 as waits from tasks where awaits_slot = 1 limit 1;

-- name: first_awaiting_slot
-- Who of each account is first in line for a place, at each provider for each kind. Against another column SQLite would look
-- for the provider alone, and read all that waits there for each step: hence `|| ''`.
with recursive heads (provider, type, account_id, slot_turn, id, places) as (
    select * from (
        select provider, type, account_id, slot_turn, id, places from tasks where awaits_slot = 1
        order by provider, type, account_id, slot_turn, id limit 1
    ) as head
    union all
    select tasks.provider, tasks.type, tasks.account_id, tasks.slot_turn, tasks.id, tasks.places
    from heads join tasks on tasks.id = (
        select id from tasks as later
        where awaits_slot = 1
          and (provider, type, account_id) > (heads.provider || '', heads.type || '', heads.account_id || '')
        order by provider, type, account_id, slot_turn, id limit 1
    )
)
select * from heads;

-- name: asking_for_places
-- Who has waited for several places and is asking for them right now.
select provider, type, account_id, slot_turn, id, places from tasks
where sending_since >= 0 and status = 'queued' and places > 1 and next_send_at > created_at;

-- name: kinds_at_providers
-- The kinds of which the provider has a task now, or is being sent one. Those long overdue hold nothing any more; what was
-- overdue before it was sent, because the line was long, has from then on as long as any other.
select distinct provider, type from tasks
where (
    overdue_at is null
    or (
        coalesce(sending_since, submitted_at, updated_at) > overdue_at
        and coalesce(sending_since, submitted_at, updated_at) + deadline_at - created_at > :now
    )
) and (status in ('submitted', 'processing', 'unconfirmed') or (status = 'queued' and sending_since is not null));

-- name: places_at_providers
-- As above, and how many places they take.
select provider, type, cast(sum(places) as bigint) as places from tasks
where (
    overdue_at is null
    or (
        coalesce(sending_since, submitted_at, updated_at) > overdue_at
        and coalesce(sending_since, submitted_at, updated_at) + deadline_at - created_at > :now
    )
) and (status in ('submitted', 'processing', 'unconfirmed') or (status = 'queued' and sending_since is not null))
group by provider, type;

-- name: go_to_end_of_line!
-- Those who have been there as often, and need so many places or more.
update tasks set slot_turn = slot_turn + 1
where id in (
    select id from tasks
    where awaits_slot = 1 and provider = :provider and type = :type and slot_turn = :slot_turn and places >= :places
    order by id
    {skip_locked}
);

-- name: release_slots
update tasks set next_send_at = :now, awaits_slot = 0
where id in (
    select id from tasks
    where awaits_slot = 1 and id in (select value from json_each(:ids))
    order by id
    {skip_locked}
)
returning id;

-- name: list_pools
select * from pools;

-- name: save_pool*!
insert into pools (provider, kind, seeking, refused, left_at)
values (:provider, :kind, :seeking, :refused, :left_at)
on conflict (provider, kind)
do update set seeking = excluded.seeking, refused = excluded.refused, left_at = excluded.left_at;

-- name: list_turns
select * from turns;

-- name: save_turn*!
insert into turns (provider, kind, account_id, number)
values (:provider, :kind, :account_id, :number)
on conflict (provider, kind, account_id) do update set number = excluded.number;

-- name: forget_turns*!
delete from turns where provider = :provider and kind = :kind;
