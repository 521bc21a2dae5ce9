"""Deadlines: a task that is late is told once, without asking anybody."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.integration.klingel import (
    FakeKling,
    Klingel,
    ManualClock,
    RunningClock,
    callback,
    refused,
    running_klingel,
    succeed,
)


async def until_overdue(klingel: Klingel, task_id: str) -> None:
    async def is_overdue() -> bool:
        return (await klingel.task(task_id))["overdue_at"] is not None

    await klingel.until(is_overdue)


async def test_a_late_task_is_told_once_and_nobody_is_asked(klingel: Klingel) -> None:
    """Promise 1 and at its deadline, to the second; the status stays."""
    await klingel.endpoint()
    task = await klingel.submit()
    klingel.clock.advance(seconds=899.999)
    other = await klingel.submit()
    assert (await klingel.task(task["id"]))["overdue_at"] is None
    klingel.clock.advance(milliseconds=1)
    await until_overdue(klingel, task["id"])
    late = await klingel.task(task["id"])
    assert (late["status"], late["overdue_at"]) == ("submitted", "2026-11-22T12:15:00.000Z")
    assert (await klingel.task(other["id"]))["overdue_at"] is None
    received = await klingel.receiver.until(3)
    [told] = [one.event for one in received if one.event["type"] == "task.overdue"]
    assert (told["sequence"], told["data"]["transition"]) == (2, None)
    shown = {name: value for name, value in late.items() if name not in {"input", "transitions", "children"}}
    assert told["data"]["task"] == shown
    klingel.clock.advance(seconds=900)
    await until_overdue(klingel, other["id"])
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.overdue"]
    assert klingel.kling.status_queries == 0


async def test_a_late_callback_still_counts(klingel: Klingel) -> None:
    """Overdue ends nothing; and what has ended is late no more."""
    task = await klingel.submit("kling.multi-image-to-video", deadline_s=60)
    klingel.clock.advance(seconds=60)
    await until_overdue(klingel, task["id"])
    for body in (callback(task, "processing"), succeed(task)):
        assert (await klingel.call_back(body)).status_code == 200
    events = await klingel.events(task["id"])
    assert [event["type"] for event in events] == [
        "task.submitted",
        "task.overdue",
        "task.processing",
        "task.succeeded",
    ]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert (await klingel.task(task["id"]))["overdue_at"] == "2026-11-22T12:01:00.000Z"


async def test_what_has_ended_in_time_is_never_overdue(klingel: Klingel) -> None:
    """Also when its callback and its deadline come at the same moment: one after the other, in one order."""
    ended, late = await klingel.submit(), await klingel.submit()
    await klingel.call_back(succeed(ended), number=0)
    klingel.clock.advance(days=1)
    await until_overdue(klingel, late["id"])
    assert await klingel.event_types(ended["id"]) == ["task.submitted", "task.succeeded"]


@pytest.mark.parametrize("status", ["queued", "unconfirmed"])
async def test_a_task_that_the_provider_may_not_even_have_is_overdue_too(
    klingel: Klingel, status: str
) -> None:
    """The caller waits for it all the same."""
    klingel.kling.otherwise = refused(429, 1303) if status == "queued" else httpx.ReadTimeout("no answer")
    task = await klingel.submit_async(deadline_s=30)
    await klingel.until_row(task["id"], status=status, sending_since=None, sends=1)
    klingel.clock.advance(seconds=30)
    await until_overdue(klingel, task["id"])
    assert (await klingel.task(task["id"]))["status"] == status
    assert (await klingel.event_types(task["id"]))[-1] == "task.overdue"


async def test_who_looks_too_early_comes_back_at_the_moment(tmp_path: Path) -> None:
    """As whenever something else has woken it: nothing wakes it again but the moment itself."""
    clock = RunningClock()
    async with running_klingel(tmp_path, clock=clock) as klingel:
        task = await klingel.submit(deadline_s=60)
        clock.advance(seconds=59.7)
        await until_overdue(klingel, task["id"])


async def test_many_are_late_at_once(klingel: Klingel) -> None:
    """More than one page of them, in one moment."""
    tasks = await asyncio.gather(*(klingel.submit_async(deadline_s=3600) for _ in range(210)))
    klingel.clock.advance(seconds=3600)

    async def all_told() -> list[str] | None:
        told = klingel.rows("select task_id from events where type = 'task.overdue'")
        return [row["task_id"] for row in told] if len(told) >= len(tasks) else None

    assert sorted(await klingel.until(all_told)) == sorted(task["id"] for task in tasks)


async def test_overdue_is_told_once_also_across_restarts(tmp_path: Path) -> None:
    """One task falls due while Klingel runs, one while it is stopped."""
    clock, kling = ManualClock(), FakeKling()
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        first = await klingel.submit(deadline_s=60)
        second = await klingel.submit(deadline_s=120)
        clock.advance(seconds=60)
        await until_overdue(klingel, first["id"])
    clock.advance(seconds=60)
    for _ in range(2):
        async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
            await until_overdue(klingel, second["id"])
            for task in (first, second):
                assert await klingel.event_types(task["id"]) == ["task.submitted", "task.overdue"]
    assert kling.status_queries == 0
