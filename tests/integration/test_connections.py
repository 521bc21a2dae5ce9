"""HTTP/1.1 on real sockets: when a connection is kept, when it is not, and what counts as an answer."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from service.network.connections import LARGEST_HEAD, Answer, Connection, Connections, NoAnswer, Origin
from service.network.dialler import Dialler, Guard, open_dialler
from tests.contract.broker_parties import certificate
from tests.integration.hostile import without_tls
from tests.ports import free_port
from tests.servers import start_server

pytestmark = pytest.mark.sqlite_alone  # no database here

LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nhost: one.example\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def dialler(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(LOOPBACK) as opened:
        yield opened


class Server:
    """Says one thing after another, the last one for good, and counts who came. To say nothing is to hang up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.connections: list[asyncio.StreamWriter] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.closes_after_each = False
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Gives its port."""
        server = await start_server(self._handle, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            await server.close()
            for connection in self.connections:
                connection.transport.abort()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.requests.append((head, await reader.readexactly(length)))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                if self.closes_after_each or not answer:
                    writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed.set()
        finally:
            writer.close()


async def send(
    dialler: Dialler, port: int, *, method: str = "POST", body: bytes | None = b"{}", limit: int = 1024
) -> Answer:
    async with asyncio.timeout(60):
        return await dialler.send(
            method, f"http://127.0.0.1:{port}/hook?a=b", body=body, headers={"x-a": "ä"}, read_limit=limit
        )


async def test_a_request_says_where_it_goes_and_how_long_it_is(dialler: Dialler) -> None:
    server = Server(OK)
    async with server.running() as port:
        answer = await send(dialler, port)
        await send(dialler, port, method="DELETE", body=None)
    assert (answer.status, answer.headers, answer.body) == (200, {"content-length": "2"}, b"ok")
    host = b"host: 127.0.0.1:%d\r\nx-a: \xc3\xa4\r\n" % port
    assert server.requests == [
        (b"POST /hook?a=b HTTP/1.1\r\n" + host + b"content-length: 2\r\n\r\n", b"{}"),
        (b"DELETE /hook?a=b HTTP/1.1\r\n" + host + b"\r\n", b""),
    ]


@pytest.mark.parametrize("value", ["a\r\nhost: b", "a\nb", "a\rb", "a\0b"])
async def test_a_header_never_becomes_two(dialler: Dialler, value: str) -> None:
    server = Server(OK)
    async with server.running() as port:
        with pytest.raises(NoAnswer):
            await dialler.post(f"http://127.0.0.1:{port}/", body=b"", headers={"x": value}, read_limit=9)
    assert server.connections == []


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-late: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
    ids=["with its length", "without a body", "in chunks", "with bare line feeds", "after hints"],
)
async def test_a_connection_is_kept_for_the_next_exchange(dialler: Dialler, answer: bytes) -> None:
    server = Server(answer)
    async with server.running() as port:
        first, second = await send(dialler, port), await send(dialler, port)
    assert first == second
    assert first.body in {b"ok", b""}
    assert not {"link", "x-late"} & first.headers.keys()
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        OK + b"more than that",
        OK.replace(b": 2", b": 9"),
    ],
    ids=["it says so", "HTTP/1.0", "another answer behind it", "something behind it", "more than is read"],
)
async def test_a_connection_that_is_not_clean_is_not_used_again(dialler: Dialler, answer: bytes) -> None:
    """What came too much would else be taken for the answer to somebody's next request."""
    server = Server(answer)
    async with server.running() as port:
        for _ in range(2):
            assert (await send(dialler, port, limit=2)).body == b"ok"
    assert len(server.connections) == 2


async def test_an_answer_to_nothing_ends_the_connection(dialler: Dialler) -> None:
    server = Server(OK)
    async with server.running() as port:
        await send(dialler, port)
        server.connections[0].write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        await server.closed.wait()
        assert (await send(dialler, port)).body == b"ok"
    assert len(server.connections) == 2


async def test_exchanges_at_one_time_have_a_connection_each(dialler: Dialler) -> None:
    server = Server(OK)
    async with server.running() as port:
        await asyncio.gather(*(send(dialler, port) for _ in range(20)))
        await asyncio.gather(*(send(dialler, port) for _ in range(20)))
    assert len(server.requests) == 40
    assert len(server.connections) == 20


async def test_a_body_that_ends_with_its_connection_is_whole(dialler: Dialler) -> None:
    server = Server(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    server.closes_after_each = True
    async with server.running() as port:
        assert (await send(dialler, port)).body == b"until the end"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\na: ", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "the connection broke"),
        (b"220 smtp.example ESMTP\r\n", "its answer is not valid HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "its answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "its answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * LARGEST_HEAD, "its answer is not valid HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "its answer is not valid HTTP"),
    ],
    ids=["nothing", "half a head", "half a body", "half of its chunks", "no HTTP", "another protocol", "two lengths",
         "an endless field", "endless hints"],
)  # fmt: skip
async def test_what_is_no_answer_is_told_in_words_for_the_owner(
    dialler: Dialler, answer: bytes, why: str
) -> None:
    server = Server(answer)
    server.closes_after_each = True
    async with server.running() as port:
        with pytest.raises(NoAnswer, match=why):
            await send(dialler, port)


async def test_a_body_in_crumbs_is_not_read_without_end(dialler: Dialler) -> None:
    crumbs = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000
    server = Server(crumbs)
    async with server.running() as port:
        assert len((await send(dialler, port, limit=60_000)).body) < 60_000


async def test_a_connection_that_was_closed_meanwhile_is_no_failure(dialler: Dialler) -> None:
    server = Server(OK)
    async with server.running() as port:
        await send(dialler, port)
        server.connections[0].close()
        await server.connections[0].wait_closed()
        await server.closed.wait()
        assert (await send(dialler, port)).body == b"ok"


async def test_what_may_be_repeated_is_when_a_kept_connection_was_of_no_use(dialler: Dialler) -> None:
    """It was closed while we wrote. A POST may have been taken, and is its sender's to send again."""
    server = Server(OK, b"", OK, b"", OK)
    async with server.running() as port:
        await send(dialler, port)
        assert (await send(dialler, port, method="PUT")).body == b"ok"
        with pytest.raises(NoAnswer, match="without an answer"):
            await send(dialler, port)
    assert [head.split()[0] for head, _ in server.requests] == [b"POST", b"PUT", b"PUT", b"POST"]


async def test_a_large_request_that_is_answered_early_does_not_keep_the_connection(dialler: Dialler) -> None:
    connections = 0
    read_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        await read_on.wait()
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            assert (await send(dialler, port, body=b"x" * 32_000_000)).status == 413
        read_on.set()
    assert connections == 2


async def test_an_attempt_that_is_cut_off_takes_its_connection_along(dialler: Dialler) -> None:
    dialled, hung_up = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        attempt = asyncio.create_task(dialler.post(url, body=b"", headers={}, read_limit=9))
        await dialled.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await attempt
        await hung_up.wait()


async def test_a_deadline_in_the_turn_in_which_the_answer_came_takes_the_connection_along() -> None:
    """Nobody is there any more to keep it."""
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()
        writer.close()

    loop = asyncio.get_running_loop()
    server = await start_server(handle, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        port = server.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(lambda: Connection(loop), "127.0.0.1", port)
        attempt = asyncio.create_task(connection.exchange(REQUEST, read_limit=9))
        await asked.wait()
        connection.data_received(OK)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await hung_up.wait()


class Loopback(AbstractResolver):
    """Whatever the name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None: ...


async def test_of_connections_that_nobody_uses_only_the_latest_are_kept() -> None:
    """Whosever they are: many hosts do not take all the sockets that there are."""
    connections = Connections(Loopback(), ssl.create_default_context, most_kept=2)
    server = Server(OK)
    async with server.running() as port, asyncio.timeout(60):

        async def send(host: str) -> None:
            origin = Origin(tls=False, host=host, port=port)
            answer = await connections.exchange(origin, REQUEST, read_limit=9, may_repeat=False)
            assert answer.body == b"ok"

        for host in ("one.example", "two.example", "one.example", "three.example"):
            await send(host)
        await server.connections[1].wait_closed()
        await send("one.example")
        await send("three.example")
        assert len(server.connections) == 3
        await send("two.example")
        assert len(server.connections) == 4
        connections.close()


async def test_nobody_there_is_said_without_an_address(dialler: Dialler) -> None:
    with pytest.raises(NoAnswer) as raised:
        await send(dialler, free_port())
    assert str(raised.value) == "could not connect: Connection refused"


# TLS


async def test_a_host_shows_a_certificate_in_its_own_name(tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path, "localhost")
    server = Server(OK)
    async with server.running(theirs) as port, open_dialler(LOOPBACK, context=ours) as dialler:
        for _ in range(2):
            answer = await dialler.post(f"https://localhost:{port}/", body=b"", headers={}, read_limit=9)
            assert answer.body == b"ok"
    assert len(server.connections) == 1


async def test_a_host_under_the_name_of_another_gets_nothing(tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path, "other.example")
    server = Server(OK)
    async with server.running(theirs) as port, open_dialler(LOOPBACK, context=ours) as dialler:
        with pytest.raises(NoAnswer, match="its TLS certificate is not valid"):
            await dialler.post(f"https://localhost:{port}/", body=b"", headers={}, read_limit=9)
    assert server.requests == []


async def test_a_host_that_is_vouched_for_by_nobody_gets_nothing(tmp_path: Path, dialler: Dialler) -> None:
    theirs, _ = certificate(tmp_path, "localhost")
    server = Server(OK)
    async with server.running(theirs) as port:
        with pytest.raises(NoAnswer, match="its TLS certificate is not valid"):
            await dialler.post(f"https://localhost:{port}/", body=b"", headers={}, read_limit=9)
    assert server.requests == []


async def test_a_host_without_tls_is_no_host_for_https(dialler: Dialler) -> None:
    async with without_tls() as url:
        with pytest.raises(NoAnswer, match="the TLS handshake failed"):
            await dialler.post(url, body=b"", headers={}, read_limit=9)
