"""SQLite's write-ahead log goes into the database file by a connection of its own: no commit waits for it."""

import asyncio
import math
import sqlite3
from pathlib import Path
from typing import Final

import aiosqlite
import structlog

LOG_BYTES: Final = 16 * 1024 * 1024  # of the log, before it is moved; written over, it grows no further
FEW_PAGES: Final = 256  # so many are moved in the time of some commits

log = structlog.get_logger()


class Checkpoints:
    """The writer's connection must have `wal_autocheckpoint = 0`, and `journal_size_limit` as given here."""

    def __init__(
        self,
        connection: aiosqlite.Connection,
        wal: Path,
        *,
        turn: asyncio.Lock,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        """
        Args:
            wal: the file of the log.
            turn: held by whoever writes.
        """
        self._connection = connection
        self._wal = wal
        self._turn = turn
        self._log_bytes = log_bytes
        self._due_at = log_bytes  # bytes
        self._moving: asyncio.Task[None] | None = None

    def look(self) -> None:
        """After each commit: whether it is time."""
        if self._moving is None and self._size() > self._due_at:
            self._moving = asyncio.create_task(self._move(), name="checkpoint")

    async def rest(self) -> None:
        """Until what has begun is done."""
        if self._moving is not None:
            await self._moving

    def _size(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    async def _move(self) -> None:
        is_whole = False
        try:
            await self._move_most()
            async with self._turn:
                in_log, moved = await self._checkpoint()  # the rest: with the next commit the log begins anew
                is_whole = in_log == moved
        except sqlite3.Error as error:
            # The commits are on disk, in the log. It grows until this works again.
            log.warning("database.checkpoint_failed", reason=str(error))
        finally:
            # Somebody who reads what was there long ago, or a full disk, is not asked again after each commit.
            self._due_at = self._log_bytes if is_whole else self._size() + self._log_bytes
            self._moving = None

    async def _move_most(self) -> None:
        """Beside those who write. What they have written meanwhile is moved as well, and so on, as long as it is less each
        time: it may have taken a second, where what is old is forgotten all over the file.
        """
        pages, moved_before = math.inf, 0
        while True:
            in_log, moved = await self._checkpoint()
            pages_before, pages = pages, in_log - moved_before
            if pages <= FEW_PAGES or pages > pages_before / 2:
                return
            moved_before = moved

    async def _checkpoint(self) -> tuple[int, int]:
        """Pages that were in the log when it began, and those that are in the database now."""
        rows = await self._connection.execute_fetchall("pragma wal_checkpoint(passive)")
        [(_, in_log, moved)] = [tuple(row) for row in rows]
        return in_log, moved
