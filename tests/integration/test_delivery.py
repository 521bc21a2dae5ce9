"""Deliveries: signatures, retries, dead letters, replays."""

from standardwebhooks import Webhook

from tests.integration.klingel import Klingel, succeed


async def test_each_transition_reaches_the_endpoint_signed_and_in_order(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint()
    task = await klingel.submit()
    assert (await klingel.call_back(succeed(task))).status_code == 200
    received = await klingel.receiver.until(2)
    assert [one.event["type"] for one in received] == ["task.submitted", "task.succeeded"]
    assert [one.event["sequence"] for one in received] == [1, 2]
    assert received[1].event["data"]["task"]["outputs"][0]["url"] == "https://example.com/out.png"
    for one in received:
        assert one.headers["webhook-id"] == one.event["id"]
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


async def test_a_failed_attempt_is_made_again_at_its_moment_under_the_same_id(klingel: Klingel) -> None:
    await klingel.endpoint()
    klingel.receiver.answers(500, 200)
    await klingel.submit()
    await klingel.receiver.until(1)
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=7)
    first, second = await klingel.receiver.until(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    [delivery] = await klingel.until_deliveries("delivered")
    assert [a["outcome"] for a in await klingel.attempts(delivery["id"])] == ["retry", "delivered"]
