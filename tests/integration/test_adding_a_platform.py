"""The page on adding a chat platform, word by word: its code is taken out of it and put to work."""

import hashlib
import hmac
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from aiohttp import web

from handlers.chat import platforms
from tests.contract.push_services import Service
from tests.integration.klingel import START, Klingel, callback, png, running_klingel, succeed

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-platform.md"
TOKEN, SECRET = "carillon-token", "carillon-secret"


class FakeCarillon(Service):
    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[str, list[dict[str, Any]]] = {}

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        if request.path.startswith("/files/"):
            return web.Response(body=png(len(request.path)))
        said = json.loads(body)
        assert len(said["text"]) <= 2000
        if (request.method, request.path) == ("POST", "/rooms/tower/messages"):
            id = f"m{len(self.messages)}"
            self.messages[id] = [said]
        else:
            assert request.method == "PUT"
            id = request.path.rpartition("/")[2]
            self.messages[id].append(said)
        return web.json_response({"id": id})


@pytest.fixture
def page_code() -> Iterator[ModuleType]:
    """All Python of the page, as one file."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    # The second part of the class is shown in a block of its own.
    module = ModuleType("handlers.chat.carillon")
    sys.modules[module.__name__] = module
    exec(compile("\n".join(blocks), str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
async def carillon(anyio_backend: str) -> AsyncIterator[FakeCarillon]:
    service = FakeCarillon()
    async with service.running():
        yield service


@pytest.fixture
async def klingel(
    page_code: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Klingel]:
    """With the line that the page adds."""
    monkeypatch.setattr(platforms, "LISTENING", (*platforms.LISTENING, page_code.Carillon))
    async with running_klingel(tmp_path) as klingel:
        yield klingel


def said(**more: Any) -> bytes:
    told = {"id": "1", "type": "say", "team": "t", "room": "tower", "person": "p", "name": "Quasimodo"}
    pictures = ["a.png", "bb.png"]
    return json.dumps(told | {"text": "image @all ring", "pictures": pictures} | more).encode()


async def tell(
    klingel: Klingel, bot: dict[str, Any], body: bytes, *, at: str = str(int(START.timestamp()))
) -> httpx.Response:
    made = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"x-carillon-signature": made, "x-carillon-time": at.encode(), "authorization": ""}
    return await klingel.http.post(httpx.URL(bot["url"]).path, content=body, headers=headers)


async def bot_of(klingel: Klingel, carillon: FakeCarillon) -> dict[str, Any]:
    config = {"server": carillon.url, "token": TOKEN, "signing_secret": SECRET}
    body = {"platform": "carillon", "config": config, "allow": [{"chat": "tower"}]}
    response = await klingel.http.post("/v1/bots", json=body)
    assert response.status_code == 201, response.text
    bot: dict[str, Any] = response.json()
    assert TOKEN not in response.text
    return bot


async def until_shown(klingel: Klingel, carillon: FakeCarillon, words: str) -> dict[str, Any]:
    async def shown() -> dict[str, Any] | None:
        return next((one[-1] for one in carillon.messages.values() if words in one[-1]["text"]), None)

    message: dict[str, Any] = await klingel.until(shown)
    return message


async def test_a_platform_that_follows_the_page_works(klingel: Klingel, carillon: FakeCarillon) -> None:
    bot = await bot_of(klingel, carillon)
    assert (await tell(klingel, bot, said(type="hello"))).content == b"hello"
    for _ in range(2):
        assert (await tell(klingel, bot, said())).status_code == 200
    await until_shown(klingel, carillon, "Picture submitted")
    [task] = (await klingel.http.get("/v1/tasks")).json()["items"]
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    ready = await until_shown(klingel, carillon, "Picture ready")
    assert "@all" not in ready["text"]
    assert ready["picture"] == ready["link"] == "https://example.com/out.png"
    assert len(carillon.messages) == 1
    press = said(id="2", type="press", button=ready["buttons"][1][1])
    assert (await tell(klingel, bot, press)).status_code == 200
    await until_shown(klingel, carillon, "Video submitted")


async def test_it_is_told_of_what_cannot_be_and_obeys_no_stranger(
    klingel: Klingel, carillon: FakeCarillon
) -> None:
    bot = await bot_of(klingel, carillon)
    await tell(klingel, bot, said(text="video it runs aspect_ratio=7:7", pictures=[]))
    await carillon.until(1)
    await tell(klingel, bot, said(id="2", text="status", room="crypt"))
    assert "I cannot submit that" in carillon.messages["m0"][0]["text"]
    assert (await klingel.http.get("/v1/tasks")).json()["items"] == []


@pytest.mark.parametrize("at", ["", "soon", "-1", "٣", "9" * 400, str(int(START.timestamp()) - 301)])
async def test_it_refuses_what_is_not_signed_or_late(
    klingel: Klingel, carillon: FakeCarillon, at: str
) -> None:
    bot = await bot_of(klingel, carillon)
    assert (await tell(klingel, bot, said(), at=at)).status_code == 401


async def test_it_has_endpoints_of_ones_own(klingel: Klingel, carillon: FakeCarillon) -> None:
    config = {"server": carillon.url, "token": TOKEN, "room": "tower"}
    await klingel.endpoint(kind="carillon", config=config)
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    await until_shown(klingel, carillon, "Picture ready")
    refused = {"kind": "carillon", "config": config | {"server": "http://10.0.0.1"}}
    assert (await klingel.http.post("/v1/endpoints", json=refused)).status_code == 422


def test_all_that_the_page_names_is_there() -> None:
    root = PAGE.parents[1]
    for path in re.findall(r"`((?:handlers|tests|service|docs)/[\w/.-]+)`", PAGE.read_text()):
        assert (root / path).exists(), path
