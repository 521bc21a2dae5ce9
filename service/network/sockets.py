"""The guarded way out for what is not HTTP: connections to hosts that others chose.

As in `network`: a host is resolved once, every address it has is judged, one of the judged addresses is dialled, and
TLS checks the host's own name. What comes in is bounded for each exchange.
"""

import asyncio
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from yarl import URL

from service.domain.urls import ODD_PORT, has_plain_port
from service.network.dialler import Guard, GuardedResolver, Refused, read_host

READ_LIMIT: Final = 1024 * 1024  # bytes of one exchange; a broker's acknowledgement has a few hundred
CONNECT_S: Final = 4.0  # for an address while there is another one to try


class Unreachable(OSError):
    """No connection came about; the message says why, in words for the endpoint's owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that is no web page: where it leads, and what is left of it."""

    host: str
    port: int
    tls: bool
    path: str  # decoded, without its first slash


def check_target(url: str, schemes: Mapping[str, tuple[bool, int]]) -> Target:
    """What a URL says; where its host leads is judged when it is dialled.

    Args:
        schemes: for each scheme whether it means TLS, and its port.

    Raises:
        Refused: it has another scheme, no host, or what does not belong into it.
    """
    if len(url) > 4096 or any(character.isspace() or ord(character) < 0x20 for character in url):
        raise Refused("a URL has no spaces, and at most 4096 characters")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.explicit_port
        is_port_plain = has_plain_port(url)
    except ValueError:
        raise Refused("this is not a URL") from None
    if parsed.scheme not in schemes or not host:
        raise Refused(f"it must be an absolute {' or '.join(f'{scheme}://' for scheme in schemes)} URL")
    if parsed.user is not None or parsed.password is not None:
        raise Refused("a user name or password does not go into a URL; they have fields of their own")
    if parsed.raw_query_string or parsed.raw_fragment:
        raise Refused("it has nothing after a ? or a #")
    tls, usual_port = schemes[parsed.scheme]
    if not is_port_plain:
        raise Refused(ODD_PORT)
    if port == 0:
        raise Refused("its port is not between 1 and 65535")
    read_host(host)
    return Target(host=host, port=port or usual_port, tls=tls, path=parsed.path.removeprefix("/"))


class BoundedReader(asyncio.StreamReader):
    """Counts what comes in, and ends a connection on which more comes than any exchange needs."""

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self.ended = False
        self.allowed = READ_LIMIT

    def feed_data(self, data: Any) -> None:
        self.received += len(data)
        if self.received > self.allowed:
            self.set_exception(ConnectionAbortedError("more came than an exchange needs"))
            self.ended = True
            return
        super().feed_data(data)

    def feed_eof(self) -> None:
        self.ended = True
        super().feed_eof()

    def set_exception(self, exc: Exception) -> None:
        self.ended = True
        super().set_exception(exc)


class Socket:
    """One connection. `reader` and `writer` are asyncio's."""

    def __init__(
        self,
        reader: BoundedReader,
        writer: asyncio.StreamWriter,
        host: str,
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._context = context
        self._host = host
        self._seen = 0

    @property
    def open(self) -> bool:
        return not self.reader.ended and not self.writer.is_closing()

    @property
    def secure(self) -> bool:
        return self.writer.get_extra_info("ssl_object") is not None

    @property
    def quiet(self) -> bool:
        """Nothing came since it was put aside: what would come was not asked for."""
        return self.reader.received == self._seen and self.is_at_rest

    @property
    def is_at_rest(self) -> bool:
        """It is open, and there is nothing, an end neither, that asyncio has not looked at yet."""
        if not self.open:
            return False
        poll = select.poll()
        poll.register(self.writer.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def begin(self) -> None:
        """An exchange begins: it may bring as much as any."""
        self.reader.allowed = self.reader.received + READ_LIMIT

    def put_aside(self) -> None:
        self._seen = self.reader.received

    async def secure_now(self) -> None:
        """TLS on a connection that began without, under the host's name.

        Raises:
            ssl.SSLError: the certificate is not that of the host, or there is no agreement.
        """
        await self.writer.start_tls(self._context(), server_hostname=_server_name(self._host))

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        """After what was written has gone out."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:  # it is closed, that is all that was asked
            return


class Sockets:
    """Opens connections. Use `open_sockets`."""

    def __init__(
        self, resolver: GuardedResolver, guard: Guard, context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._resolver = resolver
        self._guard = guard
        self._context = context

    def check(self, target: Target) -> None:
        """What can be said without dialling.

        Raises:
            Refused: a literal address that may not be dialled.
        """
        if (literal := read_host(target.host)) is not None:
            self._guard.check(str(literal), [literal])

    async def open(self, target: Target, *, tls: bool) -> Socket:
        """The caller sets the deadline.

        Args:
            tls: from the first byte.

        Raises:
            Refused: where it leads.
            Unreachable: nobody is there.
            ssl.SSLError: the certificate is not that of the host, or there is no agreement.
        """
        self.check(target)
        try:
            found = await self._resolver.resolve(target.host, target.port, socket.AF_UNSPEC)
        except OSError:
            raise Unreachable("the host name could not be resolved") from None
        addresses = [entry["host"] for entry in found]
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await self._connect(address, target, tls=tls)
            except ssl.SSLError:
                raise
            except OSError:  # a TimeoutError too
                continue
        try:
            return await self._connect(addresses[-1], target, tls=tls)
        except ssl.SSLError:
            raise
        except OSError as error:
            # asyncio's own words name the address, which is not for who gave the URL to know.
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise Unreachable(f"could not connect: {why}") from None

    async def _connect(self, address: str, target: Target, *, tls: bool) -> Socket:
        loop = asyncio.get_running_loop()
        reader = BoundedReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        # An address is not looked up again.
        transport, _ = await loop.create_connection(
            lambda: protocol,
            address,
            target.port,
            ssl=self._context() if tls else None,
            server_hostname=_server_name(target.host) if tls else None,
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return Socket(reader, writer, target.host, self._context)


def _server_name(host: str) -> str:
    return host.removesuffix(".")


@asynccontextmanager
async def open_sockets(guard: Guard, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Sockets]:
    """
    Args:
        context: whom TLS trusts; the system's authorities when left out.
    """
    resolver = GuardedResolver(guard)
    try:
        # Reading the system's authorities takes time, and most need it never.
        yield Sockets(resolver, guard, cache(lambda: context or ssl.create_default_context()))
    finally:
        await resolver.close()
