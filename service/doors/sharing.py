"""What one caller may take of what is everybody's: an answer that many share, a pace, an order of turns, room."""

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from service.domain.errors import Busy
from service.domain.ids import AccountId
from service.domain.times import Clock
from service.doors.bodies import SMALL_BODY

T = TypeVar("T")

TESTS_AT_ONCE: Final = 100  # test events of an account,
TESTS_PER_S: Final = 2.0  # and then so many
BODIES_BYTES: Final = 512 * 1024 * 1024  # of requests, until they are stored
BODIES_BYTES_OF_ONE: Final = BODIES_BYTES // 2
ENDPOINTS_AT_A_TIME: Final = 2  # are read
REMEMBERED: Final = 10_000  # callers whose pace is known; the one not seen for longest is forgotten first


class Shared(Generic[T]):
    """One answer for all who ask within a while: whoever comes while it is being found gets the same.

    Args:
        find: finds the answer; what it raises is raised to all who wait for it, and not kept.
        kept: for how long it is good.
    """

    def __init__(self, find: Callable[[], Awaitable[T]], *, kept: timedelta, clock: Clock) -> None:
        self._find = find
        self._kept = kept
        self._clock = clock
        self._found: tuple[T, datetime] | None = None
        self._finding: asyncio.Future[T] | None = None

    async def get(self) -> T:
        if self._found is not None:
            answer, at = self._found
            if timedelta(0) <= self._clock() - at < self._kept:
                return answer
        if self._finding is None:
            self._finding = asyncio.ensure_future(self._find())
            self._finding.add_done_callback(self._keep)
        # Who goes away does not take the answer from those who stay.
        return await asyncio.shield(self._finding)

    def _keep(self, finding: "asyncio.Future[T]") -> None:
        self._finding = None
        if not finding.cancelled() and finding.exception() is None:
            self._found = finding.result(), self._clock()


class RateLimit:
    """So many at once, and then so many each second, for each caller.

    Args:
        monotonic: seconds that only grow.
    """

    def __init__(
        self, *, burst: int, per_second: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._monotonic = monotonic
        self._taken: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # how many, and when counted

    def take(self, whose: Hashable) -> int:
        """0 if this one may go; else after how many whole seconds it may."""
        now = self._monotonic()
        taken, at = self._taken.get(whose, (0.0, now))
        taken = max(taken - (now - at) * self._per_second, 0.0)
        if taken > self._burst - 1:
            return math.ceil((taken - self._burst + 1) / self._per_second)
        self._taken[whose] = taken + 1, now
        self._taken.move_to_end(whose)
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        return 0


class Turns:
    """So many at a time. While all places are taken callers take turns, however many of one caller's wait."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, whose: Hashable) -> AsyncIterator[None]:
        await self._enter(whose)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, whose: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():
                self._leave()  # it had been called, and goes away
            raise

    def _leave(self) -> None:
        while self._waiting:
            whose, line = self._waiting.popitem(last=False)
            called = line.popleft()
            if line:
                self._waiting[whose] = line  # behind everybody else
            if not called.done():
                called.set_result(None)
                return
        self._free += 1


class Readers:
    """Threads for what takes longer to be read than everybody else should wait: so many at a time, and callers take
    turns.
    """

    def __init__(self, places: int) -> None:
        self._turns = Turns(places)
        self._threads = CapacityLimiter(places)

    async def read(self, whose: Hashable, reading: Callable[[], T]) -> T:
        async with self._turns.turn(whose):
            return await run_sync(reading, limiter=self._threads)


class Full(Exception):
    """There is no more room, for anybody or for this caller."""


class Room:
    """Bytes that may be held at a time: in all, and by one caller.

    Args:
        free_each: of each holding, so many bytes count for nothing: what is small is never refused.
    """

    def __init__(self, *, in_all: int, of_one: int, free_each: int) -> None:
        self._in_all = in_all
        self._of_one = of_one
        self._free_each = free_each
        self._held: Counter[Hashable] = Counter()
        self._total = 0

    @contextmanager
    def hold(self, whose: Hashable) -> Iterator["Holding"]:
        """Whatever it grows to is given back at the end."""
        holding = Holding(self, whose)
        try:
            yield holding
        finally:
            self.take(whose, -holding.counted)

    def take(self, whose: Hashable, size: int) -> None:
        """
        Raises:
            Full: nothing is taken.
        """
        if size > 0 and (self._total + size > self._in_all or self._held[whose] + size > self._of_one):
            raise Full
        self._total += size
        self._held[whose] += size
        if not self._held[whose]:
            del self._held[whose]

    def counted(self, size: int) -> int:
        return max(size - self._free_each, 0)


class Holding:
    """One caller's part of a room."""

    def __init__(self, room: Room, whose: Hashable) -> None:
        self._room = room
        self._whose = whose
        self.counted = 0

    def grow_to(self, size: int) -> None:
        """
        Raises:
            Full: it stays as large as it was.
        """
        counted = self._room.counted(size)
        self._room.take(self._whose, counted - self.counted)
        self.counted = counted


class Places:
    """How many of something each caller has now.

    Args:
        of_one: so many at most.
    """

    def __init__(self, *, of_one: int) -> None:
        self.of_one = of_one
        self._taken: Counter[Hashable] = Counter()

    @contextmanager
    def place(self, whose: Hashable) -> Iterator[None]:
        """
        Raises:
            Full: it has them all.
        """
        if self._taken[whose] >= self.of_one:
            raise Full
        self._taken[whose] += 1
        try:
            yield
        finally:
            self._taken[whose] -= 1
            if not self._taken[whose]:
                del self._taken[whose]


@contextmanager
def room_for_body(bodies: Room, account_id: AccountId) -> Iterator[Callable[[int], None]]:
    """While a body is in memory; it is told how large it has grown.

    Raises:
        Busy: that is more than there is room for now.
    """
    with bodies.hold(account_id) as holding:

        def grown(size: int) -> None:
            try:
                holding.grow_to(size)
            except Full:
                raise Busy(
                    "Too many large bodies have come at once. Nothing of this one was stored: try again in a moment."
                ) from None

        yield grown


@dataclass(frozen=True, slots=True)
class Shares:
    """What is shared by all who ask this process for something."""

    streams: Places  # of an account
    tests: RateLimit  # of an account
    replays: Places  # of an endpoint
    bodies: Room  # of accounts
    readers: Readers  # of endpoints, whose templates are rehearsed


def shares_of(*, streams: int) -> Shares:
    """
    Args:
        streams: that an account may have open.
    """
    return Shares(
        streams=Places(of_one=streams),
        tests=RateLimit(burst=TESTS_AT_ONCE, per_second=TESTS_PER_S),
        replays=Places(of_one=1),
        readers=Readers(ENDPOINTS_AT_A_TIME),
        bodies=Room(in_all=BODIES_BYTES, of_one=BODIES_BYTES_OF_ONE, free_each=SMALL_BODY),
    )
