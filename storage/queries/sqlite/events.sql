-- Statements about events, as SQLite wants them.

-- name: next_positions$
-- Where they begin: after the newest event, which is why that one is never forgotten.
select coalesce(max(position), 0) + 1 from events;
