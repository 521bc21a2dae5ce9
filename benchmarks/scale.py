"""What further processes on one database add: callbacks come in at all that are `web`, and go out from all that `dispatch`.

All of them, the database's server, the load and the receivers share this machine's cores, so that what is shown is whether
processes are in each other's way, not what a second machine's cores would do.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.end_to_end import Passed
from benchmarks.figures import Figure, ratio
from benchmarks.machine import CORES, processor_s
from benchmarks.plan import Plan, Stage
from benchmarks.processes import Klingel, klingel, until
from benchmarks.tasks import Tasks, stored
from benchmarks.wrk import press

CONNECTIONS = 64
SORTS = (
    "task.processing",
    "task.succeeded",
)  # an endpoint for each, so that those who dispatch have a lane each
ROLES = {
    "1 process": ["web,dispatch"],
    "1 web, 1 dispatch": ["web", "dispatch"],
    "2 web, 2 dispatch": ["web", "web", "dispatch", "dispatch"],
}


def measure(plan: Plan) -> list[Figure]:
    passed: dict[str, list[Passed]] = {}
    for what, roles in ROLES.items():
        with _several(plan, what, roles) as several:
            passed[what] = [
                several.pressed(plan.seconds if number else plan.warm, plan.enough)
                for number in range(plan.rounds + 1)
            ][1:]  # the first one warms up
    [(first, alone), *others] = passed.items()
    return [
        ratio(
            f"callbacks to recorded webhooks, {what}, beside {first}",
            [one.a_second for one in taken],
            [one.a_second for one in alone],
            unit="a second",
        )
        for what, taken in others
    ]


@dataclass(frozen=True, slots=True)
class Several:
    """Processes on one database."""

    stage: Stage
    tasks: Tasks
    processes: Sequence[Klingel]
    doors: Sequence[Klingel]  # those that callbacks come in at

    def pressed(self, seconds: float, enough: float) -> Passed:
        """As end to end at saturation; each door has its share of the connections."""
        one, world = self.stage.klingel, self.stage.world
        shares = [self.tasks.callbacks(round(enough * seconds), port=door.port) for door in self.doors]
        world.forget()
        before, ran = stored(one, "deliveries"), self._ran()
        began = time.perf_counter()
        with ThreadPoolExecutor(len(shares)) as pool:
            pressing = [
                pool.submit(
                    press,
                    door.server,
                    share,
                    connections=CONNECTIONS // len(shares),
                    seconds=seconds,
                    once=True,
                )
                for door, share in zip(self.doors, shares, strict=True)
            ]
            taken = [each.result().a_second for each in pressing]
        # What was on its way when the clock ran out may be stored a moment later.
        until(lambda: world.distinct() == stored(one, "deliveries") - before, "all webhooks")
        until(lambda: not one.pending(), "all outcomes")
        took = time.perf_counter() - began
        made = stored(one, "deliveries") - before
        return Passed(made / took, (self._ran() - ran) / made * 1e6, sum(taken))

    def _ran(self) -> float:
        return sum(processor_s(each.server.pid) for each in self.processes)


@contextmanager
def _several(plan: Plan, what: str, roles: Sequence[str]) -> Iterator[Several]:
    with ExitStack() as stack:
        # Nobody calls back by it: callbacks are sent to each door.
        everywhere = {"KLINGEL_PUBLIC_URL": "http://127.0.0.1:9"}
        stage = stack.enter_context(
            plan.stage(f"scale, {what}", hosts=len(SORTS), cores=CORES, KLINGEL_ROLES=roles[0], **everywhere)
        )
        one, world = stage.klingel, stage.world
        processes = [one]
        for number, role in enumerate(roles[1:]):
            folder = stage.folder / str(number)
            folder.mkdir()
            shared = {"KLINGEL_DATABASE_URL": one.database, "KLINGEL_ROLES": role, **everywhere}
            processes.append(stack.enter_context(klingel(folder, world, cores=CORES, **shared)))
        for sort, url in zip(SORTS, world.hooks(len(SORTS)), strict=True):
            one.call("POST", "/v1/endpoints", config={"url": url}, types=[sort])
        doors = [each for each, role in zip(processes, roles, strict=True) if "web" in role]
        yield Several(stage, Tasks(one, world), processes, doors)
