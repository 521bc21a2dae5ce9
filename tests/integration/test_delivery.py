"""Deliveries: what is sent, how an answer is read, and what cannot be delivered."""

import asyncio
import base64
from pathlib import Path

from aiohttp import web
from standardwebhooks import Webhook

from tests.integration.klingel import Klingel, Receiver, running_klingel, succeed
from tests.ports import free_port
from tests.servers import running_app


async def test_each_transition_reaches_the_endpoint_signed_and_in_order(klingel: Klingel) -> None:
    """The event's own bytes, under its own id, with Standard Webhooks' three headers."""
    endpoint = await klingel.endpoint()
    task = await klingel.submit()
    assert (await klingel.call_back(succeed(task))).status_code == 200
    received = await klingel.receiver.until(2)
    assert [one.event["type"] for one in received] == ["task.submitted", "task.succeeded"]
    assert [one.event["sequence"] for one in received] == [1, 2]
    assert received[1].event["data"]["task"]["outputs"][0]["url"] == "https://example.com/out.png"
    assert [one.event for one in received] == await klingel.events(task["id"])
    for one in received:
        assert one.headers["content-type"] == "application/json"
        assert one.headers["webhook-id"] == one.event["id"]
        assert one.headers["webhook-timestamp"] == str(int(klingel.clock().timestamp()))
        # The library insists on the present time, and ours stands still: only the signature is compared.
        expected = Webhook(endpoint["secret"]).sign(one.event["id"], klingel.clock(), one.body.decode())
        assert one.headers["webhook-signature"] == expected


async def test_a_gone_endpoint_gets_no_second_attempt_and_is_disabled(klingel: Klingel) -> None:
    """410 ends the delivery at once, with retries left (Standard Webhooks, "Delivery success and failure")."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(410)
    await klingel.submit()
    [delivery] = await klingel.until_deliveries("dead")
    klingel.clock.advance(days=1)
    assert [attempt["status_code"] for attempt in await klingel.attempts(delivery["id"])] == [410]
    shown = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "it answered 410 Gone")


async def test_the_others_are_told_of_a_gone_endpoint(klingel: Klingel) -> None:
    """`endpoint.disabled`, to those of the account that subscribe to it; not to the one that is gone."""
    async with Receiver().running() as other:
        await klingel.endpoint(config={"url": other.url}, types=["endpoint.*"])
        gone = await klingel.endpoint(types=["*"])
        klingel.receiver.answers(410)
        await klingel.submit()
        [told] = await other.until(1)
    assert told.event["type"] == "endpoint.disabled"
    assert told.event["data"]["endpoint"]["id"] == gone["id"]
    assert len(klingel.receiver.received) == 1


async def test_a_failed_attempt_is_made_again_at_its_moment_under_the_same_id(klingel: Klingel) -> None:
    """Promise 5: one constant id, by which a receiver knows what it has already; the time-stamp is the attempt's."""
    await klingel.endpoint()
    klingel.receiver.answers(500, 200)
    await klingel.submit()
    await klingel.receiver.until(1)
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=7)
    first, second = await klingel.receiver.until(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 7
    [delivery] = await klingel.until_deliveries("delivered")
    assert [a["outcome"] for a in await klingel.attempts(delivery["id"])] == ["retry", "delivered"]


async def test_any_2xx_is_delivered_and_anything_else_is_tried_again(klingel: Klingel) -> None:
    """Standard Webhooks, "Delivery success and failure"; a redirect is a failure too, and is not followed."""
    endpoint = await klingel.endpoint()
    statuses = [200, 201, 202, 204, 299, 301, 302, 307, 308, 304, 400, 401, 404, 408, 500, 502]
    for status in statuses:
        klingel.receiver.answers(status, location=klingel.receiver.url + "/elsewhere")
        test = (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).json()
        [attempt] = await klingel.until_attempts(test["delivery"]["id"], 1)
        outcome = "delivered" if status < 300 else "retry"
        assert (attempt["status_code"], attempt["outcome"]) == (status, outcome)
    assert [one.path for one in klingel.receiver.received] == ["/hook"] * len(statuses)


async def test_an_endpoint_that_is_not_there_is_tried_again(klingel: Klingel) -> None:
    """The reason is in words for its owner."""
    await klingel.endpoint(config={"url": f"http://127.0.0.1:{free_port()}/"})
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    [attempt] = await klingel.until_attempts(delivery["id"], 1)
    assert (attempt["status_code"], attempt["outcome"]) == (None, "retry")
    assert attempt["reason"].startswith("could not connect: ")


async def test_a_connection_that_is_cut_is_tried_again(klingel: Klingel) -> None:
    """It may have been received: at least once, and the id tells."""

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with running_app(cut) as url:
        await klingel.endpoint(config={"url": url})
        await klingel.submit()
        [delivery] = await klingel.deliveries()
        [attempt] = await klingel.until_attempts(delivery["id"], 1)
        assert attempt["outcome"] == "retry"
        assert attempt["reason"] in {"it closed the connection without an answer", "the connection broke"}


async def test_an_answer_is_kept_as_an_excerpt_however_long_it_is(klingel: Klingel) -> None:
    """At most 64 KiB of it are read; what is shown is 2 KiB, without what no database holds."""

    async def talk(request: web.Request) -> web.Response:
        return web.Response(body=b"\0\xff" + b"x" * 5_000_000)

    async with running_app(talk) as url:
        await klingel.endpoint(config={"url": url})
        await klingel.submit()
        [delivery] = await klingel.until_deliveries("delivered")
        [attempt] = await klingel.attempts(delivery["id"])
        assert attempt["response_excerpt"] == "��" + "x" * 2046


async def test_an_endpoints_own_event_bytes_are_signed_also_with_words_of_any_language(
    klingel: Klingel,
) -> None:
    """What is signed is what is sent: UTF-8, not escaped differently on the way."""
    endpoint = await klingel.endpoint()
    await klingel.submit(metadata={"wörter": "雪 ☃ \u2028 \U0001f600"})
    [received] = await klingel.receiver.until(1)
    assert received.event["data"]["task"]["metadata"] == {"wörter": "雪 ☃ \u2028 \U0001f600"}
    expected = Webhook(endpoint["secret"]).sign(
        received.headers["webhook-id"], klingel.clock(), received.body.decode()
    )
    assert received.headers["webhook-signature"] == expected


async def test_a_process_without_dispatch_takes_callbacks_and_leaves_the_rest_to_another(
    tmp_path: Path,
) -> None:
    """`KLINGEL_ROLES`: what it schedules waits in the database for whoever dispatches."""
    secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    async with Receiver().running() as receiver:
        async with running_klingel(tmp_path, receiver=receiver) as klingel:
            task = await klingel.submit()
            path = klingel.callback_path()
        async with running_klingel(tmp_path, receiver=receiver, roles="web") as klingel:
            await klingel.endpoint(secret=secret)
            queued = await klingel.submit_async()
            answer = await klingel.http.post(path, json=succeed(task), headers={"authorization": ""})
            assert answer.status_code == 200
            [waiting] = await klingel.deliveries()
            assert (waiting["status"], receiver.received) == ("pending", [])
            assert (await klingel.http.get("/readyz")).status_code == 200
        async with running_klingel(tmp_path, receiver=receiver) as klingel:
            await klingel.until_status(queued["id"], "submitted")
            received = await receiver.until(2)
            assert {one.event["type"] for one in received} == {"task.succeeded", "task.submitted"}


async def test_many_endpoints_of_one_event_each_get_it_once(klingel: Klingel) -> None:
    """Promise 5: each matching endpoint."""
    await asyncio.gather(
        *(klingel.endpoint(config={"url": f"{klingel.receiver.url}/{number}"}) for number in range(25))
    )
    await klingel.submit()
    received = await klingel.receiver.until(25)
    assert sorted(one.path for one in received) == sorted(f"/hook/{number}" for number in range(25))
    assert len({one.headers["webhook-id"] for one in received}) == 1
    assert len({one.headers["webhook-signature"] for one in received}) == 25
