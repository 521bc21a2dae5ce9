"""What is PostgreSQL's own: many writers, a server that comes and goes, and its settings."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import asyncpg
import pytest
from anyio import wait_all_tasks_blocked

from service.batching import Batcher
from service.domain.errors import ConfigurationError, StorageUnavailable
from service.domain.ids import ProcessId
from storage import processes
from storage.columns import json_text
from storage.database import LONGEST_SEARCH_S, Collided, Inspected, Transaction, shown
from storage.postgres import PostgresDatabase, inspect_postgres, migrate, open_postgres, statements
from storage.statements import Dialect, load_migrations
from tests.contract import metadata
from tests.postgres import PASSWORD, PATIENCE_S, Databases, Server
from tests.wire import Wire

NEWEST = load_migrations(Dialect.POSTGRES)[-1][0]
OLDEST = load_migrations(Dialect.POSTGRES)[0][0]


@pytest.fixture
async def url(postgres: Databases) -> str:
    """Of a database in which there is nothing."""
    return await postgres.create()


@pytest.fixture
async def database(postgres: Databases) -> AsyncIterator[PostgresDatabase]:
    taken = postgres.take()
    async with open_postgres(taken.url) as database:
        yield database
    postgres.give_back(taken)


async def add(tx: Transaction, name: str) -> None:
    await tx.run("insert_account", id=f"acc_{name}", name=name, created_at=0)


async def stored(database: PostgresDatabase, *names: str) -> list[bool]:
    async with database.reading() as reader:
        return [await reader.one("account_by_name", name=name) is not None for name in names]


async def ask(url: str, text: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(text)]
    finally:
        await connection.close()


# Statements


async def test_every_statement_can_be_prepared(database: PostgresDatabase) -> None:
    broken = {}
    async with database._readers.acquire() as connection:
        for name, statement in statements().items():
            try:
                await connection.prepare(statement.text)
            except asyncpg.PostgresError as error:
                broken[name] = str(error)
    assert broken == {}


async def test_a_failed_statement_that_is_passed_over_is_found_out_at_the_end(
    database: PostgresDatabase,
) -> None:
    """The server undoes all of it without a word."""
    with pytest.raises(RuntimeError, match="nothing of it is stored"):
        async with database.transaction() as tx:
            await add(tx, "a")
            with pytest.raises(asyncpg.UniqueViolationError):
                await add(tx, "a")
    assert await stored(database, "a") == [False]


async def test_whoever_goes_away_while_it_is_committed_learns_of_it_once_it_is(
    database: PostgresDatabase,
) -> None:
    """What follows a commit follows it, and what follows an undoing does not."""
    heard: list[str] = []
    inside = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as tx:
            await add(tx, "a")
            tx.on_commit(lambda: heard.append("stored"))
            tx.on_rollback(lambda: heard.append("undone"))
            inside.set()

    writing = asyncio.create_task(write())
    await inside.wait()
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert heard == [{True: "stored", False: "undone"}[(await stored(database, "a"))[0]]]


async def test_whoever_goes_away_while_its_commit_is_lost_goes_away_and_that_is_looked_for(url: str) -> None:
    """Taken for a failure of the database, it would be tried again by whoever was told to stop."""
    doubts: list[None] = []
    async with Wire(url).running() as wire, open_postgres(wire.url) as database, asyncio.timeout(PATIENCE_S):
        database.on_doubt(lambda: doubts.append(None))

        async def write() -> None:
            async with database.transaction() as tx:
                await add(tx, "lost")

        wire.stall_commit("acc_lost")
        writing = asyncio.create_task(write())
        await wire.lost.wait()
        writing.cancel()
        await asyncio.sleep(0)
        wire.cut()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert doubts == [None]
        assert await stored(database, "lost") == [True]


async def test_commits_are_on_disk_whatever_the_server_does_for_others(url: str) -> None:
    name = urlsplit(url).path.removeprefix("/")
    await ask(url, f"alter database {name} set synchronous_commit = off")
    async with open_postgres(url) as database, database._writers.acquire() as connection:
        assert await connection.fetchval("show synchronous_commit") == "on"


async def test_a_pooler_is_told_nothing_that_it_may_not_take_and_the_session_is_as_ours_are(url: str) -> None:
    """PgBouncer refuses who names other settings than these when it connects."""
    async with open_postgres(url) as database:
        for pool, wanted in (
            (database._writers, {"enable_seqscan": "off"}),
            (database._readers, {"default_transaction_read_only": "on"}),
            (
                database._searchers,
                {
                    "statement_timeout": "2s",
                    "default_transaction_read_only": "on",
                    "plan_cache_mode": "force_custom_plan",
                },
            ),
        ):
            async with pool.acquire() as connection:
                named = await connection.fetch("select name from pg_settings where source = 'client'")
                assert {name for (name,) in named} <= {"application_name", "client_encoding"}
                for name, value in {
                    **wanted,
                    "jit": "off",
                    "idle_in_transaction_session_timeout": "1min",
                }.items():
                    assert await connection.fetchval(f"show {name}") == value


async def test_who_searches_for_another_time_leaves_the_usual_one(database: PostgresDatabase) -> None:
    for seconds, told in ((0.5, "500ms"), (LONGEST_SEARCH_S, "2s")):
        async with database.searching("somebody", seconds=seconds) as reader:
            assert await reader._connection.fetchval("show statement_timeout") == told


async def test_a_server_that_waits_for_more_than_its_own_disk_goes_on_doing_so(url: str) -> None:
    name = urlsplit(url).path.removeprefix("/")
    await ask(url, f"alter database {name} set synchronous_commit = remote_apply")
    async with open_postgres(url) as database, database._writers.acquire() as connection:
        assert await connection.fetchval("show synchronous_commit") == "remote_apply"


# Many writers


async def test_a_name_that_is_held_is_waited_for_and_others_are_not(database: PostgresDatabase) -> None:
    order: list[str] = []
    held, let_go = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.transaction() as tx:
            await tx.hold("account", ["b", "a"])
            held.set()
            await let_go.wait()
            order.append("first")

    async def second() -> None:
        await held.wait()
        async with database.transaction() as tx:
            await tx.hold("account", ["a"])
            order.append("second")

    async def third() -> None:
        await held.wait()
        async with database.transaction() as tx:
            await tx.hold("events", ["a"])
            await tx.hold("account", [])
            order.append("third")

    both = [asyncio.create_task(first()), asyncio.create_task(second())]
    async with asyncio.timeout(60):
        await third()
        let_go.set()
        await asyncio.gather(*both)
    assert order == ["third", "first", "second"]


async def test_of_two_that_wait_for_each_other_one_is_undone_and_told_so(database: PostgresDatabase) -> None:
    met = asyncio.Barrier(2)

    async def write(first: str, second: str) -> None:
        async with database.transaction() as tx:
            await tx.hold("account", [first])
            await met.wait()
            await add(tx, first)
            await tx.hold("account", [second])

    async with asyncio.timeout(60):
        results = await asyncio.gather(write("a", "b"), write("b", "a"), return_exceptions=True)
    [told] = [result for result in results if result is not None]
    assert isinstance(told, Collided)
    assert sorted(await stored(database, "a", "b")) == [False, True]


async def test_what_the_server_has_no_place_for_fails_alone_and_its_neighbours_are_stored(
    database: PostgresDatabase,
) -> None:
    """No index holds so long a text. Others that are written with it are no worse for that."""

    async def store(tx: Transaction, names: Sequence[str]) -> Sequence[str]:
        for name in names:
            await add(tx, name)
        return names

    batcher = Batcher(database, observe=lambda _size, _seconds: None)
    endless = token_hex(50_000)
    asked = [asyncio.create_task(batcher.run(store, name)) for name in ("a", endless, "b")]
    await wait_all_tasks_blocked()
    async with batcher.running():
        before, bad, after = await asyncio.gather(*asked, return_exceptions=True)
    assert (before, after) == ("a", "b")
    assert isinstance(bad, asyncpg.ProgramLimitExceededError)
    assert await stored(database, "a", endless, "b") == [True, False, True]


# A server that comes and goes


async def test_a_connection_that_broke_is_replaced(database: PostgresDatabase) -> None:
    async with database._searchers.acquire() as other:
        with pytest.raises(StorageUnavailable):
            async with database.transaction() as tx:
                await add(tx, "a")
                await other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and application_name = 'klingel' and pid <> pg_backend_pid()"
                )
                await add(tx, "b")
    assert await stored(database, "a") == [False]
    async with database.transaction() as tx:
        await add(tx, "after")
    assert await stored(database, "after") == [True]


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="klingel-postgres-"))
    folder.chmod(0o755)
    server = Server(folder)
    server.start()
    yield server
    server.stop("immediate")
    shutil.rmtree(folder)


async def test_a_server_that_crashed_and_is_back_is_used_again(server: Server) -> None:
    async with open_postgres(server.url()) as database:
        await database.check()
        await asyncio.to_thread(server.stop, "immediate")
        with pytest.raises(StorageUnavailable):
            await database.check()
        with pytest.raises(StorageUnavailable):
            await stored(database, "a")
        await asyncio.to_thread(server.start)
        await database.check()
        assert await stored(database, "a") == [False]


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    url = f"postgresql://klingel:{PASSWORD}@127.0.0.1:1/klingel?password={PASSWORD}"
    with pytest.raises(
        ConfigurationError, match=r"postgresql://klingel@127\.0\.0\.1:1/klingel cannot"
    ) as told:
        async with open_postgres(url):
            pass
    assert PASSWORD not in str(told.value)
    assert "KLINGEL_DATABASE_URL" in str(told.value)


@pytest.mark.parametrize(
    "where", [f"127.0.0.1:99999/x?password={PASSWORD}", f"klingel:{PASSWORD}/x@127.0.0.1", f"[{PASSWORD}@host/x",
              f"127.0.0.1:1/x?port={PASSWORD}"]
)  # fmt: skip
async def test_a_url_that_cannot_be_read_is_refused_without_its_password(where: str) -> None:
    with pytest.raises(ConfigurationError, match="KLINGEL_DATABASE_URL") as told:
        async with open_postgres(f"postgresql://{where}"):
            pass
    assert PASSWORD not in str(told.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgres://me:p%40ss@host:5433/db?sslmode=require", "postgres://me@host:5433/db"),
        ("postgresql://me@/db?host=/run/postgresql&password=p", "postgresql://me@/db"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, name: str) -> None:
    assert shown(url) == name


async def test_a_database_that_cannot_hold_every_text_is_refused(url: str) -> None:
    name = f"{urlsplit(url).path.removeprefix('/')}_ascii"
    await ask(url, f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0")
    with pytest.raises(ConfigurationError, match="SQL_ASCII"):
        async with open_postgres(urlsplit(url)._replace(path=f"/{name}").geturl()):
            pass


# Migrations


SCHEMA = """
    select 'column', table_name, column_name, data_type, is_nullable, column_default, collation_name
    from information_schema.columns where table_schema = 'public'
    union all
    select 'index', tablename, indexname, indexdef, '', '', '' from pg_indexes where schemaname = 'public'
    union all
    select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
    from pg_constraint where connamespace = 'public'::regnamespace
    order by 1, 2, 3
"""


async def versions(url: str) -> list[object]:
    return [version for (version,) in await ask(url, "select version from migrations order by 1")]


async def test_nothing_becomes_the_newest_version(url: str) -> None:
    assert await inspect_postgres(url) == Inspected(version=0, newest=NEWEST)
    async with open_postgres(url) as database:
        await database.check()
    assert await versions(url) == list(range(OLDEST, NEWEST + 1))
    assert await inspect_postgres(url) == Inspected(NEWEST, NEWEST, processes=0, dispatchers=0)


async def test_an_inspection_counts_the_processes_that_are_alive(postgres: Databases) -> None:
    taken = postgres.take()
    async with open_postgres(taken.url) as database:
        for number, (roles, lasts_s) in enumerate(
            [(["web"], 3600), (["dispatch", "web"], 3600), (["dispatch"], -1)], start=1
        ):
            async with database.transaction() as tx:
                await processes.add(
                    tx, ProcessId(f"proc_{number}"), roles=roles, lasts=timedelta(seconds=lasts_s)
                )
        found = await inspect_postgres(taken.url)
    assert (found.processes, found.dispatchers) == (2, 1)
    postgres.give_back(taken)


@pytest.mark.parametrize("version", range(OLDEST, NEWEST))
async def test_every_earlier_version_becomes_what_a_new_database_is(
    postgres: Databases, url: str, version: int
) -> None:
    connection = await asyncpg.connect(url)
    await migrate(connection, url, up_to=version)
    await connection.close()
    assert await versions(url) == list(range(OLDEST, version + 1))
    async with open_postgres(url):
        pass
    assert await versions(url) == list(range(OLDEST, NEWEST + 1))
    taken = postgres.take()
    assert await ask(url, SCHEMA) == await ask(taken.url, SCHEMA)
    postgres.give_back(taken)


async def test_tasks_from_before_metadata_had_an_index_are_found_by_it(url: str) -> None:
    """As one that is made now would be."""
    connection = await asyncpg.connect(url)
    await migrate(connection, url, up_to=metadata.BEFORE)
    await connection.execute(metadata.ACCOUNT)
    await connection.execute(metadata.TASK, json_text(metadata.GIVEN))
    await connection.close()
    async with open_postgres(url) as database:
        await metadata.check_found_by_each(database)


async def test_of_processes_that_begin_at_once_one_migrates(url: str) -> None:
    async def begin() -> None:
        async with open_postgres(url) as database:
            await database.check()

    await asyncio.gather(*(begin() for _ in range(4)))
    assert await versions(url) == list(range(OLDEST, NEWEST + 1))


async def test_a_database_of_a_newer_klingel_is_refused(url: str) -> None:
    async with open_postgres(url):
        pass
    await ask(url, f"insert into migrations values ({NEWEST + 1}, 0)")
    with pytest.raises(ConfigurationError, match=f"newer Klingel .its version is {NEWEST + 1}"):
        async with open_postgres(url):
            pass


async def test_a_migration_that_breaks_in_the_middle_leaves_nothing_of_itself(url: str) -> None:
    await ask(url, "create table readiness (other text)")
    with pytest.raises(ConfigurationError, match='"readiness" already exists'):
        async with open_postgres(url):
            pass
    tables = await ask(url, "select tablename from pg_tables where schemaname = 'public' order by 1")
    assert tables == [("migrations",), ("readiness",)]
    assert await versions(url) == []
    await ask(url, "drop table readiness")
    async with open_postgres(url):
        pass
    assert await versions(url) == list(range(OLDEST, NEWEST + 1))


def test_both_databases_grow_by_the_same_steps() -> None:
    sqlite = [number for number, _ in load_migrations(Dialect.SQLITE)]
    postgres = [number for number, _ in load_migrations(Dialect.POSTGRES)]
    assert postgres == [number for number in sqlite if number >= OLDEST]
