"""`service.batching` on a real SQLite file: many callers, one commit, and nobody suffers for a neighbour."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from service.batching import LARGEST_BATCH, Batcher
from service.domain.errors import Conflict, KlingelError, StorageUnavailable, Unavailable
from storage.database import Transaction
from storage.sqlite import SqliteDatabase, open_sqlite

Apply = Callable[[Transaction, Sequence[str]], Awaitable[Sequence[str | KlingelError]]]


@dataclass
class Desk:
    """A batcher at work, with accounts as the things to write: their names are unique."""

    batcher: Batcher
    database: SqliteDatabase
    path: Path
    sizes: list[int] = field(default_factory=list)  # of the batches so far
    open: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[str] = field(default_factory=list)  # by on_commit

    async def hold(self, tx: Transaction, items: Sequence[None]) -> list[None]:
        """Occupies the writer until the desk opens."""
        self.entered.set()
        await self.open.wait()
        return [None] * len(items)

    async def store(self, tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        for name in names:
            await tx.run("insert_account", id=f"acc_{name}", name=name, created_at=0)
            tx.on_commit(lambda name=name: self.heard.append(name))  # type: ignore[misc]
        return [f"stored {name}" for name in names]

    async def together(self, apply: Apply, *names: str) -> list[str | BaseException]:
        """All of them in one batch: they gather while another one is being written."""
        held = asyncio.create_task(self.batcher.run(self.hold, None))
        await self.entered.wait()
        asked = [asyncio.create_task(self.batcher.run(apply, name)) for name in names]
        await wait_all_tasks_blocked()
        self.open.set()
        await held
        return await asyncio.gather(*asked, return_exceptions=True)  # type: ignore[return-value]

    def stored(self) -> set[str]:
        """As another process would see it."""
        with sqlite3.connect(self.path) as connection:
            names = {name for (name,) in connection.execute("select name from accounts")}
        connection.close()
        return names


@asynccontextmanager
async def working(path: Path) -> AsyncIterator[Desk]:
    sizes: list[int] = []
    async with open_sqlite(path) as database:
        batcher = Batcher(database, observe=lambda size, _: sizes.append(size))
        async with batcher.running():
            yield Desk(batcher, database, path, sizes)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with working(tmp_path / "klingel.db") as desk:
        yield desk


async def test_a_result_means_that_it_is_on_disk(desk: Desk) -> None:
    assert await desk.batcher.run(desk.store, "a") == "stored a"
    assert desk.stored() == {"a"}
    assert desk.heard == ["a"]


async def test_what_gathers_during_one_commit_shares_the_next(desk: Desk) -> None:
    names = [f"n{number}" for number in range(50)]
    await desk.together(desk.store, *names)
    assert desk.sizes == [1, 50]
    assert desk.stored() == set(names)


async def test_what_has_arrived_at_a_socket_when_a_batch_is_taken_goes_along(desk: Desk) -> None:
    loop = asyncio.get_running_loop()
    arrived: list[asyncio.Task[str]] = []
    ours, theirs = socket.socketpair()

    def accept() -> None:
        loop.remove_reader(ours)
        arrived.append(asyncio.create_task(desk.batcher.run(desk.store, "second")))

    with ours, theirs:
        loop.add_reader(ours, accept)
        first = asyncio.create_task(desk.batcher.run(desk.store, "first"))
        theirs.send(b"a request")
        await first
        await asyncio.gather(*arrived)
    assert desk.sizes == [2]


async def test_each_caller_gets_its_own_result(desk: Desk) -> None:
    assert await desk.together(desk.store, "a", "b", "c") == ["stored a", "stored b", "stored c"]


async def test_work_that_goes_alone_shares_the_commit_and_is_given_its_result_or_its_error(
    desk: Desk,
) -> None:
    async def store(tx: Transaction) -> str:
        [stored] = await desk.store(tx, ["b"])
        return str(stored)

    async def refuse(_tx: Transaction) -> str | KlingelError:
        return Conflict("no")

    held = asyncio.create_task(desk.batcher.run(desk.hold, None))
    await desk.entered.wait()
    asked: list[asyncio.Task[str]] = [
        asyncio.create_task(desk.batcher.run(desk.store, "a")),
        asyncio.create_task(desk.batcher.alone(store)),
        asyncio.create_task(desk.batcher.alone(refuse)),
    ]
    await wait_all_tasks_blocked()
    assert desk.batcher.waiting_kinds() == ["store", "store", "refuse"]
    desk.open.set()
    await held
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert results[:2] == ["stored a", "stored b"]
    assert isinstance(results[2], Conflict)
    assert desk.sizes == [1, 3]
    assert desk.stored() == {"a", "b"}


async def test_a_batch_has_an_upper_bound_and_the_rest_comes_next(desk: Desk) -> None:
    await desk.together(desk.store, *(f"n{number}" for number in range(LARGEST_BATCH + 7)))
    assert desk.sizes == [1, LARGEST_BATCH, 7]


async def test_one_bad_item_fails_alone_and_its_neighbours_are_stored(desk: Desk) -> None:
    await desk.batcher.run(desk.store, "taken")
    before, bad, after = await desk.together(desk.store, "a", "taken", "b")
    assert (before, after) == ("stored a", "stored b")
    assert isinstance(bad, sqlite3.IntegrityError)
    assert desk.stored() == {"taken", "a", "b"}
    assert desk.sizes == [1, 1, 3]


async def test_a_batch_is_written_apart_only_where_somebody_is_bad(desk: Desk) -> None:
    """Each time that it is written again, all that was done before is undone."""
    tried: list[list[str]] = []

    async def store(tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        tried.append(list(names))
        return await desk.store(tx, names)

    assert await desk.together(store, "a", "b") == ["stored a", "stored b"]
    assert tried == [["a", "b"]]
    tried.clear()
    desk.entered.clear()
    desk.open.clear()
    await desk.together(store, "c", "a", "d")
    assert tried == [["c", "a", "d"], ["c", "a", "d"], ["c"], ["a"], ["d"]]
    assert desk.stored() == {"a", "b", "c", "d"}
    assert desk.heard == ["a", "b", "c", "d"]


async def test_what_was_to_follow_the_commit_of_an_undone_item_does_not(desk: Desk) -> None:
    await desk.batcher.run(desk.store, "taken")
    desk.heard.clear()
    await desk.together(desk.store, "a", "taken", "b")
    assert desk.heard == ["a", "b"]


async def test_a_fault_in_what_follows_a_commit_fails_nobody(desk: Desk) -> None:
    """It is on disk: whoever is told otherwise does it again."""

    async def store(tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        tx.on_commit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        return await desk.store(tx, names)

    assert await desk.together(store, "a", "b") == ["stored a", "stored b"]
    assert desk.heard == ["a", "b"]
    assert desk.stored() == {"a", "b"}


async def test_an_error_given_as_a_result_fails_that_item_alone(desk: Desk) -> None:
    async def choose(tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        good = await desk.store(tx, [name for name in names if name != "bad"])
        return [Conflict("no") if name == "bad" else good.pop(0) for name in names]

    before, bad, after = await desk.together(choose, "a", "bad", "b")
    assert (before, after) == ("stored a", "stored b")
    assert isinstance(bad, Conflict)
    assert desk.stored() == {"a", "b"}


async def test_the_failure_of_one_kind_of_write_does_not_touch_another_kind(desk: Desk) -> None:
    async def broken(tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        await desk.store(tx, [f"half-{name}" for name in names])
        raise ZeroDivisionError

    held = asyncio.create_task(desk.batcher.run(desk.hold, None))
    await desk.entered.wait()
    good = asyncio.create_task(desk.batcher.run(desk.store, "a"))
    bad = asyncio.create_task(desk.batcher.run(broken, "b"))
    await wait_all_tasks_blocked()
    desk.open.set()
    _, stored, failed = await asyncio.gather(held, good, bad, return_exceptions=True)
    assert stored == "stored a"
    assert isinstance(failed, ZeroDivisionError)
    assert desk.stored() == {"a"}
    assert desk.sizes == [1, 2]


async def test_a_write_that_forgets_an_item_fails_instead_of_mixing_up_results(desk: Desk) -> None:
    async def forgetful(tx: Transaction, names: Sequence[str]) -> list[str | KlingelError]:
        return (await desk.store(tx, names))[1:]

    [failed] = await desk.together(forgetful, "a")
    assert isinstance(failed, ValueError)
    assert desk.stored() == set()


async def test_a_caller_that_goes_away_does_not_stop_its_write(desk: Desk) -> None:
    held = asyncio.create_task(desk.batcher.run(desk.hold, None))
    await desk.entered.wait()
    gone = asyncio.create_task(desk.batcher.run(desk.store, "a"))
    stays = asyncio.create_task(desk.batcher.run(desk.store, "b"))
    await wait_all_tasks_blocked()
    gone.cancel()
    desk.open.set()
    assert await stays == "stored b"
    await held
    assert gone.cancelled()
    assert desk.stored() == {"a", "b"}


async def test_a_caller_that_goes_away_from_a_write_that_fails_leaves_nothing_behind(desk: Desk) -> None:
    await desk.batcher.run(desk.store, "taken")
    held = asyncio.create_task(desk.batcher.run(desk.hold, None))
    await desk.entered.wait()
    gone = asyncio.create_task(desk.batcher.run(desk.store, "taken"))
    await wait_all_tasks_blocked()
    gone.cancel()
    desk.open.set()
    await held
    assert await desk.batcher.run(desk.store, "next") == "stored next"


async def test_the_trouble_of_the_disk_is_everybodys_and_passes(desk: Desk) -> None:
    await desk.database._writer.execute("pragma query_only = on")
    asked = [desk.batcher.run(desk.store, name) for name in "ab"]
    failed = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in failed] == [StorageUnavailable, StorageUnavailable]
    assert desk.heard == []
    assert desk.batcher.alive
    await desk.database._writer.execute("pragma query_only = off")
    assert await desk.batcher.run(desk.store, "a") == "stored a"


async def test_a_disk_that_fills_up_in_the_middle_of_a_batch_stores_nothing_of_it(desk: Desk) -> None:
    [[pages]] = await desk.database._writer.execute_fetchall("pragma page_count")
    await desk.database._writer.execute(f"pragma max_page_count = {pages + 4}")
    names = [f"{number:04}" + "x" * 500 for number in range(100)]
    failed = await desk.together(desk.store, *names)
    assert {type(one) for one in failed} == {StorageUnavailable}
    assert desk.stored() == set()
    assert await desk.batcher.run(desk.store, "small") == "stored small"


async def test_closing_writes_what_was_asked_for_by_then(tmp_path: Path) -> None:
    path = tmp_path / "klingel.db"
    async with working(path) as desk:
        asked = [asyncio.create_task(desk.batcher.run(desk.store, name)) for name in "abc"]
        await checkpoint()  # they have asked; nothing is written yet
        assert desk.stored() == set()
    assert await asyncio.gather(*asked) == ["stored a", "stored b", "stored c"]
    assert desk.stored() == {"a", "b", "c"}


async def test_closing_ends_also_when_nothing_was_ever_asked(tmp_path: Path) -> None:
    async with working(tmp_path / "klingel.db") as desk:
        assert desk.batcher.alive
    assert not desk.batcher.alive


async def test_after_closing_callers_are_sent_away(tmp_path: Path) -> None:
    async with working(tmp_path / "klingel.db") as desk:
        pass
    with pytest.raises(Unavailable, match="shutting down"):
        await desk.batcher.run(desk.store, "late")
