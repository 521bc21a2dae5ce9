"""What is measured on: the machine, its versions, and which core belongs to whom.

The server has the first core to itself; what makes the load and what receives have the second one. On one core they share.
"""

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

CORES: Final = sorted(os.sched_getaffinity(0))
SERVERS: Final = CORES[0]
LOAD: Final = CORES[1 % len(CORES)]
PACKAGES: Final = ("klingel", "uvicorn", "starlette", "uvloop", "httptools", "aiohttp")


def pinned(cores: Sequence[int], command: Sequence[str | Path]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *map(str, command)]


def stay_with_the_load() -> None:
    """This process and what it starts, unless that is pinned elsewhere."""
    os.sched_setaffinity(0, {LOAD})


def needed(program: str, package: str) -> str:
    """Where a program is.

    Raises:
        SystemExit: nowhere; says how to get it.
    """
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"{program} is needed to measure: apt-get install {package}")
    return found


def described() -> list[str]:
    """In lines for a page."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    shared = (
        "one core for all" if SERVERS == LOAD else f"the server on core {SERVERS}, all else on core {LOAD}"
    )
    return [
        f"{_processor()}, {len(CORES)} cores: {shared}. {platform.system()} {platform.release().split('-')[0]}.",
        f"Python {platform.python_version()}, {versions}, SQLite {sqlite3.sqlite_version}, {_wrk()}.",
    ]


def _wrk() -> str:
    """It calls no version without complaining of what else it misses."""
    said = subprocess.run([needed("wrk", "wrk"), "--version"], capture_output=True, text=True, check=False)
    return " ".join(said.stdout.split()[:2])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def processor_s(pid: int) -> float:
    """Seconds that its threads have run: what a busy machine does not change much, as it does rates."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
