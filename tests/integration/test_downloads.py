"""Downloads by the guarded way out, on real sockets: as large as they are, never held whole, never trusted."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest

from service.network.connections import NoAnswer, Silent
from service.network.dialler import EVERYWHERE, Dialler, Guard, Refused, open_dialler
from service.network.downloads import PIECE
from tests.integration.cdn import Cdn, chunked, running_cdn, sends
from tests.servers import start_server

pytestmark = pytest.mark.sqlite_alone  # no database here

PATIENT = timedelta(seconds=20)
LARGE = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
async def cdn() -> AsyncIterator[Cdn]:
    async with running_cdn() as cdn:
        yield cdn


@pytest.fixture
async def dialler() -> AsyncIterator[Dialler]:
    async with open_dialler(Guard([ipaddress.ip_network("127.0.0.0/8")])) as dialler:
        yield dialler


async def fetched(dialler: Dialler, url: str, silence: timedelta = PATIENT) -> tuple[int, list[bytes]]:
    async with dialler.get(url, headers={"accept-encoding": "identity"}, silence=silence) as download:
        return download.status, [piece async for piece in download.pieces]


async def test_a_large_body_comes_in_pieces(dialler: Dialler, cdn: Cdn) -> None:
    status, pieces = await fetched(dialler, cdn.at("/a", sends(LARGE)))
    assert (status, b"".join(pieces)) == (200, LARGE)
    assert max(len(piece) for piece in pieces) <= PIECE


async def test_who_has_read_enough_hangs_up(dialler: Dialler, cdn: Cdn) -> None:
    endless = sends(LARGE, content_length=str(10**12))
    endless.hangs = True
    async with dialler.get(cdn.at("/a", endless), headers={}, silence=PATIENT) as download:
        assert await anext(download.pieces)
    status, _ = await fetched(dialler, cdn.at("/b", sends(b"x")))
    assert status == 200


@pytest.mark.parametrize(
    "answer", [sends(LARGE, content_length=str(len(LARGE) + 1)), chunked(LARGE, ends=False)]
)
async def test_a_body_that_is_cut_off_is_no_body(dialler: Dialler, cdn: Cdn, answer: object) -> None:
    with pytest.raises(NoAnswer):
        await fetched(dialler, cdn.at("/a", answer))  # type: ignore[arg-type]


async def test_silence_has_an_end(dialler: Dialler, cdn: Cdn) -> None:
    silent = sends(b"x", content_length="2")
    silent.hangs = True
    with pytest.raises(Silent):
        await fetched(dialler, cdn.at("/a", silent), silence=timedelta(seconds=0.1))


@contextmanager
def full_backlog() -> Iterator[str]:
    """Where packets are dropped: the system answers nobody who wants to connect."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(listening.getsockname()))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


async def test_silence_has_an_end_while_a_connection_is_made_too(dialler: Dialler) -> None:
    with full_backlog() as url, pytest.raises(Silent):
        await fetched(dialler, url, silence=timedelta(seconds=0.1))


async def test_silence_has_an_end_in_a_tls_handshake_too(dialler: Dialler) -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Silent):
            await fetched(dialler, f"https://127.0.0.1:{port}/", silence=timedelta(seconds=0.1))


async def test_redirects_are_shown_not_followed(dialler: Dialler, cdn: Cdn) -> None:
    status, _ = await fetched(dialler, cdn.at("/a", sends(b"", "302 Found", location="/b")))
    assert status == 302
    assert cdn.requests == ["/a"]


async def test_proxy_variables_are_not_read(
    dialler: Dialler, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1/")
    status, _ = await fetched(dialler, cdn.at("/a", sends(b"x")))
    assert status == 200


async def test_cookies_are_not_kept(dialler: Dialler, cdn: Cdn) -> None:
    """From a host with a name: from bare numbers no jar would take any."""
    url = cdn.at("/a", sends(b"x", set_cookie="a=b")).replace("127.0.0.1", "localhost")
    for _ in range(2):
        await fetched(dialler, url)
    assert len(cdn.heads) == 2
    assert all(b"cookie" not in head.lower() for head in cdn.heads)


async def test_nothing_is_unpacked(dialler: Dialler, cdn: Cdn) -> None:
    _, pieces = await fetched(dialler, cdn.at("/a", sends(b"packed", content_encoding="gzip")))
    assert pieces == [b"packed"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_are_refused_by_number_and_by_name(cdn: Cdn, host: str) -> None:
    async with open_dialler(Guard()) as dialler:
        with pytest.raises(Refused):
            await fetched(dialler, cdn.at("/a", sends(b"x")).replace("127.0.0.1", host))
    assert cdn.requests == []


async def test_a_guard_that_is_open_everywhere_refuses_no_address() -> None:
    guard = Guard(EVERYWHERE)
    for address in (
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "8.8.8.8",
        "::1",
        "fd00::1",
        "::ffff:10.0.0.1",
    ):
        assert guard.refusal(ipaddress.ip_address(address)) is None
