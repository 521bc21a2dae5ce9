"""Every kind of task, end to end: our app on one side, the sandbox on the other, callbacks between them."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from handlers.providers.sandbox import Sandbox, SandboxSettings
from service.domain.task_types import TASK_TYPES, Layout, Standard, TaskType
from tests.integration.klingel import FakeKling, Klingel, base64_png, pointers, running_klingel

# What a type is, no database changes.
pytestmark = pytest.mark.sqlite_alone

TYPES = [row for row in TASK_TYPES.values() if row.makes is not None]
URL = "https://example.com/other.png"
SOUND = "https://example.com/other.mp3"
FILM = "https://example.com/other.mp4"


def examples(row: TaskType) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = row.input_model.model_json_schema()["examples"]
    return found


def named(rows: Iterable[TaskType]) -> list[Any]:
    return [pytest.param(row, id=row.name) for row in rows]


EXAMPLES = [
    pytest.param(row, example, id=f"{row.name}-{place}")
    for row in TYPES
    for place, example in enumerate(examples(row))
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def playing(folder: Path, **more: Any) -> AsyncIterator[Klingel]:
    """A Klingel whose provider is a sandbox that calls back to it."""
    kling = FakeKling()
    async with running_klingel(folder, kling=kling, **more) as klingel:
        settings = SandboxSettings(step=timedelta(0), callback_timeout=timedelta(minutes=1))
        sandbox = Sandbox(settings, transport=httpx.ASGITransport(klingel.app))
        async with sandbox.running():
            far = httpx.ASGITransport(sandbox.app)
            kling.otherwise = partial(forwarded, far)
            yield klingel


async def forwarded(far: httpx.ASGITransport, request: httpx.Request) -> httpx.Response:
    path = request.url.raw_path.decode().removeprefix("/sandbox")
    async with httpx.AsyncClient(transport=far, base_url="https://kling.example") as client:
        return await client.request(
            request.method, path, content=request.content, headers={"authorization": "Bearer a-key"}
        )


@pytest.fixture(scope="module")
async def klingel(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Klingel]:
    async with playing(tmp_path_factory.mktemp("sandbox"), provider="sandbox") as running:
        yield running


@pytest.fixture(scope="module")
async def official(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Klingel]:
    async with playing(tmp_path_factory.mktemp("official"), provider="kling") as running:
        yield running


async def finished(klingel: Klingel, **body: Any) -> dict[str, Any]:
    response = await klingel.http.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return await klingel.until_status(response.json()["id"], "succeeded")


def kinds(task: Mapping[str, Any]) -> list[str]:
    return [output["kind"] for output in task["outputs"]]


def expected(row: TaskType, example: Mapping[str, Any]) -> list[str]:
    """Kling tells films before sounds."""
    if row.makes == "image":
        number = example.get("n", 1)
        return ["image"] * (example["series_amount"] if example.get("result_type") == "series" else number)
    return sorted([str(row.makes), *row.also_makes], reverse=True)


# Accepted


@pytest.mark.parametrize(("row", "example"), EXAMPLES)
async def test_the_documented_example_comes_back_as_what_it_makes(
    klingel: Klingel, row: TaskType, example: dict[str, Any]
) -> None:
    task = await finished(klingel, type=row.name, input=example)
    assert kinds(task) == expected(row, example)
    assert [kind for kind in await klingel.event_types(task["id"]) if kind.startswith("task.")] == [
        "task.submitted",
        "task.processing",
        "task.succeeded",
    ]
    assert [output["index"] for output in task["outputs"]] == list(range(len(task["outputs"])))
    assert klingel.kling.requests[-1].method == "POST"


@pytest.mark.parametrize(
    ("row", "example"),
    [pytest.param(row, examples(row)[0], id=row.name) for row in TYPES if row.sold_at(Layout.OFFICIAL)],
)
async def test_klings_own_paths_take_it_too(
    official: Klingel, row: TaskType, example: dict[str, Any]
) -> None:
    task = await finished(official, type=row.name, input=example)
    assert kinds(task) == expected(row, example)
    request = official.kling.requests[-1]
    route = row.route(Layout.OFFICIAL)
    model = task["input"].get("model_name")
    assert request.url.path == route.path.format(model=model)
    sent = json.loads(request.content)
    ours = sent["options"] if route.standard is Standard.NEW else sent
    assert ours["external_task_id"] == task["external_task_id"]
    assert ours["callback_url"].startswith("https://klingel.example.com/callbacks/kling/")
    assert ("model_name" in sent) is (route.standard is Standard.LEGACY and model is not None)


@pytest.mark.parametrize("row", named(TYPES))
async def test_a_callback_in_the_other_standards_shape_gives_the_same_outputs(
    klingel: Klingel, row: TaskType
) -> None:
    """Kling, "Callback protocol": the console sends the new shape for everything; gateways wrap the older one."""
    anew = row.route(Layout.SANDBOX).standard is Standard.NEW
    word = "wrapped" if anew else "new"
    example = examples(row)[0]
    task = await finished(
        klingel, type=row.name, input=example, external_task_id=f"{row.name}.sandbox:{word}"
    )
    assert kinds(task) == sorted(expected(row, example)) or kinds(task) == expected(row, example)
    [*_, last] = await klingel.callbacks(task["id"])
    assert ("outputs" in last["body"]) is not anew


@pytest.mark.parametrize("row", named(TYPES))
async def test_a_refresh_reads_it_where_its_standard_has_it(klingel: Klingel, row: TaskType) -> None:
    """It has ended before its create is answered, and no callback comes."""
    body = {
        "type": row.name,
        "input": examples(row)[0],
        "external_task_id": f"{row.name}.sandbox:early.sandbox:never",
    }
    response = await klingel.http.post("/v1/tasks", json=body)
    assert response.json()["status"] == "submitted", response.text
    asked = await klingel.http.post(f"/v1/tasks/{response.json()['id']}/refresh")
    assert asked.status_code == 200, asked.text
    assert (asked.json()["refresh"], asked.json()["status"]) == ("advanced", "succeeded")
    assert kinds(asked.json()) == expected(row, examples(row)[0])


async def test_a_raw_task_of_either_standard_goes_where_the_sandbox_has_it(klingel: Klingel) -> None:
    anew = {
        "path": "/text-to-video/kling-3.0-turbo",
        "standard": "new",
        "body": {"prompt": "A cat bows", "settings": {"duration": 5}},
    }
    older = {"path": "/v1/images/generations", "body": {"model_name": "kling-v2", "prompt": "A cat bows"}}
    assert kinds(await finished(klingel, type="kling.raw", input=anew)) == ["video"]
    assert kinds(await finished(klingel, type="kling.raw", input=older)) == ["image"]


async def test_a_raw_task_of_the_new_standard_is_asked_about_there(klingel: Klingel) -> None:
    input = {"path": "/text-to-video/kling-3.0", "standard": "new", "body": {"prompt": "A cat bows"}}
    body = {"type": "kling.raw", "input": input, "external_task_id": "raw.sandbox:early.sandbox:never"}
    task = (await klingel.http.post("/v1/tasks", json=body)).json()
    asked = (await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")).json()
    assert (asked["refresh"], asked["status"], kinds(asked)) == ("advanced", "succeeded", ["video"])


async def test_sounds_keep_both_of_their_forms(klingel: Klingel) -> None:
    task = await finished(klingel, type="kling.text-to-audio", input={"prompt": "rain", "duration": 3.5})
    [output] = task["outputs"]
    assert (output["url"][-4:], output["wav_url"][-4:], output["duration_s"]) == (".mp3", ".wav", 3.5)


async def test_the_pictures_of_a_series_belong_together(klingel: Klingel) -> None:
    row = TASK_TYPES["kling.omni-image"]
    task = await finished(klingel, type=row.name, input=examples(row)[1])
    assert {output["group"] for output in task["outputs"]} == {"series"}


async def test_pictures_sent_as_base64_go_to_the_provider_as_such(klingel: Klingel) -> None:
    """Also where they lie deep in the input."""
    contents = [{"type": "prompt", "text": "a"}, {"type": "first_frame", "url": base64_png(7)}]
    await finished(klingel, type="kling.new.image-to-video", input={"contents": contents})
    assert json.loads(klingel.kling.requests[-1].content)["contents"] == contents


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("kling.image-generation", {"prompt": "x" * 2500, "negative_prompt": "x" * 2500, "n": 9}),
        ("kling.image-generation", {"aspect_ratio": "21:9", "resolution": "2k"}),
        ("kling.image-generation", {"element_list": [{"element_id": 1}] * 9 + [{"element_id": "8298"}]}),
        ("kling.multi-image-to-image", {"prompt": "x" * 2500, "aspect_ratio": "21:9", "n": 9}),
        ("kling.multi-image-to-image", {"subject_image_list": [{"subject_image": URL}] * 4}),
        ("kling.multi-image-to-video", {"prompt": "x" * 500, "negative_prompt": "x" * 200, "cfg_scale": 1}),
        ("kling.multi-image-to-video", {"image_list": [{"image": URL}] * 4, "duration": 10, "mode": "pro"}),
        ("kling.text-to-video", {"prompt": "x" * 2500, "duration": 15, "mode": "4k"}),
        ("kling.omni-video", {"image_list": [{"image_url": URL}] * 7, "element_list": []}),
        (
            "kling.outpainting",
            {
                "up_expansion_ratio": 2,
                "left_expansion_ratio": 0,
                "right_expansion_ratio": 0,
                "down_expansion_ratio": 0,
            },
        ),
        ("kling.text-to-audio", {"prompt": "x" * 200, "duration": 10}),
        ("kling.new.text-to-video", {"prompt": "x" * 3072, "settings": {"duration": 15}}),
    ],
)
async def test_the_sandbox_takes_all_that_the_limits_let_through(
    klingel: Klingel, name: str, changes: dict[str, Any]
) -> None:
    input = {**examples(TASK_TYPES[name])[0], **changes}
    response = await klingel.http.post("/v1/tasks", json={"type": name, "input": input})
    assert response.status_code == 201, response.text


@pytest.mark.parametrize("row", named([row for row in TYPES if row.models]))
async def test_a_model_newer_than_the_tables_goes_to_the_provider(klingel: Klingel, row: TaskType) -> None:
    """The provider decides: the sandbox, as Kling, does not know it."""
    input = {**examples(row)[0], "model_name": "kling-v99"}
    if row.name == "kling.multi-image-to-video":
        input["prompt"] = "sandbox:arrears"  # the gateway names no models there
    body = {"type": row.name, "input": input}
    response = await klingel.http.post("/v1/tasks", json=body)
    assert response.status_code in {402, 422}
    assert response.json()["provider_code"] in {"1201", "1203", "1101"}
    last = klingel.kling.requests[-1]
    assert "kling-v99" in last.url.path + last.content.decode()


# Refused


def changed(example: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """By path: `a/0/b`. `...` takes a field away."""
    made = deepcopy(dict(example))
    for path, value in change.items():
        *way, last = path.split("/")
        place: Any = made
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value is ...:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return made


def pictures(count: int, name: str = "image") -> list[dict[str, str]]:
    return [{name: URL}] * count


def elements(count: int) -> list[dict[str, int]]:
    return [{"element_id": 1}] * count


LONG = "x" * 2501
# Type, which of its examples, what is changed, and where the fault is.
LIMITS: list[tuple[str, int, dict[str, Any], str]] = [
    ("kling.image-generation", 0, {"prompt": ...}, "prompt"),
    ("kling.image-generation", 0, {"prompt": " "}, "prompt"),
    ("kling.image-generation", 0, {"prompt": LONG}, "prompt"),
    ("kling.image-generation", 0, {"negative_prompt": LONG}, "negative_prompt"),
    ("kling.image-generation", 1, {"negative_prompt": "no dogs"}, "negative_prompt"),
    ("kling.image-generation", 0, {"image_reference": "face"}, "image"),
    ("kling.image-generation", 1, {"image_reference": "hat"}, "image_reference"),
    ("kling.image-generation", 1, {"image_fidelity": 1.1}, "image_fidelity"),
    ("kling.image-generation", 1, {"human_fidelity": -0.1}, "human_fidelity"),
    ("kling.image-generation", 1, {"element_list": elements(10)}, "element_list"),
    ("kling.image-generation", 0, {"resolution": "8k"}, "resolution"),
    ("kling.image-generation", 0, {"n": 10}, "n"),
    ("kling.image-generation", 0, {"aspect_ratio": "5:4"}, "aspect_ratio"),
    ("kling.image-generation", 1, {"image": "not Base64!"}, "image"),
    ("kling.multi-image-to-image", 0, {"subject_image_list": []}, "subject_image_list"),
    ("kling.multi-image-to-image", 0, {"prompt": LONG}, "prompt"),
    ("kling.omni-image", 0, {"prompt": ...}, "prompt"),
    ("kling.omni-image", 0, {"image_list": pictures(6), "element_list": elements(5)}, "image_list"),
    ("kling.omni-image", 0, {"n": 0}, "n"),
    ("kling.omni-image", 0, {"resolution": "8k"}, "resolution"),
    ("kling.omni-image", 1, {"series_amount": 10}, "series_amount"),
    ("kling.omni-image", 1, {"result_type": "album"}, "result_type"),
    ("kling.outpainting", 0, {"image": ...}, "image"),
    ("kling.outpainting", 0, {"up_expansion_ratio": ...}, "up_expansion_ratio"),
    ("kling.outpainting", 0, {"left_expansion_ratio": 2.1}, "left_expansion_ratio"),
    ("kling.outpainting", 0, {"left_expansion_ratio": 2, "down_expansion_ratio": 1}, ""),
    ("kling.outpainting", 0, {"n": 10}, "n"),
    ("kling.outpainting", 0, {"prompt": LONG}, "prompt"),
    ("kling.virtual-try-on", 0, {"human_image": ...}, "human_image"),
    ("kling.virtual-try-on", 0, {"cloth_image": ...}, "cloth_image"),
    ("kling.text-to-video", 0, {"prompt": ...}, "prompt"),
    ("kling.text-to-video", 0, {"prompt": LONG}, "prompt"),
    ("kling.text-to-video", 0, {"negative_prompt": LONG}, "negative_prompt"),
    ("kling.text-to-video", 0, {"duration": "16"}, "duration"),
    ("kling.text-to-video", 0, {"duration": 2}, "duration"),
    ("kling.text-to-video", 0, {"aspect_ratio": "4:3"}, "aspect_ratio"),
    ("kling.text-to-video", 0, {"cfg_scale": 2}, "cfg_scale"),
    ("kling.text-to-video", 0, {"mode": "best"}, "mode"),
    ("kling.text-to-video", 0, {"voice_list": [{"voice_id": "1"}] * 3}, "voice_list"),
    ("kling.text-to-video", 0, {"sound": "off", "voice_list": [{"voice_id": "1"}]}, "sound"),
    ("kling.text-to-video", 1, {"multi_prompt": ...}, "multi_prompt"),
    ("kling.text-to-video", 1, {"duration": "9"}, "multi_prompt"),
    ("kling.text-to-video", 1, {"multi_prompt/0/prompt": "x" * 513}, "multi_prompt/0/prompt"),
    ("kling.text-to-video", 1, {"multi_prompt/0/index": 7}, "multi_prompt/0/index"),
    ("kling.text-to-video", 1, {"shot_type": ...}, "shot_type"),
    ("kling.text-to-video", 2, {"camera_control/config/zoom": 11}, "camera_control/config/zoom"),
    ("kling.text-to-video", 2, {"camera_control/config/pan": 1}, "camera_control/config"),
    ("kling.text-to-video", 2, {"camera_control/config": ...}, "camera_control/config"),
    ("kling.text-to-video", 2, {"camera_control/type": "down_back"}, "camera_control/config"),
    ("kling.image-to-video", 0, {"image": ...}, "image"),
    ("kling.image-to-video", 0, {"prompt": LONG}, "prompt"),
    ("kling.image-to-video", 0, {"element_list": elements(4)}, "element_list"),
    ("kling.image-to-video", 0, {"element_list": elements(1), "sound": "on", "voice_list": [{"voice_id": "1"}]}, "element_list"),
    ("kling.image-to-video", 1, {"image_tail": URL}, "static_mask"),
    ("kling.image-to-video", 2, {"camera_control": {"type": "down_back"}}, "camera_control"),
    ("kling.image-to-video", 1, {"dynamic_masks/0/trajectories": [{"x": 1, "y": 1}]}, "dynamic_masks/0/trajectories"),
    ("kling.image-to-video", 1, {"dynamic_masks/0/trajectories": [{"x": 1, "y": 1}] * 78}, "dynamic_masks/0/trajectories"),
    ("kling.multi-image-to-video", 0, {"image_list": pictures(5)}, "image_list"),
    ("kling.multi-image-to-video", 0, {"prompt": "x" * 501}, "prompt"),
    ("kling.omni-video", 0, {"prompt": ...}, "prompt"),
    ("kling.omni-video", 0, {"image_list": pictures(5, "image_url"), "element_list": elements(3)}, "image_list"),
    ("kling.omni-video", 1, {"image_list": pictures(5, "image_url")}, "image_list"),
    ("kling.omni-video", 1, {"video_list": [{"video_url": FILM}] * 2}, "video_list"),
    ("kling.omni-video", 1, {"video_list/0/video_url": "AAAA"}, "video_list/0/video_url"),
    ("kling.omni-video", 1, {"video_list/0/refer_type": "best"}, "video_list/0/refer_type"),
    ("kling.omni-video", 2, {"image_list/0/type": ...}, "image_list/1/type"),
    ("kling.omni-video", 2, {"image_list": [{"image_url": URL, "type": "first_frame"}, {"image_url": URL, "type": "end_frame"}, {"image_url": URL}]}, "image_list"),
    ("kling.omni-video", 0, {"duration": "16"}, "duration"),
    ("kling.motion-control", 0, {"image_url": ...}, "image_url"),
    ("kling.motion-control", 0, {"video_url": ...}, "video_url"),
    ("kling.motion-control", 0, {"character_orientation": ...}, "character_orientation"),
    ("kling.motion-control", 0, {"mode": ...}, "mode"),
    ("kling.motion-control", 0, {"prompt": LONG}, "prompt"),
    ("kling.motion-control", 0, {"element_list": elements(2)}, "element_list"),
    ("kling.video-extend", 0, {"video_id": ...}, "video_id"),
    ("kling.video-extend", 0, {"cfg_scale": 1.5}, "cfg_scale"),
    ("kling.effects", 0, {"effect_scene": ...}, "effect_scene"),
    ("kling.effects", 0, {"input": {}}, "input/image"),
    ("kling.effects", 1, {"input/images": [URL]}, "input/images"),
    ("kling.effects", 1, {"input/image": URL}, "input/images"),
    ("kling.multi-elements", 0, {"session_id": ...}, "session_id"),
    ("kling.multi-elements", 0, {"edit_mode": "blur"}, "edit_mode"),
    ("kling.multi-elements", 0, {"image_list": pictures(2)}, "image_list"),
    ("kling.multi-elements", 0, {"edit_mode": "addition", "image_list": []}, "image_list"),
    ("kling.multi-elements", 1, {"image_list": pictures(1)}, "image_list"),
    ("kling.multi-elements", 0, {"prompt": LONG}, "prompt"),
    ("kling.advanced-lip-sync", 0, {"face_choose": []}, "face_choose"),
    ("kling.advanced-lip-sync", 0, {"face_choose/0/audio_id": "1"}, "face_choose/0/sound_file"),
    ("kling.advanced-lip-sync", 0, {"face_choose/0/sound_file": ...}, "face_choose/0/audio_id"),
    ("kling.advanced-lip-sync", 0, {"face_choose/0/sound_end_time": 1999}, "face_choose/0/sound_end_time"),
    ("kling.advanced-lip-sync", 0, {"face_choose/0/sound_volume": 2.1}, "face_choose/0/sound_volume"),
    ("kling.lip-sync", 0, {"input/text": "x" * 121}, "input/text"),
    ("kling.lip-sync", 0, {"input/text": ...}, "input/text"),
    ("kling.lip-sync", 0, {"input/voice_id": ...}, "input/voice_id"),
    ("kling.lip-sync", 0, {"input/voice_speed": 2.1}, "input/voice_speed"),
    ("kling.lip-sync", 0, {"input/video_url": FILM}, "input/video_url"),
    ("kling.lip-sync", 1, {"input/audio_url": ...}, "input/audio_url"),
    ("kling.lip-sync", 1, {"input/audio_type": ...}, "input/audio_type"),
    ("kling.avatar", 0, {"sound_file": ...}, "audio_id"),
    ("kling.avatar", 0, {"audio_id": "1"}, "sound_file"),
    ("kling.avatar", 0, {"sound_file": base64_png()}, "sound_file"),
    ("kling.avatar", 0, {"prompt": LONG}, "prompt"),
    ("kling.text-to-audio", 0, {"prompt": "x" * 201}, "prompt"),
    ("kling.text-to-audio", 0, {"duration": 2.9}, "duration"),
    ("kling.text-to-audio", 0, {"duration": 10.1}, "duration"),
    ("kling.video-to-audio", 0, {"video_url": ...}, "video_id"),
    ("kling.video-to-audio", 0, {"video_id": "1"}, "video_url"),
    ("kling.video-to-audio", 0, {"sound_effect_prompt": "x" * 201}, "sound_effect_prompt"),
    ("kling.video-to-audio", 0, {"bgm_prompt": "x" * 201}, "bgm_prompt"),
    ("kling.new.text-to-video", 0, {"prompt": "x" * 3073}, "prompt"),
    ("kling.new.text-to-video", 0, {"model_name": "kling-2.6", "prompt": LONG}, "prompt"),
    ("kling.new.text-to-video", 0, {"settings/duration": 16}, "settings/duration"),
    ("kling.new.text-to-video", 0, {"model_name": "kling-2.6", "settings/duration": 6}, "settings/duration"),
    ("kling.new.text-to-video", 0, {"settings/resolution": "4k"}, "settings/resolution"),
    ("kling.new.text-to-video", 0, {"settings/audio": "native"}, "settings/audio"),
    ("kling.new.text-to-video", 0, {"settings/multi_shot": True}, "settings/multi_shot"),
    ("kling.new.text-to-video", 0, {"model_name": "kling-2.6", "settings": {"audio": "native"}}, "settings/resolution"),
    ("kling.new.text-to-video", 0, {"model_name": "../kling"}, "model_name"),
    ("kling.new.image-to-video", 0, {"contents": [{"type": "prompt", "text": "x"}]}, "contents"),
    ("kling.new.image-to-video", 1, {"model_name": "kling-3.0-turbo"}, "contents/2/type"),
    ("kling.new.image-to-video", 1, {"contents/2/type": "first_frame"}, "contents"),
    ("kling.new.image-to-video", 0, {"contents/0/text": LONG}, "contents/0/text"),
    ("kling.new.image-to-video", 0, {"contents/1/url": "nothing"}, "contents/1/url"),
    ("kling.new.omni-video", 0, {"settings/audio": "native"}, "settings/audio"),
    ("kling.new.omni-video", 0, {"contents/1": {"type": "first_frame", "url": URL}}, "contents"),
    ("kling.new.omni-video", 0, {"contents/1": {"type": "last_frame", "url": URL}}, "contents/1"),
    ("kling.new.omni-video", 0, {"contents/1": {"type": "base_video", "url": FILM}}, "contents"),
    ("kling.new.omni-video", 0, {"contents/1/id": "film"}, "contents/2/id"),
    ("kling.new.omni-video", 1, {"settings/duration": 11}, "settings/duration"),
    ("kling.new.motion-control", 0, {"settings/character_orientation": ...}, "settings/character_orientation"),
    ("kling.new.motion-control", 0, {"contents/2": {"type": "prompt", "text": "x"}}, "contents"),
    ("kling.new.motion-control", 0, {"model_name": "kling-2.6", "contents/0": {"type": "element", "element_id": "1", "id": "a"}}, "contents/0/type"),
]  # fmt: skip


def ids() -> Iterator[str]:
    for name, place, change, _ in LIMITS:
        yield f"{name}-{place}-{','.join(change)}"


@pytest.mark.parametrize(("name", "place", "change", "pointer"), LIMITS, ids=ids())
async def test_each_documented_limit_is_refused_at_its_place(
    klingel: Klingel, name: str, place: int, change: dict[str, Any], pointer: str
) -> None:
    sent = len(klingel.kling.requests)
    body = {"type": name, "input": changed(examples(TASK_TYPES[name])[place], change)}
    response = await klingel.http.post("/v1/tasks", json=body)
    assert response.status_code == 422, response.text
    assert ("#/input/" + pointer).rstrip("/") in pointers(response)
    assert len(klingel.kling.requests) == sent


def test_every_type_has_limits_that_are_tried() -> None:
    assert {name for name, *_ in LIMITS} == {row.name for row in TYPES}


@pytest.mark.parametrize("row", named(TASK_TYPES.values()))
async def test_what_is_no_field_of_it_is_refused_by_name(klingel: Klingel, row: TaskType) -> None:
    body = {"type": row.name, "input": {**examples(row)[0], "callback_url": "https://example.com/"}}
    response = await klingel.http.post("/v1/tasks", json=body)
    assert pointers(response) == ["#/input/callback_url"]


# Told


async def test_the_types_are_told_with_schemas_examples_and_sources(klingel: Klingel) -> None:
    response = await klingel.http.get("/v1/task-types")
    items = {item["name"]: item for item in response.json()["items"]}
    assert items.keys() == TASK_TYPES.keys()
    for name, item in items.items():
        validator = jsonschema.Draft202012Validator(item["input_schema"])
        assert [fault for example in item["examples"] for fault in validator.iter_errors(example)] == []
        assert all(note["source"] for note in [*item["notes"], *item["paths"]])
        assert item["examples"] == list(TASK_TYPES[name].examples)
    assert [(path["layout"], path["path"]) for path in items["kling.new.omni-video"]["paths"]] == [
        ("official", "/omni-video/{model}")
    ]
    assert items["kling.image-generation"]["deadline_s"] == 900
    assert items["kling.video-extend"]["retired"]["confidence"] == "seen in public code or notes"
    assert (await klingel.client(None).get("/v1/task-types")).status_code == 401
