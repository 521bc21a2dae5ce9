"""An OpenTelemetry collector that takes OTLP over HTTP, and nothing else (OTLP 1.x, "OTLP/HTTP")."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATH = "/v1/traces"
PATIENCE_S = 20


@dataclass(frozen=True)
class Seen:
    """A span, as whoever looks at a trace sees it. Ids are hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    attributes: Mapping[str, Any]
    error: str | None
    links: Sequence[tuple[str, str]]
    began_ns: int
    ended_ns: int
    service: str


class Collector(ThreadingHTTPServer):
    """Takes what is right, refuses what is not, and keeps why."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: list[int] = []  # statuses to answer next, instead of 200
        self.gate = Event()  # while it is not set, nothing is answered
        self.gate.set()
        self._spans: list[Seen] = []
        self._changed = Condition()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return self.origin + PATH

    @property
    def spans(self) -> list[Seen]:
        """In the order in which they began."""
        assert self.faults == []
        return sorted(self._spans, key=lambda span: span.began_ns)

    def until(self, *names: str) -> list[Seen]:
        """All that there are, once these are among them."""

        def there() -> bool:
            return set(names) <= {span.name for span in self._spans}

        with self._changed:
            assert self._changed.wait_for(there, PATIENCE_S), (names, self._spans)
        return self.spans

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever waits for an answer may give up."""

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        with self._changed:
            self.bodies.append(body)
            if self.answers:
                return self.answers.pop(0)
            try:
                self._spans += _read(path, headers, body)
            except (ValueError, DecodeError) as error:
                self.faults.append(str(error))
                return 400
            finally:
                self._changed.notify_all()
        return 200


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.gate.wait(60)
        status = self.server.take(self.path, headers, body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()
    thread = Thread(target=collector.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.gate.set()
        collector.shutdown()
        collector.server_close()
        thread.join()


def _read(path: str, headers: Mapping[str, str], body: bytes) -> list[Seen]:
    """
    Raises:
        ValueError: it is not what a collector takes; DecodeError: not even protobuf.
    """
    _demand(path == PATH, f"traces go to {PATH}, not to {path}")
    _demand(headers.get("content-type") == "application/x-protobuf", f"content-type {headers}")
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    request = ExportTraceServiceRequest.FromString(body)
    _demand_known(request)
    _demand(len(request.resource_spans) > 0, "an empty request")
    seen: list[Seen] = []
    for resource in request.resource_spans:
        described = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            _demand(scope.scope.name == "klingel", f"scope {scope.scope.name!r}")
            seen += [_span(span, str(described["service.name"])) for span in scope.spans]
    return seen


def _span(span: SpanMessage, service: str) -> Seen:
    _demand(len(span.trace_id) == 16 and any(span.trace_id), "a trace id of 16 bytes, not all zero")
    _demand(len(span.span_id) == 8 and any(span.span_id), "a span id of 8 bytes, not all zero")
    _demand(len(span.parent_span_id) in {0, 8}, "a parent's id of 8 bytes, or none")
    _demand(bool(span.name), "a name")
    _demand(span.kind != SpanMessage.SPAN_KIND_UNSPECIFIED, "a kind")
    _demand(0 < span.start_time_unix_nano <= span.end_time_unix_nano, "an end after its beginning")
    _demand(span.dropped_attributes_count == 0, "no attribute too many")
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Seen(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        attributes=_attributes(span.attributes),
        error=span.status.message if failed else None,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        service=service,
    )


def _attributes(listed: Any) -> dict[str, Any]:
    keys = [each.key for each in listed]
    _demand(len(set(keys)) == len(keys) and all(keys), "each attribute once, with a name")
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in listed}


def _demand_known(message: Message) -> None:
    _demand(len(UnknownFieldSet(message)) == 0, f"a field that OTLP has not, in {message.DESCRIPTOR.name}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _demand_known(each)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"demanded: {what}")
