-- Statements about events, as PostgreSQL wants them.

-- name: next_positions
-- So many, in their order, once the logs are held. Others take theirs for other logs at the same time: there are gaps.
select nextval('event_positions') as position from generate_series(1, cast(:number as integer))
where (select count(pg_advisory_xact_lock(key)) from unnest(cast(:held as bigint[])) as key) >= 0;
