"""The world around a Klingel process that is killed again and again: a provider, receivers, clients."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.providers.sandbox import Sandbox, SandboxSettings
from service.server import make_server
from tests.ports import free_port

ADMIN_KEY = "the-chaos-harness-key"
ENDPOINTS = 3
READY_S = 120  # many may start at a time
SETTLE_S = 90


class Moment(StrEnum):
    """When Klingel, one of its processes, or its database's server is killed."""

    CREATE_ARRIVED = "a create has reached the provider"
    CREATE_ANSWERED = "a create has just been answered"
    CALLBACK_SENT = "a callback is being sent"
    CALLBACK_ANSWERED = "a callback has just been acknowledged"
    DELIVERY_ARRIVED = "a webhook has reached its receiver"
    DELIVERY_ANSWERED = "a webhook has just been answered"
    SUBMIT_SENT = "a submit is being sent"
    ANY = "any moment"
    STALLS = "one stands still for longer than the others wait for it"
    DATABASE_RESTARTS = "its database server is restarted"
    DATABASE_CRASHES = "its database server crashes, and is started again"


# Not while something is on its way, but at some time while there is load.
OF_NO_REQUEST = (Moment.ANY, Moment.STALLS, Moment.DATABASE_RESTARTS, Moment.DATABASE_CRASHES)
OF_ONE_PROCESS = tuple(moment for moment in Moment if moment is Moment.ANY or moment not in OF_NO_REQUEST)


@dataclass
class Trigger:
    """Pulled once, at the armed moment, some milliseconds after it."""

    moment: Moment | None = None
    delay_s: float = 0.0
    pulled: asyncio.Event = field(default_factory=asyncio.Event)
    pull: Callable[[], None] = lambda: None

    def arm(self, moment: Moment, delay_s: float) -> None:
        self.moment, self.delay_s = moment, delay_s
        self.pulled.clear()

    def disarm(self) -> None:
        """Its moment has not come in the life that it was meant for; the next one is not to end by it."""
        self.moment = None

    def at(self, moment: Moment) -> None:
        if self.moment is moment and not self.pulled.is_set():
            self.pulled.set()
            asyncio.get_running_loop().call_later(self.delay_s, self.pull)


class KillingTransport(httpx.AsyncBaseTransport):
    """The provider's way to Klingel, which knows when a callback is on its way and when it was acknowledged."""

    def __init__(self, trigger: Trigger) -> None:
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=64))
        self._trigger = trigger

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._trigger.at(Moment.CALLBACK_SENT)
        response = await self._inner.handle_async_request(request)
        self._trigger.at(Moment.CALLBACK_ANSWERED)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def watching_creates(app: ASGIApp, trigger: Trigger) -> ASGIApp:
    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        trigger.at(Moment.CREATE_ARRIVED)

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                trigger.at(Moment.CREATE_ANSWERED)

        await app(scope, receive, sending)

    return watched


class World:
    """What lives on while Klingel dies."""

    def __init__(self, folder: Path, randomness: random.Random) -> None:
        self.folder = folder
        self.random = randomness
        self.trigger = Trigger(pull=self.kill)
        self.sandbox = Sandbox(
            SandboxSettings(step=timedelta(seconds=0.05), callback_retries=60),
            transport=KillingTransport(self.trigger),
        )
        self.webhooks: defaultdict[str, Counter[str]] = defaultdict(Counter)  # endpoint -> event id -> times
        self.bodies: dict[str, dict[str, Any]] = {}  # event id -> event
        self.changed_bodies = 0  # an event that came twice with different bytes
        self.acknowledged: dict[str, str] = {}  # external id -> task id, as the client was told
        self.unanswered: list[dict[str, Any]] = []  # submits that a client still has to repeat
        self.submitted = 0
        self.kills: Counter[Moment] = Counter()
        self.moment = Moment.ANY  # at which this life ends
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.world_port = 0

    async def on_webhook(self, request: Request) -> Response:
        body = await request.body()
        event_id = request.headers["webhook-id"]
        self.trigger.at(Moment.DELIVERY_ARRIVED)

        event = json.loads(body)
        if self.bodies.setdefault(event_id, event) != event:
            self.changed_bodies += 1
        self.webhooks[request.path_params["name"]][event_id] += 1
        asyncio.get_running_loop().call_soon(self.trigger.at, Moment.DELIVERY_ANSWERED)
        return Response(status_code=204)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.sandbox.running())
            app = Starlette(
                routes=[
                    Route("/hook/{name}", self.on_webhook, methods=["POST"]),
                    Mount("/", app=watching_creates(self.sandbox.app, self.trigger)),
                ]
            )
            listening = asyncio.Event()
            server = make_server(app, host="127.0.0.1", port=0, on_listening=listening.set)
            serving = asyncio.create_task(server._serve())
            await listening.wait()
            self.world_port = server.servers[0].sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                self.kill()
                await self.death()
                server.should_exit = True
                await serving

    # Klingel's life and death

    async def start(self, **settings: str) -> None:
        self.port = self.port or free_port()
        self.process = self.spawn(self.port, **settings)
        async with asyncio.timeout(READY_S):
            while not await is_ready(self.port):
                assert self.process.poll() is None, (self.folder / "klingel.log").read_text()[-3000:]
                await asyncio.sleep(0.05)

    def spawn(self, port: int, **settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "PORT": str(port),
            "KLINGEL_API_KEY": ADMIN_KEY,
            "KLINGEL_DATA_DIR": str(self.folder),
            "KLINGEL_PROVIDER": "sandbox",
            "KLINGEL_PROVIDER_URL": f"http://127.0.0.1:{self.world_port}",
            "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
            "KLINGEL_CONFIRM_AFTER": "1",
            "KLINGEL_SUBMIT_WAIT": "5",
            "KLINGEL_LOG": "json",
            "KLINGEL_STORE_URL": "none:",  # the sandbox makes an output when it is fetched, which costs more than a task
            **settings,
        }
        log = (self.folder / "klingel.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        log.close()
        return process

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    async def death(self) -> None:
        if self.process is not None:
            await asyncio.to_thread(self.process.wait)

    async def metrics(self) -> str:
        """Of all that runs now."""
        return await metrics_of(self.port)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            timeout=20,
            trust_env=False,
        )

    @asynccontextmanager
    async def client_later(self) -> AsyncIterator[Callable[[], Awaitable[httpx.AsyncClient]]]:
        """A client that is closed with the block; made once the port is known."""
        async with AsyncExitStack() as stack:

            async def connect() -> httpx.AsyncClient:
                return await stack.enter_async_context(self.client())

            yield connect

    # Clients

    async def subscribe(self) -> None:
        async with self.client() as client:
            for number in range(ENDPOINTS):
                url = f"http://127.0.0.1:{self.world_port}/hook/{number}"
                answer = await client.post(
                    "/v1/endpoints", json={"config": {"url": url}, "types": ["task.*"]}
                )
                assert answer.status_code == 201, answer.text

    async def submit_some(self, number: int) -> None:
        """New submits, and again those that got no answer; each under its own idempotency key."""
        again, self.unanswered = self.unanswered, []
        fresh = []
        for _ in range(number):
            self.submitted += 1
            video = self.random.random() < 0.3
            words = self.random.choice(
                ["", "", "", " sandbox:duplicate", " sandbox:reorder", " sandbox:early"]
            )
            words += self.random.choice(
                ["", "", "", " sandbox:5000-after-accepting*1", " sandbox:cut-after*1"]
            )
            pictures = [f"https://example.com/{name}.png" for name in "ab"]
            fresh.append(
                {
                    "type": "kling.multi-image-to-video" if video else "kling.multi-image-to-image",
                    "external_task_id": f"order-{self.submitted}",
                    "input": {
                        "prompt": f"picture {self.submitted}{words}",
                        **(
                            {"image_list": [{"image": url} for url in pictures]}
                            if video
                            else {"subject_image_list": [{"subject_image": url} for url in pictures]}
                        ),
                    },
                }
            )
        async with self.client() as client:
            await asyncio.gather(*(self._submit(client, body) for body in [*again, *fresh]))

    async def _submit(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        external_id = body["external_task_id"]
        asyncio.get_running_loop().call_soon(self.trigger.at, Moment.SUBMIT_SENT)
        try:
            answer = await client.post("/v1/tasks", json=body, headers={"idempotency-key": external_id})
        except httpx.HTTPError:
            self.unanswered.append(body)
            return
        if answer.status_code in {201, 202}:
            told = answer.json()["id"]
            assert self.acknowledged.setdefault(external_id, told) == told
        elif answer.status_code == 503:
            self.unanswered.append(body)
        else:
            raise AssertionError(f"{answer.status_code} {answer.text}")

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Whether it came to hold within these seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not await holds():  # noqa: ASYNC110 - another process tells nothing by itself
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True


async def is_ready(port: int) -> bool:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=2, trust_env=False) as client:
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False


async def metrics_of(port: int) -> str:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        return (await client.get("/metrics")).text


async def everything(client: httpx.AsyncClient, path: str, **query: str) -> list[dict[str, Any]]:
    """All pages of a list."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = await client.get(path, params={"limit": "200", **query, **more})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items
