"""This process among others that share a database: it says that it is alive, and takes over from those that are not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from service.batching import Batcher
from service.domain.errors import KlingelError
from service.domain.ids import ProcessId, new_process_id
from storage import processes
from storage.database import Database, Transaction

EVERY: Final = timedelta(seconds=5)
LASTS: Final = timedelta(seconds=20)  # then others count it as dead
MARGIN: Final = timedelta(seconds=5)  # so long before that it begins nothing any more

# Takes over what processes that are no more had in their hands.
Heir = Callable[[Transaction, Sequence[ProcessId]], Awaitable[None]]

log = structlog.get_logger()


def _seconds() -> float:
    """Also those that the machine slept through, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Presence:
    """A process has a row with a moment until which it counts as alive, by the database's clock, and moves it on.

    One that was stalled until others counted it as dead begins anew, under another id, with nothing in its hands. What it
    has in its hands names its id: whoever notices that it is dead gives that back, in one transaction.

    Where the database has one process there is no row, and nothing is ever taken over.
    """

    def __init__(
        self, database: Database, batcher: Batcher, *, roles: Iterable[str], every: timedelta = EVERY
    ) -> None:
        """
        Args:
            every: how often it says that it is alive. The rest keeps to that: four times it without a word is dead.
        """
        self._database = database
        self._batcher = batcher
        self._roles = sorted(roles)
        self._every = every
        self._lasts = every * (LASTS / EVERY)
        self._margin = every * (MARGIN / EVERY)
        self._good_until = 0.0
        self._is_steady = True
        self._may_bury_others = True
        self._formers: list[ProcessId] = []  # its own, yet to be buried
        self._renewed = asyncio.Event()
        self._beaten = asyncio.Event()
        self._heirs: list[Heir] = []
        self._on_loss: list[Callable[[], None]] = []
        self._on_beat: list[Callable[[], Awaitable[None]]] = []
        self.id = new_process_id()

    @property
    def alive(self) -> bool:
        """Whether it may begin something. What it began goes on: it is told at most once more."""
        return self._database.sole_process or _seconds() < self._good_until

    async def until_alive(self) -> None:
        while not self.alive:
            self._renewed.clear()
            await self._renewed.wait()

    async def may_take(self, tx: Transaction) -> bool:
        """Asked in a transaction before it takes something in hand under its id: whoever buries it then finds that, or
        is too late. Not so where it was counted as dead: then it begins nothing before its next sign of life.
        """
        if self._database.sole_process or await processes.stand_by(tx, self.id):
            return True
        self._good_until = 0.0
        return False

    async def is_still(self, id: ProcessId) -> bool:
        """Whether it may go on with what it took in hand under this id; waits while that cannot be told."""
        await self.until_alive()
        return self.id == id

    def bequeath(self, heir: Heir) -> None:
        """Whoever buries a process calls these, in this order."""
        self._heirs.append(heir)

    def on_loss(self, lost: Callable[[], None]) -> None:
        """Called when others have what this process had, and it begins anew."""
        self._on_loss.append(lost)

    def on_beat(self, beat: Callable[[], Awaitable[None]]) -> None:
        """Called each time that it has said that it is alive."""
        self._on_beat.append(beat)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Alive until the block ends; then all that it still has is given back."""
        if self._database.sole_process:
            yield
            return
        await self._begin()
        await self._batcher.run(self._bury, [])  # also what died while there was nobody to notice
        tasks = [
            asyncio.create_task(self._beat(), name="presence"),
            asyncio.create_task(self._look_after(), name="presence.others"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._good_until = 0.0
            try:
                await self._batcher.run(self._bury, [*self._formers, self.id])
            except KlingelError as error:  # others find out when its time has run out
                log.warning("process.not_left", process_id=self.id, reason=error.detail)

    async def _begin(self) -> None:
        started = _seconds()
        async with self._database.transaction() as tx:
            await processes.add(tx, self.id, roles=self._roles, lasts=self._lasts)
        self._lives_from(started)

    def _lives_from(self, started: float) -> None:
        self._good_until = started + (self._lasts - self._margin).total_seconds()
        self._renewed.set()

    async def _beat(self) -> None:
        """Waits for nothing but its own words: whoever holds up all writes would else have healthy processes die of it."""
        while True:
            await asyncio.sleep(self._every.total_seconds())
            # Who was away himself, with the machine perhaps, cannot tell who was not: first everybody has time to come back.
            was_away = not self.alive
            try:
                await self._renew()
                self._may_bury_others = self._is_steady and not was_away
                self._is_steady = True
                self._beaten.set()
            except KlingelError as error:
                self._is_steady = self._may_bury_others = False
                log.warning("process.not_renewed", process_id=self.id, reason=error.detail)
            except Exception:
                self._is_steady = self._may_bury_others = False
                log.exception("process.beat_broke", process_id=self.id)

    async def _look_after(self) -> None:
        """What is done at each sign of life, when the writes before it let it."""
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            try:
                if self._may_bury_others or self._formers:
                    await self._batcher.run(self._bury, list(self._formers))
                for beat in self._on_beat:
                    await beat()
            except KlingelError as error:
                log.warning("process.not_looked_after", process_id=self.id, reason=error.detail)
            except Exception:
                log.exception("process.look_broke", process_id=self.id)

    async def _renew(self) -> None:
        started = _seconds()
        async with self._database.transaction() as tx:
            known = await processes.renew(tx, self.id, lasts=self._lasts)
        if known:
            self._lives_from(started)
            return
        former, self.id = self.id, new_process_id()
        log.warning("process.counted_dead", process_id=former, begins_anew_as=self.id)
        for lost in self._on_loss:
            lost()
        self._formers.append(former)  # what it still took before it knew
        await self._begin()

    async def _bury(self, tx: Transaction, named: Sequence[Sequence[ProcessId]]) -> list[None]:
        """These, and all whose time has run out: by one of those that notice, as long as it counts as alive itself."""
        own = {id for ids in named for id in ids}
        may_bury_others = self.alive and self._may_bury_others  # now, not when this was asked for
        found = own | (set(await processes.dead(tx)) - {self.id} if may_bury_others else set())
        if dead := sorted(found):
            for heir in self._heirs:
                await heir(tx, dead)
            await processes.inherit_lanes(tx, dead)
            for id in dead:
                await processes.forget(tx, id)
            tx.on_commit(lambda: log.info("process.buried", process_ids=dead))
            tx.on_commit(lambda: self._end_formers(own))
        return [None] * len(named)

    def _end_formers(self, buried: Collection[ProcessId]) -> None:
        self._formers = [id for id in self._formers if id not in buried]
