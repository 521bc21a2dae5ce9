"""`service.batching` on PostgreSQL: the server works on one batch while the next one is made ready."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service.batching import LEAST_BESIDE, Apply, Batcher
from service.domain.ids import LaneKey
from service.holdings import Holdings
from service.notices import Notices
from service.processes import Presence
from storage.database import Transaction
from storage.postgres import PostgresDatabase, open_postgres
from tests.postgres import PATIENCE_S, Databases
from tests.wire import Wire


@pytest.fixture
async def url(postgres: Databases) -> AsyncIterator[str]:
    taken = postgres.take()
    yield taken.url
    postgres.give_back(taken)


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    async with open_postgres(url) as database:
        yield database


@asynccontextmanager
async def batching(database: PostgresDatabase) -> AsyncIterator[Batcher]:
    batcher = Batcher(database, observe=lambda _number, _seconds: None)
    async with batcher.running(), asyncio.timeout(PATIENCE_S):
        yield batcher


class Steps:
    """Who was begun and ended, in order."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def kind(self, name: str, meeting: asyncio.Barrier | None = None) -> Apply[int, int]:
        async def apply(tx: Transaction, items: Sequence[int]) -> Sequence[int]:
            self.taken.append(f"{name} begins")
            if meeting is not None:
                await meeting.wait()
            await tx.value("count_dead")
            self.taken.append(f"{name} ends")
            return items

        return apply


async def all_of(batcher: Batcher, apply: Apply[int, int], number: int) -> list[int]:
    return await asyncio.gather(*(batcher.run(apply, item) for item in range(number)))


async def test_batches_of_a_kind_that_allows_it_are_written_at_the_same_time(
    database: PostgresDatabase,
) -> None:
    steps = Steps()
    kind = steps.kind("it", asyncio.Barrier(2))
    async with batching(database) as batcher:
        batcher.go_beside(kind, its_like=True)
        assert await all_of(batcher, kind, 2 * LEAST_BESIDE) == [*range(2 * LEAST_BESIDE)]
    assert steps.taken == ["it begins"] * 2 + ["it ends"] * 2


async def test_enough_that_come_while_a_batch_is_under_way_do_not_wait_for_it(
    database: PostgresDatabase,
) -> None:
    under_way, meeting = asyncio.Event(), asyncio.Barrier(2)

    async def meet(tx: Transaction, items: Sequence[int]) -> Sequence[int]:
        under_way.set()
        await meeting.wait()
        return items

    async with batching(database) as batcher:
        batcher.go_beside(meet, its_like=True)
        first = asyncio.create_task(batcher.run(meet, 0))
        await under_way.wait()
        assert await all_of(batcher, meet, LEAST_BESIDE) == [*range(LEAST_BESIDE)]
        await first


async def test_a_few_wait_for_the_batch_before_them(database: PostgresDatabase) -> None:
    steps = Steps()
    kind = steps.kind("it")
    async with batching(database) as batcher:
        batcher.go_beside(kind, its_like=True)
        await all_of(batcher, kind, LEAST_BESIDE + 3)
    assert steps.taken == ["it begins", "it ends"] * 2


async def test_a_kind_in_whose_order_something_lies_goes_beside_others_alone(
    database: PostgresDatabase,
) -> None:
    steps, meeting = Steps(), asyncio.Barrier(2)
    ordered, other = steps.kind("ordered"), steps.kind("other", meeting)
    meets = steps.kind("ordered too", meeting)
    async with batching(database) as batcher:
        for kind, its_like in ((ordered, False), (other, True), (meets, False)):
            batcher.go_beside(kind, its_like=its_like)
        await all_of(batcher, ordered, 2 * LEAST_BESIDE)
        assert steps.taken == ["ordered begins", "ordered ends"] * (len(steps.taken) // 2)
        await asyncio.gather(all_of(batcher, other, 1), all_of(batcher, meets, 1))


async def test_all_other_kinds_are_alone(database: PostgresDatabase) -> None:
    steps = Steps()
    kind, alone = steps.kind("it"), steps.kind("alone")
    async with batching(database) as batcher:
        batcher.go_beside(kind, its_like=True)
        many = 3 * LEAST_BESIDE
        await asyncio.gather(
            all_of(batcher, kind, many), all_of(batcher, alone, 1), all_of(batcher, kind, many)
        )
    begins = steps.taken.index("alone begins")
    assert steps.taken[begins + 1] == "alone ends"
    assert steps.taken[:begins].count("it begins") == steps.taken[:begins].count("it ends")


async def test_closing_waits_for_all_that_is_under_way(database: PostgresDatabase) -> None:
    under_way = asyncio.Barrier(3)
    kind = Steps().kind("it", under_way)
    async with batching(database) as batcher:
        batcher.go_beside(kind, its_like=True)
        asked = asyncio.create_task(all_of(batcher, kind, 2 * LEAST_BESIDE))
        await under_way.wait()
    assert await asked == [*range(2 * LEAST_BESIDE)]
    assert not batcher.alive


# Who is told


async def test_who_held_a_name_first_is_told_of_its_commit_first(url: str) -> None:
    """However long its connection takes to say so: streams get an account's events in the order of its log."""
    told: list[str] = []

    async def publish(database: PostgresDatabase, name: str) -> None:
        async with database.transaction() as tx:
            await tx.run("insert_account", id=f"acc_{name}", name=name, created_at=0)
            await tx.hold("events", ["acc_1"])
            tx.on_commit(lambda: told.append(name))

    async with Wire(url).running() as wire, open_postgres(wire.url) as database, asyncio.timeout(PATIENCE_S):
        wire.stall_commit("acc_first")
        first = asyncio.create_task(publish(database, "first"))
        await wire.lost.wait()
        second = asyncio.create_task(publish(database, "second"))
        async with database.reading() as reader:
            while await reader.one("account_by_name", name="second") is None:
                pass
            await reader.value("count_dead")  # by now its answer has come, too
        assert told == []
        wire.resume()
        await asyncio.gather(first, second)
    assert told == ["first", "second"]


async def test_who_has_let_a_name_go_is_waited_for_no_more(database: PostgresDatabase) -> None:
    told: list[str] = []

    async def publish(tx: Transaction, name: str) -> None:
        await tx.hold("events", ["acc_1"])
        tx.on_commit(lambda: told.append(name))

    async with asyncio.timeout(PATIENCE_S):
        async with database.transaction() as first:
            with pytest.raises(ZeroDivisionError):
                async with first.savepoint():
                    await publish(first, "never")
                    raise ZeroDivisionError
            async with database.transaction() as second:
                await publish(second, "second")
            await publish(first, "first")
    assert told == ["second", "first"]


# Lanes


async def until_somebody_waits(url: str, *, unless: "asyncio.Task[bool]") -> None:
    """For a lock."""
    connection = await asyncpg.connect(url)
    try:
        while not unless.done() and not await connection.fetchval(
            "select count(*) from pg_locks where not granted"
        ):
            pass
    finally:
        await connection.close()


async def test_a_lane_that_was_taken_in_vain_is_taken_by_who_wanted_it_meanwhile(
    database: PostgresDatabase, url: str
) -> None:
    lane = LaneKey("ep_1")

    async def take(holdings: Holdings) -> bool:
        async with database.transaction() as tx:
            return lane in await holdings.take(tx, [lane])

    async with batching(database) as batcher:
        presence = Presence(database, batcher, roles=["dispatch"])
        notices = Notices(lambda: presence.id)
        holdings = Holdings(presence, notices, batcher, sole=False, in_use=lambda _: True)
        async with presence.running():
            with pytest.raises(ZeroDivisionError):
                async with database.transaction() as tx:
                    assert await holdings.take(tx, [lane]) == {lane}
                    meanwhile = asyncio.create_task(take(holdings))
                    await until_somebody_waits(url, unless=meanwhile)
                    raise ZeroDivisionError
            assert await meanwhile
            async with database.reading() as reader:
                [row] = await reader.all("held_lanes", lanes=f'["{lane}"]', process_id=presence.id)
            assert row["lane"] == lane
