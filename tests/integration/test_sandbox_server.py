"""The sandbox behind a real server: what only a real connection can show."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from typing import Literal

import anyio
import httpx
import pytest
import uvicorn

from handlers.providers.sandbox import GuardedTransport, SandboxSettings, create_sandbox
from service.network.dialler import Guard
from tests.ports import free_port

pytestmark = pytest.mark.sqlite_alone  # no database here

IMAGES = "/kling/v1/images/multi-image2image"
Protocol = Literal["h11", "httptools"]


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def kling(
    settings: SandboxSettings,
    *,
    protocol: Protocol = "httptools",
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    config = uvicorn.Config(
        create_sandbox(settings, transport=transport),
        http=protocol,
        ws="none",
        lifespan="on",
        log_level="critical",
    )
    server = Server(config)
    headers = {"authorization": "Bearer sk-1"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            await server.listening.wait()
            async with httpx.AsyncClient(base_url=base_url, headers=headers, trust_env=False) as client:
                yield client
            server.should_exit = True


def order(prompt: str, **fields: object) -> dict[str, object]:
    sources = [{"subject_image": "https://cdn.example.com/a.png"}] * 2
    return {"subject_image_list": sources, "prompt": prompt, **fields}


@pytest.mark.parametrize("protocol", ["httptools", "h11"])
async def test_cut_after_accepts_and_closes_without_a_byte(protocol: Protocol) -> None:
    async with kling(SandboxSettings(step=timedelta(0)), protocol=protocol) as client:
        body = order("sandbox:cut-after", external_task_id="job-1")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await client.post(IMAGES, json=body)
        assert (await client.get(f"{IMAGES}/job-1")).json()["code"] == 0
        assert (await client.post(IMAGES, json=body)).json()["code"] == 1201
        log = (await client.get("/log")).json()
        assert len(log["created"]) == 1
        assert log["calls"][0]["status"] is None


async def test_hang_accepts_and_keeps_the_client_waiting() -> None:
    async with kling(SandboxSettings(step=timedelta(0))) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                IMAGES,
                json=order("sandbox:hang", external_task_id="job-1"),
                timeout=httpx.Timeout(60, read=0.2),
            )
        async with asyncio.timeout(60):  # it may not have read it all yet
            while not (await client.get("/log")).json()["created"]:
                continue
        assert (await client.get(f"{IMAGES}/job-1")).json()["code"] == 0


async def test_hang_answers_in_the_end() -> None:
    async with kling(SandboxSettings(hang=timedelta(milliseconds=50))) as client:
        assert (await client.post(IMAGES, json=order("sandbox:hang"))).json()["code"] == 0


async def test_callbacks_go_out_over_a_real_connection() -> None:
    async with kling(SandboxSettings(step=timedelta(0))) as client:
        url = f"{client.base_url}/callbacks/1"
        await client.post(IMAGES, json=order("sandbox:early", callback_url=url))
        attempts = (await client.get("/log")).json()["callbacks"]
        assert [attempt["http_status"] for attempt in attempts] == [404, 404, 404]
        assert {attempt["url"] for attempt in attempts} == {str(client.base_url)}


async def test_alone_it_calls_nobody_whom_the_guard_refuses() -> None:
    async with kling(SandboxSettings(step=timedelta(0)), transport=GuardedTransport(Guard())) as client:
        await client.post(IMAGES, json=order("sandbox:early", callback_url=f"{client.base_url}/callbacks/1"))
        log = (await client.get("/log")).json()
    assert [(attempt["http_status"], attempt["error"]) for attempt in log["callbacks"]] == [
        (None, "CallbackRefused")
    ] * 3
    assert [call["method"] for call in log["calls"]] == ["POST"]


async def test_networks_that_the_operator_opened_are_called_with_body_and_signature() -> None:
    settings = SandboxSettings(step=timedelta(0), webhook_secret="whsec_" + "a2xpbmct" * 4)
    transport = GuardedTransport(Guard([ip_network("127.0.0.0/8")]))
    async with kling(settings) as receiver, kling(settings, transport=transport) as client:
        # The receiver is another sandbox: what it is called with, it takes for a create.
        url = f"{receiver.base_url}{IMAGES}"
        await client.post(IMAGES, json=order("sandbox:early", callback_url=url))
        attempts = (await client.get("/log")).json()["callbacks"]
        calls = (await receiver.get("/log")).json()["calls"]
    assert [attempt["http_status"] for attempt in attempts] == [401, 401, 401]
    assert [(call["kind"], call["code"]) for call in calls] == [("create", 1001)] * 3


async def test_a_port_where_nobody_listens_is_noted() -> None:
    transport = GuardedTransport(Guard([ip_network("127.0.0.0/8")]))
    url = f"http://127.0.0.1:{free_port()}/"
    async with kling(SandboxSettings(step=timedelta(0)), transport=transport) as client:
        await client.post(IMAGES, json=order("sandbox:early", callback_url=url))
        attempts = (await client.get("/log")).json()["callbacks"]
    assert [attempt["error"] for attempt in attempts] == ["ConnectError"] * 3
