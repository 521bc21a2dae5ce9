"""`/v1/deliveries`: every delivery with its attempts, in their order and at their moments."""

import asyncio
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from service.claims import CLAIM
from service.domain.deliveries import SCHEDULE
from service.domain.times import rfc3339
from storage.columns import milliseconds
from tests.integration.klingel import (
    FakeKling,
    Klingel,
    ManualClock,
    Receiver,
    callback,
    pointers,
    running_klingel,
    succeed,
)


async def replay(klingel: Klingel, delivery_id: str) -> dict[str, Any]:
    response = await klingel.http.post(f"/v1/deliveries/{delivery_id}/replay")
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/deliveries/{response.json()['id']}"
    delivery: dict[str, Any] = response.json()
    return delivery


async def first_attempt(klingel: Klingel) -> dict[str, Any]:
    """Of one event to the endpoint that is there: its delivery, after one attempt."""
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    [delivery] = await klingel.deliveries()
    return delivery


# What is shown


async def test_a_delivery_shows_what_became_of_it(klingel: Klingel) -> None:
    """Its attempts with time, duration, status, excerpt and why."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(503)
    task = await klingel.submit()
    [event] = await klingel.events(task["id"])
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=6)
    await klingel.until_deliveries("delivered")
    shown = (await klingel.http.get(f"/v1/deliveries/{delivery['id']}")).json()
    attempts = shown.pop("attempts")
    assert shown == {
        "id": delivery["id"],
        "event_id": event["id"],
        "event_type": "task.submitted",
        "task_id": task["id"],
        "endpoint_id": endpoint["id"],
        "status": "delivered",
        "attempt_count": 2,
        "next_attempt_at": None,
        "replay_of": None,
        "reason": "answered 200",
        "created_at": "2026-11-22T12:00:00.000Z",
        "finished_at": "2026-11-22T12:00:06.000Z",
    }
    assert [attempt.pop("duration_ms") < 15_000 for attempt in attempts] == [True, True]
    assert attempts == [
        {
            "number": 1,
            "started_at": "2026-11-22T12:00:00.000Z",
            "status_code": 503,
            "outcome": "retry",
            "reason": "answered",
            "response_excerpt": "noted",
        },
        {
            "number": 2,
            "started_at": "2026-11-22T12:00:06.000Z",
            "status_code": 200,
            "outcome": "delivered",
            "reason": "answered",
            "response_excerpt": "noted",
        },
    ]


async def test_deliveries_are_found_by_what_they_are_about(klingel: Klingel) -> None:
    good = await klingel.endpoint(types=["task.succeeded"])
    async with Receiver().running() as second:
        second.always = 410
        bad = await klingel.endpoint(config={"url": second.url})
        task = await klingel.submit()
        await klingel.until_deliveries("dead", endpoint_id=bad["id"])
        await klingel.call_back(succeed(task))
        other = await klingel.submit()
        await klingel.call_back(succeed(other))
        await klingel.until_deliveries("dead", "delivered", "delivered")
    event = (await klingel.events(task["id"]))[1]

    async def number(**query: str) -> int:
        return len(await klingel.deliveries(**query))

    assert await number(endpoint_id=good["id"]) == 2
    assert await number(endpoint_id=bad["id"]) == 1
    assert await number(status="dead") == 1
    assert await number(status="pending") == 0
    assert await number(task_id=task["id"]) == 2
    assert await number(event_id=event["id"]) == 1
    assert await number(task_id=task["id"], status="delivered") == 1
    assert await number(task_id=other["id"], endpoint_id=bad["id"]) == 0


async def test_deliveries_are_listed_page_by_page_newest_first(klingel: Klingel) -> None:
    """A page more only where there is one."""
    await klingel.endpoint()
    await asyncio.gather(*(klingel.submit() for _ in range(6)))
    whole = (await klingel.http.get("/v1/deliveries")).json()
    assert whole["next_cursor"] is None
    ids = [delivery["id"] for delivery in whole["items"]]
    assert ids == sorted(ids, reverse=True)
    first = (await klingel.http.get("/v1/deliveries", params={"limit": 3})).json()
    rest = (
        await klingel.http.get("/v1/deliveries", params={"limit": 3, "cursor": first["next_cursor"]})
    ).json()
    assert [delivery["id"] for delivery in first["items"] + rest["items"]] == ids
    assert rest["next_cursor"] is None


async def test_faults_of_a_query_are_told_at_once(klingel: Klingel) -> None:
    """A filter that is none is refused, rather than ignored and everything shown."""
    response = await klingel.http.get(
        "/v1/deliveries",
        params={"limit": "0", "cursor": "x", "status": "lost", "endpoint_id": "a b", "colour": "red"},
    )
    assert response.status_code == 422
    assert sorted(pointers(response)) == [
        f"#/query/{name}" for name in ("colour", "cursor", "endpoint_id", "limit", "status")
    ]


# When


async def test_the_whole_schedule_is_kept_and_then_it_is_a_dead_letter(klingel: Klingel) -> None:
    """5 s, 30 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h, each give or take a fifth."""
    await klingel.endpoint(filter="data.task.external_task_id == 'watched'", types=["task.submitted"])
    klingel.receiver.always = 500
    await klingel.submit(external_task_id="watched")
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    moments = [klingel.clock()]
    for number, span in enumerate(SCHEDULE, 2):
        [row] = klingel.rows("select next_attempt_at from deliveries")
        delay_ms = row["next_attempt_at"] - milliseconds(klingel.clock())
        assert 0.799 <= delay_ms / 1000 / span.total_seconds() <= 1.201
        klingel.clock.advance(milliseconds=delay_ms - 1)
        await klingel.submit()  # several commits: an attempt that were too early would begin meanwhile
        klingel.clock.advance(milliseconds=1)
        moments.append(klingel.clock())
        await klingel.until_attempts(delivery["id"], number)
    assert [attempt["started_at"] for attempt in await klingel.attempts(delivery["id"])] == [
        rfc3339(moment) for moment in moments
    ]
    [*_, dead] = await klingel.deliveries(status="dead")
    shown = (await klingel.http.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert dead["id"] == delivery["id"]
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["retry"] * 8 + ["dead"]
    assert (shown["status"], shown["attempt_count"], shown["next_attempt_at"]) == ("dead", 9, None)
    ids = {
        one.headers["webhook-id"] for one in klingel.receiver.received if one.event["id"] == shown["event_id"]
    }
    assert ids == {shown["event_id"]}


async def test_retry_after_is_obeyed_within_reason(klingel: Klingel) -> None:
    """RFC 9110, 10.2.3, and of 429 and 503 only, never earlier, at most a twentieth later, for an hour
    at most; what is none leaves the schedule as it is."""
    endpoint = await klingel.endpoint()
    date = format_datetime(klingel.clock().replace(minute=2), usegmt=True)
    for status, retry_after, least, most in (
        (503, "120", 120, 126),
        (429, "120", 120, 126),
        (503, date, 120, 126),
        (429, date, 120, 126),
        (503, "86400", 3600, 3780),
        (503, "0", 4, 6),  # "at once", again and again, would use up all attempts in seconds
        (429, "-5", 4, 6),
        (429, "soon", 4, 6),
        (500, "3600", 4, 6),
    ):
        klingel.receiver.answers(status, retry_after=retry_after)
        test = (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).json()
        delivery_id = test["delivery"]["id"]
        await klingel.until_attempts(delivery_id, 1)
        [row] = klingel.rows(
            "select next_attempt_at - created_at as ms from deliveries where id = ?", delivery_id
        )
        assert least * 1000 <= row["ms"] <= most * 1000, (status, retry_after)


# Order


async def test_first_attempts_keep_the_order_even_when_the_first_answer_is_slow(klingel: Klingel) -> None:
    """Per task and endpoint, in sequence order; other tasks do not wait."""
    gate = klingel.receiver.gate = asyncio.Event()
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.receiver.until(1)
    for body in (callback(task, "processing"), succeed(task)):
        await klingel.call_back(body)
    other = await klingel.submit()
    arrived = await klingel.receiver.until(2)
    # The other's event was scheduled last, and is here already: the first task's others would be, too.
    assert [one.event["data"]["task"]["id"] for one in arrived] == [task["id"], other["id"]]
    gate.set()
    received = await klingel.receiver.until(4)
    story = [one.event for one in received if one.event["data"]["task"]["id"] == task["id"]]
    assert [event["sequence"] for event in story] == [1, 2, 3]


async def test_a_failing_earlier_event_does_not_hold_back_the_terminal_one(klingel: Klingel) -> None:
    """Order holds for first attempts; a retry comes when it comes."""
    await klingel.endpoint()
    klingel.receiver.answers(500)
    task = await klingel.submit()
    await klingel.receiver.until(1)
    await klingel.call_back(succeed(task))
    received = await klingel.receiver.until(2)
    assert received[1].event["type"] == "task.succeeded"
    await klingel.until_deliveries("pending", "delivered")


async def test_a_slow_endpoint_costs_another_nothing(klingel: Klingel) -> None:
    """Promise 7: each has its own lane, with eight at a time."""
    gate = klingel.receiver.gate = asyncio.Event()
    slow = await klingel.endpoint()
    async with Receiver().running() as second:
        await klingel.endpoint(config={"url": second.url})
        await asyncio.gather(*(klingel.submit() for _ in range(30)))
        await second.until(30)
        await klingel.receiver.until(8)
        assert len(klingel.receiver.received) == 8
        assert len(await klingel.deliveries(endpoint_id=slow["id"], status="pending")) == 30
        gate.set()
        await klingel.receiver.until(30)


async def test_more_than_memory_holds_waits_in_the_database_and_keeps_its_order(klingel: Klingel) -> None:
    """`service.lane`: 128 of one endpoint in memory, the rest behind them in the database; while that is fetched,
    new events of the same tasks must not overtake. Each goes out once."""
    gate = klingel.receiver.gate = asyncio.Event()
    await klingel.endpoint()
    tasks = await asyncio.gather(*(klingel.submit() for _ in range(150)))
    number_of = {create["external_task_id"]: number for number, create in enumerate(klingel.kling.creates)}
    await klingel.receiver.until(8)
    [waiting] = klingel.rows("select count(*) as number from deliveries where lease_until is null")
    assert waiting["number"] >= 150 - 128
    gate.set()
    await asyncio.gather(
        *(klingel.call_back(succeed(task), number=number_of[task["id"]]) for task in reversed(tasks))
    )
    received = await klingel.receiver.until(300)
    assert len(received) == 300
    for task in tasks:
        story = [one.event for one in received if one.event["data"]["task"]["id"] == task["id"]]
        assert [event["sequence"] for event in story] == [1, 2]


# Replays


async def test_a_replay_is_a_new_delivery_under_the_same_message_id(klingel: Klingel) -> None:
    """Asked for by a person; the receiver can tell by the id that it has it already."""
    await klingel.endpoint()
    await first_attempt(klingel)
    [delivery] = await klingel.until_deliveries("delivered")
    again = await replay(klingel, delivery["id"])
    assert (again["replay_of"], again["event_id"]) == (delivery["id"], delivery["event_id"])
    first, second = await klingel.receiver.until(2)
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    await klingel.until_deliveries("delivered", "delivered")
    assert (await klingel.http.get(f"/v1/deliveries/{delivery['id']}")).json()["attempt_count"] == 1


async def test_a_dead_letter_can_be_replayed_and_has_the_whole_schedule_again(klingel: Klingel) -> None:
    """Promise 5: a dead letter can be seen and replayed."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(410, 500, 200)
    await first_attempt(klingel)
    [dead] = await klingel.until_deliveries("dead")
    response = await klingel.http.post(f"/v1/deliveries/{dead['id']}/replay")
    assert response.status_code == 409
    await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"enabled": True})
    again = await replay(klingel, dead["id"])
    await klingel.until_attempts(again["id"], 1)
    klingel.clock.advance(seconds=6)
    await klingel.until_deliveries("dead", "delivered")
    assert len(await klingel.attempts(again["id"])) == 2


# Across a restart


async def test_what_waits_for_its_moment_goes_out_after_a_restart(tmp_path: Path) -> None:
    """Promise 5: the table holds it, not the process."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        receiver.answers(500)
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.endpoint(types=["task.submitted"])
            await first_attempt(klingel)
        clock.advance(hours=1)
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            first, second = await receiver.until(2)
            assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
            [delivery] = await klingel.until_deliveries("delivered")
            assert [a["outcome"] for a in await klingel.attempts(delivery["id"])] == ["retry", "delivered"]


async def test_what_was_in_hand_when_klingel_died_goes_out_again_at_once(tmp_path: Path) -> None:
    """Promise 5, at least once: what is leased was in the hands of the process that is no more."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        receiver.gate = asyncio.Event()
        async with running_klingel(tmp_path / "a", clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.endpoint()
            task = await klingel.submit()
            await klingel.call_back(succeed(task))
            await receiver.until(1)
            folder = await klingel.snapshot(tmp_path / "b")
            receiver.gate.set()
            await klingel.until_deliveries("delivered", "delivered")
        async with running_klingel(folder, clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.until_deliveries("delivered", "delivered")
    ids = [one.headers["webhook-id"] for one in receiver.received]
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


async def test_what_comes_while_much_of_before_is_still_being_claimed_overtakes_none_of_it(
    tmp_path: Path,
) -> None:
    """Promise 6: what waits for a task's endpoint goes out before what comes in after the start."""
    clock, kling = ManualClock(), FakeKling()
    number = 20
    async with Receiver().running() as receiver:
        receiver.gate = asyncio.Event()
        async with running_klingel(tmp_path / "a", clock=clock, kling=kling, receiver=receiver) as klingel:
            for place in range(number):
                await klingel.endpoint(config={"url": f"{receiver.url}/{place}"}, types=["task.*"])
            tasks = [await klingel.submit() for _ in range(3 * CLAIM // number)]
            folder = await klingel.snapshot(tmp_path / "b")
            receiver.gate.set()
        receiver.received.clear()
        async with running_klingel(folder, clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.call_back(succeed(tasks[-1]))
            await receiver.until((len(tasks) + 1) * number)
        last = [one for one in receiver.received if one.event["data"]["task"]["id"] == tasks[-1]["id"]]
        for place in range(number):
            assert [one.event["sequence"] for one in last if one.path == f"/hook/{place}"] == [1, 2]


async def test_what_is_in_line_when_klingel_stops_is_given_back_unattempted(tmp_path: Path) -> None:
    """A stop is no failure: attempts on their way may end, the others are due as they were."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        gate = receiver.gate = asyncio.Event()
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.endpoint()
            await asyncio.gather(*(klingel.submit() for _ in range(12)))
            await receiver.until(8)
            klingel.controls.stop()
            gate.set()  # answered when nothing new is begun any more
        assert len(receiver.received) == 8
        assert klingel.rows("select id from deliveries where lease_until is not null") == []
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            delivered = await klingel.until_deliveries(*["delivered"] * 12)
            assert [len(await klingel.attempts(one["id"])) for one in delivered] == [1] * 12
    assert len({one.headers["webhook-id"] for one in receiver.received}) == len(receiver.received) == 12


async def test_what_waits_because_as_much_is_attempted_as_may_be_goes_out_when_that_is_recorded(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.delivery.ATTEMPTS_AT_A_TIME", 2)
    await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.gate = asyncio.Event()
    for _ in range(6):
        await klingel.submit()
    await klingel.receiver.until(2)
    klingel.receiver.gate.set()
    await klingel.until_deliveries(*["delivered"] * 6)
