-- Accounts, keys, tasks, callbacks, events, endpoints, deliveries.
-- Moments are whole milliseconds since 1970, UTC. JSON is text. Checks say three words and more with `or`: of `in (…)`
-- SQLite makes a table of its own for each row that it checks, which was a third of what it does for a callback.

create table accounts (
    id text primary key,
    name text not null unique,
    created_at integer not null
) strict;

create table api_keys (
    id text primary key,
    account_id text not null references accounts (id),
    name text not null,
    role text not null check (role in ('admin', 'member')),
    hash text not null unique,
    hint text not null,
    created_at integer not null,
    revoked_at integer
) strict;
create index api_keys_by_account on api_keys (account_id, id);

create table tasks (
    id text primary key,
    account_id text not null references accounts (id),
    type text not null,
    provider text not null,
    status text not null check (
        status = 'queued' or status = 'submitted' or status = 'processing' or status = 'succeeded'
        or status = 'failed' or status = 'rejected' or status = 'unconfirmed'
    ),
    input text not null,
    external_task_id text not null,
    provider_task_id text,
    metadata text not null,
    parent_id text,
    outputs text not null default '[]',
    error_code text,
    error_message text,
    error_refusal text check (
        error_refusal = 'request' or error_refusal = 'exists' or error_refusal = 'payment' or error_refusal = 'account'
    ),
    sequence integer not null default 0 check (sequence >= 0),
    created_at integer not null,
    updated_at integer not null,
    submitted_at integer,
    finished_at integer,
    deadline_at integer not null,
    overdue_at integer,
    sends integer not null default 0 check (sends >= 0),
    sending_since integer,
    next_send_at integer,
    awaits_slot integer not null default 0 check (awaits_slot in (0, 1)),
    unique (account_id, external_task_id),
    -- finished exactly when the status has no way out
    check ((finished_at is not null) = (status = 'succeeded' or status = 'failed' or status = 'rejected')),
    -- an error exactly when it did not work
    check ((error_code is not null) = (status in ('failed', 'rejected'))),
    -- only what the provider may not have yet waits for a create
    check (next_send_at is null or status in ('queued', 'unconfirmed')),
    check (awaits_slot = 0 or status = 'queued')
) strict;
create index tasks_by_account on tasks (account_id, id);
create index tasks_by_status on tasks (status);
create index tasks_to_send on tasks (next_send_at) where next_send_at is not null;
create index tasks_being_sent on tasks (sending_since) where sending_since is not null;
create index tasks_awaiting_slot on tasks (provider, id) where awaits_slot = 1;
create index tasks_with_deadline on tasks (deadline_at)
    where overdue_at is null and status in ('queued', 'submitted', 'processing', 'unconfirmed');

create table task_files (
    sha256 text not null,
    task_id text not null references tasks (id),
    primary key (sha256, task_id)
) strict, without rowid;
create index task_files_by_task on task_files (task_id);

create table transitions (
    task_id text not null references tasks (id),
    sequence integer not null,
    before_status text not null,
    after_status text not null,
    at integer not null,
    primary key (task_id, sequence),
    check (before_status <> after_status)
) strict, without rowid;

create table idempotency_keys (
    account_id text not null references accounts (id),
    key text not null,
    body_hash text not null,
    task_id text not null references tasks (id),
    created_at integer not null,
    answer_status integer,
    answer_body text,
    primary key (account_id, key)
) strict, without rowid;
create index idempotency_keys_by_age on idempotency_keys (created_at);
create index idempotency_keys_by_task on idempotency_keys (task_id);

create table callbacks (
    id text primary key,
    task_id text not null references tasks (id),
    provider text not null,
    received_at integer not null,
    verdict text not null check (
        verdict = 'advanced' or verdict = 'duplicate' or verdict = 'stale' or verdict = 'conflicting'
        or verdict = 'mismatched' or verdict = 'unreadable' or verdict = 'forged'
    ),
    reason text,
    body blob not null
) strict;
create index callbacks_by_task on callbacks (task_id, id);

create table events (
    position integer primary key,
    id text not null unique,
    account_id text not null references accounts (id),
    task_id text references tasks (id),
    type text not null,
    sequence integer,
    at integer not null,
    body blob not null,
    unique (task_id, sequence),
    check ((task_id is null) = (sequence is null))
) strict;
create index events_by_account on events (account_id, position);

create table endpoints (
    id text primary key,
    account_id text not null references accounts (id),
    task_id text references tasks (id),
    kind text not null,
    config text not null,
    credentials text,
    types text not null,
    filter text,
    description text,
    enabled integer not null check (enabled in (0, 1)),
    disabled_reason text,
    secrets text not null,
    failures integer not null default 0 check (failures >= 0),
    failing_since integer,
    created_at integer not null,
    updated_at integer not null,
    deleted_at integer,
    check (enabled = 1 or disabled_reason is not null)
) strict;
create index endpoints_by_account on endpoints (account_id, id) where task_id is null and deleted_at is null;
create index endpoints_by_task on endpoints (task_id) where task_id is not null and deleted_at is null;

create table deliveries (
    id text primary key,
    account_id text not null references accounts (id),
    event_id text not null references events (id),
    event_type text not null,
    task_id text references tasks (id),
    endpoint_id text not null references endpoints (id),
    status text not null check (status = 'pending' or status = 'delivered' or status = 'dead'),
    attempts integer not null default 0 check (attempts >= 0),
    next_attempt_at integer,
    lease_until integer,
    replay_of text,
    reason text,
    created_at integer not null,
    finished_at integer,
    check ((status = 'pending') = (next_attempt_at is not null)),
    check ((status = 'pending') = (finished_at is null)),
    check (lease_until is null or status = 'pending')
) strict;
-- one duty per event and endpoint; only a person's replay makes another
create unique index deliveries_by_event on deliveries (event_id, endpoint_id, coalesce(replay_of || id, ''));
create index deliveries_by_account on deliveries (account_id, id);
create index deliveries_by_endpoint on deliveries (endpoint_id, id);
create index deliveries_by_task on deliveries (task_id, id) where task_id is not null;
create index deliveries_due on deliveries (next_attempt_at) where status = 'pending' and lease_until is null;
create index deliveries_leased on deliveries (lease_until) where lease_until is not null;

create table attempts (
    delivery_id text not null references deliveries (id),
    number integer not null check (number >= 1),
    started_at integer not null,
    duration_ms integer not null,
    status_code integer,
    outcome text not null check (outcome = 'delivered' or outcome = 'retry' or outcome = 'dead' or outcome = 'gone'),
    reason text not null,
    excerpt text not null,
    primary key (delivery_id, number)
) strict, without rowid;

-- one row, written to prove that writing works
create table readiness (
    id integer primary key check (id = 1),
    checked_at integer not null
) strict;
