"""Tasks, their transitions, the callbacks received for them, and idempotency keys."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple

from service.domain.costs import Charge, charge_of
from service.domain.ids import AccountId, CallbackId, EndpointId, ProcessId, TaskId, first_id
from service.domain.lifecycle import Status, Verdict
from service.domain.tasks import Child, Output, OutputKind, Refusal, Task, TaskError, Transition
from service.domain.times import rfc3339
from service.domain.traces import Trace
from service.domain.values import Struct
from storage.columns import Row, from_json_text, json_text, milliseconds, moment
from storage.database import Reader, Transaction

_STATUSES: Final = {status.value: status for status in Status}  # a tenth of the time of `Status(…)`


def task_of(row: Row) -> Task:
    error = None
    if row["error_code"] is not None:
        refusal = None if row["error_refusal"] is None else Refusal(row["error_refusal"])
        error = TaskError(row["error_code"], row["error_message"] or "", refusal)
    return Task(
        id=row["id"],
        account_id=row["account_id"],
        type=row["type"],
        provider=row["provider"],
        status=_STATUSES[row["status"]],
        input=from_json_text(row["input"]),
        external_task_id=row["external_task_id"],
        provider_external_id=row["provider_external_id"],
        provider_task_id=row["provider_task_id"],
        extras=from_json_text(row["extras"]),
        path=row["path"],
        metadata=from_json_text(row["metadata"]),
        parent_id=row["parent_id"],
        rule_id=row["rule_id"],
        depth=row["depth"],
        places=row["places"],
        trace=trace_of(row),
        outputs=() if row["outputs"] == "[]" else tuple(map(_output, from_json_text(row["outputs"]))),
        error=error,
        cost=cost_of(row["cost"]),
        sequence=row["sequence"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        submitted_at=moment(row["submitted_at"]),
        finished_at=moment(row["finished_at"]),
        deadline_at=moment(row["deadline_at"]),
        overdue_at=moment(row["overdue_at"]),
        sends=row["sends"],
        sending_since=moment(row["sending_since"]),
        next_send_at=moment(row["next_send_at"]),
        awaits_slot=bool(row["awaits_slot"]),
        slot_turn=row["slot_turn"],
    )


def trace_of(row: Row) -> Trace | None:
    """Of a row that has a task's."""
    return None if row["traceparent"] is None else Trace(row["traceparent"], row["tracestate"])


def _output(item: Mapping[str, Any]) -> Output:
    expires_at = item.get("expires_at")
    return Output(
        kind=OutputKind(item["kind"]),
        index=item["index"],
        url=item["url"],
        id=item.get("id"),
        duration_s=item.get("duration_s"),
        watermark_url=item.get("watermark_url"),
        wav_url=item.get("wav_url"),
        group=item.get("group"),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
        stored_url=item.get("stored_url"),
        poster_url=item.get("poster_url"),
        thumbnail_url=item.get("thumbnail_url"),
    )


def cost_text(cost: tuple[Charge, ...] | None) -> str | None:
    return None if cost is None else json_text([charge.view() for charge in cost])


def cost_of(text: str | None) -> tuple[Charge, ...] | None:
    return None if text is None else tuple(charge_of(item) for item in from_json_text(text))


async def insert(tx: Transaction, tasks: Sequence[Task]) -> None:
    await tx.run_many(
        "insert_task",
        [
            {
                "id": task.id,
                "account_id": task.account_id,
                "type": task.type,
                "provider": task.provider,
                "status": task.status,
                "input": json_text(task.input),
                "places": task.places,
                "external_task_id": task.external_task_id,
                "provider_external_id": task.provider_external_id,
                "extras": json_text(task.extras),
                "path": task.path,
                "metadata": json_text(task.metadata),
                "parent_id": task.parent_id,
                "rule_id": task.rule_id,
                "depth": task.depth,
                "traceparent": None if task.trace is None else task.trace.parent,
                "tracestate": None if task.trace is None else task.trace.state,
                "created_at": milliseconds(task.created_at),
                "updated_at": milliseconds(task.updated_at),
                "deadline_at": milliseconds(task.deadline_at),
                "next_send_at": milliseconds(task.next_send_at),
            }
            for task in tasks
        ],
    )
    await tx.run_many(
        "insert_task_metadata",
        [
            {"task_id": task.id, "account_id": task.account_id, **pair}
            for task in tasks
            for pair in _indexed(task.metadata)
        ],
    )


async def insert_files(tx: Transaction, files: Iterable[tuple[TaskId, str]]) -> None:
    """Which task needs which input file, by its hash."""
    await tx.run_many(
        "insert_task_file", [{"task_id": task_id, "sha256": sha256} for task_id, sha256 in files]
    )


class Glance(NamedTuple):
    """How a task stands, for who asks again and again."""

    id: TaskId
    account_id: AccountId
    type: str
    external_task_id: str
    status: str
    error_message: str | None
    outputs: Sequence[Mapping[str, Any]]  # each as `Output.view` shows it
    cost: Sequence[Mapping[str, Any]] | None  # each as `Charge.view` shows it
    created_ms: int  # since 1970
    updated_ms: int

    def view(self) -> dict[str, Any]:
        """So much of `Task.view`, with milliseconds for moments."""
        return {
            "id": self.id,
            "external_task_id": self.external_task_id,
            "status": self.status,
            "error": None if self.error_message is None else {"message": self.error_message},
            "outputs": self.outputs,
            "cost": self.cost,
            "created_at": self.created_ms,
            "updated_at": self.updated_ms,
        }


def _glance_of(row: Row) -> Glance:
    return Glance(
        id=row["id"],
        account_id=row["account_id"],
        type=row["type"],
        external_task_id=row["external_task_id"],
        status=row["status"],
        error_message=row["error_message"],
        outputs=from_json_text(row["outputs"]),
        cost=None if row["cost"] is None else from_json_text(row["cost"]),
        created_ms=row["created_at"],
        updated_ms=row["updated_at"],
    )


async def get(reader: Reader, task_id: str, *, account_id: AccountId) -> Task | None:
    row = await reader.one("get_task", id=task_id, account_id=account_id)
    return None if row is None else task_of(row)


async def glances(reader: Reader, ids: Iterable[str]) -> dict[str, Glance]:
    """Whosever they are."""
    rows = await reader.all("glance_at_tasks", ids=json_text(list(ids)))
    return {row["id"]: _glance_of(row) for row in rows}


async def find(reader: Reader, name: str, *, account_id: AccountId, types: Sequence[str]) -> Glance | None:
    """By its id, else by the caller's own for it, else by the provider's.

    Args:
        types: one or two.
    """
    row = await reader.one("find_task", name=name, account_id=account_id, type=types[0], other_type=types[-1])
    return None if row is None else _glance_of(row)


async def get_many(reader: Reader, ids: Iterable[TaskId]) -> dict[TaskId, Task]:
    rows = await reader.all("get_tasks", ids=json_text(sorted(set(ids))))
    return {row["id"]: task_of(row) for row in rows}


async def to_change(tx: Transaction, ids: Iterable[TaskId]) -> dict[TaskId, Task]:
    """Many at once, for the batch that is about to change them: until its end nobody else does."""
    rows = await tx.all("tasks_to_change", ids=json_text(sorted(set(ids))))
    return {row["id"]: task_of(row) for row in rows}


async def free_to_change(tx: Transaction, ids: Iterable[TaskId]) -> dict[TaskId, Task]:
    """As `to_change`, and waits for nobody: those that are being changed are left out."""
    rows = await tx.all("free_tasks_to_change", ids=json_text(sorted(set(ids))))
    return {row["id"]: task_of(row) for row in rows}


async def external_ids_taken(
    reader: Reader, pairs: Iterable[tuple[AccountId, str]]
) -> dict[tuple[AccountId, str], TaskId]:
    listed = [{"account": account_id, "external": external_id} for account_id, external_id in pairs]
    if not listed:
        return {}
    rows = await reader.all("find_external_task_ids", pairs=json_text(listed))
    return {(row["account_id"], row["external_task_id"]): row["id"] for row in rows}


async def children(reader: Reader, task: Task, *, limit: int) -> list[Child]:
    """What follow-ups made of it, oldest first."""
    rows = await reader.all("list_children", parent_id=task.id, account_id=task.account_id, limit=limit)
    return [Child(id=row["id"], type=row["type"], status=Status(row["status"])) for row in rows]


async def standing_rules_of_line(reader: Reader, task_id: TaskId) -> set[EndpointId]:
    """The standing follow-ups that made a task and all that it descends from, as far as these are kept."""
    return {row["rule_id"] for row in await reader.all("standing_rules_of_line", id=task_id)}


async def family(reader: Reader, task_id: TaskId, *, most: int) -> tuple[TaskId, int]:
    """The first that a task descends from, as far as they are kept, and how many descend from it: at most so many are
    counted.
    """
    row = await reader.one("family", id=task_id, most=most)
    return (task_id, 0) if row is None or row["root"] is None else (row["root"], row["number"])


async def followed(
    reader: Reader, pairs: Iterable[tuple[TaskId, EndpointId]]
) -> dict[tuple[TaskId, EndpointId], TaskId]:
    """What rules have already made of tasks."""
    listed = [{"parent": parent_id, "rule": rule_id} for parent_id, rule_id in pairs]
    if not listed:
        return {}
    rows = await reader.all("find_followed", pairs=json_text(listed))
    return {(row["parent_id"], row["rule_id"]): row["id"] for row in rows}


async def let_go_of_external_id(tx: Transaction, task_id: TaskId | None) -> bool:
    """Whether this task was there and rejected: from now on it goes by its own id alone."""
    return task_id is not None and await tx.run("let_go_of_external_id", id=task_id) > 0


async def save(tx: Transaction, changes: Sequence[tuple[Task, Task]]) -> None:
    """Each change as (before, after). One row changes once in a batch."""
    advanced = [change for change in changes if _create_columns(change[0]) == _create_columns(change[1])]
    await tx.run_many("advance_task", [_report_columns(before, after) for before, after in advanced])
    if len(advanced) == len(changes):
        return
    await tx.run_many(
        "save_task",
        [
            {
                **_report_columns(before, after),
                "provider_task_id": after.provider_task_id,
                "overdue_at": milliseconds(after.overdue_at),
                "sends": after.sends,
                "sending_since": milliseconds(after.sending_since),
                "next_send_at": milliseconds(after.next_send_at),
                "awaits_slot": int(after.awaits_slot),
            }
            for before, after in changes
            if _create_columns(before) != _create_columns(after)
        ],
    )


# What a create changes, and a task's becoming overdue: most changes are a provider's report, and leave these as they are.
_create_columns: Final = attrgetter(
    "provider_task_id", "overdue_at", "sends", "sending_since", "next_send_at", "awaits_slot"
)


def _report_columns(before: Task, after: Task) -> dict[str, Any]:
    """What a provider's report changes, and the status and sequence that the row was read with.

    Words of ours go into many rows as plain text, here and elsewhere: 0.4 us each, and 0.7 as the member of an enum, for
    which SQLite's driver looks for an adapter.
    """
    error = after.error
    return {
        "id": after.id,
        "status": str(after.status),
        "outputs": json_text([output.view() for output in after.outputs]) if after.outputs else "[]",
        "error_code": None if error is None else error.code,
        "error_message": None if error is None else error.message,
        "error_refusal": None if error is None else error.refusal,
        "cost": cost_text(after.cost),
        "sequence": after.sequence,
        "updated_at": milliseconds(after.updated_at),
        "submitted_at": milliseconds(after.submitted_at),
        "finished_at": milliseconds(after.finished_at),
        "status_before": str(before.status),
        "sequence_before": before.sequence,
    }


async def insert_transitions(tx: Transaction, transitions: Sequence[tuple[TaskId, Transition]]) -> None:
    await tx.run_many(
        "insert_transition",
        [
            {
                "task_id": task_id,
                "sequence": transition.sequence,
                "before_status": str(transition.before),
                "after_status": str(transition.after),
                "at": milliseconds(transition.at),
            }
            for task_id, transition in transitions
        ],
    )


async def transitions(reader: Reader, task_id: TaskId) -> list[Transition]:
    rows = await reader.all("list_transitions", task_id=task_id)
    return [
        Transition(
            before=Status(row["before_status"]),
            after=Status(row["after_status"]),
            at=moment(row["at"]),
            sequence=row["sequence"],
        )
        for row in rows
    ]


# How far apart the moment in an id and `created_at` may be, both of which are of the same clock.
ASTRAY: Final = timedelta(minutes=1)
LIFE_OF_IDS: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))
INDEXED: Final = 100  # characters of a key or value in metadata; see the migration
# A page by several filters is looked for among so many tasks, then in steps of up to so many.
AT_FIRST: Final = 200
AT_MOST: Final = 8000
MOST_WAYS: Final = 6  # of a page's filters, of which the narrowest is looked for


class TaskFilter(Struct, frozen=True, kw_only=True):
    """What None leaves open. `metadata` values are compared as text."""

    status: str | None = None
    type: str | None = None
    external_task_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] | None = None


async def page(
    reader: Reader, account_id: AccountId, wanted: TaskFilter, *, before_id: str | None, limit: int
) -> list[Task]:
    """Newest first.

    Each filter has an index. That which finds fewest finds them, the others say which of these they would have found,
    and only what is shown is read: 4 ms where 1,000 of a million tasks have a value, and reading each of them takes 16.
    """
    filters = _filters(account_id, wanted)
    if wanted.external_task_id is not None:
        holder = await _holder(reader, account_id, wanted.external_task_id, before_id=before_id)
        return await _wanted_of(reader, await _kept(reader, filters, holder), wanted, limit=limit)
    first_id = await _first_made(reader, account_id, wanted.created_after)
    if (end := await _end_of_made(reader, account_id, wanted.created_before)) is not None:
        before_id = min(before_id or end, end)
    ways = filters[:MOST_WAYS] or [_Filter("task_ids", None, {"account_id": account_id})]
    reach = limit if len(filters) <= 1 else AT_FIRST
    found: list[Task] = []
    while len(found) < limit:
        way, ids = await _narrowest(reader, ways, first_id=first_id, before_id=before_id, limit=reach)
        kept = await _kept(reader, [each for each in filters if each is not way], ids)
        found += await _wanted_of(reader, kept, wanted, limit=limit - len(found))
        if len(ids) < reach:
            break
        ways, before_id, reach = [way], ids[-1], min(max(4 * reach, AT_FIRST), AT_MOST)
    return found


class _Filter(Struct, frozen=True):
    """
    Args:
        finds: the statement that gives ids of tasks, newest first;
        keeps: that which gives those of some ids that the other would, too;
        asked: what is said to both.
    """

    finds: str
    keeps: str | None
    asked: Mapping[str, str]


def _filters(account_id: AccountId, wanted: TaskFilter) -> list[_Filter]:
    own = {"account_id": account_id}
    filters = [
        _Filter("task_ids_with_metadata", "of_these_with_metadata", own | pair)
        for pair in _indexed(wanted.metadata or {})
    ]
    if wanted.type is not None:
        filters.insert(0, _Filter("task_ids_of_type", "of_these_of_type", own | {"type": wanted.type}))
    if wanted.status is not None:
        filters.insert(
            0, _Filter("task_ids_in_status", "of_these_in_status", own | {"status": wanted.status})
        )
    return filters


async def _holder(
    reader: Reader, account_id: AccountId, external_id: str, *, before_id: str | None
) -> list[str]:
    """Whose external id this is: one task at most, which has an index for it."""
    pairs = [{"account": account_id, "external": external_id}]
    rows = await reader.all("find_external_task_ids", pairs=json_text(pairs))
    return [row["id"] for row in rows if before_id is None or row["id"] < before_id]


async def _narrowest(
    reader: Reader, ways: Sequence[_Filter], *, first_id: str | None, before_id: str | None, limit: int
) -> tuple[_Filter, list[str]]:
    """Which of these finds fewest, or reaches back furthest with as many as asked for; and what it finds."""
    found = []
    for way in ways:
        rows = await reader.all(way.finds, first_id=first_id, before_id=before_id, limit=limit, **way.asked)
        found.append((way, [row["id"] for row in rows]))
    return min(found, key=lambda each: (len(each[1]), each[1][-1:]))


async def _kept(reader: Reader, filters: Iterable[_Filter], ids: Sequence[str]) -> Sequence[str]:
    """Those of these, newest first, that all filters find."""
    for each in filters:
        if ids and each.keeps is not None:
            rows = await reader.all(each.keeps, ids=json_text(ids), **each.asked)
            ids = [row["id"] for row in rows]
    return ids


async def _wanted_of(reader: Reader, ids: Sequence[str], wanted: TaskFilter, *, limit: int) -> list[Task]:
    """Of those that the filters have found, newest first: the ones that they mean."""
    found: list[Task] = []
    while ids and len(found) < limit:
        next_ids, ids = ids[: limit - len(found)], ids[limit - len(found) :]
        rows = await reader.all(
            "list_tasks",
            ids=json_text(next_ids),
            created_after=milliseconds(wanted.created_after),
            created_before=milliseconds(wanted.created_before),
        )
        found += [task for task in map(task_of, rows) if _has(task, wanted.metadata or {})]
    return found


def _has(task: Task, wanted: Mapping[str, str]) -> bool:
    """Also of what is longer than what the index knows of it."""
    return all(key in task.metadata and _text(task.metadata[key]) == text for key, text in wanted.items())


def _indexed(metadata: Mapping[str, object]) -> list[dict[str, str]]:
    """What the index knows of it, each once: no more than the beginning, and no NUL, which databases cannot look for."""
    pairs = {(_known(key), _known(_text(value))) for key, value in metadata.items()}
    return [{"key": key, "value": value} for key, value in sorted(pairs)]


def _known(text: str) -> str:
    return text[:INDEXED].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _text(value: object) -> str:
    """By which a value in metadata is compared."""
    return value if isinstance(value, str) else json_text(value)


async def _first_made(reader: Reader, account_id: AccountId, after: datetime | None) -> str | None:
    """An id before which nothing was made after a moment, so that what is older is not looked at. None is no bound."""
    if after is None or after < LIFE_OF_IDS[0]:
        return None
    bound = first_id("task", after - ASTRAY)
    made = await reader.value("task_before", account_id=account_id, id=bound)
    return None if made is not None and moment(made) >= after else bound


async def _end_of_made(reader: Reader, account_id: AccountId, before: datetime | None) -> str | None:
    """An id from which on nothing was made before a moment, so that what is newer is not looked at. None is no bound."""
    if before is None or before >= LIFE_OF_IDS[1]:
        return None
    bound = first_id("task", before + ASTRAY)
    made = await reader.value("task_from", account_id=account_id, id=bound)
    return None if made is not None and moment(made) < before else bound


async def numbered_page(
    reader: Reader, account_id: AccountId, *, types: Sequence[str], skip: int, limit: int
) -> list[Glance]:
    """Newest first, after so many of them.

    Args:
        types: one or two.
    """
    first, *others = types
    if not others:
        rows = await reader.all(
            "list_tasks_of_type", account_id=account_id, type=first, skip=skip, limit=limit
        )
    else:
        rows = await reader.all(
            "list_tasks_of_two_types",
            account_id=account_id,
            type=first,
            other_type=others[0],
            reach=skip + limit,
            skip=skip,
            limit=limit,
        )
    return [_glance_of(row) for row in rows]


async def count_by_status(reader: Reader) -> dict[Status, int]:
    counted = {row["status"]: row["number"] for row in await reader.all("count_tasks_by_status")}
    return {status: counted.get(status, 0) for status in Status}


async def due_to_send(
    reader: Reader, provider: str, *, now: datetime, limit: int, served: Mapping[AccountId, int]
) -> list[Task]:
    """To this provider; accounts take turns.

    Args:
        served: when each was last, as a number that grows; who is not in it comes first.
    """
    rows = await reader.all(
        "due_to_send",
        provider=provider,
        now=milliseconds(now),
        limit=limit,
        served=json_text(dict(served)),
    )
    return [task_of(row) for row in rows]


async def next_sends(reader: Reader) -> dict[str, datetime]:
    """Of each provider for which a create waits: when the first may go out."""
    return {row["provider"]: moment(row["next_send_at"]) for row in await reader.all("next_sends")}


async def mark_sent(tx: Transaction, ids: Iterable[TaskId], *, by: ProcessId) -> None:
    """Which process sends their creates."""
    await tx.run("mark_sent_by", ids=json_text(sorted(ids)), process_id=by)


async def interrupted_sends(
    tx: Transaction, processes: Sequence[ProcessId] | None, *, limit: int
) -> list[Task]:
    """Creates that were on their way when their process died: one of these, or (None) any."""
    named = None if processes is None else json_text(list(processes))
    return [task_of(row) for row in await tx.all("interrupted_sends", processes=named, limit=limit)]


async def due_deadlines(tx: Transaction, *, now: datetime, limit: int) -> list[Task]:
    rows = await tx.all("due_deadlines", now=milliseconds(now), limit=limit)
    return [task_of(row) for row in rows]


async def next_deadline_at(reader: Reader) -> datetime | None:
    at: int | None = await reader.value("next_deadline_at")
    return moment(at)


class StoredCallback(Struct, frozen=True, kw_only=True):
    """Evidence: a callback as it came, and what became of it. Or a create's answer that says more than that there is a task."""

    id: CallbackId
    task_id: TaskId
    provider: str
    received_at: datetime
    verdict: Verdict
    reason: str | None
    body: bytes

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "received_at": rfc3339(self.received_at),
            "verdict": self.verdict,
            "reason": self.reason,
            "body": self.body.decode(errors="replace"),
        }


async def insert_callbacks(tx: Transaction, callbacks: Sequence[StoredCallback]) -> None:
    await tx.run_many(
        "insert_callback",
        [
            {
                "id": callback.id,
                "task_id": callback.task_id,
                "provider": callback.provider,
                "received_at": milliseconds(callback.received_at),
                "verdict": str(callback.verdict),
                "reason": callback.reason,
                "body": callback.body,
            }
            for callback in callbacks
        ],
    )


async def callbacks(
    reader: Reader, task_id: TaskId, *, after_id: str | None, limit: int
) -> list[StoredCallback]:
    """In the order in which they came."""
    rows = await reader.all("list_callbacks", task_id=task_id, after_id=after_id, limit=limit)
    return [_callback(row) for row in rows]


async def latest_callbacks(reader: Reader, task_id: TaskId, *, limit: int) -> list[StoredCallback]:
    """Newest first."""
    rows = await reader.all("list_latest_callbacks", task_id=task_id, limit=limit)
    return [_callback(row) for row in rows]


def _callback(row: Row) -> StoredCallback:
    return StoredCallback(
        id=row["id"],
        task_id=row["task_id"],
        provider=row["provider"],
        received_at=moment(row["received_at"]),
        verdict=Verdict(row["verdict"]),
        reason=row["reason"],
        body=row["body"],
    )


class IdempotencyKey(Struct, frozen=True, kw_only=True):
    account_id: AccountId
    key: str
    body_hash: str
    task_id: TaskId
    created_at: datetime
    answer_status: int | None = None  # once the first caller was answered
    answer_body: str | None = None


async def idempotency_keys(
    reader: Reader, pairs: Iterable[tuple[AccountId, str]]
) -> dict[tuple[AccountId, str], IdempotencyKey]:
    listed = [{"account": account_id, "key": key} for account_id, key in pairs]
    if not listed:
        return {}
    rows = await reader.all("find_idempotency_keys", pairs=json_text(listed))
    return {
        (row["account_id"], row["key"]): IdempotencyKey(
            account_id=row["account_id"],
            key=row["key"],
            body_hash=row["body_hash"],
            task_id=row["task_id"],
            created_at=moment(row["created_at"]),
            answer_status=row["answer_status"],
            answer_body=row["answer_body"],
        )
        for row in rows
    }


async def insert_idempotency_keys(tx: Transaction, keys: Sequence[IdempotencyKey]) -> None:
    await tx.run_many(
        "insert_idempotency_key",
        [
            {
                "account_id": key.account_id,
                "key": key.key,
                "body_hash": key.body_hash,
                "task_id": key.task_id,
                "created_at": milliseconds(key.created_at),
            }
            for key in keys
        ],
    )


async def remember_answers(tx: Transaction, answered: Sequence[IdempotencyKey]) -> None:
    await tx.run_many(
        "remember_answer",
        [
            {
                "account_id": key.account_id,
                "key": key.key,
                "task_id": key.task_id,
                "answer_status": key.answer_status,
                "answer_body": key.answer_body,
            }
            for key in answered
        ],
    )
