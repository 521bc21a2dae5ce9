"""The port to a database: named statements run on it; nothing else in Klingel knows which one it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from service.domain.errors import StorageUnavailable
from storage.columns import Row

# A hundred times what any page takes: a machine that is busy is not taken for a wide search.
LONGEST_SEARCH_S: Final = 2.0


class Collided(StorageUnavailable):
    """Transactions were in each other's way, and this one was undone. The same once more may succeed."""


class CommitUnknown(StorageUnavailable):
    """It broke off while it committed: nobody knows whether it is stored."""


class Reader(Protocol):
    """Reads by the names in `queries/`."""

    async def all(self, statement: str, /, **parameters: Any) -> Sequence[Row]: ...

    async def one(self, statement: str, /, **parameters: Any) -> Row | None:
        """The first row, or None."""

    async def value(self, statement: str, /, **parameters: Any) -> Any:
        """The first column of the first row, or None."""


class Transaction(Reader, Protocol):
    """All of it, or nothing.

    Where there is one writer (SQLite), what it reads stays true until its end. Where there are many (PostgreSQL), that
    goes for rows that it has read `{for_update}`, and for all that others change under a name that it holds.
    """

    async def several(self, *asked: tuple[str, Mapping[str, Any]]) -> Sequence[Sequence[Row]]:
        """Statements with their parameters, each as `all`; in one step where that can be."""

    async def hold(self, kind: str, names: Iterable[str], /) -> None:
        """Until its end, nobody else holds these names of this kind. Waits for who holds them now."""

    async def next_positions(self, accounts: Iterable[str], number: int) -> Sequence[int]:
        """So many places in the log of events, in their order: in one step, and held as "events" of these accounts."""

    async def run(self, statement: str, /, **parameters: Any) -> int:
        """The number of rows that it touched."""

    async def run_many(self, statement: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """One statement for many rows, in one step. No rows is no step."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """What happens inside is undone alone if it raises."""

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Called, in order, once everything is on disk; never if it is not. One that raises is logged.

        Inside a savepoint that is undone, the callbacks given there are forgotten with it.
        """

    def on_rollback(self, callback: Callable[[], None]) -> None:
        """Called, the last first, once what was done here is undone: the savepoint in which it was given, or all."""


class Database(Protocol):
    """
    Every method raises:
        StorageUnavailable: the disk is full, the file cannot be written or read, the server is gone.
        Collided: one of these, in a transaction that others were in the way of.
    """

    @property
    def sole_process(self) -> bool:
        """Whether no other process can be using it."""

    def reading(self) -> AbstractAsyncContextManager[Reader]:
        """For what an index finds at once, such as a row by its id. Never waits for a search."""

    def searching(
        self, whose: str, *, seconds: float = LONGEST_SEARCH_S
    ) -> AbstractAsyncContextManager[Reader]:
        """For reads that take as long as what is asked for: lists, and counts.

        Args:
            whose: searches of one account take turns; those of others do not wait for it.
            seconds: for all its reads together.

        Raises:
            SearchTooWide: they take longer.
        """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """
        Raises:
            CommitUnknown: its callbacks for a rollback were called, and yet it may be stored.
        """

    def on_doubt(self, doubted: Callable[[], None]) -> None:
        """Called after each transaction that may be stored, though those who wait for that were told otherwise."""

    async def check(self) -> None:
        """Proves that it can write, by writing."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A database as it lies there.

    Args:
        version: of its last migration; 0 where there was none.
        newest: that this Klingel knows.
        processes: how many that share it are alive; None where it is not shared, or does not know yet.
        dispatchers: how many of these send and deliver.
    """

    version: int
    newest: int
    processes: int | None = None
    dispatchers: int | None = None


def shown(at: Path | str) -> str:
    """Where a database is, as logs and people may see it: without a password, which has more than one place."""
    if isinstance(at, Path):
        return str(at)
    parts = urlsplit(at)
    user, sign, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{sign}{host}{parts.path}"
