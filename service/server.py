"""The guarded way in: the HTTP server with the deadlines and caps that uvicorn lacks, and how it stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DRAIN_S: Final = 10  # for requests on their way when Klingel stops

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may take. Absolute: a byte now and then prolongs nothing."""

    head_s: float = 10.0  # from the connection, or the request's first byte, to the end of the head
    body_s: float = 30.0  # from the end of the head to the end of the body,
    body_s_per_mib: float = 2.0  # and this much longer for each MiB that it announces
    stalled_s: float = 60.0  # for an answer that the other side does not read
    idle_s: float = 75.0  # between requests
    head_bytes: int = 64 * 1024
    connections: int = 4096


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Subclassed with its limits by `run_server`."""

    limits: ClassVar[Limits] = Limits()

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _not_all_head = False  # of the bytes that came last, some ended a head or were a body
    _heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.limits.connections:
            self._cut(HTTPStatus.SERVICE_UNAVAILABLE, "connection.refused")
            return
        self._arm(self.limits.head_s, "connection.head_too_slow")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._heard = True
        if self._deadline is None and self._in_head:
            # Also for bytes that begin no request, such as empty lines: they end the idle time.
            self._arm(self.limits.head_s, "connection.head_too_slow")
        self._not_all_head = not self._in_head
        super().data_received(data)
        if self._in_head and not self._not_all_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._cut(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "connection.head_too_large")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._cut(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "connection.head_too_large")
            return
        self._in_head = False
        self._not_all_head = True
        self._head_bytes = 0
        announced = next((value for name, value in self.headers if name == b"content-length"), b"")
        mebibytes = int(announced[:12]) / (1024 * 1024) if announced.isdigit() else 0
        self._arm(
            min(self.limits.body_s + self.limits.body_s_per_mib * mebibytes, 3600), "connection.body_too_slow"
        )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._disarm()
        self._in_head = True
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stalled_s, self._on_stalled)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def _arm(self, seconds: float, event: str) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._cut, HTTPStatus.REQUEST_TIMEOUT, event)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_stalled(self) -> None:
        log.warning("connection.answer_not_read", client=self.client and self.client[0])
        self.transport.abort()

    def _cut(self, status: HTTPStatus, event: str) -> None:
        """Answers where an answer can still be read, and closes."""
        self._disarm()
        if self.transport.is_closing():
            return
        log.warning(event, client=self.client and self.client[0])
        answering = (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        )
        if (self._heard or status is HTTPStatus.SERVICE_UNAVAILABLE) and not answering:
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode())
        self.transport.close()
        # Who does not read the answer does not keep the connection either.
        self.loop.call_later(1, self.transport.abort)


class Server(uvicorn.Server):
    """Ends live streams before it waits for open requests: a stream would never end by itself."""

    def __init__(
        self, config: uvicorn.Config, *, on_stopping: Callable[[], None], on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_stopping = on_stopping
        self._on_listening = on_listening

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stopping when told to is success: SIGTERM, once obeyed, is not raised again, and the exit code is 0."""
        with super().capture_signals():
            yield
            self._captured_signals = [number for number in self._captured_signals if number != signal.SIGTERM]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)


def make_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    on_stopping: Callable[[], None] = lambda: None,
    on_listening: Callable[[], None] = lambda: None,
    limits: Limits | None = None,
) -> Server:
    guarded: dict[str, Any] = {"limits": limits or Limits()}
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("LimitedProtocol", (GuardedProtocol,), guarded),
        log_config=None,
        access_log=False,  # its lines carry callback tokens; ours do not
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=int(guarded["limits"].idle_s),
        ws="none",
        lifespan="on",
    )
    return Server(config, on_stopping=on_stopping, on_listening=on_listening)


def run_server(
    app: ASGIApp, *, host: str, port: int, on_stopping: Callable[[], None], on_listening: Callable[[], None]
) -> bool:
    """Serves until SIGINT or SIGTERM. Gives whether it ever got ready."""
    server = make_server(app, host=host, port=port, on_stopping=on_stopping, on_listening=on_listening)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve())
    return server.started
