"""How a create ended: four outcomes, which are all that submission needs to know of a provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from service.domain.ids import TaskId
from service.domain.tasks import Refusal, Report


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
