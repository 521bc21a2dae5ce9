"""A task seen in a tracing tool: one trace, from whoever submits to whoever gets the webhook."""

from pathlib import Path

from tests.e2e.parties import ADMIN_KEY, Receiver, Sandbox, image_input, running_klingel, settings_with
from tests.fakes.collector import running_collector

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SUBMIT, CREATE = (f"{what} kling.multi-image-to-image" for what in ("submit", "create"))


def test_one_trace_id_from_the_submit_to_the_received_webhook(
    tmp_path: Path, sandbox: Sandbox, receiver: Receiver, hook: str
) -> None:
    """By nothing but the usual variables of OpenTelemetry."""
    with running_collector() as collector:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.origin,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SERVICE_NAME": "pictures",
            "KLINGEL_API_KEY": ADMIN_KEY,
        }
        with running_klingel(tmp_path, **settings_with(sandbox), **told) as klingel:
            klingel.http.headers["traceparent"] = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
            task = klingel.submit(
                "kling.multi-image-to-image", image_input("a cat"), callback_url=receiver.url(hook)
            )
            received = receiver.until_type(hook, "task.succeeded")
            klingel.until_delivered(3, task_id=task["id"])
            collector.until(SUBMIT, CREATE, "callback", "deliver webhook")
            assert klingel.process.stop() == 0
        spans = collector.spans
    assert {span.trace_id for span in spans} == {TRACE_ID}
    assert {span.service for span in spans} == {"pictures"}
    # Signed as without: the context is beside the message, not in it.
    secret = task["endpoints"][0]["secret"]
    assert all(one.verified(secret)["data"]["task"]["id"] == task["id"] for one in received)
    attempts = [span.span_id for span in spans if span.name == "deliver webhook"]
    assert sorted(one.headers["traceparent"].split("-")[1:3] for one in received) == sorted(
        [TRACE_ID, span_id] for span_id in attempts
    )
    [submit] = [span for span in spans if span.name == SUBMIT]
    assert {span.parent_id for span in spans if span is not submit} == {submit.span_id}
    # The provider's wait is between: the create has ended before the last callback came.
    [create] = [span for span in spans if span.name == CREATE]
    assert create.ended_ns < max(span.began_ns for span in spans if span.name == "callback")
