-- Moments here are the server's: clocks of machines differ. Notices reach whoever listens once they are committed.

-- name: add_process!
insert into processes (id, roles, until)
values (:id, :roles, cast(extract(epoch from clock_timestamp()) * 1000 as bigint) + :lasts_ms);

-- name: renew_process!
update processes set until = cast(extract(epoch from clock_timestamp()) * 1000 as bigint) + :lasts_ms
where id = :id;

-- name: dead_processes
select id from processes
where until < cast(extract(epoch from clock_timestamp()) * 1000 as bigint)
order by id
for update skip locked;

-- name: post_notice*!
select pg_notify('klingel', :notice);
