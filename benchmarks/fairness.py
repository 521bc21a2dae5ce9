"""Five healthy endpoints alone, then beside five hostile ones: one drips, one hangs, one fails, one never ends, one bombs; and
beside one that says nothing, for which tens of thousands wait.

A latency runs from an event's own moment, just before its commit, to its whole arrival at a healthy receiver. Callbacks come in
an open loop, well below what the machine can carry.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from statistics import median

from benchmarks.figures import Figure, percentile
from benchmarks.machine import LOAD, pinned
from benchmarks.open_loop import send
from benchmarks.plan import Plan, Stage
from benchmarks.processes import ROOT, Klingel, started, until
from benchmarks.tasks import Tasks
from tests.integration.hostile import hostile_receivers

HEALTHY = 5
A_SECOND = 30
HEAP = 40_000  # waits for the silent one
HEAPED_A_SECOND = 1500
MOST = 1.2


def measure(plan: Plan) -> list[Figure]:
    heap = 2000 if plan.quick else HEAP
    return [
        *_figures("five hostile ones", *_hostile(plan), rank=95),
        *_figures(f"a silent one for which {heap:,} wait", *_heaped(plan, heap), rank=99),
    ]


Times = list[list[float]]  # ms, of each round


def _hostile(plan: Plan) -> tuple[Times, Times]:
    alone: Times = []
    beside: Times = []
    with plan.stage("fairness", hosts=HEALTHY) as stage, hostile_process() as urls:
        one = stage.klingel
        one.subscribe(*stage.world.hooks(HEALTHY))
        tasks = Tasks(one, stage.world)
        hostile = [
            one.call("POST", "/v1/endpoints", config={"url": url}, enabled=False)["id"] for url in urls
        ]
        for number in range(plan.rounds + 1):
            plain = _latencies(plan, stage, tasks, seed=number)
            _switch(one, hostile, on=True)
            disturbed = _latencies(plan, stage, tasks, seed=number)
            _switch(one, hostile, on=False)
            if number:  # the first one warms up
                alone.append(plain)
                beside.append(disturbed)
    return alone, beside


def _heaped(plan: Plan, heap: int) -> tuple[Times, Times]:
    times: tuple[Times, Times] = ([], [])
    with (
        plan.stage("fairness, alone", hosts=HEALTHY) as plain,
        plan.stage("fairness, a heap", hosts=HEALTHY) as heaped,
    ):
        stages = (plain, heaped)
        tasks = [Tasks(stage.klingel, stage.world) for stage in stages]
        heaped.klingel.subscribe(heaped.world.url + "/silent")
        send(heaped.klingel.server, tasks[1].callbacks(heap), a_second=HEAPED_A_SECOND)
        for stage in stages:
            stage.klingel.subscribe(*stage.world.hooks(HEALTHY))
        for number in range(plan.rounds + 1):
            for taken, stage, made in zip(times, stages, tasks, strict=True):
                latencies = _latencies(plan, stage, made, seed=number)
                if number:  # the first one warms up
                    taken.append(latencies)
    return times


def _figures(beside: str, alone: Times, disturbed: Times, *, rank: int) -> list[Figure]:
    return [
        _figure(beside, "median", [median(times) for times in alone], [median(times) for times in disturbed]),
        _figure(
            beside,
            f"{rank}th percentile",
            [percentile(times, rank / 100) for times in alone],
            [percentile(times, rank / 100) for times in disturbed],
        ),
    ]


def _figure(neighbour: str, name: str, alone: Sequence[float], beside: Sequence[float]) -> Figure:
    ratios = [after / before for before, after in zip(alone, beside, strict=True)]
    return Figure(
        what=f"commit to healthy receiver beside {neighbour}, {name}",
        measured=f"{median(beside):.1f} ms, alone {median(alone):.1f} ms",
        result=f"{median(ratios):.2f}",
        spread=f"{min(ratios):.2f} to {max(ratios):.2f}",
        target=f"≤ {MOST}",
        held=median(ratios) <= MOST,
    )


def _latencies(plan: Plan, stage: Stage, tasks: Tasks, *, seed: int) -> list[float]:
    world = stage.world
    until(lambda: world.arrived() % HEALTHY == 0, "what was on its way")
    world.forget()
    callbacks = tasks.callbacks(round(A_SECOND * plan.seconds))
    send(stage.klingel.server, callbacks, a_second=A_SECOND, seed=seed)
    until(lambda: world.distinct() == HEALTHY * len(callbacks), "all webhooks of the healthy")
    times: list[float] = []
    for arrival in world.arrivals():
        moment = datetime.fromisoformat(json.loads(arrival["body"])["timestamp"])
        times.append((arrival["at"] - moment.timestamp()) * 1000)
    return times


def _switch(one: Klingel, endpoints: Sequence[str], *, on: bool) -> None:
    for endpoint_id in endpoints:
        one.call("PATCH", f"/v1/endpoints/{endpoint_id}", enabled=on)


@contextmanager
def hostile_process() -> Iterator[list[str]]:
    """Their URLs. A process of their own, so that their floods cost the healthy ones nothing but Klingel's own time."""
    command = [sys.executable, "-m", "benchmarks.fairness"]
    with started(pinned([LOAD], command), cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


async def _serve() -> None:
    async with hostile_receivers() as urls:
        print(json.dumps(list(urls.values())), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
