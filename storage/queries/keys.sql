-- Statements about accounts and their keys.

-- name: insert_account!
insert into accounts (id, name, created_at) values (:id, :name, :created_at);

-- name: account_by_name^
select * from accounts where name = :name;

-- name: first_account$
select id from accounts order by created_at, id limit 1;

-- name: insert_key!
insert into api_keys (id, account_id, name, role, hash, hint, created_at)
values (:id, :account_id, :name, :role, :hash, :hint, :created_at);

-- name: key_by_hash^
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where hash = :hash;

-- name: restore_key!
update api_keys set revoked_at = null where hash = :hash;

-- name: count_admin_keys$
select count(*) from api_keys where role = 'admin' and revoked_at is null;

-- name: list_keys
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where (cast(:before_id as text) is null or api_keys.id < :before_id)
order by api_keys.id desc
limit :limit;

-- name: get_key^
select api_keys.*, accounts.name as account_name
from api_keys join accounts on accounts.id = api_keys.account_id
where api_keys.id = :id;

-- name: revoke_key!
update api_keys set revoked_at = :now where id = :id and revoked_at is null;
