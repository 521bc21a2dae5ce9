"""One HTTP exchange with an outside party, told as a reply that its endpoint's owner can read."""

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json

from handlers.sinks.credentials import MASK
from service.domain.deliveries import ANSWERED, Reply, parse_retry_after
from service.network.connections import Answer, NoAnswer
from service.network.dialler import Dialler, Refused

READ_LIMIT: Final = 64 * 1024
EXCERPT_LIMIT: Final = 2048
SHORTEST_HIDDEN: Final = 4  # characters; what is shorter stands in many an answer by chance
USER_AGENT: Final = "Klingel/0.1"
JSON_UTF8_HEADERS: Final = {"content-type": "application/json; charset=utf-8"}
# 408 Request Timeout, 425 Too Early, 429 Too Many Requests: the same request may be taken later (RFC 9110, 6585, 8470).
TAKEN_LATER: Final = frozenset({408, 425, 429})


async def post(
    dialler: Dialler,
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    now: datetime,
    hidden: Sequence[str] = (),
) -> tuple[Reply, Answer | None]:
    """As `send`."""
    return await send(dialler, "POST", url, body=body, headers=headers, now=now, hidden=hidden)


async def send(
    dialler: Dialler,
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str],
    agent: str = USER_AGENT,
    now: datetime,
    hidden: Sequence[str] = (),
) -> tuple[Reply, Answer | None]:
    """How it ended, and the answer where there was one. The caller sets the deadline.

    Args:
        agent: as whom Klingel introduces itself.
        hidden: what an answer that repeats it must not carry into the excerpt; of fewer than `SHORTEST_HIDDEN`
            characters it is left as it is.
    """
    try:
        answer = await dialler.send(
            method,
            url,
            body=body,
            headers=headers,
            lasting=(("user-agent", agent), ("accept-encoding", "identity")),
            read_limit=READ_LIMIT,
        )
    except Refused as error:
        return Reply(status_code=None, reason=f"not dialled: {error}"), None
    except NoAnswer as error:
        return Reply(status_code=None, reason=str(error)), None
    reply = Reply(
        status_code=answer.status,
        reason=ANSWERED,
        retry_after=parse_retry_after(answer.headers.get("retry-after"), now),
        excerpt=_excerpt(
            _without(answer.body, hidden) if hidden else answer.body, answer.headers.get("content-encoding")
        ),
    )
    return reply, answer


def _without(body: bytes, hidden: Sequence[str]) -> bytes:
    spellings = {
        spelling for secret in hidden if len(secret) >= SHORTEST_HIDDEN for spelling in _spellings(secret)
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        body = body.replace(spelling, MASK.encode())
    return body


def _spellings(text: str) -> Iterator[bytes]:
    """As it is, and as it may stand in JSON, in which some escape what is not ASCII, and some the slash."""
    yield text.encode()
    for escaped in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield escaped.encode()
        yield escaped.replace("/", r"\/").encode()


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; empty where it is anything else."""
    try:
        read = from_json(body)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def refuses_for_good(status: int) -> bool:
    """Whether a service that keeps to HTTP would refuse the same request again."""
    return 400 <= status < 500 and status not in TAKEN_LATER


def why(error: Exception) -> str:
    """In words for the endpoint's owner."""
    match error:
        case NoAnswer():
            return str(error)
        case ssl.SSLError():
            return "the TLS handshake failed"
        case _:
            return f"the exchange failed: {type(error).__name__}"


def _excerpt(body: bytes, encoding: str | None) -> str:
    if encoding not in {None, "", "identity"}:
        return f"({encoding}-encoded, not unpacked)"
    # PostgreSQL's text takes no NUL.
    return body[:EXCERPT_LIMIT].decode(errors="replace").replace("\0", "�")
