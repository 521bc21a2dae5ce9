-- Who waits for each other when they are delivered to: see Endpoint.lane. Told here so that a claim leaves out full ones.
alter table endpoints add column lane text not null default '';
update endpoints set lane = case
    when task_id is null then id
    else account_id || '/' || coalesce(
        (
            select lower(substr(behind_scheme, 1, instr(behind_scheme || '/', '/') - 1))
            from (
                select substr(url, instr(url, '://') + 3) as behind_scheme
                from (
                    select coalesce(
                        config ->> 'url', config ->> 'server', config ->> '$.subscription.endpoint'
                    ) as url
                )
            )
        ),
        kind
    )
end;
