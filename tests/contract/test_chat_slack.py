"""Slack, against a workspace that refuses what Slack refuses, with its own SDK signing and reading."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from handlers.chat.configuration import configured, opened
from handlers.chat.grammar import Ask, parse
from handlers.chat.platform import (
    Answer,
    Button,
    Card,
    Destination,
    Forged,
    Inbound,
    NotFetched,
    Press,
    Pressed,
    Said,
    Spoken,
)
from handlers.chat.sink import endpoint_model
from handlers.chat.slack import Slack
from handlers.messages import message_of
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, result
from service.domain.events import Event, EventType
from service.domain.faults import InvalidFields
from service.domain.tasks import TaskError
from service.domain.values import replace
from service.network.dialler import Guard, open_dialler
from tests.contract.push_services import LOOPBACK, NOW, TASK, VAULT, event_of, picture, video
from tests.fakes.slack import (
    BOT,
    CHANNEL,
    DIRECT,
    ELSEWHERE,
    SIGN_IN,
    SIGNING_SECRET,
    TEAM,
    TOKEN,
    USER,
    FakeSlack,
    buttons,
    markdown,
    signed,
)
from tests.integration.klingel import png

SUBMITTED, PROCESSING, SUCCEEDED = (
    EventType.TASK_SUBMITTED,
    EventType.TASK_PROCESSING,
    EventType.TASK_SUCCEEDED,
)
STEVE = Person(workspace=TEAM, chat=CHANNEL, user=USER, name="Steve")


@pytest.fixture
async def platform(anyio_backend: str) -> AsyncIterator[Slack]:
    async with open_dialler(LOOPBACK) as dialler:
        yield Slack(dialler)


@pytest.fixture
async def slack(anyio_backend: str) -> AsyncIterator[FakeSlack]:
    service = FakeSlack()
    async with service.running():
        yield service


def heard(platform: Slack, slack: FakeSlack, body: bytes, **headers: str) -> Any:
    request = Inbound(method="POST", headers=signed(body) | headers, query={}, body=body)
    return platform.hear(request, config={"server": slack.url}, secrets=bot_secrets(), now=NOW)


def bot_secrets(**more: str) -> dict[str, str]:
    return {"signing_secret": SIGNING_SECRET, **more}


def asked(platform: Slack, slack: FakeSlack, body: bytes | None = None, **secrets: str) -> Destination:
    """Where a command came from, at a bot with these secrets."""
    said = heard(platform, slack, body or slack.command("image a cat"))
    return Destination(
        config={"server": slack.url}, secrets=bot_secrets(**secrets), address=said.address, asked_at=NOW
    )


def own(slack: FakeSlack, **config: str) -> Destination:
    """An endpoint of one's own."""
    secrets = {name: config[name] for name in ("bot_token", "webhook_url") if name in config}
    return Destination(config={"server": slack.url, **config}, secrets=secrets)


def hook(slack: FakeSlack) -> str:
    return f"{slack.url}/services/T1/B1/secret"


def card(
    type: EventType = SUCCEEDED, *, prompt: str = "a cat in a hat", event: Event | None = None, **more: Any
) -> Card:
    by = more.pop("by", STEVE)
    message = message_of(event or event_of(type, makes="image", **more), as_it_stands=True)
    again = Button(label="Again", press=Press.AGAIN, task_id=TASK)
    return Card(message=message, prompt=prompt, asked_by=by, buttons=[again] if message.is_final else ())


def outcome(spoken: Spoken, *, attempt: int = 1) -> tuple[AttemptOutcome, timedelta | None]:
    found = result(spoken.reply, attempt=attempt, now=NOW, jitter=0)
    return found.outcome, None if found.next_attempt_at is None else found.next_attempt_at - NOW


async def told(platform: Slack, to: Destination, *cards: Card, **kwargs: Any) -> Spoken:
    """One after the other, as the sink does."""
    spoken = await platform.post(to, cards[0], now=NOW)
    for one in cards[1:]:
        assert outcome(spoken)[0] is AttemptOutcome.DELIVERED, spoken
        assert spoken.reference is not None
        spoken = await platform.edit(to, spoken.reference, one, now=NOW)
    return spoken


# What comes in


async def test_a_slash_command_is_heard_with_who_gave_it(platform: Slack, slack: FakeSlack) -> None:
    said = heard(platform, slack, slack.command("image a cat &amp; a dog n=2"))
    assert isinstance(said, Said)
    assert said.person == STEVE
    assert said.text == "image a cat & a dog n=2"
    assert said.key == "command:13345224609.738474920.8088"
    assert said.address["channel"] == CHANNEL
    assert said.address["response_url"].startswith(slack.url)


async def test_what_slack_did_not_sign_is_forged(platform: Slack, slack: FakeSlack) -> None:
    """Any bit of the body, of the signature, or of the time."""
    body = slack.mention(f"<@{BOT}> image a cat")
    headers = signed(body)
    config = {"server": slack.url}

    def hear(body: bytes, headers: dict[str, str]) -> Any:
        request = Inbound(method="POST", headers=headers, query={}, body=body)
        return platform.hear(request, config=config, secrets=bot_secrets(), now=NOW)

    assert isinstance(hear(body, headers), Said)
    for place in range(len(body)):
        with pytest.raises(Forged):
            hear(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :], headers)
    signature = headers["x-slack-signature"]
    for place in range(len(signature)):
        other = signature[:place] + chr(ord(signature[place]) ^ 1) + signature[place + 1 :]
        with pytest.raises(Forged):
            hear(body, headers | {"x-slack-signature": other})
    for spoilt in (
        {"x-slack-request-timestamp": str(int(NOW.timestamp()) + 1)},
        {"x-slack-signature": ""},
        {"x-slack-signature": "v0=" + "é" * 64},
        signed(body, secret="another-signing-secret"),
    ):
        with pytest.raises(Forged):
            hear(body, headers | spoilt)
    for missing in ("x-slack-signature", "x-slack-request-timestamp"):
        with pytest.raises(Forged):
            hear(body, {name: value for name, value in headers.items() if name != missing})


@pytest.mark.parametrize("sent_at", ["", "soon", "-1", "1e9", "٣", "0x10", "1531420618.5", "9" * 5000])
async def test_a_time_that_is_none_is_forged(platform: Slack, slack: FakeSlack, sent_at: str) -> None:
    """The SDK's own verifier raises ValueError on some of them: to a stranger that would be a 500."""
    body = slack.command("help")
    with pytest.raises(Forged):
        heard(platform, slack, body, **{"x-slack-request-timestamp": sent_at})


@pytest.mark.parametrize("away", [-301, 301])
async def test_a_request_counts_for_five_minutes(platform: Slack, slack: FakeSlack, away: int) -> None:
    body = slack.command("help")
    with pytest.raises(Forged):
        heard(platform, slack, body, **signed(body, now=NOW + timedelta(seconds=away)))
    almost = NOW + timedelta(seconds=away - (1 if away > 0 else -1))
    assert isinstance(heard(platform, slack, body, **signed(body, now=almost)), Said)


async def test_the_url_is_checked_by_a_signed_challenge(platform: Slack, slack: FakeSlack) -> None:
    body = json.dumps({"type": "url_verification", "token": "x", "challenge": "3eZbrw1aBm2rZgRNFd"}).encode()
    answer = heard(platform, slack, body)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, b"3eZbrw1aBm2rZgRNFd")
    assert answer.headers["content-type"].startswith("text/plain")
    with pytest.raises(Forged):
        heard(platform, slack, body, **{"x-slack-signature": "v0=0"})


async def test_a_look_at_the_certificate_is_answered_and_does_nothing(platform: Slack) -> None:
    """Slack does not sign it ("Slash commands": ssl_check)."""
    for query, body in (({}, b"ssl_check=1&token=x"), ({"ssl_check": "1", "token": "x"}, b"")):
        request = Inbound(method="POST", headers={}, query=query, body=body)
        assert platform.hear(request, config={}, secrets=bot_secrets(), now=NOW) == Answer()


async def test_a_mention_is_heard_and_answered_in_its_thread(platform: Slack, slack: FakeSlack) -> None:
    said = heard(platform, slack, slack.mention(f"<@{BOT}> video a cat jumps"))
    assert isinstance(said, Said)
    assert said.text.strip() == "video a cat jumps"
    assert said.person == replace(STEVE, name=USER)
    assert said.address["thread_ts"] == "1515449522.000016"
    within = heard(platform, slack, slack.mention(f"<@{BOT}> help", thread_ts="1515449000.000001"))
    assert within.address["thread_ts"] == "1515449000.000001"


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("<@U0BOT00001> image a cat", "image a cat"),
        ("<@U0BOT00001|klingel> image a cat", "image a cat"),
        ("hey <@U0BOT00001> image a cat", "image a cat"),
        ("image a cat <@U0BOT00001>", "image a cat"),
        ("<@U0BOT00001> image &lt;b&gt; &amp;amp; <@U777|bob> <#C1|general> <!here>", "image <b> &amp; @bob #general @here"),
        ("<@U0BOT00001> image a <https://e.com/a.png?x=1&amp;y=2>", "image a https://e.com/a.png?x=1&y=2"),
        ("<@U0BOT00001> image style_image=<https://e.com/a.png|e.com/a.png>", "image style_image=https://e.com/a.png"),
        ("<@U0BOT00001> image to <mailto:a@b.c|a@b.c>", "image to a@b.c"),
    ],
)  # fmt: skip
async def test_what_was_typed_is_what_is_heard(
    platform: Slack, slack: FakeSlack, written: str, typed: str
) -> None:
    assert heard(platform, slack, slack.mention(written)).text.strip() == typed


async def test_quotes_as_phones_write_them_are_quotes(platform: Slack, slack: FakeSlack) -> None:
    said = heard(platform, slack, slack.mention(f"<@{BOT}> video a cat negative_prompt=“no dogs” mode=pro"))
    ask = parse(said.text)
    assert isinstance(ask, Ask)
    assert ask.options == {"negative_prompt": "no dogs", "mode": "pro"}


async def test_the_same_message_is_the_same_command_however_often_it_comes(
    platform: Slack, slack: FakeSlack
) -> None:
    """A retry has the same event id; an edit, or a mention in a direct message, is another event about it."""
    text = f"<@{BOT}> image a cat"
    first = heard(platform, slack, slack.mention(text))
    retried = heard(
        platform, slack, slack.mention(text), **{"x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}
    )  # fmt: skip
    edited = heard(
        platform, slack, slack.mention(f"{text}!", event_id="Ev2", edited={"user": USER, "ts": "1"})
    )
    another = heard(platform, slack, slack.mention(text, event_id="Ev3", ts="1515449522.000017"))
    assert first.key == retried.key == edited.key != another.key
    place = {"channel_type": "im", "channel": DIRECT}
    mention = heard(platform, slack, slack.mention(text, **place))
    message = heard(platform, slack, slack.mention(text, event_id="Ev4", type="message", **place))
    assert mention.key == message.key


@pytest.mark.parametrize(
    "event",
    [
        {"bot_id": "B0BOT00001", "user": BOT},
        {"bot_id": "B777"},
        {"user": BOT},
        {"user": None},
        {"subtype": "message_changed"},
        {"type": "message", "channel_type": "channel"},
        {"type": "reaction_added", "channel": {"id": CHANNEL}},
        {"type": None},
    ],
)
async def test_what_concerns_nobody_is_taken_and_forgotten(
    platform: Slack, slack: FakeSlack, event: dict[str, Any]
) -> None:
    assert heard(platform, slack, slack.mention(f"<@{BOT}> image a cat", **event)) == Answer()


async def test_a_direct_message_needs_no_mention(platform: Slack, slack: FakeSlack) -> None:
    said = heard(
        platform, slack, slack.mention("image a cat", type="message", channel_type="im", channel=DIRECT)
    )
    assert isinstance(said, Said)
    assert (said.text, said.address["is_direct"]) == ("image a cat", True)
    assert "thread_ts" not in said.address


async def test_who_is_of_another_workspace_is_known_by_that(platform: Slack, slack: FakeSlack) -> None:
    """In a channel that two workspaces share, the outer `team_id` is that of the app."""
    said = heard(platform, slack, slack.mention(f"<@{BOT}> help", user_team="T0STRANGER"))
    assert said.person.workspace == "T0STRANGER"


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b"{", b"[]", b"payload=%FF", b"payload=", b"payload=[]", b"payload=%7B%7D", b"text=image", b"",
        b'{"type":"event_callback","event":[]}', b'{"type":"event_callback","event":{"type":"app_mention"}}',
        b"&".join(b"a=1" for _ in range(1000)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
async def test_a_signed_request_of_another_shape_is_refused(
    platform: Slack, slack: FakeSlack, body: bytes, kind: str
) -> None:
    answer = heard(platform, slack, body, **{"content-type": kind})
    assert isinstance(answer, Answer)
    assert answer.status == 400


async def test_a_button_says_what_and_of_which_task(platform: Slack, slack: FakeSlack) -> None:
    to = asked(platform, slack, bot_token=TOKEN)
    await told(platform, to, card(outputs=[picture()]))
    [(ts, message)] = slack.messages.items()
    pressed = heard(platform, slack, slack.press(message, ts, "Again"))
    assert isinstance(pressed, Pressed)
    assert (pressed.press, pressed.task_id) == (Press.AGAIN, TASK)
    assert pressed.person == replace(STEVE, name="steve")
    assert platform.answer(pressed, None) == Answer()
    assert platform.answer(pressed, "No.") is None
    assert heard(platform, slack, slack.press(message, ts, "Open picture")) == Answer()


async def test_a_button_in_a_thread_is_answered_there(platform: Slack, slack: FakeSlack) -> None:
    body = slack.mention(f"<@{BOT}> image a cat")
    await told(platform, asked(platform, slack, body, bot_token=TOKEN), card())
    [(ts, message)] = slack.messages.items()
    assert message.thread_ts == "1515449522.000016"
    assert heard(platform, slack, slack.press(message, ts, "Again")).address["thread_ts"] == message.thread_ts


@pytest.mark.parametrize(
    "url",
    ["https://evil.example.com/x", "http://127.0.0.1:1/x", "http://user@127.0.0.1/x", "gopher://x", "["],
)
async def test_a_response_url_that_leads_elsewhere_is_no_way_back(
    platform: Slack, slack: FakeSlack, url: str
) -> None:
    assert "response_url" not in heard(platform, slack, slack.command("help", response_url=url)).address


@pytest.mark.parametrize(
    ("url", "is_slacks"),
    [
        ("https://hooks.slack.com/commands/T1/2/x", True),
        ("https://hooks.slack.com:443/commands/T1/2/x", True),
        ("http://hooks.slack.com/commands/T1/2/x", False),
        ("https://hooks.slack.com.example.com/x", False),
        ("https://notslack.com/x", False),
        ("https://hooks.slack.com:8443/x", False),
        ("https://me@hooks.slack.com/x", False),
        ("https://hooks.slack.com@example.com/x", False),
    ],
)
async def test_slack_is_known_by_its_host(
    platform: Slack, slack: FakeSlack, url: str, is_slacks: bool
) -> None:
    body = slack.command("help", response_url=url)
    request = Inbound(method="POST", headers=signed(body), query={}, body=body)
    said = platform.hear(request, config={"server": "https://slack.com"}, secrets=bot_secrets(), now=NOW)
    assert isinstance(said, Said)
    assert ("response_url" in said.address) is is_slacks


async def test_a_command_is_answered_to_who_gave_it_alone(platform: Slack, slack: FakeSlack) -> None:
    said = heard(platform, slack, slack.command("image <!channel>"))
    answer = platform.answer(said, "I do not know “<!channel>” & co.")
    assert answer is not None
    assert answer.headers["content-type"].startswith("application/json")
    shown = json.loads(answer.body)
    assert shown == {
        "response_type": "ephemeral",
        "text": "I do not know “&lt;!channel&gt;” &amp; co.",
    }
    assert platform.answer(said, None) == Answer()
    mention = heard(platform, slack, slack.mention(f"<@{BOT}> help"))
    assert platform.answer(mention, "Words") is None
    assert platform.answer(mention, None) == Answer()


# What goes out


async def test_one_message_is_edited_until_it_shows_the_picture(platform: Slack, slack: FakeSlack) -> None:
    to = asked(platform, slack, bot_token=TOKEN)
    spoken = await told(platform, to, card(SUBMITTED), card(PROCESSING), card(outputs=[picture()]))
    assert outcome(spoken)[0] is AttemptOutcome.DELIVERED
    [message] = slack.messages.values()
    assert (message.channel, message.thread_ts) == (CHANNEL, None)
    assert [one["text"].split(":")[0] for one in message.history] == [
        "⏳ Picture submitted",
        "⏳ Picture in the making",
        "✅ Picture ready",
    ]
    shown = message.shown
    section, prompt, image, actions, context = shown["blocks"]
    assert section["text"]["text"].startswith("✅ *Picture ready*\n")
    assert prompt["text"]["text"] == "&gt;a cat in a hat".replace("&gt;", ">")
    assert (image["image_url"], image["alt_text"]) == ("http://example.com/0.png", "a cat in a hat")
    assert [(one["text"]["text"], one.get("url"), one.get("value")) for one in actions["elements"]] == [
        ("Open picture", "http://example.com/0.png", None),
        ("Again", None, TASK),
    ]
    assert context["elements"][0]["text"] == "Asked for by Steve"
    assert slack.calls == ["chat.postMessage", "chat.update", "chat.update"]


async def test_a_video_says_how_long_it_is_and_can_be_opened(platform: Slack, slack: FakeSlack) -> None:
    event = event_of(outputs=[video(duration_s=5.1)])
    await told(platform, own(slack, bot_token=TOKEN, channel=CHANNEL), card(event=event))
    [message] = slack.messages.values()
    assert "5.1 s" in markdown(message.shown["blocks"])[0]
    assert buttons(message.shown)[0]["url"] == "http://example.com/out.mp4"


async def test_a_failure_says_why(platform: Slack, slack: FakeSlack) -> None:
    error = TaskError("1301", "The prompt <!channel> was refused & *forgotten*")
    await told(platform, asked(platform, slack, bot_token=TOKEN), card(EventType.TASK_FAILED, error=error))
    [message] = slack.messages.values()
    assert (
        "The prompt &lt;!channel&gt; was refused &amp; *forgotten* (1301)"
        in (markdown(message.shown["blocks"])[0])
    )


@pytest.mark.parametrize(
    "prompt", ["&" * 2500, "<!channel> <@U1> <https://x|y>" * 80, "é" * 2500, "\n\n>x\n" * 500]
)
async def test_whatever_was_asked_fits_and_calls_nobody(
    platform: Slack, slack: FakeSlack, prompt: str
) -> None:
    made = [picture(number) for number in range(9)]
    error = TaskError("1301", prompt)
    spoken = await told(
        platform,
        asked(platform, slack, bot_token=TOKEN),
        card(prompt=prompt, outputs=made, error=error, by=replace(STEVE, name=prompt)),
    )
    assert outcome(spoken)[0] is AttemptOutcome.DELIVERED, spoken
    [message] = slack.messages.values()
    for text in (message.shown["text"], *markdown(message.shown["blocks"])):
        assert not text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&")
        assert "<" not in text


async def test_a_picture_that_slack_cannot_fetch_is_linked(platform: Slack, slack: FakeSlack) -> None:
    slack.no_pictures = True
    spoken = await told(
        platform, asked(platform, slack, bot_token=TOKEN), card(SUBMITTED), card(outputs=[picture()])
    )
    assert outcome(spoken)[0] is AttemptOutcome.DELIVERED
    [message] = slack.messages.values()
    assert [block["type"] for block in message.shown["blocks"]] == [
        "section",
        "section",
        "actions",
        "context",
    ]


@pytest.mark.parametrize(
    ("status", "body", "headers", "ending", "after_s"),
    [
        (429, '{"ok":false,"error":"ratelimited"}', {"retry_after": "7"}, "retry", 7),
        (200, '{"ok":false,"error":"ratelimited"}', {"retry_after": "7"}, "retry", 7),
        (200, '{"ok":false,"error":"internal_error"}', {}, "retry", 5),
        (200, '{"ok":false,"error":"never_heard_of"}', {}, "retry", 5),
        (503, "", {}, "retry", 5),
        (500, '{"ok":false,"error":"fatal_error"}', {}, "retry", 5),
        (200, SIGN_IN, {}, "retry", 5),
        (200, '{"ok":"true"}', {}, "retry", 5),
        (200, "", {}, "retry", 5),
        (404, "", {}, "dead", None),
        (302, "", {"location": "https://example.com"}, "retry", 5),
        (200, '{"ok":false,"error":"is_archived"}', {}, "dead", None),
        (200, '{"ok":false,"error":"missing_scope"}', {}, "dead", None),
        (200, '{"ok":false,"error":"token_revoked"}', {}, "gone", None),
    ],
)
async def test_what_an_answer_means(
    platform: Slack,
    slack: FakeSlack,
    status: int,
    body: str,
    headers: dict[str, str],
    ending: str,
    after_s: int | None,
) -> None:
    slack.answers(status, body, **headers)
    spoken = await told(platform, own(slack, bot_token=TOKEN, channel=CHANNEL), card())
    after = None if after_s is None else timedelta(seconds=after_s)
    assert outcome(spoken) == (ending, after)
    assert spoken.reference is None


async def test_a_wrong_token_is_refused_and_seen_by_nobody(platform: Slack, slack: FakeSlack) -> None:
    token = "xoxb-another"
    spoken = await told(platform, own(slack, bot_token=token, channel=CHANNEL), card())
    assert outcome(spoken)[0] is AttemptOutcome.DEAD
    assert spoken.reply.reason == "Slack refuses: invalid_auth"
    slack.answers(200, json.dumps({"ok": False, "error": "x", "you_sent": token}))
    spoken = await told(platform, own(slack, bot_token=token, channel=CHANNEL), card())
    assert token not in spoken.reply.excerpt + spoken.reply.reason


async def test_a_message_that_was_deleted_is_sent_anew_once_there_is_a_result(
    platform: Slack, slack: FakeSlack
) -> None:
    to = asked(platform, slack, bot_token=TOKEN)
    spoken = await told(platform, to, card(SUBMITTED))
    assert spoken.reference is not None
    slack.messages.clear()
    progress = await platform.edit(to, spoken.reference, card(PROCESSING), now=NOW)
    assert (progress.reference, slack.messages) == (None, {})
    ended = await platform.edit(to, spoken.reference, card(), now=NOW)
    assert outcome(ended)[0] is AttemptOutcome.DELIVERED
    [message] = slack.messages.values()
    assert message.shown["text"].startswith("✅ Picture ready")


async def test_where_the_bot_is_no_member_the_command_itself_is_answered(
    platform: Slack, slack: FakeSlack
) -> None:
    to = asked(platform, slack, slack.command("image a cat", channel_id=ELSEWHERE), bot_token=TOKEN)
    await told(platform, to, card(SUBMITTED), card(PROCESSING), card(outputs=[picture()]))
    [answers] = slack.responses.values()
    assert [one["text"].split(":")[0] for one in answers] == ["⏳ Picture submitted", "✅ Picture ready"]
    assert {one["response_type"] for one in answers} == {"in_channel"}


async def test_without_a_token_a_command_is_told_begin_and_end(platform: Slack, slack: FakeSlack) -> None:
    """Slack edits nothing that was said by a slash command's `response_url`."""
    to = asked(platform, slack)
    spoken = await told(platform, to, card(SUBMITTED), card(PROCESSING), card(outputs=[picture()]))
    assert spoken.reference == {"responses": 2, "ended_with": 1}
    [answers] = slack.responses.values()
    assert len(answers) == 2
    assert "half an hour" in json.dumps(answers[0])
    assert "half an hour" not in json.dumps(answers[1])


async def test_copies_that_are_kept_do_not_tell_the_end_again(platform: Slack, slack: FakeSlack) -> None:
    """Whichever comes first, also after a warning; outputs that were missing at the end are told."""
    pictures = [picture(number) for number in range(2)]
    kept, expiring = EventType.OUTPUT_STORED, EventType.OUTPUT_EXPIRING
    for to in (asked(platform, slack), asked(platform, slack, bot_token=TOKEN, webhook_url=hook(slack))):
        slack.responses.clear()
        here = replace(to, address={**(to.address or {}), "channel": ELSEWHERE})
        types = [SUBMITTED, kept, SUCCEEDED, expiring, kept]
        spoken = await told(platform, here, *(card(type, outputs=pictures) for type in types))
        assert outcome(spoken)[0] is AttemptOutcome.DELIVERED
        assert _titles(slack) == ["2 pictures submitted", "2 pictures ready", "2 pictures about to be lost"]
    slack.responses.clear()
    added = EventType.TASK_OUTPUTS_ADDED
    late = [card(), *(card(type, outputs=pictures) for type in (added, kept, kept))]
    await told(platform, asked(platform, slack), *late)
    assert _titles(slack) == ["Picture ready", "2 pictures ready"]


def _titles(slack: FakeSlack) -> list[str]:
    [answers] = slack.responses.values()
    return [one["text"].partition(" ")[2].partition(":")[0] for one in answers]


async def test_the_last_of_five_answers_is_kept_for_the_end(platform: Slack, slack: FakeSlack) -> None:
    to = asked(platform, slack)
    overdue = card(EventType.TASK_OVERDUE)
    spoken = await told(platform, to, card(SUBMITTED), *[overdue] * 9, card(), card(outputs=[picture()]))
    [answers] = slack.responses.values()
    assert [one["text"].split(":")[0].split()[-1] for one in answers] == [
        "submitted",
        *["overdue"] * 3,
        "ready",
    ]
    assert outcome(spoken)[0] is AttemptOutcome.DEAD


async def test_after_half_an_hour_a_webhook_takes_over(platform: Slack, slack: FakeSlack) -> None:
    to = asked(platform, slack, webhook_url=hook(slack))
    spoken = await told(platform, to, card(SUBMITTED))
    assert "half an hour" not in json.dumps(list(slack.responses.values()))
    assert spoken.reference is not None
    late = NOW + timedelta(minutes=29, seconds=1)
    ended = await platform.edit(to, spoken.reference, card(outputs=[picture()]), now=late)
    assert outcome(ended)[0] is AttemptOutcome.DELIVERED
    assert [one["text"].split(":")[0] for one in slack.hooked] == ["✅ Picture ready"]


@pytest.mark.parametrize("why", ["expired_url", "used_url"])
async def test_what_slack_says_of_the_window_counts_more_than_our_clock(
    platform: Slack, slack: FakeSlack, why: str
) -> None:
    to = asked(platform, slack, webhook_url=hook(slack))
    slack.answers(404, why)
    assert outcome(await told(platform, to, card()))[0] is AttemptOutcome.DELIVERED
    assert len(slack.hooked) == 1
    slack.answers(404, why)
    alone = await told(platform, asked(platform, slack), card())
    assert outcome(alone)[0] is AttemptOutcome.DEAD


async def test_no_way_back_is_said_where_the_delivery_is_seen(platform: Slack, slack: FakeSlack) -> None:
    late = NOW + timedelta(minutes=30)
    spoken = await platform.post(asked(platform, slack), card(), now=late)
    assert outcome(spoken)[0] is AttemptOutcome.DEAD
    assert "half hour" in spoken.reply.reason
    assert slack.requests == []


async def test_a_busy_workspace_is_waited_for_and_not_gone_around(platform: Slack, slack: FakeSlack) -> None:
    to = asked(platform, slack, bot_token=TOKEN, webhook_url=hook(slack))
    slack.answers(429, '{"ok":false,"error":"ratelimited"}', retry_after="30")
    assert outcome(await told(platform, to, card())) == (AttemptOutcome.RETRY, timedelta(seconds=30))
    assert (slack.hooked, dict(slack.responses)) == ([], {})


async def test_an_incoming_webhook_is_told_the_result(platform: Slack, slack: FakeSlack) -> None:
    to = own(slack, webhook_url=hook(slack))
    assert not platform.can_edit(to)
    assert outcome(await told(platform, to, card(outputs=[picture()])))[0] is AttemptOutcome.DELIVERED
    [shown] = slack.hooked
    assert shown["blocks"][2]["image_url"] == "http://example.com/0.png"


@pytest.mark.parametrize(
    ("status", "words", "ending"),
    [
        (404, "no_service", AttemptOutcome.GONE),
        (403, "invalid_token", AttemptOutcome.GONE),
        (410, "channel_is_archived", AttemptOutcome.DEAD),
        (400, "invalid_payload", AttemptOutcome.DEAD),
        (429, "rate_limited", AttemptOutcome.RETRY),
        (500, "rollup_error", AttemptOutcome.RETRY),
        (200, SIGN_IN, AttemptOutcome.RETRY),
    ],
)
async def test_what_a_webhooks_answer_means(
    platform: Slack, slack: FakeSlack, status: int, words: str, ending: AttemptOutcome
) -> None:
    slack.hook_refuses = (status, words)
    spoken = await told(platform, own(slack, webhook_url=hook(slack)), card())
    assert outcome(spoken)[0] is ending


async def test_a_webhooks_address_is_seen_by_nobody(platform: Slack, slack: FakeSlack) -> None:
    slack.answers(500, f"no such path: /services/T1/B1/secret, {hook(slack)}")
    spoken = await told(platform, own(slack, webhook_url=hook(slack)), card())
    assert "secret" not in spoken.reply.excerpt + spoken.reply.reason


async def test_words_for_one_person_are_whispered(platform: Slack, slack: FakeSlack) -> None:
    text = "Sorry, <@everyone>"
    by_command = asked(platform, slack, bot_token=TOKEN)
    await platform.tell(by_command, text, now=NOW)
    [[response]] = slack.responses.values()
    assert (response["response_type"], response["text"]) == ("ephemeral", "Sorry, &lt;@everyone&gt;")
    await platform.tell(by_command, text, now=NOW + timedelta(hours=1))
    mention = asked(platform, slack, slack.mention(f"<@{BOT}> x", thread_ts="1.2"), bot_token=TOKEN)
    await platform.tell(mention, text, now=NOW)
    assert [(one["channel"], one["user"], one.get("thread_ts")) for one in slack.whispers] == [
        (CHANNEL, USER, None),
        (CHANNEL, USER, "1.2"),
    ]
    direct = slack.mention("x", type="message", channel_type="im", channel=DIRECT)
    await platform.tell(asked(platform, slack, direct, bot_token=TOKEN), text, now=NOW)
    assert [message.channel for message in slack.messages.values()] == [DIRECT]
    nowhere = await platform.tell(asked(platform, slack, direct), text, now=NOW)
    assert nowhere.ending is AttemptOutcome.DEAD


# Pictures


async def fetched(platform: Slack, slack: FakeSlack, body: bytes, **secrets: str) -> list[bytes]:
    said = heard(platform, slack, body)
    given = bot_secrets(**(secrets or {"bot_token": TOKEN}))
    config = {"server": slack.url}
    return [
        base64.b64decode(await platform.fetch(one, config=config, secrets=given)) for one in said.pictures
    ]


async def test_attached_pictures_are_fetched_with_the_token(platform: Slack, slack: FakeSlack) -> None:
    files = [slack.file(png(1)), slack.file(png(2), id="F0S43P1C0", name="hat.png")]
    body = slack.mention(f"<@{BOT}> image a cat", files=files, subtype="file_share")
    assert await fetched(platform, slack, body) == [png(1), png(2)]
    assert slack.calls == []


async def test_more_than_a_task_takes_are_not_all_fetched(platform: Slack, slack: FakeSlack) -> None:
    files = [slack.file(png(), id=f"F{number}", name=f"{number}.png") for number in range(30)]
    assert len(heard(platform, slack, slack.mention(f"<@{BOT}> image a cat", files=files)).pictures) == 5


async def test_files_of_slack_can_be_linked(platform: Slack, slack: FakeSlack) -> None:
    slack.file(png(1), id="F0MINE001")
    slack.file(png(2), id="F0PUBLIC1", user="U777", is_public=True)
    raw = slack.file(png(3), id="F0SHARED1", user="U777", groups=[CHANNEL])["url_private"]
    links = [f"{slack.url}/files/{USER}/F0MINE001/cat.png", f"{slack.url}/files/U777/F0PUBLIC1/x.png", raw]
    written = " ".join(f"<{link}>" for link in links)
    body = slack.command(f"image a cat {written} on a mat https://example.com/a.png")
    said = heard(platform, slack, body)
    ask = parse(said.text)
    assert isinstance(ask, Ask)
    assert (ask.prompt, ask.urls) == ("a cat on a mat", ["https://example.com/a.png"])
    assert await fetched(platform, slack, body) == [png(1), png(2), png(3)]


async def test_what_the_bot_can_see_and_the_person_cannot_stays_unseen(
    platform: Slack, slack: FakeSlack
) -> None:
    slack.file(png(), id="F0PRIVATE", user="U777", groups=["G0BOARD"])
    body = slack.command(f"image a cat {slack.url}/files/U777/F0PRIVATE/plan.png")
    with pytest.raises(NotFetched, match="not shared here"):
        await fetched(platform, slack, body)


async def test_a_file_that_is_kept_elsewhere_is_not_fetched_with_the_token(
    platform: Slack, slack: FakeSlack
) -> None:
    elsewhere = FakeSlack()
    async with elsewhere.running():
        file = slack.file(png(), url_private=f"{elsewhere.url}/files-pri/T1-F1/cat.png", is_external=True)
        with pytest.raises(NotFetched, match="not kept in Slack"):
            await fetched(platform, slack, slack.mention(f"<@{BOT}> image a cat", files=[file]))
        assert elsewhere.requests == []


async def test_why_a_file_cannot_be_had_is_said(platform: Slack, slack: FakeSlack) -> None:
    body = slack.mention(f"<@{BOT}> image a cat", files=[slack.file(png())])
    with pytest.raises(NotFetched, match="files:read"):
        await fetched(platform, slack, body, bot_token="xoxb-without-that-scope")
    with pytest.raises(NotFetched, match="no token"):
        await fetched(platform, slack, body, webhook_url=hook(slack))
    unknown = slack.command(f"image a cat {slack.url}/files/{USER}/F0UNKNOWN/x.png")
    with pytest.raises(NotFetched, match="file_not_found") as refused:
        await fetched(platform, slack, unknown)
    slack.answers(429, '{"ok":false,"error":"ratelimited"}', retry_after="1")
    with pytest.raises(NotFetched) as busy:
        await fetched(platform, slack, unknown)
    assert busy.value.may_come
    assert not slack.next_answers
    assert refused.value.may_come, "an error that is not known may pass"


async def test_a_file_that_only_slack_knows_more_of_is_asked_for(platform: Slack, slack: FakeSlack) -> None:
    """In channels that workspaces share (docs.slack.dev, "Slack Connect": `check_file_info`)."""
    slack.file(png(7), id="F0CONNECT")
    body = slack.mention(f"<@{BOT}> image", files=[{"id": "F0CONNECT", "file_access": "check_file_info"}])
    assert await fetched(platform, slack, body) == [png(7)]
    assert slack.calls == ["files.info"]


# Configuration


def configure(platform: Slack, model: Any, secrets: frozenset[str], raw: Any, before: Any = None) -> Any:
    return configured(
        model,
        secrets,
        raw,
        pointer="#",
        vault=VAULT,
        before=before,
        more_faults=lambda config: platform.faults(config, pointer="#"),
    )


def endpoint(platform: Slack, raw: Any, before: Any = None) -> Any:
    return configure(platform, endpoint_model(platform), platform.endpoint_secrets, raw, before)


def bot(platform: Slack, raw: Any, before: Any = None) -> Any:
    return configure(platform, platform.bot_model, platform.bot_secrets, raw, before)


async def test_secrets_are_sealed_and_kept_when_their_mask_comes_back(
    platform: Slack, slack: FakeSlack
) -> None:
    raw = {"signing_secret": SIGNING_SECRET, "bot_token": TOKEN, "server": slack.url}
    before = bot(platform, raw)
    assert before[0] == {"signing_secret": "••••", "bot_token": "••••", "server": slack.url}
    assert opened(VAULT, bot(platform, before[0], before)[1]) == opened(VAULT, before[1])
    after = bot(platform, {"bot_token": "xoxb-2"}, before)
    assert opened(VAULT, after[1]) == {"signing_secret": SIGNING_SECRET, "bot_token": "xoxb-2"}
    with pytest.raises(InvalidFields):
        bot(platform, {"server": "https://slack.com"}, before)


async def test_slack_itself_is_meant_where_no_server_is_named(platform: Slack) -> None:
    config, _ = endpoint(platform, {"webhook_url": "https://hooks.slack.com/services/T0/B0/x"})
    assert config == {"webhook_url": "••••", "server": "https://slack.com"}


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ({}, "#/webhook_url"),
        ({"webhook_url": "https://example.com/services/x"}, "#/webhook_url"),
        ({"webhook_url": "http://hooks.slack.com/services/x"}, "#/webhook_url"),
        ({"webhook_url": "https://hooks.slack.com/services/x?y=1"}, "#/webhook_url"),
        ({"webhook_url": "no"}, "#/webhook_url"),
        ({"bot_token": TOKEN}, "#/channel"),
        ({"bot_token": TOKEN, "channel": "general"}, "#/channel"),
        ({"bot_token": "Bearer x", "channel": CHANNEL}, "#/bot_token"),
        ({"bot_token": "xoxb-ü", "channel": CHANNEL}, "#/bot_token"),
        ({"bot_token": TOKEN, "channel": CHANNEL, "thread_ts": "now"}, "#/thread_ts"),
        ({"bot_token": TOKEN, "channel": CHANNEL, "server": "http://10.0.0.1"}, "#/server"),
        ({"bot_token": TOKEN, "channel": CHANNEL, "server": "https://slack.com/api"}, "#/server"),
        ({"webhook_url": "https://hooks.slack.com/services/x", "channel": CHANNEL}, "#/channel"),
        ({"webhook_url": "https://hooks.slack.com/services/x", "thread_ts": "1.2"}, "#/thread_ts"),
        ({"webhook_url": "https://hooks.slack.com/services/x", "updates": "edited"}, "#/updates"),
        ({"webhook_url": "https://hooks.slack.com/services/x", "bot_token": TOKEN}, "#/webhook_url"),
    ],
)
async def test_what_cannot_work_is_refused_with_where_it_is(
    raw: dict[str, Any], pointer: str, anyio_backend: str
) -> None:
    async with open_dialler(Guard()) as dialler:
        with pytest.raises(InvalidFields) as refused:
            endpoint(Slack(dialler), raw)
    assert pointer in [fault.pointer for fault in refused.value.faults]


@pytest.mark.parametrize("secret", ["", "short", "with a space in it", None])
async def test_a_bot_needs_its_signing_secret(platform: Slack, secret: str | None) -> None:
    with pytest.raises(InvalidFields):
        bot(platform, {"signing_secret": secret})
