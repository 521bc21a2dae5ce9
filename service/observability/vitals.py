"""What machines that look after this one ask of the database: asked seldom, however many ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from service.domain.errors import KlingelError, SearchTooWide
from service.domain.lifecycle import Status
from service.domain.times import Clock
from service.doors.sharing import Shared
from storage import deliveries, tasks
from storage.database import Database

CHECKED_FOR: Final = timedelta(milliseconds=250)  # one check of the disk serves all who ask within that
COUNTED_FOR: Final = timedelta(seconds=1)
LONGEST_COUNT_S: Final = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted in the database."""

    tasks: Mapping[Status, int]
    oldest_due: datetime | None
    dead: int


class Vitals:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._storage = Shared(self._check, kept=CHECKED_FOR, clock=clock)
        self._counts = Shared(self._count, kept=COUNTED_FOR, clock=clock)
        self._last = Counts({}, None, 0)

    async def storage_works(self) -> bool:
        return await self._storage.get()

    async def counts(self) -> Counts:
        return await self._counts.get()

    async def _check(self) -> bool:
        try:
            await self._database.check()
        except KlingelError as error:
            log.warning("storage.check_failed", reason=error.detail)
            return False
        return True

    async def _count(self) -> Counts:
        """The last ones where there is more to count than there is time for."""
        now = self._clock()
        try:
            async with self._database.searching("metrics", seconds=LONGEST_COUNT_S) as reader:
                self._last = Counts(
                    tasks=await tasks.count_by_status(reader),
                    oldest_due=await deliveries.oldest_due(reader, now=now),
                    dead=await deliveries.count_dead(reader),
                )
        except SearchTooWide:
            log.warning("metrics.count_too_slow")
        return self._last
