"""The `Database` port: what every implementation promises, and what the schema refuses."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosql
import asyncpg
import pytest
from structlog.testing import capture_logs

from service.domain.errors import SearchTooWide, StorageUnavailable
from storage.columns import json_text
from storage.database import LONGEST_SEARCH_S, Database, Reader, Transaction
from storage.postgres import numbered
from storage.sqlite import READERS, SEARCHERS, SqliteDatabase
from storage.statements import Dialect, load_statements, named_statements
from tests.places import Places


@dataclass(frozen=True)
class Opened:
    """A database, and the way around its port for what the port has no words for."""

    database: Database
    sql: Callable[
        [str, Mapping[str, Any]], Awaitable[Sequence[Sequence[Any]]]
    ]  # by itself, on a writing connection
    violation: type[Exception]  # raised by a constraint
    fault: type[Exception]  # raised by a statement that is called wrongly
    said: Mapping[str, str]  # how a violation begins, by what is violated


@asynccontextmanager
async def sqlite(places: Places, folder: Path) -> AsyncIterator[Opened]:
    async with places.open(folder) as database:
        assert isinstance(database, SqliteDatabase)

        async def sql(text: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
            return list(await database._writer.execute_fetchall(text, parameters))

        said = {
            "check": "CHECK constraint failed: ",
            "unique": "UNIQUE constraint failed: ",
            "reference": "FOREIGN KEY constraint failed",
        }
        yield Opened(database, sql, sqlite3.IntegrityError, sqlite3.ProgrammingError, said)


@asynccontextmanager
async def postgres(places: Places, folder: Path) -> AsyncIterator[Opened]:
    url = str(await places.at(folder))
    connection = await asyncpg.connect(url)
    async with places.open(folder) as database:

        async def sql(text: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
            statement = numbered(text)
            found = await connection.fetch(statement.text, *statement.arguments(parameters))
            return [tuple(row) for row in found]

        said = {
            "check": "new row for relation ",
            "unique": "duplicate key value violates unique constraint ",
            "reference": "violates foreign key constraint",
        }
        yield Opened(database, sql, asyncpg.PostgresError, KeyError, said)
    await connection.close()


@pytest.fixture
async def opened(places: Places, tmp_path: Path) -> AsyncIterator[Opened]:
    opening = sqlite if places.dialect is Dialect.SQLITE else postgres
    async with opening(places, tmp_path) as opened:
        yield opened


@pytest.fixture
def database(opened: Opened) -> Database:
    return opened.database


@pytest.fixture
def lite(opened: Opened) -> SqliteDatabase:
    """For what is SQLite's own."""
    assert isinstance(opened.database, SqliteDatabase)
    return opened.database


class Oops(Exception):
    pass


async def add(tx: Transaction, name: str) -> None:
    await tx.run("insert_account", id=f"acc_{name}", name=name, created_at=0)


async def has(reader: Reader, name: str) -> bool:
    return await reader.one("account_by_name", name=name) is not None


async def stored(database: Database, *names: str) -> list[bool]:
    async with database.reading() as reader:
        return [await has(reader, name) for name in names]


# Transactions


async def test_what_a_transaction_wrote_is_there_after_it(database: Database) -> None:
    async with database.transaction() as tx:
        await add(tx, "a")
        await add(tx, "b")
    assert await stored(database, "a", "b") == [True, True]


async def test_a_transaction_that_raises_has_written_nothing(database: Database) -> None:
    with pytest.raises(Oops):
        async with database.transaction() as tx:
            await add(tx, "a")
            raise Oops
    assert await stored(database, "a") == [False]


async def test_several_statements_see_what_was_put_off_before_them_and_are_answered_each_for_itself(
    database: Database,
) -> None:
    async with database.transaction() as tx:
        await tx.run_many("insert_account", [{"id": "acc_a", "name": "a", "created_at": 0}])
        found, missing, waiting = await tx.several(
            ("account_by_name", {"name": "a"}), ("account_by_name", {"name": "b"}), ("any_awaiting_slot", {})
        )
    assert [row["id"] for row in found] == ["acc_a"]
    assert (list(missing), list(waiting)) == ([], [])


async def test_a_statement_that_fails_undoes_the_transaction_unless_it_is_caught(opened: Opened) -> None:
    with pytest.raises(opened.violation):
        async with opened.database.transaction() as tx:
            await add(tx, "a")
            await add(tx, "a")
    assert await stored(opened.database, "a") == [False]


async def test_a_transaction_sees_its_own_writes_and_others_only_what_is_committed(
    database: Database,
) -> None:
    async with database.transaction() as tx:
        await add(tx, "a")
        assert await has(tx, "a")
        assert await stored(database, "a") == [False]
    assert await stored(database, "a") == [True]


@pytest.mark.sqlite_alone
async def test_transactions_go_one_after_another(database: Database) -> None:
    order: list[str] = []
    entered = asyncio.Event()

    async def first() -> None:
        async with database.transaction() as tx:
            entered.set()
            await add(tx, "first")
            order.append("first")

    async def second() -> None:
        await entered.wait()
        async with database.transaction() as tx:
            assert await has(tx, "first")
            order.append("second")

    await asyncio.gather(second(), first())
    assert order == ["first", "second"]


async def test_a_caller_that_goes_away_at_any_moment_leaves_the_next_one_a_whole_database(
    database: Database,
) -> None:
    """A `begin` that nobody waited for any longer once blocked every write until a restart."""
    for moment in range(40):
        names = [f"{moment}-first", f"{moment}-second"]

        async def write(names: list[str] = names) -> None:
            async with database.transaction() as tx:
                await add(tx, names[0])
                async with tx.savepoint():
                    await add(tx, names[1])

        gone = asyncio.create_task(write())
        for _ in range(moment):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await database.check()
        first, second = await stored(database, *names)
        assert first == second


# Savepoints


async def test_a_savepoint_that_raises_is_undone_alone(database: Database) -> None:
    async with database.transaction() as tx:
        await add(tx, "before")
        with pytest.raises(Oops):
            async with tx.savepoint():
                await add(tx, "inside")
                raise Oops
        async with tx.savepoint():
            await add(tx, "after")
    assert await stored(database, "before", "inside", "after") == [True, False, True]


async def test_savepoints_nest(database: Database) -> None:
    async with database.transaction() as tx:
        async with tx.savepoint():
            await add(tx, "outer")
            with pytest.raises(Oops):
                async with tx.savepoint():
                    await add(tx, "inner")
                    raise Oops
        with pytest.raises(Oops):
            async with tx.savepoint():
                async with tx.savepoint():
                    await add(tx, "kept for a moment")
                raise Oops
    assert await stored(database, "outer", "inner", "kept for a moment") == [True, False, False]


async def test_a_savepoint_goes_with_its_transaction(database: Database) -> None:
    with pytest.raises(Oops):
        async with database.transaction() as tx:
            async with tx.savepoint():
                await add(tx, "a")
            raise Oops
    assert await stored(database, "a") == [False]


async def test_after_a_constraint_failed_in_a_savepoint_the_transaction_goes_on(opened: Opened) -> None:
    async with opened.database.transaction() as tx:
        await add(tx, "a")
        with pytest.raises(opened.violation):
            async with tx.savepoint():
                await tx.run_many(
                    "insert_transition",
                    [{"task_id": "t", "sequence": 1, "before_status": "a", "after_status": "a", "at": 0}],
                )
        await add(tx, "b")
    assert await stored(opened.database, "a", "b") == [True, True]


# What follows a commit


async def test_callbacks_come_in_order_once_everything_can_be_read(
    database: Database, places: Places, tmp_path: Path
) -> None:
    heard: list[object] = []

    def look() -> None:
        heard.append(places.rows(tmp_path, "select name from accounts"))

    async with database.transaction() as tx:
        tx.on_commit(lambda: heard.append("first"))
        await add(tx, "a")
        tx.on_commit(look)
        assert heard == []
    assert heard == ["first", [{"name": "a"}]]


async def test_callbacks_of_what_was_undone_never_come(database: Database) -> None:
    heard: list[str] = []
    with pytest.raises(Oops):
        async with database.transaction() as tx:
            tx.on_commit(lambda: heard.append("undone"))
            raise Oops
    async with database.transaction() as tx:
        tx.on_commit(lambda: heard.append("before"))
        with pytest.raises(Oops):
            async with tx.savepoint():
                tx.on_commit(lambda: heard.append("undone"))
                async with tx.savepoint():
                    tx.on_commit(lambda: heard.append("undone too"))
                raise Oops
        async with tx.savepoint():
            tx.on_commit(lambda: heard.append("inside"))
        tx.on_commit(lambda: heard.append("after"))
    assert heard == ["before", "inside", "after"]


async def test_a_callback_may_open_the_next_transaction(database: Database) -> None:
    following: list[asyncio.Task[None]] = []
    async with database.transaction() as tx:
        tx.on_commit(lambda: following.append(asyncio.create_task(database.check())))
    await asyncio.gather(*following)


async def test_a_callback_that_raises_keeps_no_other_from_its_turn_and_undoes_nothing(
    database: Database,
) -> None:
    """It is on disk: whoever asked for it must not be told that it is not."""
    heard: list[str] = []

    def broken() -> None:
        heard.append("broken")
        raise Oops

    with capture_logs() as logs:
        async with database.transaction() as tx:
            await add(tx, "a")
            tx.on_commit(broken)
            tx.on_commit(lambda: heard.append("after"))
    assert heard == ["broken", "after"]
    assert [line["event"] for line in logs] == ["transaction.callback_broke"]
    assert await stored(database, "a") == [True]


async def test_what_is_to_follow_an_undoing_follows_it_alone_the_last_first(database: Database) -> None:
    heard: list[str] = []
    async with database.transaction() as tx:
        tx.on_rollback(lambda: heard.append("whole"))
        with pytest.raises(Oops):
            async with tx.savepoint():
                tx.on_rollback(lambda: heard.append("part"))
                async with tx.savepoint():
                    tx.on_rollback(lambda: heard.append("part of it"))
                raise Oops
        assert heard == ["part of it", "part"]
    assert heard == ["part of it", "part"]
    with pytest.raises(Oops):
        async with database.transaction() as tx:
            tx.on_rollback(lambda: heard.append("whole"))
            async with tx.savepoint():
                tx.on_rollback(lambda: heard.append("inside"))
            raise Oops
    assert heard[2:] == ["inside", "whole"]


# Statements


async def test_reads_that_find_nothing_say_so(database: Database) -> None:
    async with database.reading() as reader:
        assert await reader.all("list_task_events", task_id="t", after_position=0, limit=10) == []
        assert await reader.one("account_by_name", name="nobody") is None
        assert await reader.value("account_by_name", name="nobody") is None
        assert await reader.value("last_position", account_id="nobody") is None


async def test_a_row_is_read_by_its_names_and_a_value_is_its_first_column(database: Database) -> None:
    async with database.transaction() as tx:
        await add(tx, "a")
        row = await tx.one("account_by_name", name="a")
        assert row is not None
        assert (row["id"], row["name"], row["created_at"]) == ("acc_a", "a", 0)
        assert await tx.value("account_by_name", name="a") == "acc_a"


async def test_a_write_tells_how_many_rows_it_touched(database: Database) -> None:
    async with database.transaction() as tx:
        assert await tx.run("revoke_key", id="nobody's", now=0) == 0
        assert await tx.run("insert_account", id="acc_1", name="a", created_at=0) == 1


async def test_many_rows_are_written_in_one_step_and_none_is_no_step(filled: Opened) -> None:
    database = filled.database
    async with database.transaction() as tx:
        await tx.run_many("insert_task_file", [{"task_id": "task_1", "sha256": hash} for hash in "abc"])
        await tx.run_many("insert_task_file", [])
    async with database.reading() as reader:
        found = await reader.all("files_of_tasks", ids='["task_1"]')
    assert sorted(row["sha256"] for row in found) == ["a", "b", "c", "h"]


async def test_text_of_every_kind_and_bytes_come_back_as_they_were(filled: Opened) -> None:
    database = filled.database
    text, body = "Zürich \U0001f431 'quoted' \\ \n %_ :name", bytes(range(256))
    async with database.transaction() as tx:
        await tx.run("insert_account", id="acc_text", name=text, created_at=2**53)
        callback = {
            "id": "cbk_2",
            "task_id": "task_1",
            "provider": text,
            "received_at": 1,
            "verdict": "stale",
        }
        await tx.run_many("insert_callback", [callback | {"reason": None, "body": body}])
    async with database.reading() as reader:
        row = await reader.one("account_by_name", name=text)
        assert row is not None
        assert (row["name"], row["created_at"]) == (text, 2**53)
        [first, *_] = await reader.all("list_callbacks", task_id="task_1", after_id="cbk_1", limit=9)
        assert (first["provider"], first["body"], first["reason"]) == (text, body, None)


async def test_more_readers_than_connections_take_turns(database: Database) -> None:
    results = await asyncio.gather(*(stored(database, "a") for _ in range(READERS * 5)))
    assert results == [[False]] * READERS * 5


async def test_a_reader_that_is_cancelled_gives_its_connection_back(database: Database) -> None:
    for turns in range(READERS * 3):
        gone = asyncio.create_task(stored(database, "a"))
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    async with asyncio.timeout(60):
        assert await stored(database, "a") == [False]


# Searches


async def fill(database: Database, tasks: int) -> None:
    async with database.transaction() as tx:
        await add(tx, "1")
        row = {
            "account_id": "acc_1", "type": "t", "provider": "p", "status": "queued", "input": "{}", "places": 1,
            "provider_external_id": "", "extras": "{}", "path": None, "metadata": '{"a": "b"}', "parent_id": None,
            "rule_id": None, "depth": 0, "traceparent": None, "tracestate": None, "created_at": 0, "updated_at": 0, "deadline_at": 0, "next_send_at": None,
        }  # fmt: skip
        await tx.run_many(
            "insert_task", [row | {"id": id, "external_task_id": id} for id in numbered_ids(tasks)]
        )


def numbered_ids(number: int) -> list[str]:
    return [f"task_{each:032x}" for each in range(number)]


async def search(database: Database, whose: str, *, seconds: float = LONGEST_SEARCH_S) -> int:
    """Through 5000 tasks, if there are so many."""
    async with database.searching(whose, seconds=seconds) as reader:
        rows = await reader.all(
            "list_tasks", ids=json_text(numbered_ids(5000)), created_after=1, created_before=None
        )
    return len(rows)


async def test_a_search_that_takes_too_long_ends_and_harms_no_other(database: Database) -> None:
    await fill(database, 5000)
    for _ in range(10):  # more often than there are connections for it
        with pytest.raises(SearchTooWide):
            await search(database, "a", seconds=0)
    assert await search(database, "a", seconds=60) == 0


@pytest.mark.sqlite_alone
async def test_no_search_keeps_anybody_from_a_row_by_its_id(lite: SqliteDatabase) -> None:
    """Lists of one account once stalled every account's sign-in."""
    await fill(lite, 1)
    async with AsyncExitStack() as searches, asyncio.timeout(60):
        for number in range(SEARCHERS):
            await searches.enter_async_context(lite.searching(f"acc_{number}"))
        waiting = asyncio.create_task(search(lite, "acc_9", seconds=60))
        assert await stored(lite, "1") == [True]
        assert not waiting.done()
    assert await waiting == 0


async def test_searches_of_one_account_take_turns_and_others_do_not_wait_for_it(database: Database) -> None:
    await fill(database, 1)
    async with asyncio.timeout(60):
        async with database.searching("a"):
            same = asyncio.create_task(search(database, "a", seconds=60))
            assert await search(database, "b", seconds=60) == 0
            assert not same.done()
        assert await same == 0


@pytest.mark.sqlite_alone
async def test_a_search_that_is_cancelled_gives_its_connection_back(lite: SqliteDatabase) -> None:
    await fill(lite, 5000)
    for turns in range(SEARCHERS * 3):
        gone = asyncio.create_task(search(lite, "a", seconds=60))
        for _ in range(turns):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    async with asyncio.timeout(60):
        assert await search(lite, "a", seconds=60) == 0


async def test_checking_writes_each_time(opened: Opened) -> None:
    for _ in range(2):
        await opened.database.check()
        [[checked_at]] = await opened.sql("select checked_at from readiness", {})
        assert checked_at > 0
        await opened.sql("update readiness set checked_at = 0", {})


# What the schema refuses

VALID: Mapping[str, Mapping[str, Any]] = {
    "accounts": {"id": "acc_1", "name": "default", "created_at": 1},
    "api_keys": {
        "id": "key_1",
        "account_id": "acc_1",
        "name": "admin",
        "role": "admin",
        "hash": "h",
        "hint": "abcd",
        "created_at": 1,
    },
    "tasks": {
        "id": "task_1",
        "account_id": "acc_1",
        "type": "kling.multi-image-to-image",
        "provider": "cometapi",
        "status": "queued",
        "input": "{}",
        "external_task_id": "ours",
        "metadata": "{}",
        "created_at": 1,
        "updated_at": 1,
        "deadline_at": 2,
    },
    "task_metadata": {"task_id": "task_1", "key": "customer", "value": "7", "account_id": "acc_1"},
    "task_files": {"sha256": "h", "task_id": "task_1"},
    "transitions": {
        "task_id": "task_1",
        "sequence": 1,
        "before_status": "queued",
        "after_status": "submitted",
        "at": 1,
    },
    "idempotency_keys": {
        "account_id": "acc_1",
        "key": "k",
        "body_hash": "h",
        "task_id": "task_1",
        "created_at": 1,
    },
    "callbacks": {
        "id": "cbk_1",
        "task_id": "task_1",
        "provider": "cometapi",
        "received_at": 1,
        "verdict": "advanced",
        "body": b"{}",
    },
    "events": {
        "position": 1,
        "id": "evt_1",
        "account_id": "acc_1",
        "task_id": "task_1",
        "type": "task.submitted",
        "sequence": 1,
        "at": 1,
        "body": b"{}",
    },
    "endpoints": {
        "id": "end_1",
        "account_id": "acc_1",
        "kind": "webhook",
        "config": "{}",
        "types": "[]",
        "enabled": 1,
        "secrets": "[]",
        "created_at": 1,
        "updated_at": 1,
    },
    "deliveries": {
        "id": "dlv_1",
        "account_id": "acc_1",
        "event_id": "evt_1",
        "event_type": "task.submitted",
        "endpoint_id": "end_1",
        "status": "pending",
        "next_attempt_at": 1,
        "created_at": 1,
    },
    "attempts": {
        "delivery_id": "dlv_1",
        "number": 1,
        "started_at": 1,
        "duration_ms": 1,
        "outcome": "delivered",
        "reason": "answered",
        "excerpt": "",
    },
    "readiness": {"id": 1, "checked_at": 1},
    "kept_files": {
        "name": "a",
        "account_id": "acc_1",
        "task_id": "task_1",
        "place": 0,
        "role": "output",
        "status": "kept",
        "content_type": "image/png",
        "size": 1,
        "sha256": "h",
        "created_at": 1,
    },
    "expiring_outputs": {"task_id": "task_1", "place": 0, "notice_at": 1},
    "bots": {
        "id": "bot_1",
        "account_id": "acc_1",
        "platform": "slack",
        "config": "{}",
        "allow": "[]",
        "open_tasks": 3,
        "created_at": 1,
        "updated_at": 1,
    },
    "commands": {
        "id": "cmd_1",
        "bot_id": "bot_1",
        "key": "k",
        "person": "u",
        "asked": "sealed",
        "created_at": 1,
    },
    "chat_messages": {"endpoint_id": "end_1", "task_id": "task_1", "reference": "{}", "sequence": 1},
    "usage_days": {
        "account_id": "acc_1",
        "day": 0,
        "provider": "cometapi",
        "type": "kling.multi-image-to-image",
        "unit": "USD",
        "billionths": 1,
        "tasks": 1,
    },
    "budgets": {"account_id": "acc_1", "unit": "USD", "period": "day", "billionths": 1},
    "pools": {"provider": "cometapi", "kind": "image", "seeking": 0, "refused": "{}"},
    "turns": {"provider": "cometapi", "kind": "image", "account_id": "acc_1", "number": 1},
}

FAILED = {"status": "failed", "finished_at": 2, "error_code": "x"}
DELIVERED = {"status": "delivered", "finished_at": 2, "next_attempt_at": None}

IMPOSSIBLE: Sequence[tuple[str, str, Mapping[str, Any]]] = [
    ("a role that is none", "api_keys", {"role": "owner"}),
    ("a status that is none", "tasks", {"status": "running"}),
    ("a refusal that is nobody's business", "tasks", FAILED | {"error_refusal": "weather"}),
    ("a count of events below none", "tasks", {"sequence": -1}),
    ("a count of creates below none", "tasks", {"sends": -1}),
    ("a flag that is neither", "tasks", {"awaits_slot": 2}),
    ("a task that ended at no moment", "tasks", {"status": "succeeded"}),
    ("a task that ended and goes on", "tasks", {"status": "processing", "finished_at": 2}),
    ("a failure without a reason", "tasks", {"status": "failed", "finished_at": 2}),
    ("a rejection without a reason", "tasks", {"status": "rejected", "finished_at": 2}),
    ("a success with an error", "tasks", {"status": "succeeded", "finished_at": 2, "error_code": "x"}),
    ("a create planned for what the provider has", "tasks", {"status": "submitted", "next_send_at": 2}),
    ("a create planned for what has ended", "tasks", FAILED | {"next_send_at": 2}),
    ("a running task that waits for a place", "tasks", {"status": "processing", "awaits_slot": 1}),
    ("a transition to where it was", "transitions", {"after_status": "queued"}),
    ("a verdict that is none", "callbacks", {"verdict": "fine"}),
    ("an event of a task without its number", "events", {"sequence": None}),
    ("a numbered event of no task", "events", {"task_id": None}),
    ("an endpoint half enabled", "endpoints", {"enabled": 2}),
    ("fewer failures than none", "endpoints", {"failures": -1}),
    ("an endpoint disabled for no reason", "endpoints", {"enabled": 0}),
    ("a rate of none a minute", "endpoints", {"rate_per_minute": 0}),
    ("a delivery in no status", "deliveries", DELIVERED | {"status": "lost"}),
    ("fewer attempts than none", "deliveries", {"attempts": -1}),
    ("a delivery that waits for no moment", "deliveries", {"next_attempt_at": None}),
    ("a delivery that ended and waits", "deliveries", DELIVERED | {"next_attempt_at": 1}),
    ("a delivery that waits and has ended", "deliveries", {"finished_at": 2}),
    ("a dead letter that died at no moment", "deliveries", {"status": "dead", "next_attempt_at": None}),
    ("a lease on what has ended", "deliveries", DELIVERED | {"lease_until": 9}),
    ("an attempt before the first", "attempts", {"number": 0}),
    ("an outcome that is none", "attempts", {"outcome": "maybe"}),
    ("a second proof of writing", "readiness", {"id": 2}),
    ("a key from nowhere", "api_keys", {"origin": "heaven"}),
    ("a key that is kept though somebody has it", "api_keys", {"sealed": "x"}),
    ("a task too far from a submit", "tasks", {"depth": 9}),
    ("an output before the first", "kept_files", {"place": -1}),
    ("a file that is kept for nothing", "kept_files", {"role": "souvenir"}),
    ("a file in no status", "kept_files", {"status": "lost"}),
    ("a file smaller than nothing", "kept_files", {"size": -1}),
    ("a bot that lets nobody have a task", "bots", {"open_tasks": 0}),
    ("fewer tries than none", "commands", {"tries": -1}),
    ("a sum over no task", "usage_days", {"tasks": 0}),
    ("a budget for a week", "budgets", {"period": "week"}),
    ("a budget of less than nothing", "budgets", {"billionths": -1}),
    ("a pool that half seeks", "pools", {"seeking": 2}),
]


def insert_statement(table: str, row: Mapping[str, Any]) -> str:
    return f"insert into {table} ({', '.join(row)}) values ({', '.join(f':{name}' for name in row)})"


async def insert(opened: Opened, table: str, row: Mapping[str, Any]) -> None:
    await opened.sql(insert_statement(table, row), row)


async def insert_parents(opened: Opened) -> None:
    """A valid row in each table."""
    for table, row in VALID.items():
        await insert(opened, table, row)


@pytest.fixture
async def filled(opened: Opened) -> Opened:
    await insert_parents(opened)
    return opened


def another(table: str) -> dict[str, Any]:
    """A row that could stand beside the valid one."""
    others: Mapping[str, Mapping[str, Any]] = {
        "accounts": {"id": "acc_2", "name": "other"},
        "api_keys": {"id": "key_2", "hash": "other"},
        "tasks": {"id": "task_2", "external_task_id": "other"},
        "task_metadata": {"key": "other"},
        "task_files": {"sha256": "other"},
        "transitions": {"sequence": 2},
        "idempotency_keys": {"key": "other"},
        "callbacks": {"id": "cbk_2"},
        "events": {"position": 2, "id": "evt_2", "sequence": 2},
        "endpoints": {"id": "end_2"},
        "deliveries": {"id": "dlv_2", "replay_of": "dlv_1"},
        "attempts": {"number": 2},
        "readiness": {"id": 1},
        "kept_files": {"name": "b", "place": 1},
        "expiring_outputs": {"place": 1},
        "bots": {"id": "bot_2"},
        "commands": {"id": "cmd_2", "key": "other"},
        "chat_messages": {"endpoint_id": "end_2"},
        "usage_days": {"day": 86_400_000},
        "budgets": {"period": "month"},
        "pools": {"kind": "video"},
        "turns": {"kind": "video"},
    }
    return {**VALID[table], **others[table]}


async def test_a_possible_row_is_taken(filled: Opened) -> None:
    for table in VALID:
        if table != "readiness":  # there is one row of it
            await insert(filled, table, another(table))


async def refusal(opened: Opened, table: str, fault: Mapping[str, Any]) -> str:
    """What the database says to a row that would be possible without the fault; nothing if it takes it."""
    row = another(table) | dict(fault)
    try:
        await insert(opened, table, row)
    except opened.violation as error:
        return " ".join(str(error).split())
    return ""


def checks(text: str) -> set[str]:
    """The expressions of all CHECKs in the text of a table."""
    found = set()
    for match in re.finditer(r"\bcheck\s*\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found.add(" ".join(text[match.end() : end - 1].split()))
    return found


async def test_an_impossible_row_is_refused(filled: Opened) -> None:
    said = {why: await refusal(filled, table, fault) for why, table, fault in IMPOSSIBLE}
    assert [why for why, text in said.items() if not text.startswith(filled.said["check"])] == []


@pytest.mark.sqlite_alone
async def test_every_check_has_a_row_that_it_refuses(filled: Opened, lite: SqliteDatabase) -> None:
    """So that a constraint that is added is tried here, too."""
    tables = await filled.sql("select sql from sqlite_schema where type = 'table'", {})
    demanded = set().union(*(checks(re.sub(r"--.*", "", text)) for (text,) in tables))
    said = {await refusal(filled, table, fault) for _, table, fault in IMPOSSIBLE}
    assert {text.removeprefix("CHECK constraint failed: ") for text in said} == demanded


ONE_OF: Sequence[tuple[str, Mapping[str, Any]]] = [
    ("accounts", {"name": "default"}),
    ("api_keys", {"hash": "h"}),
    ("tasks", {"external_task_id": "ours"}),
    ("transitions", {"sequence": 1}),
    ("idempotency_keys", {"key": "k"}),
    ("events", {"id": "evt_1"}),
    ("events", {"sequence": 1}),
    ("events", {"position": 1}),
    ("deliveries", {"replay_of": None}),
    ("attempts", {"number": 1}),
]


async def test_what_there_is_one_of_is_refused_a_second_time(filled: Opened) -> None:
    said = [(table, same, await refusal(filled, table, same)) for table, same in ONE_OF]
    assert [one for one in said if not one[2].startswith(filled.said["unique"])] == []


async def test_another_account_may_use_the_same_external_id(filled: Opened) -> None:
    await insert(filled, "accounts", another("accounts"))
    await insert(filled, "tasks", {**another("tasks"), "account_id": "acc_2", "external_task_id": "ours"})


@pytest.mark.sqlite_alone
async def test_every_reference_leads_somewhere(filled: Opened, lite: SqliteDatabase) -> None:
    tried = 0
    for table in VALID:
        references = await filled.sql(f"pragma foreign_key_list({table})", {})
        for column in {reference[3] for reference in references}:
            with pytest.raises(filled.violation, match="FOREIGN KEY constraint failed"):
                await insert(filled, table, another(table) | {column: "nowhere"})
            tried += 1
    assert tried >= 15


async def test_what_is_referred_to_stays(filled: Opened) -> None:
    for table in ("accounts", "tasks", "events", "endpoints", "deliveries", "bots"):
        with pytest.raises(filled.violation, match=filled.said["reference"]):
            await filled.sql(f"delete from {table}", {})


async def test_a_column_takes_its_own_kind_of_value_only(filled: Opened) -> None:
    with pytest.raises((filled.violation, asyncpg.DataError)):
        await insert(filled, "accounts", another("accounts") | {"created_at": "yesterday"})


# When the disk is in trouble


async def fails(database: Database, match: str) -> None:
    with pytest.raises(StorageUnavailable, match=match):
        async with database.transaction() as tx:
            await add(tx, "a")
    assert await stored(database, "a") == [False]


async def recovers(database: Database) -> None:
    async with database.transaction() as tx:
        await add(tx, "after")
    assert await stored(database, "after") == [True]


@pytest.mark.sqlite_alone
async def test_a_database_that_cannot_be_written_is_unavailable_until_it_can(lite: SqliteDatabase) -> None:
    await lite._writer.execute("pragma query_only = on")
    await fails(lite, "readonly")
    with pytest.raises(StorageUnavailable):
        await lite.check()
    await lite._writer.execute("pragma query_only = off")
    await recovers(lite)


@pytest.mark.sqlite_alone
async def test_a_database_that_somebody_else_holds_is_unavailable_until_they_let_go(
    lite: SqliteDatabase, tmp_path: Path
) -> None:
    await lite._writer.execute("pragma busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "klingel.db")
    other.execute("begin immediate")
    await fails(lite, "locked")
    other.rollback()
    other.close()
    await recovers(lite)


@pytest.mark.sqlite_alone
async def test_a_full_disk_undoes_the_whole_transaction_and_nothing_else(lite: SqliteDatabase) -> None:
    [[pages]] = await lite._writer.execute_fetchall("pragma page_count")
    await lite._writer.execute(f"pragma max_page_count = {pages + 2}")
    heard: list[None] = []
    with pytest.raises(StorageUnavailable, match="full"):
        async with lite.transaction() as tx:
            tx.on_commit(lambda: heard.append(None))
            await add(tx, "a")
            async with tx.savepoint():
                await add(tx, "x" * 50_000)
    assert heard == []
    assert await stored(lite, "a") == [False]
    await recovers(lite)


@pytest.mark.sqlite_alone
async def test_a_commit_that_fails_has_stored_nothing(lite: SqliteDatabase) -> None:
    """A reference that is looked at only at the end is the one way to make a commit itself fail."""
    with pytest.raises(sqlite3.IntegrityError):
        async with lite.transaction() as tx:
            await lite._writer.execute("pragma defer_foreign_keys = on")
            await add(tx, "a")
            await tx.run_many("insert_task_file", [{"task_id": "nowhere", "sha256": "h"}])
    assert await stored(lite, "a") == [False]
    await recovers(lite)


async def test_a_fault_of_ours_is_not_called_trouble_of_the_disk(opened: Opened) -> None:
    with pytest.raises(opened.violation):
        async with opened.database.transaction() as tx:
            await add(tx, "a")
            await add(tx, "a")
    with pytest.raises(opened.fault):
        async with opened.database.transaction() as tx:
            await tx.run("insert_account", id="acc_1")


@pytest.mark.sqlite_alone
async def test_a_reader_cannot_write(lite: SqliteDatabase) -> None:
    async with lite.reading() as reader:
        assert not hasattr(reader, "run")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await lite._read_queues[0].connection.execute("delete from accounts")


# SQLite's own


@pytest.mark.sqlite_alone
async def test_every_connection_writes_ahead_and_to_the_disk_itself(lite: SqliteDatabase) -> None:
    """Without `synchronous = full` a commit in WAL mode survives a crash of the process, but not of the machine."""
    for connection in (lite._writer, *(queue.connection for queue in lite._read_queues)):
        found = {}
        for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
            [[found[pragma]]] = await connection.execute_fetchall(f"pragma {pragma}")
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


class Anything(dict[str, Any]):
    """A null for every parameter."""

    def __missing__(self, name: str) -> None:
        return None


@pytest.mark.sqlite_alone
async def test_every_statement_can_be_prepared(lite: SqliteDatabase) -> None:
    broken = {}
    for name, text in load_statements(Dialect.SQLITE).items():
        try:
            await lite._writer.execute_fetchall(f"explain {text}", Anything())
        except sqlite3.Error as error:
            broken[name] = str(error)
    assert broken == {}


def test_no_two_statements_share_a_name() -> None:
    """The later file would win, in silence."""
    queries = Path(__file__).parents[2] / "storage" / "queries"
    for dialect in Dialect:
        files = [*queries.glob("*.sql"), *(queries / dialect).glob("*.sql")]
        names = [
            name for file in files for name in re.findall(r"^-- name: (\w+)", file.read_text(), re.MULTILINE)
        ]
        assert len(names) > 50
        assert sorted(names) == sorted(load_statements(dialect))


@pytest.mark.sqlite_alone
def test_statements_are_read_as_aiosql_reads_them() -> None:
    for file in (Path(__file__).parents[2] / "storage" / "queries").rglob("*.sql"):
        queries = aiosql.from_path(file, "aiosqlite", mandatory_parameters=False)
        names = [name for name in queries.available_queries if not name.endswith("_cursor")]
        theirs = {name: getattr(queries, name).sql for name in names}
        assert dict(named_statements(file.read_text())) == theirs, file.name


def test_what_one_database_is_asked_the_other_is_asked_too() -> None:
    assert load_statements(Dialect.SQLITE).keys() == load_statements(Dialect.POSTGRES).keys()
