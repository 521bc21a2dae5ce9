"""`service.loops`: work that goes on, whatever befalls one step of it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from anyio import wait_all_tasks_blocked

from service.domain.errors import StorageUnavailable
from service.domain.times import utc_now
from service.loops import FAILING_AFTER, LONGEST_PAUSE, OTHERS_AT_IT, Loop, not_at_once
from service.wakeups import Wakeup

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class World:
    """A clock, an alarm, and a loop whose steps the test makes fail."""

    def __init__(self) -> None:
        self.now = START
        self.wakeup = Wakeup(self.clock)
        self.steps: list[datetime] = []  # when they were taken
        self.due: datetime | None = None  # what each gives
        self.fault: BaseException | None = None
        self.loop = Loop("work", self.step, wakeup=self.wakeup, clock=self.clock)

    def clock(self) -> datetime:
        return self.now

    async def step(self) -> datetime | None:
        self.steps.append(self.now)
        if self.fault is not None:
            raise self.fault
        return self.due

    async def at_rest(self) -> int:
        """The number of steps taken, once nothing moves any longer."""
        await wait_all_tasks_blocked()
        return len(self.steps)

    async def after(self, span: timedelta) -> int:
        self.now += span
        self.wakeup.notify()
        return await self.at_rest()


async def test_a_step_is_taken_at_once_and_then_only_when_it_is_called_for() -> None:
    world = World()
    async with world.loop.running():
        assert await world.at_rest() == 1
        world.wakeup.notify()
        assert await world.at_rest() == 2
        assert await world.at_rest() == 2


async def test_a_step_is_taken_at_the_moment_that_the_one_before_gave() -> None:
    """In real time: the one wait here that passes."""
    taken: list[datetime] = []
    second = asyncio.Event()

    async def step() -> datetime | None:
        taken.append(utc_now())
        if len(taken) == 2:
            second.set()
        return taken[0] + timedelta(milliseconds=20) if len(taken) == 1 else None

    async with Loop("work", step, wakeup=Wakeup(utc_now), clock=utc_now).running():
        await second.wait()
    assert taken[1] - taken[0] >= timedelta(milliseconds=20)


async def test_a_step_that_has_more_to_do_is_followed_at_once() -> None:
    world = World()
    left = 5

    async def step() -> datetime | None:
        nonlocal left
        left -= 1
        return world.clock() if left else None

    async with Loop("work", step, wakeup=world.wakeup, clock=world.clock).running():
        await wait_all_tasks_blocked()
    assert left == 0


@pytest.mark.parametrize("fault", [ZeroDivisionError(), StorageUnavailable("the disk is full")])
async def test_a_loop_outlives_a_step_that_fails_and_tries_again_after_a_pause(fault: Exception) -> None:
    world = World()
    world.fault = fault
    async with world.loop.running():
        assert await world.at_rest() == 1
        assert await world.after(timedelta(milliseconds=999)) == 1  # a signal does not cut it short
        world.fault = None
        assert await world.after(timedelta(milliseconds=1)) == 2
        assert world.loop.alive


async def test_the_pauses_grow_to_a_minute_and_begin_anew_after_a_success() -> None:
    world = World()
    world.fault = ZeroDivisionError()
    async with world.loop.running():
        for taken, seconds in enumerate((1, 2, 4, 8, 16, 32, 60, 60), 1):
            assert await world.at_rest() == taken
            assert await world.after(timedelta(seconds=seconds - 0.001)) == taken
            assert await world.after(timedelta(seconds=0.001)) == taken + 1
        world.fault = None
        taken = await world.after(LONGEST_PAUSE)
        world.fault = ZeroDivisionError()
        world.wakeup.notify()
        assert await world.at_rest() == taken + 1
        assert await world.after(timedelta(seconds=1)) == taken + 2


async def test_a_clock_that_is_set_back_lengthens_no_pause() -> None:
    world = World()
    world.fault = ZeroDivisionError()
    async with world.loop.running():
        assert await world.at_rest() == 1
        assert await world.after(-HOUR) == 2


async def test_a_loop_is_not_alive_while_it_keeps_failing() -> None:
    world = World()
    assert not world.loop.alive
    world.fault = ZeroDivisionError()
    seen: list[bool] = []
    async with world.loop.running():
        for _ in range(FAILING_AFTER):
            seen.append(world.loop.alive)
            await world.after(LONGEST_PAUSE)
        assert seen == [True] * FAILING_AFTER
        assert not world.loop.alive
        world.fault = None
        await world.after(LONGEST_PAUSE)
        assert world.loop.alive
    assert not world.loop.alive


@pytest.mark.parametrize("fault", [None, ZeroDivisionError()])
async def test_the_end_of_the_block_ends_the_loop_wherever_it_is(fault: Exception | None) -> None:
    world = World()
    world.fault = fault
    async with world.loop.running():
        taken = await world.at_rest()
    world.wakeup.notify()
    assert await world.after(HOUR) == taken
    assert [task for task in asyncio.all_tasks() if task.get_name() == "work"] == []


async def test_a_step_on_its_way_is_cancelled_at_the_end() -> None:
    world = World()
    ended: list[Callable[[], None]] = []

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(step)  # type: ignore[arg-type]

    async with Loop("work", step, wakeup=world.wakeup, clock=world.clock).running():
        await wait_all_tasks_blocked()
    assert len(ended) == 1


def test_what_is_due_and_was_left_to_another_process_is_looked_at_after_a_moment() -> None:
    """Not at once, and again and again: that one is at it."""
    for due in (START, START - HOUR):
        assert not_at_once(due, START) == START + OTHERS_AT_IT
    assert not_at_once(START + HOUR, START) == START + HOUR
    assert not_at_once(None, START) is None
