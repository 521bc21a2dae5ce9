"""`make chaos`: kills a real Klingel process many times and writes what was found to docs/reliability.md."""

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import keep
from tests.e2e.chaos.story import Findings, run


def table(findings: Findings) -> str:
    lines = [
        (
            f"Klingel {version('klingel')}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
            f"{os.cpu_count()} cores, {platform.system()}; "
            f"`make chaos KILLS={findings.kills.total()} SEED={findings.seed}`."
        ),
        "",
        "| killed with SIGKILL when | times |",
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
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="klingel-chaos-") as folder:
        findings = asyncio.run(run(Path(folder), kills=given.kills, seed=given.seed))
    shown = table(findings)
    sys.stdout.write(shown + "\n")
    if given.write:
        keep("chaos", shown)
    return 0 if findings.clean else 1


if __name__ == "__main__":
    sys.exit(main())
