-- Statements about accounts and their keys.

-- name: insert_account!
insert into accounts (id, name, created_at) values (:id, :name, :created_at);

-- name: account_by_name^
select * from accounts where name = :name;

-- name: first_account$
select id from accounts order by created_at, id limit 1;

-- name: insert_key!
insert into api_keys (id, account_id, name, role, hash, hint, created_at, origin, sealed)
values (:id, :account_id, :name, :role, :hash, :hint, :created_at, :origin, :sealed);

-- name: key_by_hash^
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where hash = :hash;

-- name: take_over_key!
update api_keys set revoked_at = null, origin = 'setting', sealed = null where hash = :hash;

-- name: superseded_keys
select id from api_keys
where revoked_at is null and hash <> :hash and (origin = 'setting' or sealed is not null)
order by id
{for_update};

-- name: unused_key^
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where sealed is not null;

-- name: mark_key_used!
update api_keys set sealed = null where id = :id;

-- name: count_admin_keys$
select count(*) from api_keys where role = 'admin' and revoked_at is null;

-- name: list_keys
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where api_keys.id < coalesce(:before_id, 'key_g')  -- after all ids, and found in the index
order by api_keys.id desc
limit :limit;

-- name: get_key^
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where api_keys.id = :id;

-- name: revoke_key!
update api_keys set revoked_at = :now, sealed = null where id = :id and revoked_at is null;
