"""What a callback costs in instructions, counted by Valgrind: the same on a busy machine as on a quiet one.

Of the server's process alone, and without what the kernel does for it. Klingel is some fifty times slower meanwhile, so nothing
here says how fast it is; two commits can be told apart by it where their rates cannot.
"""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.machine import needed
from benchmarks.plan import Plan
from benchmarks.processes import Server, bare
from benchmarks.tasks import Tasks, stored
from benchmarks.wrk import post, press

CONNECTIONS: Final = 64
# Of shared objects, by what their names begin with; all else is the interpreter's extensions.
PARTS: Final = {
    "libpython": "the interpreter",
    "python": "the interpreter",
    "libsqlite": "SQLite",
    "libc.": "the C library",
}


def measure(plan: Plan) -> list[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="klingel-bench-") as folder,
        plan.stage("instructions", under=counting(Path(folder) / "klingel")) as stage,
        bare(under=counting(Path(folder) / "bare")) as baseline,
    ):
        one = stage.klingel
        one.subscribe(stage.world.url + "/silent")
        tasks = Tasks(one, stage.world)
        plain = [post(baseline.port, "/", tasks.body())]
        seconds = 8 * plan.seconds
        ours, theirs = Counter[str](), Counter[str]()
        for count in (False, True):  # the first one warms up
            callbacks = tasks.callbacks(round(plan.enough / 4 * seconds))
            before = stored(one, "events")
            with counted(one.server, Path(folder) / "klingel", ours if count else None):
                press(one.server, callbacks, connections=CONNECTIONS, seconds=seconds, once=True)
            made = stored(one, "events") - before
            with counted(baseline, Path(folder) / "bare", theirs if count else None):
                answered = press(baseline, plain, connections=CONNECTIONS, seconds=seconds / 5).answered
    return _figures(plan.database, ours, made, theirs, answered)


def _figures(
    database: str, ours: "Counter[str]", callbacks: int, theirs: "Counter[str]", answered: int
) -> list[Figure]:
    base, each = theirs.total() / answered, ours.total() / callbacks
    share = ", ".join(f"{part} {number / callbacks / 1000:,.0f}" for part, number in ours.most_common())
    return [
        Figure(
            what=f"instructions of each, the baseline's in Klingel's, callbacks, {database}, {CONNECTIONS} connections",
            measured=f"{base / 1000:,.0f} of {each / 1000:,.0f} thousand",
            result=f"{base / each:.2f}",
        ),
        Figure(what=f"thousands of them, by whose they are, {database}", measured=share, result=""),
    ]


def counting(file: Path) -> list[str]:
    """What a command is put behind; it counts nothing until it is told to."""
    return [
        needed("valgrind", "valgrind"),
        "--tool=callgrind",
        "--instr-atstart=no",
        "-q",
        f"--callgrind-out-file={file}",
    ]


@contextmanager
def counted(server: Server, file: Path, found: "Counter[str] | None") -> Iterator[None]:
    """Adds up what is done while the block runs, by `PARTS`. Nothing is counted for None."""
    if found is None:
        yield
        return
    _tell(server, "--instr=on")
    yield
    _tell(server, "--dump")
    _tell(server, "--instr=off")
    for dump in file.parent.glob(f"{file.name}.*"):
        found.update(by_part(dump.read_text().splitlines()))


def _tell(server: Server, what: str) -> None:
    command = [needed("callgrind_control", "valgrind"), what, str(server.pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def by_part(lines: Sequence[str]) -> "Counter[str]":
    """Of callgrind's format: names are said once with a number, and by their number from then on; the line behind a call has
    what was called in it, which is counted where it is itself.
    """
    names: dict[str, str] = {}
    part, of_a_call = "", False
    found: Counter[str] = Counter()
    for line in lines:
        if line.startswith(("ob=", "cob=")):
            number, _, name = line.partition("(")[2].partition(")")
            names.setdefault(number, name.strip())
            if line.startswith("ob="):
                part = _part(names[number])
        elif line.startswith("calls="):
            of_a_call = True
        elif line[:1] in "+-*0123456789" and " " in line:
            if not of_a_call:
                found[part] += int(line.split()[1])
            of_a_call = False
    return found


def _part(path: str) -> str:
    name = Path(path).name
    return next((part for begin, part in PARTS.items() if name.startswith(begin)), "extensions")
