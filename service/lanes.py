"""Which delivery is attempted next: lanes take turns, so that a slow or dead endpoint holds up nobody but itself."""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Final

from service.attempt_limits import (
    ATTEMPTS_OF_A_HOST,
    ATTEMPTS_OF_AN_ACCOUNT,
    ATTEMPTS_OF_AN_ACCOUNT_THERE,
    AttemptLimits,
    Limit,
)
from service.domain.deliveries import Duty
from service.domain.endpoints import Endpoint
from service.domain.ids import DeliveryId, EndpointId, LaneKey
from service.domain.times import Clock, utc_now
from service.endpoint_names import KnownEndpoint
from service.lane import BREAKS_AFTER, Backlog, Condition, Lane, Pace

FIRST_REST: Final = timedelta(seconds=1)  # doubles with each rest in a row
LONGEST_REST: Final = timedelta(seconds=30)
HOPELESS_AFTER: Final = 120  # rests in a row, which are an hour
FAILING_REMEMBERED: Final = 1024  # shared lanes that failed last, and have nothing to do now


class Startable:
    """Whether some lane may have an attempt to start."""

    def __init__(self) -> None:
        self._is_set = False
        self.on_set: Callable[[], None] = _nobody

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self.on_set()

    def clear(self) -> None:
        self._is_set = False


def _nobody(*_: object) -> None:
    """Is called where nobody serves the lanes."""


class Lanes:
    """All lanes that have something to do in this process.

    A new delivery is promised a place in its lane while its transaction runs, and offered to the lane once it is committed;
    `next` then gives it to be attempted. Where its lane is full the delivery waits in the database, and is claimed from there
    when the lane has room again.
    """

    def __init__(
        self,
        *,
        open: bool = True,
        clock: Clock = utc_now,
        of_a_host: int = ATTEMPTS_OF_A_HOST,
        of_an_account_there: int = ATTEMPTS_OF_AN_ACCOUNT_THERE,
        of_an_account: int = ATTEMPTS_OF_AN_ACCOUNT,
    ) -> None:
        """
        Args:
            open: whether this process delivers at all, which it does until `close`; if not, everything waits in the database.
            of_a_host, of_an_account_there, of_an_account: attempts at a time.
        """
        self.open = open
        self._clock = clock
        self._resting: dict[LaneKey, datetime] = {}  # until when
        # When the paces of lanes end: a heap, for many may end within a second. It keeps those that have ended early.
        self._paced: list[tuple[datetime, LaneKey]] = []
        self._paced_at = clock()  # the clock when a pace last began or ended: tells that it was set back
        self._lanes: dict[LaneKey, Lane] = {}
        self._turns: deque[Lane] = deque()
        self._limits = AttemptLimits[Lane](
            of_a_host=of_a_host, of_an_account_there=of_an_account_there, of_an_account=of_an_account
        )
        # Of each attempt on its way: its lane, and the limits at which it has taken a place.
        self._under_way: dict[DeliveryId, tuple[Lane, Sequence[Limit[Lane]]]] = {}
        # Of shared lanes that have nothing to do now: failures and rests in a row. What an endpoint with a lane of its own
        # has failed stands in its row.
        self._failing: OrderedDict[LaneKey, tuple[int, int]] = OrderedDict()
        self._in_hand: set[DeliveryId] = set()  # held by a lane, or attempted and not recorded yet
        self._ended: dict[DeliveryId, LaneKey] = {}  # attempted and not recorded yet
        self._recalled: list[DeliveryId] = []  # taken out of a lane, and still leased in the database
        # Endpoints that have changed since the last claim began, which may have read them before; or any may have.
        self._changed: set[EndpointId] = set()
        self._any_changed = False
        self.has_caught_up = False  # all that was due has been claimed, or passed over, once
        self.startable = Startable()
        self.serve()

    def serve(
        self,
        *,
        on_startable: Callable[[], None] = _nobody,
        on_offer: Callable[[], None] = _nobody,
        on_room: Callable[[], None] = _nobody,
        on_undone: Callable[[], None] = _nobody,
        on_rest: Callable[[datetime], None] = _nobody,
        on_pace: Callable[[datetime], None] = _nobody,
    ) -> None:
        """What is to be called from now on, by whoever starts attempts and fetches deliveries from the database.

        Args:
            on_startable: `next` has something to give, once the caller of the lanes is done with what it is doing.
            on_offer: `next` may have something to give, and the caller of the lanes is done.
            on_room: some lane has room for what waits in the database.
            on_undone: what was promised is undone, as far as this process knows.
            on_rest: a lane rests until then, when `end_rests` is due.
            on_pace: a lane keeps to its endpoint's rate until then, when `end_paces` is due.
        """
        self.startable.on_set = on_startable
        self.on_room = on_room
        self._on_offer = on_offer
        self._on_undone = on_undone
        self._on_rest = on_rest
        self._on_pace = on_pace

    # What comes in

    def promise(self, delivery_id: DeliveryId, endpoint: Endpoint) -> bool:
        """Whether the lane has room for a new delivery. If so, a place is kept for it until it is offered or released.

        If not, the delivery waits in the database, and the lane remembers that it has a backlog there.
        """
        if not self.open:
            return False
        lane = self._lane(endpoint)
        if lane.backlog or self._is_full(lane):
            # Where older ones wait in the database, new ones line up behind them, whatever room there is.
            lane.backlog = Backlog.NEW
            return False
        lane.promise(delivery_id, endpoint.id, attempt=1)
        return True

    def takes_new_ones(self, endpoint: KnownEndpoint) -> bool:
        """Whether a new delivery to this endpoint would go straight into its lane now."""
        lane = self._lanes.get(endpoint.lane)
        return lane is None or not (lane.backlog or self._is_full(lane))

    def fetch(self, endpoints: Iterable[KnownEndpoint]) -> None:
        """New deliveries to these endpoints have just been stored without a place in their lanes: they are fetched as soon
        as there is room. Where a lane holds first attempts, the end of its last one asks for them: a claim for each new
        delivery would be a commit each time.
        """
        for endpoint in endpoints:
            self.divert(endpoint)
            # Closed lanes hold none, and are given up with what waits for them.
            if not self.open or not self._lane(endpoint).holds_first_attempts:
                self.on_room()

    def promise_claimed(self, delivery_id: DeliveryId, endpoint: Endpoint, *, attempt: int) -> bool:
        """As `promise`, for a delivery that is being claimed from the database. A backlog does not turn it away, for it is
        part of the backlog. A change of its endpoint since the claim began does: the claim may have read what that was before.
        """
        if not self.open:
            return False
        lane = self._lane(endpoint)
        if self._any_changed or endpoint.id in self._changed:
            lane.backlog = Backlog.NEW
            self.on_room()
            return False
        if attempt > 1 and lane.is_full_of_retries:
            lane.retries_wait = True
            return False
        if self._is_full(lane):
            lane.backlog = Backlog.NEW
            return False
        lane.promise(delivery_id, endpoint.id, attempt=attempt)
        return True

    def release(self, promised: Mapping[DeliveryId, Endpoint]) -> None:
        """Takes promises back: the transaction that made, or claimed, these deliveries is undone. Where the connection was
        lost it may be committed all the same.
        """
        if promised:
            self._on_undone()
        for delivery_id, endpoint in promised.items():
            lane = self._lanes.get(endpoint.lane)
            if lane is None or delivery_id not in lane.promised:
                continue
            lane.end_promise(delivery_id)
            lane.spoilt.discard(delivery_id)
            if (lane.backlog or lane.retries_wait) and not lane.promised:
                self.on_room()  # nothing may be left in the lane whose end would ask for more
            self._leave_if_idle(lane)

    def offer(self, duties: Iterable[Duty]) -> None:
        """Puts committed deliveries into their lanes.

        One that is in hand already stays as it is: its lease ended while it waited, so that it was claimed again. One whose
        endpoint has changed since it was promised is not taken in, and has to be claimed anew.
        """
        for duty in duties:
            lane = self._lane(duty.endpoint)
            lane.end_promise(duty.id)
            if duty.id in lane.spoilt:
                lane.spoilt.discard(duty.id)
                self._recalled.append(duty.id)
                self.on_room()
            elif duty.id not in self._in_hand:
                self._in_hand.add(duty.id)
                lane.add(duty)
                if lane.pace is not None and lane.pace.gap != duty.endpoint.gap:
                    self._change_pace(lane, lane.pace, duty.endpoint.gap)
            self._take_turn_or_leave(lane)
        self._on_offer()

    def _lane(self, endpoint: KnownEndpoint) -> Lane:
        key = endpoint.lane
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, is_shared=endpoint.shares_lane)
            lane.failures_in_row, lane.rests_in_row = self._failing.pop(key, (0, 0))
        return lane

    def _is_full(self, lane: Lane) -> bool:
        return lane.is_full(len(self._in_hand))

    def is_in_use(self, key: LaneKey) -> bool:
        """Whether this process has, or is about to have, anything to do for this lane. Closed lanes are also in use while
        others would not find all that waits for them: it is to be given back, or the outcome of an attempt to be recorded.
        """
        if key in self._lanes:
            return True
        return not self.open and (bool(self._recalled) or key in self._ended.values())

    # What the database holds

    def full(self) -> set[LaneKey]:
        """The lanes that take nothing from the database for now. Each calls `on_room` when it has room again."""
        full = {key for key, lane in self._lanes.items() if self._is_full(lane)}
        if self.open:
            for key in full:
                lane = self._lanes[key]
                lane.backlog = lane.backlog or Backlog.SEEN
        return full

    def full_of_retries(self) -> set[LaneKey]:
        """The lanes that take no retries from the database for now. Each calls `on_room` when it takes retries again."""
        full = {key for key, lane in self._lanes.items() if lane.is_full_of_retries}
        if self.open:
            for key in full:
                self._lanes[key].retries_wait = True
        return full

    def with_backlog(self) -> list[LaneKey]:
        """The lanes for which deliveries wait in the database, as far as the lanes know."""
        return [key for key, lane in self._lanes.items() if lane.backlog]

    def hopeless(self) -> list[LaneKey]:
        """The shared lanes whose host has failed for long. They attempt one delivery after each rest, which is too few to
        bring all that waits there to its end, and none of their endpoints fails often enough to be disabled.
        """
        return [
            key for key, lane in self._lanes.items() if lane.is_shared and lane.rests_in_row >= HOPELESS_AFTER
        ]

    def begin_claim(self) -> set[LaneKey]:
        """A claim is about to look for what is due, of all lanes but the full ones. Gives the full ones."""
        self._changed.clear()
        self._any_changed = False
        full = self.full()
        for key, lane in self._lanes.items():
            if key not in full:
                if lane.backlog:
                    lane.backlog = Backlog.SEEN
                lane.retries_wait = False
        return full

    def end_claim(self, full: Collection[LaneKey]) -> None:
        """The claim has taken all that was due, but for the lanes that were full when it began. The others have no backlog
        any more, and take new deliveries straight away; except those whose backlog has grown since the claim began: there the
        database holds what the claim did not find, or did not take.
        """
        self.has_caught_up = True
        for key, lane in list(self._lanes.items()):
            if key in full:
                continue
            if lane.backlog is Backlog.SEEN:
                lane.backlog = None
                self._leave_if_idle(lane)
            elif lane.backlog is Backlog.NEW and not self._is_full(lane):
                self.on_room()

    # What goes out

    def next(self) -> Duty | None:
        """What to attempt next, from the lane whose turn it is. None if no lane may start anything now."""
        while self._turns:
            lane = self._turns.popleft()
            lane.queued_in_turn = False
            let_in_by, lane.let_in_by = lane.let_in_by, None
            if lane.can_start():
                limits = self._limits.of(lane.first_in_line())
                reached = next((limit for limit in limits if limit.is_reached), None)
                if reached is None:
                    return self._start(lane, limits)
                lane.queued_in_turn = True  # at the limit, until an attempt that is counted there has ended
                if reached is let_in_by:
                    reached.waiting.appendleft(lane)
                else:
                    reached.waiting.append(lane)
            if let_in_by is not None:
                self._let_in(let_in_by)  # the lane did not take the place that it was let in for
        self.startable.clear()
        return None

    def _start(self, lane: Lane, limits: Sequence[Limit[Lane]]) -> Duty:
        duty = lane.start()
        if (gap := duty.endpoint.gap) is not None:
            now = self._clock()
            self._paced_at = max(self._paced_at, now)
            self._pace(lane, Pace(by=duty.id, since=now, gap=gap))
        self._under_way[duty.id] = (lane, limits)
        self._limits.begin(limits)
        self._take_turn(lane)
        return duty

    def end(self, duty: Duty, condition: Condition) -> None:
        """The attempt is over; its delivery stays in hand until the outcome is recorded."""
        lane, limits = self._under_way.pop(duty.id)
        self._ended[duty.id] = lane.key
        lane.end(duty, condition)
        for limit in limits:
            limit.active -= 1
            if limit.waiting:
                self._let_in(limit)
            self._limits.forget_unused(limit)
        if condition is Condition.WELL:
            lane.rests_in_row = 0
            if lane.is_resting:
                self._end_rest(lane)
        elif condition is Condition.ILL:
            # Closed lanes hold nothing that could wait for the end of a rest.
            if lane.failures_in_row >= BREAKS_AFTER and not lane.is_resting and self.open:
                self._rest(lane)
        elif lane.pace is not None and lane.pace.by == duty.id:
            lane.pace = None
        if lane.wants_more(duty):
            self.on_room()
        self._take_turn_or_leave(lane)

    def _let_in(self, limit: Limit[Lane]) -> None:
        """Gives the next lane that waits at this limit its turn, if the limit has a place."""
        if limit.waiting and not limit.is_reached:
            lane = limit.waiting.popleft()
            lane.let_in_by = limit
            self._turns.append(lane)
            self.startable.set()

    def settle(self, duty: Duty) -> None:
        """The delivery is out of this process's hand: its outcome is recorded, or could not be."""
        self._in_hand.discard(duty.id)
        self._ended.pop(duty.id, None)
        if not self.open:
            self.on_room()

    # Rests

    def _rest(self, lane: Lane) -> None:
        doublings: int = 2 ** min(lane.rests_in_row, 10)
        until = self._clock() + min(FIRST_REST * doublings, LONGEST_REST)
        lane.is_resting = True
        lane.rests_in_row += 1
        self._resting[lane.key] = until
        self._on_rest(until)

    def _end_rest(self, lane: Lane) -> None:
        lane.is_resting = False
        self._resting.pop(lane.key, None)

    def rouse(self, endpoint: KnownEndpoint) -> None:
        """Ends the rest of this endpoint's lane: a person wants an attempt now. The rate is kept all the same."""
        lane = self._lanes.get(endpoint.lane)
        if lane is not None and lane.is_resting:
            self._end_rest(lane)
            self._take_turn_or_leave(lane)

    def end_rests(self) -> datetime | None:
        """Ends the rests that are due, and those that would last too long as the clock was set back. Gives when the next
        one is due.
        """
        now = self._clock()
        for key, until in list(self._resting.items()):
            if not now < until <= now + LONGEST_REST:
                lane = self._lanes[key]
                self._end_rest(lane)
                self._take_turn_or_leave(lane)
        return min(self._resting.values(), default=None)

    # Paces

    def _pace(self, lane: Lane, pace: Pace) -> None:
        lane.pace = pace
        heappush(self._paced, (pace.until, lane.key))
        self._on_pace(pace.until)

    def _change_pace(self, lane: Lane, pace: Pace, gap: timedelta | None) -> None:
        """The lane's endpoint has another rate now, or none."""
        if gap is None:
            lane.pace = None
        else:
            self._pace(lane, replace(pace, gap=gap))

    def end_paces(self) -> datetime | None:
        """Lets lanes begin their next attempts that have waited for as long as their rates say. Gives when the next lane
        will have.
        """
        now = self._clock()
        if now < self._paced_at:
            self._pace_anew(now)
        self._paced_at = now
        while self._paced and self._paced[0][0] <= now:
            _, key = heappop(self._paced)
            lane = self._lanes.get(key)
            if lane is not None and lane.pace is not None and lane.pace.until <= now:
                lane.pace = None
                self._take_turn_or_leave(lane)
        return self._paced[0][0] if self._paced else None

    def _pace_anew(self, now: datetime) -> None:
        """The clock was set back: a pace that began later than now would last for longer than its gap."""
        self._paced.clear()
        for lane in self._lanes.values():
            if lane.pace is not None:
                self._pace(lane, replace(lane.pace, since=min(lane.pace.since, now)))

    # What is taken out again

    def drop(self, endpoint: KnownEndpoint) -> None:
        """The endpoint takes no more: its deliveries that are not begun are forgotten here, and their rows say what becomes
        of them. Its pace is kept, for the endpoint may be enabled again at once.
        """
        self._drop(endpoint)

    def recall_dropped(self, endpoint: KnownEndpoint) -> None:
        """As `drop`, where another process says so: it has not seen what was committed here at the same time. So all that is
        not begun goes back to the database, where a claim looks what becomes of it.
        """
        if not self.open:
            return
        self._recalled += self._drop(endpoint)
        self.divert(endpoint)
        self.on_room()

    def _drop(self, endpoint: KnownEndpoint) -> list[DeliveryId]:
        """Gives what was forgotten."""
        if self.open:
            self._changed.add(endpoint.id)
        lane = self._lanes.get(endpoint.lane)
        if lane is None:
            return []
        lane.spoil(endpoint.id)
        dropped = [duty.id for duty in lane.drop(endpoint.id)]
        self._in_hand.difference_update(dropped)
        if not endpoint.shares_lane:
            lane.backlog, lane.retries_wait = None, False
            # Should the endpoint be enabled again, its lane begins anew.
            lane.failures_in_row = lane.rests_in_row = 0
            self._end_rest(lane)
        elif lane.backlog or lane.retries_wait:
            self.on_room()
        self._leave_if_idle(lane)
        return dropped

    def divert(self, endpoint: KnownEndpoint) -> None:
        """The endpoint is being changed: new deliveries line up in the database, behind what `recall` gives back there."""
        if self.open:
            self._lane(endpoint).backlog = Backlog.NEW

    def recall(self, endpoint: KnownEndpoint) -> None:
        """The endpoint was changed: its deliveries that are not begun go back to the database, to be claimed again with the
        endpoint as it is now.
        """
        if not self.open:
            return
        self.divert(endpoint)  # a claim may have ended since
        self._changed.add(endpoint.id)
        lane = self._lane(endpoint)
        lane.spoil(endpoint.id)
        dropped = [duty.id for duty in lane.drop(endpoint.id)]
        self._in_hand.difference_update(dropped)
        self._recalled += dropped
        self.on_room()

    def abandon(self) -> None:
        """Other processes have taken over what was in hand here: all that is not begun is forgotten."""
        self._drop_all()
        self._recalled.clear()
        self.on_room()

    def close(self) -> None:
        """Nothing begins here any more: all that is not begun goes back to the database, for other processes. From now on
        `on_room` is called when a lane has nothing more on its way, and so is not in use any more. One that waits for its
        endpoint's rate is, for nobody else knows of that.
        """
        self.open = False
        for lane in self._lanes.values():
            lane.spoilt.update(lane.promised)
            self._end_rest(lane)
        self._recalled += self._drop_all()
        self.on_room()

    def _drop_all(self) -> list[DeliveryId]:
        """Forgets all that is not begun, and what waits in the database. Gives the former."""
        dropped: list[DeliveryId] = []
        for lane in list(self._lanes.values()):
            for endpoint_id in {duty.endpoint.id for duty in lane.waiting()}:
                dropped += [duty.id for duty in lane.drop(endpoint_id)]
            lane.backlog, lane.retries_wait = None, False
            self._leave_if_idle(lane)
        self._in_hand.difference_update(dropped)
        return dropped

    def not_here(self, leased: Iterable[DeliveryId]) -> list[DeliveryId]:
        """Those of the deliveries leased to this process that it neither has in hand, nor is about to have."""
        here = self._in_hand.union(*(lane.promised for lane in self._lanes.values()), self._recalled)
        return [id for id in leased if id not in here]

    def recall_all(self) -> None:
        """As `recall`, for every endpoint with deliveries here: any of them may have been changed."""
        self._any_changed = True
        for lane in self._lanes.values():
            if lane.promised and self.open:
                lane.spoilt.update(lane.promised)
                lane.backlog = Backlog.NEW  # what is promised next does not overtake them
        for endpoint in {duty.endpoint.id: duty.endpoint for duty in self.waiting()}.values():
            self.recall(endpoint)

    def recalled(self) -> list[DeliveryId]:
        """Deliveries that were taken out of their lanes, and whose leases are still to be given back."""
        return list(self._recalled)

    def forget_recalled(self, ids: Collection[DeliveryId]) -> None:
        """The leases of these are given back."""
        given_back = set(ids)
        self._recalled = [id for id in self._recalled if id not in given_back]

    def waiting(self) -> list[Duty]:
        """All that lanes hold and that is not begun."""
        return [duty for lane in self._lanes.values() for duty in lane.waiting()]

    # Turns

    def _take_turn_or_leave(self, lane: Lane) -> None:
        self._take_turn(lane)
        self._leave_if_idle(lane)

    def _leave_if_idle(self, lane: Lane) -> None:
        """Forgets the lane if it has nothing to do. If it still stands in line, its turn will pass: it has nothing to start."""
        if not lane.is_idle:
            return
        self._lanes.pop(lane.key, None)
        if not self.open:
            self.on_room()
        if lane.is_shared and lane.failures_in_row:
            self._failing[lane.key] = (lane.failures_in_row, lane.rests_in_row)
            if len(self._failing) > FAILING_REMEMBERED:
                self._failing.popitem(last=False)

    def _take_turn(self, lane: Lane) -> None:
        if not lane.queued_in_turn and lane.can_start():
            lane.queued_in_turn = True
            self._turns.append(lane)
            self.startable.set()
