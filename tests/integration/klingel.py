"""The real app over ASGI, with a far side that the test plays: a provider, and receivers on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from service.app import Hooks, create_app
from service.settings import Settings, load_settings

ADMIN_KEY = "an-admin-key-for-tests"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATIENCE_S = 20  # for a signal that never comes; no test waits for it to pass

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class ManualClock:
    """Time stands still until a test moves it; whoever sleeps until a moment is woken to look again."""

    def __init__(self) -> None:
        self.now = START
        self.on_move: Callable[[], None] = lambda: None

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)
        self.on_move()


class FakeKling:
    """CometAPI at the far end of the wire: accepts, unless told what to answer next."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.next_answers: list[Answer] = []
        self.arrived = asyncio.Event()

    @property
    def creates(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests if request.method == "POST"]

    @property
    def status_queries(self) -> int:
        return sum(request.method == "GET" for request in self.requests)

    def answers(self, *answers: Answer) -> None:
        self.next_answers += answers

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.arrived.set()
        answer = self.next_answers.pop(0) if self.next_answers else accepted(f"88{len(self.requests):016d}")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        made = answer(request)
        return made if isinstance(made, httpx.Response) else await made


def accepted(provider_task_id: str) -> httpx.Response:
    data = {"task_id": provider_task_id, "task_status": "submitted", "created_at": 1, "updated_at": 1}
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


def refused(status: int, code: int, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "request_id": "r"})


@dataclass(frozen=True)
class Received:
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    path: str

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


class Receiver:
    """Somebody's webhook endpoint: answers 200, unless told otherwise."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.next_answers: list[tuple[int, Mapping[str, str]]] = []
        self.always: int = 200
        self.gate: asyncio.Event | None = None  # while set up and unset, answers wait
        self._changed = asyncio.Condition()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Receiver"]:
        runner = web.AppRunner(_receiving(self._handle), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}/hook"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self._changed:
            self.received.append(Received(headers, body, request.path))
            self._changed.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        status, extra = self.next_answers.pop(0) if self.next_answers else (self.always, {})
        return web.Response(status=status, headers=extra, text="noted")

    def answers(self, *statuses: int, **headers: str) -> None:
        self.next_answers += [
            (status, {name.replace("_", "-"): value for name, value in headers.items()})
            for status in statuses
        ]

    async def until(self, number: int) -> list[Received]:
        """What has come, once that is at least `number` requests."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= number)
        return self.received


def _receiving(handle: Callable[[web.Request], Awaitable[web.Response]]) -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def picture(name: str = "a") -> str:
    return f"https://example.com/{name}.png"


IMAGE_INPUT: Mapping[str, Any] = {
    "prompt": "a cat in a hat",
    "subject_image_list": [{"subject_image": picture("a")}, {"subject_image": picture("b")}],
}
VIDEO_INPUT: Mapping[str, Any] = {
    "prompt": "a cat puts on a hat",
    "image_list": [{"image": picture("a")}, {"image": picture("b")}],
}


def succeed(task: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return callback(task, "succeed", task_result={"images": [{"index": 0, "url": picture("out")}]}, **more)


def callback(task: Mapping[str, Any], status: str, **more: Any) -> dict[str, Any]:
    """Kling's flat legacy callback about a task as our API shows it."""
    return {
        "task_id": task["provider_task_id"],
        "task_status": status,
        "task_status_msg": "",
        "created_at": 1790000000000,
        "updated_at": 1790000060000,
        "task_info": {"external_task_id": task["external_task_id"]},
        "task_result": {},
        **more,
    }


@dataclass
class Klingel:
    """The app under test and its surroundings."""

    http: httpx.AsyncClient
    clock: ManualClock
    kling: FakeKling
    receiver: Receiver
    hooks: Hooks
    _committed: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(self, type: str = "kling.multi-image-to-image", **body: Any) -> dict[str, Any]:
        """A task that the provider has accepted, unless the test arranged otherwise."""
        given = IMAGE_INPUT if type.endswith("image") else VIDEO_INPUT
        headers = body.pop("headers", {})
        response = await self.http.post(
            "/v1/tasks", json={"type": type, "input": dict(given), **body}, headers=headers
        )
        assert response.status_code in {201, 202}, response.text
        task: dict[str, Any] = response.json()
        return task

    def callback_path(self, number: int = -1) -> str:
        """The path of the callback URL that the provider was given."""
        url: str = self.kling.creates[number]["callback_url"]
        return httpx.URL(url).path

    async def call_back(self, body: Any, *, number: int = -1, **kwargs: Any) -> httpx.Response:
        """As the provider does, without our key."""
        return await self.http.post(
            self.callback_path(number), json=body, headers={"authorization": ""}, **kwargs
        )

    async def task(self, task_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/tasks/{task_id}")
        assert response.status_code == 200, response.text
        task: dict[str, Any] = response.json()
        return task

    async def verdicts(self, task_id: str) -> list[str]:
        response = await self.http.get(f"/v1/tasks/{task_id}/callbacks")
        return [item["verdict"] for item in response.json()["items"]]

    async def events(self, task_id: str) -> list[dict[str, Any]]:
        response = await self.http.get(f"/v1/tasks/{task_id}/events")
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def event_types(self, task_id: str) -> list[str]:
        return [event["type"] for event in await self.events(task_id)]

    async def endpoint(self, **body: Any) -> dict[str, Any]:
        config = body.pop("config", {"url": self.receiver.url})
        response = await self.http.post("/v1/endpoints", json={"config": config, **body})
        assert response.status_code == 201, response.text
        endpoint: dict[str, Any] = response.json()
        return endpoint

    async def deliveries(self, **query: str) -> list[dict[str, Any]]:
        """Oldest first."""
        response = await self.http.get("/v1/deliveries", params=query)
        items: list[dict[str, Any]] = response.json()["items"]
        return items[::-1]

    async def attempts(self, delivery_id: str) -> list[dict[str, Any]]:
        response = await self.http.get(f"/v1/deliveries/{delivery_id}")
        attempts: list[dict[str, Any]] = response.json()["attempts"]
        return attempts

    async def until(self, holds: Callable[[], Awaitable[Any]]) -> Any:
        """What `holds` gives once that is true; asked again after each commit."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._committed.clear()
                if value := await holds():
                    return value
                await self._committed.wait()

    async def until_status(self, task_id: str, status: str) -> dict[str, Any]:
        async def reached() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return task if task["status"] == status else None

        task: dict[str, Any] = await self.until(reached)
        return task

    async def until_deliveries(self, *statuses: str, **query: str) -> list[dict[str, Any]]:
        """All deliveries, once they have these statuses, oldest first."""

        async def reached() -> list[dict[str, Any]] | None:
            found = await self.deliveries(**query)
            return found if [one["status"] for one in found] == list(statuses) else None

        found: list[dict[str, Any]] = await self.until(reached)
        return found

    async def until_attempts(self, delivery_id: str, number: int) -> list[dict[str, Any]]:
        async def reached() -> list[dict[str, Any]] | None:
            found = await self.attempts(delivery_id)
            return found if len(found) >= number else None

        found: list[dict[str, Any]] = await self.until(reached)
        return found

    @asynccontextmanager
    async def another_account(self, name: str = "other") -> AsyncIterator[httpx.AsyncClient]:
        """A client whose key belongs to another account."""
        response = await self.http.post("/v1/keys", json={"name": name, "account": name})
        key = response.json()["key"]
        async with httpx.AsyncClient(
            transport=self.http._transport,
            base_url="http://klingel.test",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            yield client


def settings_for(folder: Path, **more: Any) -> Settings:
    values: dict[str, Any] = {
        "data_dir": folder,
        "api_key": ADMIN_KEY,
        "secret": "a-secret-for-tests-0123456789",
        "provider": "cometapi",
        "KLINGEL_PROVIDER_KEY": "provider-key",
        "public_url": "https://klingel.example.com",
        "allow_networks": "127.0.0.0/8",
        "submit_wait": 5,
        "_env_file": None,
    }
    return load_settings(**(values | more))


@asynccontextmanager
async def running_klingel(
    folder: Path, *, clock: ManualClock | None = None, kling: FakeKling | None = None, **settings: Any
) -> AsyncIterator[Klingel]:
    """A Klingel on this folder; run it again on the same one to see it come back."""
    clock, kling, receiver, hooks = clock or ManualClock(), kling or FakeKling(), Receiver(), Hooks()
    app = create_app(
        settings_for(folder, **settings),
        provider_transport=httpx.MockTransport(kling),
        clock=clock,
        hooks=hooks,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(receiver.running())
        state = await stack.enter_async_context(app.router.lifespan_context(app))
        assert hooks.wakeups is not None
        clock.on_move = hooks.wakeups.notify_all

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        http = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(with_state, raise_app_exceptions=False),
                base_url="http://klingel.test",
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                timeout=PATIENCE_S,
            )
        )
        klingel = Klingel(http, clock, kling, receiver, hooks)
        hooks.on_commit = klingel._committed.set
        yield klingel


def pointers(response: httpx.Response) -> Sequence[str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return [error["pointer"] for error in response.json()["errors"]]
