"""Events: immutable facts that follow from transitions, and the exact bytes in which they are told."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
from pydantic_core import from_json

from service.domain.costs import Standing
from service.domain.ids import AccountId, EventId, TaskId, new_event_id
from service.domain.lifecycle import Status
from service.domain.tasks import Task, Transition
from service.domain.times import rfc3339
from service.domain.traces import Trace
from service.domain.values import Struct

_ENCODER: Final = msgspec.json.Encoder()


class EventType(StrEnum):
    TASK_SUBMITTED = "task.submitted"
    TASK_PROCESSING = "task.processing"
    TASK_SUCCEEDED = "task.succeeded"
    TASK_FAILED = "task.failed"
    TASK_REJECTED = "task.rejected"
    TASK_UNCONFIRMED = "task.unconfirmed"
    TASK_OVERDUE = "task.overdue"
    TASK_OUTPUTS_ADDED = "task.outputs_added"  # it had succeeded before it named any
    OUTPUT_STORED = "output.stored"
    OUTPUT_EXPIRING = "output.expiring"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_TEST = "endpoint.test"
    BUDGET_EXCEEDED = "budget.exceeded"


# The event that a task's arrival in a status makes. A task is born queued, so nothing arrives there.
ON_ARRIVAL: Final[Mapping[Status, EventType]] = {
    Status.SUBMITTED: EventType.TASK_SUBMITTED,
    Status.PROCESSING: EventType.TASK_PROCESSING,
    Status.SUCCEEDED: EventType.TASK_SUCCEEDED,
    Status.FAILED: EventType.TASK_FAILED,
    Status.REJECTED: EventType.TASK_REJECTED,
    Status.UNCONFIRMED: EventType.TASK_UNCONFIRMED,
}

# After one of these a task's stream ends.
TERMINAL_EVENTS: Final = frozenset({EventType.TASK_SUCCEEDED, EventType.TASK_FAILED, EventType.TASK_REJECTED})


class Event(Struct, frozen=True, kw_only=True):
    """As stored and as sent: `body` is the message, byte for byte, of every delivery."""

    id: EventId
    type: EventType
    account_id: AccountId
    task_id: TaskId | None
    sequence: int | None  # counts a task's events from 1 without gaps; None without a task
    at: datetime
    body: bytes
    position: int = 0  # in the log; given by the database
    trace: Trace | None = None  # its task's, where it is about to be told

    def content(self) -> Any:
        """The body, read."""
        return from_json(self.body)


def _body(
    id: EventId,
    type: EventType,
    at: datetime,
    sequence: int | None,
    data: Mapping[str, Any],
) -> bytes:
    return _ENCODER.encode(
        {"id": id, "type": str(type), "timestamp": rfc3339(at), "sequence": sequence, "data": data}
    )


def task_event(type: EventType, task: Task, transition: Transition | None, at: datetime) -> Event:
    """The fact that `task`, as it is after the change, has just changed; its sequence is already counted up."""
    id = new_event_id()
    data = {"task": task.view(), "transition": None if transition is None else transition.view()}
    return Event(
        id=id,
        type=type,
        account_id=task.account_id,
        task_id=task.id,
        sequence=task.sequence,
        at=at,
        body=_body(id, type, at, task.sequence, data),
        trace=task.trace,
    )


def output_event(
    type: EventType, task: Task, place: int, at: datetime, *, file: Mapping[str, Any] | None = None
) -> Event:
    """A fact about one of the task's outputs; its sequence is already counted up.

    Args:
        place: of the output among the task's, from 0.
        file: our own copy, as readers see it.
    """
    id = new_event_id()
    data: dict[str, Any] = {"task": task.view(), "output": task.outputs[place].view()}
    if file is not None:
        data["file"] = file
    return Event(
        id=id,
        type=type,
        account_id=task.account_id,
        task_id=task.id,
        sequence=task.sequence,
        at=at,
        body=_body(id, type, at, task.sequence, data),
        trace=task.trace,
    )


def endpoint_event(
    type: EventType,
    account_id: AccountId,
    data: Mapping[str, Any],
    at: datetime,
) -> Event:
    """A fact about an endpoint: it was disabled, or somebody tests it."""
    id = new_event_id()
    return Event(
        id=id,
        type=type,
        account_id=account_id,
        task_id=None,
        sequence=None,
        at=at,
        body=_body(id, type, at, None, data),
    )


def budget_event(account_id: AccountId, standing: Standing, at: datetime) -> Event:
    """The fact that an account has spent a budget: until its period ends, it submits no more."""
    return endpoint_event(EventType.BUDGET_EXCEEDED, account_id, {"budget": standing.view()}, at)
