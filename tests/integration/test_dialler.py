"""The guarded way out, on real sockets: who is dialled, what is read, and what a hostile server cannot do."""

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from service import network
from service.network import Dialler, Guard, Refused, open_dialler

LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8")])
DRIP_S = 0.02

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def closed(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(Guard()) as dialler:
        yield dialler


@pytest.fixture
async def opened(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(LOOPBACK) as dialler:
        yield dialler


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A server that reads one request and then does what it likes."""
    connections: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()


async def post(dialler: Dialler, url: str, *, deadline: float = 5, limit: int = 1024) -> network.Answer:
    async with asyncio.timeout(deadline):
        return await dialler.post(
            url, body=b"{}", headers={"content-type": "application/json"}, read_limit=limit
        )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0177.1", "017700000001",
        "localhost", "localhost.", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]",
        "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "0", "0.0.0.0", "[::]", "127.0.0.1.", "%31%32%37.0.0.1",
    ],
)  # fmt: skip
async def test_no_spelling_of_this_machine_is_dialled(closed: Dialler, host: str) -> None:
    reached: list[bool] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(True)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serving(serve) as port:
        with pytest.raises((Refused, aiohttp.ClientConnectorDNSError, aiohttp.InvalidURL)):
            await post(closed, f"http://{host}:{port}/")
    assert reached == []


async def test_a_redirect_is_an_answer_and_not_followed(opened: Dialler) -> None:
    calls: list[bool] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(True)
        writer.write(b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")

    async with serving(serve) as port:
        assert (await post(opened, f"http://127.0.0.1:{port}/")).status == 307
    assert calls == [True]


async def test_proxy_variables_are_not_read(opened: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1/")

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as port:
        assert (await post(opened, f"http://127.0.0.1:{port}/")).status == 204


async def test_cookies_are_not_kept(opened: Dialler) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await post(opened, url)
        await post(opened, url)
    assert len(heads) == 2
    assert all(b"cookie" not in head.lower() for head in heads)


async def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_dialled(
    opened: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS that changes between two look-ups: there is no second one."""
    lookups: list[str] = []
    real = socket.getaddrinfo

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    def changing(host: str, port: int, **more: int) -> object:
        if host != "rebinding.example":
            return real(host, port, **more)
        lookups.append(host)
        address = "127.0.0.1" if len(lookups) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    async with serving(serve) as port:
        assert (await post(opened, f"http://rebinding.example:{port}/")).status == 204
        assert lookups == ["rebinding.example"]
        with pytest.raises(Refused, match=r"169\.254\.169\.254"):
            await post(opened, f"http://rebinding.example:{port}/")


async def test_one_bad_address_among_good_ones_refuses_the_host(
    closed: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(host: str, port: int, **_more: int) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        await post(closed, "http://mixed.example/")


async def test_a_gzip_bomb_is_not_unpacked_and_not_read_to_its_end(opened: Dialler) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
        )
        await writer.drain()

    async with serving(serve) as port:
        answer = await post(opened, f"http://127.0.0.1:{port}/")
    assert len(answer.body) == 1024


async def test_an_endless_body_is_read_to_the_limit_only(opened: Dialler) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(serve) as port:
        assert len((await post(opened, f"http://127.0.0.1:{port}/")).body) == 1024


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"a" * 100], ids=["many fields", "one field"])
async def test_an_endless_head_is_refused(opened: Dialler, piece: bytes) -> None:
    sent = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"" if piece.endswith(b"\n") else b"a: "))
        while sent < 64 * 1024 * 1024:
            writer.write(piece * 100)
            sent += len(piece) * 100
            await writer.drain()

    async with serving(serve) as port:
        with pytest.raises(aiohttp.ClientError):
            await post(opened, f"http://127.0.0.1:{port}/", deadline=20)
    assert sent < 32 * 1024 * 1024  # what sockets buffer


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\na: ", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"]
)
async def test_a_drip_ends_at_the_deadline(opened: Dialler, start: bytes) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(DRIP_S)

    async with serving(serve) as port:
        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            await post(opened, f"http://127.0.0.1:{port}/", deadline=0.3)
