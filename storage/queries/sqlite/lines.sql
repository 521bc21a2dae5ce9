-- name: in_line
-- Who is first in line of those behind these heads, in their order. Accounts take turns, as in `due_to_send`.
-- :heads is a list of {"type": …, "account": …, "served": …, "most": …}; who needs more places than `most` is left out.
select waits.provider, waits.type, waits.account_id, waits.slot_turn, waits.id, waits.places,
    row_number() over (partition by waits.account_id, waits.slot_turn order by waits.id) as turn
from json_each(:heads) as pair cross join tasks as waits on waits.id in (
    select id from tasks
    where awaits_slot = 1 and provider = :provider
      and type = pair.value ->> 'type' and account_id = pair.value ->> 'account'
      and places <= pair.value ->> 'most'
    order by slot_turn, id limit :number
)
order by waits.slot_turn, turn, pair.value ->> 'served', waits.id
limit :number;
