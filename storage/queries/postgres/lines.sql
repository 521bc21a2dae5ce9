-- name: in_line
-- Who is first in line of those behind these heads, in their order. Accounts take turns, as in `due_to_send`.
-- :heads is a list of {"type": …, "account": …, "served": …, "most": …}; who needs more places than `most` is left out.
select waits.*, row_number() over (partition by waits.account_id, waits.slot_turn order by waits.id) as turn
from json_each(:heads) as pair cross join lateral (
    select provider, type, account_id, slot_turn, id, places from tasks
    where awaits_slot = 1 and provider = :provider
      and type = pair.value ->> 'type' and account_id = pair.value ->> 'account'
      and places <= cast(pair.value ->> 'most' as bigint)
    order by slot_turn, id limit :number
) as waits
order by waits.slot_turn, turn, cast(pair.value ->> 'served' as bigint), waits.id
limit :number;
