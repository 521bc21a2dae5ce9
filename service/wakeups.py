"""How work wakes: by a signal, or at the next moment at which something falls due. Nothing here looks at storage."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Final

from service.domain.times import Clock

# A longer wait is cut in pieces and the clock read again, so that setting the system's clock is noticed.
LONGEST_WAIT_S: Final = 60.0


class Wakeup:
    """The alarm clock of one loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: datetime | None = None
        self._notified = False
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Something is to be done now."""
        self._notified = True
        self._changed.set()

    def due_at(self, moment: datetime | None) -> None:
        """Something will be to be done then. An earlier moment known already stays."""
        if moment is not None and (self._due is None or moment < self._due):
            self._due = moment
            self._changed.set()

    async def wait(self, due: datetime | None) -> None:
        """Until `notify`, or the moment `due`, or one given to `due_at` since the last wait; or until the clock is found
        set back: what was to be done soon by the former one would be late by this one.
        """
        self.due_at(due)
        last = self._clock()
        while not self._notified:
            self._changed.clear()
            seconds = None
            if self._due is not None:
                now = self._clock()
                seconds = (self._due - now).total_seconds()
                if seconds <= 0 or now < last:
                    break
                last = now
                seconds = min(seconds, LONGEST_WAIT_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._notified = False
        self._due = None


class Wakeups:
    """One alarm for each loop, named so that who wakes whom can be read at the call."""

    def __init__(self, clock: Clock) -> None:
        self.submission = Wakeup(clock)
        self.delivery = Wakeup(clock)
        self.attempts = Wakeup(clock)
        self.paces = Wakeup(clock)
        self.deadlines = Wakeup(clock)
        self.retention = Wakeup(clock)
        self.expiry = Wakeup(clock)
        self.commands = Wakeup(clock)

    def notify_all(self) -> None:
        """The clock was moved by hand."""
        for wakeup in (
            self.submission,
            self.delivery,
            self.attempts,
            self.paces,
            self.deadlines,
            self.retention,
            self.expiry,
            self.commands,
        ):
            wakeup.notify()
