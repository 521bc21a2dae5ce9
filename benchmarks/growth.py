"""A million tasks later: the same load on an empty database and on one with a long history, in turn.

And what is asked of such a database: pages of each list, and forgetting a sixth of everything while callbacks come in.
"""

import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter

from benchmarks.figures import Figure, most, percentile, ratio
from benchmarks.history import SPAN_DAYS, fill
from benchmarks.open_loop import send
from benchmarks.outbound import HOSTS, cleared
from benchmarks.plan import Plan, Stage
from benchmarks.processes import Klingel
from benchmarks.stores import opened
from benchmarks.tasks import Tasks
from benchmarks.wrk import press

TASKS = 1_000_000
CONNECTIONS = 64
KEPT_DAYS = 30  # what is older is forgotten: a sixth
STEADY = 200  # callbacks a second while it is
LEAST = 0.85
KEEPING = {"KLINGEL_RETENTION_DAYS": str(100 * SPAN_DAYS)}
LONGEST_PAGE_MS = 20
LOOKS = 9

PAGES = {
    "tasks": "/v1/tasks",
    "tasks, by status": "/v1/tasks?status=failed",
    "tasks, by type": "/v1/tasks?type=kling.multi-image-to-image",
    "tasks, by metadata": "/v1/tasks?metadata.customer=c77",
    "tasks, by external_task_id": "/v1/tasks?external_task_id=order-77",
    "tasks, of a span of time": "/v1/tasks?created_after={then}&created_before={later}",
    "tasks, by status and time": "/v1/tasks?status=failed&created_before={then}",
    "tasks on the drop-in paths": "/kling/v1/images/generations?pageNum=1&pageSize=30",
    "events": "/v1/events",
    "events, oldest first": "/v1/events?order=asc",
    "events, by type": "/v1/events?type=task.failed",
    "events of a task": "/v1/tasks/{task}/events",
    "callbacks of a task": "/v1/tasks/{task}/callbacks",
    "deliveries": "/v1/deliveries",
    "deliveries, dead letters": "/v1/deliveries?status=dead",
    "deliveries, pending": "/v1/deliveries?status=pending",
    "deliveries of a task": "/v1/deliveries?task_id={task}",
    "deliveries to an endpoint": "/v1/deliveries?endpoint_id={endpoint}",
    "endpoints": "/v1/endpoints",
}


def measure(plan: Plan) -> list[Figure]:
    number = 20_000 if plan.quick else TASKS
    what = f"{plan.database}, {number:,} tasks"
    with (
        plan.stage("growth, empty", hosts=HOSTS, **KEEPING) as young,
        plan.stage("growth", hosts=HOSTS, **KEEPING) as old,
    ):
        both = (young, old)
        old.klingel.subscribe(*old.world.hooks(1))
        tasks = [Tasks(stage.klingel, stage.world) for stage in both]
        fill(old, tasks[1], number)
        figures = [most(f"start to ready, {what}", [old.klingel.start()], None, unit="s", decimals=2)]
        figures += _pages(what, old.klingel)
        for stage in both:
            _subscribe_alone(stage.klingel, stage.world.hooks(HOSTS))
        figures.append(_claims(plan, what, both, tasks, heap=400 if plan.quick else 500))
        for stage in both:
            _subscribe_alone(stage.klingel, [stage.world.url + "/silent"])
        figures.append(_ingest(plan, what, both, tasks))
        figures += _forgetting(plan, what, old, tasks[1])
    return figures


def _subscribe_alone(one: Klingel, urls: Sequence[str]) -> None:
    for endpoint in one.call("GET", "/v1/endpoints")["items"]:
        one.call("DELETE", f"/v1/endpoints/{endpoint['id']}")
    one.subscribe(*urls)


def _pages(what: str, one: Klingel) -> list[Figure]:
    """Whole answers: what the database takes is less."""
    now = datetime.now(UTC)
    moments = {
        name: f"{now - timedelta(days=SPAN_DAYS / 2 - days):%Y-%m-%dT%H:%M:%SZ}"
        for name, days in (("then", 0), ("later", 1))
    }
    names = {
        **moments,
        "task": one.call("GET", "/v1/tasks?external_task_id=order-77")["items"][0]["id"],
        "endpoint": one.call("GET", "/v1/endpoints")["items"][0]["id"],
    }
    figures: list[Figure] = []
    for name, path in PAGES.items():
        times: list[float] = []
        for _ in range(LOOKS):
            began = perf_counter()
            answer = one.client.get(path.format(**names))
            times.append((perf_counter() - began) * 1000)
        label = f"a page of {name}, whole answer, {what}"
        if answer.status_code == 422:
            figures.append(
                Figure(label, "", "refused as too wide", target=f"≤ {LONGEST_PAGE_MS} ms", held=False)
            )
        else:
            assert answer.is_success, answer.text
            figures.append(most(label, times, LONGEST_PAGE_MS, unit="ms"))
    return figures


def _claims(plan: Plan, what: str, both: Sequence[Stage], tasks: Sequence[Tasks], *, heap: int) -> Figure:
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(plan.rounds + 1):
        for rate, stage, made in zip(rates, both, tasks, strict=True):
            passed = cleared(stage, made, heap, **KEEPING)
            if number:  # the first one warms up
                rate.append(passed.a_second)
    return ratio(
        f"webhooks claimed and sent, {what}", rates[1], rates[0], unit="a second when empty", least=LEAST
    )


def _ingest(plan: Plan, what: str, both: Sequence[Stage], tasks: Sequence[Tasks]) -> Figure:
    rates: tuple[list[float], list[float]] = ([], [])
    enough = plan.enough
    for number in range(plan.rounds + 1):
        for rate, stage, made in zip(rates, both, tasks, strict=True):
            callbacks = made.callbacks(round(enough * plan.seconds))
            pressed = press(
                stage.klingel.server, callbacks, connections=CONNECTIONS, seconds=plan.seconds, once=True
            )
            enough = max(enough, 2 * pressed.a_second)
            if number:  # the first one warms up
                rate.append(pressed.a_second)
    return ratio(
        f"callbacks, {CONNECTIONS} connections, {what}",
        rates[1],
        rates[0],
        unit="a second when empty",
        least=LEAST,
    )


def _forgetting(plan: Plan, what: str, stage: Stage, tasks: Tasks) -> list[Figure]:
    """Klingel forgets when it starts what it need not keep: begun anew each time, with more to forget and with nothing."""
    one = stage.klingel
    quiet: list[float] = []
    busy: list[float] = []
    before = _oldest(one)
    for number in range(plan.rounds):
        for times, days in ((quiet, 100 * SPAN_DAYS), (busy, KEPT_DAYS)):
            one.stop(signal.SIGKILL)
            one.start(KLINGEL_RETENTION_DAYS=str(days))
            send(one.server, tasks.callbacks(STEADY), a_second=STEADY)  # warm
            callbacks = tasks.callbacks(round(STEADY * plan.seconds))
            sent = send(one.server, callbacks, a_second=STEADY, seed=number)
            times.append(percentile([each.took_ms for each in sent], 0.99))
    assert _oldest(one) > before, "nothing was forgotten"
    ratios = [after / before for before, after in zip(quiet, busy, strict=True)]
    return [
        most(
            f"time to the answer while old rows are forgotten, 99th percentile, {STEADY} callbacks a second, {what}",
            ratios,
            2,
            unit="",
            decimals=2,
            measured=f"{median(busy):.1f} ms, otherwise {median(quiet):.1f} ms",
        )
    ]


def _oldest(one: Klingel) -> str:
    with opened(one.database) as store:
        found: str = store.one("select min(id) from deliveries")
        return found
