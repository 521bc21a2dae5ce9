"""The guarded way out, on real sockets: who is dialled, what is read, and what a hostile server cannot do."""

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from service.network import dialler as network
from service.network.connections import NoAnswer
from service.network.dialler import Dialler, Guard, Refused, open_dialler
from tests.servers import start_server

pytestmark = pytest.mark.sqlite_alone  # no database here

LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8")])
DRIP_S = 0.02

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _names_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is asked for again, or given up, because the machine is slow."""
    monkeypatch.setattr(network, "DNS_WAIT_S", 60)


@pytest.fixture
async def closed(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(Guard()) as dialler:
        yield dialler


@pytest.fixture
async def opened(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(LOOPBACK) as dialler:
        yield dialler


class NameServer(asyncio.DatagramProtocol):
    """DNS at the far end of the wire: A records as told, nothing for `dead.example`, and no IPv6."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[Sequence[str]]] = {}  # what it says next; the last one for good
        self.asked: list[str] = []
        self.unanswered = asyncio.Semaphore(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Gives its `address:port`."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        try:
            host, port = transport.get_extra_info("sockname")
            yield f"{host}:{port}"
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name, wants_ipv4 = ".".join(labels), data[at + 1 : at + 3] == b"\0\1"
        if name.endswith("dead.example"):
            self.unanswered.release()
            return
        answers: Sequence[str] = ()
        if wants_ipv4:
            self.asked.append(name)
            told = self.addresses[name]
            answers = told.pop(0) if len(told) > 1 else told[0]
        records = b"".join(
            b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + ipaddress.IPv4Address(address).packed for address in answers
        )
        counts = b"\0\1" + len(answers).to_bytes(2, "big") + b"\0\0\0\0"
        packet = data[:2] + b"\x81\x80" + counts + data[12 : at + 5] + records
        self._transport.sendto(packet, addr)  # type: ignore[attr-defined]


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

    server = await start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await server.close()
        for writer in connections:
            writer.transport.abort()


async def post(dialler: Dialler, url: str, *, deadline: float = 60, limit: int = 1024) -> network.Answer:
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
        with pytest.raises((Refused, NoAnswer)):
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

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await post(opened, url)
        await post(opened, url)
    assert len(heads) == 2
    assert all(b"cookie" not in head.lower() for head in heads)


async def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_dialled(anyio_backend: str) -> None:
    """DNS that changes between two look-ups: there is no second one."""
    dns = NameServer()
    dns.addresses["rebinding.example"] = [["127.0.0.1"], ["169.254.169.254"]]

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    async with (
        dns.running() as at,
        open_dialler(LOOPBACK, nameservers=[at]) as dialler,
        serving(serve) as port,
    ):
        assert (await post(dialler, f"http://rebinding.example:{port}/")).status == 204
        assert dns.asked == ["rebinding.example"]
        with pytest.raises(Refused):
            await post(dialler, f"http://rebinding.example:{port}/")


async def test_one_bad_address_among_good_ones_refuses_the_host(anyio_backend: str) -> None:
    dns = NameServer()
    dns.addresses["mixed.example"] = [["93.184.216.34", "10.0.0.1"]]
    async with dns.running() as at, open_dialler(Guard(), nameservers=[at]) as dialler:
        with pytest.raises(Refused):
            await post(dialler, "http://mixed.example/")


async def test_a_refusal_tells_who_asks_no_address_and_the_operator_each(anyio_backend: str) -> None:
    """The names of the private network are nobody's to look up from outside."""
    dns = NameServer()
    dns.addresses["db.internal.example"] = [["10.1.2.3"]]
    async with dns.running() as at, open_dialler(Guard(), nameservers=[at]) as dialler:
        with capture_logs() as logs, pytest.raises(Refused) as refused:
            await post(dialler, "http://db.internal.example/")
    assert "10." not in str(refused.value)
    assert "private " not in str(refused.value).replace("private networks with KLINGEL_ALLOW_NETWORKS", "")
    [told] = [line for line in logs if line["event"] == "host.refused"]
    assert (told["host"], told["address"], told["reason"]) == ("db.internal.example", "10.1.2.3", "private")


async def test_names_whose_servers_hang_hold_up_nobody_else(anyio_backend: str) -> None:
    """One account's dead names by the hundred: another's endpoint is dialled meanwhile."""
    dns = NameServer()
    dns.addresses["alive.example"] = [["127.0.0.1"]]

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with (
        dns.running() as at,
        open_dialler(LOOPBACK, nameservers=[at]) as dialler,
        serving(serve) as port,
    ):
        hanging = [
            asyncio.create_task(post(dialler, f"http://{number}.dead.example/", deadline=60))
            for number in range(200)
        ]
        try:
            for _ in hanging:
                await dns.unanswered.acquire()
            assert (await post(dialler, f"http://alive.example:{port}/")).status == 204
            assert not any(task.done() for task in hanging)
        finally:
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_name_of_the_hosts_file_is_dialled_when_its_address_is_opened(opened: Dialler) -> None:
    """And only by that address: a resolver may know more of localhost than was opened."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as port:
        assert (await post(opened, f"http://localhost:{port}/")).status == 204


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
        with pytest.raises(NoAnswer):
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
        with pytest.raises((TimeoutError, NoAnswer)):
            await post(opened, f"http://127.0.0.1:{port}/", deadline=0.3)
