"""Live streams: from an event's own moment, just before its commit, until the last of all listeners has it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Figure, most, percentile
from benchmarks.machine import LOAD, pinned
from benchmarks.open_loop import send
from benchmarks.plan import Plan, Stage
from benchmarks.processes import KEY, ROOT, started, until
from benchmarks.tasks import Tasks

LISTENERS = 1000
A_SECOND = 4
LONGEST_MS = 100


class Listeners:
    """Use `listeners`."""

    def __init__(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        self._process = process
        self._number = number
        self._heard: list[tuple[float, int, float]] = []

    def heard_by_all(self, events: int) -> list[float]:
        """Milliseconds from each event's moment to its last listener."""

        def complete() -> bool:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self._heard += json.loads(self._process.stdout.readline())
            return sum(number for _, number, _ in self._heard) >= events * self._number

        self._heard = []
        until(complete, "each event at each listener", pause_s=0.5)
        return [(last - at) * 1000 for at, _, last in self._heard]


@contextmanager
def listeners(stage: Stage, number: int) -> Iterator[Listeners]:
    command = [sys.executable, "-m", "benchmarks.listeners", str(stage.klingel.port), KEY, str(number)]
    with started(pinned([LOAD], command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield Listeners(process, number)


def measure(plan: Plan) -> list[Figure]:
    number, events = (100, 10) if plan.quick else (LISTENERS, 40)
    p50: list[float] = []
    p99: list[float] = []
    with plan.stage("streams") as stage:
        tasks = Tasks(stage.klingel, stage.world)
        with listeners(stage, number) as heard:
            for seed in range(plan.rounds + 1):
                send(stage.klingel.server, tasks.callbacks(events), a_second=A_SECOND, seed=seed)
                times = heard.heard_by_all(events)
                if seed:  # the first one warms up
                    p50.append(percentile(times, 0.5))
                    p99.append(percentile(times, 0.99))
    what = f"{plan.database}, {number:,} listeners, {A_SECOND} events a second"
    return [
        most(f"commit to the last listener, median, {what}", p50, None, unit="ms"),
        most(f"commit to the last listener, 99th percentile, {what}", p99, LONGEST_MS, unit="ms"),
    ]
