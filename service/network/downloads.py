"""Downloads from hosts that others chose, by aiohttp's client: as large as they are, piece by piece."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from service.network.connections import Download, NoAnswer, Resolver, Silent

LARGEST_HEAD_FIELD: Final = 8190
PIECE: Final = 256 * 1024


class _Resolving(AbstractResolver):
    """Of somebody else, who closes it."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await self._resolver.resolve(host, port, family)

    async def close(self) -> None:
        pass


class Downloads:
    """Use `open_downloads`."""

    def __init__(self, session: aiohttp.ClientSession, refusal: type[Exception]) -> None:
        self._session = session
        self._refusal = refusal

    @asynccontextmanager
    async def get(
        self, url: URL, *, headers: Mapping[str, str], silence: timedelta
    ) -> AsyncIterator[Download]:
        """As `Dialler.get`, of a URL that may be dialled."""
        span = silence.total_seconds()
        # Connecting is the TLS handshake too (aiohttp 3.14, `TCPConnector._wrap_create_connection`).
        patience = aiohttp.ClientTimeout(total=None, sock_connect=span, sock_read=span)
        with self._told():
            async with self._session.get(
                url, headers=headers, allow_redirects=False, timeout=patience
            ) as response:
                named = {name.lower(): value for name, value in response.headers.items()}
                yield Download(response.status, named, response.content.iter_chunked(PIECE))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """In words for who gave the URL. What the resolver refuses comes out of the connector as an error of its own."""
        try:
            yield
        except aiohttp.ServerTimeoutError:
            raise Silent("it said nothing for too long") from None
        except aiohttp.ClientError as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                for cause in (error.os_error, error.__cause__):
                    if isinstance(cause, self._refusal):
                        raise cause from None
            raise NoAnswer(_why(error)) from error


def _why(error: aiohttp.ClientError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host name could not be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return "its TLS certificate is not valid"
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "the TLS handshake failed"
        case aiohttp.ClientConnectorError():
            return f"could not connect: {error.strerror or type(error.os_error).__name__}"
        case aiohttp.InvalidURL():
            return "its URL cannot be dialled"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError():
            return "the connection broke"
        case aiohttp.ClientResponseError():
            return "its answer is not valid HTTP"
        case _:
            return f"the exchange failed: {type(error).__name__}"


@asynccontextmanager
async def open_downloads(resolver: Resolver, *, refusal: type[Exception]) -> AsyncIterator[Downloads]:
    """
    Args:
        refusal: what the resolver raises comes out as it is.
    """
    connector = aiohttp.TCPConnector(
        resolver=_Resolving(resolver), use_dns_cache=False, limit=0, limit_per_host=0, ttl_dns_cache=0
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # nothing is unpacked, so nothing can explode
        trust_env=False,
        max_line_size=LARGEST_HEAD_FIELD,
        max_field_size=LARGEST_HEAD_FIELD,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers={"User-Agent", "Accept-Encoding", "Accept"},
    ) as session:
        yield Downloads(session, refusal)
