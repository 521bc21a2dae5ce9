"""`storage.checkpoints` on a real file: the log is moved beside the commits, and does not grow without bound."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import aiosqlite
import pytest
from structlog.testing import capture_logs

from storage.checkpoints import FEW_PAGES, Checkpoints

pytestmark = pytest.mark.sqlite_alone

LOG_BYTES = 64 * 1024
PAGE = 4096


class Pass(NamedTuple):
    """Of a checkpoint.

    Args:
        in_turn: whether those who write waited for it.
        moved: pages of the log that were in the database after it.
    """

    in_turn: bool
    moved: int


class Desk:
    """A writer and its checkpoints."""

    def __init__(
        self, writer: aiosqlite.Connection, other: aiosqlite.Connection, path: Path, log_bytes: int
    ) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()
        self._path = path
        self.wal = path.with_name(path.name + "-wal")
        self.checkpoints = Checkpoints(other, self.wal, turn=self._turn, log_bytes=log_bytes)

    async def write(self, number: int) -> None:
        """So many commits of some kilobytes each; what is to be moved is moved before the next."""
        for _ in range(number):
            async with self._turn:
                await self._writer.execute("insert into t (text) values (?)", ["x" * 5000])
            self.checkpoints.look()
            await self.checkpoints.rest()

    async def passes_of_a_move(self, *, written_during_the_first: int) -> list[Pass]:
        """Bytes are written as where the move takes long, for it goes all over a large file."""
        move = self.checkpoints._connection.execute_fetchall
        passes: list[Pass] = []

        async def watched(text: str) -> Iterable[sqlite3.Row]:
            found = await move(text)
            [(_, _, moved)] = [tuple(row) for row in found]
            if not passes:
                await self._writer.execute(
                    "insert into t (text) values (?)", ["x" * written_during_the_first]
                )
            passes.append(Pass(self._turn.locked(), moved))
            return found

        self.checkpoints._connection.execute_fetchall = watched  # type: ignore[method-assign,assignment]
        while not passes:
            await self.write(1)
        return passes

    def log_bytes(self) -> int:
        return self.wal.stat().st_size

    @contextmanager
    def reader_of_now(self) -> Iterator[sqlite3.Connection]:
        """Reads what is there now, whatever is written."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("begin")
            connection.execute("select count(*) from t").fetchall()
            yield connection


@asynccontextmanager
async def opened(path: Path, log_bytes: int = LOG_BYTES) -> AsyncIterator[Desk]:
    async with (
        aiosqlite.connect(path, isolation_level=None) as writer,
        aiosqlite.connect(path, isolation_level=None) as other,
    ):
        await writer.executescript(
            "pragma journal_mode = wal; pragma wal_autocheckpoint = 0;"
            f"pragma journal_size_limit = {log_bytes}; create table t (text text)"
        )
        yield Desk(writer, other, path, log_bytes)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened(tmp_path / "some.db") as desk:
        yield desk


def without_log(path: Path, folder: Path) -> int:
    """The rows that are in the database file itself."""
    copy = folder / "copy.db"
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        [(number,)] = connection.execute("select count(*) from t")
    return int(number)


async def test_a_small_log_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    before = (tmp_path / "some.db").read_bytes()
    await desk.write(3)
    assert (tmp_path / "some.db").read_bytes() == before


async def test_a_grown_log_is_moved_into_the_database_and_written_over(desk: Desk, tmp_path: Path) -> None:
    sizes = []
    for _ in range(20):
        await desk.write(10)
        sizes.append(desk.log_bytes())
    assert max(sizes) < 2 * LOG_BYTES
    assert without_log(tmp_path / "some.db", tmp_path) > 150


async def test_what_was_written_while_the_log_was_moved_is_moved_before_anybody_has_to_wait(
    tmp_path: Path,
) -> None:
    log_bytes = 2 * FEW_PAGES * PAGE
    async with opened(tmp_path / "some.db", log_bytes=log_bytes) as desk:
        *beside, last = await desk.passes_of_a_move(written_during_the_first=2 * log_bytes)
    assert [one.in_turn for one in (*beside, last)] == [False] * len(beside) + [True]
    assert beside[-1].moved > 4 * FEW_PAGES
    assert last.moved - beside[-1].moved <= FEW_PAGES


async def test_somebody_who_reads_long_holds_it_up_only_while_he_reads(desk: Desk) -> None:
    await desk.write(5)
    with desk.reader_of_now() as reader:
        await desk.write(60)
        held_up = desk.log_bytes()
        assert held_up > 3 * LOG_BYTES
        assert reader.execute("select count(*) from t").fetchall() == [(5,)]
    await desk.write(60)
    assert desk.log_bytes() < held_up


async def test_a_checkpoint_that_fails_loses_nothing_and_is_made_later(desk: Desk, tmp_path: Path) -> None:
    """As on a full disk: here its connection is in the middle of something else, which SQLite refuses."""
    connection = desk.checkpoints._connection
    await connection.execute("begin")
    await connection.execute_fetchall("select * from t")
    with capture_logs() as logged:
        await desk.write(40)
    assert {line["event"] for line in logged} == {"database.checkpoint_failed"}
    held_up = desk.log_bytes()
    assert held_up > LOG_BYTES
    await connection.rollback()
    await desk.write(60)
    assert desk.log_bytes() < 2 * held_up
    assert without_log(tmp_path / "some.db", tmp_path) > 40
