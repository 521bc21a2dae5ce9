"""The way to the provider, on real sockets: what was not sent is told apart from what may have been."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from handlers.providers.connections import MOST_CONNECTIONS, Transport
from tests.integration.hostile import without_tls
from tests.ports import free_port
from tests.servers import start_server

pytestmark = pytest.mark.sqlite_alone

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
LARGE = 2 * 1024 * 1024


@dataclass
class Host:
    """Somewhere to send requests to, and the heads of those that came."""

    url: str = ""
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    body: bytes = b""


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Host]:
    host = Host()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                host.heads.append(head.lower())
                await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await start_server(handle, "127.0.0.1", 0, limit=2 * LARGE)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        await server.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Transport(), trust_env=False, timeout=60) as one:
        yield one


async def answering(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


async def hanging_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def breaking_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER[:-1])
    writer.close()


async def babbling(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"what?\r\n\r\n")


async def test_a_request_goes_out_as_it_was_made_and_its_connection_is_used_again(
    client: httpx.AsyncClient,
) -> None:
    async with serving(answering) as host:
        for _ in range(3):
            answer = await client.post(
                f"{host.url}/a%2Fb?c=d%20e", headers={"x-one": "1"}, timeout=httpx.Timeout(60)
            )
            assert (answer.status_code, answer.json()) == (200, {})
    assert host.connections == 1
    assert host.heads[0].startswith("post /a%2fb?c=d%20e http/1.1\r\n")
    assert host.heads[0].count("\r\nhost: ") == 1
    assert "\r\nx-one: 1\r\n" in host.heads[0]


async def test_what_comes_in_pieces_is_sent_in_pieces_under_its_own_length(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // 65536):
            yield b"x" * 65536

    async def taking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.body = await reader.readexactly(LARGE)
        writer.write(ANSWER)

    async with serving(taking) as host:
        await client.post(host.url, content=pieces(), headers={"content-length": str(LARGE)})
    assert host.body == b"x" * LARGE
    assert f"content-length: {LARGE}\r\n" in host.heads[0]
    assert "transfer-encoding" not in host.heads[0]


async def test_a_closed_port_is_not_reached_and_its_address_not_told(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError, match=r"^Connection refused$"):
        await client.post(f"http://127.0.0.1:{free_port()}")


async def test_a_name_that_nobody_has_is_not_reached(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError, match="could not be resolved"):
        await client.post("http://nobody.invalid/")


async def test_a_handshake_that_fails_is_not_reached(client: httpx.AsyncClient) -> None:
    async with without_tls() as url:
        with pytest.raises(httpx.ConnectError, match="the TLS handshake failed"):
            await client.post(url)


async def test_a_handshake_that_never_ends_is_not_reached(client: httpx.AsyncClient) -> None:
    over = asyncio.Event()

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        with pytest.raises(httpx.ConnectTimeout):
            await client.post(
                f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
                timeout=httpx.Timeout(5, connect=0.02, pool=0.02),
            )
        over.set()


async def test_who_finds_no_connection_free_in_time_has_sent_nothing(client: httpx.AsyncClient) -> None:
    all_busy, over = asyncio.Event(), asyncio.Event()

    async def thinking(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(host.heads) == MOST_CONNECTIONS:
            all_busy.set()
        await over.wait()
        writer.write(ANSWER)

    async with serving(thinking) as host, asyncio.TaskGroup() as busy:
        for _ in range(MOST_CONNECTIONS):
            busy.create_task(client.post(host.url))
        await all_busy.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await client.post(host.url, timeout=httpx.Timeout(5, connect=0.01, pool=0.01))
        assert len(host.heads) == MOST_CONNECTIONS
        over.set()


@pytest.mark.parametrize("serve", [hanging_up, breaking_off, babbling])
async def test_whatever_breaks_after_that_may_have_been_taken(
    client: httpx.AsyncClient, serve: Serve
) -> None:
    """And is not sent a second time."""
    async with serving(serve) as host:
        with pytest.raises(httpx.ReadError):
            await client.post(host.url)
    assert len(host.heads) == 1


async def test_a_kept_connection_that_breaks_under_a_create_is_no_reason_to_send_it_again(
    client: httpx.AsyncClient,
) -> None:
    async def once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(host.heads) == 1:
            writer.write(ANSWER)
        else:
            writer.close()

    async with serving(once) as host:
        await client.post(host.url)
        with pytest.raises(httpx.ReadError):
            await client.post(host.url)
    assert (len(host.heads), host.connections) == (2, 1)


async def test_silence_is_a_read_timeout(client: httpx.AsyncClient) -> None:
    over = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with serving(silent) as host:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(host.url, timeout=httpx.Timeout(5, read=0.02))
        over.set()


async def test_redirects_are_answers_and_what_was_packed_is_unpacked(client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b"{}")

    async def redirecting(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
        writer.write(head.encode() + packed)

    async with serving(redirecting) as host:
        answer = await client.post(host.url)
    assert (answer.status_code, answer.headers["location"], answer.json()) == (302, "/", {})


async def test_what_was_not_read_to_its_end_ends_with_its_connection(client: httpx.AsyncClient) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
        await reader.read()
        gone.set()

    async with serving(endless) as host:
        async with client.stream("POST", host.url) as answer:
            assert answer.status_code == 200
        await gone.wait()
