"""What Klingel needs: memory after one process has done some of everything, and the time from its start until it is ready."""

import json

from benchmarks.figures import Figure, most
from benchmarks.open_loop import send
from benchmarks.plan import Plan
from benchmarks.processes import authorized, until
from benchmarks.streams import listeners
from benchmarks.tasks import SUBMIT, Tasks
from benchmarks.wrk import get, post, press

STARTS = 5
CONNECTIONS = 64
LISTENERS = 1000
LARGEST_MIB = 120
LONGEST_START_S = 1.5


def measure(plan: Plan) -> list[Figure]:
    starts: list[float] = []
    with plan.stage("footprint") as stage:
        one, world = stage.klingel, stage.world
        for _ in range(STARTS):
            one.stop()
            starts.append(one.start())
        idle = one.memory_mib()
        one.subscribe(*world.hooks(1))
        tasks = Tasks(one, world)
        callbacks = tasks.callbacks(round(plan.enough * plan.seconds))
        press(one.server, callbacks, connections=256, seconds=plan.seconds, once=True)
        until(lambda: not one.pending(), "all outcomes")
        submit = [
            post(one.port, "/v1/tasks", json.dumps(SUBMIT).encode(), prefer="respond-async", **authorized())
        ]
        press(one.server, submit, connections=CONNECTIONS, seconds=plan.seconds)
        path = "/kling/v1/images/generations"
        polls = [get(one.port, f"{path}/{task.id}", **authorized()) for task in tasks.make(1000)]
        press(one.server, polls, connections=CONNECTIONS, seconds=plan.seconds)
        listening = 100 if plan.quick else LISTENERS
        with listeners(stage, listening) as heard:
            send(one.server, tasks.callbacks(20), a_second=4)
            heard.heard_by_all(20)
            listened = one.memory_mib()
        after = one.memory_mib()
    return [
        most(
            f"resident memory after callbacks, webhooks, submits, polls and streams, {plan.database}",
            [after],
            LARGEST_MIB,
            unit="MiB",
            decimals=0,
            measured=f"{idle:.0f} MiB after the start, {listened:.0f} MiB with {listening:,} listeners",
        ),
        most("start to ready", starts, LONGEST_START_S, unit="s", decimals=2),
    ]
