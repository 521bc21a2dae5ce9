"""A disk that is full, read-only, damaged or locked: said clearly, nothing half-written, and over when it is over."""

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.e2e.chaos.world import World, everything
from tests.e2e.processes import PATIENCE_S

BODY = {
    "type": "kling.multi-image-to-image",
    "input": {
        "prompt": "sandbox:never",
        "subject_image_list": [{"subject_image": f"https://example.com/{name}.png"} for name in "ab"],
    },
}


def serve(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A start that is expected to end by itself."""
    environment = {**os.environ, "KLINGEL_DATA_DIR": str(folder), "KLINGEL_API_KEY": "a-key-of-some-length"}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "serve"],
        cwd=folder.parent,
        env=environment | {"PORT": "0"},
        capture_output=True,
        timeout=60,
        check=False,
    )


async def callback(
    client: httpx.AsyncClient, world: World, task: dict[str, Any], word: str
) -> httpx.Response:
    body = {
        "task_id": task["provider_task_id"],
        "task_status": word,
        "task_info": {"external_task_id": task["external_task_id"]},
        "task_result": {"images": [{"index": 0, "url": "https://example.com/out.png"}]},
    }
    ledger = world.sandbox._ledger
    [url] = {
        found.order.callback_url
        for found in ledger._tasks.values()
        if found.external_task_id == task["external_task_id"]
    }
    assert url is not None
    return await client.post(url, json=body, headers={"authorization": ""})


async def until_ready_is(client: httpx.AsyncClient, status: int) -> None:
    """One check serves all who ask within a moment, so that asking often costs nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get("/readyz")).status_code != status:  # noqa: ASYNC110 - another process gives no signal
            await asyncio.sleep(0.05)


async def test_a_full_disk_is_a_503_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    async with World(tmp_path, Random(1)).running() as world, world.client_later() as connect:
        await world.start()
        client = await connect()
        task = (await client.post("/v1/tasks", json=BODY)).json()
        assert world.process is not None
        unlimited = resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        refused = await callback(client, world, task, "succeed")
        assert refused.status_code == 503
        assert (await client.post("/v1/tasks", json=BODY)).status_code == 503
        await until_ready_is(client, 503)
        # Reading goes on, and nothing was half-written.
        shown = (await client.get(f"/v1/tasks/{task['id']}")).json()
        assert (shown["status"], len(shown["transitions"])) == ("submitted", 1)
        resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE, unlimited)
        await until_ready_is(client, 200)
        assert (await callback(client, world, task, "succeed")).status_code == 200
        shown = (await client.get(f"/v1/tasks/{task['id']}")).json()
        assert (shown["status"], len(shown["transitions"])) == ("succeeded", 2)
        assert len(await everything(client, f"/v1/tasks/{task['id']}/callbacks")) == 1
        assert len(await everything(client, "/v1/tasks")) == 1


async def test_a_database_locked_by_others_is_a_503_and_over_when_they_let_go(tmp_path: Path) -> None:
    async with World(tmp_path, Random(1)).running() as world, world.client_later() as connect:
        await world.start()
        client = await connect()
        task = (await client.post("/v1/tasks", json=BODY)).json()
        other = sqlite3.connect(tmp_path / "klingel.db", isolation_level=None)
        other.execute("begin immediate")
        assert (await callback(client, world, task, "succeed")).status_code == 503
        other.execute("rollback")
        other.close()
        assert (await callback(client, world, task, "succeed")).status_code == 200
        await until_ready_is(client, 200)


def damage(path: Path, *, of: str | None = None) -> None:
    """Writes nonsense over the pages of one table, those of its indexes included, or over all but the first."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        [busy, *_] = database.execute("pragma wal_checkpoint(truncate)").fetchone()
        assert not busy  # all is in the file, and every connection reads it anew
        [size] = database.execute("pragma page_size").fetchone()
        [count] = database.execute("pragma page_count").fetchone()
        roots = database.execute("select rootpage from sqlite_master where tbl_name = ?", [of]).fetchall()
    pages = range(2, count + 1) if of is None else [page for [page] in roots]
    assert pages
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)


async def test_a_database_damaged_while_it_runs_answers_503_and_goes_on_answering(tmp_path: Path) -> None:
    async with World(tmp_path, Random(1)).running() as world, world.client_later() as connect:
        await world.start()
        client = await connect()
        task = (await client.post("/v1/tasks", json=BODY)).json()
        damage(tmp_path / "klingel.db", of="tasks")
        for _ in range(3):
            assert (await client.get(f"/v1/tasks/{task['id']}")).status_code == 503
            assert (await callback(client, world, task, "succeed")).status_code == 503
            refused = await client.post("/v1/tasks", json=BODY)
            assert refused.status_code == 503
            assert refused.json()["type"] == "/problems/storage-unavailable"
            assert "malformed" in refused.json()["detail"]
            assert (await client.get("/v1/endpoints")).status_code == 200  # what is not damaged can be read
            assert (await client.get("/healthz")).status_code == 200
        assert world.process is not None
        assert world.process.poll() is None


async def test_a_damaged_database_is_refused_at_the_start(tmp_path: Path) -> None:
    async with World(tmp_path, Random(1)).running() as world, world.client_later() as connect:
        await world.start()
        assert (await (await connect()).post("/v1/tasks", json=BODY)).status_code == 201
        world.kill()
        await world.death()
    damage(tmp_path / "klingel.db")
    ended = serve(tmp_path)
    assert ended.returncode == 2
    assert b"malformed" in ended.stderr
    assert b"restore a backup" in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "content", [b"this is no database, but it is long enough to be taken for one" * 100, b"\0" * 8192]
)
def test_a_file_that_is_no_database_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "klingel.db").write_bytes(content)
    ended = serve(folder)
    assert ended.returncode == 2
    assert b"klingel.db" in ended.stderr
    assert b"restore a backup" in ended.stderr
    assert b"Traceback" not in ended.stderr


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root, whom permissions do not stop, a mount that does."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with read_only(folder):
        ended = serve(folder)
    assert ended.returncode == 2
    assert str(folder).encode() in ended.stderr
    assert b"writable" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_database_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "klingel.secret").write_text("a-secret-of-sufficient-length\n")
    sqlite3.connect(folder / "klingel.db").close()
    with read_only(folder):
        ended = serve(folder)
    assert ended.returncode == 2
    assert b"klingel.db" in ended.stderr
    assert b"Traceback" not in ended.stderr
