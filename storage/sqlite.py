"""SQLite: one writer connection, several readers, write-ahead log, every commit on disk before it is answered."""

import asyncio
import fcntl
import os
import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakValueDictionary

import aiosqlite

from service.domain.errors import ConfigurationError, SearchTooWide, StorageUnavailable
from service.domain.times import utc_now
from storage.aftermath import Aftermath
from storage.checkpoints import LOG_BYTES, Checkpoints
from storage.columns import Row, milliseconds
from storage.database import LONGEST_SEARCH_S, Inspected
from storage.statements import Dialect, load_migrations, load_statements

READERS: Final = 2
SEARCHERS: Final = 3
STEPS_BETWEEN_LOOKS: Final = 50_000  # of SQLite's machine, at the clock: some milliseconds
BUSY_TIMEOUT_MS: Final = 5000
STATEMENTS_KEPT: Final = (
    512  # of each connection, compiled; it knows some 200, and some of them in several sizes
)
# Pages kept by each connection that only reads, of which there are five. It loses them with each commit of the writer,
# and finds them again in the system's memory.
READERS_PAGES_KIB: Final = 512
# Rows that one statement may have, largest first. Each size is one of its own to SQLite, and each statement a turn of the
# interpreter that its thread waits for: of as many rows as most batches have there are one or two.
SIZES: Final = (64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)

_PRAGMAS: Final = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",  # a 2xx goes out after the commit is on disk
    "pragma wal_autocheckpoint = 0",  # see storage.checkpoints
    f"pragma journal_size_limit = {LOG_BYTES}",
    "pragma foreign_keys = on",
    f"pragma busy_timeout = {BUSY_TIMEOUT_MS}",
    "pragma temp_store = memory",
)

# For values of these types the driver asks around who may adapt them, each time, and is told by two errors that nobody does:
# 2,500 instructions for each null or text in bytes, of which a callback has a dozen.
_NULL: Final[Mapping[None, None]] = {None: None}
sqlite3.register_adapter(type(None), _NULL.__getitem__)
sqlite3.register_adapter(bytes, bytes)

_READERS_PRAGMAS: Final = (
    "pragma query_only = on",
    f"pragma cache_size = -{READERS_PAGES_KIB}",
)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """A constraint that fails is a fault of ours; all else that SQLite raises is its disk's."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise SearchTooWide(
                "The filter looks at more than can be read in a moment. Narrow it, e.g. by status or created_after."
            ) from None
        raise StorageUnavailable(f"The database cannot be used right now ({error}).") from error


class SqliteReader(ABC):
    def __init__(self, statements: Mapping[str, str]) -> None:
        self._statements = statements

    async def all(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        return _mappings(await self._fetch(statement, parameters))

    async def one(self, statement: str, /, **parameters: Any) -> Row | None:
        rows = await self._fetch(statement, parameters)
        return _mappings(rows[:1])[0] if rows else None

    async def value(self, statement: str, /, **parameters: Any) -> Any:
        rows = await self._fetch(statement, parameters)
        return rows[0][0] if rows else None

    @abstractmethod
    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[sqlite3.Row]: ...


class _ExclusiveReader(SqliteReader):
    """Reads on a connection that nobody else uses meanwhile."""

    def __init__(self, connection: aiosqlite.Connection, statements: Mapping[str, str]) -> None:
        super().__init__(statements)
        self._connection = connection

    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[sqlite3.Row]:
        with _storage_errors():
            return await self._connection.execute_fetchall(self._statements[statement], parameters)  # type: ignore[return-value]  # sqlite3's own list


class _SharedReader(SqliteReader):
    """Reads on connections that many callers use at a time: on the one with the shortest queue."""

    def __init__(self, queues: "Sequence[_ReadQueue]", statements: Mapping[str, str]) -> None:
        super().__init__(statements)
        self._queues = queues

    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[sqlite3.Row]:
        shortest = min(self._queues, key=_ReadQueue.__len__)
        with _storage_errors():
            return await shortest.fetch(self._statements[statement], parameters)


# Several statements in one go. To change to a connection's thread and back takes several times as long as to find a row,
# and aiosqlite runs nothing there but sqlite3's own methods. So a batch of statements travels as the parameters of one
# `execute`, and our subclasses of sqlite3's connection take it apart in the thread.


@dataclass(frozen=True, slots=True)
class _Query:
    text: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Step:
    """A statement whose result nobody waits for: run once, or for many rows."""

    text: str
    rows: Sequence[Any] | None = None


class _Batch(dict[str, Any]):
    """In the place of parameters: queries that are run instead of the statement's text, and steps to run before them."""

    def __init__(self, queries: Sequence[_Query], steps: Sequence[_Step] = ()) -> None:
        super().__init__()
        self.queries = queries
        self.steps = steps


class _AfterSteps(dict[str, Any]):
    """The parameters of a statement, and steps to run before it."""

    def __init__(self, parameters: Mapping[str, Any], steps: Sequence[_Step]) -> None:
        super().__init__(parameters)
        self.steps = steps


@dataclass(frozen=True, slots=True)
class _BatchResult:
    """Stands for the cursor of a batch: for each query its rows, or its error."""

    each: Sequence[Any]

    def fetchall(self) -> Sequence[Any]:
        return self.each


class _ReadConnection(sqlite3.Connection):
    """Runs the queries of a `_Batch`, each for itself: one that fails has its error as its result."""

    def execute(self, text: str, parameters: Any = (), /) -> Any:
        if isinstance(parameters, _Batch):
            return _BatchResult([self._read(query) for query in parameters.queries])
        return super().execute(text, parameters)

    def _read(self, query: _Query) -> list[sqlite3.Row] | sqlite3.Error:
        try:
            return super().execute(query.text, query.parameters).fetchall()
        except sqlite3.Error as error:
            return error


class _WriteConnection(sqlite3.Connection):
    """Runs the steps of a `_Batch` or of `_AfterSteps` first, then the queries or the statement."""

    def execute(self, text: str, parameters: Any = (), /) -> Any:
        if isinstance(parameters, (_AfterSteps, _Batch)):
            for step in parameters.steps:
                if step.rows is None:
                    super().execute(step.text)
                else:
                    super().executemany(step.text, step.rows)
        if isinstance(parameters, _Batch):
            execute = super().execute
            return _BatchResult(
                [_read_whole(execute(query.text, query.parameters)) for query in parameters.queries]
            )
        return super().execute(text, parameters)


def _read_whole(cursor: sqlite3.Cursor) -> list[Row]:
    """Fetches all rows as `_mappings` gives them, in three quarters of the time of both steps."""
    cursor.row_factory = None
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _mappings(rows: Sequence[sqlite3.Row]) -> list[Row]:
    """A `sqlite3.Row` looks for each name from its first column on: 12 us for all of a task, against 2 here."""
    names = rows[0].keys() if rows else ()
    return [dict(zip(names, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class _WaitingQuery:
    query: _Query
    rows: "asyncio.Future[list[sqlite3.Row]]"


class _ReadQueue:
    """Queries that wait for one connection: those that come while it reads are its next batch."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        """
        Args:
            connection: a `_ReadConnection` inside.
        """
        self.connection = connection
        self._waiting: list[_WaitingQuery] = []
        self._worker: asyncio.Task[None] | None = None
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    async def fetch(self, text: str, parameters: Mapping[str, Any]) -> list[sqlite3.Row]:
        waiting = _WaitingQuery(_Query(text, parameters), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="readings")
        return await waiting.rows

    async def drain(self) -> None:
        """Waits until every query has its result."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            self._under_way = len(together)
            try:
                batch = _Batch([waiting.query for waiting in together])
                results: Sequence[Any] = list(await self.connection.execute_fetchall("", batch))
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
                results = [error] * len(together)
            for waiting, result in zip(together, results, strict=True):
                if waiting.rows.done():  # its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    waiting.rows.set_exception(result)
                else:
                    waiting.rows.set_result(result)
            self._under_way = 0
        self._worker = None


class _Searcher:
    """A connection on which reads are cut off at a moment."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.until = 0.0  # by the monotonic clock

    async def prepare(self) -> None:
        """The clock is looked at in the connection's own thread: nothing is cut off that comes after."""
        await self.connection.set_progress_handler(self._is_late, STEPS_BETWEEN_LOOKS)

    def _is_late(self) -> bool:
        return time.monotonic() > self.until


class _Insert:
    """A statement with `values (…)`, by which as many rows are written as there are brackets behind it."""

    def __init__(self, head: str, values: str, tail: str, names: Sequence[str]) -> None:
        """
        Args:
            values: with `?` for each parameter.
            names: of the parameters, in their order.
        """
        self._texts = {size: f"{head}{', '.join([values] * size)}{tail}" for size in SIZES}
        self._take = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Step]:
        """In statements as large as may be: one by one costs the thread a turn of the interpreter for each row."""
        begin = 0
        while left := len(rows) - begin:
            size = _largest(min(left, SIZES[0]))
            together = rows if size == len(rows) else rows[begin : begin + size]
            yield _Step(self._texts[size], [list(chain.from_iterable(map(self._take, together)))])
            begin += size


@cache
def _largest(left: int) -> int:
    return next(size for size in SIZES if size <= left)


_VALUES: Final = re.compile(
    r"(?P<head>.*\bvalues\s*)\((?P<values>[^()]*)\)(?P<tail>.*)", re.DOTALL | re.IGNORECASE
)
_PARAMETER: Final = re.compile(r":([a-z_]\w*)")


@cache
def _insert_of(text: str) -> _Insert | None:
    """None for a statement that goes by one row at a time."""
    found = _VALUES.fullmatch(text)
    if found is None or _PARAMETER.search(found["head"]) or _PARAMETER.search(found["tail"]):
        return None
    values = f"({_PARAMETER.sub('?', found['values'])})"
    return _Insert(found["head"], values, found["tail"], _PARAMETER.findall(found["values"]))


_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class _Log:
    """The log of events, which one process writes: where it ends is asked once, not by each transaction."""

    def __init__(self) -> None:
        self.next: int | None = None  # position; None is to be asked

    def forget(self) -> None:
        self.next = None


class SqliteTransaction(_ExclusiveReader):
    """A statement whose result nobody waits for is put off: it goes to the connection's thread as a step before the next
    statement whose result is awaited, or before the commit. So a transaction changes threads a few times, not once for each
    statement. A step that fails raises there.
    """

    def __init__(self, connection: aiosqlite.Connection, statements: Mapping[str, str], log: _Log) -> None:
        super().__init__(connection, statements)
        self.aftermath = Aftermath()
        self._log = log
        self._put_off: list[_Step] = [_Step("begin immediate")]

    async def several(self, *asked: tuple[str, Mapping[str, Any]]) -> Sequence[Sequence[Row]]:
        queries = [_Query(self._statements[statement], parameters) for statement, parameters in asked]
        with _storage_errors():
            found: Any = await self._connection.execute_fetchall("", _Batch(queries, self._take_steps()))
        return found  # type: ignore[no-any-return]  # the `_BatchResult` of a `_WriteConnection`

    async def run(self, statement: str, /, **parameters: Any) -> int:
        return await self._execute(self._statements[statement], parameters)

    async def run_many(self, statement: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        if not rows:
            return
        text = self._statements[statement]
        insert = _insert_of(text)
        self._put_off += [_Step(text, rows)] if insert is None else insert.steps(rows)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        mark = self.aftermath.mark()
        await self._execute("savepoint item")
        try:
            yield
            await self._execute("release item")
        except BaseException:
            self._put_off.clear()
            self.aftermath.undone(since=mark)
            with _storage_errors():
                # SQLite undoes the whole transaction by itself on a full disk: then there is no savepoint left.
                if self._connection.in_transaction:
                    await self._connection.execute("rollback to item")
                    await self._connection.execute("release item")
            raise

    async def hold(self, kind: str, names: Iterable[str], /) -> None:
        """There is one writer."""

    async def next_positions(self, _accounts: Iterable[str], number: int) -> Sequence[int]:
        if self._log.next is None:
            self._log.next = await self.value("next_positions")
        first = self._log.next
        self._log.next += number
        self.aftermath.on_rollback(self._log.forget)
        return range(first, first + number)

    def on_commit(self, callback: Callable[[], None]) -> None:
        self.aftermath.on_commit(callback)

    def on_rollback(self, callback: Callable[[], None]) -> None:
        self.aftermath.on_rollback(callback)

    async def commit(self) -> None:
        await self._execute("commit")

    async def _execute(self, text: str, parameters: Mapping[str, Any] = _NONE) -> int:
        with _storage_errors():
            cursor = await self._connection.execute(text, _AfterSteps(parameters, self._take_steps()))
        return cursor.rowcount

    async def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[sqlite3.Row]:
        return await super()._fetch(statement, _AfterSteps(parameters, self._take_steps()))

    def _take_steps(self) -> Sequence[_Step]:
        steps, self._put_off = self._put_off, []
        return steps


class SqliteDatabase:
    """Use `open_sqlite`."""

    sole_process = True

    def __init__(
        self,
        writer: aiosqlite.Connection,
        read_queues: Sequence[_ReadQueue],
        searchers: Sequence[_Searcher],
        statements: Mapping[str, str],
        checkpoints: Checkpoints,
        writing: asyncio.Lock,
    ) -> None:
        self._writer = writer
        self._writing = writing
        self._checkpoints = checkpoints
        self._statements = statements
        self._log = _Log()
        self._read_queues = read_queues
        # One for all callers: it keeps nothing of any of them.
        self._reader = nullcontext(_SharedReader(read_queues, statements))
        self._searchers: asyncio.LifoQueue[_Searcher] = asyncio.LifoQueue()
        for searcher in searchers:
            self._searchers.put_nowait(searcher)
        self._searching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def on_doubt(self, doubted: Callable[[], None]) -> None:
        """Nobody is on the way between a file and its process: what failed to commit is undone."""

    def reading(self) -> AbstractAsyncContextManager[SqliteReader]:
        return self._reader

    @asynccontextmanager
    async def searching(
        self, whose: str, *, seconds: float = LONGEST_SEARCH_S
    ) -> AsyncIterator[SqliteReader]:
        turn = self._searching.setdefault(whose, asyncio.Lock())
        async with turn:
            searcher = await self._searchers.get()
            try:
                searcher.until = time.monotonic() + seconds
                yield _ExclusiveReader(searcher.connection, self._statements)
            except asyncio.CancelledError:
                await searcher.connection.interrupt()  # nobody waits for what it reads
                raise
            finally:
                self._searchers.put_nowait(searcher)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        async with self._writing:
            tx = SqliteTransaction(self._writer, self._statements, self._log)
            try:
                yield tx
                await tx.commit()
            except BaseException:
                # Also after a failed commit: SQLite may have left the transaction open. Whether it has is found out
                # in the connection's thread, where the `begin` of a cancelled caller may still wait for its turn.
                tx.aftermath.undone()
                with _storage_errors():
                    await self._writer.rollback()
                raise
        tx.aftermath.stored()
        self._checkpoints.look()

    async def check(self) -> None:
        async with self.transaction() as tx:
            await tx.run("touch", now=milliseconds(utc_now()))


_DAMAGE: Final = " If it is damaged, restore a backup or move the file away to start with an empty one."
_DISK: Final = " Its disk is full, or cannot be read or written: make room there, or look at the disk."
_ADVICE: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_CORRUPT: _DAMAGE,
    sqlite3.SQLITE_NOTADB: _DAMAGE,
    sqlite3.SQLITE_FULL: _DISK,
    sqlite3.SQLITE_IOERR: _DISK,
}


def _advice(error: sqlite3.Error) -> str:
    """What to do, with a space before it, where that is known."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return _ADVICE.get(code & 0xFF, "")  # the rest of it tells what SQLite was doing


def _real(path: Path) -> Path:
    """Beside a link there is neither the log that SQLite writes, nor a lock that others see."""
    return path.resolve()


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteDatabase]:
    """The database at `path`, made and migrated as needed, with no other process on it.

    Raises:
        ConfigurationError: in use, damaged, unreadable, on a full disk, or written by a newer Klingel.
    """
    path = _real(path)
    async with AsyncExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_sole_process(path))
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # nobody else reads prompts and results
            writer = await stack.enter_async_context(_connect(path))
            await _migrate(writer, path)
            read_queues = [
                _ReadQueue(await stack.enter_async_context(_connect(path, writes=False)))
                for _ in range(READERS)
            ]
            for queue in read_queues:
                stack.push_async_callback(queue.drain)
            searchers = [
                _Searcher(await stack.enter_async_context(_connect(path, writes=False)))
                for _ in range(SEARCHERS)
            ]
            for searcher in searchers:
                await searcher.prepare()
            writing = asyncio.Lock()
            checkpoints = Checkpoints(
                await stack.enter_async_context(_connect(path)),
                path.with_name(path.name + "-wal"),
                turn=writing,
            )
            stack.push_async_callback(checkpoints.rest)
        except OSError as error:
            raise ConfigurationError(
                f"The database {path} cannot be opened: {error.strerror}. "
                "Make its folder writable, or choose another with KLINGEL_DATA_DIR or KLINGEL_DATABASE_URL."
            ) from None
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"The database {path} cannot be used: {error}.{_advice(error)}"
            ) from None
        statements = load_statements(Dialect.SQLITE)
        yield SqliteDatabase(writer, read_queues, searchers, statements, checkpoints, writing)


def inspect_sqlite(path: Path) -> Inspected:
    """Read without a change, also while a Klingel works on it.

    Raises:
        ConfigurationError: it cannot be read, or is no database of Klingel's.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [(version,)] = connection.execute("select max(version) from migrations").fetchall()
    except sqlite3.Error as error:
        raise ConfigurationError(f"The database {path} cannot be read: {error}.") from None
    return Inspected(version or 0, load_migrations(Dialect.SQLITE)[-1][0])


@contextmanager
def _sole_process(path: Path) -> Iterator[None]:
    """The kernel drops the lock with the process, however it dies: a leftover file means nothing."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"The database {path} is in use by another Klingel process. "
                "Stop that one first: a SQLite file serves one process at a time."
            ) from None
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _connect(path: Path, *, writes: bool = True) -> AsyncIterator[aiosqlite.Connection]:
    factory = _WriteConnection if writes else _ReadConnection
    async with aiosqlite.connect(
        path, isolation_level=None, cached_statements=STATEMENTS_KEPT, factory=factory
    ) as connection:
        connection.row_factory = sqlite3.Row
        pragmas = _PRAGMAS if writes else (*_PRAGMAS, *_READERS_PRAGMAS)
        await connection.executescript(";\n".join(pragmas))  # in one step
        yield connection


async def _migrate(connection: aiosqlite.Connection, path: Path, *, up_to: int | None = None) -> None:
    """Each migration is one transaction: a crash leaves it wholly done or not begun."""
    await connection.execute(
        "create table if not exists migrations (version integer primary key, applied_at integer not null) strict"
    )
    row = next(iter(await connection.execute_fetchall("select max(version) from migrations")))
    version = row[0] or 0
    migrations = load_migrations(Dialect.SQLITE)
    newest = migrations[-1][0]
    if version > newest:
        raise ConfigurationError(
            f"The database {path} was written by a newer Klingel (its version is {version}, this one knows {newest}). "
            "Update Klingel, or choose another database."
        )
    for number, text in migrations:
        if version < number <= (newest if up_to is None else up_to):
            # Both are numbers of our own; a script takes no parameters.
            applied = f"insert into migrations values ({number}, {milliseconds(utc_now())});"  # noqa: S608
            try:
                await connection.executescript(f"begin immediate;\n{text}\n{applied}\ncommit;")
            except BaseException:
                if connection.in_transaction:
                    await connection.rollback()
                raise
