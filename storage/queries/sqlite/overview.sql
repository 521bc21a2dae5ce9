-- Statements for people who look at the whole of an account, as SQLite wants them.

-- name: oldest_due_of_account$
-- The first due of all that are due, few as they are; then those that somebody has in hand.
select min(at) from (
    select min(next_attempt_at) as at from deliveries indexed by deliveries_due
    where account_id = :account_id and status = 'pending' and lease_until is null and next_attempt_at >= 0
      and next_attempt_at <= :now
    union all
    select min(next_attempt_at) from deliveries indexed by deliveries_leased
    where account_id = :account_id and lease_until is not null and next_attempt_at <= :now
) as found;
