"""The texts in `queries/` and `migrations/`: what both databases understand, and what each says in its own words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final


class Dialect(StrEnum):
    """Its folders are called so."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


_ROOT: Final = Path(str(files("storage")))

# As aiosql has it, which takes 80 ms of a start to read these files, against 3. The marker behind a name tells
# readers what comes of the statement, in aiosql's signs, by which a test reads these files too: rows (no marker), one row
# (^), one value ($), the number of rows that it touched (!), or it runs for many rows at once (*!). It is skipped here.
_NAME: Final = re.compile(r"^-- name: (\w+)[<^$*!#]*\n", re.MULTILINE)
_COMMENT: Final = re.compile(r"^ *--.*\n", re.MULTILINE)

# What PostgreSQL says in other words wherever it is said. Lists come as JSON: of ids, or of objects as `pair`s.
# An array is what it finds by an index whatever it believes of the list's length.
_LIST: Final = r"json_array_elements_text(cast(:\1 as json))"
_IN_POSTGRES: Final = (
    (re.compile(r"--[^\n]*"), ""),  # where an apostrophe would be taken for the begin of a text
    # not against rows that refer to them
    (re.compile(r"\{for_update\}"), "for no key update"),
    (re.compile(r"\{skip_locked\}"), "for no key update skip locked"),
    # against being deleted, and alone against that
    (re.compile(r"\{keep_unless_locked\}"), "for key share skip locked"),
    (
        re.compile(r"\bnot in \(select value from json_each\(:(\w+)\)\)"),
        rf"<> all (array(select value from {_LIST}))",  # noqa: S608 - our own words
    ),
    (
        re.compile(r"\bin \(select value from json_each\(:(\w+)\)\)"),
        rf"= any (array(select value from {_LIST}))",  # noqa: S608
    ),
    (
        re.compile(r"\bjson_each\(:(\w+)\) as pair\b"),
        r"json_array_elements(cast(:\1 as json)) as pair (value)",
    ),
    (re.compile(r"\bjson_each\(:(\w+)\)"), _LIST),
)
# SQLite has one writer, who is alone with what it reads.
_IN_SQLITE: Final = ((re.compile(r"\{(for_update|skip_locked|keep_unless_locked)\}"), ""),)
_TRANSLATIONS: Final = {Dialect.SQLITE: _IN_SQLITE, Dialect.POSTGRES: _IN_POSTGRES}


@cache
def load_statements(dialect: Dialect) -> Mapping[str, str]:
    """By name. What stands in `queries/` itself is for both; the same names are in the folder of each."""
    statements: dict[str, str] = {}
    for folder in (_ROOT / "queries", _ROOT / "queries" / dialect):
        for file in sorted(folder.glob("*.sql")):
            found = {name: _translated(text, dialect) for name, text in named_statements(file.read_text())}
            if twice := statements.keys() & found.keys():
                raise ValueError(f"{file} says again what is said elsewhere: {', '.join(sorted(twice))}")
            statements |= found
    return statements


def named_statements(text: str) -> Iterator[tuple[str, str]]:
    """Those of one file, without their comments."""
    _, *found = _NAME.split(text)
    for name, statement in zip(found[::2], found[1::2], strict=True):
        yield name, _COMMENT.sub("", statement).strip()


def _translated(statement: str, dialect: Dialect) -> str:
    for words, others in _TRANSLATIONS[dialect]:
        statement = words.sub(others, statement)
    return statement


@cache
def load_migrations(dialect: Dialect) -> Sequence[tuple[int, str]]:
    """In their order, with their numbers."""
    named = sorted((file.name, file.read_text()) for file in (_ROOT / "migrations" / dialect).glob("*.sql"))
    return [(int(name.split("_")[0]), text) for name, text in named]
