-- Open tasks by what only they have, as the file of SQLite says it.
drop index tasks_with_deadline;
create index tasks_with_deadline on tasks (deadline_at) where overdue_at is null and finished_at is null;

-- What follows from other references of the same row, or is written beside the row that it refers to, is not looked up
-- once more: each reference is a query of its own for each row, and all of them were a third of what the server does for a
-- callback.
alter table transitions drop constraint transitions_task_id_fkey; -- written with its task's own change
alter table events drop constraint events_account_id_fkey; -- its task's, or that of an endpoint that is held
alter table deliveries drop constraint deliveries_account_id_fkey; -- its endpoint's
alter table deliveries drop constraint deliveries_task_id_fkey; -- its event's
