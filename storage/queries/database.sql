-- name: touch!
-- Proves that the database can be written.
insert into readiness (id, checked_at) values (1, :now)
on conflict (id) do update set checked_at = excluded.checked_at;
