"""Durable callbacks: each one a real transition, with its event and one delivery row, on disk before it is answered.

The one receiver never answers, so that what is measured is the way in alone; see `end_to_end` for the way through.
"""

from collections.abc import Sequence

from benchmarks.figures import Figure, beside, most
from benchmarks.plan import Plan
from benchmarks.processes import bare, klingel, outside
from benchmarks.tasks import Tasks, advanced, stored
from benchmarks.wrk import Pressed, post, press

LEAST = {"sqlite": 0.40, "postgresql": 0.45}


def measure(plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    with outside() as world, plan.database() as database, plan.folder() as folder:
        with klingel(folder, world, **database.settings) as one, bare() as baseline:
            one.subscribe(world.url + "/silent")
            tasks = Tasks(one, world)
            plain = [
                post(
                    baseline.port, "/", tasks.callback(tasks.make(1)[0], "succeed").partition(b"\r\n\r\n")[2]
                )
            ]
            for connections in (64, 256):
                taken: list[Pressed] = []
                alone: list[Pressed] = []
                enough = plan.enough
                for number in range(plan.rounds + 1):
                    seconds = plan.seconds if number else 2
                    callbacks = tasks.callbacks(round(enough * seconds))
                    before = stored(one, "events")
                    pressed = press(
                        one.server, callbacks, connections=connections, seconds=seconds, once=True
                    )
                    # What was on its way when the clock ran out may have been stored, and not answered.
                    made = stored(one, "events") - before
                    assert 0 <= made - pressed.answered <= connections, (made, pressed)
                    enough = max(plan.enough, 2 * pressed.a_second)
                    base = press(baseline, plain, connections=connections, seconds=seconds)
                    if number:  # the first one warms up
                        taken.append(pressed)
                        alone.append(base)
                figures += _figures(database.name, connections, taken, alone)
            moved, others = advanced(one)
            assert moved
            assert not others, f"{others} callbacks moved nothing"
            plan.note_memory(f"ingest, {database.name}", one)
    return figures


def _figures(
    database: str, connections: int, taken: Sequence[Pressed], alone: Sequence[Pressed]
) -> list[Figure]:
    what = f"{database}, {connections} connections"
    return [
        *beside(f"callbacks, {what}", taken, alone, least=LEAST[database]),
        most(
            f"time to the answer, 99th percentile, {what}",
            [one.p99_ms for one in taken],
            25 if (connections, database) == (64, "sqlite") else None,
            unit="ms",
            measured=f"bare: {min(one.p99_ms for one in alone):.1f} ms",
        ),
    ]
