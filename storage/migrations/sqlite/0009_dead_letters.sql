-- Dead letters are few and looked at by people: found and counted without reading what was delivered.

create index deliveries_dead on deliveries (account_id, id) where status = 'dead';
