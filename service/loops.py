"""Work that goes on for as long as Klingel runs, and outlives whatever befalls one step of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from service.domain.errors import KlingelError
from service.domain.times import Clock
from service.wakeups import Wakeup

# Does what is to be done now. Gives when it is to be called again at the latest, None for not before a signal.
Step = Callable[[], Awaitable[datetime | None]]

# Until another process has done what is due, and this one has left to it.
OTHERS_AT_IT: Final = timedelta(milliseconds=250)
FIRST_PAUSE: Final = timedelta(seconds=1)  # after a step that failed; doubles with each in a row
LONGEST_PAUSE: Final = timedelta(minutes=1)
FAILING_AFTER: Final = 3  # failures in a row: no hiccup any more

log = structlog.get_logger()


def not_at_once(due: datetime | None, now: datetime) -> datetime | None:
    """For a step that has done all it could: what is due even so is somebody else's to do, who is at it."""
    return None if due is None else max(due, now + OTHERS_AT_IT) if due <= now else due


class Loop:
    """One step after another: each when it is called for, or when the one before said that something falls due."""

    def __init__(self, name: str, step: Step, *, wakeup: Wakeup, clock: Clock) -> None:
        """
        Args:
            name: of its asyncio task, and in the log.
            wakeup: signals, and gives moments, for this loop alone.
        """
        self._name = name
        self._step = step
        self._wakeup = wakeup
        self._clock = clock
        self._failures = 0  # in a row
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs and does its work: false while one step after another fails."""
        return self._task is not None and not self._task.done() and self._failures < FAILING_AFTER

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends; a step on its way is then cancelled."""
        self._task = asyncio.create_task(self._run(), name=self._name)
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                due = await self._step()
            except KlingelError as error:
                self._failures += 1
                log.warning("loop.failed", loop=self._name, failures=self._failures, reason=error.detail)
                await self._pause()
            except Exception:
                self._failures += 1
                log.exception("loop.broke", loop=self._name, failures=self._failures)
                await self._pause()
            else:
                self._failures = 0
                await self._wakeup.wait(due)

    async def _pause(self) -> None:
        """No signal cuts it short: what it called for is done by the step that follows."""
        doublings: int = 2 ** min(self._failures - 1, 10)
        until = self._clock() + min(FIRST_PAUSE * doublings, LONGEST_PAUSE)
        while timedelta(0) < until - self._clock() <= LONGEST_PAUSE:  # not longer where the clock is set back
            await self._wakeup.wait(until)
