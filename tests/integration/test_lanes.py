"""Lanes as their owners meet them: a dead host, an endpoint that is changed while much waits, answers that cannot be kept."""

import asyncio
import json
import sys
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from service.lane import BREAKS_AFTER, CONCURRENCY, DEPTH, SHARED_CONCURRENCY
from service.publication import LEASE
from storage.columns import moment
from tests.integration.klingel import (
    FakeKling,
    Klingel,
    ManualClock,
    Receiver,
    Turnstile,
    callback,
    running_klingel,
    succeed,
)
from tests.servers import start_server

FAULT = (
    "create trigger fault before insert on attempts when {} begin select raise(abort, 'a fault of ours'); end"
)


async def test_a_dead_host_of_many_tasks_rests_and_the_others_go_on(klingel: Klingel) -> None:
    """`callback_url`: each endpoint is met only a few times, the host they share is found out all the same."""
    async with Receiver().running() as dead:
        dead.always = 500
        for _ in range(BREAKS_AFTER):
            await klingel.submit(callback_url=dead.url)

        async def all_have_failed() -> bool:
            [row] = klingel.rows("select count(*) as number from attempts")
            return bool(row["number"] == BREAKS_AFTER)

        await klingel.until(all_have_failed)
        await klingel.submit(callback_url=dead.url)
        await klingel.submit(callback_url=klingel.receiver.url)
        await klingel.receiver.until(1)
        assert len(dead.received) == BREAKS_AFTER  # it rests
        klingel.clock.advance(seconds=1)
        await dead.until(BREAKS_AFTER + 1)


async def all_of_it_waits_for_a_dead_host(klingel: Klingel) -> None:
    """More than is ever attempted there, and due since a while."""
    klingel.receiver.always = 503
    for _ in range(BREAKS_AFTER):
        await klingel.submit(callback_url=klingel.receiver.url, deadline_s=7 * 86400)
    await klingel.receiver.until(BREAKS_AFTER)
    await klingel.tamper(
        HEAPED.format(attempts=1) + " where deliveries.id = (select max(id) from deliveries)"
    )


async def rests_end(klingel: Klingel, number: int) -> None:
    """One after another, each with an attempt."""
    failed = "select count(*) as number from attempts where outcome = 'retry'"
    for _ in range(number):
        [before] = klingel.rows(failed)

        async def one_more_has_failed(before: int = before["number"]) -> bool:
            return bool(klingel.rows(failed)[0]["number"] > before)

        klingel.clock.advance(seconds=31)
        await klingel.until(one_more_has_failed)


async def test_what_waits_at_a_host_that_stays_dead_for_longer_than_retries_take_becomes_dead_letters(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would pile up for ever: there is one attempt in 30 seconds for all of it."""
    monkeypatch.setattr("service.lanes.HOPELESS_AFTER", 4)
    await all_of_it_waits_for_a_dead_host(klingel)
    klingel.clock.advance(hours=33)
    await rests_end(klingel, 4)
    assert klingel.rows("select 1 from deliveries where status = 'dead'") == []  # none was due for so long
    klingel.clock.advance(minutes=10)

    async def all_but_those_in_hand_are_dead() -> bool:
        left = "select 1 from deliveries where attempts = 1 and status = 'pending' and lease_until is null"
        return not klingel.rows(left)

    await klingel.until(all_but_those_in_hand_are_dead)
    told = klingel.rows(
        "select distinct reason, attempts, next_attempt_at from deliveries where status = 'dead'"
    )
    reason = "its host fails, and its turn did not come within 33 hours"
    assert told == [{"reason": reason, "attempts": 1, "next_attempt_at": None}]
    dead = (await klingel.http.get("/v1/deliveries", params={"status": "dead", "limit": "1"})).json()["items"]
    klingel.receiver.always = 200
    replay = (await klingel.http.post(f"/v1/deliveries/{dead[0]['id']}/replay")).json()
    [attempt] = await klingel.until_attempts(replay["id"], 1)
    assert attempt["outcome"] == "delivered"


async def test_what_waited_long_for_a_host_that_has_not_failed_for_long_is_attempted(
    klingel: Klingel,
) -> None:
    """As after Klingel was down: it may be well again any moment."""
    await all_of_it_waits_for_a_dead_host(klingel)
    klingel.clock.advance(hours=40)
    await rests_end(klingel, 4)
    klingel.receiver.always = 200
    klingel.clock.advance(seconds=31)
    await klingel.receiver.until(BREAKS_AFTER + 4 + HEAP)
    assert klingel.rows("select 1 from deliveries where status = 'dead'") == []


@pytest.mark.parametrize("status", [404, 410])
async def test_urls_of_tasks_that_are_gone_hold_back_no_other_at_their_host(
    klingel: Klingel, status: int
) -> None:
    """Whoever answers like that is well, and knows nothing of that one URL."""
    klingel.receiver.always = status
    for _ in range(BREAKS_AFTER):
        await klingel.submit(callback_url=klingel.receiver.url)

    async def all_have_failed() -> bool:
        [row] = klingel.rows("select count(*) as number from attempts")
        return bool(row["number"] == BREAKS_AFTER)

    await klingel.until(all_have_failed)
    klingel.receiver.always = 200
    task = await klingel.submit(callback_url=klingel.receiver.url)
    received = await klingel.receiver.until(BREAKS_AFTER + 1)  # no rest: the clock stands still
    assert received[-1].event["data"]["task"]["id"] == task["id"]


async def test_a_host_that_hangs_keeps_no_more_than_its_share_of_attempts(klingel: Klingel) -> None:
    async with Receiver().running() as hanging:
        hanging.gate = asyncio.Event()
        await asyncio.gather(
            *(klingel.submit_async(callback_url=hanging.url) for _ in range(SHARED_CONCURRENCY + 10))
        )
        await hanging.until(SHARED_CONCURRENCY)
        await klingel.submit(callback_url=klingel.receiver.url)
        await klingel.receiver.until(1)
        assert len(hanging.received) == SHARED_CONCURRENCY
        hanging.gate.set()
        await hanging.until(SHARED_CONCURRENCY + 10)


# An endpoint that is changed


@asynccontextmanager
async def much_waits(klingel: Klingel) -> AsyncIterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """An endpoint with its hands full, and two events of each of 20 tasks."""
    klingel.receiver.gate = asyncio.Event()
    endpoint = await klingel.endpoint()
    tasks = []
    for _ in range(20):
        task = await klingel.submit()
        await klingel.call_back(callback(task, "processing"))
        tasks.append(task)
    await klingel.receiver.until(CONCURRENCY)
    yield endpoint, tasks


async def test_what_waits_goes_to_the_new_url_once_and_in_its_order(klingel: Klingel) -> None:
    async with Receiver().running() as new, much_waits(klingel) as (endpoint, tasks):
        response = await klingel.http.patch(
            f"/v1/endpoints/{endpoint['id']}", json={"config": {"url": new.url}}
        )
        assert response.status_code == 200
        for number, task in enumerate(tasks):  # behind what waits
            await klingel.call_back(succeed(task), number=number)
        assert klingel.receiver.gate is not None
        klingel.receiver.gate.set()
        await new.until(3 * len(tasks) - CONCURRENCY)
        await klingel.until_deliveries(*["delivered"] * 3 * len(tasks), limit="200")
        received = [*klingel.receiver.received, *new.received]
        assert len(klingel.receiver.received) == CONCURRENCY  # those that had begun
        assert len({one.headers["webhook-id"] for one in received}) == len(received) == 3 * len(tasks)
        for task in tasks:
            story = [one.event for one in received if one.event["data"]["task"]["id"] == task["id"]]
            assert [event["sequence"] for event in story] == [1, 2, 3]
        assert (
            klingel.state["dispatching"]["deliverer"]._lanes.recalled() == []
        )  # else each claim would give it back once more


async def test_what_waits_when_a_secret_is_rotated_is_signed_with_both(klingel: Klingel) -> None:
    async with much_waits(klingel) as (endpoint, tasks):
        await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
        assert klingel.receiver.gate is not None
        klingel.receiver.gate.set()
        received = await klingel.receiver.until(2 * len(tasks))
        signatures = [len(one.headers["webhook-signature"].split()) for one in received]
        assert signatures == [1] * CONCURRENCY + [2] * (2 * len(tasks) - CONCURRENCY)


async def test_what_waits_for_the_endpoint_of_a_task_goes_where_that_is_led_now(klingel: Klingel) -> None:
    """Its lane is another then: that of its new host."""
    klingel.receiver.gate = asyncio.Event()
    task = await klingel.submit(callback_url=klingel.receiver.url)
    await klingel.receiver.until(1)
    await klingel.call_back(callback(task, "processing"))
    [endpoint] = task["endpoints"]
    async with Receiver().running() as new:
        await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"config": {"url": new.url}})
        await klingel.call_back(succeed(task))
        received = await new.until(2)
        assert [one.event["sequence"] for one in received] == [2, 3]
        klingel.receiver.gate.set()
        await klingel.until_deliveries("delivered", "delivered", "delivered")
        assert len(klingel.receiver.received) == 1


async def test_what_waits_in_a_lane_that_an_earlier_klingel_named_otherwise_is_delivered(
    klingel: Klingel,
) -> None:
    """`:080` was another host than `:80`."""
    klingel.receiver.answers(500)
    await klingel.submit(callback_url=klingel.receiver.url)
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    await klingel.tamper("update deliveries set lane = 'acc_1/127.0.0.1:080'")
    klingel.clock.advance(seconds=6)
    await klingel.until_deliveries("delivered")


async def test_a_stored_url_whose_port_has_thousands_of_digits_holds_up_no_task(klingel: Klingel) -> None:
    """From before there was such a rule. No index of PostgreSQL's holds as much as it is long."""
    tasks = [await klingel.submit(callback_url=klingel.receiver.url) for _ in range(2)]
    await klingel.until_deliveries("delivered", "delivered")
    zeros = [sign for sign in map(chr, range(sys.maxunicode)) if unicodedata.decimal(sign, None) == 0]
    port = "".join(Random(0).choices(zeros, k=4000)) + "80"
    odd = json.dumps({"url": f"http://127.0.0.1:{port}/", "format": "standard"}, ensure_ascii=False)
    await klingel.tamper(f"update endpoints set config = '{odd}' where task_id = '{tasks[0]['id']}'")
    for number, task in enumerate(tasks):
        await klingel.call_back(succeed(task), number=number)
    assert [(await klingel.task(task["id"]))["status"] for task in tasks] == ["succeeded"] * 2
    assert (await klingel.receiver.until(3))[2].event["data"]["task"]["id"] == tasks[1]["id"]


async def test_a_replay_of_more_than_a_lane_holds_keeps_to_it(klingel: Klingel) -> None:
    """Made in one commit, and each goes out once."""
    endpoint = await klingel.endpoint(types=["task.succeeded"])
    for _ in range(DEPTH + 20):
        await klingel.submit()
    klingel.receiver.gate = asyncio.Event()
    since = {"since": "2026-01-01T00:00:00Z", "only": "all"}
    await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"types": ["task.submitted"]})
    response = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/replay", json=since)
    assert response.json() == {"replayed": DEPTH + 20}
    await klingel.receiver.until(CONCURRENCY)
    [held] = klingel.rows("select count(*) as number from deliveries where lease_until is not null")
    assert held["number"] <= DEPTH
    klingel.receiver.gate.set()
    received = await klingel.receiver.until(DEPTH + 20)
    assert len({one.headers["webhook-id"] for one in received}) == len(received) == DEPTH + 20


# An endpoint with a rate


def begun(klingel: Klingel, endpoint: Mapping[str, Any]) -> list[float]:
    """When each attempt there began, in seconds after the first."""
    statement = """
        select started_at from attempts join deliveries on deliveries.id = attempts.delivery_id
        where deliveries.endpoint_id = ? order by started_at
    """
    moments = [row["started_at"] for row in klingel.rows(statement, endpoint["id"])]
    return [(each - moments[0]) / 1000 for each in moments]


async def test_an_endpoint_with_a_rate_gets_its_events_one_by_one_and_the_others_theirs_at_once(
    klingel: Klingel,
) -> None:
    async with Receiver().running() as other:
        paced = await klingel.endpoint(types=["task.submitted"], rate_per_minute=20)
        await klingel.endpoint(config={"url": other.url}, types=["task.submitted"])
        tasks = [await klingel.submit() for _ in range(4)]
        await other.until(4)
        for number in range(2, 5):
            klingel.clock.advance(seconds=3)
            await klingel.receiver.until(number)
        await klingel.until_deliveries(*["delivered"] * 8)
    received = [one.event["data"]["task"]["id"] for one in klingel.receiver.received]
    assert received == [task["id"] for task in tasks]
    assert begun(klingel, paced) == [0, 3, 6, 9]


async def test_tests_replays_and_retries_keep_to_the_rate_too(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(types=["task.submitted"], rate_per_minute=2)
    klingel.receiver.answers(500)
    await klingel.submit()
    await klingel.receiver.until(1)
    path = f"/v1/endpoints/{endpoint['id']}"
    assert (await klingel.http.post(f"{path}/test")).status_code == 202
    replay = {"since": "2026-01-01T00:00:00Z", "only": "all"}
    assert (await klingel.http.post(f"{path}/replay", json=replay)).json() == {"replayed": 1}
    for number in range(2, 5):
        klingel.clock.advance(seconds=30)
        await klingel.receiver.until(number)
    await klingel.until_deliveries(*["delivered"] * 3)
    assert begun(klingel, endpoint) == [0, 30, 60, 90]
    types = [one.event["type"] for one in klingel.receiver.received]
    assert types == ["task.submitted", "endpoint.test", "task.submitted", "task.submitted"]


async def test_what_is_not_sent_at_all_takes_nothing_of_the_rate(klingel: Klingel) -> None:
    """Kling's own callback has words for tasks alone: what else it takes ends there."""
    config = {"url": klingel.receiver.url, "format": "kling"}
    endpoint = await klingel.endpoint(config=config, types=["*"], rate_per_minute=1)
    async with Receiver().running() as gone:
        gone.always = 410
        for number in range(1, 3):
            other = await klingel.endpoint(config={"url": gone.url}, types=["endpoint.test"])
            await klingel.http.post(f"/v1/endpoints/{other['id']}/test")
            await klingel.until_deliveries(*["delivered"] * number, endpoint_id=endpoint["id"])
    assert (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).status_code == 202
    await klingel.receiver.until(1)


async def test_an_endpoint_whose_rate_is_taken_away_gets_the_rest_at_once(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(types=["task.submitted"], rate_per_minute=1)
    for _ in range(DEPTH + 5):
        await klingel.submit()
    await klingel.receiver.until(1)
    changed = await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"rate_per_minute": None})
    assert changed.json()["rate_per_minute"] is None
    received = await klingel.receiver.until(DEPTH + 5)
    assert len({one.headers["webhook-id"] for one in received}) == len(received) == DEPTH + 5


async def test_an_endpoint_that_is_given_a_rate_keeps_to_it_in_what_waits_already(klingel: Klingel) -> None:
    """And keeps its record of failures: it is where it was, and what it answers says as much as before."""
    gate = klingel.receiver.gate = Turnstile()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(500)
    for _ in range(CONCURRENCY + 3):
        await klingel.submit_async()
    await klingel.receiver.until(CONCURRENCY)
    gate.let(1)

    async def has_failed() -> bool:
        shown = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
        return bool(shown["failures"] == 1)

    await klingel.until(has_failed)
    received = await klingel.receiver.until(CONCURRENCY + 1)  # the next one took its place
    changed = await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"rate_per_minute": 60})
    assert changed.json()["failures"] == 1
    gate.let(100)
    received = await klingel.receiver.until(CONCURRENCY + 2)
    klingel.clock.advance(seconds=1)
    received = await klingel.receiver.until(CONCURRENCY + 3)
    for _ in range(6):  # and the retry
        klingel.clock.advance(seconds=1)
    received = await klingel.receiver.until(CONCURRENCY + 4)
    await klingel.until_deliveries(*["delivered"] * (CONCURRENCY + 3))
    assert len({one.headers["webhook-id"] for one in received}) == len(received) - 1
    assert begun(klingel, endpoint)[: CONCURRENCY + 3] == [0] * (CONCURRENCY + 2) + [1]


async def test_what_waits_for_its_rate_is_sent_once_also_after_a_restart(tmp_path: Path) -> None:
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            endpoint = await klingel.endpoint(types=["task.submitted"], rate_per_minute=1)
            for _ in range(4):
                await klingel.submit()
            await receiver.until(1)
        assert len(receiver.received) == 1
        clock.advance(seconds=60)
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            for number in range(2, 5):
                await receiver.until(number)
                clock.advance(seconds=60)
            delivered = await klingel.until_deliveries(*["delivered"] * 4)
            assert [len(await klingel.attempts(one["id"])) for one in delivered] == [1] * 4
            assert begun(klingel, endpoint) == [0, 60, 120, 180]
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 4


async def test_what_waits_for_its_rate_for_longer_than_a_lease_is_sent_once(klingel: Klingel) -> None:
    await klingel.endpoint(types=["task.submitted"], rate_per_minute=1)
    for _ in range(3):
        await klingel.submit()
    await klingel.receiver.until(1)
    for number in (2, 3):
        klingel.clock.advance(seconds=LEASE.total_seconds())
        await klingel.receiver.until(number)
    delivered = await klingel.until_deliveries(*["delivered"] * 3)
    assert [len(await klingel.attempts(one["id"])) for one in delivered] == [1] * 3


async def test_what_waits_for_the_rate_of_a_deleted_endpoint_becomes_dead_letters_at_once(
    klingel: Klingel,
) -> None:
    endpoint = await klingel.endpoint(types=["task.submitted"], rate_per_minute=1)
    for _ in range(3):
        await klingel.submit()
    await klingel.receiver.until(1)
    assert (await klingel.http.delete(f"/v1/endpoints/{endpoint['id']}")).status_code == 204
    await klingel.until_deliveries("delivered", "dead", "dead")
    klingel.clock.advance(seconds=60)
    assert len(klingel.receiver.received) == 1


# What cannot be kept of an attempt


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that says exactly this, whatever it is asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_an_answer_whose_headers_are_not_utf_8_is_recorded_like_any_other(klingel: Klingel) -> None:
    answer = b"HTTP/1.1 503 Oops\r\ncontent-encoding: gzip\xff\r\ncontent-length: 0\r\n\r\n"
    async with answering(answer) as url:
        await klingel.endpoint(config={"url": url})
        await klingel.submit()
        [delivery] = await klingel.deliveries()
        [attempt] = await klingel.until_attempts(delivery["id"], 1)
    assert (attempt["status_code"], attempt["outcome"]) == (503, "retry")
    assert attempt["response_excerpt"] == "(gzip�-encoded, not unpacked)"


@pytest.mark.sqlite_alone
async def test_an_attempt_that_cannot_be_recorded_in_full_is_recorded_in_short(klingel: Klingel) -> None:
    """Whatever the fault of ours: the retry is planned, and those that ended beside it are as they were."""
    await klingel.tamper(FAULT.format("new.status_code = 500"))
    async with Receiver().running() as other:
        good = await klingel.endpoint(config={"url": other.url})
        bad = await klingel.endpoint()
        klingel.receiver.answers(500)
        await klingel.submit()
        [kept] = await klingel.until_deliveries("delivered", endpoint_id=good["id"])
        [delivery] = await klingel.deliveries(endpoint_id=bad["id"])
        [attempt] = await klingel.until_attempts(delivery["id"], 1)
    assert (attempt["status_code"], attempt["outcome"], attempt["response_excerpt"]) == (None, "retry", "")
    assert attempt["reason"] == "Klingel could not keep what was answered"
    [whole] = await klingel.attempts(kept["id"])
    assert whole["response_excerpt"] == "noted"
    klingel.clock.advance(seconds=6)
    await klingel.until_deliveries("delivered", endpoint_id=bad["id"])


@pytest.mark.sqlite_alone
async def test_what_follows_from_an_attempt_for_its_endpoint_does_not_cost_the_attempt(
    klingel: Klingel,
) -> None:
    """That the endpoint is to be disabled, or its others told, is a matter of its own."""
    await klingel.tamper(
        "create trigger fault before update on endpoints begin select raise(abort, 'a fault of ours'); end"
    )
    await klingel.endpoint()
    klingel.receiver.answers(500)
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=6)
    await klingel.receiver.until(2)


@pytest.mark.sqlite_alone
async def test_an_attempt_that_cannot_be_recorded_at_all_costs_none_that_ended_beside_it(
    klingel: Klingel,
) -> None:
    """Outcomes of the same moment share a commit. They are not sent again for the sake of one."""
    await klingel.tamper(FAULT.format("coalesce(new.status_code, 299) = 299"))
    gate = klingel.receiver.gate = asyncio.Event()
    number = 20
    for _ in range(number):
        await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(299)
    await klingel.submit()
    await klingel.receiver.until(number)
    gate.set()

    async def all_others_are_recorded() -> bool:
        statuses = [one["status"] for one in await klingel.deliveries()]
        return sorted(statuses) == ["delivered"] * (number - 1) + ["pending"]

    await klingel.until(all_others_are_recorded)


async def test_what_comes_to_wait_after_the_look_at_what_waits_is_claimed_all_the_same(
    klingel: Klingel,
) -> None:
    gate = klingel.receiver.gate = Turnstile()
    await klingel.endpoint(types=["task.submitted"])
    await asyncio.gather(*(klingel.submit_async() for _ in range(DEPTH + 1)))

    async def one_has_no_room() -> bool:
        [row] = klingel.rows(
            "select count(lease_until) as in_hand, count(*) as number from deliveries where status = 'pending'"
        )
        return bool(row == {"in_hand": DEPTH, "number": DEPTH + 1})

    await klingel.until(one_has_no_room)
    deliverer, batcher = klingel.state["dispatching"]["deliverer"], klingel.state["batcher"]
    lanes, delivered = (
        deliverer._lanes,
        "select count(*) as number from deliveries where status = 'delivered'",
    )
    asks, lanes.on_room = lanes.on_room, lambda: None
    gate.let(DEPTH // 2)

    async def half_of_it_is_empty() -> bool:
        return bool(klingel.rows(delivered) == [{"number": DEPTH // 2}])

    await klingel.until(half_of_it_is_empty)
    await batcher.run(deliverer._claims._claim, [])  # by who has seen nothing
    lanes.on_room = asks
    gate.let(DEPTH)
    await klingel.receiver.until(DEPTH + 1)


async def test_a_new_event_is_sent_at_once_however_many_retries_are_due(klingel: Klingel) -> None:
    """More than its lane holds: the endpoint was down for a while, and is well again."""
    endpoint = await klingel.endpoint(types=["task.submitted"])
    await klingel.submit()
    await klingel.until_deliveries("delivered")
    klingel.receiver.gate = asyncio.Event()
    await klingel.tamper(HEAPED.format(attempts=1))
    klingel.clock.advance(seconds=1)
    retries = await klingel.receiver.until(1 + CONCURRENCY // 2)
    assert {one.event["data"]["task"]["id"] for one in retries} == {retries[0].event["data"]["task"]["id"]}
    task = await klingel.submit()
    received = await klingel.receiver.until(2 + CONCURRENCY // 2)
    assert received[-1].event["data"]["task"]["id"] == task["id"]
    await klingel.http.delete(f"/v1/endpoints/{endpoint['id']}")
    klingel.receiver.gate.set()


async def test_a_retry_to_an_endpoint_that_was_busy_when_it_was_looked_for_keeps_its_moment(
    klingel: Klingel,
) -> None:
    """Busy when what waits was read, not busy any more when it was claimed: it will not ask, so the loop has to."""
    gate = klingel.receiver.gate = Turnstile()
    await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(500)
    await klingel.submit_async()
    gate.let(1)

    async def to_be_retried() -> datetime | None:
        rows = klingel.rows("select next_attempt_at from deliveries where attempts = 1")
        return moment(rows[0]["next_attempt_at"]) if rows else None

    at = await klingel.until(to_be_retried)
    await asyncio.gather(*(klingel.submit_async() for _ in range(DEPTH)))
    deliverer = klingel.state["dispatching"]["deliverer"]

    async def is_busy() -> bool:
        return bool(deliverer._lanes.full())

    await klingel.until(is_busy)
    async with klingel.writes_held() as are_waiting:
        next_look = asyncio.create_task(deliverer._claims._claim_due())
        await are_waiting("_claim", 1)
        gate.let(1)
        await are_waiting("_record", 1)
        assert not deliverer._lanes.full()
    assert await next_look == at
    gate.let(DEPTH)
    klingel.clock.advance(seconds=6)
    await klingel.receiver.until(DEPTH + 2)


async def test_what_a_resting_lane_holds_for_longer_than_a_lease_is_not_claimed_again_and_again(
    klingel: Klingel,
) -> None:
    """Each claim is a commit, for which all others wait."""
    await all_of_it_waits_for_a_dead_host(klingel)
    await rests_end(klingel, 2)
    held = {row["id"] for row in klingel.rows("select id from deliveries where lease_until is not null")}
    assert len(held) > DEPTH // 4
    commits: list[None] = []
    klingel.on_commit = lambda: commits.append(None)
    klingel.clock.now += LEASE  # nobody is woken, until
    await klingel.state["dispatching"]["deliverer"]._claims._claim_due()
    assert len(commits) <= 5
    now = round(klingel.clock.now.timestamp() * 1000)
    held_still = {row["id"] for row in klingel.rows("select id from deliveries where lease_until > ?", now)}
    assert len(held - held_still) <= 1  # the one that is tried


# One that takes no more, for which much waits


HEAP = 1500

HEAPED = f"""
    with recursive number (n) as (values (1) union all select n + 1 from number where n < {HEAP})
    insert into deliveries (
        id, account_id, event_id, event_type, task_id, endpoint_id, lane, status, attempts, next_attempt_at, replay_of,
        created_at
    )
    select id || n, account_id, event_id, event_type, task_id, endpoint_id, lane, 'pending', {{attempts}}, created_at, id,
        created_at
    from deliveries cross join number
"""


@pytest.mark.parametrize("how", ["switched off", "deleted"])
async def test_however_much_waits_for_an_endpoint_that_takes_no_more_becomes_dead_letters_unsent(
    klingel: Klingel, how: str
) -> None:
    endpoint = await klingel.endpoint()
    await klingel.submit()
    await klingel.until_deliveries("delivered")
    await klingel.tamper(HEAPED.format(attempts=0))
    path = f"/v1/endpoints/{endpoint['id']}"
    if how == "deleted":
        assert (await klingel.http.delete(path)).status_code == 204
    else:
        assert (await klingel.http.patch(path, json={"enabled": False})).is_success

    async def all_are_dead() -> bool:
        return not klingel.rows("select 1 from deliveries where status = 'pending' limit 1")

    await klingel.until(all_are_dead)
    told = klingel.rows(
        "select reason, count(*) as number from deliveries where status = 'dead' group by reason"
    )
    assert told == [{"reason": f"the endpoint was {how}", "number": HEAP}]
    assert len(klingel.receiver.received) == 1


async def test_what_still_comes_to_wait_for_one_that_is_off_is_buried_while_it_gets_its_test_and_others_theirs(
    klingel: Klingel,
) -> None:
    endpoint = await klingel.endpoint()
    await klingel.submit()
    await klingel.until_deliveries("delivered")
    assert (await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"enabled": False})).is_success
    klingel.receiver.answers(500, 500)
    assert (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).is_success
    async with Receiver().running() as second:
        second.answers(500)
        await klingel.endpoint(config={"url": second.url}, types=["task.submitted"])
        await klingel.submit()
        await second.until(1)
        await klingel.receiver.until(2)
        both = "select count(*) as number from attempts where outcome = 'retry'"

        async def both_are_to_be_retried() -> bool:
            return bool(klingel.rows(both) == [{"number": 2}])

        await klingel.until(both_are_to_be_retried)
        await klingel.tamper(
            HEAPED.format(attempts=0) + " where event_type = 'task.submitted' and status = 'delivered'"
        )
        klingel.clock.advance(seconds=6)
        await second.until(2)
        await klingel.receiver.until(3)  # the test, tried again
