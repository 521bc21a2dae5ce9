"""Where a provider keeps its outputs: an HTTP server that sends what a test says, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.integration.klingel import PATIENCE_S
from tests.servers import start_server


@dataclass
class Answer:
    """What one request gets, as it goes over the wire."""

    head: bytes
    body: bytes = b""
    gate: asyncio.Event | None = None  # the body waits for it
    hangs: bool = False  # after the body nothing comes, and the connection stays


def sends(body: bytes, status: str = "200 OK", **headers: str) -> Answer:
    """A file with its length, unless the headers say otherwise."""
    named = {"content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value)
    return Answer(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode(), body)


def chunked(*chunks: bytes, ends: bool = True) -> Answer:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return Answer(head, framed + (b"0\r\n\r\n" if ends else b""))


@dataclass
class Cdn:
    origin: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)  # by path; the last one goes on
    requests: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def at(self, path: str, *answers: Answer) -> str:
        """The URL of what lies there."""
        self.answers[path] = list(answers)
        return self.origin + path

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """The paths asked for, once they are as they should be."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: holds(self.requests))
        return self.requests

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ")[1].decode()
            async with self._changed:
                self.requests.append(target)
                self.heads.append(head)
                self._changed.notify_all()
            given = self.answers.get(target.partition("?")[0], [sends(b"", "404 Not Found")])
            answer = given.pop(0) if len(given) > 1 else given[0]
            writer.write(answer.head)
            await writer.drain()
            if answer.gate is not None:
                await answer.gate.wait()
            writer.write(answer.body)
            await writer.drain()
            if answer.hangs:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side had enough
        finally:
            writer.close()


@asynccontextmanager
async def running_cdn() -> AsyncIterator[Cdn]:
    cdn = Cdn()
    server = await start_server(cdn._serve, "127.0.0.1", 0)
    cdn.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cdn
    finally:
        await server.close()
