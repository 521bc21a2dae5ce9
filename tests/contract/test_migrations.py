"""The schema grows from any earlier version to the newest, whole or not at all, and in one process at a time."""

import asyncio
import resource
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import ConfigurationError
from service.domain.ids import EndpointId
from storage import endpoints
from storage.columns import json_text
from storage.sqlite import _connect, _migrate, open_sqlite
from storage.statements import Dialect, load_migrations
from tests.contract import metadata

NEWEST = load_migrations(Dialect.SQLITE)[-1][0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "klingel.db"


async def opened(path: Path) -> None:
    async with open_sqlite(path) as database:
        await database.check()


def schema(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(
            "select type, name, tbl_name, sql from sqlite_schema order by 1, 2"
        ).fetchall()
    finally:
        connection.close()


def run(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(script)
    finally:
        connection.close()


def versions(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [version for (version,) in connection.execute("select version from migrations order by 1")]
    finally:
        connection.close()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [number for number, _ in load_migrations(Dialect.SQLITE)] == list(range(1, NEWEST + 1))


async def test_nothing_becomes_the_newest_version(path: Path) -> None:
    await opened(path)
    assert versions(path) == list(range(1, NEWEST + 1))


async def test_the_folder_is_made_too(tmp_path: Path) -> None:
    await opened(tmp_path / "some" / "folder" / "klingel.db")
    assert (tmp_path / "some" / "folder" / "klingel.db").exists()


@pytest.mark.parametrize("version", range(NEWEST + 1))
async def test_every_earlier_version_becomes_what_a_new_database_is(path: Path, version: int) -> None:
    fresh = path.with_name("fresh.db")
    await opened(fresh)
    async with _connect(path) as connection:
        await _migrate(connection, path, up_to=version)
    # Version 0 is a database in which nothing but the list of migrations was made.
    assert versions(path) == list(range(1, version + 1))
    await opened(path)
    assert schema(path) == schema(fresh)
    assert versions(path) == versions(fresh)


async def test_what_waits_from_before_there_were_lanes_waits_in_its_own(path: Path) -> None:
    """As what is made now would."""
    async with _connect(path) as connection:
        await _migrate(connection, path, up_to=1)
    run(
        path,
        """
        insert into accounts values ('acc_1', 'a', 0);
        insert into tasks (id, account_id, type, provider, status, input, external_task_id, metadata, created_at,
            updated_at, deadline_at) values ('task_1', 'acc_1', 't', 'p', 'queued', '{}', 'x', '{}', 0, 0, 0);
        insert into events (id, account_id, type, body, at) values ('evt_1', 'acc_1', 't', x'7b7d', 0);
        """,
    )
    made: dict[str, tuple[str | None, str, dict[str, Any]]] = {
        "end_1": (None, "webhook", {"url": "https://example.com/hook"}),
        "end_2": ("task_1", "webhook", {"url": "https://Example.com:8443/hook?to=https://other.example/"}),
        "end_3": ("task_1", "webhook", {"url": "http://10.0.0.1"}),
        "end_4": ("task_1", "webhook", {"url": "http://[::1]:8080/"}),
        "end_5": ("task_1", "ntfy", {"server": "https://ntfy.example", "topic": "t"}),
        "end_6": ("task_1", "web_push", {"subscription": {"endpoint": "https://push.example/••••"}}),
        "end_7": ("task_1", "apprise", {}),
    }
    connection = sqlite3.connect(path)
    connection.executemany(
        "insert into endpoints (id, account_id, task_id, kind, config, types, enabled, secrets, created_at, updated_at)"
        " values (?, 'acc_1', ?, ?, ?, '[]', 1, '[]', 0, 0)",
        [(id, task, kind, json_text(config)) for id, (task, kind, config) in made.items()],
    )
    connection.executemany(
        "insert into deliveries (id, account_id, event_id, event_type, endpoint_id, status, next_attempt_at, created_at)"
        " values ('dlv_' || ?1, 'acc_1', 'evt_1', 't', ?1, 'pending', 0, 0)",
        [(id,) for id in made],
    )
    connection.commit()
    connection.close()
    async with open_sqlite(path) as database, database.reading() as reader:
        stored = await endpoints.by_id(reader, [EndpointId(id) for id in made])
    connection = sqlite3.connect(path)
    lanes = dict(connection.execute("select endpoint_id, lane from deliveries"))
    connection.close()
    assert lanes == {id: endpoint.lane for id, endpoint in stored.items()}
    assert lanes["end_2"] == "acc_1/example.com:8443"
    assert lanes["end_7"] == "acc_1/apprise"


async def test_tasks_from_before_metadata_had_an_index_are_found_by_it(path: Path) -> None:
    """As one that is made now would be."""
    async with _connect(path) as connection:
        await _migrate(connection, path, up_to=metadata.BEFORE)
        await connection.execute(metadata.ACCOUNT)
        await connection.execute(metadata.TASK, {"1": json_text(metadata.GIVEN)})
    async with open_sqlite(path) as database:
        await metadata.check_found_by_each(database)


async def test_opening_again_changes_nothing(path: Path) -> None:
    await opened(path)
    before = schema(path)
    await opened(path)
    assert schema(path) == before


async def test_what_is_stored_stays_when_it_is_opened_again(path: Path) -> None:
    async with open_sqlite(path) as database, database.transaction() as tx:
        await tx.run("insert_account", id="acc_1", name="kept", created_at=0)
    async with open_sqlite(path) as database, database.reading() as reader:
        assert await reader.value("account_by_name", name="kept") == "acc_1"


async def test_a_database_of_a_newer_klingel_is_refused_and_left_as_it_is(path: Path) -> None:
    await opened(path)
    run(path, f"insert into migrations values ({NEWEST + 1}, 0)")
    before = schema(path)
    with pytest.raises(ConfigurationError) as raised:
        await opened(path)
    assert str(raised.value) == (
        f"The database {path} was written by a newer Klingel (its version is {NEWEST + 1}, this one knows {NEWEST}). "
        "Update Klingel, or choose another database."
    )
    assert schema(path) == before


async def test_a_migration_that_breaks_in_the_middle_leaves_nothing_of_itself(path: Path) -> None:
    """The last table of the first migration is in the way: all that came before it in that migration is undone."""
    run(path, "create table readiness (other text)")
    with pytest.raises(ConfigurationError, match="readiness already exists"):
        await opened(path)
    assert {name for kind, name, *_ in schema(path) if kind == "table"} == {"migrations", "readiness"}
    assert versions(path) == []
    run(path, "drop table readiness")
    await opened(path)
    assert versions(path) == list(range(1, NEWEST + 1))


# One process at a time


async def test_a_database_that_is_open_is_refused_to_a_second_opener(path: Path) -> None:
    async with open_sqlite(path) as first:
        with pytest.raises(ConfigurationError) as raised:
            await opened(path)
        await first.check()
    assert str(raised.value) == (
        f"The database {path} is in use by another Klingel process. "
        "Stop that one first: a SQLite file serves one process at a time."
    )
    await opened(path)


HOLD = """
import asyncio, sys
from pathlib import Path
from storage.sqlite import open_sqlite

async def hold():
    async with open_sqlite(Path(sys.argv[1])):
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


async def test_another_process_keeps_it_until_it_dies_however_it_dies(path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"open\n"
        link = path.with_name("link.db")
        link.symlink_to(path)
        for name in (path, link):
            with pytest.raises(ConfigurationError, match="in use by another Klingel process"):
                await opened(name)
    finally:
        holder.kill()
        await holder.wait()
    await opened(path)


# Files that are none


@pytest.mark.parametrize(
    "content",
    [b"garbage " * 1000, b"SQLite format 3\x00" + b"\xff" * 4096],
    ids=["another format", "a damaged header"],
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cannot be used.*restore a backup"):
        asyncio.run(opened(path))
    assert path.read_bytes() == content


def test_a_folder_in_the_place_of_the_file_is_said(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match=str(path)):
        asyncio.run(opened(path))


def test_a_file_in_the_place_of_the_folder_is_said_with_what_to_do(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ConfigurationError, match="KLINGEL_DATA_DIR or KLINGEL_DATABASE_URL"):
        asyncio.run(opened(path / "klingel.db"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_is_called_so_and_the_database_not_damaged(path: Path, exists: bool) -> None:
    """Nobody is told to move away a database that is whole."""
    if exists:
        asyncio.run(opened(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match="Its disk is full") as told:
            asyncio.run(opened(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "backup" not in str(told.value)
    asyncio.run(opened(path))


def test_another_programs_database_is_refused(path: Path) -> None:
    run(path, "create table tasks (id integer primary key)")
    with pytest.raises(ConfigurationError, match="table tasks already exists"):
        asyncio.run(opened(path))
