-- Statements about what tasks have cost, and about budgets. Amounts are billionths; days are their first millisecond.

-- name: add_usage*!
insert into usage_days (account_id, day, provider, type, unit, billionths, tasks)
values (:account_id, :day, :provider, :type, :unit, :billionths, :tasks)
on conflict (account_id, day, provider, type, unit) do update set
    billionths = case  -- a full sum stays full, for a cost must never hold up a result
        when usage_days.billionths > 9000000000000000000 - excluded.billionths then 9000000000000000000
        else usage_days.billionths + excluded.billionths
    end,
    tasks = usage_days.tasks + excluded.tasks;

-- name: usage
-- By day, provider and type; whoever asks adds up what is to be one.
select day, provider, type, unit, billionths, tasks from usage_days
where account_id = :account_id and day >= :since and day < :until
order by day, provider, type, unit;

-- name: spent^
-- In two parts: the days together may have more billionths than a whole number of either database can be.
select
    cast(coalesce(sum(billionths / 1000000000), 0) as bigint) as ones,
    cast(coalesce(sum(billionths % 1000000000), 0) as bigint) as billionths
from usage_days
where account_id = :account_id and unit = :unit and day >= :since;

-- name: list_budgets
select budgets.*, accounts.name from budgets join accounts on accounts.id = budgets.account_id
order by accounts.name, budgets.unit, budgets.period;

-- name: budgets_of
select budgets.*, accounts.name from budgets join accounts on accounts.id = budgets.account_id
where budgets.account_id = :account_id
order by budgets.unit, budgets.period;

-- name: put_budget!
insert into budgets (account_id, unit, period, billionths) values (:account_id, :unit, :period, :billionths)
on conflict (account_id, unit, period) do update set billionths = excluded.billionths, exceeded_in = null;

-- name: drop_budget!
delete from budgets where account_id = :account_id and unit = :unit and period = :period;

-- name: note_exceeded!
-- Only whoever is the first to say so in this period touches a row.
update budgets set exceeded_in = :begin
where account_id = :account_id and unit = :unit and period = :period
  and (exceeded_in is null or exceeded_in < :begin);
