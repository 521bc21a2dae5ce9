"""Whoever asks pays for what is found, not for what is stored: how a database goes about each statement of a request."""

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager

import asyncpg
import pytest

from storage.postgres import numbered
from storage.statements import Dialect, load_migrations, load_statements
from tests.postgres import Databases

# Statement, and the index by which each of its tables is found.
HOT = {
    "key_by_hash": "api_keys using index sqlite_autoindex_api_keys_2 (hash=?)",
    "has_session_ended": "ended_sessions using primary key (nonce=?)",
    "get_key": "api_keys using index sqlite_autoindex_api_keys_1 (id=?)",
    "get_task": "tasks using index sqlite_autoindex_tasks_1 (id=?)",
    "glance_at_tasks": "tasks using index sqlite_autoindex_tasks_1 (id=?)",
    "get_tasks": "tasks using index sqlite_autoindex_tasks_1 (id=?)",
    "find_external_task_ids": "tasks using index sqlite_autoindex_tasks_2 (account_id=? and external_task_id=?)",
    "task_ids": "tasks using covering index tasks_by_account (account_id=? and id>? and id<?)",
    "task_ids_in_status": "tasks using covering index tasks_by_status (status=? and account_id=? and id>? and id<?)",
    "task_ids_of_type": "tasks using covering index tasks_by_type (account_id=? and type=? and id>? and id<?)",
    "task_ids_with_metadata": "task_metadata using covering index task_metadata_by_value "
    "(account_id=? and key=? and value=? and task_id>? and task_id<?)",
    "of_these_in_status": "tasks using covering index tasks_by_status (status=? and account_id=? and id=?)",
    "of_these_of_type": "tasks using covering index tasks_by_type (account_id=? and type=? and id=?)",
    "of_these_with_metadata": "task_metadata using covering index task_metadata_by_value "
    "(account_id=? and key=? and value=? and task_id=?)",
    "list_tasks": "tasks using index sqlite_autoindex_tasks_1 (id=?)",
    "task_before": "tasks using index tasks_by_account (account_id=? and id<?)",
    "task_from": "tasks using index tasks_by_account (account_id=? and id>?)",
    "list_tasks_of_type": "tasks using covering index tasks_by_type (account_id=? and type=?)",
    "due_deadlines": "tasks using index tasks_with_deadline (deadline_at<?)",
    "interrupted_sends": "tasks using index tasks_being_sent (sending_since>?)",
    "old_deliveries": "deliveries using index sqlite_autoindex_deliveries_1 (id>? and id<?)",
    "old_events": "events using index sqlite_autoindex_events_1 (id>? and id<?)",
    "old_files": "kept_files using index kept_files_by_age (created_at<?)",
    "leaving_files": "kept_files using index kept_files_leaving (name>?)",
    "old_tasks": "tasks using index sqlite_autoindex_tasks_1 (id>? and id<?)",
    "list_children": "tasks using index tasks_by_rule (parent_id=?)",
    "list_transitions": "transitions using primary key (task_id=?)",
    "list_callbacks": "callbacks using index callbacks_by_task (task_id=? and id>?)",
    "list_latest_callbacks": "callbacks using index callbacks_by_task (task_id=?)",
    "find_idempotency_keys": "idempotency_keys using primary key (account_id=? and key=?)",
    "list_events": "events using index events_by_account (account_id=? and position>?)",
    "list_events_latest": "events using index events_by_account (account_id=? and position<?)",
    "list_task_events": "events using index sqlite_autoindex_events_2 (task_id=?)",
    "moment_up_to": "events using index events_by_account (account_id=? and position<?)",
    "last_position": "events using covering index events_by_account (account_id=?)",
    "position_from": "events using integer primary key (rowid>?)",
    "event_position": "events using index sqlite_autoindex_events_1 (id=?)",
    "events_by_id": "events using index sqlite_autoindex_events_1 (id=?)",
    "get_endpoint": "endpoints using index sqlite_autoindex_endpoints_1 (id=?)",
    "ids_of_own_endpoints": "endpoints using index endpoints_by_account (account_id=?)",
    "list_endpoints": "endpoints using index endpoints_by_account (account_id=? and id<?)",
    "endpoints_of": "endpoints using index endpoints_by_task (task_id=?)",
    "endpoints_of_tasks": "endpoints using index endpoints_by_task (task_id=?)",
    "get_event": "events using index sqlite_autoindex_events_1 (id=?)",
    "endpoints_at": "endpoints using index endpoints_deleted (account_id=? and deleted_at>?)",
    "endpoint_at": "endpoints using index sqlite_autoindex_endpoints_1 (id=?)",
    "latest_deliveries_of_event": "deliveries using index deliveries_by_event (event_id=? and endpoint_id=?)",
    "bury_waiting": "deliveries using index deliveries_waiting (endpoint_id=? and attempts>?)",
    "bury_leased": "deliveries using index deliveries_leased (lease_until>?)",
    "leases_ending": "deliveries using index deliveries_leased (lease_until>? and lease_until<?)",
    "get_delivery": "deliveries using index sqlite_autoindex_deliveries_1 (id=?)",
    "list_deliveries": "deliveries using index deliveries_by_account (account_id=? and id<?)",
    "list_dead_deliveries": "deliveries using index deliveries_dead (account_id=? and id<?)",
    "list_pending_deliveries": "deliveries using index deliveries_in_lane (lane>? and lane<?)",
    "list_deliveries_of_task": "deliveries using index deliveries_by_task (task_id=? and id<?)",
    "list_deliveries_of_event": "deliveries using index deliveries_by_event (event_id=?)",
    "list_deliveries_to_endpoint": "deliveries using index deliveries_by_endpoint (endpoint_id=? and id<?)",
    "deliveries_of_events": "deliveries using index deliveries_by_event (event_id=? and endpoint_id=?)",
    "failed_since": "deliveries using index deliveries_dead (account_id=? and id>?)",
    "oldest_due": "deliveries using index deliveries_due (next_attempt_at>? and next_attempt_at<?)",
    "list_attempts": "attempts using primary key (delivery_id=?)",
    "get_kept_file": "kept_files using index sqlite_autoindex_kept_files_1 (name=?)",
    "get_bot": "bots using index sqlite_autoindex_bots_1 (id=?)",
    "list_bots": "bots using index bots_by_account (account_id=? and id<?)",
    "count_open_of_person": "commands using index commands_by_person (bot_id=? and person=?)",
    "count_tasks_over_time": "tasks using index tasks_by_account (account_id=? and id>?)",
    "latest_delivered": "deliveries using index deliveries_by_account (account_id=? and id>?)",
    "oldest_due_of_account": "deliveries using index deliveries_due (next_attempt_at>? and next_attempt_at<?)",
    "count_dead_of_account": "deliveries using index deliveries_dead (account_id=?)",
    "list_dead_letters": "deliveries using index deliveries_dead (account_id=? and id<?)",
    "usage": "usage_days using primary key (account_id=? and day>? and day<?)",
    "spent": "usage_days using primary key (account_id=? and day>?)",
    "usage_by_metadata": "tasks using index tasks_charged (account_id=? and finished_at>? and finished_at<?)",
    "budgets_of": "budgets using primary key (account_id=?)",
    "latest_attempts_to_endpoint": "deliveries using index deliveries_by_endpoint (endpoint_id=?)",
}


@contextmanager
def migrated() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for _, script in load_migrations(Dialect.SQLITE):
            connection.executescript(script)
        yield connection


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with migrated() as connection:
        yield connection


class Nulls(dict[str, None]):
    def __missing__(self, name: str) -> None:
        return None


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    """What it does with tables, in lower case; lists that came as parameters are none."""
    rows = connection.execute(f"explain query plan {load_statements(Dialect.SQLITE)[statement]}", Nulls())
    steps = [row[3].lower() for row in rows]
    return [step for step in steps if step.startswith(("scan", "search")) and "virtual table" not in step]


@pytest.mark.parametrize("statement", HOT)
def test_a_statement_of_a_request_finds_its_rows_by_an_index(
    connection: sqlite3.Connection, statement: str
) -> None:
    steps = plan(connection, statement)
    assert f"search {HOT[statement]}" in steps
    assert [step for step in steps if step.startswith("scan") and "found" not in step] == []


@pytest.mark.parametrize(
    "statement", ["due_to_send", "next_sends", "first_awaiting_slot", "in_line", "family"]
)
def test_whose_turn_it_is_is_found_without_reading_all_that_wait(
    connection: sqlite3.Connection, statement: str
) -> None:
    tables = {"tasks", "due", "later", "waits"}
    steps = [step.split() for step in plan(connection, statement)]
    found = [step for step in steps if step[1] in tables]
    assert found
    for step in found:
        assert step[0] == "search" or step[4] == "tasks_awaiting_slot", step
    indexes = {step[4] for step in found if step[4].startswith("tasks_")}
    assert indexes <= {"tasks_to_send", "tasks_to_send_by_account", "tasks_awaiting_slot", "tasks_by_rule"}


def test_from_one_head_of_a_line_to_the_next_is_one_step(connection: sqlite3.Connection) -> None:
    """However many wait in between."""
    steps = plan(connection, "first_awaiting_slot")
    assert any("(provider,type,account_id)>(?,?,?)" in step for step in steps), steps


def steps_of(connection: sqlite3.Connection, statement: str, **given: object) -> int:
    """How much the database does for it, in steps of its machine."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.set_progress_handler(count, 1)
    connection.execute(load_statements(Dialect.SQLITE)[statement], given).fetchall()
    connection.set_progress_handler(None, 0)
    return taken


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("busy", ["busy_lanes", "no_retries"])
def test_what_waits_for_a_full_lane_costs_a_claim_the_same_however_much_it_is(busy: str, free: int) -> None:
    def claims(waiting: int) -> tuple[int, int]:
        with migrated() as connection:
            connection.execute("pragma foreign_keys = off")
            connection.executemany(
                "insert into deliveries (id, account_id, event_id, event_type, endpoint_id, lane, status, attempts,"
                " next_attempt_at, created_at) values (?1, 'acc', ?1, 't', ?2, ?2, 'pending', 1, 0, 0)",
                [(f"dlv_{number}", "free" if number < free else "full") for number in range(free + waiting)],
            )
            asked = {"now": 1, "process_id": "me", "limit": 128, "busy_lanes": "[]", "no_retries": "[]"}
            asked[busy] = '["full"]'
            lanes = '["free"]' if busy == "busy_lanes" else '["free", "full"]'
            return (
                steps_of(connection, "lanes_waited_for", **asked),
                steps_of(connection, "due_deliveries", lanes=lanes, **asked),
            )

    assert claims(2000) == claims(1)


def test_what_waits_for_others_costs_nobody_s_list_of_what_is_pending_anything() -> None:
    def listing(waiting: int) -> int:
        with migrated() as connection:
            connection.execute("pragma foreign_keys = off")
            connection.executemany(
                "insert into deliveries (id, account_id, event_id, event_type, endpoint_id, lane, status,"
                " next_attempt_at, created_at) values (?1, ?2, ?1, 't', ?1, ?2 || '/dead.example', 'pending', 0, 0)",
                [(f"dlv_{number}", "others" if number else "mine") for number in range(1 + waiting)],
            )
            asked = {"account_id": "mine", "own_endpoints": "[]", "limit": 9, "before_id": None}
            for name in ("endpoint_id", "but_endpoint_id"):
                asked[name] = None
            return steps_of(connection, "list_pending_deliveries", **asked)

    assert listing(2000) == listing(1)


# PostgreSQL's ways


LARGE = {
    "tasks",
    "task_metadata",
    "transitions",
    "callbacks",
    "events",
    "deliveries",
    "attempts",
    "idempotency_keys",
    "kept_files",
}


@pytest.fixture
async def asked(postgres: Databases) -> AsyncIterator[asyncpg.Connection]:
    """As if tables were large."""
    taken = postgres.take()
    connection = await asyncpg.connect(taken.url)
    for way in ("seqscan", "hashjoin", "mergejoin"):  # which are right for tables as small as these
        await connection.execute(f"set enable_{way} = off")
    await connection.execute("set plan_cache_mode = force_generic_plan")
    # Of a table that the server has seen empty, which it may have at any time, it knows too much.
    await connection.execute("update pg_class set reltuples = -1, relpages = 0 where relkind in ('r', 'i')")
    yield connection
    await connection.close()
    postgres.give_back(taken)


async def plan_of(connection: asyncpg.Connection, statement: str) -> str:
    prepared = numbered(load_statements(Dialect.POSTGRES)[statement])
    await connection.execute(f"prepare asked as {prepared.text}")
    nulls = ", ".join("null" for _ in prepared.names)
    rows = await connection.fetch(f"explain (costs off) execute asked{f'({nulls})' if nulls else ''}")
    await connection.execute("deallocate asked")
    return "\n".join(row[0] for row in rows)


CLAIMS = ["lanes_waited_for", "due_deliveries", "endpoints_awaited"]


@pytest.mark.parametrize(
    "statement",
    [*HOT, "due_to_send", "next_sends", "first_awaiting_slot", "in_line", "family", *CLAIMS],
)
async def test_a_statement_of_a_request_reads_no_large_table_whole_in_postgresql_either(
    asked: asyncpg.Connection, statement: str
) -> None:
    text = await plan_of(asked, statement)
    steps = re.findall(r"Scan[\w ]*? on (?:public\.)?(\w+)[^\n]*((?:\n +(?!->)[^\n]*)*)", text)
    assert [table for table, about in steps if table in LARGE and "Index Cond: " not in about] == [], text
