"""A system clock that is set forward or back while Klingel runs."""

import asyncio

from tests.integration.klingel import Klingel, succeed


async def test_a_clock_set_forward_does_not_send_twice_what_is_on_its_way(klingel: Klingel) -> None:
    """Leases seem to have ended; their deliveries are still in hand."""
    await klingel.endpoint()
    klingel.receiver.gate = asyncio.Event()
    task = await klingel.submit()
    await klingel.receiver.until(1)
    klingel.clock.advance(minutes=50)
    # A round trip through everything: the claim that the moved clock provoked has been made by then.
    await klingel.call_back(succeed(task))
    klingel.receiver.gate.set()
    await klingel.until_deliveries("delivered", "delivered")
    assert len(klingel.receiver.received) == 2


async def test_a_clock_set_back_does_not_hold_up_new_events(klingel: Klingel) -> None:
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.receiver.until(1)
    klingel.clock.advance(hours=-1)
    assert (await klingel.call_back(succeed(task))).status_code == 200
    await klingel.receiver.until(2)
    await klingel.until_deliveries("delivered", "delivered")
    other = await klingel.submit()
    assert other["status"] == "submitted"


async def test_a_retry_waits_by_the_clock_that_is_set_back_and_is_made(klingel: Klingel) -> None:
    await klingel.endpoint()
    klingel.receiver.answers(500)
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(hours=-1)
    klingel.clock.advance(hours=1, seconds=7)
    await klingel.until_deliveries("delivered")


async def test_a_task_is_marked_overdue_once_however_the_clock_jumps(klingel: Klingel) -> None:
    task = await klingel.submit(deadline_s=1800)
    klingel.clock.advance(hours=1)

    async def overdue() -> bool:
        return "task.overdue" in await klingel.event_types(task["id"])

    await klingel.until(overdue)
    klingel.clock.advance(hours=-1)
    klingel.clock.advance(hours=1)
    await klingel.call_back(succeed(task))
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.overdue", "task.succeeded"]
