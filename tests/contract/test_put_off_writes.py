"""SQLite's writer: what nobody waits for goes to its thread with what somebody does wait for."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.database import Transaction
from storage.sqlite import SIZES, SqliteDatabase, open_sqlite

pytestmark = pytest.mark.sqlite_alone


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_sqlite(tmp_path / "klingel.db") as database:
        async with database.transaction() as tx:
            await tx.run("insert_account", id="acc_1", name="one", created_at=0)
        yield database


def keys(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Sessions that have ended, for there is hardly less to a row than to theirs."""
    return [{"nonce": f"{number:05}", "ends_at": number} for number in numbers]


async def end(tx: Transaction, numbers: Sequence[int]) -> None:
    await tx.run_many("end_session", keys(numbers))


async def ended(database: SqliteDatabase) -> list[tuple[str, int]]:
    rows = await database._writer.execute_fetchall("select nonce, ends_at from ended_sessions order by nonce")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 17, max(SIZES), 2 * max(SIZES) + 23])
async def test_as_many_rows_are_written_as_were_given(database: SqliteDatabase, number: int) -> None:
    """In statements of several sizes, which fit together."""
    async with database.transaction() as tx:
        await end(tx, range(number))
    assert await ended(database) == [(f"{each:05}", each) for each in range(number)]


async def test_what_was_put_off_is_there_for_whoever_reads_next(database: SqliteDatabase) -> None:
    async with database.transaction() as tx:
        await end(tx, range(5))
        assert await tx.value("has_session_ended", nonce="00004") == 1
        assert await tx.value("has_session_ended", nonce="00005") == 0


async def test_it_is_done_in_the_order_in_which_it_was_asked_for(database: SqliteDatabase) -> None:
    """Here each step would fail before the one ahead of it."""
    account = {"id": "acc_2", "name": "two", "created_at": 0}
    async with database.transaction() as tx:
        await tx.run_many("insert_account", [account])
        with pytest.raises(sqlite3.IntegrityError):
            async with tx.savepoint():
                await tx.run_many("insert_account", [account])
        await end(tx, [1])
    assert await ended(database) == [("00001", 1)]


async def test_what_fails_is_raised_by_the_commit_at_the_latest_and_nothing_is_stored(
    database: SqliteDatabase,
) -> None:
    heard: list[str] = []
    with pytest.raises(sqlite3.IntegrityError):
        async with database.transaction() as tx:
            tx.on_commit(lambda: heard.append("committed"))
            tx.on_rollback(lambda: heard.append("undone"))
            await end(tx, [1, 2])
            await tx.run_many("insert_account", [{"id": "acc_1", "name": "again", "created_at": 0}])
            heard.append("put off")
    assert heard == ["put off", "undone"]
    assert await ended(database) == []
    async with database.transaction() as tx:  # and the connection is as good as before
        await end(tx, [3])
    assert await ended(database) == [("00003", 3)]


async def test_what_is_put_off_in_a_savepoint_is_undone_with_it(database: SqliteDatabase) -> None:
    async with database.transaction() as tx:
        await end(tx, [1])
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                await end(tx, [2])
                raise ZeroDivisionError
        await end(tx, [3])
    assert await ended(database) == [("00001", 1), ("00003", 3)]
