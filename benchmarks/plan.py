"""How much of it, and where: rounds, seconds, databases, folders."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Klingel


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh one: what Klingel is told of it."""

    name: str
    settings: Mapping[str, str]


@dataclass(slots=True)
class Plan:
    """
    Args:
        rounds: of each in turn, after one that warms up.
        seconds: of one round.
        enough: requests a second that are prepared, where none may be sent twice.
    """

    rounds: int = 3
    seconds: float = 5
    enough: float = 4000
    quick: bool = False
    memory: dict[str, float] = field(default_factory=dict)  # MiB at the end of each, as noted

    @contextmanager
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="klingel-bench-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    @contextmanager
    def database(self) -> Iterator[Database]:
        yield Database("sqlite", {})

    def note_memory(self, when: str, klingel: Klingel) -> None:
        self.memory[when] = klingel.memory_mib()
