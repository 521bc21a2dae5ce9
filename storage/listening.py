"""What other processes say in PostgreSQL, heard over a connection of its own that is looked after."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from asyncpg.connection import Connection

from storage.postgres import CONNECT_S, prepare

CHANNEL: Final = "klingel"
CHECKED_EVERY: Final = timedelta(seconds=5)  # a connection can be cut without a word
ANSWERS_WITHIN: Final = timedelta(seconds=5)
FIRST_PAUSE_S: Final = 0.1  # doubles with each try in a row that fails
LONGEST_PAUSE_S: Final = 5.0

log = structlog.get_logger()


@asynccontextmanager
async def listening(
    url: str, heard: Callable[[str], None], missed: Callable[[], None]
) -> AsyncIterator[None]:
    """Until the block ends. The connection is made again as often as it breaks.

    Args:
        heard: called with each notice.
        missed: called each time that it can hear, after a time when it could not: also at the beginning.
    """
    task = asyncio.create_task(_listen(url, heard, missed), name="notices")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(url: str, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
    pause = FIRST_PAUSE_S
    while True:
        try:
            connection = await asyncpg.connect(
                url,
                timeout=CONNECT_S,
                command_timeout=ANSWERS_WITHIN.total_seconds(),
                server_settings={"application_name": "klingel notices"},
            )
            pause = FIRST_PAUSE_S
            try:
                await prepare(connection)
                await _hear(connection, heard, missed)
            finally:
                connection.terminate()  # there is nothing on it to be lost
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("notices.not_heard", reason=str(error) or type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


async def _hear(connection: Connection, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
    """Until the connection breaks."""
    broken = asyncio.Event()
    connection.add_termination_listener(lambda _: broken.set())
    await connection.add_listener(CHANNEL, partial(_pass_on, heard))
    missed()
    while not broken.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECKED_EVERY.total_seconds()):
                await broken.wait()
        if not broken.is_set():
            await connection.execute("select 1")


def _pass_on(
    heard: Callable[[str], None], _connection: Any, _server_process: int, _channel: str, notice: Any
) -> None:
    heard(notice)
