"""Many callers, one commit: what gathered while the last commit ran is the next batch. No timer."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Final, TypeVar

import structlog

from service.domain.errors import KlingelError, StorageUnavailable, Unavailable
from storage.database import Collided, Database, Transaction

Item = TypeVar("Item")
Result = TypeVar("Result")

# Writes all items of one kind in set-based statements. Gives one result for each, in order; an item that cannot be
# done has its error in its place, and has written nothing. It may be called again for the same items, after all that
# it did was undone.
Apply = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | KlingelError]]]

LARGEST_BATCH: Final = 1000
# Of the loop, before a batch is taken: some microseconds where there is nothing else to do. A request takes two of them from
# its socket to here, and whoever was just answered may have sent the next one by then. What has arrived goes along, instead
# of waiting for a commit of its own: a sixth more callbacks a second on SQLite, with 64 connections as with 256.
TURNS: Final = 3
# Of a batch that others were in the way of, each after a little longer than the one before.
TRIES: Final = 6
PAUSE_S: Final = 0.05

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    apply: Apply[Any, Any]
    item: Any
    done: "asyncio.Future[Any]"


class Batcher:
    """All writes go through here, so that they share commits.

    Where other processes write too, each kind has a commit of its own. What every kind holds it takes in one order
    (accounts, endpoints and bots; the rows that it changes; lines; the logs of accounts), so that no two wait for each
    other; two kinds in one transaction would not keep to it.
    """

    def __init__(self, database: Database, *, observe: Callable[[int, float], None]) -> None:
        """
        Args:
            observe: told the size of each batch and how long it took, in seconds.
        """
        self._database = database
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._worker is not None and not self._worker.done()

    async def run(self, apply: "Apply[Item, Result]", item: Item) -> Result:
        """The item's result, once it is on disk. A caller that stops waiting does not stop the write.

        Raises:
            KlingelError: what `apply` gave for this item.
            StorageUnavailable: the batch could not be committed; nothing of it is stored.
            CommitUnknown: one of these, for a batch that may be stored even so.
        """
        if self._closing:
            raise Unavailable("Klingel is shutting down. Try again in a moment.")
        waiting = _Waiting(apply, item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        result: Result = await waiting.done
        return result

    async def alone(self, work: Callable[[Transaction], Awaitable[Result | KlingelError]]) -> Result:
        """The result of a write that shares its commit with others, but no statement: as `run` for a kind of one item.

        Raises:
            as `run`.
        """

        async def apply(tx: Transaction, _items: Sequence[None]) -> Sequence[Result | KlingelError]:
            return [await work(tx)]

        update_wrapper(apply, work)  # the log names the work
        return await self.run(apply, None)

    def waiting_kinds(self) -> list[str]:
        """Of all that waits for the next batch, the names of the functions that will write it."""
        return [waiting.apply.__name__ for waiting in self._queue]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes until the block ends; what was asked for by then is still written."""
        self._worker = asyncio.create_task(self._work(), name="batcher")
        try:
            yield
        finally:
            self._closing = True
            self._arrived.set()
            await self._worker

    async def _work(self) -> None:
        while not self._closing or self._queue:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), LARGEST_BATCH))]
                if self._database.sole_process:
                    await self._write(batch)
                else:
                    for _, group in _by_kind(batch):
                        await self._write(group)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        started = time.perf_counter()
        for tried in range(1, TRIES + 1):
            try:
                results = await self._write_once(batch)
                break
            except StorageUnavailable as error:  # the disk's trouble is everybody's
                results = [(waiting, error) for waiting in batch]
                if not isinstance(error, Collided):
                    break
                log.warning("batch.collided", size=len(batch), tries=tried, reason=error.detail)
            await asyncio.sleep(random.uniform(0, PAUSE_S * tried))  # noqa: S311 - parts those who collided
        for waiting, result in results:
            if waiting.done.done():
                continue
            if isinstance(result, BaseException):
                waiting.done.set_exception(result)
            else:
                waiting.done.set_result(result)
        self._observe(len(batch), time.perf_counter() - started)

    async def _write_once(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Any]]:
        try:
            return await self._write_together(batch)
        except StorageUnavailable:
            raise
        except Exception:  # noqa: BLE001 - whose it is, and what, is found out by going apart
            return await self._write_apart(batch)

    async def _write_together(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Any]]:
        """As nearly always: nobody is bad, and nobody needs a savepoint."""
        results: list[tuple[_Waiting, Any]] = []
        async with self._database.transaction() as tx:
            for apply, group in _by_kind(batch):
                results += await _apply(tx, apply, group)
        return results

    async def _write_apart(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Any]]:
        """Somebody is bad, so all of it was undone: once more, such that only who is bad is undone."""
        results: list[tuple[_Waiting, Any]] = []
        try:
            async with self._database.transaction() as tx:
                for apply, group in _by_kind(batch):
                    results += await self._write_group(tx, apply, group)
        except StorageUnavailable:
            raise
        except Exception as error:
            log.exception("batch.failed", size=len(batch))
            return [(waiting, error) for waiting in batch]
        return results

    async def _write_group(
        self, tx: Transaction, apply: Apply[Any, Any], group: Sequence[_Waiting]
    ) -> list[tuple[_Waiting, Any]]:
        try:
            async with tx.savepoint():
                return await _apply(tx, apply, group)
        except StorageUnavailable:
            raise
        except Exception as error:
            if len(group) == 1:
                log.exception("batch.item_failed", kind=apply.__qualname__)
                return [(group[0], error)]
        # Its neighbours must not suffer for the bad one: each goes alone.
        return [pair for waiting in group for pair in await self._write_group(tx, apply, [waiting])]


async def _apply(
    tx: Transaction, apply: Apply[Any, Any], group: Sequence[_Waiting]
) -> list[tuple[_Waiting, Any]]:
    results = await apply(tx, [waiting.item for waiting in group])
    return list(zip(group, results, strict=True))


def _by_kind(batch: Sequence[_Waiting]) -> list[tuple[Apply[Any, Any], list[_Waiting]]]:
    groups: dict[Apply[Any, Any], list[_Waiting]] = {}
    for waiting in batch:
        groups.setdefault(waiting.apply, []).append(waiting)
    return list(groups.items())
