-- Who uses this database, and what each has in its hands. A SQLite file has one process: there it is all one's own.

create table processes (
    id text primary key,
    roles text not null,
    until integer not null
) strict, without rowid;

-- Deliveries of a lane are attempted by one process at a time.
create table lane_holders (
    lane text primary key,
    process_id text not null
) strict, without rowid;
create index lane_holders_by_process on lane_holders (process_id);

alter table deliveries add column leased_by text;
alter table tasks add column sent_by text;
alter table commands add column taken_by text;
create index commands_taken on commands (taken_by) where taken_by is not null;
-- what has not been attempted yet, and waits in the database: newer ones of the same lane line up behind it
create index deliveries_waiting on deliveries (endpoint_id)
    where status = 'pending' and lease_until is null and attempts = 0;
