-- What tasks have cost, and what accounts may spend.

-- a JSON list of charges; null: the provider has not said
alter table tasks add column cost text collate "C";
-- sums by metadata look at what an account's tasks of a span of time have cost
create index tasks_charged on tasks (account_id, finished_at) where cost is not null;

-- Sums by day (its first millisecond, UTC). Amounts are whole billionths of their unit: databases add these exactly.
create table usage_days (
    account_id text collate "C" not null references accounts (id),
    day bigint not null,
    provider text collate "C" not null,
    type text collate "C" not null,
    unit text collate "C" not null,
    billionths bigint not null,
    tasks bigint not null check (tasks > 0),
    primary key (account_id, day, provider, type, unit)
);

create table budgets (
    account_id text collate "C" not null references accounts (id),
    unit text collate "C" not null,
    period text collate "C" not null check (period in ('day', 'month', 'total')),
    billionths bigint not null check (billionths >= 0),
    -- the beginning of the period in which it was last said that it is spent
    exceeded_in bigint,
    primary key (account_id, unit, period)
);
