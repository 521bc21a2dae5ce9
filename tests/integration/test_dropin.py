"""CometAPI's own paths: a client of CometAPI's changes its base URL and key, and everything else works."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from standardwebhooks import Webhook

from handlers.providers.kling.reports import read_report
from service.api.dropin import DOORS, LARGEST_EXTRAS, Door, Sold
from service.domain.kling_shapes import STATUS
from service.domain.lifecycle import Signal
from tests.integration.klingel import (
    IMAGE_INPUT,
    VIDEO_INPUT,
    Answer,
    Klingel,
    OpenCreate,
    accepted,
    base64_png,
    callback,
    picture,
    png,
    refused,
    running_klingel,
    succeed,
)

OLDER_IMAGES = "/kling/v1/images/generations"
IMAGES = "/kling/v1/images/multi-image2image"
VIDEOS = "/kling/v1/videos/multi-image2video"
BODIES: Mapping[str, Mapping[str, Any]] = {
    OLDER_IMAGES: IMAGE_INPUT,
    IMAGES: IMAGE_INPUT,
    VIDEOS: VIDEO_INPUT,
}
NOW_MS = 1795348800000  # where the clock of these tests stands still

every_path = pytest.mark.parametrize("path", BODIES)


async def create(klingel: Klingel, path: str = IMAGES, **body: Any) -> dict[str, Any]:
    """`data` of the answer to a create that is taken."""
    response = await klingel.http.post(path, json={**BODIES[path], **body})
    return taken(response)


async def query(klingel: Klingel, name: str, path: str = IMAGES) -> dict[str, Any]:
    return taken(await klingel.http.get(f"{path}/{name}"))


def taken(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"code", "message", "request_id", "data"}
    assert (answer["code"], answer["message"]) == (0, "SUCCEED")
    assert answer["request_id"] == response.headers["x-request-id"]
    return answer["data"]


def turned_down(response: httpx.Response) -> tuple[int, int, str]:
    """HTTP status, Kling's code, and the message."""
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.keys() == {"code", "message", "request_id"}
    assert answer["request_id"] == response.headers["x-request-id"]
    return response.status_code, answer["code"], answer["message"]


# The whole way


@every_path
async def test_a_task_is_created_queried_and_done_as_at_cometapi(klingel: Klingel, path: str) -> None:
    """Kling, "Multi-Image to Image" and "Multi-Image to Video": the answers to creates and queries."""
    made = await create(klingel, path, external_task_id="job-1")
    name = made["task_id"]
    assert made == {
        "task_id": name,
        "task_status": "submitted",
        "task_info": {"external_task_id": "job-1"},
        "created_at": NOW_MS,
        "updated_at": NOW_MS,
    }
    task = await klingel.task(name)
    assert await query(klingel, name, path) == {**made, "task_status_msg": "", "task_result": {}}

    klingel.clock.advance(seconds=2)
    await klingel.call_back(callback(task, "processing"))
    assert (await query(klingel, name, path))["task_status"] == "processing"

    result = {
        "videos": [{"id": "v-1", "url": picture("film"), "duration": "5.041"}],
        "images": [{"index": 0, "url": picture("out"), "watermark_url": picture("marked")}],
    }
    kind = "videos" if path == VIDEOS else "images"
    await klingel.call_back(callback(task, "succeed", task_result={kind: result[kind]}))
    assert await query(klingel, name, path) == {
        "task_id": name,
        "task_status": "succeed",
        "task_status_msg": "",
        "task_info": {"external_task_id": "job-1"},
        "task_result": {kind: result[kind]},
        "created_at": NOW_MS,
        "updated_at": NOW_MS + 2000,
    }


async def test_a_failure_is_told_with_its_reason(klingel: Klingel) -> None:
    made = await create(klingel)
    task = await klingel.task(made["task_id"])
    await klingel.call_back(callback(task, "failed", task_status_msg="blocked by content review"))
    shown = await query(klingel, made["task_id"])
    assert (shown["task_status"], shown["task_status_msg"]) == ("failed", "blocked by content review")
    assert (shown["task_result"], shown["task_info"]) == ({}, {})


async def test_a_client_that_polls_a_whole_task_long_costs_the_provider_nothing(klingel: Klingel) -> None:
    """Promise 1: clients may poll; the provider never sees it."""
    made = await create(klingel, external_task_id="job-1")
    task = await klingel.task(made["task_id"])
    names = (made["task_id"], "job-1", task["provider_task_id"])

    async def poll() -> set[str]:
        polls = [query(klingel, name) for name in names * 20]
        return {shown["task_status"] for shown in await asyncio.gather(*polls)}

    assert await poll() == {"submitted"}
    await klingel.call_back(callback(task, "processing"))
    assert await poll() == {"processing"}
    await klingel.call_back(succeed(task))
    assert await poll() == {"succeed"}
    taken(await klingel.http.get(IMAGES))
    assert len(klingel.kling.requests) == 1
    assert klingel.kling.status_queries == 0


@pytest.mark.parametrize("name", ["a/b", "a/b/c", "/a", "a/", "//", "a/../b", "100%2F"])
async def test_a_task_whose_own_id_has_slashes_is_found_by_it(klingel: Klingel, name: str) -> None:
    made = await create(klingel, external_task_id=name)
    assert (await query(klingel, quote(name, safe="")))["task_id"] == made["task_id"]
    listed = await klingel.http.get("/v1/tasks", params={"external_task_id": name})
    assert [task["id"] for task in listed.json()["items"]] == [made["task_id"]]
    assert (await klingel.http.get(f"{IMAGES}/{quote(name, safe='')}x")).status_code == 404
    assert len(taken(await klingel.http.get(IMAGES))) == 1


async def test_what_is_submitted_at_either_door_is_seen_at_both(klingel: Klingel) -> None:
    at_ours = await klingel.submit("kling.multi-image-to-video", external_task_id="job-1")
    shown = await query(klingel, "job-1", VIDEOS)
    assert shown["task_id"] == at_ours["id"]
    made = await create(klingel, VIDEOS, camera="slow")
    task = await klingel.task(made["task_id"])
    assert (task["type"], task["status"]) == ("kling.multi-image-to-video", "submitted")
    assert task["input"] == {**VIDEO_INPUT, "camera": "slow"}


# What goes upstream


@every_path
async def test_the_create_goes_to_the_path_at_which_the_client_asked(klingel: Klingel, path: str) -> None:
    """CometAPI has two pages for one kind of task; whichever a client was written for goes on working."""
    made = await create(klingel, path)
    [request] = klingel.kling.requests
    assert (request.method, str(request.url)) == ("POST", f"https://api.cometapi.com{path}")
    klingel.kling.answers(_status(await klingel.task(made["task_id"])))
    assert (await klingel.http.post(f"/v1/tasks/{made['task_id']}/refresh")).status_code == 200
    assert httpx.URL(str(klingel.kling.requests[-1].url)).path.startswith(f"{path}/")


def _status(task: Mapping[str, Any]) -> httpx.Response:
    data = callback(task, "processing")
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


@pytest.mark.parametrize("given", ["scene_image", "scence_image"])
@pytest.mark.parametrize(("path", "sent"), [(OLDER_IMAGES, "scence_image"), (IMAGES, "scene_image")])
async def test_the_scene_is_spelled_as_its_path_wants_it(
    klingel: Klingel, given: str, path: str, sent: str
) -> None:
    await create(klingel, path, **{given: picture("scene")})
    [body] = klingel.kling.creates
    assert body[sent] == picture("scene")
    assert ("scene_image" in body) + ("scence_image" in body) == 1


@every_path
async def test_only_what_the_client_sent_goes_upstream(klingel: Klingel, path: str) -> None:
    """What it left out or left blank is for the provider's own defaults; our callback URL and id are put in."""
    blank = {"model_name": "", "callback_url": "", "external_task_id": None, "style_image": ""}
    if path == VIDEOS:
        blank = {"negative_prompt": "", "static_mask": None, "mode": "", "callback_url": None}
    made = await create(klingel, path, **blank)
    [body] = klingel.kling.creates
    callback_url = body.pop("callback_url")
    assert callback_url.startswith(f"https://klingel.example.com/callbacks/cometapi/{made['task_id']}/")
    assert body == {**BODIES[path], "external_task_id": made["task_id"]}


async def test_what_klingel_does_not_know_goes_through_as_it_came(klingel: Klingel) -> None:
    """A field or a model that is newer than Klingel is the provider's to judge; `/v1` refuses unknown fields."""
    news = {
        "model_name": "kling-v9",
        "watermark_info": {"enabled": True},
        "negative_prompt": "",
        "x": [1.5, None],
    }
    made = await create(klingel, **news)
    [body] = klingel.kling.creates
    assert body | news == body
    assert (await klingel.task(made["task_id"]))["input"] == {**IMAGE_INPUT, **news}
    body = _at_ours(input={**IMAGE_INPUT, "watermark_info": {}})
    assert (await klingel.http.post("/v1/tasks", json=body)).status_code == 422


async def test_no_unknown_field_can_take_the_place_of_ours(tmp_path: Path) -> None:
    """Also where the official API, which is asked in the end, spells one differently."""
    async with running_klingel(tmp_path, provider="kling", KLINGEL_PROVIDER_KEY="key") as klingel:
        await create(klingel, OLDER_IMAGES, scence_image=picture("scene"), model="kling-v1")
        [request] = klingel.kling.requests
        assert request.url.path == "/v1/images/multi-image2image"
        [body] = klingel.kling.creates
        assert (body["scene_image"], body["model"]) == (picture("scene"), "kling-v1")
        assert "scence_image" not in body


async def test_one_picture_is_enough_where_cometapi_says_so(klingel: Klingel) -> None:
    """The newer page takes 1 to 4, the older one 2 to 4."""
    one = {"subject_image_list": [{"subject_image": picture()}]}
    await create(klingel, IMAGES, **one)
    assert klingel.kling.creates[0]["subject_image_list"] == one["subject_image_list"]
    status, code, message = turned_down(await klingel.http.post(OLDER_IMAGES, json={**IMAGE_INPUT, **one}))
    assert (status, code) == (400, 1201)
    assert message == "subject_image_list: This list must have 2 to 4 entries; it has 1."


async def test_base64_pictures_are_kept_as_files_and_go_upstream_as_base64(klingel: Klingel) -> None:
    text = base64_png(10)
    made = await create(klingel, subject_image_list=[{"subject_image": text}] * 2)
    assert klingel.kling.creates[0]["subject_image_list"] == [{"subject_image": text}] * 2
    digest = hashlib.sha256(png(10)).hexdigest()
    assert digest in klingel.row(made["task_id"])["input"]
    assert text[:100] not in klingel.row(made["task_id"])["input"]


async def test_a_reference_to_a_file_in_an_unknown_field_stays_text(klingel: Klingel) -> None:
    """Else it would name somebody else's picture."""
    text = base64_png(10)
    await create(klingel, subject_image_list=[{"subject_image": text}] * 2)
    reference = "file:sha256:" + hashlib.sha256(png(10)).hexdigest()
    await create(klingel, another_image=reference)
    assert klingel.kling.creates[1]["another_image"] == reference


# While the provider has not said


async def test_a_create_is_answered_as_submitted_while_the_provider_still_thinks(tmp_path: Path) -> None:
    """A client of Kling's knows no other word for it, and may query at once."""
    async with running_klingel(tmp_path, submit_wait=0) as klingel:
        thinking = OpenCreate(accepted("880000000000000001"))
        klingel.kling.answers(thinking)
        made = await create(klingel)
        assert made["task_status"] == "submitted"
        assert (await query(klingel, made["task_id"]))["task_status"] == "submitted"
        await klingel.kling.until(1)
        thinking.end()
        await klingel.until_status(made["task_id"], "submitted")
        assert (await query(klingel, "880000000000000001"))["task_id"] == made["task_id"]


@pytest.mark.parametrize(
    ("answer", "status"), [(refused(429, 1303), "queued"), (refused(500, 5000), "unconfirmed")]
)
async def test_queued_and_unconfirmed_are_submitted_to_the_client(
    tmp_path: Path, answer: Answer, status: str
) -> None:
    """Kling would have answered 1303 or 5000; Klingel brings the task in, once."""
    async with running_klingel(tmp_path, submit_wait=0) as klingel:
        klingel.kling.answers(answer)
        made = await create(klingel)
        await klingel.until_row(made["task_id"], status=status, sends=1, sending_since=None)
        assert (await query(klingel, made["task_id"]))["task_status"] == "submitted"


async def test_a_refusal_that_comes_after_the_answer_is_a_failure(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, submit_wait=0) as klingel:
        thinking = OpenCreate(refused(400, 1301, "the picture is not allowed"))
        klingel.kling.answers(thinking)
        made = await create(klingel)
        await klingel.kling.until(1)
        thinking.end()
        await klingel.until_status(made["task_id"], "rejected")
        shown = await query(klingel, made["task_id"])
        assert (shown["task_status"], shown["task_status_msg"]) == ("failed", "the picture is not allowed")


# Every path of CometAPI's


def first_example(sold: Sold) -> dict[str, Any]:
    found: dict[str, Any] = sold.input_model.model_json_schema()["examples"][0]
    return found


@pytest.mark.parametrize("door", [pytest.param(door, id=door.path) for door in DOORS])
async def test_every_path_takes_its_documented_example_and_sends_it_on_as_it_came(
    klingel: Klingel, door: Door
) -> None:
    """Also fields that came after these tables; what is blank means nothing."""
    body = {**first_example(door.sold[-1]), "newer_field": {"a": [1]}, "external_task_id": ""}
    made = taken(await klingel.http.post(door.path, json=body))
    [sent] = await klingel.kling.until(1)
    assert klingel.kling.requests[0].url.path == door.path
    ours = {"callback_url", "external_task_id"}
    assert {name: sent[name] for name in sent.keys() - ours} == {
        name: body[name] for name in body.keys() - ours
    }
    assert (await klingel.task(made["task_id"]))["type"] == door.sold[-1].task_type.name
    assert [one["task_id"] for one in taken(await klingel.http.get(door.path))] == [made["task_id"]]


@pytest.mark.parametrize("blank", [..., None, ""])
async def test_the_fields_tell_the_two_kinds_that_share_a_path(klingel: Klingel, blank: object) -> None:
    """CometAPI's older multi-image layout and its image generation."""
    one = {"prompt": "a cat", **({} if blank is ... else {"subject_image_list": blank})}
    generated = await klingel.http.post(OLDER_IMAGES, json=one)
    composed = await create(klingel, OLDER_IMAGES)
    names = [taken(generated)["task_id"], composed["task_id"]]
    types = [(await klingel.task(name))["type"] for name in names]
    assert types == ["kling.image-generation", "kling.multi-image-to-image"]
    assert [one["task_id"] for one in taken(await klingel.http.get(OLDER_IMAGES))] == names[::-1]
    for name in names:
        assert (await query(klingel, name, OLDER_IMAGES))["task_id"] == name
    page = {"pageNum": "2", "pageSize": "1"}
    assert [one["task_id"] for one in taken(await klingel.http.get(OLDER_IMAGES, params=page))] == names[:1]


async def test_words_to_choose_from_are_the_providers_to_judge_for_a_model_that_is_not_known(
    klingel: Klingel,
) -> None:
    path = "/kling/v1/videos/text2video"
    newer = {"prompt": "a cat", "model_name": "kling-v9", "mode": "8k", "duration": "60"}
    taken(await klingel.http.post(path, json=newer))
    [sent] = await klingel.kling.until(1)
    assert {name: sent[name] for name in newer} == newer
    known = await klingel.http.post(path, json={**newer, "model_name": "kling-v3"})
    status, code, message = turned_down(known)
    assert (status, code) == (400, 1201)
    assert "mode: " in message
    assert "duration: " in message


@pytest.mark.parametrize(
    "newer",
    [
        {
            "duration": 20,
            "multi_shot": True,
            "shot_type": "customize",
            "multi_prompt": [{"index": 1, "prompt": "a cat", "duration": "10"}] * 2,
        },
        {"multi_shot": True, "shot_type": "auto"},
        {"sound": "stereo", "voice_list": [{"voice_id": "v-1"}]},
    ],
)
async def test_with_a_word_of_a_newer_model_what_goes_with_it_is_the_providers_to_judge(
    klingel: Klingel, newer: Mapping[str, Any]
) -> None:
    body = {"prompt": "a cat", "model_name": "kling-v9", **newer}
    taken(await klingel.http.post("/kling/v1/videos/text2video", json=body))
    [sent] = await klingel.kling.until(1)
    assert {name: sent[name] for name in body} == body


@pytest.mark.parametrize(
    ("path", "body", "blanks"),
    [
        (
            "/kling/v1/videos/lip-sync",
            {
                "input": {
                    "mode": "text2video",
                    "video_id": "v-1",
                    "text": "Hello",
                    "voice_id": "ada",
                    "mood": {"calm": "", "loud": [None]},
                }
            },
            {"video_url": "", "audio_type": "", "audio_file": None, "audio_url": ""},
        ),
        (
            "/kling/v1/videos/effects",
            {"effect_scene": "hug", "input": {"image": "https://example.com/a.png", "strength": {"by": 0.5}}},
            {"images": None, "mode": "", "duration": ""},
        ),
    ],
)
async def test_inside_of_an_object_too_blanks_mean_nothing_and_unknown_fields_go_through(
    klingel: Klingel, path: str, body: Mapping[str, Any], blanks: Mapping[str, Any]
) -> None:
    taken(await klingel.http.post(path, json={**body, "input": {**body["input"], **blanks}}))
    [sent] = await klingel.kling.until(1)
    assert sent["input"] == body["input"]


async def test_sounds_come_in_both_forms_and_a_series_as_such(klingel: Klingel) -> None:
    """Kling, "Text to Audio" and "Omni Image Generation", answers to a query."""
    audio = {
        "id": "a",
        "url_mp3": picture("1"),
        "url_wav": picture("2"),
        "duration_mp3": "3.5",
        "duration_wav": "3.5",
    }
    series = [{"index": 0, "url": picture("3")}, {"index": 1, "url": picture("4")}]
    for path, body, result in (
        ("/kling/v1/audio/text-to-audio", {"prompt": "rain", "duration": 3.5}, {"audios": [audio]}),
        (
            "/kling/v1/images/omni-image",
            {"prompt": "four seasons", "result_type": "series"},
            {"result_type": "series", "series_images": series},
        ),
    ):
        made = taken(await klingel.http.post(path, json=body))
        await klingel.call_back(callback(await klingel.task(made["task_id"]), "succeed", task_result=result))
        assert (await query(klingel, made["task_id"], path))["task_result"] == result


# Refusals


KEPT_FOR_LATER = {1302, 1303, 5000, 5001, 5002}  # 1003 and 1004 are tried once more, and then refused


@pytest.mark.parametrize("code", sorted(STATUS.keys() - KEPT_FOR_LATER - {1003}))
async def test_the_providers_refusal_comes_in_its_own_code_and_words(klingel: Klingel, code: int) -> None:
    klingel.kling.otherwise = refused(STATUS[code], code, f"in the provider's words {code}")
    response = await klingel.http.post(IMAGES, json=IMAGE_INPUT)
    assert turned_down(response) == (STATUS[code], code, f"in the provider's words {code}")


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (httpx.Response(400, json={"error": {"message": "bad", "code": "invalid_request"}}), 400, 1201),
        (httpx.Response(402, json={"error": {"message": "pay", "code": ""}}), 429, 1101),
        (httpx.Response(401, json={"error": {"message": "who", "code": ""}}), 403, 1103),
    ],
)
async def test_a_gateways_refusal_without_a_code_of_klings_gets_one(
    klingel: Klingel, answer: httpx.Response, status: int, code: int
) -> None:
    klingel.kling.answers(answer)
    message = answer.json()["error"]["message"]
    assert turned_down(await klingel.http.post(IMAGES, json=IMAGE_INPUT)) == (status, code, message)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (VIDEOS, {"prompt": None}, 'prompt: "prompt" is required.'),
        (VIDEOS, {"prompt": "x" * 501}, 'prompt: "prompt" must have at most 500 characters.'),
        (VIDEOS, {"image_list": [{"image": "no picture!"}, {"image": picture()}]}, "image_list/0/image: A picture"),
        (VIDEOS, {"image_list": [{"image": picture(), "b": "file:sha256:" + "0" * 64}] * 2}, "No text that is sent on"),
        (VIDEOS, {"image_list": [{"image": picture(), "b": "x" * LARGEST_EXTRAS}] * 2}, "What is not known here has at most"),
        (VIDEOS, {"duration": "7"}, "duration: "),
        (IMAGES, {"subject_image_list": []}, "subject_image_list: This list must have 1 to 4 entries"),
        (IMAGES, {"n": 10}, 'n: "n" must be at most 9.'),
        (IMAGES, {"external_task_id": "a b"}, "external_task_id: "),
        (IMAGES, {"external_task_id": 7}, 'external_task_id: "external_task_id" must be text.'),
        (IMAGES, {"callback_url": 7}, 'callback_url: "callback_url" must be text.'),
        (IMAGES, {"callback_url": "ftp://example.com/"}, "callback_url: The URL cannot be used"),
        (IMAGES, {"callback_url": "http://10.0.0.1/"}, "callback_url: The URL cannot be used"),
        (IMAGES, {"scene_image": picture(), "scence_image": picture()}, "scence_image: "),
        (IMAGES, {"other": "x" * LARGEST_EXTRAS}, "What is not known here has at most 65536 bytes"),
        (
            IMAGES,
            {"model_name": "kling-v9", "aspect_ratio": "x" * LARGEST_EXTRAS},
            "What is not known here has at most 65536 bytes",
        ),
    ],
)  # fmt: skip
async def test_a_bad_parameter_is_1201_and_names_it(
    klingel: Klingel, path: str, body: Mapping[str, Any], message: str
) -> None:
    status, code, told = turned_down(await klingel.http.post(path, json={**BODIES[path], **body}))
    assert (status, code) == (400, 1201)
    assert told.startswith(message), told
    assert klingel.kling.requests == []
    assert klingel.rows("select * from tasks") == []


async def test_all_bad_parameters_are_named_at_once(klingel: Klingel) -> None:
    body = {**IMAGE_INPUT, "n": 0, "aspect_ratio": "2:1", "callback_url": "nowhere", "prompt": 7}
    _, _, message = turned_down(await klingel.http.post(IMAGES, json=body))
    places = ["n:", "aspect_ratio:", "prompt:", "callback_url:"]
    assert [place for place in places if f"{place} " not in message] == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'"text"', b'{"x": 1e999}'])
async def test_what_is_no_json_object_is_refused(klingel: Klingel, content: bytes) -> None:
    status, code, _ = turned_down(await klingel.http.post(IMAGES, content=content))
    assert (status, code) in {(400, 1200), (400, 1201)}
    assert klingel.kling.requests == []


async def test_a_body_that_is_too_large_is_refused_in_the_envelope(klingel: Klingel) -> None:
    headers = {"content-length": str(100 * 1024 * 1024)}
    status, code, _ = turned_down(await klingel.http.post(IMAGES, content=b"{}", headers=headers))
    assert (status, code) == (413, 1200)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", IMAGES), ("GET", IMAGES), ("GET", f"{VIDEOS}/x"), ("POST", OLDER_IMAGES)]
)
@pytest.mark.parametrize(
    ("authorization", "code"), [(None, 1001), ("", 1001), ("Bearer wrong", 1002), ("Basic eA==", 1002)]
)
async def test_without_a_key_of_klingels_nothing_is_answered(
    klingel: Klingel, method: str, path: str, authorization: str | None, code: int
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    response = await klingel.client(None).request(method, path, json={}, headers=headers)
    assert turned_down(response)[:2] == (401, code)
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/kling/v1/videos/text2film", 404),
        ("GET", "/kling/", 404),
        ("GET", "/kling/v1/images/text2picture/a/b", 404),
        ("DELETE", f"{IMAGES}/task_0", 405),
        ("PUT", IMAGES, 405),
    ],
)
async def test_paths_and_methods_that_are_not_there_are_1202(
    klingel: Klingel, method: str, path: str, status: int
) -> None:
    response = await klingel.http.request(method, path)
    assert turned_down(response)[:2] == (status, 1202)
    assert (status == 405) == ("allow" in response.headers)


async def test_a_task_that_is_not_there_is_1203(klingel: Klingel) -> None:
    assert turned_down(await klingel.http.get(f"{IMAGES}/none")) == (
        404,
        1203,
        "Task not found by id or external id: none",
    )


@pytest.mark.sqlite_alone
async def test_a_disk_that_cannot_be_written_is_5001(klingel: Klingel) -> None:
    await klingel.tamper("pragma query_only = on")
    response = await klingel.http.post(IMAGES, json=IMAGE_INPUT)
    assert turned_down(response)[:2] == (503, 5001)
    assert response.headers["retry-after"]


async def test_a_mistake_of_ours_is_5000_and_tells_nothing(klingel: Klingel) -> None:
    made = await create(klingel)
    await klingel.tamper(f"update tasks set outputs = '[7]' where id = '{made['task_id']}'")
    status, code, message = turned_down(await klingel.http.get(f"{IMAGES}/{made['task_id']}"))
    assert (status, code) == (500, 5000)
    assert "Traceback" not in message
    assert "outputs" not in message


async def test_other_paths_keep_their_problems(klingel: Klingel) -> None:
    response = await klingel.http.get("/klings/v1")
    assert response.headers["content-type"] == "application/problem+json"


# Once


async def test_an_external_task_id_is_taken_once_in_an_account(klingel: Klingel) -> None:
    await create(klingel, external_task_id="job-1")
    response = await klingel.http.post(VIDEOS, json={**VIDEO_INPUT, "external_task_id": "job-1"})
    status, code, message = turned_down(response)
    assert (status, code) == (400, 1201)
    assert "already" in message
    assert len(klingel.kling.creates) == 1


async def test_a_refused_create_leaves_its_external_task_id_free(klingel: Klingel) -> None:
    """As at Kling, which has no task then: a client mends its body and sends it again. `/v1` keeps it taken."""
    klingel.kling.answers(refused(400, 1301, "not allowed"), accepted("880000000000000009"))
    body = {**IMAGE_INPUT, "external_task_id": "job-1"}
    assert turned_down(await klingel.http.post(IMAGES, json=body))[1] == 1301
    response = await klingel.http.post("/v1/tasks", json=_at_ours(external_task_id="job-1"))
    assert response.status_code == 409
    answers = await asyncio.gather(*(klingel.http.post(IMAGES, json=body) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
    shown = await query(klingel, "job-1")
    assert shown["task_status"] == "submitted"
    [refused_one] = (await klingel.http.get("/v1/tasks", params={"status": "rejected"})).json()["items"]
    assert refused_one["external_task_id"] == refused_one["id"] != shown["task_id"]
    assert len(klingel.kling.creates) == 2


def _at_ours(**more: Any) -> dict[str, Any]:
    return {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT), **more}


async def test_an_idempotency_key_makes_a_repeated_create_count_once(klingel: Klingel) -> None:
    headers = {"idempotency-key": "once"}
    answers = [await klingel.http.post(IMAGES, json=IMAGE_INPUT, headers=headers) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["content-type"] == "application/json"
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len(klingel.kling.creates) == 1
    for path, body in ((IMAGES, {**IMAGE_INPUT, "n": 2}), (OLDER_IMAGES, IMAGE_INPUT)):
        response = await klingel.http.post(path, json=body, headers=headers)
        assert turned_down(response)[:2] == (400, 1201), path
    assert turned_down(await klingel.http.post(IMAGES, json={}, headers={"idempotency-key": ""}))[1] == 1201


async def test_a_refusal_is_said_again_under_its_idempotency_key(klingel: Klingel) -> None:
    klingel.kling.answers(refused(400, 1301, "not allowed"))
    headers = {"idempotency-key": "once"}
    answers = [await klingel.http.post(IMAGES, json=IMAGE_INPUT, headers=headers) for _ in range(2)]
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(400, 1301)] * 2
    assert len(klingel.kling.creates) == 1


# Queries


async def test_a_name_that_fits_several_tasks_is_that_of_the_one_whose_own_it_is(klingel: Klingel) -> None:
    """The caller's own id before the provider's; nobody can take an id of Klingel's for their own."""
    klingel.kling.answers(accepted("880000000000000001"), accepted("880000000000000002"))
    first = await create(klingel)
    second = await create(klingel, external_task_id="880000000000000001")
    response = await klingel.http.post(IMAGES, json={**IMAGE_INPUT, "external_task_id": first["task_id"]})
    assert turned_down(response)[:2] == (400, 1201)
    assert (await query(klingel, first["task_id"]))["task_id"] == first["task_id"]
    assert (await query(klingel, "880000000000000001"))["task_id"] == second["task_id"]
    assert (await query(klingel, "880000000000000002"))["task_id"] == second["task_id"]


async def test_a_task_is_found_under_the_paths_of_its_kind_alone(klingel: Klingel) -> None:
    made = await create(klingel, IMAGES)
    assert (await query(klingel, made["task_id"], OLDER_IMAGES))["task_id"] == made["task_id"]
    assert turned_down(await klingel.http.get(f"{VIDEOS}/{made['task_id']}"))[:2] == (404, 1203)


async def test_lists_come_newest_first_in_numbered_pages(klingel: Klingel) -> None:
    """Kling: `pageNum` from 1 to 1000, `pageSize` from 1 to 500."""
    made = [(await create(klingel))["task_id"] for _ in range(5)]
    await create(klingel, VIDEOS)

    async def listed(**query: Any) -> list[str]:
        data = taken(await klingel.http.get(IMAGES, params=query))
        return [one["task_id"] for one in data]

    assert await listed() == made[::-1]
    assert await listed(pageNum=1, pageSize=2) == [made[4], made[3]]
    assert await listed(pageNum=3, pageSize=2) == [made[0]]
    assert await listed(pageNum=1000, pageSize=500) == []
    assert await listed(unknown="1") == made[::-1]
    [shown] = taken(await klingel.http.get(VIDEOS))
    assert shown == await query(klingel, shown["task_id"], VIDEOS)


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "99999", "１"])
@pytest.mark.parametrize("name", ["pageNum", "pageSize"])
async def test_a_page_that_cannot_be_is_1201(klingel: Klingel, name: str, value: str) -> None:
    status, code, message = turned_down(await klingel.http.get(IMAGES, params={name: value}))
    assert (status, code) == (400, 1201)
    assert message.startswith(f"{name}: It must be a whole number from 1 to ")


@pytest.mark.parametrize("name", ["pageNum", "pageSize"])
async def test_a_page_that_is_given_twice_is_1201(klingel: Klingel, name: str) -> None:
    """One of the two would be looked at, and nobody told which."""
    status, code, message = turned_down(await klingel.http.get(IMAGES, params={name: ["2", "3"], "a": "b"}))
    assert (status, code, message) == (400, 1201, f"{name}: It is given more than once.")


async def test_what_is_anothers_is_not_there(klingel: Klingel) -> None:
    """Promise 6, under each of a task's names; and an external id may be used in every account."""
    made = await create(klingel, external_task_id="job-1")
    task = await klingel.task(made["task_id"])
    async with klingel.another_account() as stranger:
        for name in (made["task_id"], "job-1", task["provider_task_id"]):
            assert turned_down(await stranger.get(f"{IMAGES}/{name}"))[:2] == (404, 1203)
        assert taken(await stranger.get(IMAGES)) == []
        theirs = taken(await stranger.post(IMAGES, json={**IMAGE_INPUT, "external_task_id": "job-1"}))
        assert taken(await stranger.get(f"{IMAGES}/job-1"))["task_id"] == theirs["task_id"]
    assert (await query(klingel, "job-1"))["task_id"] == made["task_id"]


@pytest.mark.parametrize("statement", ["find_task", "list_tasks_of_type", "list_tasks_of_two_types"])
@pytest.mark.sqlite_alone
async def test_no_query_looks_through_all_tasks(klingel: Klingel, statement: str) -> None:
    """Clients may poll: each poll finds its rows by an index."""
    sql = klingel.state["database"]._statements[statement]
    for name in ("name", "account_id", "type", "other_type", "reach", "limit", "skip"):
        sql = sql.replace(f":{name}", "'1'")
    plan = [row[-1] for row in await klingel.tamper(f"explain query plan {sql}")]
    searches = [line for line in plan if " tasks" in line]
    assert searches
    assert [line for line in searches if not line.startswith("SEARCH tasks USING")] == []


# Callbacks to the client


async def test_the_clients_callback_url_gets_klings_callbacks_signed(klingel: Klingel) -> None:
    """Kling, "Callback protocol", the flat body; Klingel's own are read by what reads Kling's."""
    made = await create(klingel, callback_url=klingel.receiver.url, external_task_id="job-1")
    task = await klingel.task(made["task_id"])
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    received = await klingel.receiver.until(3)
    reports = [read_report(one.body) for one in received]
    assert [report.signal for report in reports] == [Signal.SUBMITTED, Signal.STARTED, Signal.COMPLETED]
    assert {(r.provider_task_id, r.external_task_id) for r in reports} == {(made["task_id"], "job-1")}
    assert received[-1].event == await query(klingel, made["task_id"])
    [endpoint] = klingel.rows("select * from endpoints where task_id is not null")
    secret = klingel.state["vault"].open(json.loads(endpoint["secrets"])[0][0])
    for one in received:
        signed = Webhook(secret).sign(one.headers["webhook-id"], klingel.clock(), one.body.decode())
        assert one.headers["webhook-signature"] == signed
    assert len({one.headers["webhook-id"] for one in received}) == 3


async def test_a_client_is_called_back_again_with_outputs_that_come_after_the_success(
    klingel: Klingel,
) -> None:
    made = await create(klingel, callback_url=klingel.receiver.url)
    task = await klingel.task(made["task_id"])
    await klingel.call_back(callback(task, "succeed"))
    await klingel.call_back(succeed(task))
    _, first, second = await klingel.receiver.until(3)
    assert "images" not in first.event["task_result"]
    [image] = second.event["task_result"]["images"]
    assert image["url"].endswith("/out.png")


async def test_a_client_is_called_back_for_klings_own_changes_alone(tmp_path: Path) -> None:
    """Not while Klingel sees to it that the create arrives, nor when a callback is overdue."""
    async with running_klingel(tmp_path, submit_wait=0) as klingel:
        klingel.kling.otherwise = refused(500, 5000)
        made = await create(klingel, callback_url=klingel.receiver.url)
        await klingel.until_row(made["task_id"], status="unconfirmed")
        klingel.clock.advance(days=2)
        await klingel.until_row(made["task_id"], overdue_at=NOW_MS + 2 * 86_400_000)
        await klingel.call_back(succeed(await klingel.task(made["task_id"])))
        [received] = await klingel.receiver.until(1)
        assert received.event["task_status"] == "succeed"
        await klingel.until_deliveries("delivered")
