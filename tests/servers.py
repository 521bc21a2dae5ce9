"""Servers of tests, byte by byte, that end with all their connections."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


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

    def close(self) -> None:
        self._is_closed = True
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def wait_closed(self) -> None:
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()


async def start_server(handle: Handle, host: str, port: int, **options: Any) -> Server:
    server = Server(handle)
    await server.start(host, port, **options)
    return server
