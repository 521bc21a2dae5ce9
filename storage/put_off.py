"""PostgreSQL: many rows in one statement, and several such statements in one round trip."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from asyncpg.connection import Connection
from asyncpg.pool import PoolConnectionProxy

Columns = Sequence[Sequence[Any]]  # by parameter, its value in each row

_PARAMETER: Final = re.compile(r"\$(\d+)")
_INSERT: Final = re.compile(
    r"(?P<head>insert into (?P<table>\w+)\s*\([^()]*\))\s*values\s*\((?P<values>[^()]*)\)(?P<tail>[^$]*)",
    re.DOTALL,
)
_UPDATE: Final = re.compile(
    r"(?P<head>update (?P<table>\w+)\s+set\s.*?)\s(?P<tail>where id = \$(?P<key>\d+)(?!\d).*)", re.DOTALL
)
_NOTICE: Final = re.compile(r"select pg_notify\([^()]*\)")
# It would see the rows of before, or one row twice.
_LOOKS_AT_ROWS: Final = re.compile(r"\b(select|from|do update)\b")


@dataclass(frozen=True, slots=True)
class Many:
    """A statement in which each parameter is an array, with a value for each row.

    Args:
        table: that it writes to; None for one that writes to none.
        key: which parameter finds the row that is changed; a row that is found twice would be changed once.
    """

    head: str
    tail: str
    table: str | None
    key: int | None = None

    def text(self, types: Sequence[str], *, first: int) -> str:
        """With parameters from `first` on."""
        arrays = ", ".join(f"cast(${number} as {type}[])" for number, type in enumerate(types, first))
        names = ", ".join(f"p{number}" for number in range(1, len(types) + 1))
        return f"{self.head} from unnest({arrays}) as given ({names}) {self.tail}"

    def takes(self, columns: Columns) -> bool:
        return self.key is None or len(set(columns[self.key])) == len(columns[self.key])


@cache
def many_of(text: str) -> Many | None:
    """None for a statement that goes by one row at a time."""
    text = text.strip().rstrip(";")
    if _NOTICE.fullmatch(text):
        return Many(_given(text), "", None)
    if _LOOKS_AT_ROWS.search(text):
        return None
    if found := _INSERT.fullmatch(text):
        return Many(f"{found['head']} select {_given(found['values'])}", found["tail"], found["table"])
    if found := _UPDATE.fullmatch(text):
        return Many(_given(found["head"]), _given(found["tail"]), found["table"], int(found["key"]) - 1)
    return None


def may_see(text: str, written: str) -> bool:
    """Whether a statement that reads looks at what another one writes."""
    many = many_of(written)
    return many is None or (many.table is not None and many.table in _words(text))


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def _given(text: str) -> str:
    return _PARAMETER.sub(r"given.p\1", text)


@dataclass(frozen=True, slots=True)
class _Write:
    text: str
    columns: Columns
    many: Many | None


class Together:
    """Writes of which none looks at what another one has done, so that they may be one statement. Constraints between
    their tables are looked at when all of it is there.
    """

    def __init__(self) -> None:
        self.writes: dict[str, _Write] = {}
        self._tables: set[str] = set()

    def add(self, write: _Write) -> bool:
        """Whether it belongs here."""
        same = self.writes.get(write.text)
        if write.many is None or any(one.many is None for one in self.writes.values()):
            fits = not self.writes
        elif same is not None:
            fits = write.many.key is None
        else:
            fits = write.many.table is None or write.many.table not in self._tables
        if fits:
            columns = write.columns
            if same is not None:
                columns = [[*former, *more] for former, more in zip(same.columns, columns, strict=True)]
            self.writes[write.text] = _Write(write.text, columns, write.many)
            if write.many is not None and write.many.table is not None:
                self._tables.add(write.many.table)
        return fits


class Writes:
    """How statements for many rows are carried out on one database: their types are its own to tell."""

    def __init__(self) -> None:
        self._types: dict[str, Sequence[str]] = {}
        self._texts: dict[tuple[str, ...], str] = {}

    async def carry_out(
        self, connection: Connection | PoolConnectionProxy, put_off: Sequence[tuple[str, Columns]]
    ) -> None:
        for together in _grouped(put_off):
            # What writes to no table is the statement itself, for only writes are done without being asked for.
            writes = sorted(
                together.writes.values(), key=lambda write: write.many is None or not write.many.table
            )
            if writes[0].many is None:
                await connection.executemany(writes[0].text, zip(*writes[0].columns, strict=True))
            else:
                text = await self._text(connection, writes)
                await connection.execute(text, *(column for write in writes for column in write.columns))

    async def _text(self, connection: Connection | PoolConnectionProxy, writes: Sequence[_Write]) -> str:
        key = tuple(write.text for write in writes)
        if key not in self._texts:
            parts: list[str] = []
            first = 1
            for write in writes:
                types = await self._types_of(connection, write.text)
                assert write.many is not None
                parts.append(write.many.text(types, first=first))
                first += len(types)
            *before, last = parts
            named = ", ".join(f"step_{number} as ({part})" for number, part in enumerate(before, 1))
            self._texts[key] = f"with {named} {last}" if before else last
        return self._texts[key]

    async def _types_of(self, connection: Connection | PoolConnectionProxy, text: str) -> Sequence[str]:
        if text not in self._types:
            prepared = await connection.prepare(text)
            self._types[text] = [f"{type.schema}.{type.name}" for type in prepared.get_parameters()]
        return self._types[text]


def _grouped(put_off: Sequence[tuple[str, Columns]]) -> Iterator[Together]:
    """In their order."""
    together = Together()
    for text, columns in put_off:
        many = many_of(text)
        write = _Write(text, columns, many if many is not None and many.takes(columns) else None)
        if not together.add(write):
            yield together
            together = Together()
            together.add(write)
    if together.writes:
        yield together
