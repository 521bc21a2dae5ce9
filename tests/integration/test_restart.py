"""A stop, or a power cut, at the awkward moment: what was acknowledged is there, and goes on."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.lowlevel import checkpoint

from service.domain.errors import ConfigurationError
from tests.integration.klingel import (
    IMAGE_INPUT,
    PATIENCE_S,
    FakeKling,
    Klingel,
    ManualClock,
    OpenCreate,
    Receiver,
    accepted,
    base64_png,
    callback,
    refused,
    running_klingel,
    succeed,
)


async def test_everything_is_there_again(tmp_path: Path) -> None:
    """Promise 2: a restart changes nothing that anybody can see."""
    clock, kling = ManualClock(), FakeKling()
    paths = ["/v1/tasks", "/v1/events", "/v1/endpoints", "/v1/deliveries", "/v1/keys"]

    async def seen(klingel: Klingel, task: dict[str, Any]) -> list[Any]:
        whole = [*paths, f"/v1/tasks/{task['id']}", f"/v1/tasks/{task['id']}/callbacks"]
        return [(await klingel.http.get(path)).json() for path in whole]

    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        await klingel.endpoint(config={"url": klingel.receiver.url, "headers": {"x-a": "b"}}, filter="data")
        task = await klingel.submit(metadata={"ü": [1, 2.5, None, {"x": True}]})
        await klingel.call_back(callback(task, "processing"))
        await klingel.call_back(succeed(task))
        await klingel.until_deliveries(*["delivered"] * 3)
        before = await seen(klingel, task)
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        assert await seen(klingel, task) == before


async def test_a_callback_that_was_acknowledged_survives_a_power_cut_at_once(tmp_path: Path) -> None:
    """Promise 2: 200 goes out after the commit; its event and its delivery were written with it."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        receiver.gate = asyncio.Event()
        async with running_klingel(tmp_path / "a", clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.endpoint(types=["task.succeeded"])
            task = await klingel.submit()
            assert (await klingel.call_back(succeed(task))).status_code == 200
            folder = await klingel.snapshot(tmp_path / "b")
            receiver.gate.set()
        async with running_klingel(folder, clock=clock, kling=kling, receiver=receiver) as klingel:
            assert (await klingel.task(task["id"]))["status"] == "succeeded"
            await klingel.until_deliveries("delivered")
            assert await klingel.verdicts(task["id"]) == ["advanced"]
            # The provider, who may not have had our 200, comes again.
            assert (await klingel.call_back(succeed(task))).status_code == 200
            assert await klingel.verdicts(task["id"]) == ["advanced", "duplicate"]
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1


async def test_a_submit_that_was_acknowledged_is_sent_after_a_power_cut(tmp_path: Path) -> None:
    """Promise 2, for tasks that wait: with their pictures, and in their order."""
    clock, kling = ManualClock(), FakeKling()
    kling.otherwise = refused(503, 5001, "maintenance")
    async with running_klingel(tmp_path / "a", clock=clock, kling=kling) as klingel:
        subjects = [{"subject_image": base64_png(7)}, {"subject_image": base64_png(8)}]
        task = await klingel.submit_async(input={"subject_image_list": subjects})
        await klingel.until_row(task["id"], sends=1, sending_since=None)
        folder = await klingel.snapshot(tmp_path / "b")
    kling.otherwise = None
    clock.advance(seconds=10)
    async with running_klingel(folder, clock=clock, kling=kling) as klingel:
        await klingel.until_status(task["id"], "submitted")
    assert len(kling.creates) == 2
    assert kling.creates[0] == kling.creates[1]
    assert kling.creates[1]["subject_image_list"] == subjects


@pytest.mark.parametrize(
    ("word", "status"), [("submitted", "submitted"), ("processing", "processing"), ("succeed", "succeeded")]
)
async def test_a_callback_that_overtook_the_creates_answer_survives_a_power_cut_before_that(
    tmp_path: Path, word: str, status: str
) -> None:
    """The create was on its way and its answer is lost for good; the callback told what it would have."""
    clock, kling = ManualClock(), FakeKling()
    thinking = OpenCreate(accepted("77"))
    kling.answers(thinking)
    async with running_klingel(tmp_path / "a", clock=clock, kling=kling) as klingel:
        task = await klingel.submit_async()
        await kling.until(1)
        body = callback(task | {"provider_task_id": "77"}, word)
        assert (await klingel.call_back(body)).status_code == 200
        folder = await klingel.snapshot(tmp_path / "b")
        thinking.end()
    async with running_klingel(folder, clock=clock, kling=kling) as klingel:
        row = await klingel.until_row(task["id"], sending_since=None)
        assert (row["status"], row["provider_task_id"], row["next_send_at"]) == (status, "77", None)
        assert await klingel.event_types(task["id"]) == [f"task.{status}"]
        clock.advance(hours=1)
        await klingel.submit()
    assert len(kling.creates) == 2


async def test_a_create_on_its_way_may_end_before_klingel_stops(tmp_path: Path) -> None:
    """An orderly stop waits for the answer that it is about to get."""
    clock, kling = ManualClock(), FakeKling()
    thinking = OpenCreate(accepted("77"))
    kling.answers(thinking)
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        task = await klingel.submit_async()
        await kling.until(1)
        [sending] = [one for one in asyncio.all_tasks() if one.get_name() == "submission"]
        sending.add_done_callback(lambda _: thinking.end())
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        assert (await klingel.task(task["id"]))["status"] == "submitted"
    assert len(kling.creates) == 1


async def test_a_create_that_was_about_to_begin_when_klingel_stops_is_sent_by_the_next(
    tmp_path: Path,
) -> None:
    """It was marked as on its way, and nothing of it was sent: nobody has to ask the provider about it."""
    clock, kling = ManualClock(), FakeKling()
    kling.answers(refused(429, 1302, "too fast"))
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        task = await klingel.submit_async()
        await klingel.until_row(task["id"], sends=1, sending_since=None)
        batcher, may_go_on = klingel.state["batcher"], asyncio.Event()

        async def hold(_tx: Any, items: Sequence[None]) -> Sequence[None]:
            await may_go_on.wait()
            return items

        held = asyncio.create_task(batcher.run(hold, None))
        clock.advance(minutes=5)
        async with asyncio.timeout(PATIENCE_S):
            while "_begin" not in batcher.waiting_kinds():
                await checkpoint()
        [sending] = [one for one in asyncio.all_tasks() if one.get_name() == "submission"]
        sending.add_done_callback(lambda _: may_go_on.set())
    await held
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        await klingel.until_status(task["id"], "submitted")
        assert await klingel.event_types(task["id"]) == ["task.submitted"]
    assert len(kling.creates) == 2


async def test_a_caller_who_waits_when_klingel_stops_is_answered(tmp_path: Path) -> None:
    """202: the task is stored, and goes on after the restart."""
    clock, kling = ManualClock(), FakeKling()
    kling.otherwise = httpx.ConnectError("refused")
    async with running_klingel(tmp_path, clock=clock, kling=kling, submit_wait=600) as klingel:
        body = {
            "type": "kling.multi-image-to-image",
            "input": {"subject_image_list": [{"subject_image": "https://example.com/a.png"}] * 2},
        }
        waiting = asyncio.create_task(klingel.http.post("/v1/tasks", json=body))
        await kling.until(1)
        klingel.controls.stop_streams()
        response = await waiting
        assert (response.status_code, response.json()["status"]) == (202, "queued")
    kling.otherwise = None
    clock.advance(minutes=1)
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        await klingel.until_status(response.json()["id"], "submitted")


async def test_once_klingel_is_told_to_stop_no_create_and_no_attempt_begins(tmp_path: Path) -> None:
    """What comes in meanwhile is stored, and goes out after the restart, once."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            task = await klingel.submit()
            await klingel.endpoint()
            klingel.controls.stop()
            assert (await klingel.call_back(succeed(task))).status_code == 200
            waiting = await klingel.submit_async()
        assert (len(kling.creates), receiver.received) == (1, [])
        async with running_klingel(tmp_path, clock=clock, kling=kling, receiver=receiver) as klingel:
            await klingel.until_status(waiting["id"], "submitted")
            await klingel.until_deliveries(*["delivered"] * 2)
    assert len(kling.creates) == 2
    assert sorted(one.event["type"] for one in receiver.received) == ["task.submitted", "task.succeeded"]


async def test_tasks_that_wait_for_a_place_still_wait_after_a_restart(tmp_path: Path) -> None:
    """The line is in the database: the next terminal callback releases its first, as before."""
    clock, kling = ManualClock(), FakeKling()
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        running = await klingel.submit()
        kling.answers(refused(429, 1303))
        waiting = [await klingel.submit_async()]
        await klingel.until_row(waiting[0]["id"], awaits_slot=1)
        waiting.append(await klingel.submit_async())
        await klingel.until_row(waiting[1]["id"], awaits_slot=1)
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        assert (await klingel.call_back(succeed(running), number=0)).status_code == 200
        await klingel.until_status(waiting[0]["id"], "submitted")
        assert klingel.row(waiting[1]["id"])["awaits_slot"] == 1
    assert len(kling.creates) == 3


async def test_once_all_is_sealed_anew_a_former_secret_is_not_needed_any_more(tmp_path: Path) -> None:
    """As docs/security.md has it; what was answered under an Idempotency-Key is not sealed anew, and told as it is by then."""
    clock, kling = ManualClock(), FakeKling()
    new = "quite-another-secret-0123"
    once = {"idempotency-key": "order-1"}
    body = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}
    async with Receiver().running() as receiver:
        settings: dict[str, Any] = {"clock": clock, "kling": kling, "receiver": receiver}
        async with running_klingel(tmp_path, **settings) as klingel:
            config = {"url": receiver.url, "headers": {"x-token": "stored"}}
            endpoint = await klingel.endpoint(config=config, types=["endpoint.test"])
            first = await klingel.http.post("/v1/tasks", json=body, headers=once)
        async with running_klingel(
            tmp_path, **settings, secret=f"{new},a-secret-for-tests-0123456789"
        ) as klingel:
            path = f"/v1/endpoints/{endpoint['id']}"
            assert (await klingel.http.post(f"{path}/rotate-secret")).status_code == 200
        async with running_klingel(tmp_path, **settings, secret=new) as klingel:
            assert (await klingel.http.post(f"{path}/test")).status_code == 202
            [received] = await receiver.until(1)
            assert received.headers["x-token"] == "stored"
            assert len(received.headers["webhook-signature"].split()) == 2
            again = await klingel.http.post("/v1/tasks", json=body, headers=once)
            assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert len(kling.creates) == 1


async def test_secrets_sealed_under_another_secret_are_said_so_and_nothing_is_lost(tmp_path: Path) -> None:
    """`KLINGEL_SECRET` was changed without listing the former one: deliveries wait until it is."""
    clock, kling = ManualClock(), FakeKling()
    async with Receiver().running() as receiver:
        receiver.answers(500)
        settings: dict[str, Any] = {"clock": clock, "kling": kling, "receiver": receiver}
        async with running_klingel(tmp_path, **settings) as klingel:
            await klingel.endpoint(types=["task.submitted"])
            await klingel.submit()
            [delivery] = await klingel.deliveries()
            await klingel.until_attempts(delivery["id"], 1)
        clock.advance(minutes=1)
        async with running_klingel(tmp_path, **settings, secret="quite-another-secret-0123") as klingel:
            attempts = await klingel.until_attempts(delivery["id"], 2)
            assert attempts[1]["outcome"] == "retry"
        clock.advance(minutes=1)
        both = "quite-another-secret-0123,a-secret-for-tests-0123456789"
        async with running_klingel(tmp_path, **settings, secret=both) as klingel:
            await klingel.until_deliveries("delivered")
    assert len(receiver.received) == 2


@pytest.mark.sqlite_alone
async def test_two_klingels_on_one_file_are_one_too_many(tmp_path: Path) -> None:
    """A SQLite file serves one process at a time: the second would rescue what the first has in hand."""
    async with running_klingel(tmp_path) as klingel:
        with pytest.raises(ConfigurationError, match="in use"):
            async with running_klingel(tmp_path):
                pass
        await klingel.submit()
