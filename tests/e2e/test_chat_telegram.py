"""A person sends Telegram's bot an album with a command, and sees the answer become the picture that was made."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from handlers.chat.telegram import webhook_secret
from tests.e2e.parties import Json, Klingel, Sandbox, picture
from tests.e2e.processes import PATIENCE_S, run, until
from tests.fakes.telegram import GROUP, PERSON, TOKEN, USERNAME, FakeTelegram, Shown


class Telegram:
    """The server of Telegram, in a thread of its own."""

    def __init__(self, server: FakeTelegram, portal: BlockingPortal) -> None:
        self.server = server
        self._portal = portal

    def send(self, update: Mapping[str, Any]) -> None:
        """To where `klingel chat register` said."""
        assert self._portal.call(self.server.deliver, update) == 200

    def say(self, text: str | None, **more: Any) -> None:
        self.send(self.server.update(message=self.server.message(text, **more)))

    def until_shown(self, words: str) -> Shown:
        def shown() -> Shown | None:
            return next((one for one in list(self.server.shown.values()) if words in one.text), None)

        return until(shown, f"a message with {words}; there are {self.server.shown}")


@pytest.fixture
def telegram(klingel: Klingel) -> Iterator[Telegram]:
    server = FakeTelegram()
    server.fetches_everything = True
    server.files = {f"{colour}.png": picture(colour) for colour in ("teal", "gold", "navy")}
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.running()):
        body = {
            "platform": "telegram",
            "config": {"token": TOKEN, "username": USERNAME, "server": server.url},
            "allow": [{"user": str(PERSON)}],
        }
        bot: Json = klingel.call("POST", "/bots", body, answers=201)
        assert TOKEN not in str(bot)
        environment = {**klingel.environment, "TELEGRAM_BOT_TOKEN": TOKEN}
        told = run(
            "klingel",
            "chat",
            "register",
            "telegram",
            bot["id"],
            folder=klingel.folder,
            environment=environment,
        )
        assert told.returncode == 0, told.stderr
        assert TOKEN not in told.stdout + told.stderr
        assert server.webhook["url"] == bot["url"]
        assert [command["command"] for command in server.commands] == ["image", "video", "status", "help"]
        yield Telegram(server, portal)


def tasks(klingel: Klingel) -> list[Json]:
    listed: list[Json] = klingel.call("GET", "/tasks")["items"]
    return listed


@pytest.mark.parametrize("told_first", [0, 1])
def test_an_album_with_a_command_becomes_one_message_with_the_picture(
    klingel: Klingel, sandbox: Sandbox, telegram: Telegram, told_first: int
) -> None:
    """Whichever of its parts comes first, and whatever comes twice."""
    server = telegram.server
    album = {"chat": GROUP, "media_group_id": "1300000001"}
    parts = [
        server.update(message=server.message(text, picture=name, **album))
        for text, name in (
            (f"/kling@{USERNAME} image a cat in a hat n=1", "teal.png"),
            (None, "gold.png"),
            (None, "navy.png"),
        )
    ]
    for part in (*parts[told_first:], *parts[:told_first], *parts):
        telegram.send(part)

    message = telegram.until_shown("✅ Picture ready")
    assert (message.chat, len(server.shown)) == (GROUP, 1)
    assert message.edits >= 1
    reply = message.sent["reply_parameters"]
    assert reply["message_id"] == parts[0]["message"]["message_id"]
    assert message.media is not None
    shown = httpx.get(message.media[1], timeout=PATIENCE_S, trust_env=False).raise_for_status()
    assert shown.headers["content-type"].startswith("image/")
    assert "a cat in a hat" in message.text
    [task] = tasks(klingel)
    assert task["status"] == "succeeded"
    assert len(klingel.task(task["id"])["input"]["subject_image_list"]) == 3
    assert sandbox.tasks_made(task) == 1
    assert sandbox.calls(task) == ["create"]

    press = server.press(message, "Make a video of it")
    telegram.send(press)
    film = telegram.until_shown("✅ Video ready")
    assert film.media is not None
    assert film.media[0] == "video"
    assert server.notices == {press["callback_query"]["id"]: None}


def test_strangers_and_forgers_start_nothing(klingel: Klingel, telegram: Telegram) -> None:
    server = telegram.server
    urls = "https://example.com/cat.png https://example.com/hat.png"
    telegram.say(f"/kling image a cat {urls}", chat=GROUP, person=5100000099)
    assert "may not take orders" in telegram.until_shown("Sorry").text
    update = server.update(message=server.message(f"/kling image a cat {urls}"))
    for secret in ("", "x", TOKEN, webhook_secret(TOKEN).upper()):
        headers = {"x-telegram-bot-api-secret-token": secret}
        sent = httpx.post(
            server.webhook["url"], json=update, headers=headers, timeout=PATIENCE_S, trust_env=False
        )
        assert sent.status_code == 401
    assert (
        httpx.post(server.webhook["url"], json=update, timeout=PATIENCE_S, trust_env=False).status_code == 401
    )
    telegram.say("image a cat", chat=GROUP)  # said to others
    assert tasks(klingel) == []
    assert len(server.shown) == 1


def test_what_is_not_understood_is_answered(telegram: Telegram) -> None:
    telegram.say("/start")
    assert "Say, with up to four pictures" in telegram.until_shown("status shows").text
