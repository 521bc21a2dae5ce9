"""Forgetting what is older than it need be, a bounded number of rows at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.ids import first_id
from storage.columns import json_text, milliseconds
from storage.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """
    Args:
        number: of rows of this kind; with them goes what belongs to them.
        last: up to where all was looked at, to go on from; None is the end.
        unused: the hashes of input files that no task needs any longer.
    """

    number: int
    last: str | None
    unused: Sequence[str] = ()


async def deliveries(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """Ended ones, with their attempts."""
    ids, last = await _old(tx, "old_deliveries", first_id("dlv", before), after, limit)
    return await _forget(tx, ids, last, "delete_attempts", "delete_deliveries")


async def callbacks(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_callbacks", bound=first_id("cbk", before), limit=limit), after)


async def events(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    ids, last = await _old(tx, "old_events", first_id("evt", before), after, limit)
    return await _forget(tx, ids, last, "forget_events")


async def endpoints(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """With the names of the messages by which they spoke in chats."""
    ids, last = await _old(tx, "old_endpoints", first_id("end", before), after, limit)
    return await _forget(tx, ids, last, "delete_chat_messages", "forget_endpoints")


async def commands(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """What was asked in chats, and is done."""
    ids, last = await _old(tx, "old_commands", first_id("cmd", before), after, limit)
    return await _forget(tx, ids, last, "forget_commands")


async def idempotency_keys(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_idempotency_keys", before=milliseconds(before), limit=limit), after)


async def ended_sessions(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_ended_sessions", before=milliseconds(before), limit=limit), after)


async def tasks(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """Those that ended before, and of which nothing else is left."""
    rows = await tx.all(
        "old_tasks",
        before=milliseconds(before),
        bound=first_id("task", before),
        after=after,
        limit=limit,
    )
    gone = [row for row in rows if row["goes"]]
    needed = await _hashes(tx, "files_of_tasks", ids=[row["id"] for row in gone if row["has_files"]])
    forgotten = await _forget(
        tx,
        [row["id"] for row in gone],
        rows[-1]["id"] if rows else None,
        "delete_task_files",
        "delete_task_expiries",
        "delete_task_metadata",
        "delete_transitions",
        "delete_task_idempotency",
        "delete_chat_messages_of_tasks",
        "delete_tasks",
    )
    used = set(await _hashes(tx, "files_in_use", hashes=needed))
    return replace(forgotten, unused=[sha256 for sha256 in needed if sha256 not in used])


async def _hashes(tx: Transaction, statement: str, **listed: Sequence[str]) -> list[str]:
    [(name, values)] = listed.items()
    if not values:  # as nearly always
        return []
    return [row["sha256"] for row in await tx.all(statement, **{name: json_text(values)})]


async def _old(
    tx: Transaction, statement: str, bound: str, after: str, limit: int
) -> tuple[list[str], str | None]:
    """Of the next so many those that go, and the last that was looked at; None where there are no more."""
    rows = await tx.all(statement, bound=bound, after=after, limit=limit)
    return [row["id"] for row in rows if row["goes"]], rows[-1]["id"] if rows else None


async def _forget(tx: Transaction, ids: Sequence[str], last: str | None, *statements: str) -> Forgotten:
    """What belongs to these, and with the last statement they themselves. All of it is one step."""
    if not ids:
        return Forgotten(number=0, last=last)
    *belonging, own = statements
    listed = json_text(ids)
    for statement in belonging:
        await tx.run_many(statement, [{"ids": listed}])
    return Forgotten(number=await tx.run(own, ids=listed), last=last)


def _all(number: int, after: str) -> Forgotten:
    """Of a kind of which everything goes that is old: the next of them come first."""
    return Forgotten(number=number, last=after if number else None)
