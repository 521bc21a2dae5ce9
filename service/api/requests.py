"""Each request has an id, which its answer carries, one wide log line, and an answer also when something is raised."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
import uuid_utils
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability.logs import NOTES, begin

_GIVEN_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Wherever in the path: a proxy may have put something before it.
_BEFORE_TOKEN: Final = re.compile(r"/callbacks/[^/]+/[^/]+/")

log = structlog.get_logger()


class Exchanges:
    """Pure ASGI, so that streams pass through it piece by piece. What is raised Starlette would answer in two more layers,
    each of which takes as long as checking a callback's token.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[Any, Any]) -> None:
        """
        Args:
            handlers: by the class of what is raised, `Exception` among them.
        """
        self._app = app
        self._handlers = handlers
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
        except Exception as error:
            response = await self._answer(Request(scope, receive), error)
            if status:  # it is half sent: only its connection's end says that it is no whole one
                raise
            await response(scope, receive, sending)
            error.__traceback__ = None  # of one that is raised again and again it would grow
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

    async def _answer(self, request: Request[Any], error: Exception) -> Response:
        handle = next(self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers)
        response: Response = await handle(request, error)
        return response


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
