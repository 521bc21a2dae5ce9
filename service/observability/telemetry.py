"""OpenTelemetry: spans to a collector, as OTLP over HTTP. Needs `klingel[otel]`; a thread of its own does the sending."""

import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Final

import structlog
from anyio.to_thread import run_sync
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.span import TraceState

from service.domain.deliveries import storable
from service.domain.traces import Trace
from service.observability.tracing import Attributes, Span, SpanKind

FAREWELL_S: Final = 5.0  # for what is not sent yet when Klingel stops
LONGEST_REASON: Final = 500
_KINDS: Final[Mapping[SpanKind, trace.SpanKind]] = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
}

log = structlog.get_logger()


class OpenSpan:
    """Use `Telemetry.span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def trace(self) -> Trace | None:
        context = self._span.get_span_context()
        if not context.is_valid:  # the SDK is switched off
            return None
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        return Trace(parent, context.trace_state.to_header() or None)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(_presentable(attributes))

    def fail(self, why: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, storable(why, LONGEST_REASON))


class Telemetry:
    """Use `open_telemetry`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: Trace | None,
        attributes: Attributes,
        began_ns: int | None = None,
        link: Trace | None = None,
    ) -> Iterator[Span]:
        # An empty context, not the current one: what we do has no parent but the one that is named.
        context = Context() if parent is None else trace.set_span_in_context(_remote(parent), Context())
        span = self._tracer.start_span(
            name,
            context=context,
            kind=_KINDS[kind],
            attributes=_presentable(attributes),
            links=[] if link is None else [trace.Link(_remote(link).get_span_context())],
            start_time=began_ns,
        )
        try:
            yield OpenSpan(span)
        except BaseException as error:
            # Its type alone: what it says may be anything.
            span.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()


class _Exporter(SpanExporter):
    """Says once that the collector does not take what it is sent, and once that it does again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("traces.not_exported", spans=len(spans))
        elif self._failing and not failed:
            log.info("traces.exported_again", spans=len(spans))
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


@asynccontextmanager
async def open_telemetry(url: str | None) -> AsyncIterator[Telemetry]:
    """
    Args:
        url: where traces go; None leaves that, as all else, to `OTEL_*`.
    """
    # It says each failed try, on every level; we say that there is trouble, and that it is over.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    own = Resource({"service.name": "klingel", "service.version": version("klingel")})
    provider = TracerProvider(
        resource=Resource.create().merge(own).merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter(endpoint=url))))
    try:
        yield Telemetry(provider.get_tracer("klingel", version("klingel")))
    finally:
        # It would wait for half a minute for a collector that hangs.
        farewell = threading.Thread(target=provider.shutdown, name="traces.farewell", daemon=True)
        farewell.start()
        await run_sync(farewell.join, FAREWELL_S)


def _remote(parent: Trace) -> trace.Span:
    """Somebody else's span, or one of ours from before a restart."""
    state = None if parent.state is None else TraceState.from_header([parent.state])
    return trace.NonRecordingSpan(
        trace.SpanContext(
            trace_id=int(parent.trace_id, 16),
            span_id=int(parent.span_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(parent.flags),
            trace_state=state,
        )
    )


def _presentable(attributes: Attributes) -> dict[str, str | int | bool]:
    """Text that every encoding takes, and not too much of it."""
    return {
        name: storable(value, LONGEST_REASON) if isinstance(value, str) else value
        for name, value in attributes.items()
    }
