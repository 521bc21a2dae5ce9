"""The lines in which tasks wait for places at a provider: who stands in them, who holds places, what is known of these."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from service.domain.ids import AccountId, TaskId
from service.domain.values import Struct
from storage.columns import Row, from_json_text, json_text, milliseconds, moment
from storage.database import Reader, Transaction

Kind = tuple[str, str]  # a provider and a type of task
PoolName = tuple[str, str]  # a provider and a kind of output: the types that make it share places, or may


class Waiting(Struct, frozen=True):
    """Who waits for a place, or for several."""

    kind: Kind
    account_id: AccountId
    slot_turn: int  # how often it was sent to the end of the line
    id: TaskId
    places: int
    turn: int = 1  # in its account, of those with the same `slot_turn`


class Head(Struct, frozen=True):
    """Where to look for those who wait: behind the first of an account and a type.

    Args:
        served: when the account had a place last, as in `Standing`.
        most: places; who needs more is left out.
    """

    type: str
    account_id: AccountId
    served: int
    most: int


class Pool(Struct, frozen=True, kw_only=True):
    """What is known of places while tasks wait for them.

    Args:
        seeking: more may be free than were told of: one after the other asks.
        refused: by type, how many places of it, or more, were refused since some became free.
        left_at: when some became free last that were not given to those who share them for sure.
    """

    name: PoolName
    seeking: bool = False
    refused: Mapping[str, int] = {}
    left_at: datetime | None = None


class Standing(Struct, frozen=True):
    """How all lines stand.

    Args:
        heads: who is first, of each kind and account.
        asking: who has waited for more than one place, and is asking for them right now.
        turns: when accounts had places last, as numbers that grow; who has none comes first.
    """

    heads: list[Waiting]
    asking: list[Waiting]
    pools: dict[PoolName, Pool]
    turns: dict[PoolName, dict[AccountId, int]]


async def standing(tx: Transaction) -> Standing:
    heads, asking, pools, turns = await tx.several(
        ("first_awaiting_slot", {}), ("asking_for_places", {}), ("list_pools", {}), ("list_turns", {})
    )
    had: defaultdict[PoolName, dict[AccountId, int]] = defaultdict(dict)
    for row in turns:
        had[row["provider"], row["kind"]][row["account_id"]] = row["number"]
    known = map(_pool, pools)
    return Standing(
        heads=[_waiting(row) for row in heads],
        asking=[_waiting(row) for row in asking],
        pools={pool.name: pool for pool in known},
        turns=dict(had),
    )


def _pool(row: Row) -> Pool:
    return Pool(
        name=(row["provider"], row["kind"]),
        seeking=bool(row["seeking"]),
        refused=from_json_text(row["refused"]),
        left_at=moment(row["left_at"]),
    )


async def in_line(reader: Reader, provider: str, heads: Iterable[Head], *, number: int) -> list[Waiting]:
    """The first of those behind these heads, in their order; accounts take turns."""
    given = [
        {"type": head.type, "account": head.account_id, "served": head.served, "most": head.most}
        for head in heads
    ]
    rows = await reader.all("in_line", provider=provider, heads=json_text(given), number=number)
    return [_waiting(row, turn=row["turn"]) for row in rows]


def _waiting(row: Row, *, turn: int = 1) -> Waiting:
    kind = row["provider"], row["type"]
    return Waiting(kind, row["account_id"], row["slot_turn"], row["id"], row["places"], turn)


async def anybody_waits(reader: Reader) -> bool:
    return await reader.one("any_awaiting_slot") is not None


async def kinds_at_providers(reader: Reader, *, now: datetime) -> set[Kind]:
    """The kinds that hold a place now, as far as we know, or are asking for one."""
    rows = await reader.all("kinds_at_providers", now=milliseconds(now))
    return {(row["provider"], row["type"]) for row in rows}


async def places_at_providers(reader: Reader, *, now: datetime) -> dict[Kind, int]:
    """How many places of each kind are taken, as far as we know."""
    rows = await reader.all("places_at_providers", now=milliseconds(now))
    return {(row["provider"], row["type"]): row["places"] for row in rows}


async def release(tx: Transaction, ids: Iterable[TaskId], *, now: datetime) -> set[TaskId]:
    """Lets them go, those of them who still wait, and whose rows nobody else holds. Gives these."""
    rows = await tx.all("release_slots", ids=json_text(sorted(ids)), now=milliseconds(now))
    return {row["id"] for row in rows}


async def go_to_end_of_line(tx: Transaction, kind: Kind, *, slot_turn: int, places: int) -> None:
    """All who have been there as often, and need so many places or more; but for those whose rows somebody else holds."""
    provider, type = kind
    await tx.run("go_to_end_of_line", provider=provider, type=type, slot_turn=slot_turn, places=places)


async def save_pools(tx: Transaction, pools: Sequence[Pool]) -> None:
    await tx.run_many(
        "save_pool",
        [
            {
                "provider": pool.name[0],
                "kind": pool.name[1],
                "seeking": int(pool.seeking),
                "refused": json_text(pool.refused),
                "left_at": milliseconds(pool.left_at),
            }
            for pool in pools
        ],
    )


async def save_turns(tx: Transaction, turns: Mapping[tuple[PoolName, AccountId], int]) -> None:
    await tx.run_many(
        "save_turn",
        [
            {"provider": provider, "kind": kind, "account_id": account_id, "number": number}
            for ((provider, kind), account_id), number in turns.items()
        ],
    )


async def forget_turns(tx: Transaction, names: Iterable[PoolName]) -> None:
    await tx.run_many("forget_turns", [{"provider": provider, "kind": kind} for provider, kind in names])
