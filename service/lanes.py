"""Deliveries in hand: one lane for each endpoint, so that a slow or dead one holds up nobody but itself."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from service.domain.deliveries import Duty
from service.domain.ids import DeliveryId, EndpointId, TaskId
from service.domain.times import Clock, utc_now

CONCURRENCY: Final = 8  # attempts of one endpoint at a time
RETRIES_AT_A_TIME: Final = 4  # of these, so that retries never starve first attempts
# After so many failures in a row a lane rests, then tries one alone, and so on until one is delivered: an endpoint
# that is down costs an attempt now and then, not one for each event.
BREAKS_AFTER: Final = 10
FIRST_REST: Final = timedelta(seconds=1)  # doubles with each rest in a row
LONGEST_REST: Final = timedelta(seconds=30)
DEPTH: Final = 128  # duties of one endpoint held in memory; the rest waits in the database


class Lane:
    """What one endpoint has to get.

    First attempts of one task go out in the order in which they came: the next one starts when the one before has
    ended, however it ended.
    """

    def __init__(self) -> None:
        self.active = 0
        self.overflowed = False  # more waits in the database
        self.passed_over = False  # something went there since the database was last asked
        self.queued_in_turn = False
        self.failures = 0  # in a row
        self.rests = False
        self.rested = 0  # times in a row
        self._active_retries = 0
        self._first: deque[Duty] = deque()
        self._retries: deque[Duty] = deque()
        self._behind: dict[TaskId, deque[Duty]] = {}  # wait for an attempt of the same task to end
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def add(self, duty: Duty) -> None:
        if not self._held:
            self.failures = max(self.failures, duty.endpoint.failures)  # what earlier lanes of it have seen
        self._held += 1
        task_id = duty.event.task_id
        if duty.attempt > 1:
            self._retries.append(duty)
        elif task_id is not None and task_id in self._behind:
            self._behind[task_id].append(duty)
        else:
            if task_id is not None:
                self._behind[task_id] = deque()
            self._first.append(duty)

    def can_start(self) -> bool:
        if self.rests or self.active >= (1 if self.failures >= BREAKS_AFTER else CONCURRENCY):
            return False
        return bool(self._first) or (bool(self._retries) and self._active_retries < RETRIES_AT_A_TIME)

    def start(self) -> Duty:
        self.active += 1
        if self._first:
            return self._first.popleft()
        self._active_retries += 1
        return self._retries.popleft()

    def end(self, duty: Duty, *, delivered: bool) -> None:
        self.failures = 0 if delivered else self.failures + 1
        self.active -= 1
        self._held -= 1
        task_id = duty.event.task_id
        if duty.attempt > 1:
            self._active_retries -= 1
        elif task_id is not None:
            if behind := self._behind[task_id]:
                self._first.append(behind.popleft())
            else:
                del self._behind[task_id]

    def drop(self) -> list[Duty]:
        """Forgets what is not begun, and gives it."""
        dropped = self.waiting()
        for duty in self._first:
            if duty.event.task_id is not None:
                del self._behind[duty.event.task_id]
        self._first.clear()
        self._retries.clear()
        for behind in self._behind.values():  # of tasks with an attempt on its way
            behind.clear()
        self._held = self.active
        return dropped

    def waiting(self) -> list[Duty]:
        """Not begun."""
        return [*self._first, *self._retries, *(duty for behind in self._behind.values() for duty in behind)]


class Lanes:
    """All lanes, served in turn."""

    def __init__(self, *, open: bool = True, clock: Clock = utc_now) -> None:
        """
        Args:
            open: whether this process delivers at all; if not, everything waits in the database.
        """
        self._open = open
        self._clock = clock
        self._resting: dict[EndpointId, datetime] = {}  # until when
        self.on_rest: Callable[[datetime], None] = lambda _until: None  # `wake` is due then
        self._lanes: defaultdict[EndpointId, Lane] = defaultdict(Lane)
        self._turns: deque[EndpointId] = deque()
        self._in_hand: set[DeliveryId] = set()
        self.startable = asyncio.Event()
        self.on_room: Callable[[], None] = lambda: None  # a lane has room for what waits in the database

    def has_room(self, endpoint_id: EndpointId) -> bool:
        """Whether one more may be held; if not, the lane remembers that the database holds some."""
        if not self._open:
            return False
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            return True
        if lane.overflowed or len(lane) >= DEPTH:
            # Once some wait in the database the rest goes there too, behind them.
            lane.overflowed = lane.passed_over = True
            return False
        return True

    def full(self) -> list[EndpointId]:
        """Those that take no more from the database for now; they call `on_room` when they have room again."""
        full = [endpoint_id for endpoint_id, lane in self._lanes.items() if len(lane) >= DEPTH]
        for endpoint_id in full:
            self._lanes[endpoint_id].overflowed = True
        return full

    def begin_claim(self) -> list[EndpointId]:
        """The database is about to be asked, for all but the full ones, which it gives."""
        full = self.full()
        for endpoint_id, lane in self._lanes.items():
            if endpoint_id not in full:
                lane.passed_over = False
        return full

    def end_claim(self, full: Collection[EndpointId]) -> None:
        """The database held nothing more, but for these: the others take new duties straight away again.

        One that was passed over since then has something waiting there that the claim did not see.
        """
        for endpoint_id, lane in list(self._lanes.items()):
            if endpoint_id in full or not lane.overflowed:
                continue
            if lane.passed_over:
                self.on_room()
                continue
            lane.overflowed = False
            if len(lane) == 0 and not lane.rests:
                self._forget(endpoint_id)

    def offer(self, duties: Iterable[Duty]) -> None:
        """One that is in hand already stays as it is: its lease ended, and it was claimed again, while it waited."""
        for duty in duties:
            if duty.id in self._in_hand:
                continue
            self._in_hand.add(duty.id)
            endpoint_id = duty.endpoint.id
            self._lanes[endpoint_id].add(duty)
            self._take_turn(endpoint_id)

    def next(self) -> Duty | None:
        """The next one to start, from the lane whose turn it is."""
        while self._turns:
            endpoint_id = self._turns.popleft()
            lane = self._lanes.get(endpoint_id)
            if lane is None:
                continue
            lane.queued_in_turn = False
            if lane.can_start():
                duty = lane.start()
                self._take_turn(endpoint_id)
                return duty
        self.startable.clear()
        return None

    def end(self, duty: Duty, *, delivered: bool) -> None:
        """Its attempt is over; it stays in hand until its outcome is recorded."""
        endpoint_id = duty.endpoint.id
        lane = self._lanes[endpoint_id]
        lane.end(duty, delivered=delivered)
        if delivered:
            lane.rested = 0
            self._end_rest(endpoint_id, lane)
        elif lane.failures >= BREAKS_AFTER and not lane.rests:
            self._rest(endpoint_id, lane)
        if lane.overflowed and len(lane) in {DEPTH // 2, 0}:
            self.on_room()
        self._take_turn_or_leave(endpoint_id, lane)

    def _take_turn_or_leave(self, endpoint_id: EndpointId, lane: Lane) -> None:
        if len(lane) == 0 and not lane.rests and not lane.overflowed:
            self._forget(endpoint_id)
        else:
            self._take_turn(endpoint_id)

    def _rest(self, endpoint_id: EndpointId, lane: Lane) -> None:
        doublings: int = 2 ** min(lane.rested, 10)
        until = self._clock() + min(FIRST_REST * doublings, LONGEST_REST)
        lane.rests = True
        lane.rested += 1
        self._resting[endpoint_id] = until
        self.on_rest(until)

    def _end_rest(self, endpoint_id: EndpointId, lane: Lane) -> None:
        lane.rests = False
        self._resting.pop(endpoint_id, None)

    def rouse(self, endpoint_id: EndpointId) -> None:
        """A person asks for an attempt, and does not want to wait until the lane has rested."""
        lane = self._lanes.get(endpoint_id)
        if lane is not None and lane.rests:
            self._end_rest(endpoint_id, lane)
            self._take_turn_or_leave(endpoint_id, lane)

    def wake(self) -> datetime | None:
        """Lets those try again that have rested long enough. Gives when the next one will have."""
        now = self._clock()
        for endpoint_id, until in list(self._resting.items()):
            if until <= now:
                lane = self._lanes[endpoint_id]
                self._end_rest(endpoint_id, lane)
                self._take_turn_or_leave(endpoint_id, lane)
        return min(self._resting.values(), default=None)

    def settle(self, duty: Duty) -> None:
        """Its outcome is recorded, or could not be: what the database says of it is true again."""
        self._in_hand.discard(duty.id)

    def drop(self, endpoint_id: EndpointId) -> None:
        """It wants no more: what is not begun is forgotten here, and is the database's business alone."""
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            return
        self._in_hand.difference_update(duty.id for duty in lane.drop())
        lane.overflowed = False
        # Should it be wanted again, it begins anew.
        lane.failures = lane.rested = 0
        self._end_rest(endpoint_id, lane)
        if len(lane) == 0:
            self._forget(endpoint_id)

    def _forget(self, endpoint_id: EndpointId) -> None:
        if self._lanes.pop(
            endpoint_id
        ).queued_in_turn:  # else its next lane would have two turns to everybody's one
            self._turns.remove(endpoint_id)

    def waiting(self) -> list[Duty]:
        """All that is held and not begun."""
        return [duty for lane in self._lanes.values() for duty in lane.waiting()]

    def _take_turn(self, endpoint_id: EndpointId) -> None:
        lane = self._lanes[endpoint_id]
        if not lane.queued_in_turn and lane.can_start():
            lane.queued_in_turn = True
            self._turns.append(endpoint_id)
            self.startable.set()
