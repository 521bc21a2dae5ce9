"""Klingel stops and comes back: nothing acknowledged is lost, and nobody else writes in its database meanwhile."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.parties import (
    RELEASE,
    WEB,
    Klingel,
    Receiver,
    Sandbox,
    first_submit,
    running_klingel,
    running_receiver,
    settings_with,
    types,
    video_input,
)
from tests.e2e.processes import PATIENCE_S, run


@pytest.fixture
def failing_receiver(tmp_path: Path) -> Iterator[Receiver]:
    """Answers 503 with `Retry-After: 1`, until told otherwise."""
    with running_receiver(tmp_path) as receiver:
        receiver.answers(503, retry_after_s=1)
        yield receiver


def test_deliveries_that_wait_for_a_failing_receiver_outlive_a_restart(
    tmp_path: Path, sandbox: Sandbox, failing_receiver: Receiver, hook: str
) -> None:
    with running_klingel(tmp_path, **settings_with(sandbox)) as klingel:
        key = klingel.key  # as it was printed
        task = klingel.submit(
            "kling.multi-image-to-video",
            video_input("A cat puts on a hat"),
            callback_url=failing_receiver.url(hook),
        )
        refused = failing_receiver.until(hook, lambda got: len({one.id for one in got}) == 3)
        klingel.process.stop()

    failing_receiver.answers(200)
    with running_klingel(tmp_path, key=key, **settings_with(sandbox)) as klingel:
        assert not any("Admin key" in line or key in line for line in klingel.process.output)
        ids = {one.event["sequence"]: one.id for one in refused}
        got = failing_receiver.until(
            hook, lambda got: {one.id for one in got if one.answered == 200} >= {*ids.values()}
        )
        secret = task["endpoints"][0]["secret"]
        delivered = [one for one in got if one.answered == 200]
        assert {one.verified(secret)["sequence"]: one.id for one in delivered} == ids
        settled = klingel.until_delivered(3, task_id=task["id"])
        assert [one["status"] for one in settled] == ["delivered"] * 3
        assert types(klingel.events(task["id"])) == ["task.submitted", "task.processing", "task.succeeded"]

        # What it prints for trying it takes the key from the environment, now that it cannot show it.
        tried = run(
            *("bash", "-c", first_submit(klingel.process)),
            folder=tmp_path,
            environment={"KLINGEL_API_KEY": key},
        )
        assert klingel.task(json.loads(tried.stdout)["id"])["status"] != "rejected"
    assert sandbox.calls(task) == ["create"]
    assert sandbox.tasks_made(task) == 1


def test_told_to_stop_it_ends_live_streams_and_exits_with_0(tmp_path: Path, sandbox: Sandbox) -> None:
    with running_klingel(tmp_path, **settings_with(sandbox)) as klingel:
        task = klingel.submit("kling.multi-image-to-video", video_input("A cat puts on a hat sandbox:never"))
        accept = {"accept": "text/event-stream"}
        with (
            klingel.http.stream("GET", "/v1/events", headers=accept) as of_account,
            klingel.http.stream("GET", f"/v1/tasks/{task['id']}/events", headers=accept) as of_task,
        ):
            code = klingel.process.stop()
            assert b"data:" not in of_account.read()  # ended, not broken off
            assert b"task.submitted" in of_task.read()
        assert code == 0


def test_a_second_process_on_the_same_data_is_refused(tmp_path: Path, house: Klingel) -> None:
    data = house.folder / "data"
    second = run(*WEB, folder=tmp_path, environment={"PORT": "0", "KLINGEL_DATA_DIR": str(data)})

    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"{data / 'klingel.db'} is in use by another Klingel process" in second.stderr
    assert second.stdout == ""
    assert httpx.get(f"{house.url}/readyz", timeout=PATIENCE_S, trust_env=False).json()["status"] == "ready"


def test_a_key_of_a_member_is_refused_as_the_one_of_the_settings(tmp_path: Path, sandbox: Sandbox) -> None:
    settings = settings_with(sandbox)
    with running_klingel(tmp_path, **settings) as klingel:
        made = klingel.call("POST", "/keys", {"name": "shop", "role": "member"}, answers=201)
        assert klingel.process.stop() == 0

    named = settings | {"PORT": "0", "KLINGEL_API_KEY": made["key"]}
    refused = run(*WEB, folder=tmp_path, environment=named)

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert f"KLINGEL_API_KEY is the key {made['id']}, which is a member's" in refused.stderr
    assert refused.stdout == ""


def test_a_database_of_a_newer_klingel_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    assert run(*RELEASE, folder=tmp_path).returncode == 0
    file = tmp_path / "klingel.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("insert into migrations values (9999, 0)")

    refused = run(*WEB, folder=tmp_path, environment={"PORT": "0"})

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "klingel.db was written by a newer Klingel" in refused.stderr
    assert refused.stdout == ""
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select max(version) from migrations").fetchone() == (9999,)
