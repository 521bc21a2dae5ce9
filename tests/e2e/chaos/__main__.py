"""`make chaos`: kills a real Klingel process many times and writes what was found to docs/reliability.md."""

import argparse
import asyncio
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import keep
from tests.e2e.chaos.fleet import DISPATCHERS, WEBS
from tests.e2e.chaos.story import Findings, run, run_fleet
from tests.postgres import programs


def postgres_version() -> str:
    found = programs()
    assert found is not None
    said = subprocess.run([found / "postgres", "--version"], capture_output=True, text=True, check=True)
    return f"PostgreSQL {said.stdout.split()[2]}"


def table(findings: Findings, *, database: str) -> str:
    is_fleet = database == "postgresql"
    kept_in = postgres_version() if is_fleet else f"SQLite {sqlite3.sqlite_version}"
    asked_for = f"make chaos DATABASE={database}" if is_fleet else "make chaos"
    lines = [
        (
            f"Klingel {version('klingel')}, Python {platform.python_version()}, {kept_in}, "
            f"{os.cpu_count()} cores, {platform.system()}; "
            f"`{asked_for} KILLS={findings.kills.total()} SEED={findings.seed}`."
        ),
        "",
        f"| {f'one of {WEBS} web and {DISPATCHERS} dispatch processes' if is_fleet else 'Klingel'} killed when | times |",
        "| --- | ---: |",
        *(f"| {moment} | {number} |" for moment, number in findings.kills.items()),
        f"| **in all** | **{findings.kills.total()}** |",
        "",
        "| load | number |",
        "| --- | ---: |",
        *(f"| {name} | {number} |" for name, number in findings.load.items()),
        "",
        "| what must not happen | times |",
        "| --- | ---: |",
        *(f"| {name} | {number} |" for name, number in findings.faults.items()),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=56)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="klingel-chaos-") as folder:
        told = run_fleet if given.database == "postgresql" else run
        findings = asyncio.run(told(Path(folder), kills=given.kills, seed=given.seed))
    shown = table(findings, database=given.database)
    sys.stdout.write(shown + "\n")
    if given.write:
        keep("chaos" if given.database == "sqlite" else "chaos-postgresql", shown)
    return 0 if findings.clean else 1


if __name__ == "__main__":
    sys.exit(main())
