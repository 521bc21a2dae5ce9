"""Forgetting what is old: in order, in bounded steps, and nothing that is still needed."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.domain.ids import first_id, new_task_id
from service.domain.times import utc_now
from tests.integration.klingel import (
    Klingel,
    base64_png,
    callback,
    picture,
    refused,
    running_klingel,
    succeed,
)


async def counts(klingel: Klingel) -> dict[str, int]:
    answer = await klingel.http.post("/v1/prune")
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()
    return found


def test_an_id_made_now_sorts_after_the_first_id_of_now() -> None:
    before = first_id("task", utc_now())
    assert before < new_task_id()


async def test_nothing_young_is_forgotten(klingel: Klingel) -> None:
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    await klingel.until_deliveries("delivered", "delivered")
    klingel.clock.advance(days=29)
    assert set((await counts(klingel)).values()) == {0}


async def test_events_deliveries_and_callbacks_go_after_their_days_and_tasks_after_theirs(
    klingel: Klingel,
) -> None:
    await counts(klingel)  # after the one that every start begins
    await klingel.endpoint()
    first = await klingel.submit(callback_url=klingel.receiver.url, metadata={"customer": "7"})
    await klingel.call_back(succeed(first))
    second = await klingel.submit()
    await klingel.call_back(succeed(second))
    await klingel.until_deliveries(*["delivered"] * 6)
    klingel.clock.now += timedelta(days=31)  # nobody is woken: what is counted is this order's work alone
    forgotten = await counts(klingel)
    # The newest event stays: the log's positions go on from it.
    assert forgotten == {
        "deliveries": 6, "callbacks": 2, "events": 3, "endpoints": 1, "commands": 0, "idempotency_keys": 0,
        "ended_sessions": 0, "tasks": 0, "kept_files": 0, "input_files": 0,
    }  # fmt: skip
    assert (await klingel.task(first["id"]))["status"] == "succeeded"
    klingel.clock.now += timedelta(days=365)
    assert (await counts(klingel))["tasks"] == 1
    assert (await klingel.http.get(f"/v1/tasks/{first['id']}")).status_code == 404
    assert klingel.rows("select * from task_metadata") == []


async def test_a_task_that_ended_late_is_kept_as_long_as_any_other(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, retention_days=1, task_retention_days=7) as klingel:
        await counts(klingel)  # after the one that every start begins
        task = await klingel.submit()
        klingel.clock.now += timedelta(days=8)
        await klingel.call_back(callback(task, "failed"))
        await klingel.submit()  # the log never loses its newest event
        klingel.clock.now += timedelta(days=6)
        forgotten = await counts(klingel)
        assert (forgotten["events"], forgotten["tasks"]) == (2, 0)
        klingel.clock.now += timedelta(days=2)
        assert (await counts(klingel))["tasks"] == 1
        assert (await klingel.http.get(f"/v1/tasks/{task['id']}")).status_code == 404


async def test_what_was_told_of_a_task_that_goes_on_is_kept_however_old_it_is(klingel: Klingel) -> None:
    """Whoever reads its story reads it from its beginning, and it is as old as its end will be."""
    await counts(klingel)  # after the one that every start begins
    task = await klingel.submit()
    klingel.clock.now += timedelta(days=400)
    await klingel.submit()  # the log never loses its newest event
    assert set((await counts(klingel)).values()) == {0}
    assert await klingel.event_types(task["id"]) == ["task.submitted"]


async def test_a_task_that_still_waits_to_be_accepted_is_kept_however_old_it_is(tmp_path: Path) -> None:
    """Nothing has been told of it yet that would keep it."""
    month_s = 30 * 86_400
    async with running_klingel(
        tmp_path, retention_days=1, task_retention_days=1, queue_max_age=month_s
    ) as klingel:
        await counts(klingel)  # after the one that every start begins
        klingel.kling.otherwise = refused(429, 1303)
        task = await klingel.submit_async()
        await klingel.until_row(task["id"], sends=1, sending_since=None)
        klingel.clock.now += timedelta(days=29)
        assert (await counts(klingel))["tasks"] == 0
        assert (await klingel.task(task["id"]))["status"] == "queued"


async def test_what_still_waits_is_kept_however_old_it_is(klingel: Klingel) -> None:
    """A delivery, and the event that it is about: not what else was told of a task that has ended."""
    await klingel.endpoint(types=["task.succeeded"])
    klingel.receiver.always = 500
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    await klingel.submit()  # the log never loses its newest event
    klingel.clock.now = klingel.clock.now.replace(
        year=2030
    )  # the moment of the retry is not told: nobody is woken
    await counts(klingel)
    assert await klingel.event_types(task["id"]) == ["task.succeeded"]
    assert [one["id"] for one in await klingel.deliveries()] == [delivery["id"]]


async def test_the_log_goes_on_where_it_was_after_everything_was_forgotten(klingel: Klingel) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    await counts(klingel)  # behind the order that each start gives
    klingel.clock.now += timedelta(days=1000)  # nobody is woken, to forget once more and later
    await counts(klingel)
    last = (await klingel.http.get("/v1/events")).json()["items"][0]
    await klingel.submit()
    page = (await klingel.http.get("/v1/events", params={"order": "asc"})).json()["items"]
    assert [event["type"] for event in page] == ["task.succeeded", "task.submitted"]
    assert page[0]["id"] == last["id"]


async def test_it_happens_by_itself_once_a_day(klingel: Klingel) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    klingel.clock.advance(days=31)

    async def forgotten() -> bool:
        answer = await klingel.http.get(f"/v1/tasks/{task['id']}/callbacks")
        return answer.json()["items"] == []

    assert await klingel.until(forgotten)


async def test_an_input_file_goes_with_the_last_task_that_needs_it(tmp_path: Path) -> None:
    """But for a young one: a submit may be about to refer to it."""
    subjects = [{"subject_image": base64_png()}, {"subject_image": picture()}]

    def kept() -> list[Path]:
        return [path for path in (tmp_path / "inputs").rglob("*") if path.is_file()]

    async def ended() -> dict[str, Any]:
        task = await klingel.submit(input={"subject_image_list": subjects})
        await klingel.call_back(succeed(task))
        return task

    async with running_klingel(tmp_path, retention_days=1, task_retention_days=7) as klingel:
        await counts(klingel)  # after the one that every start begins
        await ended()
        klingel.clock.now += timedelta(days=4)
        await ended()
        await klingel.submit()  # the log never loses its newest event
        [file] = kept()
        for days, is_old, forgotten, left in (
            (4, True, {"tasks": 1, "input_files": 0}, [file]),
            (4, False, {"tasks": 1, "input_files": 0}, [file]),
            (0, True, {"tasks": 0, "input_files": 1}, []),
        ):
            klingel.clock.now += timedelta(days=days)
            os.utime(file, (0, 0) if is_old else None)
            found = await counts(klingel)
            assert found | forgotten == found
            assert kept() == left
