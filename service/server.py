"""The guarded way in: the HTTP server with the deadlines and caps that uvicorn lacks, and how it stops."""

import asyncio
import gc
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.domain.lengths import announced_length
from service.doors.bodies import CALLER_KNOWN

DRAIN_S: Final = 10  # for requests on their way when Klingel stops
GARBAGE_AFTER: Final = 10_000  # objects more than before, it is looked for in what is young
# For which a thread that is at work may keep the interpreter from others. SQLite's needs it between two statements; with Python's
# own 5 ms a busy loop made it wait so long that at 1,000 callbacks a second a webhook took twice as long (median 35 to 76 ms,
# against 21 to 36).
SWITCH_S: Final = 0.001

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may take. Absolute: a byte now and then prolongs nothing."""

    head_s: float = 10.0  # from the connection, or the request's first byte, to the end of the head
    body_s: float = 30.0  # from the end of the head to the end of the body,
    body_s_per_mib: float = 2.0  # and this much longer for each MiB that it announces,
    body_mib: float = 64.0  # up to as many as any address takes
    unread_s: float = 10.0  # for the rest of a body whose request is answered already
    stalled_s: float = 60.0  # for an answer that the other side does not read
    idle_s: float = 75.0  # between requests
    head_bytes: int = 64 * 1024
    connections: int = 4096


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Subclassed by `make_server` with its limits, and with what its connections share."""

    limits: ClassVar[Limits] = Limits()
    idle: ClassVar[OrderedDict["GuardedProtocol", None]]  # have no request under way; the longest idle first
    unread: ClassVar[OrderedDict["GuardedProtocol", None]]  # owe a body, of nobody known; the longest first
    # Do not read their answer: of nobody known, and of callers who are. Whoever reads some of it comes last again.
    stuck: ClassVar[OrderedDict["GuardedProtocol", None]]
    slow: ClassVar[OrderedDict["GuardedProtocol", None]]

    # In slots: beyond 30 attributes Python keeps those of each connection in a table of their own, of 1.4 KB.
    __slots__ = (
        "_before_bytes",
        "_body_timer_due",
        "_cycles",
        "_data_had_body",
        "_data_had_boundary",
        "_deadline",
        "_ending",
        "_field_bytes",
        "_heard_bytes",
        "_in_head",
        "_is_known",
        "_stalled",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._body_timer_due = False  # a head has come whose body has not ended, and has no deadline yet
        self._in_head = True
        self._is_known = False  # who sent the last request
        self._field_bytes = 0  # that have come since the last of a body, or of a request
        self._data_had_boundary = False  # what was received last ended a head or a request
        self._data_had_body = False  # or had some of a body in it
        self._heard_bytes = 0  # the last time
        self._before_bytes = (
            0  # that came with the end of what is before this head: some may be its beginning
        )
        self._cycles: Sequence[RequestResponseCycle] = ()  # requests that are not answered, in their order

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._cut(HTTPStatus.SERVICE_UNAVAILABLE, "connection.refused")
            return
        self.idle[self] = None
        self._arm(self.limits.head_s, "connection.head_too_slow")

    def _make_room(self) -> bool:
        """Who asks for nothing, never ends to ask and shows no key, or does not read what was asked for, gives way to who
        may: connections that are only held open shut nobody out.
        """
        waiting = self.idle or self.unread or self.stuck or self.slow
        if not waiting:
            return False
        longest, _ = waiting.popitem(last=False)
        longest.drop("connection.gave_way")
        return True

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._heard_bytes = len(data)
        begun_in_head, self._data_had_boundary, self._data_had_body = self._in_head, False, False
        super().data_received(data)
        self._await_rest()
        if self._data_had_boundary or self._data_had_body or self.transport.is_closing():
            self._before_bytes = len(data)
            return
        # Nothing but a head that has not ended, or, after the last chunk, trailers that have not.
        self._field_bytes += len(data)
        if self._field_bytes > self.limits.head_bytes:
            event = "connection.head_too_large" if begun_in_head else "connection.trailers_too_large"
            self._cut(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, event)

    def _await_rest(self) -> None:
        """Most requests come whole, and have no rest to wait for: a deadline takes longer to set than a header to read."""
        if self.transport.is_closing():
            self._end_if_closed()
            return
        if self._body_timer_due:
            self._arm(self._longest_body_s(), "connection.body_too_slow")
            self._body_timer_due = False
        elif self._in_head and not self._data_had_boundary and self._deadline is None:
            # Also for bytes that begin no request, such as empty lines: they end the idle time.
            self._arm(self.limits.head_s, "connection.head_too_slow")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"] = self.app_state  # nobody writes to it: a copy is 0.7 KB of each listener

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of trailers nothing is kept (RFC 9110, 6.5.1): who filters headers before us does not look at them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        heard_bytes = self._before_bytes + self._field_bytes + self._heard_bytes
        if heard_bytes > self.limits.head_bytes and self._is_head_too_large():
            self._cut(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "connection.head_too_large")
            return
        self._in_head = False
        self._data_had_boundary = True
        self._field_bytes = 0
        self._body_timer_due = True
        self.idle.pop(self, None)
        self.unread[self] = None
        self._is_known = False
        cast("dict[str, Any]", self.scope)[CALLER_KNOWN] = self._on_caller_known
        super().on_headers_complete()
        self._cycles = [*self._cycles, self.cycle]

    def _is_head_too_large(self) -> bool:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return size > self.limits.head_bytes

    def _longest_body_s(self) -> float:
        announced = next((value for name, value in self.headers if name == b"content-length"), b"")
        mebibytes = (announced_length(announced.decode("latin-1")) or 0) / (1024 * 1024)
        return self.limits.body_s + self.limits.body_s_per_mib * min(mebibytes, self.limits.body_mib)

    def _on_caller_known(self) -> None:
        self._is_known = True
        self.unread.pop(self, None)

    def on_body(self, body: bytes) -> None:
        self._data_had_body = True
        self._field_bytes = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._disarm()
        self._body_timer_due = False
        self.unread.pop(self, None)
        self._in_head = True
        self._data_had_boundary = True
        self._field_bytes = 0
        if self.transport.is_closing():
            return
        super().on_message_complete()
        if not self._cycles and self.timeout_keep_alive_task is None:
            # Answered before its body had come, which ended the idle time that uvicorn had begun with the answer.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        self._rest_if_answered()

    def on_response_complete(self) -> None:
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        super().on_response_complete()
        if not self._in_head and not self._cycles:
            self.unread.setdefault(self)  # whoever it was: nothing more comes of it
            self._disarm()
            self._deadline = self.loop.call_later(
                self.limits.unread_s, self.drop, "connection.body_not_wanted"
            )
        self._end_if_closed()
        self._rest_if_answered()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_if_closed()

    def _rest_if_answered(self) -> None:
        is_answered = not self._cycles and not self.flow.write_paused
        if self._in_head and is_answered and not self.transport.is_closing():
            self.idle[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        (self.slow if self._is_known else self.stuck)[self] = None
        self._stalled = self.loop.call_later(self.limits.stalled_s, self._on_stalled)

    def resume_writing(self) -> None:
        if self._ending is None:
            self.stuck.pop(self, None)
            self.slow.pop(self, None)
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()
        self._rest_if_answered()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        # Uvicorn leaves it running where the connection was reset: it would end a connection that is no more.
        self._unset_keepalive_if_required()
        for timer in (
            self._stalled,
            self._ending,
        ):  # asyncio's own transports cannot be aborted once they are lost
            if timer is not None:
                timer.cancel()
        self._give_up_places()
        # uvicorn tells the last request only, which with pipelining is not the one that is being answered.
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
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
        answering = any(cycle.response_started for cycle in self._cycles)
        if (self._heard_bytes or status is HTTPStatus.SERVICE_UNAVAILABLE) and not answering:
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode())
        self.drop(event)

    def drop(self, event: str) -> None:
        """Closes without a word, once what was answered has gone out."""
        self._disarm()
        self._give_up_places()
        log.warning(event, client=self.client and self.client[0])
        self.transport.close()
        # Who does not read the answer does not keep the connection either.
        self._end_within(1)

    def _end_if_closed(self) -> None:
        """Uvicorn closes where it has nothing more to say, and the transport then waits until the rest of that is read."""
        if self._ending is None and self.transport.is_closing():
            self._give_up_places()
            (self.slow if self._is_known else self.stuck)[self] = None
            self._end_within(self.limits.stalled_s)

    def _end_within(self, seconds: float) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = self.loop.call_later(seconds, self.transport.abort)

    def _give_up_places(self) -> None:
        for waiting in (self.idle, self.unread, self.stuck, self.slow):
            waiting.pop(self, None)


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
    waiting = {name: OrderedDict[GuardedProtocol, None]() for name in ("idle", "unread", "stuck", "slow")}
    guarded: dict[str, Any] = {"limits": limits or Limits(), **waiting}
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("LimitedProtocol", (GuardedProtocol,), guarded),
        log_config=None,
        access_log=False,  # its lines carry callback tokens; ours do not
        server_header=False,
        proxy_headers=False,  # nor what FORWARDED_ALLOW_IPS says: see service.doors.proxies
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

    def listening() -> None:
        _leave_alone_what_stays()
        sys.setswitchinterval(SWITCH_S)
        on_listening()

    server = make_server(app, host=host, port=port, on_stopping=on_stopping, on_listening=listening)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve())
    return server.started


def _leave_alone_what_stays() -> None:
    """Half a million objects are there for good once all is imported and opened. With Python's own habits the search
    for garbage in cycles, which looks at them again and again, is a quarter of what a callback costs (loop's time of
    each, at best: 431 us; frozen 386 us; and rarer 307 us).
    """
    gc.freeze()  # with the thousand that are garbage: to find them would hold up the start for 0.05 s
    gc.set_threshold(GARBAGE_AFTER, 20, 50)
    gc.enable()  # see `klingel serve`
