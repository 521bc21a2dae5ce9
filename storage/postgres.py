"""PostgreSQL: many processes on one server, every commit on its disk before it is answered."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Final
from weakref import WeakValueDictionary

import asyncpg
from asyncpg.connection import Connection
from asyncpg.pool import Pool, PoolConnectionProxy

from service.domain.errors import ConfigurationError, SearchTooWide, StorageUnavailable
from service.domain.times import utc_now
from storage.aftermath import Aftermath
from storage.columns import Row, milliseconds
from storage.database import LONGEST_SEARCH_S, Collided, CommitUnknown, Inspected, shown
from storage.put_off import Columns, Writes, may_see
from storage.statements import Dialect, load_migrations, load_statements

# Connections of one process, each made when it is first wanted. One more listens for notices.
WRITERS: Final = 4
READERS: Final = 4
SEARCHERS: Final = 3

CONNECT_S: Final = 10.0
ANSWER_S: Final = 30.0  # that one statement may take before its server counts as gone
OLDEST_SERVER: Final = 14

_MIGRATING: Final = 0x4B6C_696E_6765_6C00  # the advisory lock of whoever changes the schema

# Of those who search.
_USUAL_MS: Final = str(round(LONGEST_SEARCH_S * 1000))
_USUAL_TIME: Final = f"set statement_timeout = {_USUAL_MS}"

_Connection = Connection | PoolConnectionProxy

# What an operator may have set otherwise, and we count on. Said once connected: of what is said when connecting, a pooler
# takes the name alone.
SESSION: Final = {
    "jit": "off",  # our statements take less time than to compile them
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # A process that stalls or is cut off while it holds something gives it up.
    "idle_in_transaction_session_timeout": "60s",
}

# Whoever writes finds its rows by an index. A plan that was made while the tables were small, and is kept, must not read
# the whole of one that has grown.
_BY_INDEX: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

# Text holds no NUL here; its place is taken by the sign for what cannot be shown.
_NUL_STANDS_AS: Final = "\N{REPLACEMENT CHARACTER}"
_ESCAPED_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_READ_AS_JSON: Final = re.compile(r"cast\(:(\w+) as json\)")

# A parameter, or what stands in quotes: a colon in there begins none, nor do the two of a cast.
_PARAMETER: Final = re.compile(r"""'[^']*'|"[^"]*"|(?<!:):(?P<name>\w+)""")


@dataclass(frozen=True, slots=True)
class Statement:
    """With `$1`, `$2` and so on for its parameters.

    Args:
        names: of the parameters, in their order.
        parsed: those of them that the server reads as JSON.
    """

    text: str
    names: Sequence[str]
    parsed: frozenset[str]

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        return [self._storable(name, parameters[name]) for name in self.names]

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """By parameter, its value in each row."""
        return [self._storable_all(name, [row[name] for row in rows]) for name in self.names]

    def _storable_all(self, name: str, values: list[Any]) -> list[Any]:
        """Looked at together, which takes a quarter of the time: nearly never has one what cannot be stored."""
        texts = "".join([value for value in values if isinstance(value, str)])
        if "\0" in texts or (name in self.parsed and r"\u0000" in texts):
            return [self._storable(name, value) for value in values]
        return values

    def _storable(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if "\0" in value:
                value = value.replace("\0", _NUL_STANDS_AS)
            if name in self.parsed and r"\u0000" in value:
                value = _ESCAPED_NUL.sub(rf"\1{_NUL_STANDS_AS}", value)
        return value


@cache
def statements() -> Mapping[str, Statement]:
    """All of them, by name."""
    return {name: numbered(text) for name, text in load_statements(Dialect.POSTGRES).items()}


def numbered(text: str) -> Statement:
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return found[0]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return Statement(_PARAMETER.sub(number, text), tuple(names), frozenset(_READ_AS_JSON.findall(text)))


@contextmanager
def _storage_errors(connection: _Connection | None = None) -> Iterator[None]:
    """A constraint that fails, a statement that is wrong, or a value that has no place is a fault of ours; all else is the
    server's.
    """
    try:
        yield
    except asyncpg.TransactionRollbackError as error:
        raise Collided(f"The database had to undo this, because others were in its way ({error}).") from error
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError) as error:  # somebody was at it
        raise _unavailable(error) from error
    except (
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.CardinalityViolationError,
        asyncpg.DataError,
        asyncpg.ProgramLimitExceededError,  # too long for an index, too deep to be read
        asyncpg.SyntaxOrAccessError,
    ):
        raise
    except (asyncpg.PostgresError, OSError) as error:
        raise _unavailable(error) from error
    except asyncpg.InternalClientError as error:  # the server said good-bye before it was asked anything
        raise _unavailable(error) from error
    except asyncpg.InterfaceError as error:
        if connection is not None and not _is_lost(connection):
            raise
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> StorageUnavailable:
    said = str(error) or type(error).__name__
    return StorageUnavailable(f"The database cannot be used right now ({said}).")


class PostgresReader:
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def all(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        found = statements()[statement]
        with _storage_errors(self._connection):
            return await self._connection.fetch(found.text, *found.arguments(parameters))  # type: ignore[return-value]  # a Record maps names to values, without saying so

    async def one(self, statement: str, /, **parameters: Any) -> Row | None:
        rows = await self.all(statement, **parameters)
        return rows[0] if rows else None

    async def value(self, statement: str, /, **parameters: Any) -> Any:
        row = await self.one(statement, **parameters)
        return None if row is None else next(iter(row.values()))


class _Searcher(PostgresReader):
    """Reads that are cut off at a moment: the server ends each by itself, and none begins after it."""

    def __init__(self, connection: _Connection, *, seconds: float) -> None:
        super().__init__(connection)
        self._until = time.monotonic() + seconds

    async def all(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        if time.monotonic() > self._until:
            raise _too_wide()
        try:
            return await super().all(statement, **parameters)
        except StorageUnavailable as error:
            if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise _too_wide() from None
            raise


def _too_wide() -> SearchTooWide:
    return SearchTooWide(
        "The filter looks at more than can be read in a moment. Narrow it, e.g. by status or created_after."
    )


class _CommitOrder:
    """Callbacks of transactions that hold one key run in the order of their commits.

    The server answers each connection separately: a transaction that got a key second may hear of its COMMIT first. So
    each waits for the callbacks of those that held its keys before.
    """

    def __init__(self) -> None:
        self._last: dict[int, asyncio.Future[None]] = {}

    def enter(self, keys: Iterable[int], held: "asyncio.Future[None]") -> "list[asyncio.Future[None]]":
        """The previous holders of these keys whose callbacks have not run yet.

        Args:
            held: of the new holder; done when its callbacks have run, or when it was undone.
        """
        before = [last for key in keys if (last := self._last.get(key)) is not None and not last.done()]
        self._last |= dict.fromkeys(keys, held)
        return before


class PostgresTransaction(PostgresReader):
    """A write whose result nobody waits for is put off: until a write whose result is awaited, a read that may see it, a
    name that is held, or the end of the transaction. One that fails raises there.
    """

    def __init__(self, connection: _Connection, writes: Writes, commit_order: _CommitOrder) -> None:
        super().__init__(connection)
        self.aftermath = Aftermath()
        self.goes_away = False
        self._writes = writes
        self._commit_order = commit_order
        self._before: set[asyncio.Future[None]] = set()
        self._held: list[asyncio.Future[None]] = []
        self._put_off: list[tuple[str, Columns]] = []

    async def all(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        if any(may_see(statements()[statement].text, written) for written, _ in self._put_off):
            await self._catch_up()
        return await super().all(statement, **parameters)

    async def several(self, *asked: tuple[str, Mapping[str, Any]]) -> Sequence[Sequence[Row]]:
        return [await self.all(statement, **parameters) for statement, parameters in asked]

    async def hold(self, kind: str, names: Iterable[str], /) -> None:
        if keys := await self._keys(kind, names):
            with _storage_errors(self._connection):
                await self._connection.execute(
                    "select pg_advisory_xact_lock(key) from unnest(cast($1 as bigint[])) as key", keys
                )
            self._hold(keys)

    async def next_positions(self, accounts: Iterable[str], number: int) -> Sequence[int]:
        keys = await self._keys("events", accounts)
        rows = await self.all("next_positions", number=number, held=keys)
        self._hold(keys)
        return [row["position"] for row in rows]

    async def _keys(self, kind: str, names: Iterable[str]) -> list[int]:
        await self._catch_up()  # rows are changed before the logs of accounts are held, by everybody
        # In one order for all: who wants what somebody else holds never holds what that one wants.
        return sorted({_lock(kind, name) for name in names})

    def _hold(self, keys: Sequence[int]) -> None:
        held = asyncio.get_running_loop().create_future()
        self._before.update(self._commit_order.enter(keys, held))
        self._before.difference_update(self._held)
        self._held.append(held)

    async def run(self, statement: str, /, **parameters: Any) -> int:
        await self._catch_up()
        found = statements()[statement]
        with _storage_errors(self._connection):
            status: str = await self._connection.execute(found.text, *found.arguments(parameters))
        return int(status.rpartition(" ")[2])

    async def run_many(self, statement: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        if rows:
            found = statements()[statement]
            self._put_off.append((found.text, found.columns(rows)))

    async def _catch_up(self) -> None:
        if self._put_off:
            put_off, self._put_off = self._put_off, []
            with _storage_errors(self._connection):
                await self._writes.carry_out(self._connection, put_off)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self._catch_up()
        mark, held = self.aftermath.mark(), len(self._held)
        await self._say("savepoint item")
        try:
            yield
            await self._catch_up()
        except BaseException:
            self._put_off.clear()
            self.aftermath.undone(since=mark)
            self._let_go(since=held)
            if not _is_lost(self._connection):
                await self._say("rollback to savepoint item; release savepoint item")
            raise
        await self._say("release savepoint item")

    def on_commit(self, callback: Callable[[], None]) -> None:
        self.aftermath.on_commit(callback)

    def on_rollback(self, callback: Callable[[], None]) -> None:
        self.aftermath.on_rollback(callback)

    async def begin(self) -> None:
        await self._say("begin isolation level read committed read write")

    async def commit(self) -> None:
        """Whoever waits for it and wants to go away does so, by `goes_away`, once it is known what became of it.

        Raises:
            StorageUnavailable: it is not stored.
            CommitUnknown: its server, or the connection, was gone just then.
        """
        await self._catch_up()
        committing = asyncio.create_task(self._say_commit(), name="commit")
        while not committing.done():
            try:
                await asyncio.wait([committing])
            except asyncio.CancelledError:
                self.goes_away = True
        if committing.result() != "COMMIT":  # after a statement that failed, and was passed over
            raise RuntimeError("A statement of this transaction failed: nothing of it is stored.")

    async def _say_commit(self) -> str:
        try:
            said = await self._say("commit")
        except Collided:
            raise
        except StorageUnavailable as error:
            raise CommitUnknown(f"{error.detail} Whether it is stored is not known.") from error.__cause__
        if self._before:
            await asyncio.wait(self._before)
        return said

    def end(self) -> None:
        """Its callbacks have run: later holders of its keys may run theirs."""
        self._let_go(since=0)

    def _let_go(self, *, since: int) -> None:
        for held in self._held[since:]:
            held.set_result(None)
        del self._held[since:]

    async def rollback(self) -> None:
        """Whatever state it is in, the next one finds its connection clean, or finds another."""
        try:
            if not _is_lost(self._connection):
                await self._say("rollback")
        except StorageUnavailable:
            _drop(self._connection)  # the server undoes what nobody can commit
        except BaseException:
            _drop(self._connection)
            raise

    async def _say(self, words: str) -> str:
        with _storage_errors(self._connection):
            status: str = await self._connection.execute(words)
        return status


def _lock(kind: str, name: str) -> int:
    """One of 256 of its kind: a batch that holds a thousand names must not fill the server's table of locks. Two names
    that share one wait for each other without need, and that is all.
    """
    of_kind, of_name = (blake2b(word.encode(), digest_size=7).digest() for word in (kind, name))
    return int.from_bytes(of_kind + of_name[:1], signed=True)


class PostgresDatabase:
    """Use `open_postgres`."""

    sole_process = False

    def __init__(self, *, writers: Pool, readers: Pool, searchers: Pool) -> None:
        self._writers = writers
        self._readers = readers
        self._searchers = searchers
        self._searching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writes = Writes()
        self._commit_order = _CommitOrder()
        self._doubted: Callable[[], None] = lambda: None

    def on_doubt(self, doubted: Callable[[], None]) -> None:
        self._doubted = doubted

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PostgresReader]:
        async with _connected(self._readers) as connection:
            yield PostgresReader(connection)

    @asynccontextmanager
    async def searching(
        self, whose: str, *, seconds: float = LONGEST_SEARCH_S
    ) -> AsyncIterator[PostgresReader]:
        turn = self._searching.setdefault(whose, asyncio.Lock())
        async with turn, _connected(self._searchers) as connection, _given(connection, seconds):
            yield _Searcher(connection, seconds=seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        async with _connected(self._writers) as connection:
            tx = PostgresTransaction(connection, self._writes, self._commit_order)
            try:
                await tx.begin()
                yield tx
                await tx.commit()
            except BaseException as error:
                tx.aftermath.undone()
                try:
                    await tx.rollback()
                finally:
                    tx.end()
                    if isinstance(error, CommitUnknown):
                        self._doubted()
                if tx.goes_away:
                    raise asyncio.CancelledError from error
                raise
        tx.aftermath.stored()
        tx.end()
        if tx.goes_away:
            raise asyncio.CancelledError

    async def check(self) -> None:
        async with self.transaction() as tx:
            await tx.run("touch", now=milliseconds(utc_now()))


@asynccontextmanager
async def _connected(pool: Pool) -> AsyncIterator[PoolConnectionProxy]:
    """A connection of its own; a broken one is replaced by the pool."""
    with _storage_errors():
        connection = await pool.acquire()
    try:
        yield connection
    except StorageUnavailable as error:
        if isinstance(error.__cause__, asyncpg.InternalClientError):
            _drop(connection)
        raise
    finally:
        with _storage_errors():
            await pool.release(connection, timeout=CONNECT_S)


def _is_lost(connection: _Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # its pool has done with it
        return True


def _drop(connection: _Connection) -> None:
    """Nobody is given it any more."""
    with suppress(asyncpg.InterfaceError):  # it has gone already
        connection.terminate()


@asynccontextmanager
async def _given(connection: _Connection, seconds: float) -> AsyncIterator[None]:
    """So long for each of its statements; connections that search have the usual time without being told."""
    if seconds == LONGEST_SEARCH_S:
        yield
        return
    with _storage_errors(connection):
        await connection.execute(f"set statement_timeout = {max(1, round(seconds * 1000))}")
    try:
        yield
    finally:
        if not _is_lost(connection):
            with _storage_errors(connection):
                try:
                    await connection.execute(_USUAL_TIME)
                except (
                    asyncpg.QueryCanceledError
                ):  # by the short time itself, or by a cancellation that came late
                    _drop(connection)


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[PostgresDatabase]:
    """The database at `url`, migrated as needed, whoever else is on it.

    Raises:
        ConfigurationError: not to be reached, not for us, too old, or written by a newer Klingel.
    """
    searching = {
        "statement_timeout": _USUAL_MS,
        "default_transaction_read_only": "on",
        # A plan for any filter is for some of them many times slower than one for what is looked for.
        "plan_cache_mode": "force_custom_plan",
    }
    async with AsyncExitStack() as stack:
        with _opening(url):
            writers = await stack.enter_async_context(
                _pool(url, WRITERS, settings=_BY_INDEX, and_then=_demand_commits_on_disk)
            )
            readers = await stack.enter_async_context(
                _pool(url, READERS, settings={"default_transaction_read_only": "on"})
            )
            searchers = await stack.enter_async_context(_pool(url, SEARCHERS, settings=searching))
            async with writers.acquire() as connection:
                await _check_server(connection, url)
                await migrate(connection, url)
        yield PostgresDatabase(writers=writers, readers=readers, searchers=searchers)


@contextmanager
def _opening(url: str) -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise ConfigurationError(
            f"The database {shown(url)} cannot be used: {str(error) or type(error).__name__}. "
            "Look at KLINGEL_DATABASE_URL, and whether the server runs and lets this user in."
        ) from None
    except (ValueError, OverflowError):  # whose texts quote what may be a part of the password
        raise ConfigurationError(
            "KLINGEL_DATABASE_URL cannot be used: what is special in its user, password, host or parameters has to be "
            "percent-encoded, and a port is a number up to 65535."
        ) from None


@asynccontextmanager
async def _pool(
    url: str,
    size: int,
    *,
    settings: Mapping[str, str],
    and_then: Callable[[Connection], Awaitable[None]] | None = None,
) -> AsyncIterator[Pool]:
    async def init(connection: Connection) -> None:
        await prepare(connection, settings)
        if and_then is not None:
            await and_then(connection)

    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        max_queries=2**31,  # no connection has to go because it was of use
        init=init,
        reset=_leave_as_it_is,
        timeout=CONNECT_S,
        command_timeout=ANSWER_S,
        statement_cache_size=len(statements()) * 2,
        max_cached_statement_lifetime=0,
        server_settings={"application_name": "klingel"},
    )
    async with pool:
        yield pool


async def prepare(connection: Connection, settings: Mapping[str, str] = {}) -> None:
    """Its session, as all of ours are, and by further settings."""
    wanted = {**SESSION, **settings}
    await connection.execute(
        "select set_config(name, value, false) from unnest($1::text[], $2::text[]) as setting (name, value)",
        list(wanted),
        list(wanted.values()),
    )


async def _leave_as_it_is(_connection: Connection) -> None:
    """Who gives a connection back has left nothing on it, and the next one is spared a round trip."""


async def _demand_commits_on_disk(connection: Connection) -> None:
    """Whatever the server does for others. One that waits for more than its own disk goes on doing so."""
    await connection.execute(
        "select set_config('synchronous_commit', 'on', false) "
        "where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')"
    )


async def _check_server(connection: _Connection, url: str) -> None:
    if connection.get_server_version().major < OLDEST_SERVER:
        raise ConfigurationError(
            f"The server of {shown(url)} is PostgreSQL {connection.get_settings().server_version}. "
            f"Klingel needs {OLDEST_SERVER} or newer."
        )
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database {shown(url)} keeps text as {encoding}, which cannot hold every prompt. "
            "Make one with `create database … encoding 'UTF8' template template0`."
        )


async def inspect_postgres(url: str) -> Inspected:
    """Read without a change, also while Klingel works on it.

    Raises:
        ConfigurationError: it cannot be reached or read.
    """
    newest = load_migrations(Dialect.POSTGRES)[-1][0]
    with _opening(url):
        connection = await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=ANSWER_S)
        try:
            await _check_server(connection, url)
            version = await _version(connection)
            if version != newest:
                return Inspected(version, newest)
            row = await connection.fetchrow(
                "select count(*) as processes, count(*) filter (where roles like '%dispatch%') as dispatchers "
                "from processes where until >= extract(epoch from clock_timestamp()) * 1000"
            )
            assert row is not None
            return Inspected(version, newest, row["processes"], row["dispatchers"])
        finally:
            await connection.close(timeout=CONNECT_S)


async def _version(connection: _Connection) -> int:
    """Of its last migration; 0 where there was none."""
    if await connection.fetchval("select to_regclass('migrations')") is None:
        return 0
    version: int | None = await connection.fetchval("select max(version) from migrations")
    return version or 0


async def migrate(connection: _Connection, url: str, *, up_to: int | None = None) -> None:
    """Each migration is one transaction. Of those that come at once, one does it, and the others wait for it."""
    migrations = load_migrations(Dialect.POSTGRES)
    newest = migrations[-1][0]
    if await _version(connection) == newest:
        return
    await connection.execute("select pg_advisory_lock($1)", _MIGRATING, timeout=None)
    try:
        version = await _version(connection)
        if version > newest:
            raise ConfigurationError(
                f"The database {shown(url)} was written by a newer Klingel (its version is {version}, this one knows "
                f"{newest}). Update Klingel, or choose another database."
            )
        await connection.execute(
            "create table if not exists migrations (version integer primary key, applied_at bigint not null)"
        )
        for number, text in migrations:
            if version < number <= (newest if up_to is None else up_to):
                async with connection.transaction():
                    await connection.execute(text, timeout=None)
                    await connection.execute(
                        "insert into migrations values ($1, $2)", number, milliseconds(utc_now())
                    )
    finally:
        if not _is_lost(connection):
            await connection.execute("select pg_advisory_unlock($1)", _MIGRATING)
