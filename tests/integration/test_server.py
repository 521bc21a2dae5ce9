"""Slow, huge and endless requests on raw sockets: each is cut within its deadline, and nobody else notices."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from statistics import median
from typing import cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from service.doors.bodies import caller_known, read_body
from service.server import GuardedProtocol, Limits, Server, make_server

pytestmark = pytest.mark.sqlite_alone  # no database here

LIMITS = Limits(head_s=0.5, body_s=0.5, body_s_per_mib=0, stalled_s=0.5, connections=40, head_bytes=16 * 1024)
PATIENCE_S = 20
CLOSE = b"connection: close\r\n"
DRIP_S = 0.05  # an attacker's pace, well within the deadlines

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(request: Request) -> Response:
    return PlainTextResponse(await read_body(request, limit=1024 * 1024))


async def flood(request: Request) -> Response:
    return PlainTextResponse(b"x" * 64 * 1024 * 1024)


async def refuse(request: Request) -> Response:
    """Without a look at the body, as who has no key is refused."""
    return PlainTextResponse("no", status_code=401)


async def known(request: Request) -> Response:
    """Of somebody who shows a key, which the head has in it."""
    caller_known(request)
    return PlainTextResponse(await read_body(request))


async def crumb(request: Request) -> Response:
    """Of what the other side does not read, less than it takes for the writer to be told to wait."""
    return PlainTextResponse(b"x" * 20_000)


async def names(request: Request) -> Response:
    """Of the headers, once the body has ended, however large it is."""
    await read_body(request, limit=10**12)
    return PlainTextResponse(",".join(request.headers))


async def hold(request: Request) -> Response:
    """A stream that never ends by itself."""

    async def held() -> AsyncIterator[bytes]:
        try:
            yield b"held"
            while True:
                await asyncio.sleep(DRIP_S)
                yield b" "
        finally:
            request.app.state.noticed.release()

    return StreamingResponse(held())


async def pour(request: Request) -> Response:
    """More than a connection holds, to somebody who shows a key or to a stranger."""
    if "key" in request.headers:
        caller_known(request)

    async def poured() -> AsyncIterator[bytes]:
        yield b"x" * 64 * 1024 * 1024
        request.app.state.noticed.release()
        yield b"x"

    return StreamingResponse(poured())


ROUTES = [
    Route("/echo", echo, methods=["POST", "GET"]),
    Route("/crumb", crumb),
    Route("/flood", flood),
    Route("/refuse", refuse, methods=["POST"]),
    Route("/known", known, methods=["POST"]),
    Route("/names", names, methods=["POST"]),
    Route("/hold", hold),
    Route("/pour", pour),
]


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[tuple[int, asyncio.Semaphore]]:
    """Its port, and a semaphore that counts who was noticed: readers of `/hold` that have left, and of `/pour` that do
    not read.
    """
    async with served(limits) as server:
        yield port_of(server), server.config.app.state.noticed


def port_of(server: Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def served(limits: Limits) -> AsyncIterator[Server]:
    app = Starlette(routes=ROUTES)
    app.state.noticed = asyncio.Semaphore(0)
    listening = asyncio.Event()
    server = make_server(app, host="127.0.0.1", port=0, on_listening=listening.set, limits=limits)
    running = asyncio.create_task(server._serve())
    await listening.wait()
    try:
        yield server
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def port(anyio_backend: str) -> AsyncIterator[int]:
    async with serving(LIMITS) as (port, _):
        yield port


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """A little at a time, for as long as somebody listens."""
    try:
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(DRIP_S)
    except ConnectionError:
        pass


async def answer_to(port: int, start: bytes, dripped: bytes | None = None) -> bytes:
    """All that the server says until it closes the connection."""
    async with asyncio.timeout(PATIENCE_S), connection(port) as (reader, writer):
        writer.write(start)
        dripping = None if dripped is None else asyncio.create_task(drip(writer, dripped))
        answer = b""
        try:
            while piece := await reader.read(65536):
                answer += piece
        except ConnectionError:  # what it had said counts
            pass
        finally:
            if dripping is not None:
                dripping.cancel()
        return answer


async def test_a_silent_connection_is_closed(port: int) -> None:
    assert await answer_to(port, b"") == b""


async def test_a_head_that_never_ends_is_cut_however_steadily_it_drips(port: int) -> None:
    assert b" 408 " in await answer_to(port, b"POST /echo HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n")


async def test_empty_lines_before_a_request_do_not_keep_a_connection(port: int) -> None:
    answer = await answer_to(port, b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n")
    assert b" 200 " in answer
    assert b" 408 " in answer


async def test_a_body_that_never_ends_is_cut_however_steadily_it_drips(port: int) -> None:
    start = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    assert b" 408 " in await answer_to(port, start, b"x")


async def test_tiny_chunks_do_not_prolong_a_body(port: int) -> None:
    start = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b" 408 " in await answer_to(port, start, b"1\r\nx\r\n")


async def test_ten_thousand_tiny_chunks_at_once_are_one_body(port: int) -> None:
    start = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await answer_to(port, start + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
    assert answer.endswith(b"x" * 10_000)


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - a connection tells nobody what becomes of it
        await asyncio.sleep(0)


async def unread(server: Server, stack: AsyncExitStack, *, closing: bytes = b"") -> GuardedProtocol:
    """The server's side of a connection whose answers wait to be read, in vain, and of which nobody has told the writer."""
    before = set(server.server_state.connections)
    reader, writer = await stack.enter_async_context(connection(port_of(server)))
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    await until(lambda: set(server.server_state.connections) - before)
    [side] = cast("set[GuardedProtocol]", set(server.server_state.connections) - before)
    while not side.transport.get_write_buffer_size():
        answered = server.server_state.total_requests
        writer.write(b"GET /crumb HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(partial(lambda before: server.server_state.total_requests > before, answered))
    if closing:
        writer.write(b"GET /crumb HTTP/1.1\r\nhost: x\r\n" + closing + b"\r\n")
        await until(side.transport.is_closing)
    assert not side.flow.write_paused
    return side


@pytest.mark.parametrize("closing", [CLOSE, b""], ids=["asked to close", "silent"])
async def test_a_connection_whose_last_answer_nobody_reads_ends(closing: bytes, anyio_backend: str) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(Limits(stalled_s=0.5, idle_s=1)))
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        side = await unread(server, stack, closing=closing)
        await until(lambda: side not in server.server_state.connections)


async def test_last_answers_that_nobody_reads_shut_nobody_out(anyio_backend: str) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(Limits(connections=3)))
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        sides = [await unread(server, stack, closing=CLOSE) for _ in range(3)]
        for side in sides:
            request = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            assert b" 200 " in await answer_to(port_of(server), request)
            await until(partial(lambda side: side not in server.server_state.connections, side))
            # Its place is taken, as whoever stays would.
            reader, writer = await stack.enter_async_context(connection(port_of(server)))
            writer.write(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"held")


@pytest.mark.parametrize(
    "line", [b"a: " + b"b" * 1000 + b"\r\n", b"a" * 1000], ids=["many fields", "one field"]
)
async def test_a_head_of_sixteen_megabytes_is_refused_before_it_is_read(port: int, line: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S), connection(port) as (reader, writer):
        writer.write(b"GET /echo HTTP/1.1\r\nhost: x\r\n")
        sent = 0
        try:
            while sent < 16 * 1024 * 1024:
                writer.write(line)
                await writer.drain()
                sent += len(line)
        except ConnectionError:
            pass
        assert sent < 8 * 1024 * 1024  # what the sockets' own buffers may hold, and no more
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        assert b" 431 " in answer or answer == b""


async def test_a_large_head_in_one_piece_is_refused(port: int) -> None:
    head = b"GET /echo HTTP/1.1\r\nhost: x\r\na: " + b"b" * 20_000 + b"\r\n\r\n"
    assert b" 431 " in await answer_to(port, head)


async def test_a_large_head_that_begins_beside_another_request_is_refused(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S), connection(port) as (reader, writer):
        writer.write(
            b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\nGET /echo HTTP/1.1\r\nhost: x\r\na: " + b"a" * 15_000
        )
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"b" * 15_000 + b"\r\n\r\n")
        assert b" 431 " in await reader.read()


async def test_who_does_not_read_the_answer_is_cut_off(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S), connection(port) as (reader, writer):
        writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        # The server's side ends while ours reads nothing: seen when writing to it fails.
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(DRIP_S)


async def test_connections_beyond_the_cap_are_told_so_when_all_are_in_use(port: int) -> None:
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(LIMITS.connections):
                reader, writer = await stack.enter_async_context(connection(port))
                writer.write(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
                await reader.readuntil(b"held")
            assert b" 503 " in await answer_to(port, b"")


async def test_connections_that_were_reset_after_their_answers_count_no_more(anyio_backend: str) -> None:
    request = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(Limits(connections=3, idle_s=1)))
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        for _ in range(3):
            async with connection(port_of(server)) as (reader, writer):
                writer.write(request)
                await reader.readuntil(b"\r\n\r\n")
                reset = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await until(lambda: not server.server_state.connections)
        # By the time at which the server ends this one, it would have ended those.
        assert b" 200 " in await answer_to(port_of(server), request)
        for _ in range(3):
            reader, writer = await stack.enter_async_context(connection(port_of(server)))
            writer.write(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"held")
        assert b" 503 " in await answer_to(port_of(server), b"")


async def test_connections_that_ask_for_nothing_shut_nobody_out(anyio_backend: str) -> None:
    """One machine can open as many as there may be; the one that has been silent the longest gives way."""
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits(connections=10)))
        silent = [await stack.enter_async_context(connection(port)) for _ in range(9)]
        reader, writer = await stack.enter_async_context(connection(port))
        request = b"GET /echo HTTP/1.1\r\nhost: x\r\n"
        async with asyncio.timeout(PATIENCE_S):
            writer.write(request + b"\r\n")  # and stays, idle, as a browser does
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in await answer_to(port, request + b"connection: close\r\n\r\n")
            assert await silent[0][0].read() == b""
            writer.write(request + b"\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("path", [b"/echo", b"/refuse"], ids=["not answered", "answered"])
async def test_bodies_that_never_end_shut_nobody_out(anyio_backend: str, path: bytes) -> None:
    """One byte of a large body is enough to be asking for something; the one that owes it the longest gives way."""
    start = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\na"
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits(connections=10)))
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await stack.enter_async_context(connection(port))
            writer.write(
                b"POST /known HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
            )
            await reader.readuntil(b" 100 Continue\r\n\r\n")  # it is known, and its body waited for
            owing = [await stack.enter_async_context(connection(port)) for _ in range(9)]
            for _, other in owing:
                other.write(start % path)
                await other.drain()
            for _ in range(12):
                request = (
                    b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
                )
                assert (await answer_to(port, request)).endswith(b"hi")
            await owing[0][0].read()  # it has ended
            writer.write(b"mine")
            assert (await reader.readuntil(b"mine")).startswith(b"HTTP/1.1 200 ")


async def test_of_those_with_a_key_none_gives_way(anyio_backend: str) -> None:
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits(connections=3)))
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                reader, writer = await stack.enter_async_context(connection(port))
                writer.write(
                    b"POST /known HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
                )
                await reader.readuntil(b" 100 Continue\r\n\r\n")
            assert b" 503 " in await answer_to(port, b"")


async def test_answers_that_nobody_reads_shut_nobody_out(anyio_backend: str) -> None:
    """Strangers give way before callers who show a key; of both, who has read nothing for the longest."""
    keys = [b"key: mine\r\n", b"", b"key: mine\r\n", b""]
    async with AsyncExitStack() as stack:
        port, noticed = await stack.enter_async_context(serving(Limits(connections=len(keys))))
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        readers: list[asyncio.StreamReader] = []
        for key in keys:
            reader, writer = await stack.enter_async_context(connection(port))
            writer.write(b"GET /pour HTTP/1.1\r\nhost: x\r\n" + key + b"\r\n")
            await noticed.acquire()
            readers.append(reader)
        for place in (1, 3, 0, 2):
            request = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"
            reader, writer = await stack.enter_async_context(connection(port))
            writer.write(request + b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"held")
            with suppress(ConnectionError):
                while await readers[place].read(2**20):
                    pass  # what had gone out; then it ends


@pytest.mark.parametrize(
    "line", [b"a: " + b"b" * 1000 + b"\r\n", b"a" * 1000], ids=["many fields", "one field"]
)
async def test_trailers_without_end_are_refused_before_they_are_read(anyio_backend: str, line: bytes) -> None:
    """Fields after a body take memory as those before it do."""
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits()))
        _, writer = await stack.enter_async_context(connection(port))
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        sent = 0
        try:
            while sent < 32 * 1024 * 1024:
                writer.write(line)
                await writer.drain()
                sent += len(line)
        except ConnectionError:
            pass
        assert sent < 16 * 1024 * 1024  # what the sockets' own buffers may hold, and no more


async def test_a_trailer_is_no_header(port: int) -> None:
    """A proxy that sets or strips a header looks at the head alone."""
    answer = await answer_to(
        port,
        b"POST /names HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\nauthorization: Bearer stolen\r\nx-forwarded-for: 192.0.2.1\r\n\r\n",
    )
    assert answer.endswith(b"host,connection,transfer-encoding")


async def test_the_body_of_a_request_that_is_answered_is_not_waited_for(anyio_backend: str) -> None:
    """However much was announced: who has no key would else hold a connection for as long as it likes."""
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits(unread_s=0.2)))
        start = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n"
        for dripped in (None, b"x"):
            answer = await answer_to(port, start, dripped)
            assert b" 401 " in answer
            assert answer.endswith(b"no")


@pytest.mark.parametrize(("path", "answer"), [(b"/names", b"host,content-length"), (b"/echo", b"hi")])
async def test_zeros_before_a_length_break_nothing(port: int, path: bytes, answer: bytes) -> None:
    """Python reads no number of more than 4,300 digits, and anybody can send one."""
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: " % path + b"0" * 5000 + b"2\r\n\r\n"
    async with connection(port) as (reader, writer), asyncio.timeout(PATIENCE_S):
        writer.write(head + b"hi")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(answer)) == answer


async def test_what_is_announced_prolongs_a_body_no_further_than_any_address_takes(
    anyio_backend: str,
) -> None:
    async with AsyncExitStack() as stack:
        limits = Limits(body_s=0.1, body_s_per_mib=0.01, body_mib=10)
        port, _ = await stack.enter_async_context(serving(limits))
        start = b"POST /names HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"
        assert b" 408 " in await answer_to(port, start, b"x")


async def test_a_connection_whose_body_came_after_the_answer_is_idle_for_its_time_only(
    anyio_backend: str,
) -> None:
    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(serving(Limits(idle_s=1)))
        reader, writer = await stack.enter_async_context(connection(port))
        async with asyncio.timeout(PATIENCE_S):
            writer.write(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n")
            await reader.readuntil(b"no")
            writer.write(b"x")
            assert await reader.read() == b""


async def test_a_stream_ends_with_its_reader_also_when_another_request_waits_behind_it(
    anyio_backend: str,
) -> None:
    """With pipelining the server hears of a disconnect in the name of the last request, not of the first."""
    async with AsyncExitStack() as stack:
        port, left = await stack.enter_async_context(serving(LIMITS))
        async with asyncio.timeout(PATIENCE_S):
            async with connection(port) as (reader, writer):
                writer.write(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
                await reader.readuntil(b"held")
                writer.write(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\nGET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
                await writer.drain()
            await left.acquire()


async def test_a_well_behaved_client_keeps_its_latency_beside_all_of_them(port: int) -> None:
    """A ratio, not a time: the same client alone and among thirty attackers."""

    async def latency() -> float:
        times = []
        async with connection(port) as (reader, writer):
            for _ in range(200):
                started = time.perf_counter()
                writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                await reader.readexactly(2)
                times.append(time.perf_counter() - started)
        return median(times)

    async def attack(start: bytes, dripped: bytes) -> None:
        while True:
            await answer_to(port, start, dripped)

    alone = await latency()
    attacks = [
        asyncio.create_task(attack(start, dripped))
        for start, dripped in [
            (b"", b""),
            (b"POST /echo HTTP/1.1\r\n", b"a: b\r\n"),
            (b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", b"x"),
        ]
        for _ in range(10)
    ]
    try:
        among = await latency()
    finally:
        for task in attacks:
            task.cancel()
    assert (
        among / alone < 10
    )  # attackers and server share this one event loop; without the guard it would hang
