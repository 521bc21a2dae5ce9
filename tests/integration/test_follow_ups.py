"""Follow-ups: a task that something happened to leads to another one, once."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.integration.klingel import (
    IMAGE_INPUT,
    VIDEO_INPUT,
    Klingel,
    callback,
    picture,
    pointers,
    running_klingel,
)

VIDEO = "kling.multi-image-to-video"
IMAGE = "kling.multi-image-to-image"
FILM: Mapping[str, Any] = {
    "type": VIDEO,
    "input": {
        "prompt": "It comes alive: {{ data.task.metadata.title }}",
        "image_list": {"$": "data.task.outputs[].{image: url}"},
    },
}
PICTURES: Mapping[str, Any] = {**IMAGE_INPUT, "n": 2}
LITERAL: Mapping[str, Any] = {"type": VIDEO, "input": VIDEO_INPUT}


def follow_up(on: str = "task.succeeded", submit: Mapping[str, Any] = FILM, **more: Any) -> dict[str, Any]:
    return {"on": on, "submit": dict(submit), **more}


def made(task: Mapping[str, Any], number: int = 2, **more: Any) -> dict[str, Any]:
    """The callback that brings so many pictures."""
    images = [{"index": index, "url": picture(f"out-{index}")} for index in range(number)]
    return callback(task, "succeed", task_result={"images": images}, **more)


async def submitted(klingel: Klingel, *follow_ups: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    body = {"input": PICTURES, "metadata": {"title": "a cat"}, "follow_ups": list(follow_ups), **more}
    response = await klingel.http.post("/v1/tasks", json={"type": IMAGE, **body})
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.json()
    return task


async def children(klingel: Klingel, task_id: str, number: int = 1) -> list[dict[str, Any]]:
    """A task's children, whole, once there are so many."""

    async def there() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await klingel.task(task_id))["children"]
        return found if len(found) >= number else None

    return [await klingel.task(child["id"]) for child in await klingel.until(there)]


async def refused(klingel: Klingel, *follow_ups: Any, **more: Any) -> httpx.Response:
    body = {"type": IMAGE, "input": PICTURES, "follow_ups": list(follow_ups), **more}
    response = await klingel.http.post("/v1/tasks", json=body)
    assert response.status_code == 422, response.text
    assert klingel.rows("select * from tasks") == []
    return response


# A follow-up of one task


async def test_pictures_become_a_video_when_they_are_there(klingel: Klingel) -> None:
    task = await submitted(klingel, follow_up())
    assert task["children"] == []
    [rule] = task["endpoints"]
    assert rule["kind"] == "task"

    await klingel.call_back(made(task))

    [child] = await children(klingel, task["id"])
    assert (child["type"], child["parent_id"], child["children"]) == (VIDEO, task["id"], [])
    assert child["input"]["image_list"] == [{"image": picture("out-0")}, {"image": picture("out-1")}]
    assert child["input"]["prompt"] == "It comes alive: a cat"
    await klingel.kling.until(2)
    assert klingel.kling.creates[1]["image_list"] == child["input"]["image_list"]
    row = klingel.row(child["id"])
    assert (row["rule_id"], row["depth"]) == (rule["id"], 1)
    [delivery] = await klingel.until_deliveries("delivered", endpoint_id=rule["id"])
    [attempt] = await klingel.attempts(delivery["id"])
    assert attempt["outcome"] == "delivered"
    assert attempt["response_excerpt"] == f'{{"task_id":"{child["id"]}"}}'
    assert klingel.kling.status_queries == 0
