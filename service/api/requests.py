"""One wide log line for each request, under an id that its answer carries."""

import re
import time
from typing import Any, Final

import structlog
import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import NOTES, begin

_GIVEN_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Wherever in the path: a proxy may have put something before it.
_BEFORE_TOKEN: Final = re.compile(r"/callbacks/[^/]+/[^/]+/")

log = structlog.get_logger()


class RequestLog:
    """Pure ASGI, so that streams pass through it piece by piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log: structlog.typing.FilteringBoundLogger | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or uuid_utils.uuid7().hex
        begin(request_id=request_id)
        notes: dict[str, Any] = {}
        scope[NOTES] = notes
        started = time.perf_counter()
        status = 0
        sent_bytes = 0

        async def sending(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            status = 500  # answered further out
            raise
        finally:
            # Bound once: otherwise this is looked up for each line, in half of the time that the line takes.
            self._log = self._log or log.bind()
            self._log.info(
                "request.answered",
                method=scope["method"],
                path=_shown(scope["path"]),
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
                sent_bytes=sent_bytes,
                **notes,
            )


def _given_id(scope: Scope) -> str | None:
    """The caller's, where it can be kept."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _GIVEN_ID.fullmatch(given) else None
    return None


def _shown(path: str) -> str:
    """Without the token of a callback."""
    found = _BEFORE_TOKEN.search(path)
    return path if found is None else f"{path[: found.end()]}…"
