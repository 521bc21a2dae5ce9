"""DingTalk, WeCom and Teams: bots of groups, which speak, against servers that refuse what these refuse."""

import base64
import io
import os
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image

from handlers.chat.configuration import configured
from handlers.chat.dingtalk import Dingtalk
from handlers.chat.platform import Card, Destination, Spoken, Voice
from handlers.chat.sink import default_updates, endpoint_model
from handlers.chat.teams import Teams
from handlers.chat.wecom import Wecom
from handlers.messages import message_of
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.events import Event, EventType
from service.domain.faults import InvalidFields
from service.domain.tasks import TaskError
from service.domain.values import replace
from service.network.dialler import Dialler, Guard, open_dialler
from tests.contract.push_services import LOOPBACK, NOW, TASK, VAULT, event_of, picture, video
from tests.fakes.group_bots import (
    DINGTALK_SECRET,
    DINGTALK_TOKEN,
    TEAMS_PATH,
    WECOM_KEY,
    FakeDingtalk,
    FakeTeams,
    FakeWecom,
)
from tests.integration.klingel import png

RETRY, DEAD, GONE = AttemptOutcome.RETRY, AttemptOutcome.DEAD, AttemptOutcome.GONE
EVIL = "<at>all</at> [here](http://evil.example) **b** `c` # d @all <@everyone>"
KINDS: Mapping[str, tuple[type[Voice], type[FakeDingtalk | FakeWecom | FakeTeams]]] = {
    "dingtalk": (Dingtalk, FakeDingtalk),
    "wecom": (Wecom, FakeWecom),
    "teams": (Teams, FakeTeams),
}


@pytest.fixture
async def dialler(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(LOOPBACK) as dialler:
        yield dialler


@pytest.fixture
async def dingtalk(anyio_backend: str) -> AsyncIterator[FakeDingtalk]:
    async with (server := FakeDingtalk()).running():
        yield server


@pytest.fixture
async def wecom(anyio_backend: str) -> AsyncIterator[FakeWecom]:
    async with (server := FakeWecom()).running():
        yield server


@pytest.fixture
async def teams(anyio_backend: str) -> AsyncIterator[FakeTeams]:
    async with (server := FakeTeams()).running():
        yield server


@pytest.fixture(params=KINDS)
async def any(
    request: pytest.FixtureRequest, dialler: Dialler
) -> AsyncIterator[tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams]]:
    voice, server = KINDS[request.param]
    async with (running := server()).running():
        yield voice(dialler), running


def to(server: FakeDingtalk | FakeWecom | FakeTeams, **more: Any) -> Destination:
    secrets = {"webhook_url": server.webhook_url} | {k: v for k, v in more.items() if k == "secret"}
    return Destination(config={"server": server.url, **more}, secrets=secrets)


def card(event: Event | None = None, *, prompt: str | None = None, **more: Any) -> Card:
    return Card(message=message_of(event or event_of(makes="image", **more)), prompt=prompt)


def outcome(reply: Reply) -> tuple[AttemptOutcome, timedelta | None]:
    found = result(reply, attempt=1, now=NOW, jitter=0)
    return found.outcome, None if found.next_attempt_at is None else found.next_attempt_at - NOW


async def said(voice: Voice, to: Destination, card: Card) -> Spoken:
    spoken = await voice.post(to, card, now=NOW)
    assert outcome(spoken.reply)[0] is AttemptOutcome.DELIVERED, spoken
    assert spoken.reference is None
    return spoken


# All of them


async def test_what_cannot_be_edited_is_said_at_the_end(any: tuple[Voice, Any]) -> None:
    assert default_updates(any[0]) == "final"


@pytest.mark.parametrize(
    "event",
    [
        event_of(makes="image", outputs=[picture(n) for n in range(9)]),
        event_of(outputs=[video()]),
        event_of(outputs=[video(poster_url="http://example.com/still.jpg")]),
        event_of(EventType.TASK_FAILED, error=TaskError("1301", EVIL)),
        event_of(EventType.TASK_FAILED, error=TaskError("1301", '图\\"' * 3000), external_task_id="é" * 5000),
        event_of(EventType.TASK_SUBMITTED),
        event_of(outputs=[replace(picture(n), url=f"http://example.com/{'x' * 1950}{n}") for n in range(9)]),
        event_of(outputs=[picture(stored_url="http://example.com/" + "x" * 4000)]),
    ],
)
@pytest.mark.parametrize("prompt", [None, EVIL, '图\\"' * 3000, "a\nb\n# c"])
async def test_whatever_happens_is_said_within_the_limits_and_without_markup(
    any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams], event: Event, prompt: str | None
) -> None:
    """The fakes judge that."""
    voice, server = any
    await said(voice, to(server), card(event, prompt=prompt))
    [told] = server.said
    assert "](http://evil" not in repr(told) or isinstance(voice, Teams | Wecom)  # these have no markup


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, (DEAD, None)),
        (403, (DEAD, None)),
        (408, (RETRY, timedelta(seconds=5))),
        (500, (RETRY, timedelta(seconds=5))),
        (302, (RETRY, timedelta(seconds=5))),
    ],
)
async def test_a_status_is_judged(
    any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams], status: int, expected: tuple[Any, Any]
) -> None:
    voice, server = any
    server.answers(status, "", location="http://example.com/")
    assert outcome((await voice.post(to(server), card(), now=NOW)).reply) == expected
    assert len(server.requests) == 1


async def test_retry_after_is_obeyed(any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams]) -> None:
    voice, server = any
    server.answers(429, "", retry_after="120")
    spoken = await voice.post(to(server), card(), now=NOW)
    assert outcome(spoken.reply) == (RETRY, timedelta(seconds=120))


async def test_a_page_is_no_success(any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams]) -> None:
    voice, server = any
    server.answers(200, "<html>Log in</html>", content_type="text/html")
    spoken = await voice.post(to(server), card(), now=NOW)
    assert outcome(spoken.reply) == (RETRY, timedelta(seconds=5))


async def test_no_secret_stands_in_what_is_kept_of_an_answer(
    any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams],
) -> None:
    voice, server = any
    where = to(server, secret=DINGTALK_SECRET)
    server.answers(
        400, f"no {server.webhook_url} {DINGTALK_TOKEN} {DINGTALK_SECRET * isinstance(voice, Dingtalk)}"
    )
    spoken = await voice.post(where, card(), now=NOW)
    assert spoken.reply.excerpt.startswith("no ••••")
    for secret in (
        WECOM_KEY,
        DINGTALK_SECRET,
        "Zm9yZ2Vye%2BS1pcy1ub3QtcG9zc2libGU",
        "Zm9yZ2Vye+S1pcy1ub3QtcG9zc2libGU",
    ):
        assert secret not in spoken.reply.excerpt
    assert DINGTALK_TOKEN not in spoken.reply.excerpt or not isinstance(voice, Dingtalk)


def configure(voice: Voice, config: Mapping[str, Any]) -> Mapping[str, Any]:
    public, _ = configured(
        endpoint_model(voice),
        voice.endpoint_secrets,
        dict(config),
        pointer="#",
        vault=VAULT,
        before=None,
        more_faults=lambda read: voice.faults(read, pointer="#"),
    )
    return public


async def test_its_address_is_shown_to_nobody(
    any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams],
) -> None:
    voice, server = any
    more = {} if isinstance(voice, Teams) else {"server": server.url}
    shown = configure(voice, {"webhook_url": server.webhook_url, **more})
    assert shown["webhook_url"] == "••••"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dingtalk", {"webhook_url": f"https://evil.example/robot/send?access_token={DINGTALK_TOKEN}"}),
        ("dingtalk", {"webhook_url": "https://oapi.dingtalk.com/robot/send"}),
        ("dingtalk", {"webhook_url": "https://oapi.dingtalk.com/robot/send?access_token="}),
        ("dingtalk", {"webhook_url": "https://oapi.dingtalk.com/other?access_token=x"}),
        ("wecom", {"webhook_url": f"https://evil.example/cgi-bin/webhook/send?key={WECOM_KEY}"}),
        ("wecom", {"webhook_url": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send"}),
        ("teams", {"webhook_url": "ftp://example.com/"}),
        ("teams", {"webhook_url": "http://10.0.0.1/workflows"}),
        ("teams", {}),
    ],
)
async def test_an_address_that_cannot_be_right_is_refused(
    dialler: Dialler, kind: str, config: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFields) as refused:
        configure(KINDS[kind][0](dialler), config)
    assert [fault.pointer for fault in refused.value.faults] == ["#/webhook_url"]


async def test_a_private_server_is_not_dialled(
    any: tuple[Voice, FakeDingtalk | FakeWecom | FakeTeams], anyio_backend: str
) -> None:
    voice, server = any
    async with open_dialler(Guard()) as guarded:
        spoken = await type(voice)(guarded).post(to(server), card(), now=NOW)
    assert spoken.reply.reason.startswith("not dialled")
    assert server.requests == []


# DingTalk


async def test_dingtalk_shows_a_card_with_picture_and_buttons(
    dialler: Dialler, dingtalk: FakeDingtalk
) -> None:
    await said(
        Dingtalk(dialler), to(dingtalk), card(outputs=[picture(0), picture(1)], prompt="a cat\nin a hat")
    )
    [shown] = dingtalk.said
    assert shown == {
        "title": "✅ 2 pictures ready",
        "text": "### ✅ 2 pictures ready\n\n> a cat in a hat\n\n![](http://example.com/0.png)\n\n"
        "order-1042 · kling.multi-image-to-image",
        "btnOrientation": "0",
        "btns": [
            {"title": "Open picture 1", "actionURL": "http://example.com/0.png"},
            {"title": "Open picture 2", "actionURL": "http://example.com/1.png"},
        ],
    }
    await said(Dingtalk(dialler), to(dingtalk), card(event_of(outputs=[video()])))
    assert dingtalk.said[-1]["singleURL"] == "http://example.com/out.mp4"


async def test_what_others_wrote_is_no_markup_in_dingtalk(dialler: Dialler, dingtalk: FakeDingtalk) -> None:
    event = event_of(EventType.TASK_FAILED, error=TaskError("1", EVIL))
    await said(Dingtalk(dialler), to(dingtalk), card(event, prompt=EVIL))
    [shown] = dingtalk.said
    told = shown["text"].removeprefix("### ").replace("\n\n> ", "\n\n")
    assert not set("<>[]*`#") & set(told)
    assert "@a" not in told


async def test_a_bot_that_asks_for_signatures_gets_them(dialler: Dialler, dingtalk: FakeDingtalk) -> None:
    """Encoded once: the base64 has what a query reads otherwise."""
    dingtalk.secret = DINGTALK_SECRET
    voice = Dingtalk(dialler)
    for second in range(20):
        dingtalk.now = NOW + timedelta(seconds=second)
        spoken = await voice.post(to(dingtalk, secret=DINGTALK_SECRET), card(), now=dingtalk.now)
        assert outcome(spoken.reply)[0] is AttemptOutcome.DELIVERED
    dingtalk.now += timedelta(hours=2)
    for where in (to(dingtalk), to(dingtalk, secret=DINGTALK_SECRET), to(dingtalk, secret="SECanother")):
        spoken = await voice.post(where, card(), now=NOW)
        assert outcome(spoken.reply) == (DEAD, None)
    assert len(dingtalk.said) == 20


async def test_every_message_has_the_keyword_kling(dialler: Dialler, dingtalk: FakeDingtalk) -> None:
    """For bots that ask for a keyword."""
    dingtalk.keyword = "kling"
    for event in (
        event_of(outputs=[video()]),
        event_of(EventType.TASK_FAILED),
        event_of(EventType.TASK_OVERDUE),
    ):
        await said(Dingtalk(dialler), to(dingtalk), card(event))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (310000, (DEAD, None)),
        (300001, (GONE, None)),
        (400102, (GONE, None)),
        (130101, (RETRY, timedelta(minutes=1))),
        (410100, (RETRY, timedelta(minutes=1))),
        (-1, (RETRY, timedelta(seconds=5))),
        (99999, (RETRY, timedelta(seconds=5))),
    ],
)
async def test_dingtalks_codes_count_under_status_200(
    dialler: Dialler, dingtalk: FakeDingtalk, code: int, expected: tuple[Any, Any]
) -> None:
    dingtalk.answers(200, f'{{"errcode": {code}, "errmsg": "…"}}')
    assert outcome((await Dingtalk(dialler).post(to(dingtalk), card(), now=NOW)).reply) == expected


# WeCom


async def test_wecom_shows_an_article_for_each_thing_to_open(dialler: Dialler, wecom: FakeWecom) -> None:
    await said(Wecom(dialler), to(wecom), card(outputs=[picture(0), picture(1)], prompt="a cat in a hat"))
    [shown] = wecom.said
    first, second = shown["news"]["articles"]
    assert first == {
        "title": "✅ 2 pictures ready: Picture 1",
        "description": "a cat in a hat\norder-1042 · kling.multi-image-to-image",
        "url": "http://example.com/0.png",
        "picurl": "http://example.com/0.png",
    }
    assert second["picurl"] == "http://example.com/1.png"


async def test_a_film_in_wecom_is_shown_by_its_still(dialler: Dialler, wecom: FakeWecom) -> None:
    event = event_of(outputs=[video(poster_url="http://example.com/still.jpg")])
    await said(Wecom(dialler), to(wecom), card(event))
    [article] = wecom.said[0]["news"]["articles"]
    assert (article["url"], article["picurl"]) == (
        "http://example.com/out.mp4",
        "http://example.com/still.jpg",
    )


async def test_wecom_is_given_the_picture_itself_where_that_is_wanted(
    dialler: Dialler, wecom: FakeWecom
) -> None:
    wecom.pictures["/0.png"] = png()
    output = replace(picture(), url=f"{wecom.url}/0.png")
    await said(Wecom(dialler), to(wecom, pictures="sent"), card(outputs=[output]))
    assert [one["msgtype"] for one in wecom.said] == ["news", "image"]
    assert base64.b64decode(wecom.said[1]["image"]["base64"]) == png()
    await said(Wecom(dialler), to(wecom, pictures="sent"), card(event_of(EventType.TASK_FAILED)))
    assert len(wecom.said) == 3


async def test_a_picture_that_is_too_large_for_wecom_is_made_smaller(
    dialler: Dialler, wecom: FakeWecom
) -> None:
    file = io.BytesIO()
    Image.frombytes("RGB", (900, 900), os.urandom(900 * 900 * 3)).save(file, "png")
    assert len(file.getvalue()) > 2 * 1024 * 1024
    wecom.pictures["/0.png"] = file.getvalue()
    output = replace(picture(), url=f"{wecom.url}/0.png")
    await said(Wecom(dialler), to(wecom, pictures="sent"), card(outputs=[output]))
    shown = Image.open(io.BytesIO(base64.b64decode(wecom.said[1]["image"]["base64"])))
    assert (shown.format, shown.size) == ("JPEG", (640, 640))


@pytest.mark.parametrize("content", [None, b"<html>gone</html>", b"\x89PNG\r\n\x1a\n" + b"x" * 3_000_000])
async def test_without_its_picture_a_message_is_told_all_the_same(
    dialler: Dialler, wecom: FakeWecom, content: bytes | None
) -> None:
    """Once: another attempt would tell it again."""
    if content is not None:
        wecom.pictures["/0.png"] = content
    output = replace(picture(), url=f"{wecom.url}/0.png")
    spoken = await said(Wecom(dialler), to(wecom, pictures="sent"), card(outputs=[output]))
    assert spoken.reply.reason.startswith("answered, but the picture was not sent: ")
    assert [one["msgtype"] for one in wecom.said] == ["news"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (93000, (GONE, None)),
        (40058, (DEAD, None)),
        (45009, (RETRY, timedelta(minutes=1))),
        (-1, (RETRY, timedelta(seconds=5))),
        (99999, (RETRY, timedelta(seconds=5))),
    ],
)
async def test_wecoms_codes_count_under_status_200(
    dialler: Dialler, wecom: FakeWecom, code: int, expected: tuple[Any, Any]
) -> None:
    wecom.answers(200, f'{{"errcode": {code}, "errmsg": "…"}}')
    assert outcome((await Wecom(dialler).post(to(wecom), card(), now=NOW)).reply) == expected


# Teams


async def test_teams_shows_a_card_with_picture_and_links(dialler: Dialler, teams: FakeTeams) -> None:
    await said(Teams(dialler), to(teams), card(outputs=[picture(0), picture(1)], prompt="a cat in a hat"))
    [shown] = teams.said
    title, prompt, image, facts = shown["body"]
    assert (title["text"], title["color"]) == ("2 pictures ready", "good")
    assert prompt["inlines"] == [{"type": "TextRun", "text": "a cat in a hat", "italic": True}]
    assert image == {
        "type": "Image",
        "url": "http://example.com/0.png",
        "altText": "a cat in a hat",
        "selectAction": {"type": "Action.OpenUrl", "url": "http://example.com/0.png"},
    }
    assert facts["inlines"][0]["text"] == "order-1042 · kling.multi-image-to-image"
    assert [action["title"] for action in shown["actions"]] == ["Open picture 1", "Open picture 2"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (202, "", (AttemptOutcome.DELIVERED, None)),
        (200, "1", (AttemptOutcome.DELIVERED, None)),
        (
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x",
            (RETRY, timedelta(seconds=30)),
        ),
        (
            200,
            "Microsoft Teams endpoint returned HTTP error 502 with ContextId x",
            (RETRY, timedelta(seconds=5)),
        ),
        (200, "Microsoft Teams endpoint returned HTTP error 413 with ContextId x", (DEAD, None)),
        (404, '{"error": {"code": "WorkflowNotFound", "message": "…"}}', (GONE, None)),
        (404, '{"error": {"code": "ResourceNotFound"}}', (DEAD, None)),
        (404, '{"error": "?"}', (DEAD, None)),
        (410, "", (GONE, None)),
        (401, '{"error": {"code": "DirectApiAuthorizationRequired"}}', (DEAD, None)),
    ],
)
async def test_what_teams_says_is_read_under_any_status(
    dialler: Dialler, teams: FakeTeams, status: int, body: str, expected: tuple[Any, Any]
) -> None:
    """A connector answers 200 for a message that went nowhere."""
    teams.answers(status, body)
    assert outcome((await Teams(dialler).post(to(teams), card(), now=NOW)).reply) == expected


async def test_the_signature_in_the_address_arrives_as_it_was_given(
    dialler: Dialler, teams: FakeTeams
) -> None:
    """With its plus sign."""
    await said(Teams(dialler), to(teams), card())
    wrong = replace(to(teams), secrets={"webhook_url": f"{teams.url}{TEAMS_PATH}?sig=another"})
    assert outcome((await Teams(dialler).post(wrong, card(), now=NOW)).reply) == (DEAD, None)


async def test_a_task_can_be_told_without_its_prompt(dialler: Dialler, teams: FakeTeams) -> None:
    await said(Teams(dialler), to(teams), card(event_of(EventType.TASK_OVERDUE, task_id=TASK)))
    assert teams.said[0]["body"][0]["text"] == "Video overdue"
