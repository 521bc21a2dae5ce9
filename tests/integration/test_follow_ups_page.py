"""docs/follow-ups.md: each recipe is taken as it is written, and does what it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.klingel import Klingel, callback, picture, pointers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "follow-ups.md").read_text()
RECIPES: dict[str, tuple[str, Any]] = {
    title: (path, json.loads(body))
    for title, path, body in re.findall(
        r"^### (.+?)\n(?:(?!^### ).)*?`POST (\S+)`:\n\n```json\n(.+?)```", PAGE, re.DOTALL | re.MULTILINE
    )
}


def recipe(start: str) -> tuple[str, Any]:
    [found] = [each for title, each in RECIPES.items() if title.startswith(start)]
    return found


async def post(klingel: Klingel, path: str, body: Any) -> dict[str, Any]:
    response = await klingel.http.post(path, json=body)
    assert response.status_code == 201, response.text
    posted: dict[str, Any] = response.json()
    return posted


async def succeeded(klingel: Klingel, task_id: str) -> list[dict[str, Any]]:
    """The children of a task for which the provider makes what it was asked for, whole."""
    task = await klingel.until_status(task_id, "submitted")
    number = [create["external_task_id"] for create in klingel.kling.creates].index(task["external_task_id"])
    images = [{"index": n, "url": picture(f"out-{n}")} for n in range(task["input"].get("n", 1))]
    await klingel.call_back(callback(task, "succeed", task_result={"images": images}), number=number)
    return await followed(klingel, task_id)


async def followed(klingel: Klingel, task_id: str) -> list[dict[str, Any]]:
    async def settled() -> bool:
        deliveries = await klingel.deliveries(task_id=task_id)
        return bool(deliveries) and all(one["status"] != "pending" for one in deliveries)

    await klingel.until(settled)
    return [await klingel.task(child["id"]) for child in (await klingel.task(task_id))["children"]]


def test_every_example_of_the_page_is_a_recipe_with_a_path() -> None:
    assert len(RECIPES) == PAGE.count("```json") == 5


async def test_pictures_become_a_video(klingel: Klingel) -> None:
    path, body = recipe("Pictures become")
    body["follow_ups"][0]["submit"]["callback_url"] = klingel.receiver.url  # example.com is not here
    task = await post(klingel, path, body)
    [video] = await succeeded(klingel, task["id"])
    assert video["input"]["image_list"] == [{"image": picture("out-0")}, {"image": picture("out-1")}]
    [rung, *_] = await klingel.receiver.until(1)
    assert rung.event["data"]["task"]["id"] == video["id"]


async def test_one_set_of_pictures_becomes_two_formats(klingel: Klingel) -> None:
    task = await post(klingel, *recipe("One set"))
    videos = {video["metadata"]["format"]: video["input"] for video in await succeeded(klingel, task["id"])}
    assert {name: (len(one["image_list"]), one["prompt"]) for name, one in videos.items()} == {
        "story": (4, "Cat with hat, for a phone"),
        "film": (2, "Cat with hat, for a screen"),
    }


async def test_a_chain(klingel: Klingel) -> None:
    task = await post(klingel, *recipe("A chain"))
    [painted] = await succeeded(klingel, task["id"])
    [video] = await succeeded(klingel, painted["id"])
    assert video["input"]["prompt"] == "The paint comes alive"
    assert klingel.row(video["id"])["depth"] == 2


async def test_whatever_asks_for_it_becomes_a_video(klingel: Klingel) -> None:
    await post(klingel, *recipe("Whatever asks"))
    pictures = recipe("Pictures become")[1]["input"]
    wished = await klingel.submit(input=pictures, metadata={"film": "She bows"})
    unwished = await klingel.submit(input=pictures)
    [video] = await succeeded(klingel, wished["id"])
    assert video["input"]["prompt"] == "She bows"
    await klingel.call_back(
        callback(unwished, "succeed", task_result={"images": [{"url": picture()}, {"url": picture()}]}),
        number=1,
    )
    assert await klingel.deliveries(task_id=unwished["id"]) == []


async def test_a_second_try_with_another_model(klingel: Klingel) -> None:
    await post(klingel, *recipe("A second try"))
    kept = {"prompt": "She bows", "pictures": [picture("a"), picture("b")]}
    task = await klingel.submit("kling.multi-image-to-video", metadata=kept)
    await klingel.call_back(callback(task, "failed"))
    [second] = await followed(klingel, task["id"])
    assert second["input"]["mode"] == "pro"
    assert second["input"]["image_list"] == [{"image": picture("a")}, {"image": picture("b")}]


async def test_the_readme_s_follow_up_does_what_it_says(klingel: Klingel) -> None:
    [snippet] = re.findall(r'```json\n("follow_ups": .+?)```', (ROOT / "README.md").read_text(), re.DOTALL)
    pictures = recipe("Pictures become")[1]["input"]
    task = await klingel.submit(input=pictures, **json.loads(f"{{{snippet}}}"))
    [video] = await succeeded(klingel, task["id"])
    assert (video["type"], len(video["input"]["image_list"])) == ("kling.multi-image-to-video", 2)


@pytest.mark.parametrize("start", ["Pictures become", "One set", "A chain"])
async def test_the_pages_pictures_are_as_many_as_are_needed(klingel: Klingel, start: str) -> None:
    """With one picture fewer the same recipe is refused when it is written."""
    path, body = recipe(start)
    for follow_up in body["follow_ups"]:
        follow_up["submit"].pop("callback_url", None)
    response = await klingel.http.post(path, json=body | {"input": {**body["input"], "n": 1}})
    assert response.status_code == 422
    assert "#/follow_ups/0/submit/input/" in pointers(response)[0]
