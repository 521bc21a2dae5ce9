"""Forgetting what is older than it need be, a bounded number of rows at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    last = await _last(tx, "next_old_deliveries", first_id("dlv", before), after, limit)
    if last is None:
        return Forgotten(number=0, last=None)
    rows = await tx.all("old_deliveries", after=after, last=last)
    ids = json_text([row["id"] for row in rows])
    await tx.run("delete_attempts", ids=ids)
    return Forgotten(number=await tx.run("delete_deliveries", ids=ids), last=last)


async def callbacks(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_callbacks", bound=first_id("cbk", before), limit=limit), after)


async def events(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    last = await _last(tx, "next_old_events", first_id("evt", before), after, limit)
    if last is None:
        return Forgotten(number=0, last=None)
    return Forgotten(number=await tx.run("forget_events", after=after, last=last), last=last)


async def endpoints(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """With the names of the messages by which they spoke in chats."""
    last = await _last(tx, "next_old_endpoints", first_id("end", before), after, limit)
    if last is None:
        return Forgotten(number=0, last=None)
    rows = await tx.all("old_endpoints", after=after, last=last)
    ids = json_text([row["id"] for row in rows])
    await tx.run("delete_chat_messages", ids=ids)
    return Forgotten(number=await tx.run("forget_endpoints", ids=ids), last=last)


async def commands(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """What was asked in chats, and is done."""
    last = await _last(tx, "next_old_commands", first_id("cmd", before), after, limit)
    if last is None:
        return Forgotten(number=0, last=None)
    return Forgotten(number=await tx.run("forget_commands", after=after, last=last), last=last)


async def idempotency_keys(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_idempotency_keys", before=milliseconds(before), limit=limit), after)


async def ended_sessions(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    return _all(await tx.run("forget_ended_sessions", before=milliseconds(before), limit=limit), after)


async def tasks(tx: Transaction, *, before: datetime, after: str, limit: int) -> Forgotten:
    """Ended ones of which nothing else is left."""
    last = await _last(tx, "next_old_tasks", first_id("task", before), after, limit)
    if last is None:
        return Forgotten(number=0, last=None)
    rows = await tx.all("old_tasks", after=after, last=last)
    ids = json_text([row["id"] for row in rows])
    needed = [row["sha256"] for row in await tx.all("files_of_tasks", ids=ids)]
    for statement in (
        "delete_task_files",
        "delete_task_expiries",
        "delete_task_metadata",
        "delete_transitions",
        "delete_task_idempotency",
        "delete_chat_messages_of_tasks",
        "delete_tasks",
    ):
        await tx.run(statement, ids=ids)
    used = {row["sha256"] for row in await tx.all("files_in_use", hashes=json_text(needed))}
    unused = [sha256 for sha256 in needed if sha256 not in used]
    return Forgotten(number=len(rows), last=last, unused=unused)


async def _last(tx: Transaction, statement: str, bound: str, after: str, limit: int) -> str | None:
    last: str | None = await tx.value(statement, bound=bound, after=after, limit=limit)
    return last


def _all(number: int, after: str) -> Forgotten:
    """Of a kind of which everything goes that is old: the next of them come first."""
    return Forgotten(number=number, last=after if number else None)
