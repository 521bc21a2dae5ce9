"""The real app over ASGI, with a far side that the test plays: a provider, and receivers on real sockets."""

import asyncio
import base64
import io
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
import uuid_utils
from aiohttp import web
from anyio.lowlevel import checkpoint
from PIL import Image
from pydantic import SecretStr
from starlette.types import ASGIApp

from service.app import Controls, Hooks, create_app
from service.domain.times import utc_now
from service.server import make_server
from service.settings import Settings, load_settings
from storage.database import Transaction
from storage.sqlite import SqliteDatabase
from tests.places import Places, SqlitePlaces
from tests.servers import running_app

ADMIN_KEY = "an-admin-key-for-tests"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATIENCE_S = 60  # for a signal that never comes; no test waits for it to pass

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


class RunningClock(ManualClock):
    """Time passes by itself, and wakes nobody who did not mean to look by then."""

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()

    def __call__(self) -> datetime:
        return self.now + timedelta(seconds=time.monotonic() - self._started)


class _IdsByTheClock:
    """While a Klingel runs by a clock of a test's, its ids tell that clock's time and not the day on which tests run: what
    is old is found by its id.
    """

    _BY_THE_MACHINE = staticmethod(uuid_utils.uuid7)
    _AHEAD_MS = round((START - utc_now()).total_seconds() * 1000)

    def __init__(self) -> None:
        self._in_use = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self._in_use += 1
        uuid_utils.uuid7 = self._made  # type: ignore[assignment]
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use:
                uuid_utils.uuid7 = self._BY_THE_MACHINE

    def _made(self) -> UUID:
        return UUID(int=self._BY_THE_MACHINE().int + (self._AHEAD_MS << 80))


IDS_BY_THE_CLOCK = _IdsByTheClock()


class FakeKling:
    """CometAPI at the far end of the wire: accepts, unless told what to answer next."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.next_answers: list[Answer] = []
        self.otherwise: Answer | None = None  # once those are used up; None accepts
        self._changed = asyncio.Condition()

    @property
    def creates(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests if request.method == "POST"]

    @property
    def status_queries(self) -> int:
        return sum(request.method == "GET" for request in self.requests)

    def answers(self, *answers: Answer) -> None:
        self.next_answers += answers

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        answer = self.next_answers.pop(0) if self.next_answers else self.otherwise
        if answer is None:
            answer = accepted(f"88{len(self.requests):016d}")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        made = answer(request)
        return made if isinstance(made, httpx.Response) else await made

    async def until(self, number: int) -> list[dict[str, Any]]:
        """The creates, once there are at least so many."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.creates) >= number)
        return self.creates


class OpenCreate:
    """An answer that the provider is still thinking about: the create is on the wire until `end`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._ended = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await self._ended.wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        assert isinstance(self._answer, httpx.Response)
        return self._answer

    def end(self) -> None:
        self._ended.set()


def accepted(provider_task_id: str) -> httpx.Response:
    data = {"task_id": provider_task_id, "task_status": "submitted", "created_at": 1, "updated_at": 1}
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


def refused(status: int, code: int, message: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "request_id": "r"})


FULL = refused(429, 1303, "parallel task over resource pack limit")


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
        async with running_app(self._handle) as url:
            self.url = f"{url}/hook"
            yield self

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


class Turnstile(asyncio.Event):
    """A gate through which as many go as it lets."""

    def __init__(self) -> None:
        super().__init__()
        self._places = asyncio.Semaphore(0)

    async def wait(self) -> Literal[True]:
        return await self._places.acquire()

    def let(self, number: int) -> None:
        for _ in range(number):
            self._places.release()


def picture(name: str = "a") -> str:
    return f"https://example.com/{name}.png"


@cache
def png(shade: int = 128, *, side: int = 300) -> bytes:
    """A real picture, of the least size that a provider takes."""
    file = io.BytesIO()
    Image.new("L", (side, side), shade).save(file, "png")
    return file.getvalue()


def base64_png(shade: int = 128, *, side: int = 300) -> str:
    return base64.b64encode(png(shade, side=side)).decode()


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
    controls: Controls
    places: Places
    folder: Path
    app: ASGIApp  # with its state
    state: Mapping[str, Any]
    _committed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.on_commit: Callable[[], None] = self._committed.set  # a test may hear of commits in its place

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

    async def submit_async(self, type: str = "kling.multi-image-to-image", **body: Any) -> dict[str, Any]:
        """A task as it is stored, before its create goes out."""
        return await self.submit(type, headers={"prefer": "respond-async"}, **body)

    @asynccontextmanager
    async def writes_held(self) -> AsyncIterator[Callable[[str, int], Awaitable[None]]]:
        """Nothing is written until the block ends. Gives what waits until so many writes by this function are to be."""
        batcher = self.state["batcher"]
        holding, may_go_on = asyncio.Event(), asyncio.Event()

        async def hold(_tx: Transaction, items: Sequence[None]) -> Sequence[None]:
            holding.set()
            await may_go_on.wait()
            return items

        async def are_waiting(function: str, number: int) -> None:
            while batcher.waiting_kinds().count(function) < number:
                await checkpoint()

        async with asyncio.timeout(PATIENCE_S):
            held = asyncio.create_task(batcher.run(hold, None))
            try:
                await holding.wait()
                yield are_waiting
            finally:
                may_go_on.set()
                await held

    async def edit_at_once(self, *edits: Awaitable[httpx.Response]) -> list[httpx.Response]:
        """The answers to changes of endpoints or bots, each of which has been read before any of them is written."""
        async with self.writes_held() as are_waiting:
            answers = [asyncio.ensure_future(edit) for edit in edits]
            await are_waiting("_edit", len(edits))
        return await asyncio.gather(*answers)

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

    async def tamper(self, statement: str) -> list[Any]:
        """Between the app's own commits; SQLite's on the connection that writes, for a test that spoils the disk."""
        database = self.state["database"]
        if not isinstance(database, SqliteDatabase):
            # In a thread: a transaction of the app's, in whose way this is, must be able to end.
            return await asyncio.to_thread(self.rows, statement)
        async with database._writing:
            return list(await database._writer.execute_fetchall(statement))

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """What is on disk, read past the app. Parameters stand as `?`."""
        return self.places.rows(self.folder, statement, *parameters)

    def row(self, task_id: str) -> dict[str, Any]:
        """All that is stored of a task, also what nobody is shown."""
        [row] = self.rows("select * from tasks where id = ?", task_id)
        return row

    async def snapshot(self, folder: Path) -> Path:
        """A folder as a power cut would leave it now: every commit so far, and nothing that came after."""
        await self.places.copy(self.folder, _with_inputs_of(self.folder, folder))
        return folder

    async def callbacks(self, task_id: str) -> list[dict[str, Any]]:
        response = await self.http.get(f"/v1/tasks/{task_id}/callbacks")
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def verdicts(self, task_id: str) -> list[str]:
        return [item["verdict"] for item in await self.callbacks(task_id)]

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

    async def until_row(self, task_id: str, **columns: Any) -> dict[str, Any]:
        """The task's row, once it has these values."""

        async def reached() -> dict[str, Any] | None:
            row = self.row(task_id)
            return row if row | columns == row else None

        row: dict[str, Any] = await self.until(reached)
        return row

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
        async with self.client(response.json()["key"]) as client:
            yield client

    def client(self, key: str | None) -> httpx.AsyncClient:
        """Another client of this Klingel, with this key or none."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://klingel.test",
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
        )

    @asynccontextmanager
    async def served(self) -> AsyncIterator[httpx.AsyncClient]:
        """The same app behind a real server, for what never ends: over ASGI an answer is read whole."""
        listening = asyncio.Event()
        server = make_server(
            self.app,
            host="127.0.0.1",
            port=0,
            on_listening=listening.set,
            on_stopping=self.controls.stop_streams,
        )
        server.config.lifespan = "off"  # it is open already
        running = asyncio.create_task(server._serve())
        try:
            await listening.wait()
            port = server.servers[0].sockets[0].getsockname()[1]
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                timeout=PATIENCE_S,
                trust_env=False,
            ) as client:
                yield client
        finally:
            server.should_exit = True
            await running


def _with_inputs_of(folder: Path, copy: Path) -> Path:
    copy.mkdir()
    if (folder / "inputs").exists():
        shutil.copytree(folder / "inputs", copy / "inputs")
    return copy


USUAL: Mapping[str, Any] = {
    "api_key": ADMIN_KEY,
    "secret": "a-secret-for-tests-0123456789",
    "provider": "cometapi",
    "KLINGEL_PROVIDER_KEY": "provider-key",
    "public_url": "https://klingel.example.com",
    "allow_networks": "127.0.0.0/8",
    "submit_wait": PATIENCE_S,
    "store_url": "none:",  # the outputs of most tests are nowhere
    "_env_file": None,
}


@cache
def _usual_settings() -> Settings:
    """Read once: most tests have no others, and reading costs more than most tests do."""
    return load_settings(**USUAL)


PLACES: Places = SqlitePlaces()  # of the test that runs


def put_databases_in(places: Places) -> None:
    """From now on."""
    global PLACES  # noqa: PLW0603 - else every test would have to hand it on to every Klingel
    PLACES = places


def settings_for(folder: Path, database: Path | str | None = None, **more: Any) -> Settings:
    """
    Args:
        database: where it is; a file is the one in the folder that Klingel would take by itself.
    """
    url = SecretStr(database) if isinstance(database, str) else None
    if not more:
        return _usual_settings().model_copy(update={"data_dir": folder, "database_url": url})
    return load_settings(**{**USUAL, "data_dir": folder, "database_url": url, **more})


@asynccontextmanager
async def running_klingel(
    folder: Path,
    *,
    clock: ManualClock | None = None,
    kling: FakeKling | None = None,
    receiver: Receiver | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> AsyncIterator[Klingel]:
    """A Klingel on this folder; run it again on the same one to see it come back.

    Args:
        receiver: one that runs already and outlives this Klingel.
    """
    clock, kling, controls = clock or ManualClock(), kling or FakeKling(), Controls()
    klingel: Klingel | None = None  # until it has started

    def committed() -> None:
        if klingel is not None:
            klingel.on_commit()

    app = create_app(
        settings_for(folder, await PLACES.at(folder), **settings),
        provider_transport=httpx.MockTransport(kling),
        clock=clock,
        hooks=replace(hooks or Hooks(), on_commit=committed),
        controls=controls,
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(IDS_BY_THE_CLOCK.in_use())
        receiver = receiver or await stack.enter_async_context(Receiver().running())
        state = await stack.enter_async_context(app.router.lifespan_context(app))
        assert controls.wakeups is not None
        clock.on_move = controls.wakeups.notify_all

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
        klingel = Klingel(http, clock, kling, receiver, controls, PLACES, folder, with_state, state)
        yield klingel


def pointers(response: httpx.Response) -> Sequence[str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return [error["pointer"] for error in response.json()["errors"]]
