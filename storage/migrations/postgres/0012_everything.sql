-- The schema as it was when PostgreSQL came to it; SQLite's has grown to the same.
-- Moments are whole milliseconds since 1970, UTC. JSON is text. Yes and no are 1 and 0. Text is in the order of its
-- bytes, whatever the server's language: ids begin with their moments.

create table accounts (
    id text collate "C" primary key,
    name text collate "C" not null unique,
    created_at bigint not null
);

-- `origin`: made on `/v1/keys`, named by the settings, or made because there was none. The last is kept readable,
-- sealed, until somebody has used it: what was printed once may have been lost.
create table api_keys (
    id text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    name text collate "C" not null,
    role text collate "C" not null check (role in ('admin', 'member')),
    hash text collate "C" not null unique,
    hint text collate "C" not null,
    created_at bigint not null,
    revoked_at bigint,
    origin text collate "C" not null default 'made' check (origin in ('made', 'setting', 'first')),
    sealed text collate "C" check (sealed is null or (origin = 'first' and revoked_at is null))
);
create index api_keys_by_account on api_keys (account_id, id);

create table tasks (
    id text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    type text collate "C" not null,
    provider text collate "C" not null,
    status text collate "C" not null check (
        status in ('queued', 'submitted', 'processing', 'succeeded', 'failed', 'rejected', 'unconfirmed')
    ),
    input text collate "C" not null,
    external_task_id text collate "C" not null,
    -- under which the provider knows it
    provider_external_id text collate "C" not null default '',
    provider_task_id text collate "C",
    metadata text collate "C" not null,
    parent_id text collate "C",
    -- the follow-up that made it, and how far it is from one that somebody submitted
    rule_id text collate "C",
    depth integer not null default 0 check (depth between 0 and 8),
    outputs text collate "C" not null default '[]',
    error_code text collate "C",
    error_message text collate "C",
    error_refusal text collate "C" check (error_refusal in ('request', 'exists', 'payment', 'account')),
    sequence integer not null default 0 check (sequence >= 0),
    created_at bigint not null,
    updated_at bigint not null,
    submitted_at bigint,
    finished_at bigint,
    deadline_at bigint not null,
    overdue_at bigint,
    sends integer not null default 0 check (sends >= 0),
    sending_since bigint,
    next_send_at bigint,
    awaits_slot smallint not null default 0 check (awaits_slot in (0, 1)),
    -- of the provider's parallel places: one for each picture, one for a video
    places integer not null default 1,
    -- how often it has been sent to the end of the line: it did not fit although nothing else ran
    slot_turn integer not null default 0,
    -- fields that only the provider knows, as they came; at which of its paths it was asked for, null leaves that to us
    extras text collate "C" not null default '{}',
    path text collate "C",
    -- the W3C trace context of whoever submitted it, or of the trace that was begun for it
    traceparent text collate "C",
    tracestate text collate "C",
    unique (account_id, external_task_id),
    -- finished exactly when the status has no way out
    check ((finished_at is not null) = (status in ('succeeded', 'failed', 'rejected'))),
    -- an error exactly when it did not work
    check ((error_code is not null) = (status in ('failed', 'rejected'))),
    -- only what the provider may not have yet waits for a create
    check (next_send_at is null or status in ('queued', 'unconfirmed')),
    check (awaits_slot = 0 or status = 'queued')
);
create index tasks_by_account on tasks (account_id, id);
create index tasks_by_status on tasks (status);
create index tasks_by_type on tasks (account_id, type, id);
create index tasks_by_provider_task on tasks (account_id, provider_task_id) where provider_task_id is not null;
create index tasks_to_send on tasks (next_send_at) where next_send_at is not null;
create index tasks_to_send_by_account on tasks (account_id, next_send_at, id)
    where next_send_at is not null and sending_since is null;
create index tasks_being_sent on tasks (sending_since) where sending_since is not null;
create index tasks_awaiting_slot on tasks (provider, type, account_id, slot_turn, id) where awaits_slot = 1;
create index tasks_with_deadline on tasks (deadline_at)
    where overdue_at is null and status in ('queued', 'submitted', 'processing', 'unconfirmed');
-- A rule makes at most one task of any one task, whatever is delivered again, replayed, or told late.
create unique index tasks_by_rule on tasks (parent_id, rule_id) where parent_id is not null;

create table task_files (
    sha256 text collate "C" not null,
    task_id text collate "C" not null references tasks (id),
    primary key (sha256, task_id)
);
create index task_files_by_task on task_files (task_id);

create table transitions (
    task_id text collate "C" not null references tasks (id),
    sequence integer not null,
    before_status text collate "C" not null,
    after_status text collate "C" not null,
    at bigint not null,
    primary key (task_id, sequence),
    check (before_status <> after_status)
);

create table idempotency_keys (
    account_id text collate "C" not null references accounts (id),
    key text collate "C" not null,
    body_hash text collate "C" not null,
    task_id text collate "C" not null references tasks (id),
    created_at bigint not null,
    answer_status integer,
    answer_body text collate "C",
    primary key (account_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
create index idempotency_keys_by_task on idempotency_keys (task_id);

create table callbacks (
    id text collate "C" primary key,
    task_id text collate "C" not null references tasks (id),
    provider text collate "C" not null,
    received_at bigint not null,
    verdict text collate "C" not null check (
        verdict in ('advanced', 'duplicate', 'stale', 'conflicting', 'mismatched', 'unreadable', 'forged')
    ),
    reason text collate "C",
    body bytea not null
);
create index callbacks_by_task on callbacks (task_id, id);

-- Where in the log an event stands. Whoever takes one holds the account's events: in each account's log the order is
-- that of commits, with gaps.
create sequence event_positions;

create table events (
    position bigint primary key,
    id text collate "C" not null unique,
    account_id text collate "C" not null references accounts (id),
    task_id text collate "C" references tasks (id),
    type text collate "C" not null,
    sequence integer,
    at bigint not null,
    body bytea not null,
    unique (task_id, sequence),
    check ((task_id is null) = (sequence is null))
);
create index events_by_account on events (account_id, position);

create table endpoints (
    id text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    task_id text collate "C" references tasks (id),
    kind text collate "C" not null,
    config text collate "C" not null,
    credentials text collate "C",
    types text collate "C" not null,
    filter text collate "C",
    description text collate "C",
    enabled smallint not null check (enabled in (0, 1)),
    disabled_reason text collate "C",
    secrets text collate "C" not null,
    failures integer not null default 0 check (failures >= 0),
    failing_since bigint,
    -- who waits for each other when they are delivered to
    lane text collate "C" not null default '',
    created_at bigint not null,
    updated_at bigint not null,
    deleted_at bigint,
    -- since when it takes what it takes now: what is said of an event that happened before is said with that reserve
    subscribed_at bigint not null default 0,
    check (enabled = 1 or disabled_reason is not null)
);
create index endpoints_by_account on endpoints (account_id, id) where task_id is null and deleted_at is null;
-- with the deleted ones: their task looks for them before it goes
create index endpoints_by_task on endpoints (task_id) where task_id is not null;
create index endpoints_deleted on endpoints (account_id, deleted_at) where deleted_at is not null;

create table deliveries (
    id text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    event_id text collate "C" not null references events (id),
    event_type text collate "C" not null,
    task_id text collate "C" references tasks (id),
    endpoint_id text collate "C" not null references endpoints (id),
    status text collate "C" not null check (status in ('pending', 'delivered', 'dead')),
    attempts integer not null default 0 check (attempts >= 0),
    next_attempt_at bigint,
    lease_until bigint,
    replay_of text collate "C",
    reason text collate "C",
    created_at bigint not null,
    finished_at bigint,
    check ((status = 'pending') = (next_attempt_at is not null)),
    check ((status = 'pending') = (finished_at is null)),
    check (lease_until is null or status = 'pending')
);
-- one duty per event and endpoint; only a person's replay makes another
create unique index deliveries_by_event on deliveries (event_id, endpoint_id, coalesce(replay_of || id, ''));
create index deliveries_by_account on deliveries (account_id, id);
create index deliveries_by_endpoint on deliveries (endpoint_id, id);
create index deliveries_by_task on deliveries (task_id, id) where task_id is not null;
create index deliveries_due on deliveries (next_attempt_at) where status = 'pending' and lease_until is null;
create index deliveries_leased on deliveries (lease_until) where lease_until is not null;
-- Dead letters are few and looked at by people: found and counted without reading what was delivered.
create index deliveries_dead on deliveries (account_id, id) where status = 'dead';

create table attempts (
    delivery_id text collate "C" not null references deliveries (id),
    number integer not null check (number >= 1),
    started_at bigint not null,
    duration_ms bigint not null,
    status_code integer,
    outcome text collate "C" not null check (outcome in ('delivered', 'retry', 'dead', 'gone')),
    reason text collate "C" not null,
    excerpt text collate "C" not null,
    primary key (delivery_id, number)
);

-- Outputs that are kept: their files in the store, and when to say that one is about to be lost.
create table kept_files (
    name text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    task_id text collate "C" not null references tasks (id),
    place integer not null check (place >= 0),
    role text collate "C" not null check (role in ('output', 'preview')),
    status text collate "C" not null check (status in ('arriving', 'kept', 'leaving')),
    content_type text collate "C" not null,
    size bigint not null check (size >= 0),
    sha256 text collate "C" not null,
    created_at bigint not null
);
-- an output is kept once
create unique index kept_files_by_output on kept_files (task_id, place, role) where status = 'kept';
create index kept_files_by_task on kept_files (task_id);
create index kept_files_by_age on kept_files (created_at);

create table expiring_outputs (
    task_id text collate "C" not null references tasks (id),
    place integer not null,
    notice_at bigint not null,
    primary key (task_id, place)
);
create index expiring_outputs_due on expiring_outputs (notice_at);

-- Chat bots: who may command them, what they were asked, and which of their messages stands for which task.
create table bots (
    id text collate "C" primary key,
    account_id text collate "C" not null references accounts (id),
    platform text collate "C" not null,
    config text collate "C" not null,
    credentials text collate "C",
    allow text collate "C" not null,
    open_tasks integer not null check (open_tasks >= 1),
    description text collate "C",
    created_at bigint not null,
    updated_at bigint not null,
    deleted_at bigint
);
create index bots_by_account on bots (account_id, id) where deleted_at is null;

-- what was asked, on disk before it is answered; `asked` is sealed: it holds addresses that let one speak
create table commands (
    id text collate "C" primary key,
    bot_id text collate "C" not null references bots (id),
    key text collate "C" not null,
    person text collate "C" not null,
    asked text collate "C" not null,
    tries integer not null default 0 check (tries >= 0),
    next_try_at bigint,
    task_id text collate "C",
    created_at bigint not null,
    unique (bot_id, key)
);
create index commands_due on commands (next_try_at) where next_try_at is not null;
create index commands_by_person on commands (bot_id, person, id);
create index commands_by_task on commands (task_id) where task_id is not null;

-- the one message in a chat that is edited as a task goes on; `reference` is the platform's name of it
create table chat_messages (
    endpoint_id text collate "C" not null references endpoints (id),
    task_id text collate "C" not null references tasks (id),
    reference text collate "C" not null,
    sequence integer not null,
    primary key (endpoint_id, task_id)
);
create index chat_messages_by_task on chat_messages (task_id);

-- Sessions of the dashboard that somebody has signed out of, until they would have ended by themselves.
create table ended_sessions (
    nonce text collate "C" primary key,
    ends_at bigint not null
);
create index ended_sessions_by_end on ended_sessions (ends_at);

-- one row, written to prove that writing works
create table readiness (
    id integer primary key check (id = 1),
    checked_at bigint not null
);
