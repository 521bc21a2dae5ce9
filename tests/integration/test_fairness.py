"""A slow, dead or hostile endpoint costs the others nothing."""

import asyncio

from service.lane import BREAKS_AFTER, CONCURRENCY
from tests.integration.hostile import hostile_receivers
from tests.integration.klingel import Klingel, succeed


async def test_a_healthy_endpoint_gets_everything_while_hostile_ones_hold_their_attempts(
    klingel: Klingel,
) -> None:
    """None of the hostile attempts can have ended by time-out: that takes minutes here."""
    async with hostile_receivers() as urls:
        for url in urls.values():
            await klingel.endpoint(config={"url": url})
        healthy = await klingel.endpoint()
        for _ in range(2 * CONCURRENCY):
            task = await klingel.submit()
            assert (await klingel.call_back(succeed(task))).status_code == 200
        received = await klingel.receiver.until(4 * CONCURRENCY)
        assert len({one.headers["webhook-id"] for one in received}) == 4 * CONCURRENCY
        found = await klingel.deliveries(endpoint_id=healthy["id"], limit="200")
        assert len(found) == 4 * CONCURRENCY


async def test_an_endpoint_gets_no_more_attempts_at_a_time_than_its_share(klingel: Klingel) -> None:
    await klingel.endpoint()
    klingel.receiver.gate = asyncio.Event()
    tasks = [await klingel.submit() for _ in range(CONCURRENCY + 3)]
    await klingel.receiver.until(CONCURRENCY)
    # One more round trip: had there been a further attempt, it would have come by now.
    await klingel.task(tasks[0]["id"])
    assert len(klingel.receiver.received) == CONCURRENCY
    klingel.receiver.gate.set()
    await klingel.receiver.until(CONCURRENCY + 3)


async def test_an_endpoint_that_only_fails_is_tried_now_and_then_until_it_is_well(klingel: Klingel) -> None:
    await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.always = 500
    for _ in range(BREAKS_AFTER):
        await klingel.submit()

    async def all_have_failed() -> bool:
        [endpoint] = (await klingel.http.get("/v1/endpoints")).json()["items"]
        return bool(endpoint["failures"] >= BREAKS_AFTER)

    await klingel.until(all_have_failed)
    klingel.receiver.gate = asyncio.Event()
    klingel.receiver.always = 200
    for _ in range(4):
        last = await klingel.submit()
    await klingel.task(last["id"])
    assert len(klingel.receiver.received) == BREAKS_AFTER  # it rests
    klingel.clock.advance(seconds=1)
    await klingel.receiver.until(BREAKS_AFTER + 1)
    await klingel.task(last["id"])
    assert len(klingel.receiver.received) == BREAKS_AFTER + 1  # one tries
    klingel.receiver.gate.set()
    await klingel.receiver.until(BREAKS_AFTER + 4)  # and the others follow
