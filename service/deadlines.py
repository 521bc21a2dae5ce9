"""Marks overdue tasks, each at its moment and once. It asks no provider: it tells, and a person may then ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog

from service.batching import Batcher
from service.domain.times import Clock
from service.domain.transitions import overdue
from service.loops import Loop, not_at_once
from service.publication import Publisher
from service.wakeups import Wakeups
from storage import tasks
from storage.database import Database, Transaction

PAGE: Final = 200

log = structlog.get_logger()


class Deadlines:
    def __init__(
        self, *, database: Database, batcher: Batcher, publisher: Publisher, wakeups: Wakeups, clock: Clock
    ) -> None:
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._clock = clock
        self._loop = Loop("deadlines", self._mark_due, wakeup=wakeups.deadlines, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Also marks what fell due while Klingel was stopped."""
        async with self._loop.running():
            yield

    async def _mark_due(self) -> datetime | None:
        while await self._batcher.alone(self._mark) == PAGE:
            pass
        async with self._database.reading() as reader:
            return not_at_once(await tasks.next_deadline_at(reader), self._clock())

    async def _mark(self, tx: Transaction) -> int:
        now = self._clock()
        due = await tasks.due_deadlines(tx, now=now, limit=PAGE)
        await self._publisher.record(tx, [overdue(task, now) for task in due])
        for task in due:
            log.warning("task.overdue", task_id=task.id, status=task.status, deadline_at=task.deadline_at)
        return len(due)
