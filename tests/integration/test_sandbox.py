"""The sandbox over ASGI, its callbacks going to a receiver in this process."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from typing import Any

import anyio
import av
import httpx
import pytest
from PIL import Image
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from handlers.providers.sandbox import Fault, Fetch, Sandbox, SandboxSettings, create_sandbox

pytestmark = pytest.mark.sqlite_alone  # no database here

SECRET = "whsec_a2xpbmctd2ViaG9vay1kZW1vLWtleS0wMTIzNDU2Nzg5"  # Kling, "Callback protocol"
IMAGES = "/kling/v1/images/multi-image2image"
OLDER_IMAGES = "/kling/v1/images/generations"
VIDEOS = "/kling/v1/videos/multi-image2video"
CALLBACK_URL = "https://klingel.example/callbacks/kling/task_1/s3cret"
QUICK = SandboxSettings(step=timedelta(0))


class Receiver:
    """Where callbacks arrive. `answers` are given in turn, then 200 for ever."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.gate = anyio.Event()
        self.gate.set()
        self._arrived = anyio.Condition()
        self.app = Starlette(routes=[Route("/{path:path}", self._receive, methods=["POST"])])

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]

    @property
    def words(self) -> list[str]:
        return [body["task_status"] for body in self.bodies]

    async def until(self, count: int) -> None:
        with anyio.fail_after(60):
            async with self._arrived:
                while len(self.requests) < count:
                    await self._arrived.wait()

    async def _receive(self, request: Request) -> Response:
        content = await request.body()
        async with self._arrived:
            self.requests.append(
                httpx.Request("POST", str(request.url), headers=request.headers.raw, content=content)
            )
            self._arrived.notify_all()
        await self.gate.wait()
        return self.answers.pop(0) if self.answers else Response()


@asynccontextmanager
async def kling(
    settings: SandboxSettings = QUICK, *, receiver: Receiver | None = None, fetch: Fetch | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(receiver.app) if receiver else None
    sandbox = Sandbox(settings, transport=transport, fetch=fetch)
    async with sandbox.running(), client_of(sandbox.app) as client:
        yield client


def client_of(app: Starlette, key: str = "sk-1") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="https://kling.example",
        headers={"authorization": f"Bearer {key}"},
    )


def picture(colour: str = "#d02020") -> bytes:
    content = BytesIO()
    Image.new("RGB", (400, 400), colour).save(content, "PNG")
    return content.getvalue()


def images(prompt: str = "", **fields: object) -> dict[str, object]:
    source = {"subject_image": base64.b64encode(picture()).decode()}
    return {"subject_image_list": [source, source], "prompt": prompt, **fields}


def linked(prompt: str = "", **fields: object) -> dict[str, object]:
    sources = [{"subject_image": f"https://cdn.example.com/{name}.png"} for name in ("a", "b")]
    return {"subject_image_list": sources, "prompt": prompt, **fields}


def videos(prompt: str, **fields: object) -> dict[str, object]:
    return {"image_list": [{"image": "https://cdn.example.com/a.png"}] * 2, "prompt": prompt, **fields}


async def story(*faults: Fault, count: int, **fields: object) -> tuple[Receiver, dict[str, Any]]:
    """A task with these faults until `count` callbacks have arrived; its create's answer."""
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        prompt = " ".join(f"sandbox:{fault}" for fault in faults)
        response = await client.post(IMAGES, json=linked(prompt, callback_url=CALLBACK_URL, **fields))
        await receiver.until(count)
    return receiver, response.json()


async def created_count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/log")).json()["created"])


async def test_a_task_runs_to_its_end_and_calls_back_at_each_change() -> None:
    receiver, answer = await story(count=3, external_task_id="job-42", n=2)
    task_id = answer["data"]["task_id"]
    assert answer["code"] == 0
    assert answer["message"] == "SUCCEED"
    assert answer["request_id"]
    assert answer["data"]["task_status"] == "submitted"
    assert answer["data"]["task_info"] == {"external_task_id": "job-42"}
    assert answer["data"]["created_at"] == answer["data"]["updated_at"]
    assert task_id.isdigit()
    assert len(task_id) == 18
    assert receiver.words == ["submitted", "processing", "succeed"]
    assert {request.headers["content-type"] for request in receiver.requests} == {
        "application/json; charset=utf-8"
    }
    assert {str(request.url) for request in receiver.requests} == {CALLBACK_URL}
    for body in receiver.bodies:
        assert body["task_id"] == task_id
        assert body["task_info"] == {"external_task_id": "job-42"}
        assert body["created_at"] == answer["data"]["created_at"]
    last = receiver.bodies[-1]
    assert last["final_unit_deduction"] == "16"
    assert last["final_balance_deduction"] == {"quota": "0", "list_price": "0"}
    assert [image["index"] for image in last["task_result"]["images"]] == [0, 1]
    assert [set(image) for image in last["task_result"]["images"]] == [{"index", "url"}] * 2
    assert [body["task_result"] for body in receiver.bodies[:2]] == [{}, {}]


async def test_a_task_is_found_by_either_id_under_either_prefix_and_nowhere_else() -> None:
    async with kling() as client:
        create = await client.post(IMAGES, json=linked("sandbox:early", external_task_id="job-1"))
        task_id = create.json()["data"]["task_id"]
        for name in (task_id, "job-1"):
            for path in (IMAGES, "/v1/images/multi-image2image"):
                found = (await client.get(f"{path}/{name}")).json()["data"]
                assert found["task_id"] == task_id
                assert found["task_status"] == "succeed"
                assert found["watermark_info"] == {"enabled": False}
                assert found["task_result"]["images"][0]["watermark_url"] == ""
        for path in (f"{IMAGES}/nobody", f"{VIDEOS}/{task_id}"):
            missing = await client.get(path)
            assert (missing.status_code, missing.json()["code"]) == (400, 1201)
            assert "not found" in missing.json()["message"]


async def test_tasks_of_another_key_cannot_be_seen_and_do_not_collide() -> None:
    sandbox = Sandbox(QUICK)
    async with sandbox.running(), client_of(sandbox.app) as ours, client_of(sandbox.app, "sk-2") as theirs:
        body = linked(external_task_id="job-1")
        task_id = (await ours.post(IMAGES, json=body)).json()["data"]["task_id"]
        assert (await theirs.get(f"{IMAGES}/{task_id}")).json()["code"] == 1201
        assert (await theirs.get(IMAGES)).json()["data"] == []
        assert (await theirs.post(IMAGES, json=body)).status_code == 200


async def test_the_list_shows_the_newest_first_page_by_page() -> None:
    async with kling() as client:
        for place in range(5):
            await client.post(IMAGES, json=linked(external_task_id=f"job-{place}"))
        pages = [
            [
                task["task_info"]["external_task_id"]
                for task in (await client.get(f"{IMAGES}?pageNum={number}&pageSize=2")).json()["data"]
            ]
            for number in (1, 2, 3, 4)
        ]
        assert pages == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"], []]
        for query in ("pageNum=0", "pageNum=1001", "pageSize=501", "pageSize=x", "pageNum=²"):
            assert (await client.get(f"{IMAGES}?{query}")).json()["code"] == 1201


async def test_an_external_id_serves_one_task_only() -> None:
    async with kling() as client:
        await client.post(IMAGES, json=linked(external_task_id="job-1"))
        again = await client.post(VIDEOS, json=videos("a cat", external_task_id="job-1"))
        assert (again.status_code, again.json()["code"]) == (400, 1201)
        assert "already exists" in again.json()["message"]
        assert await created_count(client) == 1


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, 1001), ("", 1001), ("Bearer sk-9", 1002), ("Bearer ", 1002), ("Basic sk-1", 1002)],
)
async def test_strangers_are_turned_away(header: str | None, code: int) -> None:
    sandbox = Sandbox(SandboxSettings(keys=frozenset({"sk-1"})))
    headers = {} if header is None else {"authorization": header}
    transport = httpx.ASGITransport(sandbox.app)
    async with (
        sandbox.running(),
        httpx.AsyncClient(transport=transport, base_url="https://kling.example", headers=headers) as client,
    ):
        for method, path in (("POST", IMAGES), ("GET", f"{IMAGES}/1"), ("GET", "/log"), ("PUT", "/settings")):
            response = await client.request(method, path)
            assert (response.status_code, response.json()["code"]) == (401, code)


async def test_a_fresh_token_of_the_same_issuer_is_the_same_account() -> None:
    def token(number: int) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"iss": "access-1", "exp": number}).encode()).decode()
        return f"e30.{claims.rstrip('=')}.signature{number}"

    sandbox = Sandbox(SandboxSettings(keys=frozenset({"access-1"})))
    async with sandbox.running():
        async with client_of(sandbox.app, token(1)) as client:
            assert (await client.post(IMAGES, json=linked(external_task_id="job-1"))).status_code == 200
        async with client_of(sandbox.app, token(2)) as client:
            assert (await client.get(f"{IMAGES}/job-1")).status_code == 200
            repeated = await client.post(IMAGES, json=linked(external_task_id="job-1"))
            assert repeated.json()["code"] == 1201


async def test_a_broken_order_creates_nothing() -> None:
    async with kling() as client:
        for body in (b"{", b"[]", json.dumps(linked(n=10)).encode()):
            response = await client.post(IMAGES, content=body)
            assert response.status_code == 400
            assert response.json()["code"] in {1200, 1201}
            assert response.json()["request_id"]
        assert await created_count(client) == 0


async def test_an_unknown_path_or_method_is_answered_as_kling_does() -> None:
    async with kling() as client:
        for method, path in (("POST", "/kling/v1/images/expand"), ("DELETE", IMAGES), ("GET", f"{IMAGES}/")):
            response = await client.request(method, path)
            assert (response.status_code, response.json()["code"]) == (404, 1202)


async def test_a_body_without_end_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1024 * 1024

    async with kling() as client:
        assert (await client.post(IMAGES, content=endless())).status_code == 413


async def test_pictures_are_real_and_can_be_fetched_in_part() -> None:
    async with kling() as client:
        create = await client.post(
            OLDER_IMAGES, json=images("sandbox:early two friends", n=2, aspect_ratio="1:1", scence_image=None)
        )
        task = (await client.get(f"{OLDER_IMAGES}/{create.json()['data']['task_id']}")).json()["data"]
        urls = [image["url"] for image in task["task_result"]["images"]]
        assert len(set(urls)) == 2
        whole = await client.get(urls[0])
        assert whole.headers["content-type"] == "image/png"
        assert int(whole.headers["content-length"]) == len(whole.content)
        with Image.open(BytesIO(whole.content)) as image:
            image.load()
            assert image.size == (1024, 1024)
            assert image.getpixel((256, 256)) == pytest.approx((208, 32, 32), abs=8)
        part = await client.get(urls[0], headers={"range": "bytes=4-9"})
        assert (part.status_code, part.content) == (206, whole.content[4:10])
        assert (await client.get("/files/unknown.png")).status_code == 404


@pytest.mark.parametrize("inputs", [{}, {"image": "https://cdn.example.com/a.png"}])
async def test_pictures_from_text_or_one_picture_are_tasks_like_the_others(inputs: dict[str, str]) -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        body = {
            "prompt": "sandbox:early a cat",
            "callback_url": CALLBACK_URL,
            "n": 2,
            "colour": "red",
            **inputs,
        }
        task_id = (await client.post(OLDER_IMAGES, json=body)).json()["data"]["task_id"]
        await client.post(OLDER_IMAGES, json=linked("sandbox:early"))
        found = (await client.get(f"{OLDER_IMAGES}/{task_id}")).json()["data"]
        second_page = (await client.get(f"{OLDER_IMAGES}?pageNum=2&pageSize=1")).json()["data"]
        assert second_page == [found]
        assert (await client.get(f"/v1/images/generations/{task_id}")).json()["data"] == found
        for output in found["task_result"]["images"]:
            with Image.open(BytesIO((await client.get(output["url"])).content)) as image:
                assert image.size == (1024, 576)
    assert receiver.words == ["submitted", "processing", "succeed"]
    assert found["final_unit_deduction"] == "16"


async def test_films_are_real() -> None:
    async with kling() as client:
        create = await client.post(VIDEOS, json=videos("sandbox:early a cat", aspect_ratio="9:16"))
        task = (await client.get(f"{VIDEOS}/{create.json()['data']['task_id']}")).json()["data"]
        (video,) = task["task_result"]["videos"]
        assert video["duration"] == "5.000"
        assert video["id"]
        response = await client.get(video["url"])
        assert response.headers["content-type"] == "video/mp4"
        with av.open(BytesIO(response.content)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 50
        assert task["final_unit_deduction"] == "20"


@pytest.fixture
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are fetched however long it takes."""
    monkeypatch.setattr("handlers.providers.sandbox.lives.FETCH_TIME", timedelta(minutes=1))


@pytest.mark.usefixtures("_is_patient")
async def test_linked_inputs_are_drawn_only_through_the_fetch_that_was_handed_in() -> None:
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        if url.endswith("b.png"):
            raise ConnectionError(url)
        return picture()

    async with kling(fetch=fetch) as client:
        create = await client.post(IMAGES, json=linked("sandbox:early", aspect_ratio="1:1"))
        task = (await client.get(f"{IMAGES}/{create.json()['data']['task_id']}")).json()["data"]
        drawn = await client.get(task["task_result"]["images"][0]["url"])
    assert sorted(asked) == ["https://cdn.example.com/a.png", "https://cdn.example.com/b.png"]
    with Image.open(BytesIO(drawn.content)) as image:
        assert image.getpixel((256, 256)) == pytest.approx((208, 32, 32), abs=8)
        assert image.getpixel((768, 256)) != pytest.approx((208, 32, 32), abs=60)


async def test_mounted_it_names_its_files_under_the_mount() -> None:
    sandbox = Sandbox(QUICK)
    parent = Starlette(routes=[Mount("/sandbox", sandbox.app)])
    async with sandbox.running(), client_of(parent) as client:
        create = await client.post(f"/sandbox{IMAGES}", json=linked("sandbox:early"))
        query = await client.get(f"/sandbox{IMAGES}/{create.json()['data']['task_id']}")
        url = query.json()["data"]["task_result"]["images"][0]["url"]
        assert url.startswith("https://kling.example/sandbox/files/")
        assert (await client.get(url)).status_code == 200


async def test_a_public_url_takes_the_place_of_the_requested_one() -> None:
    async with kling(SandboxSettings(step=timedelta(0), public_url="https://cdn.example/s")) as client:
        create = await client.post(IMAGES, json=linked("sandbox:early"))
        query = await client.get(f"{IMAGES}/{create.json()['data']['task_id']}")
        url = query.json()["data"]["task_result"]["images"][0]["url"]
        assert url.startswith("https://cdn.example/s/files/")


async def test_alone_it_runs_by_its_own_lifespan() -> None:
    app = create_sandbox(QUICK)
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.post(IMAGES, json=linked("sandbox:early"))).json()["code"] == 0


async def test_signed_callbacks_verify_and_each_has_its_own_id() -> None:
    receiver = Receiver()
    async with kling(SandboxSettings(step=timedelta(0), webhook_secret=SECRET), receiver=receiver) as client:
        await client.post(IMAGES, json=linked("红伞 sandbox:early", callback_url=CALLBACK_URL))
    for request in receiver.requests:
        Webhook(SECRET).verify(request.content, dict(request.headers))
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 3


async def test_unsigned_callbacks_carry_no_signature_headers() -> None:
    receiver, _ = await story(count=3)
    assert not any(name.startswith("webhook-") for request in receiver.requests for name in request.headers)


async def test_kling_sends_once_whatever_the_receiver_answers() -> None:
    receiver = Receiver(Response(status_code=500), RedirectResponse("/elsewhere", status_code=307))
    async with kling(receiver=receiver) as client:
        await client.post(IMAGES, json=linked("sandbox:early", callback_url=CALLBACK_URL))
        attempts = (await client.get("/log")).json()["callbacks"]
    assert receiver.words == ["submitted", "processing", "succeed"]
    assert [attempt["http_status"] for attempt in attempts] == [500, 307, 200]


async def test_retries_come_under_the_same_id_when_asked_for() -> None:
    receiver = Receiver(Response(status_code=503), Response(status_code=503))
    settings = SandboxSettings(step=timedelta(0), callback_retries=2, webhook_secret=SECRET)
    async with kling(settings, receiver=receiver) as client:
        await client.post(IMAGES, json=linked("sandbox:early", callback_url=CALLBACK_URL))
    assert receiver.words == ["submitted", "submitted", "submitted", "processing", "succeed"]
    assert len({request.headers["webhook-id"] for request in receiver.requests[:3]}) == 1


async def test_a_receiver_that_never_answers_is_given_up() -> None:
    receiver = Receiver()
    receiver.gate = anyio.Event()
    settings = SandboxSettings(step=timedelta(0), callback_timeout=timedelta(milliseconds=100))
    async with kling(settings, receiver=receiver) as client:
        await client.post(IMAGES, json=linked("sandbox:early", callback_url=CALLBACK_URL))
        attempts = (await client.get("/log")).json()["callbacks"]
    assert [attempt["error"] for attempt in attempts] == ["timeout"] * 3


async def test_a_slow_receiver_holds_up_no_task() -> None:
    receiver, at_work = Receiver(), anyio.Event()
    receiver.gate = anyio.Event()

    async def fetch(_url: str) -> bytes:
        at_work.set()
        return picture()

    async with kling(receiver=receiver, fetch=fetch) as client:
        await client.post(IMAGES, json=linked(callback_url=CALLBACK_URL))
        await receiver.until(1)
        with anyio.fail_after(60):
            await at_work.wait()
        assert receiver.words == ["submitted"]
        receiver.gate.set()
        await receiver.until(3)


async def test_a_refused_connection_is_noted_and_harms_nothing() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    sandbox = Sandbox(QUICK, transport=httpx.MockTransport(refuse))
    async with sandbox.running(), client_of(sandbox.app) as client:
        await client.post(IMAGES, json=linked("sandbox:early", callback_url=CALLBACK_URL))
        attempts = (await client.get("/log")).json()["callbacks"]
    assert [attempt["error"] for attempt in attempts] == ["ConnectError"] * 3


async def test_the_log_tells_calls_callbacks_and_creations_but_no_callback_path() -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        create = await client.post(
            IMAGES, json=linked("sandbox:early", callback_url=CALLBACK_URL, external_task_id="job-1")
        )
        task_id = create.json()["data"]["task_id"]
        query = await client.get(f"{IMAGES}/job-1")
        await client.get(IMAGES)
        await client.get(query.json()["data"]["task_result"]["images"][0]["url"])
        await client.post(IMAGES, json=linked("sandbox:429"))
        response = await client.get("/log")
        log = response.json()
        assert [
            (call["kind"], call["method"], call["status"], call["code"], call["task_id"])
            for call in log["calls"]
        ] == [
            ("create", "POST", 200, 0, task_id),
            ("query", "GET", 200, 0, task_id),
            ("list", "GET", 200, 0, None),
            ("file", "GET", 200, None, None),
            ("create", "POST", 429, None, None),
        ]
        assert [call["external_task_id"] for call in log["calls"][:2]] == ["job-1", "job-1"]
        assert [(entry["task_id"], entry["external_task_id"]) for entry in log["created"]] == [
            (task_id, "job-1")
        ]
        assert [
            (attempt["status_word"], attempt["http_status"], attempt["error"]) for attempt in log["callbacks"]
        ] == [("submitted", 200, None), ("processing", 200, None), ("succeed", 200, None)]
        assert {attempt["url"] for attempt in log["callbacks"]} == {"https://klingel.example"}
        assert "s3cret" not in response.text
        assert (await client.delete("/log")).status_code == 204
        assert (await client.get("/log")).json() == {"calls": [], "callbacks": [], "created": []}


async def test_settings_are_changed_while_it_runs() -> None:
    async with kling() as client:
        changed = await client.put("/settings", json={"faults": ["1302"], "step_s": 0, "slots": 2})
        assert changed.json() == (await client.get("/settings")).json()
        assert changed.json()["faults"] == ["1302"]
        assert set(changed.json()["known_faults"]) == set(Fault)
        assert (await client.post(IMAGES, json=linked())).json()["code"] == 1302
        for content in (b'{"faults": ["nonsense"]}', b"{"):
            assert (await client.put("/settings", content=content)).status_code == 400
        await client.put("/settings", json={"faults": []})
        assert (await client.post(IMAGES, json=linked())).json()["code"] == 0


async def test_slots_are_held_by_n_pictures_or_one_film_until_the_end() -> None:
    settings = SandboxSettings(step=timedelta(hours=1), slots=3)
    async with kling(settings) as client:
        codes = [
            (await client.post(path, json=body)).json()["code"]
            for path, body in (
                (IMAGES, linked(n=2)),
                (IMAGES, linked(n=2)),
                (IMAGES, linked(n=1)),
                (IMAGES, linked(n=1)),
                (VIDEOS, videos("a cat")),
            )
        ]
        assert codes == [0, 1303, 0, 1303, 0]


async def test_an_ended_task_has_freed_its_slots_before_it_calls_back() -> None:
    receiver = Receiver()
    async with kling(SandboxSettings(step=timedelta(0), slots=1), receiver=receiver) as client:
        body = linked(callback_url=CALLBACK_URL)
        await client.post(IMAGES, json=body)
        await receiver.until(3)
        assert (await client.post(IMAGES, json=body)).json()["code"] == 0


async def test_fail_ends_the_task_with_a_reason_and_no_result() -> None:
    receiver, _ = await story(Fault.FAIL, count=3)
    assert receiver.words == ["submitted", "processing", "failed"]
    assert "review" in receiver.bodies[-1]["task_status_msg"]
    assert receiver.bodies[-1]["task_result"] == {}
    assert "final_unit_deduction" not in receiver.bodies[-1]


async def test_early_calls_back_before_the_create_is_answered() -> None:
    receiver = Receiver()
    receiver.gate = anyio.Event()
    answers: list[httpx.Response] = []

    async with kling(receiver=receiver) as client, anyio.create_task_group() as group:

        async def create() -> None:
            body = linked("sandbox:early", callback_url=CALLBACK_URL)
            answers.append(await client.post(IMAGES, json=body))

        group.start_soon(create)
        await receiver.until(1)
        assert answers == []
        receiver.gate.set()
        await receiver.until(3)
    assert answers[0].json()["data"]["task_status"] == "submitted"


async def test_never_succeeds_in_silence() -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        create = await client.post(
            IMAGES, json=linked("sandbox:never sandbox:early", callback_url=CALLBACK_URL)
        )
        query = await client.get(f"{IMAGES}/{create.json()['data']['task_id']}")
    assert query.json()["data"]["task_status"] == "succeed"
    assert receiver.requests == []


async def test_reordered_duplicated_and_contradicted_callbacks_arrive_as_asked_for() -> None:
    receiver, _ = await story(Fault.REORDER, Fault.CONTRADICT, count=4)
    assert receiver.words == ["succeed", "processing", "submitted", "failed"]
    receiver, _ = await story(Fault.DUPLICATE, count=9)
    assert receiver.words[-3:] == ["submitted", "processing", "succeed"]
    assert receiver.requests[4].content == receiver.requests[5].content == receiver.requests[8].content


async def test_empty_succeeds_first_and_brings_its_outputs_later() -> None:
    receiver, _ = await story(Fault.EMPTY, count=4)
    assert receiver.words == ["submitted", "processing", "succeed", "succeed"]
    first, second = receiver.bodies[2:]
    assert first["task_result"] == {}
    assert len(second["task_result"]["images"]) == 1
    assert second["updated_at"] >= first["updated_at"]


@pytest.mark.usefixtures("_is_patient")
async def test_until_then_a_query_finds_nothing_either() -> None:
    receiver, at_work, go_on = Receiver(), anyio.Event(), anyio.Event()

    async def fetch(_url: str) -> bytes:
        at_work.set()
        await go_on.wait()
        return picture()

    async with kling(receiver=receiver, fetch=fetch) as client:
        create = await client.post(IMAGES, json=linked("sandbox:empty", callback_url=CALLBACK_URL))
        path = f"{IMAGES}/{create.json()['data']['task_id']}"
        await at_work.wait()
        before = (await client.get(path)).json()["data"]
        go_on.set()
        await receiver.until(4)
        after = (await client.get(path)).json()["data"]
    assert (before["task_status"], before["task_result"]) == ("succeed", {})
    assert after["task_result"]["images"]


async def test_a_failed_task_stays_without_outputs() -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        body = linked("sandbox:empty sandbox:fail sandbox:early", callback_url=CALLBACK_URL)
        await client.post(IMAGES, json=body)
    assert receiver.words == ["submitted", "processing", "failed"]


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/callbacks/1",
        "http://klingel.example/callbacks/1",
        "https://klingel.example:8443/callbacks/1",
        "https://klingel.example@elsewhere.example/",
        "https://klingel.example\\@elsewhere.example/",
        "https://klingel.example.elsewhere.example/",
    ],
)
async def test_where_callbacks_may_go_is_the_operators_choice(url: str) -> None:
    settings = SandboxSettings(step=timedelta(0), callback_origins=frozenset({"https://klingel.example"}))
    receiver = Receiver()
    async with kling(settings, receiver=receiver) as client:
        refused = await client.post(IMAGES, json=linked(callback_url=url))
        assert (refused.status_code, refused.json()["code"]) == (400, 1201)
        assert "callback_url" in refused.json()["message"]
        assert await created_count(client) == 0
        for good in (CALLBACK_URL, "https://KLINGEL.example:443/callbacks/1"):
            await client.post(IMAGES, json=linked("sandbox:early", callback_url=good))
    assert len(receiver.requests) == 6


async def test_wrapped_callbacks_come_in_the_query_envelope() -> None:
    receiver, answer = await story(Fault.WRAPPED, count=3)
    assert [body["code"] for body in receiver.bodies] == [0, 0, 0]
    assert receiver.bodies[2]["data"]["task_id"] == answer["data"]["task_id"]
    assert receiver.bodies[2]["data"]["task_result"]["images"]


async def test_nested_callbacks_come_in_the_gateways_task_wrapper() -> None:
    receiver, answer = await story(Fault.NESTED, count=3)
    outer = receiver.bodies[2]["data"]
    assert (outer["action"], outer["status"], outer["progress"]) == ("multi-image2image", "SUCCESS", "100%")
    assert outer["data"]["task_id"] == answer["data"]["task_id"]
    assert outer["data"]["task_result"]["images"]


async def test_new_standard_callbacks_have_their_own_words() -> None:
    receiver, answer = await story(Fault.NEW, count=3, external_task_id="job-1")
    assert [body["status"] for body in receiver.bodies] == ["submitted", "processing", "succeeded"]
    last = receiver.bodies[2]
    assert (last["id"], last["external_id"]) == (answer["data"]["task_id"], "job-1")
    assert last["outputs"][0]["type"] == "image"
    assert last["billing"] == [{"charge_type": "unit", "amount": "8", "package_type": "image"}]


async def test_the_new_standard_has_its_own_answers_and_asks_for_many_at_once() -> None:
    """Kling, "Query Task (By task ID)": what is not there is left out."""
    body = {"prompt": "a cat", "options": {"external_task_id": "job-1", "callback_url": CALLBACK_URL}}
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        made = (await client.post("/text-to-video/kling-3.0-turbo", json=body)).json()
        assert made["data"].keys() == {"id", "status", "create_time", "update_time", "external_id"}
        task_id = made["data"]["id"]
        await receiver.until(3)
        assert [one["status"] for one in receiver.bodies] == ["submitted", "processing", "succeeded"]
        for query in ({"task_ids": f"{task_id},0"}, {"external_task_ids": "job-1"}):
            [found] = (await client.get("/tasks", params=query)).json()["data"]
            assert found == receiver.bodies[-1]
        assert (await client.get("/tasks", params={"task_ids": "0"})).json()["data"] == []
        assert (await client.get("/tasks")).json()["code"] == 1201
        unknown = await client.post("/text-to-video/kling-9", json=body)
        assert (unknown.status_code, unknown.json()["code"]) == (404, 1203)


async def test_words_that_steer_it_may_stand_in_any_text() -> None:
    """Some kinds of task have no prompt."""
    clothes = {"human_image": "https://example.com/a.png", "cloth_image": "https://example.com/b.png"}
    async with kling() as client:
        response = await client.post(
            "/kling/v1/images/kolors-virtual-try-on", json={**clothes, "external_task_id": "sandbox:arrears"}
        )
        assert (response.status_code, response.json()["code"]) == (429, 1101)


async def test_other_task_calls_back_under_foreign_ids() -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        body = linked("sandbox:other-task", external_task_id="job-1", callback_url=CALLBACK_URL)
        first = (await client.post(IMAGES, json=body)).json()["data"]["task_id"]
        await receiver.until(3)
        assert {body["task_id"] for body in receiver.bodies}.isdisjoint({first})
        assert "job-1" not in {body["task_info"]["external_task_id"] for body in receiver.bodies}
        await client.post(IMAGES, json=body | {"external_task_id": "job-2"})
        await receiver.until(6)
        assert {body["task_id"] for body in receiver.bodies[3:]} == {first}
        assert {body["task_info"]["external_task_id"] for body in receiver.bodies[3:]} == {"job-1"}


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        ("1302", 429, 1302),
        ("1303", 429, 1303),
        ("5001", 503, 5001),
        ("5000", 500, 5000),
        ("arrears", 429, 1101),
    ],
)
async def test_refusals_in_klings_words_create_nothing(word: str, status: int, code: int) -> None:
    async with kling() as client:
        response = await client.post(IMAGES, json=linked(f"sandbox:{word}"))
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.json()["request_id"]
        assert await created_count(client) == 0


def says_gateway(response: httpx.Response) -> bool:
    return response.json()["error"]["type"] == "comet_api_error" and "code" not in response.json()


@pytest.mark.parametrize(
    ("word", "status", "holds"),
    [
        ("429", 429, says_gateway),
        ("504", 504, says_gateway),
        ("html", 200, lambda response: response.headers["content-type"].startswith("text/html")),
        ("redirect", 301, lambda response: bool(response.headers["location"])),
    ],
)
async def test_refusals_by_what_stands_before_kling_create_nothing(
    word: str, status: int, holds: Callable[[httpx.Response], bool]
) -> None:
    async with kling() as client:
        response = await client.post(IMAGES, json=linked(f"sandbox:{word}"))
        assert response.status_code == status
        assert holds(response)
        assert await created_count(client) == 0


async def test_a_counted_refusal_lets_the_next_one_through() -> None:
    async with kling() as client:
        body = linked("sandbox:1303*2", external_task_id="job-1")
        codes = [(await client.post(IMAGES, json=body)).json()["code"] for _ in range(4)]
        assert codes == [1303, 1303, 0, 1201]
        other = linked("sandbox:1303*2", external_task_id="job-2")
        assert (await client.post(IMAGES, json=other)).json()["code"] == 1303


async def test_5000_after_accepting_runs_the_task_all_the_same() -> None:
    receiver = Receiver()
    async with kling(receiver=receiver) as client:
        body = linked("sandbox:5000-after-accepting", external_task_id="job-1", callback_url=CALLBACK_URL)
        response = await client.post(IMAGES, json=body)
        assert (response.status_code, response.json()["code"]) == (500, 5000)
        await receiver.until(3)
        assert (await client.post(IMAGES, json=body)).json()["code"] == 1201
        assert await created_count(client) == 1


async def test_no_request_id_leaves_it_out_of_the_creates_answer() -> None:
    async with kling() as client:
        answer = (await client.post(IMAGES, json=linked("sandbox:no-request-id"))).json()
        assert set(answer) == {"code", "message", "data"}


async def test_faults_in_the_settings_apply_to_every_task() -> None:
    receiver = Receiver()
    settings = SandboxSettings(step=timedelta(0), faults=frozenset({Fault.EARLY, Fault.FAIL}))
    async with kling(settings, receiver=receiver) as client:
        await client.post(IMAGES, json=linked(callback_url=CALLBACK_URL))
    assert receiver.words == ["submitted", "processing", "failed"]


async def test_tasks_under_way_are_abandoned_when_it_stops() -> None:
    with anyio.fail_after(60):
        async with kling(SandboxSettings(step=timedelta(hours=1))) as client:
            await client.post(IMAGES, json=linked())


async def test_an_error_beside_it_comes_through_as_it_is() -> None:
    with pytest.raises(LookupError):
        async with Sandbox(QUICK).running():
            raise LookupError


async def test_it_answers_only_while_it_runs() -> None:
    async with client_of(Sandbox(QUICK).app) as client:
        with pytest.raises(RuntimeError, match="running"):
            await client.post(IMAGES, json=linked())
