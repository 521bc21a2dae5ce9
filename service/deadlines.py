"""Marks overdue tasks, each at its moment and once. It asks no provider: it tells, and a person may then ask."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from service.batching import Batcher
from service.domain.errors import KlingelError
from service.domain.times import Clock
from service.domain.transitions import overdue
from service.publication import Publisher
from service.wakeups import Wakeups
from storage import tasks
from storage.database import Database, Transaction

PAGE: Final = 200
AFTER_TROUBLE: Final = timedelta(seconds=1)

log = structlog.get_logger()


class Deadlines:
    def __init__(
        self, *, database: Database, batcher: Batcher, publisher: Publisher, wakeups: Wakeups, clock: Clock
    ) -> None:
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._wakeup = wakeups.deadlines
        self._clock = clock
        self._loop: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Also marks what fell due while Klingel was stopped."""
        self._loop = asyncio.create_task(self._mark_loop(), name="deadlines")
        try:
            yield
        finally:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _mark_loop(self) -> None:
        while True:
            try:
                if await self._batcher.run(self._mark, self._clock()) == PAGE:
                    continue
                async with self._database.reading() as reader:
                    due = await tasks.next_deadline_at(reader)
            except KlingelError as error:
                log.warning("deadlines.not_marked", reason=error.detail)
                due = self._clock() + AFTER_TROUBLE
            await self._wakeup.wait(due)

    async def _mark(self, tx: Transaction, moments: Sequence[datetime]) -> list[int]:
        now = max(moments)
        due = await tasks.due_deadlines(tx, now=now, limit=PAGE)
        await self._publisher.record(tx, [overdue(task, now) for task in due])
        for task in due:
            log.warning("task.overdue", task_id=task.id, status=task.status, deadline_at=task.deadline_at)
        return [len(due)] * len(moments)
