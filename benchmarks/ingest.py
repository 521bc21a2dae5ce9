"""Durable callbacks: each one a real transition, with its event and one delivery row, on disk before it is answered.

The one receiver never answers, so that what is measured is the way in alone; see `end_to_end` for the way through.
"""

from collections.abc import Sequence

from benchmarks.figures import Figure, beside, most
from benchmarks.plan import Plan
from benchmarks.processes import bare
from benchmarks.tasks import Tasks, advanced, stored
from benchmarks.wrk import Pressed, post, press

LEAST = {"sqlite": 0.40, "postgresql": 0.45}
LONGEST_MS = 25


def measure(plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    with plan.stage("ingest") as stage, bare() as baseline:
        one = stage.klingel
        one.subscribe(stage.world.url + "/silent")
        tasks = Tasks(one, stage.world)
        plain = [post(baseline.port, "/", tasks.body())]
        for connections in (64, 256):
            taken: list[Pressed] = []
            alone: list[Pressed] = []
            enough = plan.enough
            for number in range(plan.rounds + 1):
                seconds = plan.seconds if number else plan.warm
                callbacks = tasks.callbacks(round(enough * seconds))
                before = stored(one, "events")
                pressed = press(one.server, callbacks, connections=connections, seconds=seconds, once=True)
                # What was on its way when the clock ran out may have been stored, and not answered.
                made = stored(one, "events") - before
                assert 0 <= made - pressed.answered <= connections, (made, pressed)
                enough = max(plan.enough, 2 * pressed.a_second)
                base = press(baseline, plain, connections=connections, seconds=seconds)
                if number:  # the first one warms up
                    taken.append(pressed)
                    alone.append(base)
            figures += _figures(plan.database, connections, taken, alone)
        moved, others = advanced(one)
        assert moved
        assert not others, f"{others} callbacks moved nothing"
        assert stored(one, "deliveries") == stored(one, "events")
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
            LONGEST_MS if (connections, database) == (64, "sqlite") else None,
            unit="ms",
            measured=f"bare: {min(one.p99_ms for one in alone):.1f} ms",
        ),
    ]
