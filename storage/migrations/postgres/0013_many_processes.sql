-- Who uses this database, and what each has in its hands.

create table processes (
    id text collate "C" primary key,
    roles text collate "C" not null,
    until bigint not null
);

-- Deliveries of a lane are attempted by one process at a time.
create table lane_holders (
    lane text collate "C" primary key,
    process_id text collate "C" not null
);
create index lane_holders_by_process on lane_holders (process_id);

alter table deliveries add column leased_by text collate "C";
alter table tasks add column sent_by text collate "C";
alter table commands add column taken_by text collate "C";
create index commands_taken on commands (taken_by) where taken_by is not null;
-- what has not been attempted yet, and waits in the database: newer ones of the same lane line up behind it
create index deliveries_waiting on deliveries (endpoint_id)
    where status = 'pending' and lease_until is null and attempts = 0;
