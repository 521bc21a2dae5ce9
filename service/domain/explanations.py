"""Why an endpoint got an event, or did not: what was done about it, and what its subscription says of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from service.domain.deliveries import Delivery, storable
from service.domain.endpoints import Endpoint, Judgement, Reason
from service.domain.events import Event, EventType
from service.domain.expressions import Steps
from service.domain.follow_ups import KIND as FOLLOW_UP
from service.domain.ids import EndpointId
from service.domain.times import optional_rfc3339, rfc3339
from service.domain.values import replace

LONGEST_RESULT: Final = 200  # characters of a filter's value, as JSON
LONGEST_ERROR: Final = 200


class Cause(StrEnum):
    """A subscription's reasons, and those that lie in the order of things."""

    SELECTED = Reason.SELECTED
    FILTER_BROKE = Reason.FILTER_BROKE
    OTHER_TASK = Reason.OTHER_TASK
    DISABLED = Reason.DISABLED
    TYPE = Reason.TYPE
    FILTER = Reason.FILTER
    TEST = "test"  # of this endpoint
    OTHER_TEST = "other-test"  # of another one
    CREATED_LATER = "created-later"
    CHANGED_LATER = "changed-later"  # what it takes now is not what was done
    FORGOTTEN = "forgotten"  # it went there, and what became of it is no longer kept


@dataclass(frozen=True, slots=True)
class Standing:
    """An endpoint and its past.

    Args:
        subscribed_at: since when its types, its filter, and whether it is enabled are what they are.
    """

    endpoint: Endpoint
    subscribed_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    standing: Standing
    sent: bool
    cause: Cause
    judgement: Judgement  # over what it takes now
    changed: bool  # since the event
    delivery: Delivery | None  # the newest
    replays: int  # before it

    @property
    def id(self) -> EndpointId:
        return self.standing.endpoint.id

    @property
    def filter_result(self) -> str | None:
        """The filter's value as JSON, cut where it is long; None where it was not evaluated."""
        reason, has_filter = self.judgement.reason, self.standing.endpoint.filter is not None
        if not (has_filter and reason in {Reason.SELECTED, Reason.FILTER}):
            return None
        text = json.dumps(self.judgement.value, ensure_ascii=False, default=_in_words)
        return storable(text, LONGEST_RESULT) + ("…" if len(text) > LONGEST_RESULT else "")

    @property
    def filter_error(self) -> str | None:
        error = self.judgement.error
        return None if error is None else storable(error, LONGEST_ERROR)

    @property
    def told(self) -> str:
        """For a person."""
        endpoint = self.standing.endpoint
        match self.cause:
            case Cause.SELECTED if endpoint.filter is None:
                told = f"It takes {_listed(endpoint.types)}."
            case Cause.SELECTED:
                told = f"It takes {_listed(endpoint.types)}, and its filter gives {self.filter_result}."
            case Cause.FILTER_BROKE:
                why = self.filter_error or "others had taken all the time that there is"
                told = f"Its filter could not be evaluated over this event ({why}), which lets it through."
                if endpoint.kind == FOLLOW_UP:
                    told += " The follow-up asks it again, and submits nothing unless it is true."
            case Cause.OTHER_TASK:
                told = f"It is bound to another task, {endpoint.task_id}."
            case Cause.DISABLED:
                told = f"It was disabled: {endpoint.disabled_reason}."
            case Cause.TYPE:
                told = f"It takes {_listed(endpoint.types)}, and this is none of them."
            case Cause.FILTER:
                told = f"Its filter gives {self.filter_result}."
            case Cause.TEST:
                return "Somebody tested it."
            case Cause.OTHER_TEST:
                return "A test goes to the endpoint that is tested, and no other."
            case Cause.CREATED_LATER:
                return "It was made after the event."
            case Cause.CHANGED_LATER if self.sent:
                return f"It took it by what it was then; it has been changed since, at {self._changed_at}."
            case Cause.CHANGED_LATER:
                return f"It did not take it then; it has been changed since, at {self._changed_at}."
            case Cause.FORGOTTEN:
                told = "It went there; what became of it is no longer kept."
        if self.changed:
            told += f" So it is now: it was changed after the event, at {self._changed_at}."
        return told

    @property
    def _changed_at(self) -> str:
        return rfc3339(self.standing.subscribed_at)

    def view(self) -> dict[str, Any]:
        return {
            "endpoint": self.standing.endpoint.view()
            | {
                "subscribed_at": rfc3339(self.standing.subscribed_at),
                "deleted_at": optional_rfc3339(self.standing.deleted_at),
            },
            "sent": self.sent,
            "reason": self.cause,
            "detail": self.told,
            "filter_result": self.filter_result,
            "filter_error": self.filter_error,
            "delivery": None if self.delivery is None else self.delivery.view(),
            "replays": self.replays,
        }


def explain(
    event: Event,
    standing: Standing,
    content: Any,
    steps: Steps,
    *,
    delivery: Delivery | None,
    deliveries: int = 0,
) -> Explanation:
    """What was done is a fact; why, is what the endpoint says of it now, unless that cannot have been the reason.

    Args:
        content: the event's body, read.
        steps: of all that are asked about this event.
        delivery: the newest of the event to this endpoint.
        deliveries: how many there are.
    """
    endpoint = standing.endpoint
    changed = standing.subscribed_at > event.at
    # One that was switched off, or on, since: what it would say if it were on is nearer to what it said then.
    judged = replace(endpoint, enabled=True) if changed or delivery is not None else endpoint
    judgement = judged.judge(event, content, steps)
    sent = delivery is not None
    if event.type is EventType.ENDPOINT_TEST:
        tested = sent or _tests(content, endpoint.id)
        cause, sent = (Cause.TEST, True) if tested else (Cause.OTHER_TEST, False)
    elif sent:
        cause = _why_sent(judgement, changed=changed)
    elif judgement.reason is Reason.OTHER_TASK:
        cause = Cause.OTHER_TASK
    elif endpoint.created_at > event.at:
        cause = Cause.CREATED_LATER
    elif not judgement.goes:
        cause = Cause(judgement.reason)
    elif changed:
        cause = Cause.CHANGED_LATER
    else:
        cause, sent = Cause.FORGOTTEN, True
    return Explanation(
        standing=standing,
        sent=sent,
        cause=cause,
        judgement=judgement,
        changed=changed and endpoint.created_at <= event.at,
        delivery=delivery,
        replays=max(deliveries - 1, 0),
    )


def _why_sent(judgement: Judgement, *, changed: bool) -> Cause:
    if judgement.goes:
        return Cause(judgement.reason)
    # Without a change only the steps can have let it through: they were used up by others' filters.
    return Cause.CHANGED_LATER if changed else Cause.FILTER_BROKE


def _tests(content: Any, endpoint_id: EndpointId) -> bool:
    match content:
        case {"data": {"endpoint": {"id": id}}}:
            return bool(id == endpoint_id)
    return False


def _listed(types: Sequence[str]) -> str:
    return ", ".join(types)


def _in_words(_value: object) -> str:
    """What JMESPath has and JSON has not."""
    return "an expression"
