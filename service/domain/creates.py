"""How a create ended, in four outcomes that are the same for every provider, and what each makes of its task."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from service.domain.ids import TaskId
from service.domain.lifecycle import Signal, Status
from service.domain.task_types import TASK_TYPES
from service.domain.tasks import Refusal, Report, Task, TaskError
from service.domain.transitions import Change, signalled
from service.domain.values import replace

# Deferred: 5 s, 10 s, 20 s … 5 min. Without a free slot: 1 min … 10 min, growing with the task's age, and only as the
# safety net, for the next terminal callback releases a slot.
FIRST_DELAY: Final = timedelta(seconds=5)
LONGEST_DELAY: Final = timedelta(minutes=5)
FIRST_SLOT_DELAY: Final = timedelta(minutes=1)
LONGEST_SLOT_DELAY: Final = timedelta(minutes=10)
LONGEST_CONFIRM_DELAY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the task. It may already say how far it is; callbacks will say it again, but for an end."""

    provider_task_id: str | None
    report: Report | None = None  # of a task that ended at once
    answer: bytes | None = None  # which says so, as it came


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will not have it, and sending it again would not help."""

    kind: Refusal
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Certainly not accepted, but may be later: not sent at all, too fast, no free slot, maintenance."""

    code: str
    message: str
    needs_slot: bool = False  # too many parallel tasks: the next terminal callback makes room
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A create was sent and may have been accepted, and billed. Never to be sent again blindly."""

    code: str
    message: str
    answer: bytes | None = None  # says that something was accepted, and does not name it


CreateOutcome = Accepted | Refused | Deferred | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a provider needs for one create. `input` is complete: files are Base64 text again."""

    task_id: TaskId
    type: str  # a key of `task_types.TASK_TYPES`
    input: Mapping[str, Any]
    external_task_id: str
    callback_url: str
    extras: Mapping[str, Any] = field(default_factory=dict)  # as `Task.extras`
    path: str | None = None  # as `Task.path`
    is_resend: bool = False  # an earlier create of this task was sent, and may have been accepted


def settled(
    stored: Task,
    outcome: CreateOutcome,
    now: datetime,
    *,
    confirm_after: timedelta,
    queue_max_age: timedelta,
) -> Change:
    """What a create's outcome does to its task, which a callback may have brought further since the create was sent.

    Args:
        confirm_after: how long an unconfirmed task waits for its callback before its create is sent again, the first
            time.
        queue_max_age: the task's age beyond which the create of an unconfirmed task is not sent again.
    """
    task = _resting(stored)
    match outcome:
        case Accepted(provider_task_id):
            if task.provider_task_id is None:
                task = replace(task, provider_task_id=provider_task_id)
            return signalled(stored, Signal.ACCEPTED, now, task=task)
        case Refused(Refusal.EXISTS, code, message):
            signal = Signal.EXISTS if _is_ours(task) else Signal.REFUSED
            return signalled(stored, signal, now, task=task, error=TaskError(code, message, Refusal.EXISTS))
        case Refused(kind, code, message) if _refuses_for_good(kind, task, now):
            return signalled(stored, Signal.REFUSED, now, task=task, error=TaskError(code, message, kind))
        case Deferred(needs_slot=needs_slot) if task.status is Status.QUEUED:
            next_send_at = now + _queue_delay(outcome, task, now)
            return Change(
                before=stored, after=replace(task, next_send_at=next_send_at, awaits_slot=needs_slot)
            )
        case Deferred() if task.status is not Status.UNCONFIRMED:
            return Change(before=stored, after=task)
        case Unknown() | Refused() | Deferred():
            if task.status in {Status.QUEUED, Status.UNCONFIRMED}:
                task = replace(task, next_send_at=_next_confirmation(task, now, confirm_after, queue_max_age))
            return signalled(stored, Signal.UNKNOWN, now, task=task)


def expired(stored: Task, now: datetime) -> Change:
    """What the end of its time in the queue does to a task."""
    error = TaskError(
        "queue_expired", "The provider did not take the task before its time in the queue ended."
    )
    return signalled(stored, Signal.EXPIRED, now, task=_resting(stored), error=error)


def _resting(task: Task) -> Task:
    """The task without a create on its way, and with none planned."""
    return replace(task, sending_since=None, next_send_at=None, awaits_slot=False)


def _is_ours(task: Task) -> bool:
    """Whether a task that the provider has under this task's external id is this task.

    It is if an earlier create may have been accepted. It also is if the external id is Klingel's own id of the task,
    which nobody else can have: a create that was sent before a backup was restored, and that the backup knows nothing
    of. Else it is somebody else's, or not even a task, and this task will never run.
    """
    return task.status is Status.UNCONFIRMED or (
        task.provider_external_id == task.id and _is_known_by_id(task)
    )


def _refuses_for_good(kind: Refusal, task: Task, now: datetime) -> bool:
    """Whether a refusal ends the task. Of an unconfirmed one it says nothing about the earlier create: that may be
    running, and its callback on the way. Only when that create has had all its time is a body that is refused again
    refused for good.
    """
    return task.status is not Status.UNCONFIRMED or (kind is Refusal.REQUEST and now >= task.deadline_at)


def _is_known_by_id(task: Task) -> bool:
    """Whether the provider would notice that it has had a create of the task before, and say so."""
    known = TASK_TYPES.get(task.type)
    return known is not None and known.may_be_repeated


def _next_confirmation(
    task: Task, now: datetime, confirm_after: timedelta, queue_max_age: timedelta
) -> datetime | None:
    """When the create of an unconfirmed task is sent again: after a delay that doubles each time, for the callback is
    waited for first. None at the end of its time in the queue, and from the first for a task that might be made, and
    billed, twice: it stays unconfirmed, and a person may ask for it.
    """
    if not _is_known_by_id(task) or now - task.created_at > queue_max_age:
        return None
    doublings: int = 2 ** min(max(task.sends - 1, 0), 10)
    return now + min(confirm_after * doublings, max(LONGEST_CONFIRM_DELAY, confirm_after))


def slot_delay(task: Task, now: datetime) -> timedelta:
    """After which a task that waits for a place asks by itself: by its age, for it may have been asked often because others
    ended.
    """
    return min(max((now - task.created_at) / 4, FIRST_SLOT_DELAY), LONGEST_SLOT_DELAY)


def _queue_delay(outcome: Deferred, task: Task, now: datetime) -> timedelta:
    if outcome.needs_slot:
        delay = slot_delay(task, now)
    else:
        doublings: int = 2 ** min(task.sends - 1, 10)
        delay = min(FIRST_DELAY * doublings, LONGEST_DELAY)
    if outcome.retry_after is not None:
        delay = min(max(outcome.retry_after, FIRST_DELAY), LONGEST_SLOT_DELAY)
    return delay * random.uniform(1.0, 1.2)  # noqa: S311 - spreads load, guards nothing
