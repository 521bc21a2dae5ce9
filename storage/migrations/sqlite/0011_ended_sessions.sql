-- Sessions of the dashboard that somebody has signed out of, until they would have ended by themselves.
create table ended_sessions (
    nonce text not null primary key,
    ends_at integer not null
) strict, without rowid;
create index ended_sessions_by_end on ended_sessions (ends_at);
