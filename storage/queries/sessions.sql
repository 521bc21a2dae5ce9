-- Statements about sessions that were ended before their time.

-- name: end_session!
insert into ended_sessions (nonce, ends_at) values (:nonce, :ends_at) on conflict (nonce) do nothing;

-- name: has_session_ended$
select count(*) from ended_sessions where nonce = :nonce;
