"""Servers of tests, byte by byte or of HTTP, that end with all their connections."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_BODY = 64 * 1024 * 1024


async def accept_no_more(listening: Iterable[socket.socket]) -> None:
    """Before their server is closed: one that Python 3.11 closes in the very moment in which it has accepted a connection
    leaves that one open and to nobody (`asyncio.base_events.Server._attach`).
    """
    for each in listening:
        asyncio.get_running_loop().remove_reader(each)
    for _ in range(2):  # it is given its transport, then its protocol
        await asyncio.sleep(0)


class Server:
    """As asyncio's, whose own connections outlive it until Python 3.12: one that no handler has closed is then found, and
    complained of, in the middle of another test. Use `start_server`.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server
        self._is_closed = False

    async def start(self, host: str, port: int, **options: Any) -> None:
        self._server = await asyncio.start_server(self._take, host, port, **options)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return self._server.sockets

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._is_closed:  # it was accepted just before
            writer.transport.abort()
            return
        await self._handle(reader, writer)

    async def close(self) -> None:
        await accept_no_more(self.sockets)
        self._is_closed = True
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def start_server(handle: Handle, host: str, port: int, **options: Any) -> Server:
    server = Server(handle)
    await server.start(host, port, **options)
    return server


@asynccontextmanager
async def running_app(answer: Answer, *, largest_body: int = LARGEST_BODY) -> AsyncIterator[str]:
    """Its URL, without a slash at the end; every request is answered by `answer`."""
    app = web.Application(client_max_size=largest_body)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        await accept_no_more([listening])
        await runner.cleanup()
