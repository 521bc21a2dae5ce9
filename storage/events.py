"""The durable log of events."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from service.domain.events import Event, EventType
from service.domain.ids import AccountId, EventId, TaskId
from service.domain.values import replace
from storage.columns import Row, json_text, milliseconds, moment
from storage.database import Reader, Transaction
from storage.tasks import trace_of


def _event(row: Row) -> Event:
    return Event(
        id=row["id"],
        type=EventType(row["type"]),
        account_id=row["account_id"],
        task_id=row["task_id"],
        sequence=row["sequence"],
        at=moment(row["at"]),
        body=row["body"],
        position=row["position"],
    )


async def insert(tx: Transaction, events: Sequence[Event]) -> list[Event]:
    """The events with their positions: the order of an account's log is that of commits, for its log is held."""
    if not events:
        return []
    positions = await tx.next_positions({event.account_id for event in events}, len(events))
    stored = [replace(event, position=position) for event, position in zip(events, positions, strict=True)]
    await tx.run_many(
        "insert_event",
        [
            {
                "position": event.position,
                "id": event.id,
                "account_id": event.account_id,
                "task_id": event.task_id,
                "type": str(event.type),
                "sequence": event.sequence,
                "at": milliseconds(event.at),
                "body": event.body,
            }
            for event in stored
        ],
    )
    return stored


async def get(reader: Reader, event_id: str, *, account_id: AccountId) -> Event | None:
    row = await reader.one("get_event", id=event_id, account_id=account_id)
    return None if row is None else _event(row)


async def by_id(reader: Reader, ids: Iterable[EventId]) -> dict[EventId, Event]:
    """With their tasks' traces."""
    rows = await reader.all("events_by_id", ids=json_text(sorted(set(ids))))
    return {row["id"]: replace(_event(row), trace=trace_of(row)) for row in rows}


async def of_account(
    reader: Reader,
    account_id: AccountId,
    *,
    after_position: int,
    limit: int,
    type: str | None = None,
) -> list[Event]:
    """In the order of the log."""
    rows = await reader.all(
        "list_events", account_id=account_id, after_position=after_position, type=type, limit=limit
    )
    return [_event(row) for row in rows]


async def latest(
    reader: Reader,
    account_id: AccountId,
    *,
    before_position: int | None,
    limit: int,
    type: str | None = None,
) -> list[Event]:
    """Newest first."""
    rows = await reader.all(
        "list_events_latest", account_id=account_id, before_position=before_position, type=type, limit=limit
    )
    return [_event(row) for row in rows]


async def of_task(reader: Reader, task_id: TaskId, *, after_position: int, limit: int) -> list[Event]:
    """In the order of the log."""
    rows = await reader.all("list_task_events", task_id=task_id, after_position=after_position, limit=limit)
    return [_event(row) for row in rows]


async def position(reader: Reader, event_id: str, *, account_id: AccountId) -> int | None:
    """Where in the log it stands; None for one that is not this account's, or no longer kept."""
    found: int | None = await reader.value("event_position", id=event_id, account_id=account_id)
    return found


async def last_position(reader: Reader, account_id: AccountId) -> int:
    """In an account's log; what comes to it later stands after this. 0 for an empty one."""
    return await reader.value("last_position", account_id=account_id) or 0


async def reach(reader: Reader, position: int) -> bool:
    """Whether the logs of all accounts together have come so far, as they have to where somebody was once told of it."""
    return position == 0 or await reader.value("position_from", position=position) is not None


async def position_before(reader: Reader, account_id: AccountId, at: datetime) -> int:
    """One that parts an account's log: what happened before a moment is up to it. 0 if there is nothing.

    Moments of the log grow with its positions, but for a clock set back: they need no index to be found in.
    """
    before, up_to = 0, await last_position(reader, account_id)
    while before < up_to:
        middle = (before + up_to + 1) // 2
        there: int | None = await reader.value("moment_up_to", account_id=account_id, position=middle)
        if there is None or there < milliseconds(at):
            before = middle
        else:
            up_to = middle - 1
    return before
