"""A person types a command in Mattermost, and one post there becomes the video that was made."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from tests.e2e.parties import Json, Klingel, Sandbox, picture
from tests.e2e.processes import PATIENCE_S, run, until
from tests.fakes.mattermost import (
    BOT_TOKEN,
    CHANNEL,
    COMMAND_TOKEN,
    TEAM,
    WEBHOOK_TOKEN,
    FakeMattermost,
    Post,
)

FILES = ("f" * 26, "g" * 26)
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def mattermost() -> Iterator[FakeMattermost]:
    mattermost = FakeMattermost(now=datetime.now(UTC))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(mattermost.running()):
        yield mattermost


@pytest.fixture
def bot(klingel: Klingel, mattermost: FakeMattermost) -> Json:
    """As an operator makes it."""
    made = run(
        "klingel", "bots", "create", "--platform", "mattermost", "--allow", f"workspace={TEAM},chat={CHANNEL}",
        "--config", f"server={mattermost.url}", f"command_token={COMMAND_TOKEN}",
        f"webhook_token={WEBHOOK_TOKEN}", f"bot_token={BOT_TOKEN}", "--json",
        folder=klingel.folder, environment=klingel.environment,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert BOT_TOKEN not in made.stdout
    bot: Json = json.loads(made.stdout)
    return bot


def post(bot: Json, body: bytes, **headers: str) -> Json:
    """As Mattermost does; what it reads."""
    sent = FORM | {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.post(bot["url"], content=body, headers=sent, timeout=PATIENCE_S, trust_env=False)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def until_shown(mattermost: FakeMattermost, title: str, *, number: int = 1) -> list[Post]:
    """The posts of this title, once there are so many."""

    def shown() -> list[Post]:
        found = [one for one in list(mattermost.posts.values()) if one.attachment.get("title") == title]
        return found if len(found) >= number else []

    return until(shown, f"posts with {title}; there are {mattermost.posts}")


def tasks(klingel: Klingel) -> list[Json]:
    listed: list[Json] = klingel.call("GET", "/tasks")["items"]
    return listed


def test_a_post_with_pictures_becomes_a_video_in_its_thread(
    klingel: Klingel, sandbox: Sandbox, mattermost: FakeMattermost, bot: Json
) -> None:
    files = dict(zip(FILES, (picture("teal"), picture("gold")), strict=True))
    said = mattermost.said("kling video a cat puts on a hat", files=files)
    for _ in range(3):
        assert post(bot, said) == {}
    [shown] = until_shown(mattermost, "Video ready")
    [task] = tasks(klingel)
    assert sandbox.tasks_made(task) == 1
    assert shown.root == next(iter(mattermost.posts))
    assert len(shown.history) > 1
    assert "a cat puts on a hat" in shown.attachment["text"]

    def has_still() -> str:
        return str(shown.attachment.get("image_url", ""))

    # When the copy is kept, there is a still of it, and the links are Klingel's own.
    still = httpx.get(until(has_still, "a still of the video"), timeout=PATIENCE_S, trust_env=False)
    assert (still.status_code, still.headers["content-type"]) == (200, "image/jpeg")
    video = httpx.get(shown.attachment["title_link"], timeout=PATIENCE_S, trust_env=False)
    assert (video.status_code, video.headers["content-type"]) == (200, "video/mp4")
    assert shown.attachment["title"] == "Video ready"
    assert len(mattermost.posts) == 2


def test_a_button_makes_a_film_of_what_was_made(
    klingel: Klingel, mattermost: FakeMattermost, bot: Json
) -> None:
    files = dict(zip(FILES, (picture("teal"), picture("gold")), strict=True))
    post(bot, mattermost.said("kling image a cat in a hat n=2", files=files))
    until_shown(mattermost, "2 pictures ready")
    url, pressed = mattermost.press(list(mattermost.posts)[-1], "Make a video of it")
    assert url == bot["url"]
    assert post(bot, pressed, content_type="application/json") == {"ephemeral_text": "On its way."}
    until_shown(mattermost, "Video ready")
    assert [task["type"] for task in tasks(klingel)] == [
        "kling.multi-image-to-video",
        "kling.multi-image-to-image",
    ]


def test_a_stranger_is_told_so_and_gets_nothing(
    klingel: Klingel, mattermost: FakeMattermost, bot: Json
) -> None:
    answer = post(bot, mattermost.command("image a cat", channel_id="a" * 26))
    assert (answer["response_type"], "may not take orders" in answer["text"]) == ("ephemeral", True)
    forged = mattermost.command("image a cat", token="gr4u5hp1rjg1mxm9gcqo8x5c1f")
    assert (
        httpx.post(bot["url"], content=forged, headers=FORM, timeout=PATIENCE_S, trust_env=False).status_code
        == 401
    )
    assert tasks(klingel) == []
    assert COMMAND_TOKEN not in "\n".join(klingel.process.errors)
