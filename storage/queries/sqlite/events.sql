-- Statements about events, as SQLite wants them.

-- name: next_positions
-- So many, in their order: after the newest event, which is why that one is never forgotten.
with recursive numbers (number) as (
    select 1
    union all
    select number + 1 from numbers where number < :number
)
select (select coalesce(max(position), 0) from events) + number as position from numbers;
