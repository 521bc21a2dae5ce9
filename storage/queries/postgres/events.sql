-- Statements about events, as PostgreSQL wants them.

-- name: next_positions
-- So many, in their order. Others take theirs at the same time: there are gaps.
select nextval('event_positions') as position from generate_series(1, cast(:number as integer));
