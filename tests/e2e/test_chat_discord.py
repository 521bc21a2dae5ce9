"""A person gives Discord's slash command with two pictures, and sees the answer become the picture that was made."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.e2e.parties import Json, Klingel, Sandbox, picture
from tests.e2e.processes import PATIENCE_S, run, until
from tests.fakes.discord import APPLICATION, BOT_TOKEN, CHANNEL, GUILD, USER, FakeDiscord, Posted


class Discord:
    """The server of Discord, in a thread of its own."""

    def __init__(self, server: FakeDiscord, portal: BlockingPortal) -> None:
        self.server = server
        self._portal = portal

    def send(self, interaction: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """To where `klingel chat register` said; what the person sees alone."""
        return self._portal.call(self.server.deliver, interaction)

    def check(self, url: str) -> list[int]:
        return self._portal.call(self.server.check, url)

    def until_shown(self, title: str) -> Posted:
        def shown() -> Posted | None:
            posted = list(self.server.posted.values())
            return next((one for one in posted if one.embed["title"] == title), None)

        return until(shown, f"a message {title}; there are {self.server.posted}")


@contextmanager
def running_discord() -> Iterator[Discord]:
    server = FakeDiscord()
    server.files = {name: picture(name.removesuffix(".png")) for name in ("teal.png", "gold.png")}
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.running()):
        yield Discord(server, portal)


@pytest.fixture
def discord(klingel: Klingel) -> Iterator[Discord]:
    with running_discord() as discord:
        body = {
            "platform": "discord",
            "config": {
                "application_id": APPLICATION,
                "public_key": discord.server.public_key,
                "bot_token": BOT_TOKEN,
                "server": discord.server.url,
            },
            "allow": [{"workspace": GUILD, "user": USER}],
        }
        bot: Json = klingel.call("POST", "/bots", body, answers=201)
        assert BOT_TOKEN not in str(bot)
        environment = {**klingel.environment, "DISCORD_BOT_TOKEN": BOT_TOKEN}
        command = ("klingel", "chat", "register", "discord", bot["id"], "--guild", GUILD)
        told = run(*command, folder=klingel.folder, environment=environment)
        assert told.returncode == 0, told.stderr
        assert BOT_TOKEN not in told.stdout + told.stderr
        assert [command["name"] for command in discord.server.registered[GUILD]] == ["kling"]
        assert discord.server.endpoint == bot["url"]
        yield discord


def tasks(klingel: Klingel) -> list[Json]:
    listed: list[Json] = klingel.call("GET", "/tasks")["items"]
    return listed


def test_a_command_becomes_one_message_with_the_picture(
    klingel: Klingel, sandbox: Sandbox, discord: Discord
) -> None:
    asked = discord.server.command(
        "image", prompt="a cat in a hat", n=1, picture1="teal.png", picture2="gold.png"
    )
    for _ in range(2):  # whatever is sent twice
        assert discord.send(asked) is None

    message = discord.until_shown("Picture ready")
    assert (message.place, len(discord.server.posted)) == ("answer", 1)
    assert len(message.history) > 1
    shown = httpx.get(message.embed["image"]["url"], timeout=PATIENCE_S, trust_env=False).raise_for_status()
    assert shown.headers["content-type"].startswith("image/")
    assert message.embed["description"].startswith("> a cat in a hat\n")
    [task] = tasks(klingel)
    assert task["status"] == "succeeded"
    assert task["metadata"]["user"] == USER
    assert sandbox.tasks_made(task) == 1
    assert sandbox.calls(task) == ["create"]

    assert discord.send(discord.server.press(message, "Make a video of it")) is None
    film = discord.until_shown("Video ready")
    assert film is not message
    assert film.content["content"].startswith("http")


def test_what_cannot_be_submitted_is_said_in_its_place(klingel: Klingel, discord: Discord) -> None:
    assert discord.send(discord.server.command("video", prompt="it runs " * 320, picture1="teal.png")) is None

    def told() -> str | None:
        posted = list(discord.server.posted.values())
        return posted[0].content["content"] if posted else None

    assert "I cannot submit that" in until(told, "a refusal")
    assert tasks(klingel) == []


def test_strangers_and_forgers_start_nothing(klingel: Klingel, discord: Discord) -> None:
    pictures = {"picture1": "teal.png", "picture2": "gold.png"}
    stranger = discord.server.command("image", user="1100000000000000099", prompt="a cat", **pictures)
    elsewhere = discord.server.command("image", in_guild=False, prompt="a cat", **pictures)
    for asked in (stranger, elsewhere):
        seen = discord.send(asked)
        assert seen is not None
        assert "may not take orders" in seen["content"]
    assert discord.server.endpoint is not None
    assert discord.check(discord.server.endpoint) == [200, 401]
    asked = discord.server.command("image", prompt="a cat", **pictures)
    headers, body = discord.server.signed(asked)
    for changed in (
        {"x-signature-timestamp": "soon"},
        {"x-signature-timestamp": ""},
        {"x-signature-ed25519": headers["x-signature-ed25519"][::-1]},
    ):
        sent = httpx.post(
            discord.server.endpoint,
            content=body,
            headers=headers | changed,
            timeout=PATIENCE_S,
            trust_env=False,
        )
        assert sent.status_code == 401
    assert httpx.get(discord.server.endpoint, timeout=PATIENCE_S, trust_env=False).status_code == 401
    assert tasks(klingel) == []
    assert not discord.server.posted


def test_a_webhook_of_a_channel_is_told_of_all_tasks(klingel: Klingel, discord: Discord) -> None:
    config = {"webhook_url": discord.server.webhook_url, "server": discord.server.url}
    endpoint = klingel.call("POST", "/endpoints", {"kind": "discord", "config": config}, answers=201)
    assert discord.server.webhook_url not in str(endpoint)
    urls = [f"https://example.com/{name}.png" for name in ("cat", "hat")]
    klingel.submit(
        "kling.multi-image-to-video", {"prompt": "it runs", "image_list": [{"image": url} for url in urls]}
    )
    message = discord.until_shown("Video ready")
    assert message.place == "webhook"
    assert len(discord.server.posted) == 1
    assert CHANNEL not in message.content
