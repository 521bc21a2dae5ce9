-- Open tasks by what only they have: for a list of words SQLite would build a table of its own, twice for each change of a task.
drop index tasks_with_deadline;
create index tasks_with_deadline on tasks (deadline_at) where overdue_at is null and finished_at is null;
