"""How a create ended: four outcomes, which are all that submission needs to know of a provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from service.domain.ids import TaskId


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the task. It may already say how far it is; callbacks will say it again."""

    provider_task_id: str | None


class Refusal(StrEnum):
    """Whose business a refusal is."""

    REQUEST = "request"  # this body would be refused however often it is sent
    EXISTS = "exists"  # a task under this external_task_id is there already
    PAYMENT = "payment"  # the provider account has no money or pack left
    ACCOUNT = "account"  # key, permission or network of the provider account


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
