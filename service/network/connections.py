"""HTTP/1.1 to hosts that others chose: connections kept for the next exchange, and answers that are bounded.

Against aiohttp's client, which stays for downloads: an exchange on a kept connection costs a fifth of the time.
"""

import asyncio
import os
import select
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

import aiohappyeyeballs
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from service.domain.values import Struct

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

LARGEST_HEAD: Final = 64 * 1024  # of an answer, with what else comes before its body
KEPT_S: Final = 15.0  # a connection that nobody uses
MOST_KEPT: Final = 512  # of these, whosever they are
NEXT_ADDRESS_S: Final = 0.25  # while one address does not answer, the next is tried beside it (RFC 8305, 5)


class NoAnswer(Exception):
    """An exchange that came to nothing; the message says why, in words for who gave the URL."""


class Silent(NoAnswer, TimeoutError):
    """The other side said nothing for too long."""


class _ClosedUnused(NoAnswer):
    """A kept connection on which not a byte came back: the other side may have closed it before we wrote."""


class Origin(NamedTuple):
    """Whose connections are kept together."""

    tls: bool
    host: str  # as it is looked up
    port: int


class Answer(Struct, frozen=True):
    """What came back: the body is the first bytes of it, as sent, never unpacked."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """An answer that is too large to be held: its head, and its body as it comes."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: AsyncIterator[bytes]  # raises as `Dialler.get` does, also where the body is cut off


class Resolver(Protocol):
    """Gives the addresses of a host that may be dialled."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> "list[ResolveResult]": ...


class Connection(asyncio.Protocol):
    """One exchange at a time. Whatever is not quite as it should be ends the connection with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = HttpResponseParser(self)
        # What a receiver's server does wrong is no reason not to hear it: as every client reads it.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._transport: asyncio.Transport
        self._incoming = select.poll()
        self._answered: asyncio.Future[Answer] | None = None
        self._is_reusable = False
        self.used = 0  # exchanges before this one
        self.idle_since = 0.0

    async def exchange(self, request: bytes, *, read_limit: int) -> Answer:
        """
        Raises:
            NoAnswer: none came, or not to its end.
        """
        self._read_limit = read_limit
        self._received = 0
        self._begin_answer()
        if self._transport.is_closing():
            raise self._closed()
        answered: asyncio.Future[Answer] = self._loop.create_future()
        self._answered = answered
        try:
            self._transport.write(request)
            return await answered
        except BaseException:  # a deadline, too, in the turn in which the answer came: nobody keeps it
            self._is_reusable = False
            raise
        finally:
            self._answered = None
            self.used += 1
            if not self._is_reusable:
                self.abort()

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    @property
    def is_at_rest(self) -> bool:
        """It is open, and nothing, an end neither, has come in that asyncio has not looked at yet."""
        return not self._transport.is_closing() and not self._incoming.poll(0)

    def abort(self) -> None:
        self._transport.abort()

    def _begin_answer(self) -> None:
        self._is_reusable = False
        self._in_head = True
        self._is_framed = False  # its body ends by itself, not with the connection
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._incoming.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            self.abort()  # it was not asked
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._is_reusable = False
            self._fail(NoAnswer("its answer is not valid HTTP"))
            return
        if self._in_head and self._received > LARGEST_HEAD:
            self._fail(NoAnswer("its answer is not valid HTTP"))
        elif (
            self._received > LARGEST_HEAD + 2 * self._read_limit
        ):  # a body in crumbs, or trailers without end
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if exc is None and not self._in_head and not self._is_framed:
            self._finish()
        elif exc is None and self._in_head:
            self._fail(self._closed())
        else:
            self._fail(NoAnswer("the connection broke"))

    def _closed(self) -> NoAnswer:
        kind = _ClosedUnused if self.used and not self._received else NoAnswer
        return kind("it closed the connection without an answer")

    # What the parser tells

    def on_message_begin(self) -> None:
        if self._answered is None or self._answered.done():
            self._is_reusable = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # of trailers nothing is kept
            text = name.decode("utf-8", "surrogateescape").lower()
            self._headers[text] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._in_head = False
            self._status = status
            self._is_framed = "content-length" in self._headers or "chunked" in self._headers.get(
                "transfer-encoding", ""
            )
            self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._body_size += len(body)
        if self._body_size >= self._read_limit:
            self._finish()

    def on_message_complete(self) -> None:
        if self._in_head:  # 100 to 199: the answer is still to come
            self._begin_answer()
        elif self._answered is not None and not self._answered.done():
            # An answer to half of a request says nothing about the other half.
            self._is_reusable = self._keeps and not self._transport.get_write_buffer_size()
            self._finish()

    def _finish(self) -> None:
        if self._answered is not None and not self._answered.done():
            body = b"".join(self._body)[: self._read_limit]
            self._answered.set_result(Answer(self._status, self._headers, body))

    def _fail(self, error: NoAnswer) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


class Connections:
    """Those to all origins.

    Args:
        resolver: gives the addresses that may be dialled.
        context: whom TLS trusts; asked when it is first needed.
        most_kept: connections that nobody uses. Beyond that the one goes that has been of no use for longest.
    """

    def __init__(
        self,
        resolver: Resolver,
        context: Callable[[], ssl.SSLContext],
        *,
        most_kept: int = MOST_KEPT,
    ) -> None:
        self._resolver = resolver
        self._context = context
        self._most_kept = most_kept
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)  # the last one used is last
        self._origins: dict[Connection, Origin] = {}  # of all idle ones, the last one used last
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def exchange(self, origin: Origin, request: bytes, *, read_limit: int, may_repeat: bool) -> Answer:
        """The caller sets the deadline.

        Args:
            may_repeat: whether it does no harm that the other side gets it twice.

        Raises:
            NoAnswer: whatever the reason.
        """
        connection = self._kept(origin) or await self._open(origin)
        try:
            answer = await connection.exchange(request, read_limit=read_limit)
        except _ClosedUnused:
            if not may_repeat:
                raise
            connection = await self._open(origin)
            answer = await connection.exchange(request, read_limit=read_limit)
        if connection.is_open:
            self._keep(origin, connection)
        return answer

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()
        self._origins.clear()

    # Kept ones

    def _kept(self, origin: Origin) -> Connection | None:
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            del self._origins[connection]
            if connection.is_at_rest:
                return connection
            connection.abort()
        return None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle[origin].append(connection)
        self._origins[connection] = origin
        if len(self._origins) > self._most_kept:
            oldest = next(iter(self._origins))
            self._idle[self._origins.pop(oldest)].remove(oldest)
            oldest.abort()
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_S, self._close_idle)

    def _close_idle(self) -> None:
        before = self._loop.time() - KEPT_S
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if connection.idle_since <= before:
                    connection.abort()
                if not connection.is_open:
                    del self._origins[connection]
            self._idle[origin] = kept = [one for one in connections if one.is_open]
            if not kept:
                del self._idle[origin]
        self._sweep = self._loop.call_later(KEPT_S / 2, self._close_idle) if self._idle else None

    # New ones

    async def _open(self, origin: Origin) -> Connection:
        try:
            found = await self._resolver.resolve(origin.host, origin.port, socket.AF_UNSPEC)
        except OSError:
            raise NoAnswer("the host name could not be resolved") from None
        tls = self._context() if origin.tls else None
        try:
            reached = await aiohappyeyeballs.start_connection(
                _addresses(found), happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
            )
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._loop),
                sock=reached,
                ssl=tls,
                # Certificates name hosts without the dot that ends a full name.
                server_hostname=origin.host.rstrip(".") if origin.tls else None,
            )
        except ssl.CertificateError:
            raise NoAnswer("its TLS certificate is not valid") from None
        except ssl.SSLError:
            raise NoAnswer("the TLS handshake failed") from None
        except OSError as error:
            # asyncio's own words name the address, which is not for who gave the URL to know.
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise NoAnswer(f"could not connect: {why}") from None
        return connection


def _addresses(
    found: "Sequence[ResolveResult]",
) -> list[tuple[socket.AddressFamily, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
    """As `getaddrinfo` tells them."""
    return [
        (
            socket.AddressFamily(one["family"]),
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            (one["host"], one["port"], 0, 0)
            if one["family"] == socket.AF_INET6
            else (one["host"], one["port"]),
        )
        for one in found
    ]
