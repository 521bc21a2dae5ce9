"""One trace from submit to the last delivery: told to a collector, stored with the task, sent on with webhooks."""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.domain.errors import ConfigurationError
from tests.fakes.collector import Collector, Seen, running_collector
from tests.integration.klingel import (
    ADMIN_KEY,
    IMAGE_INPUT,
    Klingel,
    ManualClock,
    callback,
    refused,
    running_klingel,
    settings_for,
    succeed,
)

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def by_name(collector: Collector) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = {}
    for span in collector.spans:
        found.setdefault(span.name, []).append(span)
    return found


def sent_context(headers: Mapping[str, str]) -> tuple[str, str]:
    """The trace and the span that a request names as its parent."""
    version, trace_id, span_id, flags = headers["traceparent"].split("-")
    assert (version, int(flags, 16) & 1) == ("00", 1)  # sampled
    return trace_id, span_id


async def test_one_trace_goes_from_the_submit_to_the_last_webhook(
    tmp_path: Path, collector: Collector
) -> None:
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        endpoint = await klingel.endpoint()
        task = await klingel.submit(headers={"traceparent": GIVEN, "tracestate": STATE})
        [first] = await klingel.receiver.until(1)
        klingel.receiver.answers(503, 200)
        headers = {"authorization": "", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        await klingel.http.post(klingel.callback_path(), json=succeed(task), headers=headers)

        async def failed() -> bool:
            return [one["attempts"] for one in await klingel.deliveries()] == [1, 1]

        await klingel.until(failed)
        klingel.clock.advance(seconds=10)
        [_, second, third] = await klingel.receiver.until(3)
        await klingel.until_deliveries("delivered", "delivered")

    spans = by_name(collector)
    assert {name: len(found) for name, found in spans.items()} == {
        "submit kling.multi-image-to-image": 1,
        "create kling.multi-image-to-image": 1,
        "callback": 1,
        "deliver webhook": 3,
    }
    [submit], [create] = (spans[f"{what} kling.multi-image-to-image"] for what in ("submit", "create"))
    [called_back], attempts = spans["callback"], spans["deliver webhook"]
    assert {span.trace_id for span in collector.spans} == {TRACE_ID}
    assert submit.parent_id == SPAN_ID
    assert {span.parent_id for span in (create, called_back, *attempts)} == {submit.span_id}
    assert [span.kind for span in (submit, create, called_back, *attempts)] == [
        "server",
        "client",
        "server",
        *["client"] * 3,
    ]
    assert called_back.links == [("a" * 32, "b" * 16)]
    # Whoever gets a webhook goes on from the very attempt that brought it.
    assert [sent_context(one.headers) for one in (first, second, third)] == [
        (TRACE_ID, attempt.span_id) for attempt in attempts
    ]
    assert {one.headers["tracestate"] for one in (first, second, third)} == {STATE}
    assert [span.attributes["klingel.delivery.outcome"] for span in attempts] == [
        "delivered",
        "retry",
        "delivered",
    ]
    assert [span.error for span in attempts] == [None, "answered", None]
    assert attempts[1].attributes == {
        "klingel.delivery.id": attempts[1].attributes["klingel.delivery.id"],
        "klingel.delivery.attempt": 1,
        "klingel.event.id": second.headers["webhook-id"],
        "klingel.event.type": "task.succeeded",
        "klingel.endpoint.id": endpoint["id"],
        "klingel.endpoint.kind": "webhook",
        "klingel.task.id": task["id"],
        "klingel.delivery.outcome": "retry",
        "http.response.status_code": 503,
    }
    assert called_back.attributes["klingel.callback.verdict"] == "advanced"
    assert create.attributes["klingel.create.outcome"] == "accepted"
    assert {span.attributes["klingel.task.id"] for span in collector.spans} == {task["id"]}
    assert {span.service for span in collector.spans} == {"klingel"}


async def test_a_submit_without_a_context_begins_a_trace(tmp_path: Path, collector: Collector) -> None:
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        await klingel.endpoint()
        one, other = await klingel.submit(), await klingel.submit()
        received = await klingel.receiver.until(2)
        await klingel.until_deliveries("delivered", "delivered")
    spans = by_name(collector)
    submits = {
        span.attributes["klingel.task.id"]: span for span in spans["submit kling.multi-image-to-image"]
    }
    assert [submits[task["id"]].parent_id for task in (one, other)] == ["", ""]
    assert submits[one["id"]].trace_id != submits[other["id"]].trace_id
    for each in received:
        task_id = each.event["data"]["task"]["id"]
        assert sent_context(each.headers)[0] == submits[task_id].trace_id


async def test_a_follow_up_belongs_to_the_trace_of_what_it_follows(
    tmp_path: Path, collector: Collector
) -> None:
    follow_up = {
        "on": "task.succeeded",
        "submit": {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT},
    }
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        task = await klingel.submit(follow_ups=[follow_up], headers={"traceparent": GIVEN})
        await klingel.call_back(succeed(task))
        await klingel.kling.until(2)
        await klingel.until_deliveries("delivered")
    spans = by_name(collector)
    [brought] = spans["deliver task"]
    [_, following] = spans["submit kling.multi-image-to-image"]
    assert (following.trace_id, following.parent_id, following.kind) == (
        TRACE_ID,
        brought.span_id,
        "internal",
    )
    assert spans["create kling.multi-image-to-image"][1].parent_id == following.span_id


async def test_a_trace_goes_on_after_a_restart(tmp_path: Path, collector: Collector) -> None:
    clock = ManualClock()
    async with running_klingel(tmp_path, clock=clock, traces_url=collector.url) as klingel:
        await klingel.endpoint(config={"url": klingel.receiver.url})
        klingel.receiver.always = 500
        await klingel.submit(headers={"traceparent": GIVEN})

        async def failed() -> bool:
            [delivery] = await klingel.deliveries()
            return bool(delivery["attempts"] == 1)

        await klingel.until(failed)
    clock.advance(minutes=1)
    async with running_klingel(tmp_path, clock=clock, traces_url=collector.url) as klingel:

        async def failed_again() -> bool:
            [delivery] = await klingel.deliveries()
            return bool(delivery["attempts"] == 2)

        await klingel.until(failed_again)
    first, second = by_name(collector)["deliver webhook"]
    assert (first.trace_id, first.parent_id) == (second.trace_id, second.parent_id)
    assert second.trace_id == TRACE_ID


async def test_a_replay_of_the_log_belongs_to_the_traces_of_its_tasks(klingel: Klingel) -> None:
    await klingel.submit(headers={"traceparent": GIVEN})
    endpoint = await klingel.endpoint()
    body = {"since": "2026-11-22T00:00:00Z", "only": "all"}
    assert (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/replay", json=body)).status_code == 202
    [received] = await klingel.receiver.until(1)
    assert received.headers["traceparent"] == GIVEN


async def test_where_nobody_listens_a_context_is_passed_on_as_it_came(klingel: Klingel) -> None:
    """Also by the paths of the drop-in API, and to what follows."""
    await klingel.endpoint()
    await klingel.submit(headers={"traceparent": GIVEN, "tracestate": STATE})
    body = {"prompt": "a cat", "subject_image_list": IMAGE_INPUT["subject_image_list"]}
    headers = {"traceparent": GIVEN}
    await klingel.http.post("/kling/v1/images/multi-image2image", json=body, headers=headers)
    received = await klingel.receiver.until(2)
    assert [one.headers["traceparent"] for one in received] == [GIVEN, GIVEN]
    assert [one.headers.get("tracestate") for one in received] == [STATE, None]


@pytest.mark.parametrize("given", [None, "", "00-x", GIVEN.upper(), f"ff{GIVEN[2:]}", GIVEN[:-3]])
async def test_without_a_context_that_can_be_read_none_is_sent(klingel: Klingel, given: str | None) -> None:
    await klingel.endpoint()
    await klingel.submit(headers={} if given is None else {"traceparent": given})
    [received] = await klingel.receiver.until(1)
    assert {"traceparent", "tracestate"} & received.headers.keys() == set()


async def test_what_is_not_sampled_is_told_to_nobody_and_says_so_on(
    tmp_path: Path, collector: Collector
) -> None:
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        await klingel.endpoint()
        await klingel.submit(headers={"traceparent": f"{GIVEN[:-2]}00"})
        [received] = await klingel.receiver.until(1)
        await klingel.until_deliveries("delivered")
    assert received.headers["traceparent"].split("-")[1::2] == [TRACE_ID, "00"]
    assert collector.bodies == []


async def test_a_refused_create_is_an_error_of_its_span(tmp_path: Path, collector: Collector) -> None:
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        klingel.kling.answers(refused(400, 1201, "image_list is wrong"))
        body = {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)}
        assert (await klingel.http.post("/v1/tasks", json=body)).status_code == 422
    [create] = by_name(collector)["create kling.multi-image-to-image"]
    assert (create.error, create.attributes["error.type"]) == ("1201", "1201")


async def test_nothing_secret_leaves_with_a_trace(tmp_path: Path, collector: Collector) -> None:
    secrets = [
        ADMIN_KEY,
        "provider-key",
        "a-secret-for-tests",
        "static-secret",
        "a cat in a hat",
        "customer-7",
    ]
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        config = {"url": f"{klingel.receiver.url}/in-the-path", "headers": {"x-key": "static-secret"}}
        secrets.append((await klingel.endpoint(config=config))["secret"])
        await klingel.endpoint(config={"url": "http://user-of-it.invalid/in-the-path"})
        task = await klingel.submit(metadata={"customer": "customer-7"})
        secrets += [klingel.callback_path().rpartition("/")[2], "in-the-path"]
        await klingel.call_back(succeed(task))
        await klingel.call_back(callback(task, "failed", task_status_msg="customer-7"))
        await klingel.receiver.until(2)
    told = b"".join(collector.bodies)
    assert collector.spans
    assert [secret for secret in secrets if secret.encode() in told] == []


async def test_a_collector_that_hangs_holds_up_nothing(tmp_path: Path, collector: Collector) -> None:
    """Klingel stops soon all the same."""
    collector.gate.clear()
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        await klingel.endpoint()
        task = await klingel.submit()
        await klingel.call_back(succeed(task))
        await klingel.until_deliveries("delivered", "delivered")
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 25  # the library's own patience is half a minute


async def test_a_collector_that_refuses_costs_its_spans_and_nothing_else(
    tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.answers += [400] * 10
    async with running_klingel(tmp_path, traces_url=collector.url) as klingel:
        await klingel.endpoint()
        await klingel.submit()
        await klingel.until_deliveries("delivered")
    assert collector.bodies
    assert capsys.readouterr().out.count("traces.not_exported") == 1


def test_without_its_libraries_a_wish_of_the_operator_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that the machine makes of everything on it is not."""
    monkeypatch.setitem(sys.modules, "service.observability.telemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'klingel\[otel\]'"):
        create_app(settings_for(tmp_path, traces_url="http://127.0.0.1:4318/v1/traces"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    create_app(settings_for(tmp_path))


@pytest.mark.parametrize("name", ["traceparent", "TraceState"])
async def test_nobody_sets_the_context_by_hand(klingel: Klingel, name: str) -> None:
    config: dict[str, Any] = {"url": klingel.receiver.url, "headers": {name: GIVEN}}
    response = await klingel.http.post("/v1/endpoints", json={"config": config})
    [fault] = response.json()["errors"]
    assert fault["detail"] == f"{name} is set by Klingel itself."
