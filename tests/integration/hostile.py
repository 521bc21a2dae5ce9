"""Receivers as nobody wants them: one that drips, one that hangs, one that fails, one without end, one that bombs, one without TLS."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from tests.servers import start_server

DRIP_S: Final = 0.2
_BOMB: Final = gzip.compress(b"\0" * 20_000_000)

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def drips(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def fails(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops")
    await writer.drain()


async def never_ends(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()


async def bombs(writer: asyncio.StreamWriter) -> None:
    head = b"HTTP/1.1 500 Oops\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(_BOMB)
    writer.write(head + _BOMB)
    await writer.drain()


HOSTILE: Final = {"drips": drips, "hangs": hangs, "fails": fails, "never ends": never_ends, "bombs": bombs}


@asynccontextmanager
async def hostile_receivers() -> AsyncIterator[dict[str, str]]:
    """Their URLs, by what they do."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(_serving(serve)) for name, serve in HOSTILE.items()}


@asynccontextmanager
async def _serving(serve: Serve) -> AsyncIterator[str]:
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            handlers.discard(task)
            writer.transport.abort()

    server = await start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        await server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@asynccontextmanager
async def without_tls() -> AsyncIterator[str]:
    """The https URL of a host that answers in the clear."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
