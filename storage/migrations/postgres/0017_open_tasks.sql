-- Open tasks by what only they have, as the file of SQLite says it.
drop index tasks_with_deadline;
create index tasks_with_deadline on tasks (deadline_at) where overdue_at is null and finished_at is null;
