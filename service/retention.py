"""Forgets, once a day, what is older than it need be: a few milliseconds at a time, so that no callback waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from anyio.to_thread import run_sync

from service.batching import Batcher
from service.domain.times import Clock
from service.keeping import Keeper
from service.loops import Loop
from service.pace import Pace
from service.submission import KEY_LIFE
from service.wakeups import Wakeups
from storage import retention
from storage.database import Database, Transaction
from storage.files import Files, sweep
from storage.retention import Forgotten

EVERY: Final = timedelta(days=1)
Forget = Callable[..., Awaitable[Forgotten]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Slice:
    forgotten: Forgotten
    began: float


class Retention:
    """
    Args:
        keep: of events, deliveries, callbacks.
        keep_files: of kept outputs; they go with their tasks at the latest.
        keep_tasks: of tasks that have ended, and of their input files.
    """

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        files: Files,
        keeper: Keeper,
        keep: timedelta,
        keep_files: timedelta,
        keep_tasks: timedelta,
        wakeups: Wakeups,
        clock: Clock,
    ) -> None:
        self._database = database
        self._batcher = batcher
        self._files = files
        self._keeper = keeper
        self._keep = keep
        self._keep_files = keep_files
        self._keep_tasks = max(keep_tasks, keep)
        self._clock = clock
        self._pruning = asyncio.Lock()
        self._due: datetime | None = None
        self._loop = Loop("retention", self._prune_daily, wakeup=wakeups.retention, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._loop.running():
            yield

    async def _prune_daily(self) -> datetime:
        now = self._clock()
        if self._due is None or now >= self._due:
            log.info("retention.pruned", **await self.prune())
            self._due = now + EVERY
        return self._due

    async def prune(self) -> dict[str, int]:
        """How many rows of each kind were forgotten. What refers to others goes before them."""
        now = self._clock()
        kinds: dict[str, tuple[Forget, datetime]] = {
            "deliveries": (retention.deliveries, now - self._keep),
            "callbacks": (retention.callbacks, now - self._keep),
            "events": (retention.events, now - self._keep),
            "endpoints": (retention.endpoints, now - self._keep),
            "commands": (retention.commands, now - self._keep),
            "idempotency_keys": (retention.idempotency_keys, now - KEY_LIFE),
            "ended_sessions": (retention.ended_sessions, now),
            "tasks": (retention.tasks, now - self._keep_tasks),
        }
        async with self._pruning:
            kept = await self._keeper.forget(
                before=now - self._keep_files, tasks_before=now - self._keep_tasks
            )
            forgotten = {name: await self._all(forget, before) for name, (forget, before) in kinds.items()}
            swept = await sweep(self._files, self._database)
        return forgotten | {"kept_files": kept, "input_files": swept}

    async def _all(self, forget: Forget, before: datetime) -> int:
        number, last, pace = 0, "", Pace()

        async def a_slice(tx: Transaction) -> _Slice:
            await tx.hold("retention", ["rows"])  # each slice is forgotten by one process
            began = time.perf_counter()
            forgotten = await forget(tx, before=before, after=last, limit=pace.rows)
            if forgotten.unused:
                tx.on_commit(partial(self._drop, forgotten.unused))
            return _Slice(forgotten, began)

        while True:
            done = await self._batcher.alone(a_slice)
            number += done.forgotten.number
            if done.forgotten.last is None:
                return number
            last = done.forgotten.last
            await asyncio.sleep(pace.after(time.perf_counter() - done.began))

    def _drop(self, hashes: Sequence[str]) -> None:
        dropping = asyncio.ensure_future(run_sync(self._files.drop, hashes))
        dropping.add_done_callback(
            lambda done: (
                done.exception() and log.warning("retention.files_not_dropped", reason=str(done.exception()))
            )
        )
