"""The wire between Klingel and PostgreSQL, which breaks at the worst moment: once a commit is done, before it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.servers import start_server

COMMIT = b"commit\0"


class Wire:
    """Use `running`."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of the database at its far end.
        """
        self._to = urlsplit(url)
        self._about: bytes | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()
        self._stalls = False
        self.lost = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Wire"]:
        server = await start_server(self._carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user, _, _ = self._to.netloc.rpartition("@")
        self.url = self._to._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        try:
            yield self
        finally:
            await server.close()
            for carrying in self._open:
                carrying.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def lose_commit(self, about: str) -> None:
        """The answer to the next one by a connection over which this has been said in the same transaction."""
        self._about = about.encode()
        self._stalls = False
        self.lost.clear()

    def stall_commit(self, about: str) -> None:
        """The same, and the answer comes after all: with `resume`."""
        self.lose_commit(about)
        self._stalls = True
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def cut(self) -> None:
        """The answer that was stalled is lost after all."""
        self._stalls = False
        self._resumed.set()

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        carrying = asyncio.current_task()
        assert carrying is not None
        self._open.add(carrying)
        carrying.add_done_callback(self._open.discard)
        far, to_far = await asyncio.open_connection(self._to.hostname, self._to.port)
        loses = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(near, to_far, loses))
                both.create_task(self._down(far, to_near, loses))
        except* ConnectionError:  # whoever leaves may leave something unread
            pass
        finally:
            to_far.close()
            to_near.transport.abort()

    async def _up(
        self, near: asyncio.StreamReader, to_far: asyncio.StreamWriter, loses: asyncio.Event
    ) -> None:
        said = b""
        while words := await near.read(65536):
            said += words
            if COMMIT in said:
                if self._about is not None and self._about in said:
                    self._about = None
                    loses.set()
                said = b""
            to_far.write(words)
            await to_far.drain()
        to_far.close()

    async def _down(
        self, far: asyncio.StreamReader, to_near: asyncio.StreamWriter, loses: asyncio.Event
    ) -> None:
        while words := await far.read(65536):
            if loses.is_set():
                self.lost.set()
                if self._stalls:
                    await self._resumed.wait()
                if not self._stalls:
                    to_near.transport.abort()
                    return
                loses.clear()
            to_near.write(words)
            await to_near.drain()
        to_near.close()
