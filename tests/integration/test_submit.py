"""`POST /v1/tasks`: what is checked, what goes upstream, and what each answer of the provider leads to."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.klingel import (
    FULL,
    IMAGE_INPUT,
    VIDEO_INPUT,
    Answer,
    FakeKling,
    Klingel,
    ManualClock,
    OpenCreate,
    accepted,
    base64_png,
    callback,
    picture,
    png,
    pointers,
    refused,
    running_klingel,
    succeed,
)

IMAGE, VIDEO = "kling.multi-image-to-image", "kling.multi-image-to-video"
BODY: Mapping[str, Any] = {"type": IMAGE, "input": IMAGE_INPUT}


# What goes upstream


async def test_an_image_task_goes_to_cometapis_older_path_with_its_spelling(klingel: Klingel) -> None:
    """CometAPI, "Multi-Image to Image": `/kling/v1/images/generations` and `scence_image` (CometAPI, "Multi-Image to Image")."""
    subjects = [{"subject_image": picture(name)} for name in "abcd"]
    given = {
        "subject_image_list": subjects,
        "model_name": "kling-v2",
        "prompt": "the cat wears the hat",
        "scene_image": picture("scene"),
        "style_image": picture("style"),
        "n": 3,
        "aspect_ratio": "21:9",
    }
    task = await klingel.submit(IMAGE, input=given, external_task_id="job-1", metadata={"customer": 7})
    [request] = klingel.kling.requests
    assert (request.method, str(request.url)) == (
        "POST",
        "https://api.cometapi.com/kling/v1/images/generations",
    )
    assert request.headers["authorization"] == "Bearer provider-key"
    assert request.headers["content-type"] == "application/json"
    [create] = klingel.kling.creates
    callback_url = create.pop("callback_url")
    scene = given.pop("scene_image")
    assert create == given | {"scence_image": scene, "external_task_id": "job-1"}
    stem, _, token = callback_url.rpartition("/")
    assert stem == f"https://klingel.example.com/callbacks/cometapi/{task['id']}"
    assert len(token) == 43


@pytest.mark.parametrize("spelling", ["scene_image", "scence_image"])
async def test_either_spelling_of_the_scene_is_taken(klingel: Klingel, spelling: str) -> None:
    """Two pages of one provider spell it in two ways (public receivers; Kling, "Authentication")."""
    task = await klingel.submit(IMAGE, input={**IMAGE_INPUT, spelling: picture("scene")})
    assert klingel.kling.creates[0]["scence_image"] == picture("scene")
    assert "scene_image" not in klingel.kling.creates[0]
    assert (await klingel.task(task["id"]))["input"]["scene_image"] == picture("scene")


async def test_a_video_task_goes_upstream_with_every_field(klingel: Klingel) -> None:
    """CometAPI, "Multi-Image to Video" (CometAPI, "Multi-Image to Video"; Kling, "Image to Video"); a whole number of seconds becomes Kling's text."""
    given = {
        "image_list": [{"image": picture(name)} for name in "abcd"],
        "model_name": "kling-v1-6",
        "prompt": "the cat puts on the hat",
        "negative_prompt": "dogs",
        "mode": "pro",
        "duration": "10",
        "aspect_ratio": "9:16",
        "cfg_scale": 0.5,
        "static_mask": picture("still"),
        "dynamic_masks": [
            {"mask": picture(f"moving-{n}"), "trajectories": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
            for n in range(6)
        ],
    }
    await klingel.submit(VIDEO, input=given | {"duration": 10}, external_task_id="job-2")
    [request] = klingel.kling.requests
    assert str(request.url) == "https://api.cometapi.com/kling/v1/videos/multi-image2video"
    [create] = klingel.kling.creates
    assert create.pop("callback_url").startswith("https://klingel.example.com/callbacks/cometapi/task_")
    assert create == given | {"external_task_id": "job-2"}


@pytest.mark.parametrize(
    ("type", "path"), [(IMAGE, "/v1/images/multi-image2image"), (VIDEO, "/v1/videos/multi-image2video")]
)
async def test_the_official_api_has_paths_of_its_own_and_signed_tokens(
    tmp_path: Path, type: str, path: str
) -> None:
    """CometAPI, "Multi-Image to Image"; CometAPI, "Multi-Image to Video"; Kling, "Authentication": no `/kling` before them, `scene_image` spelled right, a JWT made for each request."""
    settings = {"provider": "kling", "KLINGEL_PROVIDER_KEY": "access:secret"}
    async with running_klingel(tmp_path, **settings) as klingel:
        given = {**IMAGE_INPUT, "scene_image": picture("scene")} if type == IMAGE else dict(VIDEO_INPUT)
        await klingel.submit(type, input=given)
        [request] = klingel.kling.requests
        assert str(request.url) == f"https://api-singapore.klingai.com{path}"
        scheme, _, token = request.headers["authorization"].partition(" ")
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert (scheme, claims["iss"]) == ("Bearer", "access")
        [create] = klingel.kling.creates
        assert create.get("scene_image") == given.get("scene_image")
        assert "/callbacks/kling/" in create["callback_url"]


async def test_a_task_without_an_external_id_goes_upstream_under_its_own(klingel: Klingel) -> None:
    """It is the provider-side idempotency key, so there is always one."""
    task = await klingel.submit()
    assert task["external_task_id"] == task["id"]
    assert klingel.kling.creates[0]["external_task_id"] == task["id"]


async def test_a_base64_picture_is_kept_once_as_a_file_and_goes_upstream_as_base64(klingel: Klingel) -> None:
    """By its hash, not in the row; a `data:` prefix is stripped (Kling, "Image to Video")."""
    text = base64_png(10)
    subjects = [{"subject_image": text}, {"subject_image": "data:image/png;base64," + text}]
    first = await klingel.submit(input={**IMAGE_INPUT, "subject_image_list": subjects})
    second = await klingel.submit(input={**IMAGE_INPUT, "style_image": text})
    digest = hashlib.sha256(png(10)).hexdigest()
    stored = [path for path in (klingel.folder / "inputs").rglob("*") if path.is_file()]
    assert [path.name for path in stored] == [digest]
    assert stored[0].read_bytes() == png(10)
    for task in (first, second):
        assert text[:100] not in klingel.row(task["id"])["input"]
        assert digest in klingel.row(task["id"])["input"]
    assert klingel.kling.creates[0]["subject_image_list"] == [{"subject_image": text}] * 2
    assert klingel.kling.creates[1]["style_image"] == text
    assert len(klingel.rows("select * from task_files where sha256 = ?", digest)) == 2


# Answers


async def test_an_accepted_task_is_answered_with_201_its_place_and_its_state(klingel: Klingel) -> None:
    """201 with the task once the provider has answered."""
    klingel.kling.answers(accepted("880000000000000001"))
    response = await klingel.http.post(
        "/v1/tasks", json={**BODY, "external_task_id": "job-1", "metadata": {"a": [1, {"b": None}]}}
    )
    task = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/tasks/{task['id']}"
    assert task == await klingel.task(task["id"])
    assert task | {"id": "", "created_at": ""} == task | {
        "id": "",
        "created_at": "",
        "type": IMAGE,
        "status": "submitted",
        "provider": "cometapi",
        "provider_task_id": "880000000000000001",
        "external_task_id": "job-1",
        "metadata": {"a": [1, {"b": None}]},
        "parent_id": None,
        "outputs": [],
        "error": None,
        "submitted_at": "2026-11-22T12:00:00.000Z",
        "finished_at": None,
        "deadline_at": "2026-11-22T12:15:00.000Z",
        "overdue_at": None,
        "transitions": [{"from": "queued", "to": "submitted", "at": "2026-11-22T12:00:00.000Z"}],
    }


async def test_respond_async_is_answered_at_once_while_the_provider_still_thinks(klingel: Klingel) -> None:
    """RFC 7240, 4.1: 202 as soon as the task is on disk; the create ends by itself."""
    thinking = OpenCreate(accepted("880000000000000001"))
    klingel.kling.answers(thinking)
    response = await klingel.http.post("/v1/tasks", json=BODY, headers={"prefer": "respond-async"})
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["location"] == f"/v1/tasks/{response.json()['id']}"
    assert response.json()["status"] == "queued"
    await klingel.kling.until(1)
    thinking.end()
    await klingel.until_status(response.json()["id"], "submitted")


async def test_a_provider_that_takes_too_long_is_answered_with_202(tmp_path: Path) -> None:
    """After `KLINGEL_SUBMIT_WAIT`, here none at all."""
    async with running_klingel(tmp_path, submit_wait=0) as klingel:
        thinking = OpenCreate(accepted("880000000000000001"))
        klingel.kling.answers(thinking)
        response = await klingel.http.post("/v1/tasks", json=BODY)
        assert (response.status_code, response.json()["status"]) == (202, "queued")
        assert "preference-applied" not in response.headers
        thinking.end()
        await klingel.until_status(response.json()["id"], "submitted")


async def test_a_deadline_of_ones_own_replaces_the_types(klingel: Klingel) -> None:
    """A deadline per type, and per submit."""
    assert (await klingel.submit(VIDEO))["deadline_at"] == "2026-11-22T13:00:00.000Z"
    assert (await klingel.submit(VIDEO, deadline_s=90.5))["deadline_at"] == "2026-11-22T12:01:30.500Z"


# Faults


async def test_all_faults_of_a_body_are_told_at_once(klingel: Klingel) -> None:
    """Problems list every fault, whichever part of the body it is in."""
    response = await klingel.http.post(
        "/v1/tasks",
        json={
            "type": VIDEO,
            "input": {
                "prompt": "x" * 501,
                "image_list": [{"image": "not a picture"}, {"image": picture(), "size": 1}],
                "cfg_scale": 2,
                "colour": "red",
                "static_mask": base64_png(side=299),
            },
            "external_task_id": "with space",
            "metadata": {"big": "x" * 17_000},
            "callback_url": "ftp://example.com/hook",
            "endpoints": [
                {
                    "kind": "pigeon",
                    "types": ["task.*", "tusk.*"],
                    "filter": "data[",
                    "secret": "whsec_c2hvcnQ=",
                },
                {"config": {"url": "http://10.0.0.1/hook", "headers": {"webhook-id": "mine"}, "shape": 1}},
            ],
            "deadline_s": 0,
            "priority": "high",
        },
    )
    assert response.status_code == 422
    assert sorted(pointers(response)) == sorted(
        [
            "#/input/prompt",
            "#/input/image_list/0/image",
            "#/input/image_list/1/size",
            "#/input/cfg_scale",
            "#/input/colour",
            "#/input/static_mask",
            "#/external_task_id",
            "#/metadata",
            "#/callback_url",
            "#/endpoints/0/kind",
            "#/endpoints/0/types/1",
            "#/endpoints/0/filter",
            "#/endpoints/0/secret",
            "#/endpoints/1/config/url",
            "#/endpoints/1/config/headers/webhook-id",
            "#/endpoints/1/config/shape",
            "#/deadline_s",
            "#/priority",
        ]
    )
    assert klingel.kling.requests == []
    assert klingel.rows("select * from tasks") == []


FAULTY: list[tuple[object, str]] = [
    ({}, "#/type"),
    ({}, "#/input"),
    ({"type": "kling.text-to-smell", "input": {}}, "#/type"),
    ({"type": IMAGE, "input": "a cat"}, "#/input"),
    ({**BODY, "metadata": ["a"]}, "#/metadata"),
    ({**BODY, "callback_url": 7}, "#/callback_url"),
    ({**BODY, "callback_url": "http://127.0.0.1:99999/"}, "#/callback_url"),
    ({**BODY, "callback_url": "http://127.0.0.1:٨٠/"}, "#/callback_url"),
    ({**BODY, "endpoints": [7]}, "#/endpoints/0"),
    ({**BODY, "endpoints": {}}, "#/endpoints"),
    ({**BODY, "endpoints": [{}] * 11}, "#/endpoints"),
    ({**BODY, "external_task_id": "x" * 65}, "#/external_task_id"),
    ({**BODY, "deadline_s": "60"}, "#/deadline_s"),
    ([], "#"),
    ("kling", "#"),
]


async def test_a_fault_is_told_where_it_is(klingel: Klingel) -> None:
    """RFC 6901 pointers, in URI fragment form."""
    for body, pointer in FAULTY:
        response = await klingel.http.post("/v1/tasks", json=body)
        assert response.status_code == 422, body
        assert pointer in pointers(response), body


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(b"[" * 199 + b"]" * 199, id="nested deeply"),
        pytest.param(b"1e999", id="a number that no JSON can hold again"),
    ],
)
async def test_metadata_that_could_not_be_told_again_is_refused(klingel: Klingel, metadata: bytes) -> None:
    """It comes back in each answer and event: nested deeper than an event can be read it would stop them all,
    and an infinite number is no JSON."""
    await klingel.endpoint(filter="data.task.id")
    body = json.dumps({**BODY, "metadata": {"a": "?"}}).encode().replace(b'"?"', metadata)
    response = await klingel.http.post("/v1/tasks", content=body)
    assert response.status_code == 422
    assert pointers(response) == ["#/metadata"]
    assert klingel.kling.requests == []


async def test_what_is_no_json_is_answered_with_400(klingel: Klingel) -> None:
    """It cannot be read at all, so there is no place to point to."""
    too_deep = b'{"input":' * 300 + b"1" + b"}" * 300
    for body in (b"", b"  \n", b"{", b'{"type": NaN}', b"\xff\xfe", b'{"type": "\\ud800"}', too_deep):
        response = await klingel.http.post("/v1/tasks", content=body)
        assert response.status_code == 400, body
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == "/problems/invalid-request"


async def test_a_body_announced_over_64_mib_is_refused_before_it_is_read(klingel: Klingel) -> None:
    """The cap leaves room for a task's pictures as Base64, and no more."""
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x"

    response = await klingel.http.post(
        "/v1/tasks", content=body(), headers={"content-length": str(64 * 1024 * 1024 + 1)}
    )
    assert (response.status_code, read) == (413, 0)
    assert response.json()["limit_bytes"] == 64 * 1024 * 1024


async def test_a_body_without_end_is_cut_at_64_mib(klingel: Klingel) -> None:
    """Nothing is announced when it comes in chunks, so it is counted while it comes."""
    mebibyte = b" " * 1024 * 1024
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield mebibyte

    response = await klingel.http.post("/v1/tasks", content=body())
    assert (response.status_code, read) == (413, 65)


# Idempotency


async def post(klingel: Klingel, key: str, body: object = BODY, **headers: str) -> httpx.Response:
    return await klingel.http.post("/v1/tasks", json=body, headers={"idempotency-key": key, **headers})


async def test_the_same_key_and_body_give_the_same_answer(klingel: Klingel) -> None:
    """`Idempotency-Key` is honoured; the answer is the first one, however the task went on."""
    body = {**BODY, "endpoints": [{"config": {"url": klingel.receiver.url}}]}
    first = await post(klingel, "key-1", body)
    assert (await klingel.call_back(succeed(first.json()))).status_code == 200
    second = await post(klingel, "key-1", body)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(klingel.kling.creates) == 1


async def test_the_same_key_with_another_body_is_refused(klingel: Klingel) -> None:
    """One key is one submit: a second body under it is a mistake of the caller's."""
    first = await post(klingel, "key-1")
    other = await post(klingel, "key-1", {**BODY, "metadata": {"other": True}})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert other.json()["task_id"] == first.json()["id"]
    assert len(klingel.kling.creates) == 1


async def test_two_at_once_under_one_key_make_one_task_and_get_one_answer(klingel: Klingel) -> None:
    """Promise 3: also when a client repeats what it still waits for."""
    thinking = OpenCreate(accepted("880000000000000001"))
    klingel.kling.answers(thinking)
    both = [asyncio.create_task(post(klingel, "key-1")) for _ in range(2)]
    await klingel.kling.until(1)
    both.append(asyncio.create_task(post(klingel, "key-1")))
    thinking.end()
    first, *others = await asyncio.gather(*both)
    assert first.status_code == 201
    assert {(one.status_code, one.content) for one in others} == {(201, first.content)}
    assert len(klingel.kling.creates) == 1
    assert len(klingel.rows("select * from tasks")) == 1


async def test_a_key_is_an_accounts_own(klingel: Klingel) -> None:
    """Two accounts may choose the same one."""
    mine = await post(klingel, "key-1")
    async with klingel.another_account() as other:
        theirs = await other.post("/v1/tasks", json=BODY, headers={"idempotency-key": "key-1"})
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_a_refusal_is_repeated_under_its_key_and_not_asked_for_again(klingel: Klingel) -> None:
    """The same answer means the same refusal; a new try takes a new key."""
    klingel.kling.answers(refused(400, 1301, "content-safety policy"))
    first = await post(klingel, "key-1")
    second = await post(klingel, "key-1")
    assert (first.status_code, second.status_code) == (422, 422)
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"] == "application/problem+json"
    assert len(klingel.kling.creates) == 1


async def test_a_key_holds_across_a_restart(tmp_path: Path) -> None:
    """It is on disk with the task."""
    clock, kling = ManualClock(), FakeKling()
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        first = await post(klingel, "key-1")
    async with running_klingel(tmp_path, clock=clock, kling=kling) as klingel:
        second = await post(klingel, "key-1")
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert second.headers["idempotent-replayed"] == "true"
    assert len(kling.creates) == 1


async def test_a_key_whose_first_caller_was_never_answered_settles_on_the_next_answer(tmp_path: Path) -> None:
    """Promise 3: a crash between the create and its answer; from then on everybody is told the same."""
    clock, kling = ManualClock(), FakeKling()
    thinking = OpenCreate(accepted("880000000000000001"))
    kling.answers(thinking)
    async with running_klingel(tmp_path / "first", clock=clock, kling=kling) as klingel:
        lost = asyncio.create_task(post(klingel, "key-1"))
        [create] = await kling.until(1)
        folder = await klingel.snapshot(tmp_path / "second")
        thinking.end()
        await lost
    async with running_klingel(folder, clock=clock, kling=kling) as klingel:
        first = await post(klingel, "key-1", prefer="respond-async")
        assert (first.status_code, first.json()["status"]) == (202, "unconfirmed")
        assert first.json()["external_task_id"] == create["external_task_id"]
        task = first.json() | {"provider_task_id": "880000000000000001"}
        assert (await klingel.call_back(succeed(task))).status_code == 200
        second = await post(klingel, "key-1")
        assert (second.status_code, second.content) == (first.status_code, first.content)
    assert len(kling.creates) == 1


async def test_a_key_is_forgotten_after_24_hours(klingel: Klingel) -> None:
    """Honoured for 24 h, and not for ever."""
    first = await post(klingel, "key-1")
    klingel.clock.advance(hours=24, seconds=-1)
    assert (await post(klingel, "key-1")).json()["id"] == first.json()["id"]
    klingel.clock.advance(seconds=1)
    other = await post(klingel, "key-1", {**BODY, "metadata": {"other": True}})
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]
    assert (await post(klingel, "key-1")).status_code == 422


async def test_a_key_that_is_none_is_refused(klingel: Klingel) -> None:
    """Rather than counted as no key at all, which would make two tasks."""
    for key in ("", "with space", "x" * 256, "ü"):
        headers = [(b"idempotency-key", key.encode("latin-1"))]
        response = await klingel.http.post("/v1/tasks", json=BODY, headers=headers)
        assert response.status_code == 422, key
    assert klingel.kling.requests == []


# External ids


async def test_an_external_id_is_used_once_in_an_account(klingel: Klingel) -> None:
    """Klingel sees to it before anything is sent; the provider's word would come too late."""
    task = await klingel.submit(external_task_id="job-1")
    response = await klingel.http.post("/v1/tasks", json={**BODY, "external_task_id": "job-1"})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/external-task-id-taken")
    assert response.json()["task_id"] == task["id"]
    async with klingel.another_account() as other:
        theirs = await other.post("/v1/tasks", json={**BODY, "external_task_id": "job-1"})
    assert theirs.status_code == 201
    assert len(klingel.kling.creates) == 2


async def test_of_many_submits_at_once_one_gets_the_external_id(klingel: Klingel) -> None:
    """Also those that share a commit: all twenty wait behind the same one."""
    body = {**BODY, "external_task_id": "job-1"}
    answers = await asyncio.gather(*(klingel.http.post("/v1/tasks", json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert len(klingel.kling.creates) == 1


async def test_accounts_that_share_a_providers_account_share_no_ids_there(klingel: Klingel) -> None:
    """Or one could ask by the other's id, and read the other's pictures."""
    await klingel.submit(external_task_id="job-1")
    klingel.kling.answers(httpx.ReadTimeout("no answer"))
    async with klingel.another_account() as other:
        headers = {"prefer": "respond-async"}
        body = {**BODY, "external_task_id": "job-1"}
        theirs = (await other.post("/v1/tasks", json=body, headers=headers)).json()
        await klingel.until_row(theirs["id"], status="unconfirmed")
        assert [create["external_task_id"] for create in klingel.kling.creates] == ["job-1", theirs["id"]]
        assert theirs["external_task_id"] == "job-1"
        data = {"task_id": "77", "task_status": "processing", "task_info": {"external_task_id": theirs["id"]}}
        klingel.kling.answers(httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": data}))
        refreshed = await other.post(f"/v1/tasks/{theirs['id']}/refresh")
        assert refreshed.json()["status"] == "processing"
        assert klingel.kling.requests[-1].url.path.endswith(f"/{theirs['id']}")
        ended = callback(refreshed.json(), "failed", task_info={"external_task_id": theirs["id"]})
        assert (await klingel.call_back(ended)).status_code == 200
        assert (await other.get(f"/v1/tasks/{theirs['id']}")).json()["status"] == "failed"


@pytest.mark.parametrize("external_task_id", [".", "..", "", "a b", "ä", "x" * 65])
async def test_an_external_id_that_would_not_survive_a_path_is_refused(
    klingel: Klingel, external_task_id: str
) -> None:
    response = await klingel.http.post("/v1/tasks", json={**BODY, "external_task_id": external_task_id})
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["#/external_task_id"]


# Refused


@pytest.mark.parametrize(
    ("answers", "status", "problem", "code"),
    [
        ([refused(429, 1101, "account in arrears")], 402, "provider-payment-required", "1101"),
        ([refused(429, 1102, "resource pack used up")], 402, "provider-payment-required", "1102"),
        ([refused(400, 1201, "model is not supported")], 422, "provider-refused", "1201"),
        ([refused(400, 1301, "content-safety policy")], 422, "provider-refused", "1301"),
        ([refused(401, 1000, "authentication failed")], 502, "provider-misconfigured", "1000"),
        ([refused(401, 1002, "api key not found")], 502, "provider-misconfigured", "1002"),
        ([refused(401, 1004, "expired")] * 2, 502, "provider-misconfigured", "1004"),
        ([refused(403, 1103, "no permission")], 502, "provider-misconfigured", "1103"),
        ([refused(429, 1100, "account exception")], 502, "provider-misconfigured", "1100"),
        ([refused(429, 1304, "IP allow-list")], 502, "provider-misconfigured", "1304"),
    ],
)
async def test_a_refused_task_is_kept_and_the_problem_names_the_providers_code(
    klingel: Klingel, answers: list[Answer], status: int, problem: str, code: str
) -> None:
    """Kling, "Error Codes": whose business it is decides the status; 429 alone says nothing, so 1100 and 1304 end it too."""
    klingel.kling.answers(*answers)
    response = await klingel.http.post("/v1/tasks", json=BODY)
    said = response.json()
    assert (response.status_code, said["type"]) == (status, f"/problems/{problem}")
    assert response.headers["content-type"] == "application/problem+json"
    assert said["provider_code"] == code
    assert response.headers["location"] == f"/v1/tasks/{said['task']['id']}"
    task = await klingel.task(said["task"]["id"])
    assert task | said["task"] == task
    assert (task["status"], task["error"]["code"]) == ("rejected", code)
    assert task["finished_at"] == "2026-11-22T12:00:00.000Z"
    assert await klingel.event_types(task["id"]) == ["task.rejected"]
    klingel.clock.advance(days=1)
    await klingel.submit()
    assert len(klingel.kling.creates) == len(answers) + 1  # the other task's


async def test_an_expired_token_is_shown_anew_once(klingel: Klingel) -> None:
    """Kling, "Error Codes": 1004, once more with a fresh token; the token is refused before the task is looked at."""
    klingel.kling.answers(refused(401, 1004, "expired"))
    assert (await klingel.submit())["status"] == "submitted"
    assert len(klingel.kling.creates) == 2


# Deferred


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refused(429, 1302, "too fast"), id="too fast"),
        pytest.param(refused(503, 5001, "maintenance"), id="maintenance"),
        pytest.param(httpx.ConnectError("refused"), id="connection refused"),
        pytest.param(httpx.ConnectTimeout("too slow"), id="never connected"),
    ],
)
async def test_a_task_refused_for_now_stays_queued_and_goes_later(klingel: Klingel, answer: Answer) -> None:
    """Certainly not accepted, so it is sent again by itself, with more and more time between."""
    klingel.kling.answers(answer, answer)
    task = await klingel.submit_async()
    await klingel.until_row(task["id"], sends=1, sending_since=None)
    assert (await klingel.task(task["id"]))["status"] == "queued"
    klingel.clock.advance(seconds=6.1)  # 5 s and up to a fifth more
    await klingel.until_row(task["id"], sends=2, sending_since=None)
    klingel.clock.advance(seconds=9)  # the second delay is 10 s at least
    await klingel.submit()
    assert len(klingel.kling.creates) == 3
    klingel.clock.advance(seconds=3.1)
    await klingel.until_status(task["id"], "submitted")
    sent = [create for create in klingel.kling.creates if create["external_task_id"] == task["id"]]
    assert len(sent) == 3
    assert sent[0] == sent[1] == sent[2]
    assert await klingel.event_types(task["id"]) == ["task.submitted"]


async def test_retry_after_of_the_provider_is_obeyed(klingel: Klingel) -> None:
    """RFC 9110, 10.2.3; CometAPI promises none, but a proxy before it may say so."""
    busy = httpx.Response(429, json={"code": 1302, "message": "too fast"}, headers={"retry-after": "100"})
    klingel.kling.answers(busy)
    task = await klingel.submit_async()
    row = await klingel.until_row(task["id"], sends=1, sending_since=None)
    assert 100_000 <= row["next_send_at"] - row["created_at"] <= 120_000


async def test_a_task_that_never_gets_through_is_rejected_at_the_end_of_its_time_in_the_queue(
    tmp_path: Path,
) -> None:
    """`KLINGEL_QUEUE_MAX_AGE`: nobody wants yesterday's picture billed today."""
    async with running_klingel(tmp_path, queue_max_age=3600) as klingel:
        klingel.kling.otherwise = httpx.ConnectError("refused")
        task = await klingel.submit_async()
        await klingel.until_row(task["id"], sends=1, sending_since=None)
        klingel.clock.advance(seconds=3600)
        await klingel.until_row(task["id"], sends=2, sending_since=None)
        klingel.clock.advance(seconds=600)
        task = await klingel.until_status(task["id"], "rejected")
        assert task["error"]["code"] == "queue_expired"
        assert (await klingel.event_types(task["id"]))[-1] == "task.rejected"
        assert len(klingel.kling.creates) == 2


# Unknown outcomes

UNKNOWN = [
    pytest.param(httpx.ReadTimeout("no answer"), id="time-out"),
    pytest.param(httpx.RemoteProtocolError("cut"), id="connection cut"),
    pytest.param(refused(500, 5000, "internal error"), id="5000"),
    pytest.param(httpx.Response(502, html="<html>Bad gateway</html>"), id="502"),
    pytest.param(httpx.Response(524), id="524"),
    pytest.param(httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": {}}), id="no task id"),
]


@pytest.mark.parametrize("answer", UNKNOWN)
async def test_a_create_that_may_have_been_accepted_is_sent_again_only_after_its_time(
    klingel: Klingel, answer: Answer
) -> None:
    """Promise 3: never two creates for one task that may both count. The callback is waited for first, and the
    second create carries the same external_task_id, which the provider takes only once."""
    klingel.kling.answers(answer)
    task = await klingel.submit_async()
    task = await klingel.until_status(task["id"], "unconfirmed")
    assert await klingel.event_types(task["id"]) == ["task.unconfirmed"]
    klingel.clock.advance(seconds=119)
    await klingel.submit()  # when this one has gone, the first would have
    assert len(klingel.kling.creates) == 2
    klingel.clock.advance(seconds=1)
    task = await klingel.until_status(task["id"], "submitted")
    first, _, again = klingel.kling.creates
    assert first == again
    assert task["provider_task_id"] == "880000000000000003"
    assert await klingel.event_types(task["id"]) == ["task.unconfirmed", "task.submitted"]


async def unconfirmed(klingel: Klingel, **body: Any) -> dict[str, Any]:
    klingel.kling.answers(httpx.ReadTimeout("no answer"))
    return await klingel.until_status((await klingel.submit_async(**body))["id"], "unconfirmed")


@pytest.mark.parametrize(
    "named",
    [
        pytest.param({}, id="under an id of ours"),
        pytest.param({"external_task_id": "job-1"}, id="under an id of the caller's"),
    ],
)
async def test_exists_as_the_answer_to_a_second_create_confirms_the_first(
    klingel: Klingel, named: Mapping[str, str]
) -> None:
    """Live note in Kling, "Error Codes": a repeated `external_task_id` is refused with 400 / 1201."""
    task = await unconfirmed(klingel, **named)
    klingel.kling.answers(refused(400, 1201, "external_task_id already exists"))
    klingel.clock.advance(seconds=120)
    await klingel.until_status(task["id"], "submitted")
    klingel.clock.advance(days=1)
    await klingel.submit()
    assert len(klingel.kling.creates) == 3
    # Its id is not known yet: the callback brings it.
    assert (await klingel.call_back(succeed(task | {"provider_task_id": "77"}), number=0)).status_code == 200
    assert (await klingel.task(task["id"]))["provider_task_id"] == "77"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(400, json={"error": {"message": "bad request"}}), id="refused, no code"),
        pytest.param(refused(400, 1301, "content-safety policy"), id="refused"),
        pytest.param(refused(429, 1102, "pack used up"), id="payment"),
        pytest.param(refused(401, 1002, "api key not found"), id="account"),
        pytest.param(refused(429, 1303, "parallel task over resource pack limit"), id="no place"),
        pytest.param(httpx.ConnectError("refused"), id="connection refused"),
        pytest.param(httpx.ReadTimeout("no answer"), id="unknown again"),
    ],
)
async def test_a_refusal_of_the_second_create_says_nothing_of_the_first(
    klingel: Klingel, answer: Answer
) -> None:
    """The first may be running and billed: the task stays unconfirmed, and is asked for later and later."""
    task = await unconfirmed(klingel)
    klingel.kling.answers(answer)
    klingel.clock.advance(seconds=120)
    row = await klingel.until_row(task["id"], sends=2, sending_since=None)
    assert (row["status"], row["next_send_at"] - row["created_at"]) == ("unconfirmed", (120 + 240) * 1000)
    assert await klingel.event_types(task["id"]) == ["task.unconfirmed"]
    klingel.clock.advance(seconds=240)
    await klingel.until_status(task["id"], "submitted")


async def test_what_is_refused_again_when_the_first_has_had_all_its_time_is_rejected(
    klingel: Klingel,
) -> None:
    task = await unconfirmed(klingel)
    klingel.kling.otherwise = refused(400, 1301, "content-safety policy")
    klingel.clock.advance(minutes=16)  # beyond its deadline
    task = await klingel.until_status(task["id"], "rejected")
    assert (task["error"]["code"], len(klingel.kling.creates)) == ("1301", 2)


async def test_an_unconfirmed_task_is_not_sent_again_for_ever(klingel: Klingel) -> None:
    """After a day its status stays, and a person may refresh it."""
    task = await unconfirmed(klingel)
    klingel.kling.otherwise = httpx.ReadTimeout("no answer")
    klingel.clock.advance(hours=25)
    row = await klingel.until_row(task["id"], sends=2, sending_since=None)
    assert (row["status"], row["next_send_at"]) == ("unconfirmed", None)
    klingel.clock.advance(days=30)
    klingel.kling.otherwise = None
    await klingel.submit()
    assert len(klingel.kling.creates) == 3


async def test_what_goes_to_a_path_of_the_callers_own_is_not_sent_again_by_itself(klingel: Klingel) -> None:
    """Whether it knows an `external_task_id` again nobody can say: the same might be made, and billed, twice."""
    klingel.kling.answers(httpx.ReadTimeout("no answer"))
    answer = await klingel.http.post(
        "/v1/tasks",
        json={"type": "kling.raw", "input": {"path": "/v1/audio/tts", "body": {"text": "miaow"}}},
        headers={"prefer": "respond-async"},
    )
    task = await klingel.until_status(answer.json()["id"], "unconfirmed")
    assert klingel.row(task["id"])["next_send_at"] is None
    klingel.clock.advance(days=30)
    await klingel.submit()  # when this one has gone, the first would have
    assert len(klingel.kling.creates) == 2
    # It is waited for all the same.
    assert (await klingel.call_back(succeed(task | {"provider_task_id": "77"}), number=0)).status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "succeeded"


async def test_exists_is_somebody_elses_when_nothing_of_ours_was_accepted(klingel: Klingel) -> None:
    """Refused for now is not accepted: a task that is there under our id is not this one."""
    klingel.kling.answers(
        refused(503, 5001, "maintenance"), refused(400, 1201, "external_task_id already exists")
    )
    task = await klingel.submit_async(external_task_id="job-1")
    await klingel.until_row(task["id"], sends=1, sending_since=None)
    klingel.clock.advance(minutes=1)
    assert (await klingel.until_status(task["id"], "rejected"))["error"]["code"] == "1201"


async def test_exists_is_somebody_elses_under_an_id_of_the_callers(klingel: Klingel) -> None:
    klingel.kling.answers(refused(400, 1201, "external_task_id already exists"))
    response = await klingel.http.post("/v1/tasks", json={**BODY, "external_task_id": "job-1"})
    assert (response.status_code, response.json()["provider_code"]) == (422, "1201")
    assert response.json()["task"]["status"] == "rejected"


async def test_exists_is_ours_under_an_id_that_nobody_else_can_have(klingel: Klingel) -> None:
    """Sent, and paid for, before a backup was restored that knows nothing of it: its callback still counts."""
    klingel.kling.answers(refused(400, 1201, "external_task_id already exists"))
    task = await klingel.until_status((await klingel.submit_async())["id"], "submitted")
    assert (await klingel.call_back(succeed(task | {"provider_task_id": "77"}), number=0)).status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "succeeded"


async def test_what_exists_where_tasks_have_no_ids_is_something_else(klingel: Klingel) -> None:
    klingel.kling.answers(refused(400, 1201, "element name already exists"))
    input = {"path": "/v1/general/custom-elements", "body": {"element_name": "Mia"}}
    response = await klingel.http.post("/v1/tasks", json={"type": "kling.raw", "input": input})
    assert (response.status_code, response.json()["provider_code"]) == (422, "1201")
    assert response.json()["task"]["status"] == "rejected"


async def test_a_callback_confirms_what_the_creates_answer_left_open(klingel: Klingel) -> None:
    """Then no second create goes out at all."""
    task = await unconfirmed(klingel)
    assert (
        await klingel.call_back(callback(task | {"provider_task_id": "77"}, "processing"))
    ).status_code == 200
    task = await klingel.task(task["id"])
    assert (task["status"], task["provider_task_id"]) == ("processing", "77")
    klingel.clock.advance(minutes=10)
    await klingel.submit()
    assert len(klingel.kling.creates) == 2


async def test_a_create_that_was_on_its_way_when_klingel_died_counts_as_unknown(tmp_path: Path) -> None:
    """Promises 2 and 3: that it is about to go out is on disk before the first byte of it."""
    clock, kling = ManualClock(), FakeKling()
    thinking = OpenCreate(accepted("880000000000000001"))
    kling.answers(thinking)
    async with running_klingel(tmp_path / "first", clock=clock, kling=kling) as klingel:
        task = await klingel.submit_async()
        await kling.until(1)
        folder = await klingel.snapshot(tmp_path / "second")
        thinking.end()
    kling.answers(refused(400, 1201, "external_task_id already exists"))
    async with running_klingel(folder, clock=clock, kling=kling) as klingel:
        assert (await klingel.task(task["id"]))["status"] == "unconfirmed"
        clock.advance(seconds=120)
        await klingel.until_status(task["id"], "submitted")
        assert await klingel.event_types(task["id"]) == ["task.unconfirmed", "task.submitted"]
    assert kling.creates[0] == kling.creates[1]
    assert len(kling.creates) == 2


# Callbacks that overtake the create's answer


@pytest.mark.parametrize(
    ("word", "status", "answer"),
    [
        pytest.param("submitted", "submitted", accepted("77"), id="submitted, accepted"),
        pytest.param("processing", "processing", accepted("77"), id="processing, accepted"),
        pytest.param("succeed", "succeeded", accepted("77"), id="succeed, accepted"),
        pytest.param("failed", "failed", accepted("77"), id="failed, accepted"),
        pytest.param("submitted", "submitted", httpx.ReadTimeout("no answer"), id="submitted, time-out"),
        pytest.param("succeed", "succeeded", httpx.ReadTimeout("no answer"), id="succeed, time-out"),
        pytest.param("processing", "processing", refused(429, 1302, "too fast"), id="processing, too fast"),
        pytest.param("submitted", "submitted", refused(400, 1201, "no such model"), id="submitted, refused"),
    ],
)
async def test_a_callback_before_the_creates_answer_counts_and_the_answer_changes_nothing(
    klingel: Klingel, answer: Answer, word: str, status: str
) -> None:
    """The task and its callback URL exist before the create is sent (Kling, "Callback Protocol", early arrival)."""

    async def call_back_first(request: httpx.Request) -> httpx.Response:
        create = json.loads(request.content)
        body = callback({"provider_task_id": "77", **create}, word)
        assert (await klingel.call_back(body)).status_code == 200
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    klingel.kling.answers(call_back_first)
    task = await klingel.submit()
    assert (task["status"], task["provider_task_id"]) == (status, "77")
    row = await klingel.until_row(task["id"], sending_since=None)
    assert (row["status"], row["next_send_at"]) == (status, None)
    assert await klingel.event_types(task["id"]) == [f"task.{status}"]
    assert [event["sequence"] for event in await klingel.events(task["id"])] == [1]
    klingel.clock.advance(minutes=10)
    await klingel.submit()
    assert len(klingel.kling.creates) == 2


# Answers that bring the end at once

SPEECH: Mapping[str, Any] = {
    "type": "kling.raw",
    "input": {"path": "/v1/audio/tts", "body": {"text": "miaow"}},
}


def spoken(status: str = "succeed", **more: Any) -> httpx.Response:
    """Kling, "TTS": what a query says of other tasks that ended, in the answer to the create."""
    data = {
        "task_id": "77",
        "task_status": status,
        "task_status_msg": "",
        "task_result": {"audios": [{"id": "a1", "url": "https://example.com/a.mp3", "duration": "3.2"}]},
        "final_unit_deduction": "0.05",
        "created_at": 1790000000000,
        "updated_at": 1790000000000,
        **more,
    }
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


async def test_a_result_in_the_creates_answer_is_kept_like_one_in_a_callback(klingel: Klingel) -> None:
    """Promise 8, where no callback will come."""
    klingel.kling.answers(spoken())
    response = await klingel.http.post("/v1/tasks", json=SPEECH)
    task = response.json()
    assert (response.status_code, task["status"], task["provider_task_id"]) == (201, "succeeded", "77")
    assert [(each["kind"], each["url"]) for each in task["outputs"]] == [
        ("audio", "https://example.com/a.mp3")
    ]
    assert task["cost"] == [{"amount": "0.05", "unit": "units"}]
    events = await klingel.events(task["id"])
    assert [(each["type"], each["sequence"]) for each in events] == [
        ("task.submitted", 1),
        ("task.succeeded", 2),
    ]
    [kept] = await klingel.callbacks(task["id"])
    assert (kept["verdict"], kept["reason"]) == ("advanced", "it is the answer to the create")
    assert json.loads(kept["body"])["data"]["task_result"]["audios"][0]["id"] == "a1"
    klingel.clock.advance(days=1)
    await klingel.submit()  # by when it would have been overdue
    assert (await klingel.task(task["id"]))["overdue_at"] is None


async def test_a_failure_in_the_creates_answer_ends_the_task(klingel: Klingel) -> None:
    klingel.kling.answers(spoken("failed", task_status_msg="no such voice", task_result={}))
    response = await klingel.http.post("/v1/tasks", json=SPEECH)
    task = response.json()
    assert (response.status_code, task["status"]) == (201, "failed")
    assert task["error"] == {"code": "provider_failed", "message": "no such voice"}
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.failed"]


async def test_a_callback_after_an_answer_that_brought_the_end_is_a_duplicate(klingel: Klingel) -> None:
    """The cost counts once."""
    klingel.kling.answers(spoken())
    task = (await klingel.http.post("/v1/tasks", json=SPEECH)).json()
    again = {**json.loads(spoken().content)["data"], "task_info": {"external_task_id": task["id"]}}
    assert (await klingel.call_back(again)).status_code == 200
    assert await klingel.verdicts(task["id"]) == ["advanced", "duplicate"]
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.succeeded"]
    usage = (await klingel.http.get("/v1/usage")).json()
    assert [(each["amount"], each["tasks"]) for each in usage["items"]] == [("0.05", 1)]


@pytest.mark.parametrize(
    ("word", "verdict", "events"),
    [
        ("submitted", "advanced", ["task.submitted", "task.succeeded"]),
        ("processing", "advanced", ["task.processing", "task.succeeded"]),
        ("succeed", "advanced", ["task.succeeded", "task.outputs_added"]),
        ("failed", "conflicting", ["task.failed"]),
    ],
)
async def test_an_answer_that_brings_the_end_after_a_callback_moves_the_task_only_forwards(
    klingel: Klingel, word: str, verdict: str, events: list[str]
) -> None:
    """Also where the callback had Kling's id, and the answer has a gateway's."""

    async def call_back_first(request: httpx.Request) -> httpx.Response:
        body = {"task_id": "78", "task_status": word, "updated_at": 1790000000000}
        assert (await klingel.call_back(body)).status_code == 200
        return spoken()

    klingel.kling.answers(call_back_first)
    answer = await klingel.http.post("/v1/tasks", json=SPEECH)
    task = answer.json()
    await klingel.until_row(task["id"], sending_since=None)
    assert await klingel.event_types(task["id"]) == events
    assert await klingel.verdicts(task["id"]) == ["advanced", verdict]


async def test_a_task_that_ended_at_once_gives_its_place_to_the_next(klingel: Klingel) -> None:
    """One who waits in line asks as soon as the first has ended, and not when its own moment comes."""
    await klingel.http.post("/v1/tasks", json=SPEECH)  # has a place until its callback
    klingel.kling.answers(FULL, spoken(), spoken(task_id="78"))
    for _ in range(2):
        answer = await klingel.http.post("/v1/tasks", json=SPEECH, headers={"prefer": "respond-async"})
        await klingel.until_row(answer.json()["id"], awaits_slot=1)
    assert len(klingel.kling.creates) == 2  # the second in line did not even ask
    klingel.clock.advance(minutes=2)
    task = await klingel.until_status(answer.json()["id"], "succeeded")
    assert task["provider_task_id"] == "78"


async def test_a_task_that_ended_at_once_has_kept_no_place_from_other_types(klingel: Klingel) -> None:
    """Speech comes in the answer to its create: five of them once led to twenty creates of films in vain."""
    await klingel.submit(VIDEO)
    klingel.kling.answers(FULL, FULL)
    for type, input in ((VIDEO, VIDEO_INPUT), ("kling.text-to-video", {"prompt": "a cat"})):
        waiting = await klingel.submit_async(type, input=dict(input))
        await klingel.until_row(waiting["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    klingel.kling.answers(*[spoken(task_id=str(number)) for number in range(5)])
    for _ in range(5):
        assert (await klingel.http.post("/v1/tasks", json=SPEECH)).json()["status"] == "succeeded"
    await klingel.submit(IMAGE)  # the loop has looked
    assert len(klingel.kling.creates) == 3 + 5 + 1


async def test_what_a_create_answers_without_naming_a_task_is_kept(klingel: Klingel) -> None:
    """Kling's older custom elements are made at once, under an id of their own."""
    body = {"code": 0, "message": "SUCCEED", "data": {"element_id": 829836802793406551}}
    klingel.kling.answers(httpx.Response(200, json=body))
    input = {"path": "/v1/general/custom-elements", "body": {"element_name": "Mia"}}
    task = await klingel.submit_async("kling.raw", input=input)
    task = await klingel.until_status(task["id"], "unconfirmed")
    [kept] = await klingel.callbacks(task["id"])
    assert (kept["verdict"], json.loads(kept["body"])) == ("unreadable", body)
