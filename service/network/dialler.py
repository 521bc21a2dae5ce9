"""The guarded way out: every URL that a person or a provider gave is dialled through here.

A host is resolved once; every address it has is judged; one of the judged addresses is dialled, under the host's own
name (Host, SNI). Redirects are not followed, proxy variables not read, cookies not kept.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiodns
import structlog
from yarl import URL

from service.domain.urls import ODD_PORT, has_plain_port
from service.loading import Later
from service.network.connections import Answer, Connections, Download, NoAnswer, Origin

if TYPE_CHECKING:  # loaded with the first download
    from aiohttp.abc import ResolveResult

    from service.network.downloads import Downloads

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA special-purpose registries (RFC 6890 and its updates), read 2026-11. Not `is_global`, which calls several of
# these global: multicast, 6to4, NAT64, site-local.
REFUSED: Final[Sequence[tuple[Network, str]]] = tuple(
    (ipaddress.ip_network(cidr), what)
    for cidr, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space"),
        ("127.0.0.0/8", "loopback"),
        # Public by its number, and answers to each machine there (learn.microsoft.com, "What is IP address
        # 168.63.129.16?"). The special addresses of other clouds are in ranges that are refused anyway.
        ("168.63.129.16/32", "Azure's platform"),
        ("169.254.0.0/16", "link-local, cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("100:0:0:1::/64", "dummy"),
        ("2001::/23", "protocol assignments, Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_EMBEDS_IPV4: Final = (
    ipaddress.ip_network("::ffff:0:0/96"),  # mapped
    ipaddress.ip_network("::ffff:0:0:0/96"),  # translated
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64
    ipaddress.ip_network("::/96"),  # compatible
)

# 2, 4 and 8 seconds for an answer by a name server: within the deadline of an attempt, which is the caller's.
DNS_WAIT_S: Final = 2
DNS_TRIES: Final = 3
# Opened, nothing is refused: for hosts that the operator chose, not for what others name.
EVERYWHERE: Final[Sequence[Network]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})  # twice is as once (RFC 9110, 9.2.2)

_HOST_NAME: Final = re.compile(r"(?=.{1,253}\.?\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
# The URL standard's "ends in a number": system libraries read 2130706433, 127.1, 0177.0.0.1 and 0x7f.1 as addresses.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)

log = structlog.get_logger()


class Refused(Exception):
    """This URL is not dialled; the message says why, in words for its owner."""


class Guard:
    """Judges addresses.

    Args:
        allowed: networks that the operator opened although they are private.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed

    def refusal(self, address: Address) -> str | None:
        """Why it is not dialled, or None."""
        if any(address in network for network in self._allowed):
            return None
        for network, what in REFUSED:
            if address in network:
                return what
        if isinstance(address, ipaddress.IPv6Address):
            for network in _EMBEDS_IPV4:
                if address in network:
                    return self.refusal(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return None

    def check(self, host: str, addresses: Sequence[Address]) -> None:
        """
        Raises:
            Refused: any of them may not be dialled; a host with one bad address is a bad host. Where it leads is for
                the operator to know: who gave the URL could else have the private network's names looked up.
        """
        for address in addresses:
            if (what := self.refusal(address)) is not None:
                log.warning("host.refused", host=host, address=str(address), reason=what)
                raise Refused(
                    f"{host} is not allowed: it is not at a public address. "
                    "The operator can open private networks with KLINGEL_ALLOW_NETWORKS"
                )


def check_url(url: str) -> URL:
    """The URL, if it can be dialled at all; where its host leads is judged when it is dialled.

    Raises:
        Refused: not an absolute http(s) URL, or it carries a password.
    """
    if len(url) > 4096 or any(character.isspace() or ord(character) < 0x20 for character in url):
        raise Refused("a URL has no spaces, and at most 4096 characters")
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
        is_port_plain = has_plain_port(url)
    except ValueError:  # also of host names that no IDNA makes
        raise Refused("this is not a URL") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise Refused("it must be an absolute http:// or https:// URL")
    if parsed.user is not None or parsed.password is not None:
        raise Refused("a user name or password does not go into a URL; use Basic auth in the configuration")
    if not is_port_plain:
        raise Refused(ODD_PORT)
    if port is None or not 0 < port < 65536:
        raise Refused("its port is not between 1 and 65535")
    read_host(parsed.raw_host or "")
    return parsed


def read_host(host: str) -> Address | None:
    """The address that a URL's host is, or None where it is a name, which is to be looked up.

    Args:
        host: as it goes out: a name in ASCII, an IPv6 address without brackets.

    Raises:
        Refused: neither of them, or an address in a spelling that only some read as one.
    """
    if "%" in host:
        raise Refused("an address with a zone, or a host name with a % in it, is not dialled")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if _ENDS_IN_NUMBER.fullmatch(host):
        raise Refused("an IPv4 address is written as four whole numbers, like 192.0.2.1")
    if not _HOST_NAME.fullmatch(host):
        raise Refused("its host is neither a name nor an address")
    return None


class GuardedResolver:
    """Gives only addresses that were judged; what is dialled is what we saw.

    A look-up is a packet and a future, not a thread: names whose servers hang hold up nobody else, however many there are.

    Args:
        nameservers: to be asked instead of the system's; `address:port`.
    """

    def __init__(self, guard: Guard, nameservers: Sequence[str] = ()) -> None:
        self._guard = guard
        self._dns = aiodns.DNSResolver(nameservers or None, timeout=DNS_WAIT_S, tries=DNS_TRIES)
        self._lookups: set[asyncio.Future[Any]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> "list[ResolveResult]":
        if host.lower() == "localhost" or host.lower().endswith(".localhost"):
            # For these the resolver makes up ::1 where the hosts file has 127.0.0.1 alone, and both would be judged.
            family = socket.AF_INET
        try:
            found = await self._look_up(host, port, family)
        except aiodns.error.DNSError as error:
            raise OSError(None, f"{host} could not be looked up: {error.args[-1]}") from None
        entries = [(node.family, node.addr[0].decode()) for node in found.nodes]
        if not entries:
            raise OSError(None, f"{host} has no address")
        self._guard.check(host, [ipaddress.ip_address(text.partition("%")[0]) for _, text in entries])
        return [
            {
                "hostname": host,
                "host": text,
                "port": port,
                "family": entry_family,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for entry_family, text in entries
        ]

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> Any:
        """Whoever asks may be cut off by a deadline; the look-up is known until it has ended."""
        lookup = self._dns.getaddrinfo(host, family, port=port, type=socket.SOCK_STREAM)
        self._lookups.add(lookup)
        lookup.add_done_callback(self._on_looked_up)
        return await asyncio.shield(lookup)

    def _on_looked_up(self, lookup: "asyncio.Future[Any]") -> None:
        self._lookups.discard(lookup)
        if not lookup.cancelled():
            lookup.exception()  # seen: nobody may be waiting any more

    async def close(self) -> None:
        """Waits for each look-up to end: its thread would else speak to an event loop that is closed."""
        self._dns.cancel()
        if self._lookups:
            await asyncio.wait(self._lookups)
        await self._dns.close()


@dataclass(frozen=True, slots=True)
class _Opening:
    """How each request of a method to a URL that may be dialled begins."""

    origin: Origin
    head: bytes
    may_repeat: bool


class Dialler:
    """Sends requests to URLs that others chose. Use `open_dialler`."""

    def __init__(self, connections: Connections, downloads: "Later[Downloads]", guard: Guard) -> None:
        self._downloads = downloads
        self._connections = connections
        self._guard = guard
        # Reading a URL and judging its address takes 25 µs, and an endpoint's is the same each time. What is refused is
        # not remembered.
        self._opening = lru_cache(maxsize=1024)(self._open)

    def check(self, url: str) -> URL:
        """What can be said of a URL without dialling it. A literal address is not looked up: it is judged here.

        Raises:
            Refused: not a URL to be dialled, or a literal address that may not be.
        """
        target = check_url(url)
        if (literal := read_host(target.raw_host or "")) is not None:
            self._guard.check(str(literal), [literal])
        return target

    def _open(self, method: str, url: str, lasting: tuple[tuple[str, str], ...]) -> _Opening:
        target = self.check(url)
        line = f"{method} {target.raw_path_qs} HTTP/1.1\r\n".encode()
        return _Opening(
            Origin(target.scheme == "https", target.raw_host or "", target.port or 0),
            head=line + _lines([("host", target.host_port_subcomponent or ""), *lasting]),
            may_repeat=method in REPEATABLE,
        )

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], read_limit: int) -> Answer:
        """As `send`."""
        return await self.send("POST", url, body=body, headers=headers, read_limit=read_limit)

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None,
        headers: Mapping[str, str],
        lasting: tuple[tuple[str, str], ...] = (),
        read_limit: int,
    ) -> Answer:
        """One exchange, without redirects. The caller sets its deadline.

        Args:
            method: any but HEAD, whose answer has no body though it announces one.
            lasting: more headers, the same each time: they are written once, and kept with the URL.

        Raises:
            Refused: the URL or where it leads.
            NoAnswer: it could not be done.
        """
        opening = self._opening(method, url, lasting)
        lines = _lines(headers.items())
        length = b"" if body is None else b"content-length: %d\r\n" % len(body)
        return await self._connections.exchange(
            opening.origin,
            b"".join((opening.head, lines, length, b"\r\n", body or b"")),
            read_limit=read_limit,
            may_repeat=opening.may_repeat,
        )

    @asynccontextmanager
    async def get(
        self, url: str, *, headers: Mapping[str, str], silence: timedelta
    ) -> AsyncIterator[Download]:
        """One download, without redirects. The caller sets its deadline, and stops reading when it is too much.

        Args:
            silence: so long the other side may say nothing, and so long it may take to connect, with its TLS handshake.

        Raises:
            Refused: the URL or where it leads.
            NoAnswer, OSError: it could not be done, or not to its end.
        """
        target = self.check(url)
        downloads = await self._downloads()
        async with downloads.get(target, headers=headers, silence=silence) as download:
            yield download


def _lines(headers: Collection[tuple[str, str]]) -> bytes:
    """
    Raises:
        NoAnswer: a header that would become two.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") + text.count("\r") != 2 * len(headers) or "\0" in text:
        raise NoAnswer("a header with a line break in it is not sent")
    return text.encode()


@asynccontextmanager
async def open_dialler(
    guard: Guard, *, nameservers: Sequence[str] = (), context: ssl.SSLContext | None = None
) -> AsyncIterator[Dialler]:
    """
    Args:
        nameservers: to be asked instead of the system's; `address:port`. For tests.
        context: whom TLS trusts; the system's authorities when left out.
    """
    resolver = GuardedResolver(guard, nameservers)
    # Reading the system's authorities takes time, and some need it never.
    connections = Connections(resolver, cache(lambda: context or _trusting_the_system()))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resolver.close)
        stack.callback(connections.close)

        async def downloads() -> "Downloads":
            load = await asyncio.to_thread(_load_downloads)
            return await stack.enter_async_context(load(resolver, refusal=Refused))

        yield Dialler(connections, Later(downloads), guard)


def _load_downloads() -> "Callable[..., AbstractAsyncContextManager[Downloads]]":
    """A tenth of a second, and 7 MB."""
    from service.network.downloads import open_downloads  # noqa: PLC0415

    return open_downloads


def _trusting_the_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
