-- Accounts take turns at being sent, and at a provider's places: the next of each is found without reading the others.
create index tasks_to_send_by_account on tasks (account_id, next_send_at, id)
where next_send_at is not null and sending_since is null;
drop index tasks_awaiting_slot;
create index tasks_awaiting_slot on tasks (provider, type, account_id, slot_turn, id) where awaits_slot = 1;
