"""The absorbed poll: a client of Kling's that asks for its task's status on the drop-in paths, for distinct tasks in turn."""

from benchmarks.figures import Figure, beside, most
from benchmarks.plan import Plan
from benchmarks.processes import authorized, bare
from benchmarks.tasks import Tasks
from benchmarks.wrk import Pressed, get, post, press

CONNECTIONS = 64
TASKS = 10_000
PATH = "/kling/v1/images/generations"


def measure(plan: Plan) -> list[Figure]:
    taken: list[Pressed] = []
    alone: list[Pressed] = []
    with plan.stage("drop-in GET") as stage, bare() as baseline:
        one = stage.klingel
        made = Tasks(one, stage.world).make(TASKS)
        polls = [get(one.port, f"{PATH}/{task.id}", **authorized()) for task in made]
        plain = [post(baseline.port, "/", b"{}")]
        assert one.call("GET", f"{PATH}/{made[0].id}")["data"]["task_status"] == "submitted"
        for number in range(plan.rounds + 1):
            seconds = plan.seconds if number else plan.warm
            pressed = press(one.server, polls, connections=CONNECTIONS, seconds=seconds)
            base = press(baseline, plain, connections=CONNECTIONS, seconds=seconds)
            if number:  # the first one warms up
                taken.append(pressed)
                alone.append(base)
    what = f"{plan.database}, {CONNECTIONS} connections"
    return [
        *beside(f"status queries, {what}", taken, alone, least=0.30),
        most(
            f"time to the answer, 99th percentile, status queries, {what}",
            [one.p99_ms for one in taken],
            None,
            unit="ms",
        ),
    ]
