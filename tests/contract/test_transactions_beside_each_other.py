"""Transactions of one process at the same time, on PostgreSQL: who is told first, and who gets what another let go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service.batching import Batcher
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
            "select count(*) from pg_locks where not granted "
            "and pid in (select pid from pg_stat_activity where datname = current_database())"
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
