-- What waits for one provider's answers is not passed over on the way to what may go out to another.
drop index tasks_to_send;
create index tasks_to_send on tasks (provider, next_send_at)
    where next_send_at is not null and sending_since is null;
drop index tasks_to_send_by_account;
create index tasks_to_send_by_account on tasks (provider, account_id, next_send_at, id)
    where next_send_at is not null and sending_since is null;
