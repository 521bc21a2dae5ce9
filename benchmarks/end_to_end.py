"""The way through: a callback comes in, is stored, goes out as a signed webhook, and what was answered is recorded.

At saturation the clock runs from the first callback to the last recorded outcome, so that nothing is gained by taking in more
than goes out. In the open loop it runs from the moment at which a callback was to be sent to the whole webhook at its receiver.
"""

import json
import time
from collections.abc import Sequence

from benchmarks.figures import Figure, most, percentile, ratio
from benchmarks.machine import processor_s
from benchmarks.open_loop import send
from benchmarks.plan import Plan
from benchmarks.processes import Klingel, Outside, bare, klingel, outside, until
from benchmarks.tasks import Tasks, advanced, stored
from benchmarks.wrk import post, press

CONNECTIONS = 64
A_SECOND = 1000


def measure(plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    with outside() as world, plan.database() as database, plan.folder() as folder:
        with klingel(folder, world, **database.settings) as one, bare() as baseline:
            one.subscribe(*world.hooks(1))
            tasks = Tasks(one, world)
            until(lambda: world.arrived() == 1, "the webhook of the first task")
            plain = [
                post(
                    baseline.port, "/", tasks.callback(tasks.make(1)[0], "succeed").partition(b"\r\n\r\n")[2]
                )
            ]
            through: list[float] = []
            ran: list[float] = []
            alone: list[float] = []
            alone_ran: list[float] = []
            enough = plan.enough
            for number in range(plan.rounds + 1):
                seconds = plan.seconds if number else 2
                passed = _saturated(one, world, tasks, seconds=seconds, enough=enough)
                enough = max(plan.enough, 2 * passed.taken_a_second)
                base = press(baseline, plain, connections=CONNECTIONS, seconds=seconds)
                if number:  # the first one warms up
                    through.append(passed.a_second)
                    ran.append(passed.each_us)
                    alone.append(base.a_second)
                    alone_ran.append(base.each_us)
            what = f"{database.name}, {CONNECTIONS} connections"
            figures += [
                ratio(f"callbacks to recorded webhooks, {what}", through, alone, unit="a second", least=0.20),
                ratio(
                    f"processor time of each, the baseline's in Klingel's, {what}", alone_ran, ran, unit="µs"
                ),
            ]
            figures += _open_loop(plan, database.name, one, world, tasks)
            moved, others = advanced(one)
            assert not others, f"{others} of {moved + others} callbacks moved nothing"
            assert stored(one, "deliveries") == stored(one, "events")
            plan.note_memory(f"end to end, {database.name}", one)
    return figures


class Passed:
    """A round at saturation."""

    def __init__(self, *, made: int, seconds: float, taken_a_second: float, processor: float) -> None:
        self.a_second = made / seconds
        self.taken_a_second = taken_a_second
        self.each_us = processor / made * 1e6


def _saturated(one: Klingel, world: Outside, tasks: Tasks, *, seconds: float, enough: float) -> Passed:
    callbacks = tasks.callbacks(round(enough * seconds))
    world.forget()
    before, ran = stored(one, "events"), processor_s(one.server.pid)
    began = time.perf_counter()
    pressed = press(one.server, callbacks, connections=CONNECTIONS, seconds=seconds, once=True)
    until(lambda: world.arrived() >= pressed.answered, "all webhooks")
    until(lambda: not one.pending(), "all outcomes")
    took = time.perf_counter() - began
    # What was on its way when the clock ran out may have been stored, and not answered.
    made = stored(one, "events") - before
    assert pressed.answered <= made <= pressed.answered + CONNECTIONS, (made, pressed)
    assert world.distinct() == made, "a webhook is lost"
    return Passed(
        made=made,
        seconds=took,
        taken_a_second=pressed.a_second,
        processor=processor_s(one.server.pid) - ran,
    )


def _open_loop(plan: Plan, name: str, one: Klingel, world: Outside, tasks: Tasks) -> list[Figure]:
    p50: list[float] = []
    p99: list[float] = []
    late: list[float] = []
    for number in range(plan.rounds):
        seconds = 2 * plan.seconds
        callbacks = tasks.callbacks(round(A_SECOND * seconds))
        world.forget()
        sent = send(one.server, callbacks, a_second=A_SECOND, seed=number)
        until(lambda: world.distinct() == len(callbacks), "all webhooks")
        until(lambda: not one.pending(), "all outcomes")
        times = _wire_to_receiver(callbacks, [each.meant for each in sent], world)
        p50.append(percentile(times, 0.5))
        p99.append(percentile(times, 0.99))
        late.append(percentile([each.late_ms for each in sent], 0.99))
    what = f"{name}, {A_SECOND:,} a second, open loop"
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
