"""Endpoints: where events go, and which of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from yarl import URL

from service.domain.errors import ConfigurationError
from service.domain.events import Event, EventType
from service.domain.expressions import CannotEvaluate, Steps, evaluate
from service.domain.ids import AccountId, EndpointId, LaneKey, TaskId, new_endpoint_id
from service.domain.secrets import Vault
from service.domain.signatures import public_key
from service.domain.times import optional_rfc3339, rfc3339
from service.domain.values import Struct

ALL_TASK_EVENTS: Final = ("task.*",)
DISABLED_BY_PERSON: Final = "switched off"
DELETED: Final = "the endpoint was deleted"  # as `Endpoint.why_closed`
ENDPOINTS_OF_AN_ACCOUNT: Final = 200  # but for those that are bound to tasks
MOST_A_MINUTE: Final = 60_000  # a clock that counts milliseconds tells no more of them apart
# More than a host that can be dialled makes; an index of PostgreSQL's holds no text of 3,000 bytes.
LONGEST_LANE: Final = 350
STEPS_OF_A_FILTER: Final = 5_000  # over one event
STEPS_OF_AN_EVENT: Final = 50_000  # for all filters over it


class Reason(StrEnum):
    """Why a subscription takes an event, or leaves it."""

    SELECTED = "selected"
    FILTER_BROKE = "filter-broke"  # over this event: rather one event too many than one lost silently
    OTHER_TASK = "other-task"
    DISABLED = "disabled"
    TYPE = "type"
    FILTER = "filter"


class Judgement(Struct, frozen=True):
    """
    Args:
        value: of the filter, where it was evaluated.
        error: why it could not be.
    """

    reason: Reason
    value: Any = None
    error: str | None = None

    @property
    def goes(self) -> bool:
        return self.reason in {Reason.SELECTED, Reason.FILTER_BROKE}


class SealedSecret(Struct, frozen=True):
    """One signing secret, encrypted. During a rotation the older one has an end."""

    sealed: str
    expires_at: datetime | None


class Endpoint(Struct, frozen=True, kw_only=True):
    """One bound to a task (`task_id`) gets only that task's events and is not listed with the others."""

    id: EndpointId
    account_id: AccountId
    task_id: TaskId | None
    kind: str
    config: Mapping[str, Any]  # readable by anyone with a key of the account
    credentials: str | None = None  # the secret part of the configuration, sealed
    types: Sequence[str] = ALL_TASK_EVENTS
    filter: str | None = None
    description: str | None = None
    rate_per_minute: int | None = None  # None is no limit, as for all that are bound to tasks
    enabled: bool = True
    disabled_reason: str | None = None
    secrets: Sequence[SealedSecret] = ()  # newest first
    failures: int = 0  # attempts failed in a row
    failing_since: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def host(self) -> str:
        """As HTTP's header names it; the kind where the configuration shows no URL."""
        return self.shown_host or self.kind

    @property
    def shown_host(self) -> str:
        """Empty where the URL is sealed, or there is none: nobody can tell then whether two are at one server."""
        url = self.config.get("url") or self.config.get("server")
        subscription = self.config.get("subscription")
        if subscription is not None and isinstance(subscription, Mapping):  # a browser's, at its maker's
            url = subscription.get("endpoint")
        return _host(url) if isinstance(url, str) else ""

    @property
    def shares_lane(self) -> bool:
        """One that is bound to a task gets too little for a dead host to be noticed, and may be one of thousands."""
        return self.task_id is not None

    @property
    def lane(self) -> LaneKey:
        """Its own, or that of all endpoints at its host that are bound to tasks of its account."""
        if not self.shares_lane:
            return LaneKey(self.id)
        return LaneKey(f"{self.account_id}/{self.host}"[:LONGEST_LANE])

    @property
    def gap(self) -> timedelta | None:
        """Between the beginnings of two attempts, at least."""
        if self.rate_per_minute is None:
            return None
        return -(-timedelta(minutes=1) // self.rate_per_minute)  # rounded up: no minute sees one more

    @property
    def why_closed(self) -> str:
        """What is told of the deliveries that one which is disabled does not take."""
        by_person = self.disabled_reason == DISABLED_BY_PERSON
        return f"the endpoint was {'' if by_person else 'disabled: '}{self.disabled_reason}"

    @property
    def signs_publicly(self) -> bool:
        """Whether a public key verifies what is sent there."""
        return self.config.get("signature") == "v1a"

    def is_configured_as(self, other: "Endpoint") -> bool:
        """If not, what one has answered says nothing of the other: it may be elsewhere, or be asked in another way."""
        return (self.config, self.credentials) == (other.config, other.credentials)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "task_id": self.task_id,
            "kind": self.kind,
            "config": dict(self.config),
            "types": list(self.types),
            "filter": self.filter,
            "description": self.description,
            "rate_per_minute": self.rate_per_minute,
            "enabled": self.enabled,
            "disabled_reason": self.disabled_reason,
            "failures": self.failures,
            "failing_since": optional_rfc3339(self.failing_since),
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }

    def public_key(self, vault: Vault) -> str | None:
        """Of the newest secret. None where `v1a` is not asked for, or the secret cannot be opened."""
        if not self.signs_publicly:
            return None
        try:
            return public_key(vault.open(self.secrets[0].sealed))
        except ConfigurationError:  # what else is known of it can be shown
            return None

    def judge(self, event: Event, content: object, steps: Steps) -> Judgement:
        """Whether this event goes here, and why: what is told later is what was decided.

        Args:
            content: the event's body, read; given so that many endpoints share one reading.
            steps: of all that are asked about this event.
        """
        if self.task_id is not None and self.task_id != event.task_id:
            return Judgement(Reason.OTHER_TASK)
        if not self.enabled:
            return Judgement(Reason.DISABLED)
        if not selects(self.types, event.type):
            return Judgement(Reason.TYPE)
        if self.filter is None:
            return Judgement(Reason.SELECTED)
        return sift(self.filter, content, steps)

    def wants(self, event: Event, content: object, steps: Steps) -> bool:
        """As `judge`."""
        return self.judge(event, content, steps).goes

    def signing_secrets(self, now: datetime) -> list[str]:
        """The sealed secrets in force, newest first."""
        return [s.sealed for s in self.secrets if s.expires_at is None or s.expires_at > now]


class EndpointDraft(Struct, frozen=True, kw_only=True):
    """What somebody asks for, checked: an endpoint but its id and its moments."""

    kind: str
    config: Mapping[str, Any]
    credentials: str | None  # sealed
    secret: str  # sealed
    types: Sequence[str] = ALL_TASK_EVENTS
    filter: str | None = None
    description: str | None = None
    rate_per_minute: int | None = None
    enabled: bool = True

    def made(self, account_id: AccountId, now: datetime, *, task_id: TaskId | None = None) -> Endpoint:
        return Endpoint(
            id=new_endpoint_id(),
            account_id=account_id,
            task_id=task_id,
            kind=self.kind,
            config=self.config,
            credentials=self.credentials,
            types=self.types,
            filter=self.filter,
            description=self.description,
            rate_per_minute=self.rate_per_minute,
            enabled=self.enabled,
            disabled_reason=None if self.enabled else DISABLED_BY_PERSON,
            secrets=(SealedSecret(self.secret, None),),
            created_at=now,
            updated_at=now,
        )


@lru_cache(maxsize=1024)
def _host(url: str) -> str:
    """However it is spelled, by the parser of those who dial it."""
    try:
        return URL(url).host_port_subcomponent or ""
    except ValueError:  # no URL at all
        return ""


def selects(patterns: Sequence[str], type: EventType) -> bool:
    """A pattern is an event type, a family (`task.*`), or `*`."""
    return _selects(tuple(patterns), type)


@lru_cache(maxsize=4096)  # of the few that there are, each event asks for each endpoint
def _selects(patterns: tuple[str, ...], type: EventType) -> bool:
    return any(
        pattern in {type, "*"} or (pattern.endswith(".*") and type.startswith(pattern[:-1]))
        for pattern in patterns
    )


def is_pattern(pattern: str) -> bool:
    """Whether it could select anything."""
    return any(selects((pattern,), type) for type in EventType)


def sift(expression: str, content: object, steps: Steps) -> Judgement:
    """Whether the expression's value over the event is true, as JMESPath counts truth.

    One that cannot be evaluated over this event lets it pass. A follow-up, which costs money, asks again.
    """
    try:
        value = evaluate(expression, content, steps=steps.part(STEPS_OF_A_FILTER))
    except CannotEvaluate as error:
        return Judgement(Reason.FILTER_BROKE, error=str(error))
    passed = value is not None and value is not False and value not in ("", [], {})
    return Judgement(Reason.SELECTED if passed else Reason.FILTER, value)
