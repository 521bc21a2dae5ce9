"""Says, three days before, which outputs are about to be lost because they could not be kept. Each once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog

from service.batching import Batcher
from service.domain.events import EventType, output_event
from service.domain.links import Links
from service.domain.times import Clock
from service.domain.transitions import Change
from service.domain.values import replace
from service.loops import Loop, not_at_once
from service.publication import Publisher
from service.wakeups import Wakeups
from storage import kept_files, tasks
from storage.database import Database, Transaction

PAGE: Final = 200

log = structlog.get_logger()


class Expiry:
    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        publisher: Publisher,
        links: Links,
        wakeups: Wakeups,
        clock: Clock,
    ) -> None:
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._links = links
        self._clock = clock
        self._loop = Loop("expiry", self._tell_due, wakeup=wakeups.expiry, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Also says what fell due while Klingel was stopped."""
        async with self._loop.running():
            yield

    async def _tell_due(self) -> datetime | None:
        while await self._batcher.alone(self._tell) == PAGE:
            pass
        async with self._database.reading() as reader:
            return not_at_once(await kept_files.next_expiry(reader), self._clock())

    async def _tell(self, tx: Transaction) -> int:
        now = self._clock()
        due = await kept_files.due_expiries(tx, now=now, limit=PAGE)
        known = await tasks.to_change(tx, {one.task_id for one in due})
        changes: list[Change] = []
        for one in due:  # several may be the same task's
            before = known[one.task_id]
            after = replace(before, sequence=before.sequence + 1, updated_at=now)
            event = output_event(EventType.OUTPUT_EXPIRING, self._links.shown(after), one.place, now)
            changes.append(Change(before=before, after=after, event=event))
            known[one.task_id] = after
            log.warning("output.expiring", task_id=after.id, place=one.place)
        await kept_files.forget_expiries(tx, [(one.task_id, one.place) for one in due])
        await self._publisher.record(tx, changes)
        return len(due)
