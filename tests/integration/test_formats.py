"""The forms in which a webhook tells an event, read from the other side by other people's code."""

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook

from handlers.providers.kling.reports import read_report
from service.domain.lifecycle import Signal
from tests.integration.klingel import Klingel, Received, Receiver, callback, succeed


async def told(klingel: Klingel, form: str) -> tuple[dict[str, object], str, list[Received]]:
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "format": form})
    task = await klingel.submit(external_task_id="order-1")
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    return task, endpoint["secret"], await klingel.receiver.until(3)


async def test_the_cloudevents_sdk_reads_what_the_cloudevents_format_sends(klingel: Klingel) -> None:
    task, _, received = await told(klingel, "cloudevents")
    events = [from_http_event(HTTPMessage(headers=dict(one.headers), body=one.body)) for one in received]
    assert [event.get_type() for event in events] == ["task.submitted", "task.processing", "task.succeeded"]
    last = events[-1]
    assert last.get_id() == received[-1].headers["webhook-id"]
    assert (last.get_subject(), last.get_extension("sequence")) == (task["id"], "3")
    data = last.get_data()
    assert isinstance(data, dict)
    assert data["task"]["outputs"][0]["url"] == "https://example.com/out.png"
    assert data["transition"]["to"] == "succeeded"


async def test_the_kling_format_is_kling_s_own_callback(klingel: Klingel) -> None:
    """Read back by what reads the provider's."""
    task, _, received = await told(klingel, "kling")
    reports = [read_report(one.body) for one in received]
    assert [report.signal for report in reports] == [Signal.SUBMITTED, Signal.STARTED, Signal.COMPLETED]
    assert {report.external_task_id for report in reports} == {task["external_task_id"]}
    assert reports[-1].outputs[0].url == "https://example.com/out.png"


@pytest.mark.parametrize("form", ["standard", "cloudevents", "kling"])
async def test_the_signature_is_over_the_bytes_that_are_sent(klingel: Klingel, form: str) -> None:
    _, secret, received = await told(klingel, form)
    for one in received:
        expected = Webhook(secret).sign(one.headers["webhook-id"], klingel.clock(), one.body.decode())
        assert one.headers["webhook-signature"] == expected


@pytest.mark.parametrize("form", ["cloudevents", "kling"])
async def test_a_test_event_can_be_told_in_each_form(klingel: Klingel, form: str) -> None:
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "format": form})
    assert (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).status_code == 202
    await klingel.until_deliveries("delivered")


async def test_the_kling_format_tells_of_no_task_that_does_not_exist(klingel: Klingel) -> None:
    """Kling's callback has words for tasks alone: what else it takes ends there, and says why."""
    endpoint = await klingel.endpoint(
        config={"url": klingel.receiver.url, "format": "kling"}, types=["endpoint.*", "budget.*"]
    )
    async with Receiver().running() as gone:
        gone.always = 410
        other = await klingel.endpoint(config={"url": gone.url})
        await klingel.http.post(f"/v1/endpoints/{other['id']}/test")
        [delivery] = await klingel.until_deliveries("delivered", endpoint_id=endpoint["id"])
    assert delivery["event_type"] == "endpoint.disabled"
    [attempt] = await klingel.attempts(delivery["id"])
    assert attempt["reason"] == "not sent: the format kling has no words for endpoint.disabled"
    assert klingel.receiver.received == []


async def test_what_the_kling_format_does_not_send_makes_no_failing_endpoint_well(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(
        config={"url": klingel.receiver.url, "format": "kling"}, types=["endpoint.disabled"]
    )
    klingel.receiver.always = 500
    failed = (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).json()["delivery"]
    await klingel.until_attempts(failed["id"], 1)
    before = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert before["failures"] == 1
    async with Receiver().running() as gone:
        gone.always = 410
        other = await klingel.endpoint(config={"url": gone.url})
        await klingel.http.post(f"/v1/endpoints/{other['id']}/test")
        await klingel.until_deliveries("pending", "delivered", endpoint_id=endpoint["id"])
    assert (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json() == before
