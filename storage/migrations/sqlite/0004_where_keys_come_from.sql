-- Where a key comes from: made on `/v1/keys`, named by the settings, or made because there was none.
-- The last is kept readable, sealed, until somebody has used it: what was printed once may have been lost.
alter table api_keys add column origin text not null default 'made' check (origin in ('made', 'setting', 'first'));
alter table api_keys add column sealed text check (sealed is null or (origin = 'first' and revoked_at is null));
