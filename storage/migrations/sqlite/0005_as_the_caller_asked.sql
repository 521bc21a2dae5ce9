-- What a caller of the drop-in API asked beyond our own fields, and by which id it asks again.

-- fields that only the provider knows: a JSON object, sent on as it came
alter table tasks add column extras text not null default '{}';
-- at which of the provider's paths it was asked for; null leaves that to us
alter table tasks add column path text;

create index tasks_by_provider_task on tasks (account_id, provider_task_id) where provider_task_id is not null;
create index tasks_by_type on tasks (account_id, type, id);
