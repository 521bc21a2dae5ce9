"""`/v1/files/{name}`: kept outputs, to whoever has a key of their account, or a link that was signed here."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.auth import authenticate
from service.api.problems import problem
from service.api.state import State
from service.domain.errors import Forbidden, NotFound
from service.domain.kept import FILE_NAME, KeptFile
from service.domain.media_types import UNKNOWN
from storage import kept_files
from storage.kept_files import NoSuchFile

_RANGE: Final = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')
# Whatever the bytes are, a browser that opens them runs nothing of them, and gives them no origin to act from.
GUARDS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "cross-origin",  # a link is made to be shown elsewhere
    "referrer-policy": "no-referrer",
}

log = structlog.get_logger()


class _Unsatisfiable(Exception):
    """None of the bytes asked for exist."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to and without `end`."""

    start: int
    end: int


async def show(request: Request[State]) -> Response:
    """The bytes, whole or one range of them: with a key of the account, or by a signed link, until that ends."""
    file = await _found(request)
    tag = f'"{file.sha256}"'
    headers = {
        **GUARDS,
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": f"{_disposition(file)}; filename={file.name}",
        "etag": tag,
    }
    if (known := request.headers.get("if-none-match")) is not None and _is_among(tag, known):
        return Response(status_code=304, headers=headers)
    try:
        span = _span(request, file.size, tag)
    except _Unsatisfiable:
        return problem(
            416,
            f"The file has {file.size} bytes.",
            headers=headers | {"content-range": f"bytes */{file.size}"},
        )
    status = 200
    if span is None:
        span = Span(0, file.size)
    else:
        status = 206
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{file.size}"
    headers |= {"content-type": file.content_type, "content-length": str(span.end - span.start)}
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(await _begun(request, file, span), status_code=status, headers=headers)


async def _found(request: Request[State]) -> KeptFile:
    """
    Raises:
        Forbidden: a link that was not signed here, or has ended; the same whether there is such a file or not.
        Unauthenticated: neither a link nor a key.
        NotFound: none, or another account's.
    """
    name: str = request.path_params["name"]
    signature = request.query_params.get("signature")
    account_id = None
    if signature is None:
        account_id = (await authenticate(request)).account_id
    elif not request.state["links"].is_good(
        name, expires=request.query_params.get("expires", ""), signature=signature
    ):
        raise Forbidden("This link is not one of ours, or has ended. Read the task again for a new one.")
    file = None
    if FILE_NAME.fullmatch(name):
        async with request.state["database"].reading() as reader:
            file = await kept_files.get(reader, name)
    if file is None or account_id not in {None, file.account_id}:
        raise _unknown(name)
    return file


async def _begun(request: Request[State], file: KeptFile, span: Span) -> AsyncIterator[bytes]:
    """The pieces, the first one read already: what the store lacks is said before the answer begins.

    Raises:
        NotFound, StorageUnavailable
    """
    pieces = request.state["keeper"].read(file, start=span.start, end=span.end)
    try:
        first = await anext(pieces, b"")
    except NoSuchFile:
        log.error("file.lost", name=file.name, task_id=file.task_id)  # noqa: TRY400 - the operator's business, not a fault
        raise _unknown(file.name) from None

    async def all() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all()


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no file {name}.")


def _disposition(file: KeptFile) -> str:
    return "attachment" if file.content_type == UNKNOWN.name else "inline"


def _is_among(tag: str, header: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison."""
    return header.strip() == "*" or tag in _ENTITY_TAG.findall(header)


def _span(request: Request[State], size: int, tag: str) -> Span | None:
    """The one range that is asked for; None for all of it, also where several are, or none that can be read.

    Raises:
        _Unsatisfiable: it begins behind the end.

    Source: RFC 9110, 13.1.5 and 14.2.
    """
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    condition = request.headers.get("if-range")
    if asked is None or (condition is not None and condition.strip() != tag):
        return None
    first, last, suffix = asked.groups()
    if suffix is not None:
        if int(suffix) == 0:
            raise _Unsatisfiable
        return Span(max(size - int(suffix), 0), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise _Unsatisfiable
    return Span(int(first), min(int(last) + 1, size) if last else size)
