-- Statements about the processes that share a database, and the lanes that each holds.

-- name: forget_process!
delete from processes where id = :id;

-- name: stand_by_process$
-- No process reaps it before this transaction's end. No row where one has, or is about to.
select id from processes where id = :id {keep_unless_locked};

-- name: take_lanes!
-- Those that nobody holds; a process that is counted as dead takes nothing.
insert into lane_holders (lane, process_id)
select lanes.value, processes.id from json_each(:lanes) as lanes cross join processes
where processes.id = :process_id
order by lanes.value
on conflict (lane) do nothing;

-- name: held_lanes
select lane from lane_holders where process_id = :process_id and lane in (select value from json_each(:lanes));

-- name: give_up_lanes!
delete from lane_holders where process_id = :process_id and lane in (select value from json_each(:lanes));

-- name: release_lanes_of!
delete from lane_holders where process_id in (select value from json_each(:processes));
