"""Several accounts at providers: each task goes to one of them, comes back by its own path, and stays with it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.signatures import sign
from service.sending import CREATES_AT_A_TIME
from tests.integration.klingel import (
    IMAGE_INPUT,
    FakeKling,
    Klingel,
    OpenCreate,
    accepted,
    callback,
    pointers,
    refused,
    running_klingel,
    succeed,
)

SECRETS = [
    "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "whsec_a2xpbmctd2ViaG9vay1kZW1vLWtleS0wMTIzNDU2Nzg5",
]
FILE = f"""
[gateway]
kind = "cometapi"
key = "sk-gateway"
default = true
slots = {{ image = 2 }}

[tokyo]
kind = "kling"
key = "sk-tokyo"
webhook_secrets = ["{SECRETS[0]}", "{SECRETS[1]}"]
types = ["*-to-video"]
"""


ONLY_GATEWAY = FILE.partition("[tokyo]")[0]


def with_providers(folder: Path, text: str = FILE, **settings: Any) -> Any:
    path = folder / "providers.toml"
    path.write_text(text)
    named = {"KLINGEL_PROVIDER_KEY": None, "provider": None, "providers": path}
    return running_klingel(folder, **{**named, **settings})


def went_to(kling: FakeKling) -> Sequence[tuple[str, str]]:
    """To which host, by which key."""
    return [(request.url.host, request.headers["authorization"]) for request in kling.requests]


GATEWAY = ("api.cometapi.com", "Bearer sk-gateway")
TOKYO = ("api-singapore.klingai.com", "Bearer sk-tokyo")


async def test_a_task_goes_to_the_account_that_is_meant_for_it_or_named(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        picture = await klingel.submit()
        film = await klingel.submit("kling.multi-image-to-video")
        named = await klingel.submit("kling.multi-image-to-video", provider="gateway")
        assert [task["provider"] for task in (picture, film, named)] == ["gateway", "tokyo", "gateway"]
        assert went_to(klingel.kling) == [GATEWAY, TOKYO, GATEWAY]
        paths = [httpx.URL(create["callback_url"]).path for create in klingel.kling.creates]
        assert [path.split("/")[2] for path in paths] == ["gateway", "tokyo", "gateway"]


async def test_the_drop_in_api_takes_the_one_that_is_meant_for_the_type(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        body = {"prompt": "x", "image_list": [{"image": "https://example.com/a.png"}] * 2}
        response = await klingel.http.post("/kling/v1/videos/multi-image2video", json=body)
        assert response.status_code == 200, response.text
        assert went_to(klingel.kling) == [TOKYO]


@pytest.mark.parametrize("provider", ["nobody", "tokyo"])
async def test_an_account_that_cannot_is_refused_with_all_else_that_is_wrong(
    tmp_path: Path, provider: str
) -> None:
    async with with_providers(tmp_path) as klingel:
        body = {"type": "kling.multi-image-to-image", "provider": provider, "input": {}, "deadline_s": -1}
        response = await klingel.http.post("/v1/tasks", json=body)
        assert response.status_code == 422
        assert {"#/provider", "#/deadline_s", "#/input/subject_image_list"} <= {*pointers(response)}
        assert klingel.kling.requests == []


async def test_an_account_that_does_not_exist_is_told_with_a_type_that_does_not(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        body = {"type": "no.such", "provider": "nobody", "input": {}}
        assert pointers(await klingel.http.post("/v1/tasks", json=body)) == ["#/type", "#/provider"]
        body = {"type": "no.such", "provider": "tokyo", "input": {}}
        assert pointers(await klingel.http.post("/v1/tasks", json=body)) == ["#/type"]


async def test_follow_ups_that_no_account_takes_are_refused_before_anything_is_paid(tmp_path: Path) -> None:
    """Whether a task brings them or a rule stands for all: each fault at its place, with all others."""

    def template(type: str, **more: Any) -> Mapping[str, Any]:
        inputs = {"prompt": "x", "image_list": [{"image": "https://example.com/a.png"}] * 2}
        return {"type": type, "input": inputs, **more}

    film = "kling.multi-image-to-video"
    chain = template(film, follow_ups=[{"on": "task.succeeded", "submit": template(film, provider="nobody")}])
    follow_ups = [
        {"on": "task.succeeded", "submit": submit}
        for submit in (template("kling.multi-image-to-image"), chain, template(film))
    ]
    text = FILE.replace('kind = "cometapi"', 'kind = "kling"\ntypes = ["*-to-video"]')
    async with with_providers(tmp_path, text) as klingel:
        body = {**template(film, follow_ups=follow_ups), "deadline_s": -1}
        refused_task = await klingel.http.post("/v1/tasks", json=body)
        rule = {"kind": "task", "config": {"submit": chain}}
        refused_rule = await klingel.http.post("/v1/endpoints", json=rule)
        assert klingel.kling.requests == []
    nested = "follow_ups/0/submit/provider"
    assert {"#/follow_ups/0/submit/type", f"#/follow_ups/1/submit/{nested}", "#/deadline_s"} <= {
        *pointers(refused_task)
    }
    assert not any(pointer.startswith("#/follow_ups/2") for pointer in pointers(refused_task))
    assert pointers(refused_rule) == [f"#/config/submit/{nested}"]


async def test_each_account_has_its_own_secrets(tmp_path: Path) -> None:
    """Both of two secrets are good while one replaces the other; the account without any is told by its URL."""
    async with with_providers(tmp_path) as klingel:
        film = await klingel.submit("kling.multi-image-to-video")
        body = json.dumps(callback(film, "processing")).encode()
        path = klingel.callback_path()
        unsigned = await klingel.http.post(path, content=body)
        assert unsigned.status_code == 404
        for number, secret in enumerate(SECRETS):
            now = klingel.clock()
            signature = sign(body, message_id=f"msg-{number}", sent_at=now, secrets=[secret])
            headers = {
                "webhook-id": f"msg-{number}",
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signature,
            }
            assert (await klingel.http.post(path, content=body, headers=headers)).status_code == 200
        assert await klingel.verdicts(film["id"]) == ["forged", "advanced", "duplicate"]
        picture = await klingel.submit()
        assert (await klingel.call_back(succeed(picture))).status_code == 200


async def test_a_token_of_one_account_is_none_of_anothers(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        task = await klingel.submit()
        elsewhere = klingel.callback_path().replace("/gateway/", "/tokyo/")
        assert (await klingel.http.post(elsewhere, json=succeed(task))).status_code == 404


async def test_no_more_are_sent_than_an_account_has_slots(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        first = [await klingel.submit(), await klingel.submit()]
        third = await klingel.submit_async()
        other = await klingel.submit("kling.multi-image-to-video")  # of another account, which has no limit
        assert other["status"] == "submitted"
        waiting = await klingel.until_row(third["id"], awaits_slot=1)
        assert waiting["sends"] == 0
        assert len(klingel.kling.creates) == 3
        await klingel.call_back(succeed(first[0]), number=0)
        await klingel.kling.until(4)
        assert (await klingel.until_status(third["id"], "submitted"))["provider"] == "gateway"


async def test_an_account_that_hangs_holds_up_no_other_and_what_waits_for_it_goes_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with with_providers(tmp_path) as klingel:
        hangs = [OpenCreate(accepted(f"77{number:016d}")) for number in range(CREATES_AT_A_TIME)]
        klingel.kling.answers(*hangs)
        films = [
            await klingel.submit_async("kling.multi-image-to-video") for _ in range(CREATES_AT_A_TIME + 1)
        ]
        await klingel.kling.until(CREATES_AT_A_TIME)
        picture = await klingel.submit()
        assert (picture["provider"], picture["status"]) == ("gateway", "submitted")
        assert klingel.row(films[-1]["id"])["sends"] == 0
        hangs[0].end()
        await klingel.until_status(films[-1]["id"], "submitted")
        assert went_to(klingel.kling) == [*[TOKYO] * CREATES_AT_A_TIME, GATEWAY, TOKYO]
        for one in hangs:
            one.end()


async def test_pictures_take_a_slot_each_and_more_than_there_are_go_alone(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        pictures = [{"subject_image": f"https://example.com/{name}.png"} for name in "ab"]
        body = {"prompt": "x", "subject_image_list": pictures, "n": 5}
        alone = await klingel.http.post(
            "/v1/tasks", json={"type": "kling.multi-image-to-image", "input": body}
        )
        assert alone.json()["status"] == "submitted"
        behind = await klingel.submit_async()
        await klingel.until_row(behind["id"], awaits_slot=1)
        assert len(klingel.kling.creates) == 1


async def test_all_places_of_one_that_is_refused_for_good_go_to_those_who_wait(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        refusal = OpenCreate(refused(400, 1301))
        klingel.kling.answers(refusal)
        body = {"type": "kling.multi-image-to-image", "input": {**IMAGE_INPUT, "n": 2}}
        await klingel.http.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})
        await klingel.kling.until(1)
        singles = [await klingel.submit_async(), await klingel.submit_async()]
        for single in singles:
            await klingel.until_row(single["id"], awaits_slot=1)
        refusal.end()
        for single in singles:
            await klingel.until_status(single["id"], "submitted")


async def test_places_of_a_task_that_is_overdue_go_to_those_who_wait(tmp_path: Path) -> None:
    async with with_providers(tmp_path) as klingel:
        for _ in range(2):
            await klingel.submit(deadline_s=5)
        waiting = await klingel.submit_async()
        await klingel.until_row(waiting["id"], awaits_slot=1)
        klingel.clock.advance(seconds=6)
        await klingel.until_status(waiting["id"], "submitted")


@pytest.mark.parametrize("type", ["kling.image-generation", "kling.virtual-try-on"])
async def test_slots_add_up_for_one_who_needs_many_and_no_type_of_the_kind_overtakes_it(
    tmp_path: Path, type: str
) -> None:
    """The operator counts by kind, whatever packs the provider has."""
    inputs = {
        "kling.image-generation": {"prompt": "a cat"},
        "kling.virtual-try-on": {
            "human_image": "https://example.com/a.png",
            "cloth_image": "https://example.com/b.png",
        },
    }
    slots = ONLY_GATEWAY.replace("image = 2", "image = 5")
    async with with_providers(tmp_path, slots) as klingel:
        running = [await klingel.submit(type, input=inputs[type]) for _ in range(2)]
        needs_four = await klingel.submit_async(input={**IMAGE_INPUT, "n": 4})
        await klingel.until_row(needs_four["id"], awaits_slot=1)
        behind = [await klingel.submit_async(), await klingel.submit_async(type, input=inputs[type])]
        for task in behind:
            await klingel.until_row(task["id"], awaits_slot=1, sends=0)
        await klingel.call_back(callback(running[0], "failed"), number=0)
        await klingel.until_status(needs_four["id"], "submitted")
        assert [klingel.row(task["id"])["sends"] for task in behind] == [0, 0]
        await klingel.call_back(callback(needs_four, "failed"), number=2)
        for task in behind:
            await klingel.until_status(task["id"], "submitted")


async def test_an_account_that_is_gone_is_still_called_back_for(tmp_path: Path) -> None:
    """Also where it signed: its secrets are gone with it, and what is left is the URL that nobody can guess."""
    async with with_providers(tmp_path) as klingel:
        film = await klingel.submit("kling.multi-image-to-video")
        path = klingel.callback_path()
    async with with_providers(tmp_path, ONLY_GATEWAY) as klingel:
        body = callback(
            film, "succeed", task_result={"videos": [{"id": "1", "url": "https://example.com/v"}]}
        )
        assert (await klingel.http.post(path, json=body)).status_code == 200
        assert (await klingel.task(film["id"]))["status"] == "succeeded"
        forged = path[:-3] + "abc"
        assert (await klingel.http.post(forged, json=body)).status_code == 404


async def test_what_waits_for_an_account_that_is_gone_is_kept_and_goes_when_it_is_back(
    tmp_path: Path,
) -> None:
    kling = FakeKling()
    kling.otherwise = httpx.ConnectError("not now")
    async with with_providers(tmp_path, kling=kling) as klingel:
        film = await klingel.submit_async("kling.multi-image-to-video")
        await klingel.until_row(film["id"], sends=1, sending_since=None)
        clock = klingel.clock
    clock.advance(minutes=10)
    async with with_providers(tmp_path, ONLY_GATEWAY, kling=FakeKling(), clock=clock) as klingel:
        row = await klingel.until_row(film["id"], sends=2, sending_since=None)
        assert row["status"] == "queued"
        assert "'tokyo'" in (await klingel.task(film["id"]))["waits_for"]
        refresh = await klingel.http.post(f"/v1/tasks/{film['id']}/refresh")
        assert refresh.status_code == 409
    clock.advance(minutes=10)
    async with with_providers(tmp_path, kling=FakeKling(), clock=clock) as klingel:
        sent = await klingel.until_status(film["id"], "submitted")
        assert (sent["provider"], "waits_for" in sent) == ("tokyo", False)
        assert went_to(klingel.kling) == [TOKYO]


async def test_costs_are_summed_by_account(tmp_path: Path) -> None:
    async with with_providers(
        tmp_path, FILE.replace(f'webhook_secrets = ["{SECRETS[0]}", "{SECRETS[1]}"]', "")
    ) as klingel:
        await end(klingel, await klingel.submit(), "3")
        await end(klingel, await klingel.submit("kling.multi-image-to-video"), "40")
        items = (await klingel.http.get("/v1/usage", params={"by": "provider"})).json()["items"]
        assert [(item["value"], item["amount"]) for item in items] == [("gateway", "3"), ("tokyo", "40")]


async def end(klingel: Klingel, task: Mapping[str, Any], units: str) -> None:
    response = await klingel.call_back(callback(task, "succeed", final_unit_deduction=units))
    assert response.status_code == 200


# The official API


@pytest.mark.parametrize("code", [1003, 1004])
async def test_a_clock_that_differs_from_the_official_apis_costs_one_try(tmp_path: Path, code: int) -> None:
    """The refusal tells the time there. One task, accepted once; the next one needs no second try."""
    async with running_klingel(
        tmp_path, provider="kling", provider_region="beijing", KLINGEL_PROVIDER_KEY="access:secret"
    ) as klingel:
        refusal = refused(401, code, "the token's time is not now")
        refusal.headers["date"] = "Sun, 22 Nov 2026 13:00:00 GMT"  # the clock here says 12
        klingel.kling.answers(refusal)
        assert (await klingel.submit())["status"] == "submitted"
        assert (await klingel.submit())["status"] == "submitted"
        assert {request.url.host for request in klingel.kling.requests} == {"api-beijing.klingai.com"}
        tokens = [claims(request) for request in klingel.kling.requests]
        noon = int(klingel.clock().timestamp())
        assert [token["nbf"] for token in tokens] == [noon - 5, noon + 3595, noon + 3595]
        assert {token["iss"] for token in tokens} == {"access"}


@pytest.mark.parametrize("code", [1003, 1004])
async def test_a_refresh_makes_up_for_a_clock_that_differs_too(tmp_path: Path, code: int) -> None:
    """As after a restart, when no create has been told the time there."""
    async with running_klingel(tmp_path, provider="kling", KLINGEL_PROVIDER_KEY="access:secret") as klingel:
        task = await klingel.submit()
        refusal = refused(401, code, "the token's time is not now")
        refusal.headers["date"] = "Sun, 22 Nov 2026 13:00:00 GMT"  # the clock here says 12
        klingel.kling.answers(refusal)
        response = await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")
        assert response.status_code == 200, response.text
        tokens = [claims(request) for request in klingel.kling.requests if request.method == "GET"]
        noon = int(klingel.clock().timestamp())
        assert [token["nbf"] for token in tokens] == [noon - 5, noon + 3595]


def claims(request: httpx.Request) -> dict[str, Any]:
    payload = request.headers["authorization"].split(".")[1]
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return told


# Raw


async def raw(klingel: Klingel, **input: Any) -> dict[str, Any]:
    response = await klingel.http.post("/v1/tasks", json={"type": "kling.raw", "input": input})
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.json()
    return task


async def test_a_raw_task_posts_a_body_of_ones_own_with_the_callback_url_in_it(klingel: Klingel) -> None:
    task = await raw(klingel, path="/v1/videos/of-tomorrow", body={"model_name": "kling-v9", "wish": [1, 2]})
    [request] = klingel.kling.requests
    sent = klingel.kling.creates[0]
    assert request.url.path == "/kling/v1/videos/of-tomorrow"
    assert {"model_name": "kling-v9", "wish": [1, 2]}.items() <= sent.items()
    assert sent["callback_url"].startswith("https://klingel.example.com/callbacks/cometapi/")
    assert sent["external_task_id"] == task["external_task_id"]
    outputs = {"videos": [{"id": "1", "url": "https://example.com/v.mp4", "duration": "5.0"}]}
    await klingel.call_back(callback(task, "succeed", task_result=outputs))
    ended = await klingel.task(task["id"])
    assert (ended["status"], ended["outputs"][0]["kind"]) == ("succeeded", "video")


async def test_a_raw_task_of_the_new_standard_has_it_among_its_options(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, provider="kling") as klingel:
        body = {"contents": [{"type": "text", "text": "a cat"}], "options": {"watermark": False}}
        task = await raw(klingel, path="/text-to-video/kling-9", body=body, standard="new")
        [sent] = klingel.kling.creates
        assert klingel.kling.requests[0].url.path == "/text-to-video/kling-9"
        assert "callback_url" not in sent
        assert sent["options"]["watermark"] is False
        assert sent["options"]["external_task_id"] == task["external_task_id"]
        told = {
            "id": task["provider_task_id"],
            "status": "succeeded",
            "external_id": task["external_task_id"],
            "outputs": [{"type": "audio", "id": "a", "mp3_url": "https://example.com/a.mp3"}],
            "billing": [{"charge_type": "unit", "amount": "0.5", "package_type": "audio"}],
        }
        path = httpx.URL(sent["options"]["callback_url"]).path
        assert (await klingel.http.post(path, json=told)).status_code == 200
        ended = await klingel.task(task["id"])
        assert [output["kind"] for output in ended["outputs"]] == ["audio"]
        assert ended["cost"] == [{"amount": "0.5", "unit": "units", "package": "audio"}]


@pytest.mark.parametrize("path", ["/v1/../account/costs", "//evil.example.com/x", "/v1/x?key=1"])
async def test_a_raw_task_goes_nowhere_else(klingel: Klingel, path: str) -> None:
    response = await klingel.http.post(
        "/v1/tasks", json={"type": "kling.raw", "input": {"path": path, "body": {}}}
    )
    assert response.status_code == 422
    assert pointers(response) == ["#/input/path"]
    assert klingel.kling.requests == []
