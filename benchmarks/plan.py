"""How much of it, and on what: rounds, seconds, databases; and the stage that each benchmark has to itself."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import SERVERS
from benchmarks.processes import Klingel, Outside, klingel, outside


@dataclass(frozen=True, slots=True)
class Stage:
    """A Klingel with an empty database, and the world around it."""

    klingel: Klingel
    world: Outside
    folder: Path


@dataclass(slots=True)
class Plan:
    """
    Args:
        database: `sqlite` or `postgresql`.
        rounds: of each in turn, after one that warms up.
        seconds: of one round.
        warm: seconds of the one that warms up.
        arrivals: a second, in an open loop.
        enough: requests a second that are prepared, where none may be sent twice.
        new_database: gives the URL of an empty one; None where each Klingel makes its own file.
        memory: MiB resident at the end, by benchmark.
    """

    database: str = "sqlite"
    rounds: int = 3
    seconds: float = 5
    warm: float = 2
    arrivals: int = 1000
    enough: float = 8000
    quick: bool = False
    new_database: Callable[[], str] | None = None
    memory: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(
        self,
        name: str,
        *,
        hosts: int = 1,
        cores: Sequence[int] = (SERVERS,),
        under: Sequence[str] = (),
        **settings: str,
    ) -> Iterator[Stage]:
        """
        Args:
            hosts: at which receivers are.
            cores: on which Klingel may run.
            under: what its command is put behind.
            settings: of Klingel, besides those that all benchmarks have.
        """
        with (
            tempfile.TemporaryDirectory(prefix="klingel-bench-", ignore_cleanup_errors=True) as folder,
            outside(hosts=hosts) as world,
            klingel(Path(folder), world, cores=cores, under=under, **self._where(), **settings) as one,
        ):
            yield Stage(one, world, Path(folder))
            if one.process is not None:
                self.memory[f"{name}, {self.database}"] = one.memory_mib()

    def _where(self) -> dict[str, str]:
        return {} if self.new_database is None else {"KLINGEL_DATABASE_URL": self.new_database()}
