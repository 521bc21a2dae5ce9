"""Submit, never poll, receive signed webhooks: seen from outside, with a real provider's stand-in and a real receiver."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import httpx
import pytest
from PIL import Image

from tests.e2e.parties import (
    ADMIN_KEY,
    STEP_S,
    Json,
    Klingel,
    Received,
    Receiver,
    Sandbox,
    image_input,
    running_klingel,
    types,
    video_input,
)
from tests.e2e.processes import until

WHOLE_STORY = ["task.submitted", "task.processing", "task.succeeded"]
TERMINAL = WHOLE_STORY[-1]


def has_type(type: str, *, times: int = 1) -> Callable[[list[Received]], bool]:
    return lambda got: [one.event["type"] for one in got].count(type) >= times


def heard(got: Sequence[Received], task: Json, secret: str) -> list[Json]:
    """The events about a task, their signatures verified."""
    return [one.verified(secret) for one in got if one.event["data"]["task"]["id"] == task["id"]]


def downloaded(output: Mapping[str, str]) -> bytes:
    return httpx.get(output["url"], timeout=90, trust_env=False).raise_for_status().content


def test_both_kinds_of_task_ring_in_order_and_nobody_polls(
    klingel: Klingel, sandbox: Sandbox, receiver: Receiver, hook: str
) -> None:
    before = klingel.metrics()
    everything = f"{hook}/everything"
    endpoint = klingel.call(
        "POST", "/endpoints", {"kind": "webhook", "config": {"url": receiver.url(everything)}}, answers=201
    )

    image = klingel.submit("kling.multi-image-to-image", image_input("A cat in a hat") | {"n": 2})
    video = klingel.submit(
        "kling.multi-image-to-video",
        video_input("A cat puts on a hat"),
        external_task_id=f"order-{hook[-12:]}",
        metadata={"order": "1234"},
        callback_url=receiver.url(hook),
    )

    at_video = receiver.until(hook, has_type(TERMINAL))
    at_all = receiver.until(everything, has_type(TERMINAL, times=2))
    [bound] = video["endpoints"]
    for events in (
        heard(at_video, video, bound["secret"]),
        heard(at_all, video, endpoint["secret"]),
        heard(at_all, image, endpoint["secret"]),
    ):
        assert types(events) == WHOLE_STORY
        assert [event["sequence"] for event in events] == [1, 2, 3]
    assert len(at_video) == 3
    assert len({one.id for one in at_all}) == len(at_all) == 6
    assert {one.id for one in at_video} < {one.id for one in at_all}
    assert at_video[-1].event["data"]["task"]["metadata"] == {"order": "1234"}

    for task in (image, video):
        stored = klingel.task(task["id"])
        assert [(one["from"], one["to"]) for one in stored["transitions"]] == [
            ("queued", "submitted"),
            ("submitted", "processing"),
            ("processing", "succeeded"),
        ]
        told = klingel.events(task["id"])[-1]["data"]["task"]["outputs"]
        # Where it is kept by now is told by the task alone.
        assert [
            {name: output[name] for name in shown}
            for output, shown in zip(stored["outputs"], told, strict=True)
        ] == told
        assert sandbox.calls(task) == ["create"]
        assert sandbox.tasks_made(task) == 1

    pictures = klingel.task(image["id"])["outputs"]
    assert [(one["kind"], one["index"]) for one in pictures] == [("image", 0), ("image", 1)]
    for output in pictures:
        with Image.open(io.BytesIO(downloaded(output))) as picture:
            picture.load()
            assert (picture.format, picture.width * 9) == ("PNG", picture.height * 16)
    [film] = klingel.task(video["id"])["outputs"]
    assert (film["kind"], film["duration_s"]) == ("video", 5)
    with av.open(io.BytesIO(downloaded(film))) as container:
        assert "mp4" in container.format.name
        frames = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert len(frames) > 20
    assert 4 < frames[-1] <= 5

    assert sandbox.until_called_back(image, 3) + sandbox.until_called_back(video, 3) == [200] * 6
    assert {one["status"] for one in klingel.until_delivered(9)} == {"delivered"}
    succeeded = 'klingel_tasks{status="succeeded"}'

    def counted() -> Mapping[str, float] | None:
        now = klingel.metrics()
        return now if now[succeeded] - before.get(succeeded, 0) == 2 else None

    after = until(counted, "both tasks among what is counted now and then")
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['klingel_provider_calls_total{kind="create",outcome="accepted"}'] == 2
    assert grown["klingel_provider_status_queries_total"] == 0
    assert grown['klingel_delivery_attempts_total{kind="webhook",outcome="delivered"}'] == 9
    # Where a callback overtakes the create's answer, it is the one that advances.
    assert sum(grown[name] for name in grown if name.startswith("klingel_callbacks_total")) == 6


@pytest.mark.parametrize(
    ("words", "callbacks", "story"),
    [
        ("sandbox:duplicate", 9, WHOLE_STORY),
        # Slow, so that the create's answer is always before the callbacks; the terminal one is their first.
        ("sandbox:reorder sandbox:slow", 3, ["task.submitted", TERMINAL]),
        ("sandbox:early", 3, WHOLE_STORY),
        ("sandbox:wrapped", 3, WHOLE_STORY),
        ("sandbox:nested", 3, WHOLE_STORY),
        ("sandbox:new", 3, WHOLE_STORY),
    ],
)
def test_however_callbacks_come_each_event_rings_once(
    klingel: Klingel,
    sandbox: Sandbox,
    receiver: Receiver,
    hook: str,
    words: str,
    callbacks: int,
    story: list[str],
) -> None:
    task = klingel.submit(
        "kling.multi-image-to-video",
        video_input(f"A cat puts on a hat {words}"),
        callback_url=receiver.url(hook),
    )

    got = receiver.until(hook, has_type(TERMINAL))
    # All that the provider has to say was said and taken, and still there is nothing more to tell.
    assert sandbox.until_called_back(task, callbacks) == [200] * callbacks
    assert len(klingel.until_delivered(len(story), task_id=task["id"])) == len(story)
    assert receiver.received(hook) == got
    events = heard(got, task, task["endpoints"][0]["secret"])
    assert types(events) == story
    assert [event["sequence"] for event in events] == list(range(1, len(story) + 1))
    assert events == klingel.events(task["id"])

    stored = klingel.task(task["id"])
    assert [f"task.{one['to']}" for one in stored["transitions"]] == story
    assert [output["kind"] for output in stored["outputs"]] == ["video"]
    evidence = klingel.call("GET", f"/tasks/{task['id']}/callbacks")["items"]
    verdicts = [callback["verdict"] for callback in evidence]
    assert len(verdicts) == callbacks
    assert {*verdicts} <= {"advanced", "duplicate", "stale"}
    assert sandbox.calls(task) == ["create"]
    assert sandbox.tasks_made(task) == 1


def test_lost_callbacks_are_noticed_and_fetched_only_on_a_persons_order(
    klingel: Klingel, sandbox: Sandbox, receiver: Receiver, hook: str
) -> None:
    queries = klingel.metrics()["klingel_provider_status_queries_total"]
    task = klingel.submit(
        "kling.multi-image-to-image",
        image_input("A cat in a hat sandbox:never"),
        callback_url=receiver.url(hook),
        deadline_s=100 * STEP_S,
    )

    receiver.until(hook, has_type("task.overdue"))
    stored = klingel.task(task["id"])
    assert stored["status"] == "submitted"
    assert stored["overdue_at"] >= stored["deadline_at"]
    assert sandbox.calls(task) == ["create"]
    assert klingel.metrics()["klingel_provider_status_queries_total"] == queries

    refreshed = klingel.call("POST", f"/tasks/{task['id']}/refresh")
    assert (refreshed["status"], refreshed["refresh"]) == ("succeeded", "advanced")
    assert sandbox.calls(task) == ["create", "query"]
    assert klingel.metrics()["klingel_provider_status_queries_total"] == queries + 1

    got = receiver.until(hook, has_type(TERMINAL))
    events = heard(got, task, task["endpoints"][0]["secret"])
    assert types(events) == ["task.submitted", "task.overdue", "task.succeeded"]
    assert [event["sequence"] for event in events] == [1, 2, 3]
    with Image.open(io.BytesIO(downloaded(events[-1]["data"]["task"]["outputs"][0]))) as picture:
        assert picture.format == "PNG"


def test_the_embedded_sandbox_signs_with_the_secret_that_callbacks_are_verified_by(tmp_path: Path) -> None:
    secret = "whsec_" + "a2xpbmct" * 4
    quick = {"KLINGEL_SANDBOX_STEP": str(STEP_S), "KLINGEL_PROVIDER_WEBHOOK_SECRET": secret}
    with running_klingel(tmp_path, **quick, KLINGEL_API_KEY=ADMIN_KEY) as klingel:
        task = klingel.submit("kling.multi-image-to-image", image_input("A cat in a hat"))
        until(lambda: klingel.task(task["id"])["status"] == "succeeded", "its end")
        evidence = klingel.call("GET", f"/tasks/{task['id']}/callbacks")["items"]
        assert "forged" not in {callback["verdict"] for callback in evidence}
