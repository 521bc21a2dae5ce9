"""A program written for CometAPI runs unchanged against Klingel: only its base URL and its key are others."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.e2e.parties import (
    STEP_S,
    Json,
    Klingel,
    Receiver,
    Sandbox,
    image_input,
    running_sandbox,
    video_input,
)
from tests.e2e.processes import run

PROGRAM = Path(__file__).with_name("existing_client.py")
IMAGES = "/kling/v1/images/multi-image2image"
OLDER_IMAGES = "/kling/v1/images/generations"
VIDEOS = "/kling/v1/videos/multi-image2video"


def client(folder: Path, url: str, key: str, path: str, body: Json) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    environment = {"COMETAPI_BASE_URL": url, "COMETAPI_KEY": key, "POLL_S": str(STEP_S / 10)}
    ended = run(sys.executable, PROGRAM, path, json.dumps(body), folder=folder, environment=environment)
    return ended.returncode, ended.stdout or ended.stderr


def shape(value: object) -> object:
    """The names in an answer, and the types of what they name."""
    match value:
        case dict():
            return {name: shape(each) for name, each in value.items()}
        case list():
            return [shape(each) for each in value]
        case _:
            return type(value).__name__


UNKNOWN = {"watermark_info"}  # to Klingel


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """What the client talks to without Klingel: what is asked here, Klingel has not asked."""
    with running_sandbox(tmp_path_factory.mktemp("alone")) as alone:
        yield alone


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (IMAGES, image_input("A cat in a hat sandbox:slow") | {"n": 2}, "images"),
        (OLDER_IMAGES, image_input("A cat in a hat sandbox:slow"), "images"),
        (VIDEOS, video_input("A cat puts on a hat sandbox:slow"), "videos"),
    ],
)
def test_an_existing_client_changes_its_base_url_and_its_key_and_nothing_else(
    klingel: Klingel,
    sandbox: Sandbox,
    alone: Sandbox,
    receiver: Receiver,
    hook: str,
    tmp_path: Path,
    path: str,
    body: Json,
    kind: str,
) -> None:
    body = body | {"watermark_info": {"enabled": False}}
    before = klingel.metrics()
    told: list[Json] = []
    for url, key in ((alone.url, "sk-somebodys"), (klingel.url, klingel.key)):
        given = body | {"external_task_id": f"job-{uuid4().hex}", "callback_url": receiver.url(hook)}
        code, printed = client(tmp_path, url, key, path, given)
        assert code == 0, printed
        told.append(json.loads(printed))
    at_provider, at_klingel = told

    for one in told:
        assert (one["seen"][0], one["seen"][-1]) == ("submitted", "succeed")
        # An output that is kept meanwhile updates its task.
        task, *others = (
            {field: value for field, value in one[way].items() if field != "updated_at"}
            for way in ("task", "by_external_id", "newest")
        )
        assert [task, task] == others
    known = {name: value for name, value in at_provider["task"].items() if name not in UNKNOWN}
    for output in known["task_result"][kind]:
        assert not output.pop("watermark_url")  # blank there, absent here
    assert shape(at_klingel["task"]) == shape(known)
    for output in at_klingel["task"]["task_result"][kind]:
        assert httpx.get(output["url"], timeout=90, trust_env=False).raise_for_status().content

    # The provider was sent the task, once, and never asked about it, however often the client asked.
    task = klingel.task(at_klingel["task"]["task_id"])
    assert sandbox.calls(task).count("create") == sandbox.tasks_made(task) == 1
    assert "query" not in sandbox.calls(task)
    grown = {name: value - before.get(name, 0) for name, value in klingel.metrics().items()}
    assert grown["klingel_provider_status_queries_total"] == 0
    assert len(at_klingel["seen"]) > 2

    # And its receiver is called as Kling calls it.
    def ended(task_id: str) -> list[Json]:
        heard = [one.event for one in receiver.received(hook)]
        return [one for one in heard if (one["task_id"], one["task_status"]) == (task_id, "succeed")]

    ids = [one["task"]["task_id"] for one in told]
    receiver.until(hook, lambda _: all(map(ended, ids)))
    by_provider, by_klingel = (ended(task_id)[0] for task_id in ids)
    assert shape(by_klingel) == shape({n: v for n, v in by_provider.items() if n not in UNKNOWN})


@pytest.mark.parametrize(
    "body",
    [
        video_input("x" * 501),
        video_input("A cat") | {"image_list": []},
        video_input("A cat") | {"aspect_ratio": "2:1"},
        video_input("A cat sandbox:arrears"),
    ],
)
def test_an_existing_client_is_refused_in_the_same_codes(
    klingel: Klingel, alone: Sandbox, tmp_path: Path, body: Json
) -> None:
    """By status and code; the words are each one's own, but for those of the provider's refusal."""
    answers = [
        client(tmp_path, url, key, VIDEOS, body)
        for url, key in ((alone.url, "sk-somebodys"), (klingel.url, klingel.key))
    ]
    assert [code for code, _ in answers] == [1, 1]
    at_provider, at_klingel = (printed.split(maxsplit=2) for _, printed in answers)
    assert at_klingel[:2] == at_provider[:2]
    if at_provider[1] != "1201":
        assert at_klingel == at_provider
