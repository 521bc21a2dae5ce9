-- What is known of a pool, the types that share places at a provider, while tasks wait in its line.
create table pools (
    provider text collate "C" not null,
    kind text collate "C" not null,
    -- More places may be free than were told of: one after the other asks.
    seeking smallint not null check (seeking in (0, 1)),
    -- By type: how many places of it, or more, have been refused since some became free.
    refused text collate "C" not null,
    -- When some became free last that were not given to those who share them for sure.
    left_at bigint,
    primary key (provider, kind)
);

-- In which order accounts have had places of a pool, while somebody waits there.
create table turns (
    provider text collate "C" not null,
    kind text collate "C" not null,
    account_id text collate "C" not null references accounts (id),
    number bigint not null,
    primary key (provider, kind, account_id)
);
