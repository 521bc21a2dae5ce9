"""The way through: a callback comes in, is stored, goes out as a signed webhook, and what was answered is recorded.

At saturation the clock runs from the first callback to the last recorded outcome, so that nothing is gained by taking in more
than goes out. In the open loop it runs from the moment at which a callback was to be sent to the whole webhook at its receiver.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure, beside, most, percentile
from benchmarks.machine import processor_s
from benchmarks.open_loop import send
from benchmarks.plan import Plan, Stage
from benchmarks.processes import Outside, bare, until
from benchmarks.tasks import Tasks, advanced, stored
from benchmarks.wrk import Pressed, post, press

CONNECTIONS = 64


def measure(plan: Plan) -> list[Figure]:
    through: list[Passed] = []
    alone: list[Pressed] = []
    with plan.stage("end to end") as stage, bare() as baseline:
        one, world = stage.klingel, stage.world
        one.subscribe(*world.hooks(1))
        tasks = Tasks(one, world)
        until(lambda: world.arrived() == 1, "the webhook of the first task")
        plain = [post(baseline.port, "/", tasks.body())]
        enough = plan.enough
        for number in range(plan.rounds + 1):
            seconds = plan.seconds if number else plan.warm
            passed = _saturated(stage, tasks, seconds=seconds, enough=enough)
            enough = max(plan.enough, 2 * passed.taken_a_second)
            base = press(baseline, plain, connections=CONNECTIONS, seconds=seconds)
            if number:  # the first one warms up
                through.append(passed)
                alone.append(base)
        figures = beside(
            f"callbacks to recorded webhooks, {plan.database}, {CONNECTIONS} connections",
            through,
            alone,
            least=0.20,
        )
        figures += _open_loop(plan, stage, tasks)
        moved, others = advanced(one)
        assert not others, f"{others} of {moved + others} callbacks moved nothing"
        assert stored(one, "deliveries") == stored(one, "events")
    return figures


@dataclass(frozen=True, slots=True)
class Passed:
    """A round at saturation: callbacks that came through in a second, and took so much of the processor's time."""

    a_second: float
    each_us: float
    taken_a_second: float


def _saturated(stage: Stage, tasks: Tasks, *, seconds: float, enough: float) -> Passed:
    one, world = stage.klingel, stage.world
    callbacks = tasks.callbacks(round(enough * seconds))
    world.forget()
    before, ran = stored(one, "events"), processor_s(one.server.pid)
    began = time.perf_counter()
    pressed = press(one.server, callbacks, connections=CONNECTIONS, seconds=seconds, once=True)
    until(lambda: world.arrived() >= pressed.answered, "all webhooks")
    until(lambda: not one.pending(), "all outcomes")
    took, ran = time.perf_counter() - began, processor_s(one.server.pid) - ran
    # What was on its way when the clock ran out may have been stored, and not answered.
    made = stored(one, "events") - before
    assert pressed.answered <= made <= pressed.answered + CONNECTIONS, (made, pressed)
    assert world.distinct() == made, "a webhook is lost"
    return Passed(made / took, ran / made * 1e6, pressed.a_second)


def _open_loop(plan: Plan, stage: Stage, tasks: Tasks) -> list[Figure]:
    one, world = stage.klingel, stage.world
    p50: list[float] = []
    p99: list[float] = []
    late: list[float] = []
    wanted = round(plan.arrivals * 2 * plan.seconds)
    for number in range(plan.rounds):
        callbacks = tasks.callbacks(wanted)
        world.forget()
        sent = send(one.server, callbacks, a_second=plan.arrivals, seed=number)
        until(lambda: world.distinct() == wanted, "all webhooks")
        until(lambda: not one.pending(), "all outcomes")
        times = _wire_to_receiver(callbacks, [each.meant for each in sent], world)
        p50.append(percentile(times, 0.5))
        p99.append(percentile(times, 0.99))
        late.append(percentile([each.late_ms for each in sent], 0.99))
    what = f"{plan.database}, {plan.arrivals:,} a second, open loop"
    generator = f"the generator's own delay, 99th percentile: {max(late):.1f} ms"
    return [
        most(f"wire to receiver, median, {what}", p50, 3, unit="ms", measured=generator),
        most(f"wire to receiver, 99th percentile, {what}", p99, 15, unit="ms"),
    ]


def _wire_to_receiver(callbacks: Sequence[bytes], meant: Sequence[float], world: Outside) -> list[float]:
    """Milliseconds, of each callback."""
    left = {_told(callback): moment for callback, moment in zip(callbacks, meant, strict=True)}
    times: list[float] = []
    for arrival in world.arrivals():
        event = json.loads(arrival["body"])
        times.append((arrival["at"] - left[event["data"]["task"]["id"], event["type"]]) * 1000)
    return times


def _told(callback: bytes) -> tuple[str, str]:
    """Of which task, and what: the event that it makes."""
    task_id = callback.split(b"/", 4)[3].decode()
    return task_id, "task.processing" if b'"processing"' in callback else "task.succeeded"
