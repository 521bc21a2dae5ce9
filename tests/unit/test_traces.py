"""`service.domain.traces` and when traces are wanted at all."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.traces import Trace, read_trace
from service.observability.tracing import are_traces_wanted

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(parent: str, *states: str) -> Trace | None:
    return read_trace({"traceparent": [parent], "tracestate": states})


def test_a_context_has_its_parts() -> None:
    trace = read(GIVEN, "congo=t61rcWkgMzE")
    assert trace is not None
    assert (trace.trace_id, trace.span_id, trace.flags) == (
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        1,
    )
    assert trace.headers() == {"traceparent": GIVEN, "tracestate": "congo=t61rcWkgMzE"}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        GIVEN[:-1],
        GIVEN + "0",
        GIVEN + "-extra",
        GIVEN.upper(),
        "ff" + GIVEN[2:],
        "00-" + "0" * 32 + GIVEN[35:],
        GIVEN[:36] + "0" * 16 + "-01",
        "cc" + GIVEN[2:] + ".what-may-come",
        GIVEN + "\n",
        "٠٠" + GIVEN[2:],
    ],
)
def test_what_is_no_context_is_as_if_it_were_not_there(parent: str) -> None:
    assert read(parent) is None


@pytest.mark.parametrize("parent", ["cc" + GIVEN[2:], "01" + GIVEN[2:] + "-what-may-come", f" {GIVEN}\t"])
def test_of_a_later_version_what_this_one_knows_is_read(parent: str) -> None:
    assert read(parent) == Trace(GIVEN)


def test_two_parents_are_none() -> None:
    assert read_trace({"traceparent": [GIVEN, GIVEN]}) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([], None),
        (["a=1"], "a=1"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=1 ,\tb=2,,"], "a=1,b=2"),
        (["tenant@system=x y"], "tenant@system=x y"),
        (["a=1,a=2"], None),
        (["A=1"], None),
        (["a"], None),
        (["a=" + "x" * 257], None),
        ([",".join(f"k{number}=1" for number in range(33))], None),
        (["a=" + "x" * 256, "b=" + "x" * 256], None),
        (["a=ü"], None),
        (["a=1\r\nx: y"], None),
    ],
)
def test_a_state_is_kept_whole_or_not_at_all(states: Sequence[str], kept: str | None) -> None:
    assert read(GIVEN, *states) == Trace(GIVEN, kept)


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,5}"), st.text())
def test_whatever_comes_what_is_sent_on_fits_into_headers(parent: str, state: str) -> None:
    trace = read(parent, state)
    if trace is not None:
        assert len(trace.parent) == 55
        assert all(text.isascii() and text.isprintable() for text in trace.headers().values())


@pytest.mark.parametrize(
    ("url", "environment", "wanted"),
    [
        (None, {}, False),
        ("http://collector:4318/v1/traces", {}, True),
        ("http://collector:4318/v1/traces", {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (None, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (
            None,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            True,
        ),
    ],
)
def test_traces_are_wanted_where_somebody_says_so(
    url: str | None, environment: Mapping[str, str], wanted: bool
) -> None:
    assert are_traces_wanted(url, environment) is wanted


def test_where_nobody_listens_nothing_of_it_is_loaded() -> None:
    """The extra may not be there."""
    script = (
        "import sys, service.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
