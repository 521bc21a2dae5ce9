-- Statements about deliveries, as PostgreSQL says them.

-- name: lease_delivery*!
update deliveries set lease_until = :lease_until, leased_by = :leased_by where id = :id;

-- name: record_outcome*!
update deliveries set
    status = :status, attempts = :attempts, next_attempt_at = :next_attempt_at, lease_until = null,
    reason = :reason, finished_at = :finished_at
where id = :id and (status = 'pending' or :status = 'delivered');

-- name: give_back*!
update deliveries set lease_until = null where id = :id and status = 'pending';
