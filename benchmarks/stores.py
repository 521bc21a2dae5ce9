"""The database from behind: what would take hours through the API is put there by a few statements."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, Protocol

import asyncpg


class Store(Protocol):
    """One of the two."""

    def columns(self, table: str) -> list[str]: ...

    def run(self, statement: str, *values: Any) -> None:
        """`?` stands for a value."""

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""

    @property
    def listed(self) -> str:
        """A table `listed (value)` made of one value: texts as a JSON array."""

    def series(self, first: int, last: int) -> str:
        """A table `series (n)` of the numbers up to the last."""

    def new_id(self, kind: str, moment: str, number: str) -> str:
        """An expression: an id that sorts by both."""


class SqliteStore:
    listed = "(select value from json_each(?)) as listed"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        return [row[1] for row in self._connection.execute(f"pragma table_info({table})")]

    def run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def one(self, statement: str, *values: Any) -> Any:
        row = self._connection.execute(statement, values).fetchone()
        return None if row is None else row[0]

    def series(self, first: int, last: int) -> str:
        return f"(with recursive s (n) as (select {first} union all select n + 1 from s where n < {last}) select n from s) as series"

    def new_id(self, kind: str, moment: str, number: str) -> str:
        return f"printf('{kind}_%012x%020x', {moment}, {number})"


class PostgresStore:
    listed = "json_array_elements_text(cast(? as json)) as listed (value)"

    def __init__(self, runner: asyncio.Runner, connection: "asyncpg.Connection[Any]") -> None:
        self._runner = runner
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        rows = self._runner.run(
            self._connection.fetch(
                "select column_name from information_schema.columns where table_name = $1 "
                "and table_schema = 'public' order by ordinal_position",
                table,
            )
        )
        return [row[0] for row in rows]

    def run(self, statement: str, *values: Any) -> None:
        self._runner.run(self._connection.execute(_numbered(statement), *values))

    def one(self, statement: str, *values: Any) -> Any:
        return self._runner.run(self._connection.fetchval(_numbered(statement), *values))

    def series(self, first: int, last: int) -> str:
        return f"generate_series(cast({first} as bigint), {last}) as series (n)"

    def new_id(self, kind: str, moment: str, number: str) -> str:
        return f"'{kind}_' || lpad(to_hex({moment}), 12, '0') || lpad(to_hex({number}), 20, '0')"


def _numbered(statement: str) -> str:
    parts = statement.split("?")
    return parts[0] + "".join(f"${number}{part}" for number, part in zip(count(1), parts[1:]))


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """By what `KLINGEL_DATABASE_URL` says. Beside a Klingel that works on it, too."""
    if url.startswith("postgresql:"):
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(url))
            try:
                yield PostgresStore(runner, connection)
            finally:
                runner.run(connection.close())
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)) as file:
        yield SqliteStore(file)


def copy(store: Store, table: str, template: str, ids: Sequence[str], **changed: str) -> None:
    """Rows like the one with this id, under new ids.

    Args:
        changed: columns by SQL over the row, `old`, and the last part of its new id, `listed.value`.
    """
    columns = store.columns(table)
    picked = [changed.get(name, f"old.{name}") for name in columns]
    store.run(
        f"insert into {table} ({', '.join(columns)}) select {', '.join(picked)} "
        f"from {store.listed} join {table} as old on old.id = ?",
        json.dumps(list(ids)),
        template,
    )
