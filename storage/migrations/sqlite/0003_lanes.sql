-- Who waits for each other when they are delivered to: see Endpoint.lane. Told here so that a claim leaves out full ones.
alter table endpoints add column lane text not null default '';
update endpoints set lane = case
    when task_id is null then id
    else account_id || '/' || lower(
        substr(
            substr(config ->> 'url', instr(config ->> 'url', '://') + 3),
            1,
            instr(substr(config ->> 'url', instr(config ->> 'url', '://') + 3) || '/', '/') - 1
        )
    )
end;
