"""`klingel chat register`, against Klingel and a platform that are played at the HTTP transport."""

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from rich.console import Console

from handlers.chat.telegram import webhook_secret
from service.cli import main
from service.cli.session import Exit, Session
from tests.fakes.discord import APPLICATION, GUILD, FakeDiscord
from tests.fakes.discord import BOT_TOKEN as DISCORD_TOKEN
from tests.fakes.telegram import TOKEN as TELEGRAM_TOKEN
from tests.fakes.telegram import USERNAME, FakeTelegram


@dataclass
class Desk:
    """Where the command is given."""

    bot: Mapping[str, Any]
    platform: httpx.MockTransport
    environ: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def register(self, *tokens: str) -> int:
        out = io.StringIO()
        console = Console(file=out, width=200, highlight=False)
        code = main(
            ["chat", "register", *tokens],
            session=Session(
                environ={"KLINGEL_API_KEY": "kl_1", "KLINGEL_URL": "http://k.test", **self.environ},
                out=console,
                err=console,
                transport=httpx.MockTransport(lambda request: httpx.Response(200, json=self.bot)),
                platform_transport=self.platform,
            ),
        )
        self.said = out.getvalue()
        assert DISCORD_TOKEN not in self.said
        assert TELEGRAM_TOKEN not in self.said
        return code


def bot(platform: str, **config: str) -> dict[str, Any]:
    url = f"https://klingel.example.com/chat/{platform}/bot_1"
    return {"id": "bot_1", "platform": platform, "config": config, "url": url}


class FakeRequest:
    """As much of a request as the far sides look at."""

    def __init__(self, request: httpx.Request) -> None:
        self.method, self.path, self.headers = request.method, request.url.path, request.headers
        self.query = dict(request.url.params)
        self.content_type = request.headers.get("content-type", "").partition(";")[0]


def played(server: FakeDiscord | FakeTelegram) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        response = server.judge(FakeRequest(request), request.content)  # type: ignore[arg-type]
        return httpx.Response(response.status, content=bytes(response.body or b""), headers=response.headers)

    return httpx.MockTransport(answer)


@pytest.fixture
def discord() -> tuple[FakeDiscord, Desk]:
    server = asyncio.run(_made(FakeDiscord))
    config = {
        "application_id": APPLICATION,
        "public_key": server.public_key.upper(),
        "server": "https://d.test",
    }
    return server, Desk(bot("discord", **config), played(server), {"DISCORD_BOT_TOKEN": DISCORD_TOKEN})


@pytest.fixture
def telegram() -> tuple[FakeTelegram, Desk]:
    server = asyncio.run(_made(FakeTelegram))
    config = {"token": "••••", "username": USERNAME, "server": "https://t.test/"}
    return server, Desk(bot("telegram", **config), played(server), {"TELEGRAM_BOT_TOKEN": TELEGRAM_TOKEN})


async def _made(server: Any) -> Any:
    return server()


def test_discord_is_told_of_the_commands_and_of_the_address(discord: tuple[FakeDiscord, Desk]) -> None:
    server, desk = discord
    assert desk.register("discord", "bot_1") == Exit.OK, desk.said
    assert [command["name"] for command in server.registered[None]] == ["kling"]
    assert server.endpoint == desk.bot["url"]
    assert desk.register("discord", "bot_1", "--guild", GUILD) == Exit.OK
    assert set(server.registered) == {None, GUILD}
    assert "/kling" in desk.said


def test_the_token_of_another_application_changes_nothing(discord: tuple[FakeDiscord, Desk]) -> None:
    server, desk = discord
    desk.bot["config"]["public_key"] = "0" * 64
    assert desk.register("discord", "bot_1") == Exit.USAGE
    assert server.public_key in desk.said
    assert (server.registered, server.endpoint) == ({}, None)


def test_discords_no_is_shown(discord: tuple[FakeDiscord, Desk]) -> None:
    _, desk = discord
    desk.environ["DISCORD_BOT_TOKEN"] = "another"
    assert desk.register("discord", "bot_1") == Exit.REFUSED
    assert "401: Unauthorized" in desk.said


def test_telegram_is_told_of_the_address_and_what_proves_it(telegram: tuple[FakeTelegram, Desk]) -> None:
    server, desk = telegram
    assert desk.register("telegram", "bot_1") == Exit.OK, desk.said
    assert server.webhook == {
        "url": desk.bot["url"],
        "secret_token": webhook_secret(TELEGRAM_TOKEN),
        "allowed_updates": ["message", "callback_query"],
    }
    assert server.webhook["secret_token"] not in desk.said


def test_the_token_of_another_bot_changes_nothing(telegram: tuple[FakeTelegram, Desk]) -> None:
    server, desk = telegram
    desk.bot["config"]["username"] = "other_bot"
    assert desk.register("telegram", "bot_1") == Exit.USAGE
    assert f"@{USERNAME}" in desk.said
    assert server.webhook == {}


def test_a_refusal_that_comes_as_200_is_one(telegram: tuple[FakeTelegram, Desk]) -> None:
    _, desk = telegram
    no = {"ok": False, "error_code": 400, "description": f"bad webhook: {TELEGRAM_TOKEN} HTTPS is needed"}
    desk.platform = httpx.MockTransport(lambda request: httpx.Response(200, content=json.dumps(no)))
    assert desk.register("telegram", "bot_1") == Exit.REFUSED
    assert "HTTPS is needed" in desk.said


@pytest.mark.parametrize("platform", ["discord", "telegram"])
def test_without_a_token_or_with_another_platforms_bot_nothing_is_asked(platform: str) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    desk = Desk(bot(platform), httpx.MockTransport(nobody))
    assert desk.register(platform, "bot_1") == Exit.USAGE
    assert f"{platform.upper()}_BOT_TOKEN is not set" in desk.said
    assert Desk(bot("slack"), httpx.MockTransport(nobody)).register(platform, "bot_1") == Exit.USAGE
