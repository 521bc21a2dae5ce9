"""One HTTP exchange with an outside party, told as a reply that its endpoint's owner can read."""

import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import aiohttp

from service.domain.deliveries import Reply, parse_retry_after
from service.network import Answer, Dialler, Refused

READ_LIMIT: Final = 64 * 1024
EXCERPT_LIMIT: Final = 2048


async def post(
    dialler: Dialler, url: str, *, body: bytes, headers: Mapping[str, str], now: datetime
) -> tuple[Reply, Answer | None]:
    """How it ended, and the answer where there was one. The caller sets the deadline."""
    try:
        answer = await dialler.post(
            url, body=body, headers={**headers, "accept-encoding": "identity"}, read_limit=READ_LIMIT
        )
    except Refused as error:
        return Reply(status_code=None, reason=f"not dialled: {error}"), None
    except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
        return Reply(status_code=None, reason=_why(error)), None
    reply = Reply(
        status_code=answer.status,
        reason="answered",
        retry_after=parse_retry_after(answer.headers.get("retry-after"), now),
        excerpt=_excerpt(answer.body, answer.headers.get("content-encoding")),
    )
    return reply, answer


def _why(error: Exception) -> str:
    """In words for the endpoint's owner."""
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


def _excerpt(body: bytes, encoding: str | None) -> str:
    if encoding not in {None, "", "identity"}:
        return f"({encoding}-encoded, not unpacked)"
    # PostgreSQL's text takes no NUL.
    return body[:EXCERPT_LIMIT].decode(errors="replace").replace("\0", "�")
