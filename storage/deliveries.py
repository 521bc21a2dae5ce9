"""Deliveries and their attempts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from service.domain.deliveries import Attempt, AttemptOutcome, Delivery, DeliveryStatus
from service.domain.ids import AccountId, DeliveryId, EndpointId, EventId, LaneKey, ProcessId
from service.domain.values import Struct
from storage.columns import Row, json_text, milliseconds, moment
from storage.database import Reader, Transaction


def delivery_of(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        account_id=row["account_id"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        task_id=row["task_id"],
        endpoint_id=row["endpoint_id"],
        status=DeliveryStatus(row["status"]),
        attempts=row["attempts"],
        next_attempt_at=moment(row["next_attempt_at"]),
        replay_of=row["replay_of"],
        reason=row["reason"],
        created_at=moment(row["created_at"]),
        finished_at=moment(row["finished_at"]),
    )


class Leased(Struct, frozen=True):
    """A delivery at its birth, with the end of the lease under which its maker has it in hand, if it has."""

    delivery: Delivery
    lane: LaneKey
    lease_until: datetime | None
    leased_by: ProcessId | None


async def insert(tx: Transaction, deliveries: Sequence[Leased]) -> None:
    await tx.run_many(
        "insert_delivery",
        [
            {
                "id": born.delivery.id,
                "account_id": born.delivery.account_id,
                "event_id": born.delivery.event_id,
                "event_type": str(born.delivery.event_type),
                "task_id": born.delivery.task_id,
                "endpoint_id": born.delivery.endpoint_id,
                "lane": born.lane,
                "next_attempt_at": milliseconds(born.delivery.next_attempt_at),
                "lease_until": milliseconds(born.lease_until),
                "leased_by": born.leased_by,
                "replay_of": born.delivery.replay_of,
                "created_at": milliseconds(born.delivery.created_at),
            }
            for born in deliveries
        ],
    )


class Waiting(Struct, frozen=True):
    """What a process could claim, as far as it was asked for."""

    lanes: Sequence[LaneKey]  # in which something is due, the longest due first
    next_moment: datetime | None  # when something falls due: an attempt, or the end of a lease


async def waiting(
    reader: Reader,
    *,
    now: datetime,
    busy: Iterable[LaneKey],
    no_retries: Iterable[LaneKey],
    by: ProcessId,
    limit: int,
) -> Waiting:
    """What waits, but for lanes that are `busy`, or held by other processes.

    Args:
        no_retries: lanes that take first attempts alone.
        limit: of lanes, at least 1.
    """
    lanes = await reader.all(
        "lanes_waited_for",
        busy_lanes=json_text(sorted(busy)),
        no_retries=json_text(sorted(no_retries)),
        process_id=by,
        limit=limit,
    )
    lease_end = await reader.value("next_lease_end")
    moments = [*(row["next_attempt_at"] for row in lanes), *([] if lease_end is None else [lease_end])]
    until = milliseconds(now)
    return Waiting(
        lanes=[row["lane"] for row in lanes if row["next_attempt_at"] <= until],
        next_moment=moment(min(moments, default=None)),
    )


async def due(
    tx: Transaction,
    lanes: Sequence[LaneKey],
    *,
    no_retries: Iterable[LaneKey],
    now: datetime,
    by: ProcessId,
    limit: int,
) -> list[Delivery]:
    """The next due ones of these lanes, of one after another, but for those that are held by other processes; of each
    lane first attempts before retries, however long these are due.

    Args:
        no_retries: lanes that take first attempts alone.
    """
    rows = await tx.all(
        "due_deliveries",
        lanes=json_text(list(lanes)),
        no_retries=json_text(sorted(no_retries)),
        now=milliseconds(now),
        process_id=by,
        limit=limit,
    )
    return [delivery_of(row) for row in rows]


async def lease(tx: Transaction, ids: Iterable[DeliveryId], *, until: datetime, by: ProcessId) -> None:
    """They are held until then, and nobody else takes them."""
    await tx.run_many(
        "lease_delivery",
        [{"id": id, "lease_until": milliseconds(until), "leased_by": by} for id in ids],
    )


async def leased(reader: Reader, by: ProcessId) -> list[DeliveryId]:
    """What the database says that a process has in its hands."""
    return [row["id"] for row in await reader.all("leased_deliveries", process_id=by)]


async def leases_ending(tx: Transaction, by: ProcessId, *, before: datetime) -> list[DeliveryId]:
    """What a process has in its hands, and will have for no longer than that."""
    rows = await tx.all("leases_ending", process_id=by, before=milliseconds(before))
    return [row["id"] for row in rows]


async def awaited(reader: Reader, endpoint_ids: Iterable[EndpointId]) -> set[EndpointId]:
    """Those for which something that was never attempted waits in the database, in nobody's hands."""
    rows = await reader.all("endpoints_awaited", ids=json_text(sorted(set(endpoint_ids))))
    return {row["endpoint_id"] for row in rows}


async def inherit(tx: Transaction, processes: Sequence[ProcessId]) -> int:
    """Gives back what was in the hands of processes that are no more."""
    return await tx.run("inherit_deliveries", processes=json_text(list(processes)))


async def move(tx: Transaction, endpoint_id: EndpointId, *, lane: LaneKey) -> None:
    """What is under way to an endpoint waits in that lane from now on."""
    await tx.run("move_deliveries", endpoint_id=endpoint_id, lane=lane)


async def rescue(tx: Transaction, *, now: datetime) -> int:
    """Gives back those whose lease has ended."""
    return await tx.run("rescue_deliveries", now=milliseconds(now))


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt leaves its delivery."""

    attempt: Attempt
    status: DeliveryStatus
    next_attempt_at: datetime | None


async def record(tx: Transaction, outcomes: Sequence[Outcome], *, now: datetime) -> None:
    """The attempts as evidence, and each delivery as its attempt leaves it; one that ended meanwhile stays so."""
    finished_at = milliseconds(now)
    await tx.run_many(
        "insert_attempt",
        [
            {
                "delivery_id": outcome.attempt.delivery_id,
                "number": outcome.attempt.number,
                "started_at": milliseconds(outcome.attempt.started_at),
                "duration_ms": outcome.attempt.duration_ms,
                "status_code": outcome.attempt.status_code,
                "outcome": str(outcome.attempt.outcome),
                "reason": outcome.attempt.reason,
                "excerpt": outcome.attempt.excerpt,
            }
            for outcome in outcomes
        ],
    )
    await tx.run_many(
        "record_outcome",
        [
            {
                "id": outcome.attempt.delivery_id,
                "status": str(outcome.status),
                "attempts": outcome.attempt.number,
                "next_attempt_at": milliseconds(outcome.next_attempt_at),
                "reason": outcome.attempt.why,
                "finished_at": None if outcome.status is DeliveryStatus.PENDING else finished_at,
            }
            for outcome in outcomes
        ],
    )


async def give_back(tx: Transaction, ids: Iterable[DeliveryId]) -> None:
    """Unattempted: they are due as they were."""
    await tx.run_many("give_back", [{"id": id} for id in ids])


async def bury(tx: Transaction, endpoint_id: EndpointId, *, reason: str, now: datetime) -> None:
    """All that waits for an endpoint that takes no more becomes dead letters, also what is in somebody's hand."""
    about = {"endpoint_id": endpoint_id, "reason": reason, "now": milliseconds(now)}
    await tx.run("bury_waiting", **about)
    await tx.run("bury_leased", **about)  # what was claimed meanwhile, too: that the first one has waited for


async def bury_these(tx: Transaction, reasons: Mapping[DeliveryId, str], *, now: datetime) -> None:
    """Each becomes a dead letter, for that reason."""
    await tx.run_many(
        "bury_delivery",
        [{"id": id, "reason": reason, "now": milliseconds(now)} for id, reason in reasons.items()],
    )


async def revive(tx: Transaction, reasons: Mapping[DeliveryId, str], *, now: datetime) -> None:
    """Those of them that are dead letters for that reason are due again."""
    await tx.run_many(
        "revive_delivery",
        [{"id": id, "reason": reason, "now": milliseconds(now)} for id, reason in reasons.items()],
    )


async def get(reader: Reader, delivery_id: str, *, account_id: AccountId) -> Delivery | None:
    row = await reader.one("get_delivery", id=delivery_id, account_id=account_id)
    return None if row is None else delivery_of(row)


class DeliveryFilter(Struct, frozen=True, kw_only=True):
    """What None leaves open."""

    endpoint_id: str | None = None
    but_endpoint_id: str | None = None
    status: str | None = None
    event_id: str | None = None
    task_id: str | None = None


async def page(
    reader: Reader, account_id: AccountId, wanted: DeliveryFilter, *, before_id: str | None, limit: int
) -> list[Delivery]:
    """Newest first."""
    statement = _narrowest(wanted)
    more: dict[str, str] = {}
    if statement == "list_pending_deliveries":
        own = await reader.all("ids_of_own_endpoints", account_id=account_id)
        more["own_endpoints"] = json_text([row["id"] for row in own])
    rows = await reader.all(
        statement,
        **more,
        account_id=account_id,
        before_id=before_id,
        endpoint_id=wanted.endpoint_id,
        but_endpoint_id=wanted.but_endpoint_id,
        status=wanted.status,
        event_id=wanted.event_id,
        task_id=wanted.task_id,
        limit=limit,
    )
    return [delivery_of(row) for row in rows]


def _narrowest(wanted: DeliveryFilter) -> str:
    """The statement that finds by an index what leaves least."""
    if wanted.event_id is not None:
        return "list_deliveries_of_event"
    if wanted.task_id is not None:
        return "list_deliveries_of_task"
    match wanted.status:
        case DeliveryStatus.DEAD:
            return "list_dead_deliveries"
        case DeliveryStatus.PENDING:
            return "list_pending_deliveries"
        case _:
            return "list_deliveries" if wanted.endpoint_id is None else "list_deliveries_to_endpoint"


async def latest_of_event(
    reader: Reader, event_id: EventId, endpoint_ids: Iterable[EndpointId]
) -> dict[EndpointId, tuple[Delivery, int]]:
    """By endpoint: the newest delivery of the event there, and how many there are with those before it."""
    rows = await reader.all(
        "latest_deliveries_of_event", event_id=event_id, endpoint_ids=json_text(sorted(endpoint_ids))
    )
    return {row["endpoint_id"]: (delivery_of(row), row["number"]) for row in rows}


async def attempts(reader: Reader, delivery_id: DeliveryId) -> list[Attempt]:
    rows = await reader.all("list_attempts", delivery_id=delivery_id)
    return [
        Attempt(
            delivery_id=row["delivery_id"],
            number=row["number"],
            started_at=moment(row["started_at"]),
            duration_ms=row["duration_ms"],
            status_code=row["status_code"],
            outcome=AttemptOutcome(row["outcome"]),
            reason=row["reason"],
            excerpt=row["excerpt"],
        )
        for row in rows
    ]


async def oldest_due(reader: Reader, *, now: datetime) -> datetime | None:
    at: int | None = await reader.value("oldest_due", now=milliseconds(now))
    return moment(at)


async def count_dead(reader: Reader) -> int:
    number: int = await reader.value("count_dead")
    return number


async def failed_since(
    reader: Reader,
    endpoint_id: EndpointId,
    *,
    account_id: AccountId,
    since: datetime,
    began: datetime,
    after_id: str,
    limit: int,
) -> list[Delivery]:
    """Dead letters that nobody has replayed yet, oldest first, but for replays that were made since it began."""
    rows = await reader.all(
        "failed_since",
        account_id=account_id,
        endpoint_id=endpoint_id,
        since=milliseconds(since),
        began=milliseconds(began),
        after_id=after_id,
        limit=limit,
    )
    return [delivery_of(row) for row in rows]


async def of_events(
    reader: Reader, endpoint_id: EndpointId, event_ids: Iterable[EventId]
) -> dict[EventId, Delivery]:
    """By event: the delivery that it made to this endpoint when it happened."""
    rows = await reader.all(
        "deliveries_of_events", endpoint_id=endpoint_id, event_ids=json_text(sorted(event_ids))
    )
    return {row["event_id"]: delivery_of(row) for row in rows}
