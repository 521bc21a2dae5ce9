"""`/healthz`, `/readyz`, `/metrics`: for machines that look after this one."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.domain.lifecycle import Verdict
from tests.integration.klingel import (
    Klingel,
    accepted,
    callback,
    refused,
    running_klingel,
    succeed,
)


async def metrics(klingel: Klingel) -> dict[str, float]:
    """Each sample by its name and labels, as it would be asked for."""
    async with klingel.client(None) as prometheus:
        response = await prometheus.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(response.text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def ready(klingel: Klingel) -> tuple[int, dict[str, Any]]:
    async with klingel.client(None) as prober:
        response = await prober.get("/readyz")
    return response.status_code, response.json()


async def test_a_running_klingel_is_alive_and_ready(klingel: Klingel) -> None:
    """Storage writable, dispatcher alive; each check by name."""
    async with klingel.client(None) as prober:
        alive = await prober.get("/healthz")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    status, answer = await ready(klingel)
    assert (status, answer["status"]) == (200, "ready")
    assert set(answer["checks"]) == {
        "storage",
        "batcher",
        "deliverer",
        "submitter",
        "deadlines",
        "expiry",
        "retention",
        "commands",
    }
    assert set(answer["checks"].values()) == {"ok"}


@pytest.mark.sqlite_alone
async def test_a_disk_that_cannot_be_written_is_not_ready_but_alive(klingel: Klingel) -> None:
    """Who looks after it takes it out of the line, and need not restart it: it comes back by itself."""
    await klingel.tamper("pragma query_only = on")
    status, answer = await ready(klingel)
    assert (status, answer["status"]) == (503, "not ready")
    assert answer["checks"]["storage"] == "failing"  # and not why: anybody may ask
    assert answer["checks"]["deliverer"] == "ok"
    async with klingel.client(None) as prober:
        assert (await prober.get("/healthz")).status_code == 200
    refusal = await klingel.http.post("/v1/tasks", json={"type": "kling.multi-image-to-image", "input": {}})
    assert refusal.status_code == 422  # said without the disk
    await klingel.tamper("pragma query_only = off")
    klingel.clock.advance(seconds=2)
    assert (await ready(klingel))[0] == 200


@pytest.mark.sqlite_alone
async def test_however_many_ask_the_disk_is_checked_once_in_a_while(klingel: Klingel) -> None:
    """Nobody needs a key for it: each check is a write that waits for the disk."""
    await klingel.tamper("create table checks (at integer)")
    for moment in ("insert", "update"):
        await klingel.tamper(
            f"create trigger on_{moment} after {moment} on readiness begin insert into checks values (1); end"
        )
    for number in (1, 2):
        answers = await asyncio.gather(*(ready(klingel) for _ in range(50)))
        assert {status for status, _ in answers} == {200}
        assert (await ready(klingel))[0] == 200
        assert len(klingel.rows("select * from checks")) == number
        klingel.clock.advance(seconds=2)


async def test_the_metrics_count_the_database_once_in_a_while(klingel: Klingel) -> None:
    """Nobody needs a key for them either."""
    await klingel.submit()
    assert (await metrics(klingel))["klingel_tasks{status=submitted}"] == 1
    await klingel.submit()
    samples = await metrics(klingel)
    assert samples["klingel_tasks{status=submitted}"] == 1
    assert samples["klingel_provider_calls_total{kind=create,outcome=accepted}"] == 2
    klingel.clock.advance(seconds=10)
    assert (await metrics(klingel))["klingel_tasks{status=submitted}"] == 2


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("deliveries.claim", "deliverer"),
        ("deliveries.start", "deliverer"),
        ("deliveries.pace", "deliverer"),
        ("submission", "submitter"),
        ("deadlines", "deadlines"),
        ("expiry", "expiry"),
        ("retention", "retention"),
        ("commands", "commands"),
    ],
)
async def test_a_process_with_a_loop_that_has_died_is_not_ready(
    klingel: Klingel, name: str, check: str
) -> None:
    """A process that takes callbacks and delivers nothing, or commands and submits nothing, looks healthy from the outside."""
    [loop] = [task for task in asyncio.all_tasks() if task.get_name() == name]
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    status, answer = await ready(klingel)
    assert status == 503
    assert [name for name, told in answer["checks"].items() if told != "ok"] == [check]


@pytest.mark.sqlite_alone
async def test_a_dispatcher_that_keeps_failing_is_not_ready_and_comes_back_by_itself(
    klingel: Klingel,
) -> None:
    """A fault of ours, not the disk's: it must not end deliveries for good."""
    await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(500)
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    await klingel.tamper(
        "create trigger fault before update on deliveries when new.lease_until is not null "
        "begin select raise(abort, 'a fault of ours'); end"
    )

    async def is_not_ready() -> bool:
        klingel.clock.advance(minutes=1)
        status, answer = await ready(klingel)
        return (status, answer["checks"]["deliverer"]) == (503, "stopped")

    await klingel.until(is_not_ready)
    await klingel.tamper("drop trigger fault")

    async def is_ready() -> bool:
        klingel.clock.advance(minutes=1)
        return (await ready(klingel))[0] == 200

    await klingel.until(is_ready)
    await klingel.until_deliveries("delivered")


async def test_a_process_is_ready_without_the_parts_that_its_roles_lack(tmp_path: Path) -> None:
    """`KLINGEL_ROLES`: what it does not do it cannot fail to do."""
    async with running_klingel(tmp_path, roles="web") as klingel:
        status, answer = await ready(klingel)
        assert (status, answer["checks"]) == (200, {"batcher": "ok", "storage": "ok"})


async def test_a_whole_run_asks_the_provider_nothing_and_a_refresh_asks_once(klingel: Klingel) -> None:
    """Promise 1, as its metric tells it: creates, callbacks, a late task, a lost answer, and still no query."""
    await klingel.endpoint()
    tasks = [await klingel.submit() for _ in range(3)]
    for word in ("processing", "succeed"):
        await klingel.call_back(callback(tasks[0], word), number=0)
    klingel.kling.answers(httpx.ReadTimeout("no answer"))
    lost = await klingel.submit_async()
    await klingel.until_status(lost["id"], "unconfirmed")
    klingel.kling.answers(refused(429, 1303))
    waiting = await klingel.submit_async()
    await klingel.until_row(waiting["id"], awaits_slot=1)
    klingel.clock.advance(hours=2)
    for task in (lost, waiting):
        await klingel.until_status(task["id"], "submitted")
    samples = await metrics(klingel)
    assert klingel.kling.status_queries == 0
    assert samples["klingel_provider_status_queries_total"] == 0
    assert samples["klingel_provider_calls_total{kind=status_query,outcome=ok}"] == 0
    assert samples["klingel_provider_calls_total{kind=status_query,outcome=failed}"] == 0
    assert samples["klingel_provider_calls_total{kind=create,outcome=accepted}"] == 5
    data = {"task_id": tasks[1]["provider_task_id"], "task_status": "processing", "task_result": {}}
    klingel.kling.answers(httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": data}))
    response = await klingel.http.post(f"/v1/tasks/{tasks[1]['id']}/refresh")
    assert (response.status_code, response.json()["status"]) == (200, "processing")
    assert klingel.kling.status_queries == 1
    samples = await metrics(klingel)
    assert samples["klingel_provider_status_queries_total"] == 1
    assert samples["klingel_provider_calls_total{kind=status_query,outcome=ok}"] == 1


async def test_the_metrics_have_the_names_that_dashboards_ask_for(klingel: Klingel) -> None:
    """Names and labels are seen by outsiders: a change breaks their alerts."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(500, 410)
    klingel.kling.answers(accepted("1"), refused(400, 1301))
    task = await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    await klingel.submit_async()
    await klingel.until_deliveries("dead", "dead")
    for body in (succeed(task), succeed(task), {"task_status": "canceled"}):
        await klingel.call_back(body, number=0)
    await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"enabled": True})
    await klingel.submit()
    await klingel.until_deliveries("dead", "dead", "delivered")
    samples = await metrics(klingel)
    for name, value in {
        "klingel_tasks{status=succeeded}": 1,
        "klingel_tasks{status=rejected}": 1,
        "klingel_tasks{status=submitted}": 1,
        "klingel_tasks{status=queued}": 0,
        "klingel_callbacks_total{verdict=advanced}": 1,
        "klingel_callbacks_total{verdict=duplicate}": 1,
        "klingel_callbacks_total{verdict=unreadable}": 1,
        "klingel_delivery_attempts_total{kind=webhook,outcome=retry}": 1,
        "klingel_delivery_attempts_total{kind=webhook,outcome=gone}": 1,
        "klingel_delivery_attempts_total{kind=webhook,outcome=delivered}": 1,
        "klingel_delivery_seconds_count{kind=webhook}": 1,
        "klingel_dead_letters": 2,
        "klingel_oldest_due_delivery_seconds": 0,
    }.items():
        assert samples[name] == value, name
    for name in ("klingel_commit_seconds_count", "klingel_batch_items_count"):
        assert samples[name] > 0


async def test_a_callback_of_a_forgotten_task_counts_as_turned_away(klingel: Klingel) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    klingel.clock.advance(days=400)
    await klingel.submit()  # the newest of the log stays
    await klingel.http.post("/v1/prune")
    assert (await klingel.call_back(succeed(task), number=0)).status_code == 404
    assert (await metrics(klingel))["klingel_callbacks_total{verdict=not_found}"] == 1


async def test_a_delivery_that_is_due_and_not_done_is_seen_to_grow_old(tmp_path: Path) -> None:
    """The alarm of a dispatcher that has fallen behind."""
    async with running_klingel(tmp_path, roles="web") as klingel:
        endpoint = await klingel.endpoint()
        await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
        klingel.clock.advance(seconds=90)
        assert (await metrics(klingel))["klingel_oldest_due_delivery_seconds"] == 90


async def test_what_alerts_look_at_is_there_before_it_happens(klingel: Klingel) -> None:
    """Prometheus takes what appears with its first count for no increase."""
    samples = await metrics(klingel)
    for outcome in ("accepted", "refused", "deferred", "unknown"):
        assert samples[f"klingel_provider_calls_total{{kind=create,outcome={outcome}}}"] == 0
    for verdict in (*Verdict, "not_found", "too_large"):
        assert samples[f"klingel_callbacks_total{{verdict={verdict}}}"] == 0


async def test_two_apps_in_one_process_count_each_their_own(klingel: Klingel, tmp_path: Path) -> None:
    """One registry for each, so that tests do not share, nor do two Klingels."""
    await klingel.submit()
    async with running_klingel(tmp_path / "other") as other:
        name = "klingel_provider_calls_total{kind=create,outcome=accepted}"
        assert (await metrics(klingel))[name] == 1
        assert (await metrics(other))[name] == 0
