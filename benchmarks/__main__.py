"""Runs benchmarks and prints their figures. `python -m benchmarks ingest --quick`."""

import argparse
from importlib import import_module

from benchmarks.machine import stay_with_the_load
from benchmarks.plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    stay_with_the_load()
    plan = Plan(rounds=3, seconds=2, quick=True) if given.quick else Plan()
    for name in given.names:
        for figure in import_module(f"benchmarks.{name}").measure(plan):
            print(" | ".join(figure.cells()), flush=True)
    print(plan.memory)


if __name__ == "__main__":
    main()
