-- Tasks of one status are found by it, however many there are, and counted in order.
drop index tasks_by_status;
create index tasks_by_status on tasks (status, account_id, id);

-- Also of deleted ones: a task is forgotten once no endpoint speaks of it.
drop index endpoints_by_task;
create index endpoints_by_task on endpoints (task_id) where task_id is not null;
