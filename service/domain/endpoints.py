"""Endpoints: where events go, and which of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

from service.domain.events import Event, EventType
from service.domain.ids import AccountId, EndpointId, LaneKey, TaskId, new_endpoint_id
from service.domain.times import optional_rfc3339, rfc3339

ALL_TASK_EVENTS: Final = ("task.*",)
DISABLED_BY_PERSON: Final = "switched off"
LONGEST_FILTER: Final = 1000
LONGEST_EVALUATION: Final = 100_000  # steps of one filter over one event: below 0.2 s


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One signing secret, encrypted. During a rotation the older one has an end."""

    sealed: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
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
    enabled: bool = True
    disabled_reason: str | None = None
    secrets: Sequence[SealedSecret] = ()  # newest first
    failures: int = 0  # attempts failed in a row
    failing_since: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def host(self) -> str:
        """With its port, as in HTTP; the kind where the configuration has no URL."""
        url = self.config.get("url")
        return (_host(url) if isinstance(url, str) else "") or self.kind

    @property
    def shares_lane(self) -> bool:
        """One that is bound to a task gets too little for a dead host to be noticed, and may be one of thousands."""
        return self.task_id is not None

    @property
    def lane(self) -> LaneKey:
        """Its own, or that of all endpoints at its host that are bound to tasks of its account."""
        return LaneKey(f"{self.account_id}/{self.host}" if self.shares_lane else self.id)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "task_id": self.task_id,
            "kind": self.kind,
            "config": dict(self.config),
            "types": list(self.types),
            "filter": self.filter,
            "description": self.description,
            "enabled": self.enabled,
            "disabled_reason": self.disabled_reason,
            "failures": self.failures,
            "failing_since": optional_rfc3339(self.failing_since),
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }

    def wants(self, event: Event, content: object) -> bool:
        """Whether this event goes here.

        Args:
            content: the event's body, read; given so that many endpoints share one reading.
        """
        if not self.enabled or not selects(self.types, event.type):
            return False
        return self.filter is None or passes(self.filter, content)

    def signing_secrets(self, now: datetime) -> list[str]:
        """The sealed secrets in force, newest first."""
        return [s.sealed for s in self.secrets if s.expires_at is None or s.expires_at > now]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDraft:
    """What somebody asks for, checked: an endpoint but its id and its moments."""

    kind: str
    config: Mapping[str, Any]
    credentials: str | None  # sealed
    secret: str  # sealed
    types: Sequence[str] = ALL_TASK_EVENTS
    filter: str | None = None
    description: str | None = None
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
            enabled=self.enabled,
            disabled_reason=None if self.enabled else DISABLED_BY_PERSON,
            secrets=(SealedSecret(self.secret, None),),
            created_at=now,
            updated_at=now,
        )


@lru_cache(maxsize=1024)
def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:  # no URL at all
        return ""


def selects(patterns: Sequence[str], type: EventType) -> bool:
    """A pattern is an event type, a family (`task.*`), or `*`."""
    return any(
        pattern in {type, "*"} or (pattern.endswith(".*") and type.startswith(pattern[:-1]))
        for pattern in patterns
    )


def is_pattern(pattern: str) -> bool:
    """Whether it could select anything."""
    return any(selects((pattern,), type) for type in EventType)


class InvalidFilter(ValueError):
    """Not a JMESPath expression; the message says where it breaks."""


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> "jmespath.parser.ParsedResult":
    return jmespath.compile(expression)


def check_filter(expression: str) -> None:
    """
    Raises:
        InvalidFilter: it does not parse, or is longer than anybody should wait for it to be parsed.
    """
    if len(expression) > LONGEST_FILTER:
        raise InvalidFilter(f"it has more than {LONGEST_FILTER} characters")
    try:
        _compiled(expression)
    except (JMESPathError, RecursionError) as error:
        raise InvalidFilter(str(error).splitlines()[0]) from None


def passes(expression: str, content: object) -> bool:
    """Whether the expression's value over the event is true, as JMESPath counts truth.

    One that cannot be evaluated over this event lets it pass: rather one event too many than one lost silently.
    """
    try:
        value = _Evaluation().visit(_compiled(expression).parsed, content)
    except (JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError):
        return True
    return value is not None and value is not False and value not in ("", [], {})


class _TooLong(JMESPathError):
    """Needs more steps than any honest filter."""


class _Evaluation(TreeInterpreter):
    """One search, with an end: `[@,@][]|[@,@][]|…` doubles its value at each bar, and everybody would wait for it."""

    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_Functions(self.spend)))
        self._left = LONGEST_EVALUATION

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _TooLong

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        flat = super().visit_flatten(node, value)
        self.spend(len(flat or ()))
        return flat

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_dict(node, value))

    def _weighed(self, value: Any) -> Any:
        """Only here, and where text is made of text, can a value become more than it was."""
        parts = [value]
        while parts:
            match parts.pop():
                case str(text):
                    self.spend(1 + len(text))
                case list(items):
                    self.spend(1)
                    parts += items
                case dict(fields):
                    self.spend(1)
                    parts += fields.values()
                case _:
                    self.spend(1)
        return value


class _Functions(Functions):
    def __init__(self, spend: Callable[[int], None]) -> None:
        self._spend = spend

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        match function_name, resolved_args:
            case "join", [str(separator), list(texts)]:
                self._spend(len(separator) * len(texts))
        value = super().call_function(function_name, resolved_args)
        if isinstance(value, str):
            self._spend(len(value))
        return value
