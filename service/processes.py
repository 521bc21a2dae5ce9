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

EVERY: Final = timedelta(seconds=5)  # between two heartbeats
LASTS: Final = timedelta(seconds=20)  # then others count it as dead
MARGIN: Final = timedelta(seconds=5)  # so long before that it begins nothing any more
IN_A_ROW: Final = 2  # heartbeats that succeed before a process reaps others; a late one begins the row anew

# Takes over what dead processes had in hand.
Takeover = Callable[[Transaction, Sequence[ProcessId]], Awaitable[None]]

log = structlog.get_logger()


def boot_seconds() -> float:
    """Seconds that only grow, with those that the machine slept through where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Presence:
    """A process has a row with a moment until which it counts as alive, by the database's clock, and moves it on with
    each heartbeat.

    What a process has in hand names its id. Whoever notices that the process is dead reaps it: gives all of that back,
    in one transaction. A process that was stalled until others counted it as dead begins anew, under another id, with
    nothing in hand.

    Where the database has one process there is no row, and nothing is ever taken over.
    """

    def __init__(
        self,
        database: Database,
        batcher: Batcher,
        *,
        roles: Iterable[str],
        every: timedelta = EVERY,
        monotonic: Callable[[], float] = boot_seconds,
    ) -> None:
        """
        Args:
            every: between two heartbeats. All else keeps to that: after four times it without one a process is dead.
            monotonic: seconds that only grow, also while the machine sleeps.
        """
        self._database = database
        self._batcher = batcher
        self._roles = sorted(roles)
        self._every = every
        self._lasts = every * (LASTS / EVERY)
        self._margin = every * (MARGIN / EVERY)
        self._monotonic = monotonic
        self._alive_until = 0.0
        self._renewals_in_a_row = IN_A_ROW  # a process that starts has missed none
        self._former_ids: list[ProcessId] = []  # of this process, yet to be reaped
        self._renewed = asyncio.Event()
        self._upkeep_due = asyncio.Event()
        self._on_reap: list[Takeover] = []
        self._on_loss: list[Callable[[], None]] = []
        self._on_heartbeat: list[Callable[[], Awaitable[None]]] = []
        self.id = new_process_id()

    @property
    def alive(self) -> bool:
        """Whether it may begin something. What it began goes on: at worst an event is told twice."""
        return self._database.sole_process or self._monotonic() < self._alive_until

    async def until_alive(self) -> None:
        while not self.alive:
            self._renewed.clear()
            await self._renewed.wait()

    async def may_take(self, tx: Transaction) -> bool:
        """Asked in a transaction before it takes something in hand under its id: whoever reaps it then finds that, or
        has reaped it already. In the second case the answer is no, and this process begins nothing before its next
        heartbeat.
        """
        if self._database.sole_process or await processes.stand_by(tx, self.id):
            return True
        self._alive_until = 0.0
        return False

    async def is_still(self, id: ProcessId) -> bool:
        """Whether it may go on with what it took in hand under this id; waits while that cannot be told."""
        await self.until_alive()
        return self.id == id

    def on_reap(self, takeover: Takeover) -> None:
        """Called, in this order, in the transaction that reaps processes."""
        self._on_reap.append(takeover)

    def on_loss(self, lost: Callable[[], None]) -> None:
        """Called when others have what this process had, and it begins anew."""
        self._on_loss.append(lost)

    def on_heartbeat(self, upkeep: Callable[[], Awaitable[None]]) -> None:
        """Called after each heartbeat that the database has taken."""
        self._on_heartbeat.append(upkeep)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Alive until the block ends; then all that it still has is given back."""
        if self._database.sole_process:
            yield
            return
        await self._begin()
        await self.reap()  # also processes that died while there was no other to notice
        tasks = [
            asyncio.create_task(self._heartbeat(), name="presence"),
            asyncio.create_task(self._upkeep(), name="presence.others"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._alive_until = 0.0
            self._former_ids.append(self.id)
            try:
                await self.reap()
            except KlingelError as error:  # others find out when its time has run out
                log.warning("process.not_left", process_id=self.id, reason=error.detail)

    async def _begin(self) -> None:
        started = self._monotonic()
        async with self._database.transaction() as tx:
            await processes.add(tx, self.id, roles=self._roles, lasts=self._lasts)
        self._count_as_alive(since=started)

    def _count_as_alive(self, *, since: float) -> None:
        self._alive_until = since + (self._lasts - self._margin).total_seconds()
        self._renewed.set()

    async def _heartbeat(self) -> None:
        """Renews in a transaction of its own, past the batcher: whoever holds up all writes must not make healthy processes
        count as dead.
        """
        while True:
            await asyncio.sleep(self._every.total_seconds())
            was_late = not self.alive
            try:
                await self.renew()
                self._renewals_in_a_row = 1 if was_late else self._renewals_in_a_row + 1
                self._upkeep_due.set()
            except KlingelError as error:
                self._renewals_in_a_row = 0
                log.warning("process.not_renewed", process_id=self.id, reason=error.detail)
            except Exception:
                self._renewals_in_a_row = 0
                log.exception("process.beat_broke", process_id=self.id)

    async def _upkeep(self) -> None:
        """What follows a heartbeat: it goes through the batcher, and so waits for the writes before it."""
        while True:
            await self._upkeep_due.wait()
            self._upkeep_due.clear()
            try:
                if self._may_reap_others or self._former_ids:
                    await self.reap()
                for upkeep in self._on_heartbeat:
                    await upkeep()
            except KlingelError as error:
                log.warning("process.not_looked_after", process_id=self.id, reason=error.detail)
            except Exception:
                log.exception("process.look_broke", process_id=self.id)

    async def renew(self) -> None:
        """Counts as alive for its whole time again; under a new id if others have counted it as dead."""
        started = self._monotonic()
        async with self._database.transaction() as tx:
            known = await processes.renew(tx, self.id, lasts=self._lasts)
        if known:
            self._count_as_alive(since=started)
            return
        former, self.id = self.id, new_process_id()
        log.warning("process.counted_dead", process_id=former, begins_anew_as=self.id)
        for lost in self._on_loss:
            lost()
        self._former_ids.append(former)  # what it still took before it knew
        await self._begin()

    @property
    def _may_reap_others(self) -> bool:
        """After a missed or late heartbeat this process cannot tell a dead one from one that was suspended too, as when the
        whole machine was. So the others have time to come back first.
        """
        return self._renewals_in_a_row >= IN_A_ROW

    async def reap(self) -> None:
        """Takes over from what this process was under former ids, and from others whose time has run out."""
        await self._batcher.alone(self._reap)

    async def _reap(self, tx: Transaction) -> None:
        own = frozenset(self._former_ids)
        others: set[ProcessId] = set()
        if self.alive and self._may_reap_others:  # now, not when this was asked for
            others = set(await processes.dead(tx)) - {self.id}
        if dead := sorted(own | others):
            for take_over in self._on_reap:
                await take_over(tx, dead)
            await processes.release_lanes_of(tx, dead)
            for id in dead:
                await processes.forget(tx, id)
            tx.on_commit(lambda: log.info("process.buried", process_ids=dead))
            tx.on_commit(lambda: self._forget_former_ids(own))

    def _forget_former_ids(self, reaped: Collection[ProcessId]) -> None:
        self._former_ids = [id for id in self._former_ids if id not in reaped]
