"""What one caller may take of what is everybody's."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.doors.sharing import Full, Places, RateLimit, Room, Shared, Turns

SECOND = timedelta(seconds=1)


class Answers:
    """Finds a new answer each time, once it is let."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.found = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def __call__(self) -> int:
        await self.gate.wait()
        self.found += 1
        if self.fault is not None:
            raise self.fault
        return self.found

    def shared(self) -> Shared[int]:
        return Shared(self, kept=SECOND, clock=lambda: self.now)


async def test_an_answer_is_good_for_a_while_and_found_anew_after_it() -> None:
    answers = Answers()
    shared = answers.shared()
    assert [await shared.get() for _ in range(3)] == [1, 1, 1]
    answers.now += SECOND
    assert await shared.get() == 2
    answers.now -= timedelta(hours=1)  # the clock was set back
    assert await shared.get() == 3


async def test_whoever_asks_while_it_is_being_found_gets_the_same() -> None:
    answers = Answers()
    shared = answers.shared()
    answers.gate.clear()
    asking = [asyncio.create_task(shared.get()) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()  # takes nothing from the others
    answers.gate.set()
    first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert set(others) == {1}


async def test_what_could_not_be_found_is_told_to_all_who_waited_and_not_kept() -> None:
    answers = Answers()
    shared = answers.shared()
    answers.fault = ValueError("no")
    assert [
        str(error) for error in await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    ] == ["no", "no"]
    answers.fault = None
    assert await shared.get() == 2


def test_a_pace_has_a_burst_and_then_its_rate_for_each_caller() -> None:
    now = 0.0
    pace = RateLimit(burst=3, per_second=0.5, monotonic=lambda: now)
    assert [pace.take("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert pace.take("b") == 0
    now = 1.0
    assert pace.take("a") == 1
    now = 2.0
    assert [pace.take("a"), pace.take("a")] == [0, 2]
    now = 1000.0
    assert [pace.take("a") for _ in range(4)] == [0, 0, 0, 2]


async def test_callers_take_turns_however_many_of_one_wait() -> None:
    turns = Turns(1)
    order: list[str] = []
    gate = asyncio.Event()

    async def work(whose: str) -> None:
        async with turns.turn(whose):
            order.append(whose)
            await gate.wait()

    working = [asyncio.create_task(work(whose)) for whose in "aaaaabbc"]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*working)
    assert "".join(order) == "aabcabaa"


async def test_so_many_work_at_a_time_and_who_goes_away_leaves_the_place_to_the_next() -> None:
    turns = Turns(2)
    working = 0
    most = 0

    async def work(whose: int) -> None:
        nonlocal working, most
        async with turns.turn(whose % 3):
            working += 1
            most = max(most, working)
            try:
                await asyncio.sleep(0)
            finally:
                working -= 1

    for cancelled_after in range(6):
        tasks = [asyncio.create_task(work(number)) for number in range(12)]
        for _ in range(cancelled_after):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
    assert (working, most) == (0, 2)
    assert turns._free == 2


def test_room_is_bounded_in_all_and_for_one_and_small_things_always_fit() -> None:
    room = Room(in_all=100, of_one=60, free_each=10)
    with room.hold("a") as mine, room.hold("b") as theirs, room.hold("c") as small:
        mine.grow_to(70)
        with pytest.raises(Full):
            mine.grow_to(71)
        with room.hold("a") as more:
            more.grow_to(10)
            with pytest.raises(Full):
                more.grow_to(11)
        theirs.grow_to(50)
        with pytest.raises(Full):
            theirs.grow_to(51)
        small.grow_to(10)
    with room.hold("b") as later:
        later.grow_to(70)
    assert room._total == 0
    assert not room._held


def test_places_are_counted_for_each_caller_and_given_back() -> None:
    places = Places(of_one=2)
    with places.place("a"), places.place("a"), places.place("b"), pytest.raises(Full), places.place("a"):
        pass
    with places.place("a"), places.place("a"):
        pass
    assert not places._taken
