-- The id under which the provider knows a task, and turns in the line for its places.

alter table tasks add column provider_external_id text not null default '';
update tasks set provider_external_id = external_task_id;

-- of the provider's parallel places: one for each picture, one for a video
alter table tasks add column places integer not null default 1;
update tasks set places = coalesce(input ->> 'n', 1);
-- how often it has been sent to the end of the line: it did not fit although nothing else ran
alter table tasks add column slot_turn integer not null default 0;
drop index tasks_awaiting_slot;
create index tasks_awaiting_slot on tasks (provider, type, slot_turn, id) where awaits_slot = 1;
