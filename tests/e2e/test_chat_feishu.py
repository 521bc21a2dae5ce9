"""A person calls the bot in Feishu with two pictures, and sees one card become the picture that was made."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from tests.e2e.parties import Json, Klingel, Sandbox, picture
from tests.e2e.processes import PATIENCE_S, until
from tests.fakes.feishu import (
    APP,
    APP_SECRET,
    ENCRYPT,
    GROUP,
    HOOK,
    STRANGER,
    TENANT,
    USER,
    VERIFICATION,
    FakeFeishu,
    Shown,
    buttons,
    images,
)

SECRETS = {"app_secret": APP_SECRET, "verification_token": VERIFICATION, "encrypt_key": ENCRYPT}


@pytest.fixture
def feishu() -> Iterator[FakeFeishu]:
    feishu = FakeFeishu(now=datetime.now(UTC))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(feishu.running()):
        yield feishu


@pytest.fixture
def url(klingel: Klingel, feishu: FakeFeishu) -> str:
    """Where the app's events go."""
    body = {
        "platform": "feishu",
        "config": {"app_id": APP, "server": feishu.url, **SECRETS},
        "allow": [{"workspace": TENANT, "chat": GROUP, "user": USER}],
    }
    bot: Json = klingel.call("POST", "/bots", body, answers=201)
    assert not any(secret in str(bot) for secret in SECRETS.values())
    return str(bot["url"])


def post(url: str, feishu: FakeFeishu, event: Json) -> httpx.Response:
    """As Feishu does."""
    headers, body = feishu.sent(event, now=datetime.now(UTC))
    return httpx.post(url, content=body, headers=headers, timeout=PATIENCE_S, trust_env=False)


def asks(feishu: FakeFeishu, text: str, **more: str) -> Json:
    pictures = {f"img_v3_{colour}": picture(colour) for colour in ("teal", "gold")}
    return feishu.message(text, pictures=pictures, id=f"om_{uuid4().hex}", **more)


def until_shown(feishu: FakeFeishu, words: str) -> tuple[str, Shown]:
    """The card that says so, and its name."""

    def shown() -> tuple[str, Shown] | None:
        return next(((id, one) for id, one in list(feishu.shown.items()) if words in one.words), None)

    return until(shown, f"a card with {words}; there are {[one.words for one in feishu.shown.values()]}")


def tasks(klingel: Klingel) -> list[Json]:
    listed: list[Json] = klingel.call("GET", "/tasks")["items"]
    return listed


def test_a_message_with_pictures_becomes_one_card_with_the_picture(
    klingel: Klingel, sandbox: Sandbox, feishu: FakeFeishu, url: str
) -> None:
    check = {"challenge": "ajls384kdjx98XX", "token": VERIFICATION, "type": "url_verification"}
    assert post(url, feishu, check).json() == {"challenge": "ajls384kdjx98XX"}
    event = asks(feishu, "image a cat in a hat n=1")
    for _ in range(3):  # it is sent again until it is answered
        answer = post(url, feishu, event)
        assert (answer.status_code, answer.json()) == (200, {})

    id, card = until_shown(feishu, "Picture ready")
    assert list(feishu.shown) == [id]
    assert (card.chat, card.answers) == (GROUP, event["event"]["message"]["message_id"])
    assert len(card.history) > 1
    assert "a cat in a hat" in card.words
    [image] = images(card.card)
    made = buttons(card.card)[0]["behaviors"][0]["default_url"]
    shown = httpx.get(made, timeout=PATIENCE_S, trust_env=False).raise_for_status().content
    assert shown in feishu.uploaded.values()
    assert image["img_key"] in feishu.uploaded
    [task] = tasks(klingel)
    assert task["status"] == "succeeded"
    assert len(klingel.task(task["id"])["input"]["subject_image_list"]) == 2
    assert sandbox.tasks_made(task) == 1
    assert sandbox.calls(task) == ["create"]

    pressed = post(url, feishu, feishu.press(id, "Make a video of it", event_id=uuid4().hex))
    assert pressed.json() == {"toast": {"type": "info", "content": "On its way."}}
    _, film = until_shown(feishu, "Video ready")
    assert film.answers == id
    assert len(tasks(klingel)) == 2


def test_strangers_and_forgers_start_nothing(klingel: Klingel, feishu: FakeFeishu, url: str) -> None:
    stranger = asks(feishu, "image a cat", sender=STRANGER)
    assert post(url, feishu, stranger).status_code == 200
    _, card = until_shown(feishu, "may not take orders")
    assert card.answers == stranger["event"]["message"]["message_id"]
    headers, body = feishu.sent(asks(feishu, "image a cat"), now=datetime.now(UTC))
    for changed in (
        {"x-lark-signature": "0" * 64},
        {"x-lark-request-timestamp": "1608725989"},
        {"x-lark-request-timestamp": "soon"},
    ):
        assert (
            httpx.post(
                url, content=body, headers=headers | changed, timeout=PATIENCE_S, trust_env=False
            ).status_code
            == 401
        )
    assert httpx.post(url, content=body, timeout=PATIENCE_S, trust_env=False).status_code == 401
    assert (
        httpx.post(url, content=b"?", headers=headers, timeout=PATIENCE_S, trust_env=False).status_code == 401
    )
    assert tasks(klingel) == []
    assert len(feishu.shown) == 1


def test_a_custom_bot_is_an_endpoint_that_is_tested_by_its_own_event(
    klingel: Klingel, feishu: FakeFeishu
) -> None:
    body = {"kind": "feishu", "config": {"webhook_url": feishu.url + HOOK, "server": feishu.url}}
    endpoint: Json = klingel.call("POST", "/endpoints", body, answers=201)
    assert HOOK not in str(endpoint)
    klingel.call("POST", f"/endpoints/{endpoint['id']}/test", answers=202)
    [shown] = until(lambda: feishu.hooked, "a card in the group")
    assert shown["header"]["title"]["content"] == "Klingel rings"
    [delivery] = klingel.until_delivered(1, endpoint_id=endpoint["id"])
    assert delivery["status"] == "delivered"
