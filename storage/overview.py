"""Counts and durations over an account's latest rows, for people who look at the whole of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from service.domain.deliveries import AttemptOutcome, Delivery
from service.domain.ids import AccountId, EndpointId, first_id
from service.domain.kept import archive_id
from service.domain.lifecycle import Status
from storage.columns import milliseconds, moment
from storage.database import Reader
from storage.deliveries import delivery_of

MOST_TASKS: Final = 20_000
MOST_DELIVERIES: Final = 5_000
MOST_OF_ENDPOINT: Final = 1_000
MOST_DEAD: Final = 1_000


async def tasks_over_time(
    reader: Reader, account_id: AccountId, *, since: datetime, span: timedelta
) -> Mapping[int, Mapping[Status, int]]:
    """How many of the tasks made in each span, counted from 0, are in which status; of the latest `MOST_TASKS`."""
    rows = await reader.all(
        "count_tasks_over_time",
        account_id=account_id,
        first_id=first_id("task", since),
        since=milliseconds(since),
        span=int(span.total_seconds() * 1000),
        limit=MOST_TASKS,
    )
    counted: defaultdict[int, dict[Status, int]] = defaultdict(dict)
    for row in rows:
        counted[max(row["bucket"], 0)][Status(row["status"])] = row["number"]
    return counted


@dataclass(frozen=True, slots=True)
class Took:
    """How long something took that began at a moment."""

    at: datetime
    ms: int


async def delivered(reader: Reader, account_id: AccountId, *, since: datetime) -> list[Took]:
    """From the callback's commit until the endpoint had the event, retries included; of the latest `MOST_DELIVERIES`."""
    rows = await reader.all(
        "latest_delivered",
        account_id=account_id,
        first_id=first_id("dlv", since),
        but_endpoint_id=archive_id(account_id),
        limit=MOST_DELIVERIES,
    )
    return [Took(moment(row["created_at"]), row["finished_at"] - row["created_at"]) for row in rows]


async def oldest_due(reader: Reader, account_id: AccountId, *, now: datetime) -> datetime | None:
    at: int | None = await reader.value("oldest_due_of_account", account_id=account_id, now=milliseconds(now))
    return moment(at)


async def count_dead(reader: Reader, account_id: AccountId) -> int:
    """Up to `MOST_DEAD`."""
    number: int = await reader.value("count_dead_of_account", account_id=account_id, limit=MOST_DEAD)
    return number


async def dead_letters(
    reader: Reader, account_id: AccountId, *, before_id: str | None, limit: int
) -> Sequence[Delivery]:
    """Newest first."""
    rows = await reader.all("list_dead_letters", account_id=account_id, before_id=before_id, limit=limit)
    return [delivery_of(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Tried:
    at: datetime
    ms: int
    outcome: AttemptOutcome


async def attempts_to(
    reader: Reader, endpoint_id: EndpointId, *, account_id: AccountId, since: datetime
) -> list[Tried]:
    """Of its latest `MOST_OF_ENDPOINT` deliveries."""
    rows = await reader.all(
        "latest_attempts_to_endpoint",
        endpoint_id=endpoint_id,
        account_id=account_id,
        since=milliseconds(since),
        limit=MOST_OF_ENDPOINT,
    )
    return [
        Tried(moment(row["started_at"]), row["duration_ms"], AttemptOutcome(row["outcome"])) for row in rows
    ]
