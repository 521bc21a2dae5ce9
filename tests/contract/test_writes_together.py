"""PostgreSQL's writes: what nobody waits for is one statement for all its rows, and one step for several such."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from storage.database import Transaction
from storage.postgres import PostgresDatabase, open_postgres, statements
from storage.put_off import many_of
from tests.postgres import Databases

# The statements that every callback and every delivery waits for.
HOT = (
    "insert_callback", "advance_task", "save_task", "insert_transition", "insert_event", "insert_delivery",
    "insert_attempt", "record_outcome", "lease_delivery", "give_back", "insert_task", "post_notice",
)  # fmt: skip


@pytest.fixture
async def database(postgres: Databases) -> AsyncIterator[PostgresDatabase]:
    taken = postgres.take()
    async with open_postgres(taken.url) as database:
        async with database.transaction() as tx:
            await tx.run("insert_account", id="acc_1", name="one", created_at=0)
        yield database
    postgres.give_back(taken)


def tasks(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"task_{name}", "account_id": "acc_1", "type": "a", "provider": "kling", "status": "queued",
            "input": "{}", "places": 1, "external_task_id": name, "provider_external_id": name, "extras": "{}",
            "path": None, "metadata": "{}", "parent_id": None, "rule_id": None, "depth": 0, "traceparent": None,
            "tracestate": None, "created_at": 0, "updated_at": 0, "deadline_at": 1, "next_send_at": None,
        }
        for name in names
    ]  # fmt: skip


def files(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"sha256": hash, "task_id": f"task_{name}"} for hash, name in pairs]


def outputs(**said: str) -> list[dict[str, str]]:
    return [{"id": f"task_{name}", "outputs": outputs} for name, outputs in said.items()]


async def stored(reader: Any, *names: str) -> list[str]:
    rows = await reader.all("get_tasks", ids=str([f"task_{name}" for name in names]).replace("'", '"'))
    return sorted(f"{row['id']} {row['outputs']}" for row in rows)


async def said(database: PostgresDatabase, write: Any) -> Sequence[str]:
    """What the server is told, in one transaction."""
    queries: list[str] = []

    def note(query: LoggedQuery) -> None:
        queries.append(query.query)

    async with database.transaction() as tx:
        await write(tx)  # the first time types are asked for
    async with database.transaction() as tx:
        assert isinstance(tx._connection, asyncpg.pool.PoolConnectionProxy)
        with tx._connection.query_logger(note):
            await write(tx)
            await tx._catch_up()
    return queries


@pytest.mark.parametrize("name", HOT)
def test_what_is_written_all_the_time_is_one_statement_for_all_rows(name: str) -> None:
    assert many_of(statements()[name].text) is not None


async def test_every_such_statement_is_understood(database: PostgresDatabase) -> None:
    for statement in statements().values():
        many = many_of(statement.text)
        if many is None or not statement.names:
            continue
        async with database.transaction() as tx:
            types = await database._writes._types_of(tx._connection, statement.text)
            await tx._connection.prepare(many.text(types, first=1))


async def test_rows_are_found_by_their_index_also_where_there_are_few_yet(database: PostgresDatabase) -> None:
    """The plan is kept when there are many."""
    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks(*"abcdefghij"))
    text = statements()["advance_task"].text
    many = many_of(text)
    assert many is not None
    async with database.transaction() as tx:
        types = await database._writes._types_of(tx._connection, text)
        explain = f"explain (generic_plan) {many.text(types, first=1)}"
        await tx._connection.execute("analyze tasks")
        lines = await tx._connection.fetch(explain, *([] for _ in types))
    plan = "\n".join(line[0] for line in lines)
    assert re.search(r"Index Cond: .*\bid = \(?given\.p", plan), plan


async def test_several_are_one_step(database: PostgresDatabase) -> None:
    async def write(tx: Transaction) -> None:
        await tx.run_many("expect_expiry", [])
        await tx.run_many("insert_task_file", [])
        await tx.run_many("post_notice", [{"notice": "a b c"}])
        await tx.run_many("save_outputs", outputs(a="[1]", b="[2]"))
        await tx.run_many(
            "expect_expiry", [{"task_id": "task_a", "place": place, "notice_at": 1} for place in range(9)]
        )
        await tx.run_many("post_notice", [{"notice": "a b d"}])

    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a", "b"))
    [step] = await said(database, write)
    assert step.startswith("with step_1 as (update tasks")
    async with database.reading() as reader:
        assert await stored(reader, "a", "b") == ["task_a [1]", "task_b [2]"]
        assert await reader.value("next_expiry") == 1


async def test_what_was_put_off_is_there_for_whoever_reads_next(database: PostgresDatabase) -> None:
    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a", "b"))
        await tx.run_many("insert_task_file", files(("x", "a"), ("y", "a")))
        assert await stored(tx, "a", "b", "c") == ["task_a []", "task_b []"]


async def test_who_reads_something_else_does_not_wait_for_it(database: PostgresDatabase) -> None:
    async def write(tx: Transaction) -> None:
        await tx.run_many("save_outputs", outputs(a="[1]"))
        assert await tx.value("count_dead") == 0
        await tx.run_many("expect_expiry", [{"task_id": "task_a", "place": 1, "notice_at": 7}])
        assert await tx.value("has_session_ended", nonce="00005") == 0
        await tx.hold("events", ["acc_1"])

    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a"))
    dead, session, together, hold = await said(database, write)
    assert ("from deliveries" in dead, "from ended_sessions" in session) == (True, True)
    assert together.startswith("with step_1 as (update tasks")
    assert "pg_advisory_xact_lock" in hold


async def test_a_row_that_is_written_twice_is_written_in_that_order(database: PostgresDatabase) -> None:
    """One statement would change it once, and would not see a row that it has made itself."""
    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a"))
        await tx.run_many("save_outputs", outputs(a="[1]"))
        await tx.run_many("save_outputs", outputs(a="[2]"))
        await tx.run_many("save_outputs", [*outputs(a="[3]"), *outputs(a="[4]")])
    async with database.reading() as reader:
        assert await stored(reader, "a") == ["task_a [4]"]


async def test_what_fails_is_undone_alone(database: PostgresDatabase) -> None:
    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a"))
        with pytest.raises(asyncpg.UniqueViolationError):
            async with tx.savepoint():
                await tx.run_many("insert_task", tasks("b", "a"))
        await tx.run_many("insert_task", tasks("c"))
    async with database.reading() as reader:
        assert await stored(reader, "a", "b", "c") == ["task_a []", "task_c []"]


async def test_what_fails_at_the_end_undoes_all(database: PostgresDatabase) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with database.transaction() as tx:
            await tx.run_many("insert_task", tasks("a"))
            await tx.run_many("insert_task_file", files(("x", "a"), ("x", "nowhere")))
    async with database.reading() as reader:
        assert await stored(reader, "a") == []


async def test_nothing_holds_a_nul(database: PostgresDatabase) -> None:
    async with database.transaction() as tx:
        await tx.run_many("insert_task", tasks("a"))
        await tx.run_many("save_outputs", outputs(a="\0"))
    async with database.reading() as reader:
        assert await stored(reader, "a") == ["task_a \N{REPLACEMENT CHARACTER}"]
