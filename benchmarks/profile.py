"""Where the time goes: a flame graph of Klingel under the load of a benchmark. `python -m benchmarks.profile ingest [FILE]`

py-spy looks at the process a few hundred times a second, from outside. A file that ends in .svg is a picture; one that ends in
.json is for speedscope; without one the functions that take most are printed, by their own time and with what they call.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import LOAD, pinned, stay_with_the_load
from benchmarks.plan import Plan, Stage
from benchmarks.processes import authorized
from benchmarks.tasks import SUBMIT, Tasks
from benchmarks.wrk import get, post, press

RATE = 250  # looks a second
SHOWN = 40


def callbacks(stage: Stage, seconds: float, path: str) -> None:
    stage.klingel.subscribe(stage.world.url + path)
    tasks = Tasks(stage.klingel, stage.world)
    requests = tasks.callbacks(round(6000 * seconds))
    press(stage.klingel.server, requests, connections=64, seconds=seconds, once=True)


def submits(stage: Stage, seconds: float) -> None:
    one = stage.klingel
    request = post(one.port, "/v1/tasks", json.dumps(SUBMIT).encode(), prefer="respond-async", **authorized())
    press(one.server, [request], connections=64, seconds=seconds)


def polls(stage: Stage, seconds: float) -> None:
    one = stage.klingel
    made = Tasks(one, stage.world).make(1000)
    requests = [get(one.port, f"/kling/v1/images/generations/{task.id}", **authorized()) for task in made]
    press(one.server, requests, connections=64, seconds=seconds)


LOADS: dict[str, Callable[[Stage, float], None]] = {
    "ingest": lambda stage, seconds: callbacks(stage, seconds, "/silent"),
    "end_to_end": lambda stage, seconds: callbacks(stage, seconds, "/hook"),
    "submit": submits,
    "dropin": polls,
}


def most(stacks: Sequence[str]) -> str:
    """By function: its own share, and with what it calls."""
    own = Counter[str]()
    whole = Counter[str]()
    for line in stacks:
        stack, _, times = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(times)
        for frame in set(frames):
            whole[frame] += int(times)
    looks = sum(own.values())
    lines = [f"{'own':>6} {'whole':>6}"]
    for frame, number in own.most_common(SHOWN):
        lines.append(f"{number / looks:6.1%} {whole[frame] / looks:6.1%} {frame}")
    return "\n".join(lines)


@contextmanager
def recorded(pid: int, file: Path) -> Iterator[None]:
    """While the block runs."""
    shape = {".svg": "flamegraph", ".json": "speedscope"}.get(file.suffix, "raw")
    command: list[str | Path] = [
        Path(sys.executable).with_name("py-spy"), "record", "--nonblocking", "--rate", str(RATE), "--format", shape,
        "--output", str(file), "--pid", str(pid),
    ]  # fmt: skip
    process = subprocess.Popen(pinned([LOAD], command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.send_signal(2)  # it writes what it has seen
        _, said = process.communicate()
        assert file.exists(), said.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=8)
    given = parser.parse_args()
    stay_with_the_load()
    with Plan().stage("profile") as stage, tempfile.TemporaryDirectory() as folder:
        file = given.file or Path(folder) / "stacks.txt"
        with recorded(stage.klingel.server.pid, file):
            LOADS[given.load](stage, given.seconds)
        if given.file is None:
            print(most(file.read_text().splitlines()))


if __name__ == "__main__":
    main()
