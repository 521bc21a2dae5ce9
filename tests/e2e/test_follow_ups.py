"""One submit, two paid tasks, one webhook: pictures become a video without anybody asking a second time."""

from pathlib import Path

import httpx

from tests.e2e.parties import Receiver, image_input, running_klingel
from tests.e2e.processes import PATIENCE_S

STORY = {
    "on": "task.succeeded",
    "submit": {
        "type": "kling.multi-image-to-video",
        "input": {
            "prompt": "They come alive, in {{ data.task.metadata.place }}",
            "image_list": {"$": "data.task.outputs[].{image: url}"},
        },
    },
}


def test_pictures_become_a_video_that_rings(tmp_path: Path, receiver: Receiver, hook: str) -> None:
    """With the embedded sandbox, which makes both for real."""
    with running_klingel(
        tmp_path, KLINGEL_ALLOW_NETWORKS="127.0.0.0/8", KLINGEL_SANDBOX_STEP="0.05"
    ) as klingel:
        submit = {**STORY["submit"], "callback_url": receiver.url(hook)}
        task = klingel.submit(
            "kling.multi-image-to-image",
            image_input("a cat in a hat") | {"n": 2},
            metadata={"place": "Lisbon"},
            follow_ups=[{**STORY, "submit": submit}],
        )
        [rule] = task["endpoints"]

        got = receiver.until_type(hook, "task.succeeded")

        [rung] = [one for one in got if one.event["type"] == "task.succeeded"]
        video = rung.verified(rule["secret"])["data"]["task"]
        assert (video["type"], video["parent_id"]) == ("kling.multi-image-to-video", task["id"])
        [film] = video["outputs"]
        content = httpx.get(film["url"], timeout=90, trust_env=False).raise_for_status().content
        assert content[4:8] == b"ftyp"

        parent = klingel.task(task["id"])
        assert parent["children"] == [{"id": video["id"], "type": video["type"], "status": "succeeded"}]
        child = klingel.task(video["id"])
        assert child["input"]["prompt"] == "They come alive, in Lisbon"
        assert [one["image"] for one in child["input"]["image_list"]] == [
            output["url"] for output in parent["outputs"]
        ]
        [delivery] = klingel.until_delivered(1, endpoint_id=rule["id"])
        assert delivery["reason"] == f"submitted: {video['id']}"

        log = (
            httpx.get(f"{klingel.url}/sandbox/log", timeout=PATIENCE_S, trust_env=False)
            .raise_for_status()
            .json()
        )
        assert len(log["created"]) == 2
        assert {call["kind"] for call in log["calls"]}.isdisjoint({"query", "list"})  # nobody polls
    told = "\n".join(klingel.process.errors)
    assert "Traceback" not in told
    assert rule["secret"] not in told
