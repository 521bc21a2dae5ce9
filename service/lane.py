"""What is in hand for one endpoint, and what may be attempted of it now."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from itertools import chain
from typing import Final

from service.attempt_limits import Limit
from service.domain.deliveries import Duty
from service.domain.ids import DeliveryId, EndpointId, LaneKey, TaskId

CONCURRENCY: Final = 8  # attempts of one endpoint at a time
# Of a lane that the endpoints of many tasks share.
SHARED_CONCURRENCY: Final = 32
# After so many failures in a row a lane rests, then tries one alone, and so on until one is delivered: an endpoint
# that is down costs an attempt now and then, not one for each event.
BREAKS_AFTER: Final = 10
DEPTH: Final = 128  # duties of one lane held in memory; the rest waits in the database
RETRIES_HELD: Final = DEPTH // 2  # of these: however many are due, there is room for first attempts
# A lane whose last attempts, as many as `DEPTH`, all went well may hold more while all lanes together hold no more than
# `IN_HAND`: what went through the database takes half as long again as what did not.
DEEPEST: Final = 1024
IN_HAND: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Keeps a lane to its endpoint's rate: the next attempt may begin a gap later than the last one.

    Args:
        by: the delivery that was attempted last.
        since: when that attempt began.
    """

    by: DeliveryId
    since: datetime
    gap: timedelta

    @property
    def until(self) -> datetime:
        return self.since + self.gap


class Condition(Enum):
    """How an attempt has found the endpoint, or the host that the endpoints of a lane share."""

    WELL = auto()  # the attempt delivered, or failed in a way that is no reason to rest
    ILL = auto()  # it failed, and many like it are a reason to rest
    UNTRIED = auto()  # nothing went out: what is known of the lane stays as it is, and no rate counts it


class Backlog(Enum):
    """What waits for a lane in the database, as far as the lane knows. A lane that knows of nothing has none."""

    SEEN = auto()  # the last claim, or the one on its way, finds all of it
    NEW = auto()  # something was added since the last claim began, which may not find it


class Lane:
    """The deliveries in hand for one endpoint, or for the endpoints of many tasks at one host.

    First attempts of one task at one endpoint go out in the order in which they came: the next one starts when the
    one before has ended, however it ended.
    """

    def __init__(self, key: LaneKey, *, is_shared: bool = False) -> None:
        self.key = key
        self.is_shared = is_shared
        self.active = 0
        # Places that are kept until a transaction is committed, or undone.
        self.promised: dict[DeliveryId, EndpointId] = {}
        self._promised_retries: set[DeliveryId] = set()  # of these
        self.spoilt: set[DeliveryId] = set()  # of these: their endpoint has changed since
        self.backlog: Backlog | None = None  # new deliveries line up behind it, in the database
        self.retries_wait = False  # in the database; new deliveries do not line up behind these
        self.queued_in_turn = False  # for a turn, or at a limit
        self.let_in_by: Limit[Lane] | None = None  # whose free place its next turn is for
        self.failures_in_row = 0
        self.successes_in_row = 0
        self.is_resting = False
        self.rests_in_row = 0
        self.pace: Pace | None = None  # while it waits for its endpoint's rate
        self._concurrency = SHARED_CONCURRENCY if is_shared else CONCURRENCY
        self._retries_at_a_time = self._concurrency // 2  # so that retries never starve first attempts
        self._active_retries = 0
        self._first: deque[Duty] = deque()
        self._retries: deque[Duty] = deque()
        # For each story with a first attempt in line or on its way: what has to wait until that ends, mostly nothing.
        self._behind: dict[tuple[EndpointId, TaskId], deque[Duty] | None] = {}
        self._held = 0
        self._held_retries = 0

    def __len__(self) -> int:
        return self._held

    def is_full(self, in_hand: int) -> bool:
        """Whether it takes no more deliveries for now.

        Args:
            in_hand: how many deliveries all lanes hold together.
        """
        held = self._held + len(self.promised)
        if held < DEPTH:
            return False
        is_quick = self.successes_in_row >= DEPTH and self.pace is None
        return held >= DEEPEST or not is_quick or in_hand >= IN_HAND

    @property
    def is_full_of_retries(self) -> bool:
        """Whether it takes first attempts alone."""
        return self._held_retries + len(self._promised_retries) >= RETRIES_HELD

    @property
    def holds_first_attempts(self) -> bool:
        return self._held > self._held_retries

    def wants_more(self, ended: Duty) -> bool:
        """Whether it is time to fetch what waits in the database, now that this attempt has ended."""
        if self.backlog and self._held == DEPTH // 2:
            return True
        if ended.attempt > 1:
            return self.retries_wait and self._held_retries in {RETRIES_HELD // 2, 0}
        return self.backlog is not None and not self.holds_first_attempts

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it has to be remembered."""
        return not (self._held or self.promised or self.is_resting or self.pace or self.backlog)

    def promise(self, delivery_id: DeliveryId, endpoint_id: EndpointId, *, attempt: int) -> None:
        self.promised[delivery_id] = endpoint_id
        if attempt > 1:
            self._promised_retries.add(delivery_id)

    def end_promise(self, delivery_id: DeliveryId) -> None:
        self.promised.pop(delivery_id, None)
        self._promised_retries.discard(delivery_id)

    def add(self, duty: Duty) -> None:
        if not self._held and not self.is_shared:
            # What earlier lanes of the endpoint have seen.
            self.failures_in_row = max(self.failures_in_row, duty.endpoint.failures)
        self._held += 1
        story = _story(duty)
        if duty.attempt > 1:
            self._held_retries += 1
            self._retries.append(duty)
        elif story is not None and story in self._behind:
            behind = self._behind[story] = self._behind[story] or deque()
            behind.append(duty)
        else:
            if story is not None:
                self._behind[story] = None
            self._first.append(duty)

    def can_start(self) -> bool:
        if self.is_resting or self.pace is not None:
            return False
        if self.active >= (1 if self.failures_in_row >= BREAKS_AFTER else self._concurrency):
            return False
        return bool(self._first) or (bool(self._retries) and self._active_retries < self._retries_at_a_time)

    def first_in_line(self) -> Duty:
        return self._first[0] if self._first else self._retries[0]

    def start(self) -> Duty:
        self.active += 1
        if self._first:
            return self._first.popleft()
        self._active_retries += 1
        return self._retries.popleft()

    def end(self, duty: Duty, condition: Condition) -> None:
        if condition is Condition.WELL:
            self.failures_in_row, self.successes_in_row = 0, self.successes_in_row + 1
        elif condition is Condition.ILL:
            self.failures_in_row, self.successes_in_row = self.failures_in_row + 1, 0
        self.active -= 1
        self._held -= 1
        story = _story(duty)
        if duty.attempt > 1:
            self._held_retries -= 1
            self._active_retries -= 1
        elif story is not None:
            if behind := self._behind[story]:
                self._first.append(behind.popleft())
            else:
                del self._behind[story]

    def spoil(self, endpoint_id: EndpointId) -> None:
        """The endpoint has changed: what is promised for it, and not committed yet, was made for what it was before."""
        self.spoilt.update(id for id, promised_to in self.promised.items() if promised_to == endpoint_id)

    def drop(self, endpoint_id: EndpointId) -> list[Duty]:
        """Takes out this endpoint's deliveries that are not begun, and gives them."""
        dropped = [duty for duty in self.waiting() if duty.endpoint.id == endpoint_id]
        for duty in self._first:
            story = _story(duty)
            if story is not None and duty.endpoint.id == endpoint_id:
                del self._behind[story]
        for (waits_for, _), behind in self._behind.items():  # of tasks with an attempt on its way
            if waits_for == endpoint_id and behind:
                behind.clear()
        self._first = deque(duty for duty in self._first if duty.endpoint.id != endpoint_id)
        self._retries = deque(duty for duty in self._retries if duty.endpoint.id != endpoint_id)
        self._held -= len(dropped)
        self._held_retries -= sum(duty.attempt > 1 for duty in dropped)
        return dropped

    def waiting(self) -> list[Duty]:
        """All that is held and not begun."""
        return [*self._first, *self._retries, *chain.from_iterable(filter(None, self._behind.values()))]


def _story(duty: Duty) -> tuple[EndpointId, TaskId] | None:
    """The deliveries of one task to one endpoint are a story, which is told in order. None for an event without a task."""
    task_id = duty.event.task_id
    return None if task_id is None else (duty.endpoint.id, task_id)
