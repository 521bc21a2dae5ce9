"""Submits that do not wait for the provider (`Prefer: respond-async`): a task on disk for each 202.

Meanwhile Klingel sends creates as fast as the provider, which takes 250 ms for each, lets it.
"""

import json

from benchmarks.figures import Figure, beside, most
from benchmarks.plan import Plan
from benchmarks.processes import authorized, bare
from benchmarks.tasks import SUBMIT, stored
from benchmarks.wrk import Pressed, post, press

CONNECTIONS = 64


def measure(plan: Plan) -> list[Figure]:
    taken: list[Pressed] = []
    alone: list[Pressed] = []
    with plan.stage("submit") as stage, bare() as baseline:
        one = stage.klingel
        body = json.dumps(SUBMIT).encode()
        submit = [post(one.port, "/v1/tasks", body, prefer="respond-async", **authorized())]
        plain = [post(baseline.port, "/", body)]
        for number in range(plan.rounds + 1):
            seconds = plan.seconds if number else plan.warm
            before = stored(one, "tasks")
            pressed = press(one.server, submit, connections=CONNECTIONS, seconds=seconds)
            made = stored(one, "tasks") - before
            assert 0 <= made - pressed.answered <= CONNECTIONS, (made, pressed)
            base = press(baseline, plain, connections=CONNECTIONS, seconds=seconds)
            if number:  # the first one warms up
                taken.append(pressed)
                alone.append(base)
    what = f"{plan.database}, {CONNECTIONS} connections"
    return [
        *beside(f"submits, {what}", taken, alone, least=0.15),
        most(
            f"time to the answer, 99th percentile, submits, {what}",
            [one.p99_ms for one in taken],
            None,
            unit="ms",
        ),
    ]
