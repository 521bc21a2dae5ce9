"""Runs benchmarks, prints their figures, and keeps them in `docs/`. `python -m benchmarks ingest outbound --quick`."""

import argparse
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks import (
    dropin,
    end_to_end,
    fairness,
    footprint,
    growth,
    ingest,
    instructions,
    outbound,
    scale,
    streams,
    submit,
)
from benchmarks.figures import Figure
from benchmarks.machine import described, needed, stay_with_the_load
from benchmarks.page import keep_figures, keep_machine, table
from benchmarks.plan import Plan
from benchmarks.postgres import postgres

BENCHMARKS: dict[str, tuple[Callable[[Plan], Sequence[Figure]], Sequence[str]]] = {
    "ingest": (ingest.measure, ("sqlite", "postgresql")),
    "instructions": (instructions.measure, ("sqlite", "postgresql")),
    "end_to_end": (end_to_end.measure, ("sqlite", "postgresql")),
    "scale": (scale.measure, ("postgresql",)),
    "outbound": (outbound.measure, ("sqlite",)),
    "submit": (submit.measure, ("sqlite",)),
    "dropin": (dropin.measure, ("sqlite",)),
    "streams": (streams.measure, ("sqlite",)),
    "fairness": (fairness.measure, ("sqlite",)),
    "growth": (growth.measure, ("sqlite",)),
    "footprint": (footprint.measure, ("sqlite",)),
}


@contextmanager
def planned(database: str, *, quick: bool) -> Iterator[Plan]:
    plan = Plan(database=database, rounds=3, seconds=2, quick=True) if quick else Plan(database=database)
    if database == "sqlite":
        yield plan
        return
    with postgres() as new_database:
        plan.new_database = new_database
        yield plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all when left out")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="this one alone")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, and nothing is kept")
    given = parser.parse_args()
    needed("wrk", "wrk")
    stay_with_the_load()
    print("\n".join(described()), flush=True)
    failed: list[str] = []
    for name in given.names or BENCHMARKS:
        run, databases = BENCHMARKS[name]
        figures: list[Figure] = []
        try:
            for database in [given.database] if given.database else databases:
                with planned(database, quick=given.quick) as plan:
                    figures += run(plan)
        except Exception:  # noqa: BLE001 - the others are worth their figures all the same
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"\n## {name}\n\n{table(figures)}", flush=True)
        if not given.quick and not given.database:
            keep_machine()
            keep_figures(list(BENCHMARKS), name, figures)
    if failed:
        raise SystemExit(
            f"These did not come to their end, and their figures stay as they were: {', '.join(failed)}"
        )


if __name__ == "__main__":
    main()
