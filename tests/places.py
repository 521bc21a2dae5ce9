"""Where the database of a test is: in a folder, as a SQLite file, or on the run's PostgreSQL, one for each folder."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from storage.database import Database
from storage.opening import open_database
from storage.statements import Dialect
from tests import postgres
from tests.sqlite import lay_out


class Places(ABC):
    """Of one test. A folder's database is made when it is first asked for."""

    dialect: Dialect

    @abstractmethod
    async def at(self, folder: Path) -> Path | str:
        """As the settings name it."""

    @abstractmethod
    def rows(self, folder: Path, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """What is committed there, read or changed past Klingel. Parameters stand as `?`."""

    @abstractmethod
    async def copy(self, folder: Path, copy: Path) -> None:
        """All that is committed there by now, in a database of the other folder."""

    @abstractmethod
    def close(self) -> None:
        """Nobody uses them any more."""

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Database]:
        async with open_database(await self.at(folder)) as database:
            yield database


class SqlitePlaces(Places):
    dialect = Dialect.SQLITE

    async def at(self, folder: Path) -> Path:
        path = folder / "klingel.db"
        await lay_out(path)
        return path

    def rows(self, folder: Path, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(folder / "klingel.db")) as connection, connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, parameters)]

    async def copy(self, folder: Path, copy: Path) -> None:
        with (
            closing(sqlite3.connect(folder / "klingel.db")) as source,
            closing(sqlite3.connect(copy / "klingel.db")) as target,
        ):
            source.backup(target)

    def close(self) -> None:
        """Files go with their folders."""


class PostgresPlaces(Places):
    dialect = Dialect.POSTGRES

    def __init__(self, databases: postgres.Databases) -> None:
        self._databases = databases
        self._taken: dict[Path, postgres.Database] = {}

    async def at(self, folder: Path) -> str:
        return self._of(folder).url

    def rows(self, folder: Path, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        return self._of(folder).rows(statement, *parameters)

    async def copy(self, folder: Path, copy: Path) -> None:
        self._of(copy).copy_from(self._of(folder))

    def close(self) -> None:
        for database in self._taken.values():
            self._databases.give_back(database)

    def _of(self, folder: Path) -> postgres.Database:
        if folder not in self._taken:
            self._taken[folder] = self._databases.take()
        return self._taken[folder]


def places_of(request: pytest.FixtureRequest) -> Iterator[Places]:
    """What a fixture gives that is parametrised by dialects, of whatever scope."""
    if request.param is Dialect.SQLITE:
        yield SqlitePlaces()
        return
    places = PostgresPlaces(request.getfixturevalue("postgres"))
    yield places
    places.close()
