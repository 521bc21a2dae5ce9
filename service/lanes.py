"""Deliveries in hand: one lane for each endpoint, so that a slow or dead one holds up nobody but itself."""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain
from typing import Final, Protocol

from service.domain.deliveries import Duty
from service.domain.endpoints import Endpoint
from service.domain.ids import AccountId, DeliveryId, EndpointId, LaneKey, TaskId
from service.domain.kept import ARCHIVE
from service.domain.times import Clock, utc_now

CONCURRENCY: Final = 8  # attempts of one endpoint at a time
# Of a lane that the endpoints of many tasks share, of one host, and of one account, there and altogether: so that none
# of them, however many endpoints it has, takes all that Klingel can do at a time, or all that a host is asked for.
SHARED_CONCURRENCY: Final = 32
ATTEMPTS_OF_A_HOST: Final = 64
ATTEMPTS_OF_AN_ACCOUNT_THERE: Final = 32
ATTEMPTS_OF_AN_ACCOUNT: Final = 128
# Fetching an output takes minutes where a provider's CDN is slow, and then it is slow for all accounts: it can have so few
# of all attempts that webhooks do not miss them, and one account no more than a quarter of these.
DOWNLOADS: Final = 16
DOWNLOADS_OF_AN_ACCOUNT: Final = 4
# After so many failures in a row a lane rests, then tries one alone, and so on until one is delivered: an endpoint
# that is down costs an attempt now and then, not one for each event.
BREAKS_AFTER: Final = 10
FIRST_REST: Final = timedelta(seconds=1)  # doubles with each rest in a row
LONGEST_REST: Final = timedelta(seconds=30)
HOPELESS_AFTER: Final = 120  # rests in a row, which are an hour
DEPTH: Final = 128  # duties of one lane held in memory; the rest waits in the database
RETRIES_HELD: Final = DEPTH // 2  # of these: however many are due, there is room for first attempts
# One that delivers, as many in a row as that, may hold more while all lanes together hold no more than `IN_HAND`: what went
# through the database takes half as long again as what did not.
DEEPEST: Final = 1024
IN_HAND: Final = 4096
FAILING_REMEMBERED: Final = 1024  # shared lanes that failed last, and have nothing to do now


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """Of a lane in which an attempt has begun, and the next one must not yet.

    Args:
        by: whose attempt that was.
    """

    by: DeliveryId
    since: datetime
    gap: timedelta

    @property
    def until(self) -> datetime:
        return self.since + self.gap


class Ending(Enum):
    """What an attempt that has ended shows of its lane."""

    WELL = auto()  # it was delivered, or failed in a way that is no reason to rest
    ILL = auto()
    UNTRIED = auto()  # nothing went out: what is known of the lane stays as it is, and no rate counts it


class Backlog(Enum):
    """What waits for a lane in the database, as far as the lane knows. A lane that knows of nothing has none."""

    SEEN = auto()  # the last claim, or the one on its way, finds all of it
    NEW = auto()  # something was added since the last claim began, which may not find it


class Lane:
    """What one endpoint has to get, or the endpoints of many tasks at one host.

    First attempts of one task at one endpoint go out in the order in which they came: the next one starts when the
    one before has ended, however it ended.
    """

    def __init__(self, key: LaneKey, *, is_shared: bool = False) -> None:
        self.key = key
        self.is_shared = is_shared
        self.active = 0
        self.promised: dict[DeliveryId, EndpointId] = {}  # to what may yet be committed
        self._promised_retries: set[DeliveryId] = set()  # of these
        self.spoilt: set[DeliveryId] = set()  # of these, made for an endpoint that is no longer as it was
        self.backlog: Backlog | None = None  # new deliveries line up behind it, in the database
        self.retries_wait = False  # in the database; new deliveries do not line up behind these
        self.queued_in_turn = False
        self.let_in_by: _Limit | None = None  # whose free place it is to take
        self.failures_in_row = 0
        self.successes_in_row = 0
        self.rests = False
        self.rests_in_row = 0
        self.pace: _Pace | None = None  # while it waits for its endpoint's rate
        self._concurrency = SHARED_CONCURRENCY if is_shared else CONCURRENCY
        self._retries_at_a_time = self._concurrency // 2  # so that retries never starve first attempts
        self._active_retries = 0
        self._first: deque[Duty] = deque()
        self._retries: deque[Duty] = deque()
        # By what has an attempt in line or on its way: what waits for that to end, mostly nothing.
        self._behind: dict[tuple[EndpointId, TaskId], deque[Duty] | None] = {}
        self._held = 0
        self._held_retries = 0

    def __len__(self) -> int:
        return self._held

    def is_full(self, in_hand: int) -> bool:
        """
        Args:
            in_hand: of all lanes.
        """
        held = self._held + len(self.promised)
        if held < DEPTH:
            return False
        is_quick = self.successes_in_row >= DEPTH and self.pace is None
        return held >= DEEPEST or not is_quick or in_hand >= IN_HAND

    @property
    def is_full_of_retries(self) -> bool:
        """It takes first attempts alone."""
        return self._held_retries + len(self._promised_retries) >= RETRIES_HELD

    @property
    def holds_first_attempts(self) -> bool:
        return self._held > self._held_retries

    def wants_more(self, ended: Duty) -> bool:
        """Whether it is time to ask for what waits in the database, now that this has ended."""
        if self.backlog and self._held == DEPTH // 2:
            return True
        if ended.attempt > 1:
            return self.retries_wait and self._held_retries in {RETRIES_HELD // 2, 0}
        return self.backlog is not None and not self.holds_first_attempts

    @property
    def is_idle(self) -> bool:
        """Nothing in it has to be remembered."""
        return not (self._held or self.promised or self.rests or self.pace or self.backlog)

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
        if self.rests or self.pace is not None:
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

    def end(self, duty: Duty, ending: Ending) -> None:
        if ending is Ending.WELL:
            self.failures_in_row, self.successes_in_row = 0, self.successes_in_row + 1
        elif ending is Ending.ILL:
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
        """What is about to be committed for this endpoint was made for what it is no more."""
        self.spoilt.update(id for id, promised_to in self.promised.items() if promised_to == endpoint_id)

    def drop(self, endpoint_id: EndpointId) -> list[Duty]:
        """Forgets what is not begun of this endpoint, and gives it."""
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
        """Not begun."""
        return [*self._first, *self._retries, *chain.from_iterable(filter(None, self._behind.values()))]


def _story(duty: Duty) -> tuple[EndpointId, TaskId] | None:
    """What is told in order: a task, to an endpoint."""
    task_id = duty.event.task_id
    return None if task_id is None else (duty.endpoint.id, task_id)


class _Limit:
    """How many attempts of one host, of one account, of both, or of a kind, run; and the lanes that wait for one of them
    to end.
    """

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self._most = most
        self.active = 0
        self.waiting: deque[Lane] = deque()

    @property
    def is_reached(self) -> bool:
        return self.active >= self._most


class Place(Protocol):
    """Where deliveries go to: an endpoint, or what is known of one."""

    @property
    def id(self) -> EndpointId: ...

    @property
    def lane(self) -> LaneKey: ...

    @property
    def shares_lane(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """All that one process tells another of an endpoint."""

    id: EndpointId
    lane: LaneKey

    @property
    def shares_lane(self) -> bool:
        return str(self.lane) != str(self.id)


def place_name(place: Place) -> str:
    return f"{place.id} {place.lane}"


def named_place(name: str) -> NamedPlace:
    """What `place_name` has named."""
    id, lane = name.split(" ", 1)
    return NamedPlace(EndpointId(id), LaneKey(lane))


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
    """All lanes, served in turn."""

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
            open: whether this process delivers at all; if not, everything waits in the database.
            of_a_host, of_an_account_there, of_an_account: attempts at a time.
        """
        self.open = open
        self._of_a_host = of_a_host
        self._of_an_account_there = of_an_account_there
        self._of_an_account = of_an_account
        self._clock = clock
        self._resting: dict[LaneKey, datetime] = {}  # until when
        # When the paces end that lanes have, or had: the first one first, for many may end within a second.
        self._paced: list[tuple[datetime, LaneKey]] = []
        self._last_looked = clock()  # at the clock, for a pace
        self._lanes: dict[LaneKey, Lane] = {}
        self._turns: deque[Lane] = deque()
        self._limits: dict[str, _Limit] = {}
        self._limits_at = lru_cache(maxsize=1024)(self._name_limits)
        # Of each attempt on its way: its lane, and the limits at which it has taken a place.
        self._under_way: dict[DeliveryId, tuple[Lane, Sequence[_Limit]]] = {}
        # Failures and rests in a row; an endpoint with a lane of its own carries its failures itself.
        self._failing: OrderedDict[LaneKey, tuple[int, int]] = OrderedDict()
        self._in_hand: set[DeliveryId] = set()
        self._recalled: list[DeliveryId] = []
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
        """Whether there is room for a new one. If so a place is kept for it until it is offered, or released.

        If not, the lane remembers that the database holds some.
        """
        if not self.open:
            return False
        lane = self._lane(endpoint)
        if lane.backlog or self._is_full(lane):
            # Once some wait in the database the rest goes there too, behind them.
            lane.backlog = Backlog.NEW
            return False
        lane.promise(delivery_id, endpoint.id, attempt=1)
        return True

    def takes_new_ones(self, endpoint: Place) -> bool:
        """Whether a new one would go straight into its lane now."""
        lane = self._lanes.get(endpoint.lane)
        return lane is None or not (lane.backlog or self._is_full(lane))

    def fetch(self, endpoints: Iterable[Place]) -> None:
        """What the database holds of theirs since now is fetched as soon as there is room. Where first attempts are in the
        lane, the last of them says so: to ask for each new one would be a commit each time.
        """
        for endpoint in endpoints:
            self.divert(endpoint)
            if not self._lane(endpoint).holds_first_attempts:
                self.on_room()

    def promise_claimed(self, delivery_id: DeliveryId, endpoint: Endpoint, *, attempt: int) -> bool:
        """The same for one that comes out of the database: it is what the others wait behind."""
        lane = self._lane(endpoint)
        if attempt > 1 and lane.is_full_of_retries:
            lane.retries_wait = True
            return False
        if self._is_full(lane):
            lane.backlog = Backlog.NEW
            return False
        lane.promise(delivery_id, endpoint.id, attempt=attempt)
        return True

    def release(self, promised: Mapping[DeliveryId, Endpoint]) -> None:
        """What would have made them is undone; where the connection was lost, perhaps not."""
        if promised:
            self._on_undone()
        for delivery_id, endpoint in promised.items():
            lane = self._lanes.get(endpoint.lane)
            if lane is None or delivery_id not in lane.promised:
                continue
            lane.end_promise(delivery_id)
            lane.spoilt.discard(delivery_id)
            if (lane.backlog or lane.retries_wait) and not lane.promised:
                self.on_room()  # perhaps nothing in it will ever end and say so
            self._leave_if_idle(lane)

    def offer(self, duties: Iterable[Duty]) -> None:
        """One that is in hand already stays as it is: its lease ended, and it was claimed again, while it waited. One whose
        endpoint has changed since it was promised is claimed anew.
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

    def _lane(self, endpoint: Place) -> Lane:
        key = endpoint.lane
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, is_shared=endpoint.shares_lane)
            lane.failures_in_row, lane.rests_in_row = self._failing.pop(key, (0, 0))
        return lane

    def _is_full(self, lane: Lane) -> bool:
        return lane.is_full(len(self._in_hand))

    def is_in_use(self, key: LaneKey) -> bool:
        """Whether anything of this lane is here, or on its way here."""
        return key in self._lanes

    # What the database holds

    def full(self) -> set[LaneKey]:
        """Those that take no more from the database for now; they call `on_room` when they have room again."""
        full = {key for key, lane in self._lanes.items() if self._is_full(lane)}
        for key in full:
            lane = self._lanes[key]
            lane.backlog = lane.backlog or Backlog.SEEN
        return full

    def full_of_retries(self) -> set[LaneKey]:
        """Those that take no more of these from there, and call `on_room` when they do again."""
        full = {key for key, lane in self._lanes.items() if lane.is_full_of_retries}
        for key in full:
            self._lanes[key].retries_wait = True
        return full

    def with_backlog(self) -> list[LaneKey]:
        """The lanes for which deliveries wait in the database, as far as the lanes know."""
        return [key for key, lane in self._lanes.items() if lane.backlog]

    def hopeless(self) -> list[LaneKey]:
        """Those of many endpoints whose host has failed for long. One attempt at each end of a rest is too few to bring all
        that waits there to its end, and no endpoint of them fails often enough to be disabled.
        """
        return [
            key for key, lane in self._lanes.items() if lane.is_shared and lane.rests_in_row >= HOPELESS_AFTER
        ]

    def begin_claim(self) -> set[LaneKey]:
        """The database is about to be asked, for all but the full ones, which it gives."""
        full = self.full()
        for key, lane in self._lanes.items():
            if key not in full:
                if lane.backlog:
                    lane.backlog = Backlog.SEEN
                lane.retries_wait = False
        return full

    def end_claim(self, full: Collection[LaneKey]) -> None:
        """The database held nothing more, but for these: the others take new duties straight away again.

        One that was passed over since then has something waiting there that the claim did not see, or did not take.
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
        """The next one to start, from the lane whose turn it is."""
        while self._turns:
            lane = self._turns.popleft()
            lane.queued_in_turn = False
            let_in_by, lane.let_in_by = lane.let_in_by, None
            if lane.can_start():
                limits = self._limits_of(lane.first_in_line())
                reached = next((limit for limit in limits if limit.is_reached), None)
                if reached is None:
                    duty = lane.start()
                    if (gap := duty.endpoint.gap) is not None:
                        now = self._clock()
                        self._last_looked = max(self._last_looked, now)
                        self._pace(lane, _Pace(by=duty.id, since=now, gap=gap))
                    self._under_way[duty.id] = (lane, limits)
                    for limit in limits:
                        limit.active += 1
                        self._limits[limit.name] = limit
                    self._take_turn(lane)
                    return duty
                lane.queued_in_turn = True  # there, until one of those that it counts has ended
                if reached is let_in_by:
                    reached.waiting.appendleft(lane)
                else:
                    reached.waiting.append(lane)
            if let_in_by is not None:
                self._let_in(let_in_by)  # it did not take the place that it was let in for
        self.startable.clear()
        return None

    def end(self, duty: Duty, ending: Ending) -> None:
        """The attempt is over; its delivery stays in hand until the outcome is recorded."""
        lane, limits = self._under_way.pop(duty.id)
        lane.end(duty, ending)
        for limit in limits:
            limit.active -= 1
            if limit.waiting:
                self._let_in(limit)
            if not limit.active and not limit.waiting:
                del self._limits[limit.name]
        if ending is Ending.WELL:
            lane.rests_in_row = 0
            if lane.rests:
                self._end_rest(lane)
        elif ending is Ending.ILL:
            if lane.failures_in_row >= BREAKS_AFTER and not lane.rests:
                self._rest(lane)
        elif lane.pace is not None and lane.pace.by == duty.id:
            lane.pace = None
        if lane.wants_more(duty):
            self.on_room()
        self._take_turn_or_leave(lane)

    def _limits_of(self, duty: Duty) -> Sequence[_Limit]:
        """One attempt more would be counted at each of them."""
        endpoint = duty.endpoint
        named = self._limits_at(endpoint.account_id, endpoint.shown_host, endpoint.kind)
        return [self._limits.get(name) or _Limit(name, most) for name, most in named]

    def _name_limits(self, account: AccountId, there: str, kind: str) -> Sequence[tuple[str, int]]:
        if kind == ARCHIVE:
            return (
                (f"account {account} {kind}", DOWNLOADS_OF_AN_ACCOUNT),
                (kind, DOWNLOADS),
                (f"account {account}", self._of_an_account),
            )
        if not there:  # what others of its kind do is no matter: they may be at other servers
            return (
                (f"account {account} {kind}", self._of_a_host),
                (f"account {account}", self._of_an_account),
            )
        return (
            (f"host {there}", self._of_a_host),
            (f"account {account} host {there}", self._of_an_account_there),
            (f"account {account}", self._of_an_account),
        )

    def _let_in(self, limit: "_Limit") -> None:
        """The next lane that waits for it, if it has a place."""
        if limit.waiting and not limit.is_reached:
            lane = limit.waiting.popleft()
            lane.let_in_by = limit
            self._turns.append(lane)
            self.startable.set()

    def settle(self, duty: Duty) -> None:
        """Its outcome is recorded, or could not be: what the database says of it is true again."""
        self._in_hand.discard(duty.id)

    # Rests

    def _rest(self, lane: Lane) -> None:
        doublings: int = 2 ** min(lane.rests_in_row, 10)
        until = self._clock() + min(FIRST_REST * doublings, LONGEST_REST)
        lane.rests = True
        lane.rests_in_row += 1
        self._resting[lane.key] = until
        self._on_rest(until)

    def _end_rest(self, lane: Lane) -> None:
        lane.rests = False
        self._resting.pop(lane.key, None)

    def rouse(self, endpoint: Place) -> None:
        """A person asks for an attempt, and does not want to wait until the lane has rested. The rate is kept all the same."""
        lane = self._lanes.get(endpoint.lane)
        if lane is not None and lane.rests:
            self._end_rest(lane)
            self._take_turn_or_leave(lane)

    def end_rests(self) -> datetime | None:
        """Lets those try again that have rested long enough, or for who knows how long, where the clock was set back. Gives
        when the next one will have.
        """
        now = self._clock()
        for key, until in list(self._resting.items()):
            if not now < until <= now + LONGEST_REST:
                lane = self._lanes[key]
                self._end_rest(lane)
                self._take_turn_or_leave(lane)
        return min(self._resting.values(), default=None)

    # Paces

    def _pace(self, lane: Lane, pace: _Pace) -> None:
        lane.pace = pace
        heappush(self._paced, (pace.until, lane.key))
        self._on_pace(pace.until)

    def _change_pace(self, lane: Lane, pace: _Pace, gap: timedelta | None) -> None:
        """Its endpoint has another rate now, or none."""
        if gap is None:
            lane.pace = None
        else:
            self._pace(lane, replace(pace, gap=gap))

    def end_paces(self) -> datetime | None:
        """Lets those begin their next attempts that have waited for as long as their rates say. Gives when the next one
        will have.
        """
        now = self._clock()
        if now < self._last_looked:
            self._pace_anew(now)
        self._last_looked = now
        while self._paced and self._paced[0][0] <= now:
            _, key = heappop(self._paced)
            lane = self._lanes.get(key)
            if lane is not None and lane.pace is not None and lane.pace.until <= now:
                lane.pace = None
                self._take_turn_or_leave(lane)
        return self._paced[0][0] if self._paced else None

    def _pace_anew(self, now: datetime) -> None:
        """The clock was set back: whoever began later than now would wait for as long as that."""
        self._paced.clear()
        for lane in self._lanes.values():
            if lane.pace is not None:
                self._pace(lane, replace(lane.pace, since=min(lane.pace.since, now)))

    # What is taken out again

    def drop(self, endpoint: Place) -> None:
        """It wants no more: what is not begun is forgotten here, and is the database's business alone. When it was sent to
        last is not: it may be wanted again at once.
        """
        lane = self._lanes.get(endpoint.lane)
        if lane is None:
            return
        lane.spoil(endpoint.id)
        self._in_hand.difference_update(duty.id for duty in lane.drop(endpoint.id))
        if not endpoint.shares_lane:
            lane.backlog, lane.retries_wait = None, False
            # Should it be wanted again, it begins anew.
            lane.failures_in_row = lane.rests_in_row = 0
            self._end_rest(lane)
        elif lane.backlog or lane.retries_wait:
            self.on_room()
        self._leave_if_idle(lane)

    def divert(self, endpoint: Place) -> None:
        """It is being changed: what is new lines up in the database, behind what `recall` sends back there."""
        if self.open:
            self._lane(endpoint).backlog = Backlog.NEW

    def recall(self, endpoint: Place) -> None:
        """It was changed: what is not begun goes back to the database, to be claimed with what it is like now."""
        if not self.open:
            return
        self.divert(endpoint)  # a claim may have ended since
        lane = self._lane(endpoint)
        lane.spoil(endpoint.id)
        dropped = [duty.id for duty in lane.drop(endpoint.id)]
        self._in_hand.difference_update(dropped)
        self._recalled += dropped
        self.on_room()

    def abandon(self) -> None:
        """Others have in hand what was here: all that is not begun is forgotten."""
        for lane in list(self._lanes.values()):
            for endpoint_id in {duty.endpoint.id for duty in lane.waiting()}:
                self._in_hand.difference_update(duty.id for duty in lane.drop(endpoint_id))
            lane.backlog, lane.retries_wait = None, False
            self._leave_if_idle(lane)
        self._recalled.clear()
        self.on_room()

    def not_here(self, leased: Iterable[DeliveryId]) -> list[DeliveryId]:
        """Those of them that nobody here has in hand, or is about to have."""
        here = self._in_hand.union(*(lane.promised for lane in self._lanes.values()), self._recalled)
        return [id for id in leased if id not in here]

    def recall_all(self) -> None:
        """Any of them may have been changed."""
        for place in {duty.endpoint.id: duty.endpoint for duty in self.waiting()}.values():
            self.recall(place)

    def recalled(self) -> list[DeliveryId]:
        """Leased still, and in nobody's hand."""
        return list(self._recalled)

    def forget_recalled(self, ids: Collection[DeliveryId]) -> None:
        """Their leases are given back."""
        given_back = set(ids)
        self._recalled = [id for id in self._recalled if id not in given_back]

    def waiting(self) -> list[Duty]:
        """All that is held and not begun."""
        return [duty for lane in self._lanes.values() for duty in lane.waiting()]

    # Turns

    def _take_turn_or_leave(self, lane: Lane) -> None:
        self._take_turn(lane)
        self._leave_if_idle(lane)

    def _leave_if_idle(self, lane: Lane) -> None:
        """Where it stands in a line yet it is passed over when its turn comes: there is nothing in it to start."""
        if not lane.is_idle:
            return
        self._lanes.pop(lane.key, None)
        if lane.is_shared and lane.failures_in_row:
            self._failing[lane.key] = (lane.failures_in_row, lane.rests_in_row)
            if len(self._failing) > FAILING_REMEMBERED:
                self._failing.popitem(last=False)

    def _take_turn(self, lane: Lane) -> None:
        if not lane.queued_in_turn and lane.can_start():
            lane.queued_in_turn = True
            self._turns.append(lane)
            self.startable.set()
