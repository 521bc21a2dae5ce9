"""What we do, told as spans of a trace; where nobody listens, contexts are passed on as they came."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog
from starlette.datastructures import Headers

from service.domain.traces import Trace, read_trace

Attributes = Mapping[str, str | int | bool]

log = structlog.get_logger()


class SpanKind(StrEnum):
    """Which side of the wire we are on."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """One thing that we do, while it goes on."""

    @property
    def trace(self) -> Trace | None:
        """What comes next is its child."""

    def note(self, attributes: Attributes) -> None: ...

    def fail(self, why: str) -> None: ...


class Tracing(Protocol):
    def span(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: Trace | None,
        attributes: Attributes,
        began_ns: int | None = None,
        link: Trace | None = None,
    ) -> AbstractContextManager[Span]:
        """
        Args:
            parent: None begins a trace.
            attributes: nothing secret: they leave the house.
            began_ns: since 1970, where it began before this.
            link: another trace that has to do with it.
        """


@dataclass(frozen=True, slots=True)
class _Passage:
    """A span that nobody sees."""

    trace: Trace | None

    def note(self, attributes: Attributes) -> None:
        pass

    def fail(self, why: str) -> None:
        pass


class Untraced:
    """Tells nobody anything."""

    def span(
        self,
        name: str,  # noqa: ARG002 - as the protocol
        kind: SpanKind,  # noqa: ARG002
        *,
        parent: Trace | None,
        attributes: Attributes,  # noqa: ARG002
        began_ns: int | None = None,  # noqa: ARG002
        link: Trace | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        return passing(parent)


def passing(trace: Trace | None) -> AbstractContextManager[Span]:
    """Where nobody listens, for what happens so often that it should not even tell what it is."""
    return _UNSEEN if trace is None else nullcontext(_Passage(trace))


_UNSEEN: Final = nullcontext(_Passage(None))
UNTRACED = Untraced()


def trace_of(headers: Headers) -> Trace | None:
    """The context with which a request came."""
    if "traceparent" not in headers:
        return None
    return read_trace({name: headers.getlist(name) for name in ("traceparent", "tracestate")})


def are_traces_wanted(url: str | None, environment: Mapping[str, str]) -> bool:
    """Whether somebody listens: by our own setting, or by those that OpenTelemetry defines for all that it is in.

    Args:
        url: where traces go, where we were told.
        environment: for `OTEL_*`.
    """

    def said(*names: str) -> str:
        return next((value for name in names if (value := environment.get(name, "").strip().lower())), "")

    if said("OTEL_SDK_DISABLED") == "true":
        return False
    if url is not None:
        return True
    exporters = said("OTEL_TRACES_EXPORTER")
    if exporters:
        asked = "otlp" in [each.strip() for each in exporters.split(",")]
    else:
        asked = bool(said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    protocol = said("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if asked and protocol not in {"", "http/protobuf"}:
        log.warning("traces.protocol_unknown", protocol=protocol, spoken="http/protobuf")
        return False
    return asked
