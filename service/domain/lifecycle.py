"""The life of a task: a table and one pure function. All that affects a status stands in this file."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from service.domain.values import Struct


class Status(StrEnum):
    QUEUED = "queued"
    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    UNCONFIRMED = "unconfirmed"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.REJECTED})


class Signal(StrEnum):
    """What a create's answer or a callback tells us, in our terms."""

    # from a create's answer
    ACCEPTED = "accepted"
    EXISTS = "exists"  # the provider already has a task under our external_task_id
    REFUSED = "refused"
    UNKNOWN = "unknown"  # sent, but whether it was accepted cannot be told
    EXPIRED = "expired"  # waited in the queue beyond its limit
    # from a callback, or from a refresh; an end also from a create's answer
    SUBMITTED = "submitted"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


FROM_PROVIDER: Final = frozenset({Signal.SUBMITTED, Signal.STARTED, Signal.COMPLETED, Signal.FAILED})


class Verdict(StrEnum):
    """What became of a signal."""

    ADVANCED = "advanced"
    DUPLICATE = "duplicate"  # says what the task already is
    STALE = "stale"  # older than what the task already is
    CONFLICTING = "conflicting"  # contradicts a terminal status
    # Given to callbacks before a signal could be read from them, or trusted:
    MISMATCHED = "mismatched"  # its ids are another task's
    UNREADABLE = "unreadable"
    FORGED = "forged"  # the provider's signature does not verify


TRANSITIONS: Final[Mapping[tuple[Status, Signal], Status]] = {
    (Status.QUEUED, Signal.ACCEPTED): Status.SUBMITTED,
    (Status.QUEUED, Signal.EXISTS): Status.SUBMITTED,
    (Status.QUEUED, Signal.REFUSED): Status.REJECTED,
    (Status.QUEUED, Signal.EXPIRED): Status.REJECTED,
    (Status.QUEUED, Signal.UNKNOWN): Status.UNCONFIRMED,
    (Status.UNCONFIRMED, Signal.ACCEPTED): Status.SUBMITTED,
    (Status.UNCONFIRMED, Signal.EXISTS): Status.SUBMITTED,
    (Status.UNCONFIRMED, Signal.REFUSED): Status.REJECTED,
    (Status.QUEUED, Signal.SUBMITTED): Status.SUBMITTED,
    (Status.UNCONFIRMED, Signal.SUBMITTED): Status.SUBMITTED,
    (Status.QUEUED, Signal.STARTED): Status.PROCESSING,
    (Status.UNCONFIRMED, Signal.STARTED): Status.PROCESSING,
    (Status.SUBMITTED, Signal.STARTED): Status.PROCESSING,
    (Status.QUEUED, Signal.COMPLETED): Status.SUCCEEDED,
    (Status.UNCONFIRMED, Signal.COMPLETED): Status.SUCCEEDED,
    (Status.SUBMITTED, Signal.COMPLETED): Status.SUCCEEDED,
    (Status.PROCESSING, Signal.COMPLETED): Status.SUCCEEDED,
    (Status.QUEUED, Signal.FAILED): Status.FAILED,
    (Status.UNCONFIRMED, Signal.FAILED): Status.FAILED,
    (Status.SUBMITTED, Signal.FAILED): Status.FAILED,
    (Status.PROCESSING, Signal.FAILED): Status.FAILED,
}

# The status that a signal speaks of: the same as the task's is a duplicate.
MEANING: Final[Mapping[Signal, Status]] = {
    Signal.ACCEPTED: Status.SUBMITTED,
    Signal.EXISTS: Status.SUBMITTED,
    Signal.REFUSED: Status.REJECTED,
    Signal.EXPIRED: Status.REJECTED,
    Signal.UNKNOWN: Status.UNCONFIRMED,
    Signal.SUBMITTED: Status.SUBMITTED,
    Signal.STARTED: Status.PROCESSING,
    Signal.COMPLETED: Status.SUCCEEDED,
    Signal.FAILED: Status.FAILED,
}


class Step(Struct, frozen=True):
    """Where a signal leaves a task; `status` is the old one unless the verdict is `ADVANCED`."""

    verdict: Verdict
    status: Status


def advance(status: Status, signal: Signal) -> Step:
    """The one way in which a status changes. Total: every pair has an answer, and none goes backwards."""
    if (after := TRANSITIONS.get((status, signal))) is not None:
        return Step(Verdict.ADVANCED, after)
    if MEANING[signal] is status:
        return Step(Verdict.DUPLICATE, status)
    if status is Status.REJECTED or (status.is_terminal and MEANING[signal].is_terminal):
        return Step(Verdict.CONFLICTING, status)
    return Step(Verdict.STALE, status)
