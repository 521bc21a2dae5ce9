"""`docs/performance.md`: each benchmark's figures between two marks, and what was aimed at in one table at the top."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import DOCS, HEAD, RELIABILITY, Figure, keep, kept
from benchmarks.machine import described
from benchmarks.postgres import version

PAGE: Final = DOCS / "performance.md"
ELSEWHERE: Final = {"fairness": RELIABILITY}  # beside what it is about
RULE: Final = "| --- | ---: | ---: | ---: | ---: | --- |"


def table(figures: Sequence[Figure]) -> str:
    return "\n".join([_line(HEAD), RULE, *(_line(figure.cells()) for figure in figures)])


def keep_machine() -> None:
    keep("machine", "\n".join([*described(), f"{version()}, where it is measured."]), page=PAGE)


def keep_figures(names: Sequence[str], name: str, figures: Sequence[Figure], *, page: Path = PAGE) -> None:
    """In its section; and the targets of all, as they stand then, at the top.

    Args:
        names: of all benchmarks, in their order.
    """
    keep(name, table(figures), page=ELSEWHERE.get(name, page))
    aimed_at = [
        line
        for each in names
        for line in kept(each, page=ELSEWHERE.get(each, page)).splitlines()
        if re.search(r"\| (?:yes|\*\*no\*\*) \|$", line)
    ]
    keep("targets", "\n".join([_line(HEAD), RULE, *aimed_at]), page=page)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
