-- Statements about kept outputs: files in the store, and notices of what is about to be lost.

-- name: announce_file*!
insert into kept_files (name, account_id, task_id, place, role, status, content_type, size, sha256, created_at)
values (:name, :account_id, :task_id, :place, :role, 'arriving', :content_type, :size, :sha256, :created_at);

-- name: set_file_status*!
update kept_files set status = :status where name = :name;

-- name: get_kept_file^
select * from kept_files where name = :name and status = 'kept';

-- name: old_files
-- Those beyond their time, those of tasks that ended so long ago that they are about to be forgotten, and those that never
-- arrived: each found by an index in which what is leaving is no more. What ended was made before: so its id bounds it.
select * from kept_files where name in (
    select name from (
        select name from kept_files where status = 'kept' and created_at < :before
        order by created_at limit :limit
    ) as found
    union
    select name from (
        select kept_files.name from kept_files join tasks on tasks.id = kept_files.task_id
        where kept_files.status = 'kept' and kept_files.task_id < :task_bound
          and tasks.finished_at < :tasks_before
        order by kept_files.task_id limit :limit
    ) as found
    union
    select name from (
        select name from kept_files where status = 'arriving' and created_at < :arriving_before
        order by created_at limit :limit
    ) as found
)
order by created_at, name
limit :limit;

-- name: leaving_files
select name from kept_files where status = 'leaving' and name > :after order by name limit :limit;

-- name: delete_kept_file*!
delete from kept_files where name = :name;

-- name: save_outputs*!
-- Without an event: nothing happened to the task but that our copies of its outputs went.
update tasks set outputs = :outputs where id = :id;

-- name: expect_expiry*!
insert into expiring_outputs (task_id, place, notice_at) values (:task_id, :place, :notice_at)
on conflict (task_id, place) do nothing;

-- name: due_expiries
select * from expiring_outputs where notice_at <= :now order by notice_at, task_id, place limit :limit {skip_locked};

-- name: next_expiry$
select min(notice_at) from expiring_outputs;

-- name: forget_expiry*!
delete from expiring_outputs where task_id = :task_id and place = :place;

-- name: delete_task_expiries!
delete from expiring_outputs where task_id in (select value from json_each(:ids));
