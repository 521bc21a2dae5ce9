"""The texts in `queries/` and `migrations/`: what both databases understand, and what each says in its own words."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import aiosql


class Dialect(StrEnum):
    """Its folders are called so."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


_ROOT: Final = Path(str(files("storage")))
# What one says and the other need not: SQLite has one writer, who is alone with what it reads.
_PLACEHOLDERS: Final[Mapping[Dialect, Mapping[str, str]]] = {
    Dialect.SQLITE: {"{for_update}": "", "{skip_locked}": ""},
    Dialect.POSTGRES: {"{for_update}": "for update", "{skip_locked}": "for update skip locked"},
}


@cache
def load_statements(dialect: Dialect) -> Mapping[str, str]:
    """By name. What stands in `queries/` itself is for both; the same names are in the folder of each."""
    statements: dict[str, str] = {}
    for folder in (_ROOT / "queries", _ROOT / "queries" / dialect):
        for file in sorted(folder.glob("*.sql")):
            queries = aiosql.from_path(file, "aiosqlite", mandatory_parameters=False)
            found = {
                name: _said(getattr(queries, name).sql, dialect)
                for name in queries.available_queries
                if not name.endswith("_cursor")
            }
            if twice := statements.keys() & found.keys():
                raise ValueError(f"{file} says again what is said elsewhere: {', '.join(sorted(twice))}")
            statements |= found
    return statements


def _said(statement: str, dialect: Dialect) -> str:
    for placeholder, words in _PLACEHOLDERS[dialect].items():
        statement = statement.replace(placeholder, words)
    return statement


@cache
def load_migrations(dialect: Dialect) -> Sequence[tuple[int, str]]:
    """In their order, with their numbers."""
    named = sorted((file.name, file.read_text()) for file in (_ROOT / "migrations" / dialect).glob("*.sql"))
    return [(int(name.split("_")[0]), text) for name, text in named]
