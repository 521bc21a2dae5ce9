-- What tasks have cost, and what accounts may spend.

-- a JSON list of charges; null: the provider has not said
alter table tasks add column cost text;
-- sums by metadata look at what an account's tasks of a span of time have cost
create index tasks_charged on tasks (account_id, finished_at) where cost is not null;

-- Sums by day (its first millisecond, UTC). Amounts are whole billionths of their unit: databases add these exactly.
create table usage_days (
    account_id text not null references accounts (id),
    day integer not null,
    provider text not null,
    type text not null,
    unit text not null,
    billionths integer not null,
    tasks integer not null check (tasks > 0),
    primary key (account_id, day, provider, type, unit)
) strict, without rowid;

create table budgets (
    account_id text not null references accounts (id),
    unit text not null,
    period text not null check (period in ('day', 'month', 'total')),
    billionths integer not null check (billionths >= 0),
    -- the beginning of the period in which it was last said that it is spent
    exceeded_in integer,
    primary key (account_id, unit, period)
) strict, without rowid;
