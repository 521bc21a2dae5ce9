"""The way out alone: Klingel comes back to a heap of webhooks that it could not deliver before.

They were stored while their receivers said nothing; then Klingel was killed. From the first one that arrives to the last recorded
outcome, each is claimed, signed, judged by the guard, sent, its answer read, recorded and logged. The baseline is a bare client
that sends the same signed bytes to the same receivers, as many at a time, and does nothing else.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, beside
from benchmarks.machine import SERVERS, pinned, processor_s
from benchmarks.open_loop import send
from benchmarks.plan import Plan, Stage
from benchmarks.processes import ROOT, until
from benchmarks.tasks import Tasks

HOSTS = 8  # 8 attempts of each endpoint at a time
AT_A_TIME = 64
FEW = 500  # enough requests for the bare client to repeat


def measure(plan: Plan) -> list[Figure]:
    heap = 400 if plan.quick else 2000  # callbacks; each one is a webhook to each host
    out: list[Cleared] = []
    alone: list[Cleared] = []
    with plan.stage("outbound", hosts=HOSTS) as stage:
        stage.klingel.subscribe(*stage.world.hooks(HOSTS))
        tasks = Tasks(stage.klingel, stage.world)
        until(lambda: stage.world.arrived() == HOSTS, "the webhooks of the first task")
        for number in range(plan.rounds + 1):
            passed = cleared(stage, tasks, heap)
            base = _bare(stage.folder, stage.world.arrivals()[:FEW], heap * HOSTS)
            if number:  # the first one warms up
                out.append(passed)
                alone.append(base)
    return beside(f"webhooks, {plan.database}, {AT_A_TIME} at a time", out, alone, least=0.45)


@dataclass(frozen=True, slots=True)
class Cleared:
    """Webhooks in a second, and microseconds of processor time for each."""

    a_second: float
    each_us: float


def cleared(stage: Stage, tasks: Tasks, heap: int, **settings: str) -> Cleared:
    one, world = stage.klingel, stage.world
    until(lambda: not one.pending(), "all outcomes of the last round")
    world.answers(whether=False)
    world.forget()
    send(one.server, tasks.callbacks(heap), a_second=2000)
    one.stop(signal.SIGKILL)
    world.answers(whether=True)
    one.start(**settings)
    ran, began = processor_s(one.server.pid), world.arrived()
    until(lambda: world.arrived() >= heap * HOSTS, "all webhooks")
    until(lambda: not one.pending(), "all outcomes")
    seconds, ran = world.span(), processor_s(one.server.pid) - ran
    assert world.distinct() == heap * HOSTS, "a webhook is lost"
    return Cleared(heap * HOSTS / seconds, ran / (heap * HOSTS - began) * 1e6)


def _bare(folder: Path, arrivals: Sequence[dict[str, Any]], number: int) -> Cleared:
    with tempfile.NamedTemporaryFile("w", dir=folder) as file:
        for arrival in arrivals:
            first, *lines = arrival["head"].strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            file.write(
                json.dumps({"url": _url(first, headers), "headers": headers, "body": arrival["body"]}) + "\n"
            )
        file.flush()
        command = [sys.executable, "-m", "benchmarks.sender", file.name, str(number), str(AT_A_TIME)]
        done = subprocess.run(
            pinned([SERVERS], command), cwd=ROOT, capture_output=True, text=True, check=True
        )
    told = json.loads(done.stdout)
    return Cleared(told["a_second"], told["each_us"])


def _url(first_line: str, headers: dict[str, str]) -> str:
    host = next(value for name, value in headers.items() if name.lower() == "host")
    return f"http://{host}{first_line.split()[1]}"
