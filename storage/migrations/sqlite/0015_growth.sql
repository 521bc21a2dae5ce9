-- Tasks of one status are found by it, however many there are, and counted in order.
drop index tasks_by_status;
create index tasks_by_status on tasks (status, account_id, id);
