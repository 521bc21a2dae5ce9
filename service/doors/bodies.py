"""Reading request bodies: with a cap that is counted while they stream in, and without holding up anybody else."""

from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Receive

from service.domain.errors import InvalidRequest, TooLarge
from service.domain.lengths import announced_length
from service.domain.long_texts import read_large

LARGEST_BODY: Final = 1024 * 1024
SMALL_BODY: Final = 64 * 1024  # what is up to this large is read sooner than a thread is found for it

# In the scope of a request: to be called as soon as it is clear who sends it. No client can set it.
CALLER_KNOWN: Final = "klingel.caller_known"


def caller_known(connection: HTTPConnection[Any]) -> None:
    """From now on its body may take its time also when there are too many connections."""
    if (tell := connection.scope.get(CALLER_KNOWN)) is not None:
        tell()


async def read_body(
    request: Request[Any], *, limit: int = LARGEST_BODY, grown: Callable[[int], None] = lambda _size: None
) -> bytes:
    """
    Args:
        grown: told how much of it has come, each time when more has; what it raises ends the reading.

    Raises:
        TooLarge: said at once where the length is announced, else as soon as it is exceeded.
        ClientDisconnect: before its end.
    """
    return await read_message(request.headers, request.receive, limit=limit, grown=grown)


async def read_message(
    headers: Headers, receive: Receive, *, limit: int, grown: Callable[[int], None] = lambda _size: None
) -> bytes:
    """As `read_body`, of plain ASGI."""
    if (announced_length(headers.get("content-length", "")) or 0) > limit:
        raise too_large(limit)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        grown(size)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def too_large(limit: int) -> TooLarge:
    size = f"{limit // (1024 * 1024)} MiB" if limit >= 1024 * 1024 else f"{limit} bytes"
    return TooLarge(f"The body is larger than the {size} that this address takes.", limit_bytes=limit)


def parse_json(body: bytes) -> Any:
    """
    Raises:
        InvalidRequest: not JSON, or nested deeper than the parser's 200 levels.
    """
    if not body.strip():
        raise InvalidRequest("The body is empty; it must be JSON.")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None


def parse_large_json(body: bytes) -> Any:
    """As `parse_json`, for bodies that are large because of a few long texts; not for the event loop.

    Raises:
        InvalidRequest: as `parse_json`.
        TooLarge: what is not long texts is over the usual limit.
    """
    return parse_json(body) if len(body) <= LARGEST_BODY else read_large(body, parse_json, limit=LARGEST_BODY)
