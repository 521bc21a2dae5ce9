"""A task: one generation that we follow."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import field

from service.domain.costs import Charge
from service.domain.ids import AccountId, EndpointId, TaskId
from service.domain.lifecycle import Signal, Status
from service.domain.times import optional_rfc3339, rfc3339
from service.domain.traces import Trace
from service.domain.values import Struct


class OutputKind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class Output(Struct, frozen=True, kw_only=True):
    """One thing that a task made, where the provider keeps it."""

    kind: OutputKind
    index: int
    url: str
    id: str | None = None  # the provider's own id of it
    duration_s: float | None = None
    watermark_url: str | None = None
    wav_url: str | None = None  # of a sound that comes twice: `url` is the MP3
    group: str | None = None  # the series that a picture belongs to, as the provider names it
    expires_at: datetime | None = None  # when the provider's URL dies
    stored_url: str | None = None  # our own copy: a reference, which `service.domain.links` makes a URL of
    poster_url: str | None = None  # a small picture of a film
    thumbnail_url: str | None = None  # and of a picture

    def view(self) -> dict[str, Any]:
        optional = {
            "id": self.id,
            "duration_s": self.duration_s,
            "watermark_url": self.watermark_url,
            "wav_url": self.wav_url,
            "group": self.group,
            "expires_at": optional_rfc3339(self.expires_at),
            "stored_url": self.stored_url,
            "poster_url": self.poster_url,
            "thumbnail_url": self.thumbnail_url,
        }
        required = {"kind": str(self.kind), "index": self.index, "url": self.url}
        return required | {name: value for name, value in optional.items() if value is not None}


class Refusal(StrEnum):
    """Whose business a refusal is."""

    REQUEST = "request"  # this body would be refused however often it is sent
    EXISTS = "exists"  # a task under this external_task_id is there already
    PAYMENT = "payment"  # the provider account has no money or pack left
    ACCOUNT = "account"  # key, permission or network of the provider account


class TaskError(Struct, frozen=True):
    """Why a task failed or was rejected. The code is the provider's where it gave one, else our own word."""

    code: str
    message: str
    refusal: Refusal | None = None  # whose business it is, where the provider refused the create

    def view(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message}


class Transition(Struct, frozen=True, kw_only=True):
    """A task going from one status to the next; `sequence` is that of its event."""

    before: Status
    after: Status
    at: datetime
    sequence: int

    def view(self) -> dict[str, Any]:
        return {"from": str(self.before), "to": str(self.after), "at": rfc3339(self.at)}


class Lineage(Struct, frozen=True, kw_only=True):
    """Where a task comes from that a follow-up makes."""

    parent_id: TaskId  # the task whose event it follows
    rule_id: EndpointId
    depth: int  # follow-ups between it and a task that somebody submitted, itself counted


class Task(Struct, frozen=True, kw_only=True):
    """As stored. `input` holds Base64 images as references to files, never as text."""

    id: TaskId
    account_id: AccountId
    type: str
    provider: str
    status: Status
    input: Mapping[str, Any]
    external_task_id: str  # the caller's, or our own id
    # What the provider is told as external_task_id: its idempotency key, and what it can be asked by.
    provider_external_id: str
    provider_task_id: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)  # fields only the provider knows, as they came
    path: str | None = None  # which of the provider's paths the caller has asked at, where it has several
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_id: TaskId | None = None  # the task whose event a follow-up made it of
    rule_id: EndpointId | None = None  # that follow-up
    depth: int = 0  # follow-ups between it and a task that somebody submitted
    places: int = 1  # how many of the provider's parallel ones it takes
    trace: Trace | None = None  # what is done about it belongs to it
    outputs: Sequence[Output] = ()
    error: TaskError | None = None
    cost: tuple[Charge, ...] | None = None  # None: the provider has not said
    sequence: int = 0  # of its last event
    created_at: datetime
    updated_at: datetime
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime
    overdue_at: datetime | None = None
    # How its create stands:
    sends: int = 0  # creates begun, so that a second one knows that it is a second
    sending_since: datetime | None = None  # a create is on its way, or was when the process died
    next_send_at: datetime | None = None
    awaits_slot: bool = False
    slot_turn: int = 0  # sent to the end of the line so often: it did not fit although nothing else ran

    @property
    def lacks_outputs(self) -> bool:
        """The provider says that it succeeded, and has not said with what."""
        return self.status is Status.SUCCEEDED and not self.outputs

    def view(self) -> dict[str, Any]:
        """The task as every reader sees it: in `GET`, and as `data.task` of an event.

        Words of ours are plain text in it, and in what it holds: to make JSON of an event takes 3 us then, and 11 with
        its five members of enums.
        """
        return {
            "id": self.id,
            "type": self.type,
            "status": str(self.status),
            "provider": self.provider,
            "provider_task_id": self.provider_task_id,
            "external_task_id": self.external_task_id,
            "metadata": dict(self.metadata),
            "parent_id": self.parent_id,
            "outputs": [output.view() for output in self.outputs],
            "error": None if self.error is None else self.error.view(),
            "cost": None if self.cost is None else [charge.view() for charge in self.cost],
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "submitted_at": optional_rfc3339(self.submitted_at),
            "finished_at": optional_rfc3339(self.finished_at),
            "deadline_at": rfc3339(self.deadline_at),
            "overdue_at": optional_rfc3339(self.overdue_at),
        }


class Child(Struct, frozen=True, kw_only=True):
    """A task that a follow-up made, as its parent shows it."""

    id: TaskId
    type: str
    status: Status

    def view(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, "status": self.status}


class Report(Struct, frozen=True, kw_only=True):
    """What a provider says about a task, in our terms: in a callback, or in the answer to a create or a refresh."""

    signal: Signal  # one of `lifecycle.FROM_PROVIDER`
    provider_task_id: str | None
    external_task_id: str | None
    outputs: Sequence[Output] = ()
    error: TaskError | None = None
    cost: tuple[Charge, ...] | None = None  # of a task that has ended, where it says so


class Unreadable(ValueError):
    """A body that is no report; the message says why, in words for whoever looks at it."""


def contradiction(task: Task, report: Report) -> str | None:
    """Why this report cannot be about this task, or None.

    A callback is matched by its URL; the ids in its body must then not speak of another task. An id that is
    missing on either side contradicts nothing. Where the external id matches, the provider's may differ: a gateway
    that mints ids of its own passes on callbacks that carry Kling's.
    """
    if report.external_task_id is not None:
        own = {task.external_task_id, task.provider_external_id}
        return None if report.external_task_id in own else "its external_task_id is another task's"
    known = task.provider_task_id
    if known is not None and report.provider_task_id is not None and report.provider_task_id != known:
        return "its task id is not the one that the provider gave this task"
    return None
