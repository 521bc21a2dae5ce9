"""A person mentions the bot in Slack, attaches two pictures, and sees one message become the picture that was made."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from tests.e2e.parties import Json, Klingel, Sandbox, picture
from tests.e2e.processes import PATIENCE_S, until
from tests.fakes.slack import (
    BOT,
    CHANNEL,
    SIGNING_SECRET,
    TEAM,
    TOKEN,
    USER,
    FakeSlack,
    Message,
    buttons,
    signed,
)


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    slack = FakeSlack(now=datetime.now(UTC))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(slack.running()):
        yield slack


@pytest.fixture
def url(klingel: Klingel, slack: FakeSlack) -> str:
    """Where the app's requests go."""
    body = {
        "platform": "slack",
        "config": {"signing_secret": SIGNING_SECRET, "bot_token": TOKEN, "server": slack.url},
        "allow": [{"workspace": TEAM, "user": USER}],
    }
    bot: Json = klingel.call("POST", "/bots", body, answers=201)
    assert TOKEN not in str(bot)
    return str(bot["url"])


def post(url: str, body: bytes, **headers: str) -> httpx.Response:
    """As Slack does."""
    sent = signed(body, now=datetime.now(UTC)) | headers
    return httpx.post(url, content=body, headers=sent, timeout=PATIENCE_S, trust_env=False)


def mention(slack: FakeSlack, text: str, *, ts: str = "1515449522.000016", **event: object) -> bytes:
    files = [
        slack.file(picture(name), id=f"F0{name.upper()}", name=f"{name}.png") for name in ("teal", "gold")
    ]
    return slack.mention(f"<@{BOT}> {text}", ts=ts, files=files, **event)


def until_shown(slack: FakeSlack, words: str) -> tuple[str, Message]:
    """The message that says so, and its name."""

    def shown() -> tuple[str, Message] | None:
        return next((one for one in list(slack.messages.items()) if words in one[1].shown["text"]), None)

    return until(shown, f"a message with {words}; there are {slack.messages}")


def tasks(klingel: Klingel) -> list[Json]:
    listed: list[Json] = klingel.call("GET", "/tasks")["items"]
    return listed


def test_a_mention_becomes_one_message_with_the_picture(
    klingel: Klingel, sandbox: Sandbox, slack: FakeSlack, url: str
) -> None:
    body = mention(slack, "image a cat in a hat n=1")
    for retry in ({}, {"x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}):
        answer = post(url, body, **retry)
        assert (answer.status_code, answer.content) == (200, b"")

    ts, message = until_shown(slack, "✅ Picture ready")
    assert (message.channel, message.thread_ts) == (CHANNEL, "1515449522.000016")
    assert list(slack.messages) == [ts]
    assert len(message.history) > 1
    [image] = [block for block in message.shown["blocks"] if block["type"] == "image"]
    shown = httpx.get(image["image_url"], timeout=PATIENCE_S, trust_env=False).raise_for_status()
    assert shown.headers["content-type"].startswith("image/")
    assert "a cat in a hat" in str(message.shown["blocks"])
    [task] = tasks(klingel)
    assert task["status"] == "succeeded"
    assert sandbox.tasks_made(task) == 1
    assert sandbox.calls(task) == ["create"]

    assert post(url, slack.press(message, ts, "Make a video of it")).status_code == 200
    _, film = until_shown(slack, "✅ Video ready")
    assert film.thread_ts == message.thread_ts
    assert buttons(film.shown)[0]["url"].startswith("http")
    assert sorted(task["type"] for task in tasks(klingel)) == [
        "kling.multi-image-to-image",
        "kling.multi-image-to-video",
    ]


def test_a_failure_is_said_where_it_was_asked_for(slack: FakeSlack, url: str) -> None:
    assert post(url, mention(slack, "video a cat sandbox:fail")).status_code == 200
    _, message = until_shown(slack, "❌ Video failed")
    assert len(slack.messages) == 1
    assert [one["text"]["text"] for one in buttons(message.shown)] == ["Again"]


def test_without_a_token_a_slash_command_is_answered_by_its_response_url(
    klingel: Klingel, slack: FakeSlack
) -> None:
    body = {
        "platform": "slack",
        "config": {"signing_secret": SIGNING_SECRET, "server": slack.url},
        "allow": [{"workspace": TEAM}],
    }
    bot = klingel.call("POST", "/bots", body, answers=201)
    help = post(bot["url"], slack.command("help")).json()
    assert help["response_type"] == "ephemeral"
    links = "https://example.com/cat.png https://example.com/hat.png"
    assert post(bot["url"], slack.command(f"image a cat in a hat {links}")).status_code == 200

    def answered() -> list[str] | None:
        said = [one["text"].split(":")[0] for answers in list(slack.responses.values()) for one in answers]
        return said if "✅ Picture ready" in said else None

    assert until(answered, "an answer") == ["⏳ Picture submitted", "✅ Picture ready"]


def test_strangers_and_forgers_start_nothing(klingel: Klingel, slack: FakeSlack, url: str) -> None:
    stranger = mention(slack, "image a cat", user="U0STRANGER")
    assert post(url, stranger).status_code == 200
    until(lambda: slack.whispers, "a refusal")
    assert (slack.whispers[0]["user"], slack.messages) == ("U0STRANGER", {})
    ours = mention(slack, "image a cat")
    assert post(url, ours, **{"x-slack-signature": "v0=" + "0" * 64}).status_code == 401
    assert post(url, ours, **{"x-slack-request-timestamp": "soon"}).status_code == 401
    own = mention(slack, "image a cat", bot_id="B0BOT00001")
    assert post(url, own).status_code == 200
    assert tasks(klingel) == []
    challenge = b'{"type": "url_verification", "challenge": "3eZbrw1aBm2r"}'
    assert post(url, challenge).text == "3eZbrw1aBm2r"
