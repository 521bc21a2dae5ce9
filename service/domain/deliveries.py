"""Deliveries: our duty to get one event to one endpoint; what an attempt's end means, and when the next one is."""

import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from service.domain.endpoints import Endpoint
from service.domain.events import Event
from service.domain.ids import AccountId, DeliveryId, EndpointId, EventId, TaskId
from service.domain.times import optional_rfc3339, rfc3339
from service.domain.traces import Trace
from service.domain.values import Struct


class DeliveryStatus(StrEnum):
    PENDING = "pending"  # waits for its moment, or is being attempted
    DELIVERED = "delivered"
    DEAD = "dead"  # a dead letter: no attempts left, kept to be replayed


class AttemptOutcome(StrEnum):
    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"
    GONE = "gone"  # dead, and the endpoint wants no more


class Delivery(Struct, frozen=True, kw_only=True):
    id: DeliveryId
    account_id: AccountId
    event_id: EventId
    event_type: str
    task_id: TaskId | None
    endpoint_id: EndpointId
    status: DeliveryStatus
    attempts: int  # recorded so far
    next_attempt_at: datetime | None
    replay_of: DeliveryId | None = None
    reason: str | None = None  # how the last attempt ended
    created_at: datetime
    finished_at: datetime | None = None

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "task_id": self.task_id,
            "endpoint_id": self.endpoint_id,
            "status": self.status,
            "attempts": self.attempts,
            "next_attempt_at": optional_rfc3339(self.next_attempt_at),
            "replay_of": self.replay_of,
            "reason": self.reason,
            "created_at": rfc3339(self.created_at),
            "finished_at": optional_rfc3339(self.finished_at),
        }


class Duty(Struct, frozen=True, kw_only=True):
    """A delivery with all that an attempt needs: nothing has to be read between the commit and the wire."""

    id: DeliveryId
    event: Event
    endpoint: Endpoint
    attempt: int  # the coming one, counted from 1
    created_at: datetime
    trace: Trace | None = None  # whoever gets it may go on from there


ANSWERED: Final = "answered"  # with a status code that says the rest


class Reply(Struct, frozen=True, kw_only=True):
    """How one exchange ended: an answer, or the reason why there was none."""

    status_code: int | None
    reason: str  # `ANSWERED`, "timed out", "connection refused", …
    retry_after: timedelta | None = None
    excerpt: str = ""  # of the answer's body, bounded
    # What it means, where the status code does not say it: there is none, or it is 200 for a refusal.
    ending: AttemptOutcome | None = None
    exchanged: bool = True  # if not, nothing was to go out: that says nothing of how well the endpoint is


LONGEST_REASON: Final = 500
LONGEST_EXCERPT: Final = 2048
_UNSTORABLE: Final = re.compile("[\ud800-\udfff\0]")


def storable(text: str, longest: int) -> str:
    """What every database and JSON take: no half of a character, as headers that are not UTF-8 have, and no NUL."""
    return _UNSTORABLE.sub("�", text[:longest])


class Attempt(Struct, frozen=True, kw_only=True):
    """One try, as kept and shown."""

    delivery_id: DeliveryId
    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    outcome: AttemptOutcome
    reason: str
    excerpt: str

    @property
    def why(self) -> str:
        """How it ended, as its delivery says it, which has no status code beside."""
        if self.reason == ANSWERED and self.status_code is not None:
            return f"{ANSWERED} {self.status_code}"
        return self.reason

    def view(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "started_at": rfc3339(self.started_at),
            "duration_ms": self.duration_ms,
            "status_code": self.status_code,
            "outcome": self.outcome,
            "reason": self.reason,
            "response_excerpt": self.excerpt,
        }


SCHEDULE: Final[Sequence[timedelta]] = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
JITTER: Final = 0.2  # of the delay, either way
ALL_RETRIES: Final = sum(SCHEDULE, timedelta()) * (
    1 + JITTER
)  # take no longer, where each has its turn when it is due
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
# So often what was asked is obeyed as it is; after that it only lengthens the schedule. An endpoint that asks for a
# second each time would else have used up all attempts before anybody can mend it.
OBEYED_RETRIES: Final = 2


class Result(Struct, frozen=True):
    """What an attempt's end means for its delivery."""

    outcome: AttemptOutcome
    next_attempt_at: datetime | None = None


def result(reply: Reply, *, attempt: int, now: datetime, jitter: float | None = None) -> Result:
    """All the thinking about 2xx, 410, Retry-After and the last attempt.

    Args:
        attempt: the one that just ended, counted from 1.
        jitter: -1 to 1, for a tested delay; random when left out.

    Source: Standard Webhooks 1.0.0, "Delivery success and failure".
    """
    ending = reply.ending or _ending(reply.status_code)
    if ending is not AttemptOutcome.RETRY:
        return Result(ending)
    if attempt > len(SCHEDULE):
        return Result(AttemptOutcome.DEAD)
    share = random.uniform(-1, 1) if jitter is None else jitter  # noqa: S311 - spreads load, guards nothing
    delay = SCHEDULE[attempt - 1] * (1 + JITTER * share)
    asked = reply.ending is not None or reply.status_code in {429, 503}
    if asked and reply.retry_after and reply.retry_after > timedelta(0):  # "at once" is no wish
        # Only spread forward, never earlier.
        wanted = min(reply.retry_after, LONGEST_RETRY_AFTER) * (1 + JITTER / 4 * abs(share))
        delay = wanted if attempt <= OBEYED_RETRIES else max(wanted, delay)
    return Result(AttemptOutcome.RETRY, now + delay)


def is_reason_to_rest(reply: Reply, *, of_many: bool) -> bool:
    """Whether what else goes there should wait for a while.

    Args:
        of_many: others than this endpoint are there, too. Who answers at all is well then, but for those who say that
            they are not, or are asked too much: a 404 is about this one's path.
    """
    if (reply.ending or _ending(reply.status_code)) is not AttemptOutcome.RETRY:
        return False  # whoever refuses one message for good may take the next
    if not of_many or reply.ending is not None or reply.status_code is None:
        return True
    return reply.status_code == 429 or reply.status_code >= 500


def _ending(status: int | None) -> AttemptOutcome:
    match status:
        case int() if 200 <= status < 300:
            return AttemptOutcome.DELIVERED
        case 410:
            return AttemptOutcome.GONE
        case _:
            return AttemptOutcome.RETRY


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3); None for what is neither. Never negative."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), timedelta(days=365))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # as every HTTP date is, also the old form that does not say so
    return max(moment - now, timedelta(0))
