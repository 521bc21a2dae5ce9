"""The database from behind: what would take hours through the API is put there by a few statements."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol


class Store(Protocol):
    """Named `{…}` parts of a statement differ between databases."""

    def columns(self, table: str) -> list[str]: ...

    def run(self, statement: str, *values: Any) -> None:
        """`?` stands for a value."""

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""

    @property
    def elements(self) -> str:
        """A table `listed (value)` made of one parameter: texts as a JSON array."""


class SqliteStore:
    elements = "(select value from json_each(?)) as listed"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        return [row[1] for row in self._connection.execute(f"pragma table_info({table})")]

    def run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def one(self, statement: str, *values: Any) -> Any:
        row = self._connection.execute(statement, values).fetchone()
        return None if row is None else row[0]


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """By what `KLINGEL_DATABASE_URL` says. Beside a Klingel that works on it, too."""
    with closing(
        sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
    ) as connection:
        yield SqliteStore(connection)


def copy(store: Store, table: str, template: str, ids: Sequence[str], **changed: str) -> None:
    """Rows like the one with this id, under new ids.

    Args:
        changed: columns by SQL over the row, `old`, and the last part of its new id, `listed.value`.
    """
    columns = store.columns(table)
    picked = [changed.get(name, f"old.{name}") for name in columns]
    store.run(
        f"insert into {table} ({', '.join(columns)}) select {', '.join(picked)} "
        f"from {store.elements} join {table} as old on old.id = ?",
        json.dumps(list(ids)),
        template,
    )
