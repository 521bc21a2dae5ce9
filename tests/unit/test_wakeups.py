"""`service.wakeups`: loops wake by a signal, or at the next moment, and at no other time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from anyio import wait_all_tasks_blocked

from service.domain.times import utc_now
from service.wakeups import Wakeup, Wakeups

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Sleeper:
    """A loop's wait, begun."""

    def __init__(self, wakeup: Wakeup, due: datetime | None) -> None:
        self._task = asyncio.create_task(wakeup.wait(due))

    async def awake(self) -> bool:
        """Once nothing moves any longer."""
        await wait_all_tasks_blocked()
        return self._task.done()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("due", [None, START + HOUR])
async def test_a_signal_ends_a_wait_at_once(due: datetime | None) -> None:
    wakeup = Wakeup(Clock())
    sleeper = Sleeper(wakeup, due)
    assert not await sleeper.awake()
    wakeup.notify()
    assert await sleeper.awake()


async def test_a_signal_given_before_the_wait_is_not_lost() -> None:
    wakeup = Wakeup(Clock())
    wakeup.notify()
    assert await Sleeper(wakeup, None).awake()


async def test_many_signals_end_one_wait() -> None:
    wakeup = Wakeup(Clock())
    wakeup.notify()
    wakeup.notify()
    assert await Sleeper(wakeup, None).awake()
    sleeper = Sleeper(wakeup, None)
    assert not await sleeper.awake()
    await sleeper.end()


@pytest.mark.parametrize("due", [START, START - HOUR])
async def test_a_moment_that_has_come_is_not_waited_for(due: datetime) -> None:
    assert await Sleeper(Wakeup(Clock()), due).awake()


async def test_a_moment_comes_by_itself() -> None:
    """In real time: the one wait here that passes."""
    before = utc_now()
    await Wakeup(utc_now).wait(before + timedelta(milliseconds=20))
    assert utc_now() - before >= timedelta(milliseconds=20)


async def test_moving_the_clock_and_saying_so_makes_a_moment_come() -> None:
    clock = Clock()
    wakeups = Wakeups(clock)
    sleepers = [
        Sleeper(wakeup, START + HOUR) for wakeup in (wakeups.submission, wakeups.delivery, wakeups.deadlines)
    ]
    clock.now += HOUR
    wakeups.notify_all()
    assert [await sleeper.awake() for sleeper in sleepers] == [True] * 3


async def test_an_earlier_moment_given_meanwhile_is_waited_for_instead() -> None:
    wakeup = Wakeup(utc_now)
    before = utc_now()
    sleeping = asyncio.create_task(wakeup.wait(before + HOUR))
    await wait_all_tasks_blocked()
    wakeup.due_at(before + timedelta(milliseconds=50))
    await sleeping
    assert utc_now() - before >= timedelta(milliseconds=50)


async def test_an_earlier_moment_given_meanwhile_wakes_nobody_before_it_comes() -> None:
    """A retry that falls due in five seconds is no reason to look at the table now."""
    wakeup = Wakeup(Clock())
    sleeper = Sleeper(wakeup, None)
    assert not await sleeper.awake()
    wakeup.due_at(START + HOUR)
    wakeup.due_at(START + HOUR / 2)
    assert not await sleeper.awake()
    await sleeper.end()


async def test_a_moment_that_has_come_given_meanwhile_ends_the_wait() -> None:
    wakeup = Wakeup(Clock())
    sleeper = Sleeper(wakeup, START + HOUR)
    assert not await sleeper.awake()
    wakeup.due_at(START)
    assert await sleeper.awake()


async def test_a_moment_given_between_two_waits_is_not_lost() -> None:
    """The loop has looked at the table, and has not begun to wait, when somebody adds to the table."""
    wakeup = Wakeup(Clock())
    wakeup.due_at(START)
    assert await Sleeper(wakeup, START + HOUR).awake()


async def test_a_later_moment_or_none_changes_nothing() -> None:
    wakeup = Wakeup(utc_now)
    before = utc_now()
    sleeping = asyncio.create_task(wakeup.wait(before + timedelta(milliseconds=50)))
    await wait_all_tasks_blocked()
    wakeup.due_at(before + HOUR)
    wakeup.due_at(None)
    await sleeping
    assert utc_now() - before >= timedelta(milliseconds=50)


async def test_each_loop_has_its_own_alarm() -> None:
    wakeups = Wakeups(Clock())
    sleeper = Sleeper(wakeups.delivery, None)
    wakeups.submission.notify()
    wakeups.deadlines.due_at(START)
    assert not await sleeper.awake()
    await sleeper.end()


async def test_a_wait_that_was_given_up_leaves_the_alarm_usable() -> None:
    wakeup = Wakeup(Clock())
    sleeper = Sleeper(wakeup, START + HOUR)
    assert not await sleeper.awake()
    await sleeper.end()
    wakeup.notify()
    assert await Sleeper(wakeup, None).awake()


async def test_a_clock_that_is_set_back_ends_a_wait_that_would_become_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is read again at the end of each piece of a wait."""
    monkeypatch.setattr("service.wakeups.LONGEST_WAIT_S", 0)
    clock = Clock()
    wakeup = Wakeup(clock)
    clock.now += HOUR
    sleeper = Sleeper(wakeup, clock.now + HOUR)
    await asyncio.sleep(0)
    clock.now -= HOUR
    assert await sleeper.awake()
