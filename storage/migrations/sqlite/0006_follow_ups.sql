-- Which follow-up made a task, out of which other task (`parent_id`), and how far it is from one that somebody submitted.

alter table tasks add column rule_id text;
alter table tasks add column depth integer not null default 0 check (depth between 0 and 8);
-- A rule makes at most one task of any one task, whatever is delivered again, replayed, or told late.
create unique index tasks_by_rule on tasks (parent_id, rule_id) where parent_id is not null;
