"""Forgetting what is older than it need be, a bounded number of rows at a time."""

from datetime import datetime

from service.domain.ids import first_id
from storage.columns import json_text, milliseconds
from storage.database import Transaction


async def deliveries(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Ended ones, with their attempts. Gives how many; so do the others."""
    rows = await tx.all("old_deliveries", bound=first_id("dlv", before), limit=limit)
    ids = json_text([row["id"] for row in rows])
    await tx.run("delete_attempts", ids=ids)
    return await tx.run("delete_deliveries", ids=ids)


async def callbacks(tx: Transaction, *, before: datetime, limit: int) -> int:
    return await tx.run("forget_callbacks", bound=first_id("cbk", before), limit=limit)


async def events(tx: Transaction, *, before: datetime, limit: int) -> int:
    return await tx.run("forget_events", bound=first_id("evt", before), limit=limit)


async def endpoints(tx: Transaction, *, before: datetime, limit: int) -> int:
    """With the names of the messages by which they spoke in chats."""
    rows = await tx.all("old_endpoints", bound=first_id("end", before), limit=limit)
    ids = json_text([row["id"] for row in rows])
    await tx.run("delete_chat_messages", ids=ids)
    return await tx.run("forget_endpoints", ids=ids)


async def commands(tx: Transaction, *, before: datetime, limit: int) -> int:
    """What was asked in chats, and is done."""
    return await tx.run("forget_commands", bound=first_id("cmd", before), limit=limit)


async def idempotency_keys(tx: Transaction, *, before: datetime, limit: int) -> int:
    return await tx.run("forget_idempotency_keys", before=milliseconds(before), limit=limit)


async def ended_sessions(tx: Transaction, *, before: datetime, limit: int) -> int:
    return await tx.run("forget_ended_sessions", before=milliseconds(before), limit=limit)


async def tasks(tx: Transaction, *, before: datetime, limit: int) -> tuple[int, list[str]]:
    """How many ended tasks, and the hashes of the input files that no task needs any longer."""
    rows = await tx.all("old_tasks", bound=first_id("task", before), limit=limit)
    ids = json_text([row["id"] for row in rows])
    needed = [row["sha256"] for row in await tx.all("files_of_tasks", ids=ids)]
    for statement in (
        "delete_task_files",
        "delete_task_expiries",
        "delete_transitions",
        "delete_task_idempotency",
        "delete_chat_messages_of_tasks",
        "delete_tasks",
    ):
        await tx.run(statement, ids=ids)
    used = {row["sha256"] for row in await tx.all("files_in_use", hashes=json_text(needed))}
    return len(rows), [sha256 for sha256 in needed if sha256 not in used]
