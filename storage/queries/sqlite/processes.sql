-- A file has one process: these are said where there are many, and mean the same here.

-- name: add_process!
insert into processes (id, roles, until) values (:id, :roles, cast((julianday('now') - 2440587.5) * 86400000 as integer) + :lasts_ms);

-- name: renew_process!
update processes set until = cast((julianday('now') - 2440587.5) * 86400000 as integer) + :lasts_ms where id = :id;

-- name: dead_processes
select id from processes where until < cast((julianday('now') - 2440587.5) * 86400000 as integer) order by id;

-- name: post_notice*!
-- Nobody else is there to be told.
delete from processes where id = :notice and false;
