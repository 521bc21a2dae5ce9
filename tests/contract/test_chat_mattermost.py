"""Mattermost, against a server that refuses what Mattermost refuses."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from handlers.chat.mattermost import Mattermost, MattermostBot, MattermostEndpoint
from handlers.chat.platform import (
    MOST_PICTURES,
    Address,
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
)
from handlers.messages import message_of
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.events import Event, EventType
from service.domain.tasks import TaskError
from service.domain.values import replace
from service.network.dialler import open_dialler
from tests.contract.push_services import LOOPBACK, NOW, event_of, picture, video
from tests.fakes.mattermost import (
    BOT_TOKEN,
    CHANNEL,
    COMMAND_TOKEN,
    ELSEWHERE,
    HOOK,
    TEAM,
    USER,
    WEBHOOK_TOKEN,
    FakeMattermost,
)

FORM = {"content-type": "application/x-www-form-urlencoded"}
SECRETS = {"command_token": COMMAND_TOKEN, "webhook_token": WEBHOOK_TOKEN, "bot_token": BOT_TOKEN}
LISTENS_AT = "https://klingel.example.com/chat/mattermost/bot_1"
ADA = Person(workspace=TEAM, chat=CHANNEL, user=USER, name="ada")
FILE = "f" * 26


@pytest.fixture
async def mattermost(anyio_backend: str) -> AsyncIterator[FakeMattermost]:
    server = FakeMattermost()
    async with server.running():
        yield server


@pytest.fixture
async def voice(anyio_backend: str) -> AsyncIterator[Mattermost]:
    async with open_dialler(LOOPBACK) as dialler:
        yield Mattermost(dialler)


def card(event: Event | None = None, **more: Any) -> Card:
    return Card(message=message_of(event or event_of(outputs=[picture(1)])), **more)


def outcome(reply: Reply) -> AttemptOutcome:
    return result(reply, attempt=1, now=NOW).outcome


def of_bot(mattermost: FakeMattermost, secrets: Mapping[str, str] = SECRETS, **address: str) -> Destination:
    return Destination(
        config={"server": mattermost.url},
        secrets=secrets,
        address={"by": "command", "channel": CHANNEL, **address},
        asked_at=NOW,
        url=LISTENS_AT,
    )


def of_hook(mattermost: FakeMattermost, hook: str = HOOK) -> Destination:
    return Destination(config={}, secrets={"webhook_url": f"{mattermost.url}/hooks/{hook}"})


def heard(
    voice: Mattermost, server: str, body: bytes, headers: Mapping[str, str] = FORM, **secrets: Any
) -> Any:
    request = Inbound(method="POST", headers=headers, query={}, body=body)
    return voice.hear(request, config={"server": server}, secrets=SECRETS | secrets, now=NOW)


# Speaking


async def test_a_bots_post_is_edited_in_place(voice: Mattermost, mattermost: FakeMattermost) -> None:
    to = of_bot(mattermost)
    first = await voice.post(to, card(event_of(EventType.TASK_SUBMITTED), prompt="a cat"), now=NOW)
    assert first.reference is not None
    second = await voice.edit(to, first.reference, card(prompt="a cat", asked_by=ADA), now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    [post] = mattermost.posts.values()
    assert len(post.history) == 2
    assert post.attachment["title"] == "Video ready"
    assert post.attachment["image_url"] == post.attachment["title_link"] == picture(1).url
    assert "> a cat" in post.attachment["text"]
    assert "asked for by ada" in post.attachment["text"]


async def test_a_post_that_somebody_deleted_is_written_anew(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    spoken = await voice.edit(of_bot(mattermost), {"post": "deleted"}, card(), now=NOW)
    assert spoken.reference is not None
    assert mattermost.posts[spoken.reference["post"]].attachment["title"] == "Video ready"


async def test_the_answer_to_a_post_goes_into_its_thread(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    mattermost.said("kling image a cat")
    [root] = mattermost.posts
    first = await voice.post(of_bot(mattermost, root=root), card(), now=NOW)
    assert first.reference is not None
    assert mattermost.posts[first.reference["post"]].root == root
    # Of an answer there is no thread: it is said in the channel.
    second = await voice.post(of_bot(mattermost, root=first.reference["post"]), card(), now=NOW)
    assert second.reference is not None
    assert mattermost.posts[second.reference["post"]].root == ""


async def test_an_incoming_webhook_says_what_cannot_be_edited(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    to = of_hook(mattermost)
    assert not voice.can_edit(to)
    spoken = await voice.post(to, card(event_of(outputs=[video()])), now=NOW)
    assert (outcome(spoken.reply), spoken.reference) == (AttemptOutcome.DELIVERED, None)
    [sent] = mattermost.hooked
    assert sent["attachments"][0]["title_link"] == video().url


async def test_nobody_is_called_and_nothing_is_marked_up_by_a_prompt(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    prompt = "@channel [free](https://evil.example) **now**\n# big\n![x](https://evil.example/x.png)"
    await voice.post(of_bot(mattermost), card(prompt=prompt, asked_by=replace(ADA, name="@all")), now=NOW)
    [post] = mattermost.posts.values()
    text = post.attachment["text"]
    assert "@channel" not in text
    assert "@all" not in text
    assert r"\[free\]\(https://evil.example\) \*\*now\*\* \# big !\[x\]" in text


async def test_what_is_too_long_is_cut(voice: Mattermost, mattermost: FakeMattermost) -> None:
    """The fake refuses longer texts."""
    failed = event_of(EventType.TASK_FAILED, error=TaskError("1301", "*" * 40_000))
    spoken = await voice.post(of_bot(mattermost), card(failed, prompt="@" * 40_000), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    reply = await voice.tell(of_bot(mattermost), "*" * 40_000, now=NOW)
    assert outcome(reply) is AttemptOutcome.DELIVERED


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "<html>Welcome</html>", AttemptOutcome.RETRY),
        (201, "[]", AttemptOutcome.RETRY),
        (400, "{}", AttemptOutcome.DEAD),
        (401, "{}", AttemptOutcome.DEAD),
        (500, "", AttemptOutcome.RETRY),
    ],
)
async def test_answers_are_judged(
    voice: Mattermost, mattermost: FakeMattermost, status: int, body: str, expected: AttemptOutcome
) -> None:
    for to in (of_bot(mattermost), of_hook(mattermost)):
        mattermost.answers(status, body)
        assert outcome((await voice.post(to, card(), now=NOW)).reply) is expected


async def test_a_webhook_that_was_deleted_is_gone(voice: Mattermost, mattermost: FakeMattermost) -> None:
    spoken = await voice.post(of_hook(mattermost, "z" * 26), card(), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.GONE


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
async def test_a_limit_is_waited_for(voice: Mattermost, mattermost: FakeMattermost, name: str) -> None:
    mattermost.answers(429, "limit exceeded", **{name: "17"})
    reply = (await voice.post(of_bot(mattermost), card(), now=NOW)).reply
    verdict = result(reply, attempt=1, now=NOW, jitter=0)
    assert verdict.next_attempt_at == NOW + timedelta(seconds=17)


async def test_no_secret_is_repeated_in_an_excerpt(voice: Mattermost, mattermost: FakeMattermost) -> None:
    for to in (of_bot(mattermost), of_hook(mattermost)):
        secret = next(iter(to.secrets.values())) if to.address is None else BOT_TOKEN
        mattermost.answers(500, f"you sent {secret}")
        reply = (await voice.post(to, card(), now=NOW)).reply
        assert "you sent" in reply.excerpt
        assert secret not in reply.excerpt


# Where commands are answered


async def test_without_a_bot_account_the_result_goes_to_the_response_url(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    said = heard(voice, mattermost.url, mattermost.command("image a cat"))
    to = replace(of_bot(mattermost, {"command_token": COMMAND_TOKEN}), address=said.address)
    assert not voice.can_edit(to)
    spoken = await voice.post(to, card(), now=NOW + timedelta(minutes=28))
    assert (outcome(spoken.reply), spoken.reference) == (AttemptOutcome.DELIVERED, None)
    [sent] = mattermost.responses
    assert sent["response_type"] == "in_channel"
    assert "actions" not in sent["attachments"][0]


async def test_after_half_an_hour_only_a_bot_account_answers(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    said = heard(voice, mattermost.url, mattermost.command("image a cat"))
    late = NOW + timedelta(minutes=31)
    without = replace(of_bot(mattermost, {"command_token": COMMAND_TOKEN}), address=said.address)
    assert outcome((await voice.post(without, card(), now=late)).reply) is AttemptOutcome.DEAD
    assert outcome(await voice.tell(without, "no", now=late)) is AttemptOutcome.DEAD
    spoken = await voice.post(replace(of_bot(mattermost), address=said.address), card(), now=late)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    assert mattermost.responses == []


async def test_where_the_bot_is_no_member_it_answers_as_the_command(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    """A direct message, a channel that it was not added to: then once, at the end."""
    said = heard(voice, mattermost.url, mattermost.command("image a cat", channel_id=ELSEWHERE))
    to = replace(of_bot(mattermost), address=said.address)
    early = await voice.post(to, card(event_of(EventType.TASK_PROCESSING)), now=NOW)
    assert (outcome(early.reply), mattermost.responses) == (AttemptOutcome.DELIVERED, [])
    ended = await voice.post(to, card(), now=NOW)
    assert outcome(ended.reply) is AttemptOutcome.DELIVERED
    assert len(mattermost.responses) == 1
    # A copy that is kept of what was told is no news; outputs that were missing are.
    assert ended.reference is not None
    late = NOW + timedelta(hours=1)
    kept = await voice.edit(to, ended.reference, card(), now=late)
    assert (outcome(kept.reply), kept.reference) == (AttemptOutcome.DELIVERED, ended.reference)
    assert len(mattermost.responses) == 1
    added = await voice.edit(to, ended.reference, card(event_of(outputs=[picture(1), picture(2)])), now=NOW)
    assert outcome(added.reply) is AttemptOutcome.DELIVERED
    assert len(mattermost.responses) == 2


async def test_an_end_that_did_not_arrive_is_not_held_for_said(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    said = heard(voice, mattermost.url, mattermost.command("image a cat", channel_id=ELSEWHERE))
    to = replace(of_bot(mattermost), address=said.address)
    mattermost.answers(403)
    mattermost.answers(503)
    failed = await voice.post(to, card(), now=NOW)
    assert (outcome(failed.reply), failed.reference) == (AttemptOutcome.RETRY, None)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/hooks/commands/1",
        "http://127.0.0.1:1/hooks/commands/1",
        "{server}@evil.example/hooks/commands/1",
        "{server}/api/v4/users",
        "{server}/hooks/commands/../../api/v4/users",
        "//evil.example/hooks/commands/1",
        "",
    ],
)
async def test_a_response_url_that_is_not_the_servers_is_not_dialled(
    voice: Mattermost, mattermost: FakeMattermost, url: str
) -> None:
    """Neither one in a command, nor one that was the server's before that was changed."""
    url = url.format(server=mattermost.url)
    said = heard(voice, mattermost.url, mattermost.command("image a cat", response_url=url))
    assert "response_url" not in said.address
    to = of_bot(mattermost, {"command_token": COMMAND_TOKEN}, response_url=url)
    assert outcome((await voice.post(to, card(), now=NOW)).reply) is AttemptOutcome.DEAD
    assert mattermost.calls == []


async def test_what_is_told_later_reaches_the_person_alone(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    said = heard(voice, mattermost.url, mattermost.command("image a cat"))
    reply = await voice.tell(replace(of_bot(mattermost), address=said.address), "*no* @all", now=NOW)
    assert outcome(reply) is AttemptOutcome.DELIVERED
    assert mattermost.responses == [{"response_type": "ephemeral", "text": "\\*no\\* @\u200ball"}]


# Listening


async def test_a_command_is_heard(voice: Mattermost, mattermost: FakeMattermost) -> None:
    said = heard(voice, mattermost.url, mattermost.command("image a cat in a hat"))
    assert isinstance(said, Said)
    assert (said.key, said.text, said.person) == ("trigger1", "image a cat in a hat", ADA)
    assert said.address["response_url"].startswith(mattermost.url)


async def test_a_post_with_pictures_is_heard(voice: Mattermost, mattermost: FakeMattermost) -> None:
    body = mattermost.said("kling image a cat", files={FILE: b"png"})
    [post] = mattermost.posts
    said = heard(voice, mattermost.url, body)
    assert (said.key, said.text.strip(), said.pictures) == (post, "image a cat", [{"file": FILE}])
    assert said.address["root"] == post


async def test_a_webhook_that_sends_json_is_heard_too(voice: Mattermost, mattermost: FakeMattermost) -> None:
    fields = {"token": WEBHOOK_TOKEN, "channel_id": CHANNEL, "team_id": TEAM, "user_id": USER, "post_id": "p"}
    body = json.dumps(fields | {"text": "kling help", "trigger_word": "kling", "timestamp": 1}).encode()
    said = heard(voice, mattermost.url, body, {"content-type": "application/json; charset=utf-8"})
    assert (said.text.strip(), said.person.name) == ("help", USER)


def forgeries(mattermost: FakeMattermost) -> list[tuple[bytes, Mapping[str, str]]]:
    good = mattermost.command("image a cat")
    json_type = {"content-type": "application/json"}
    return [
        (mattermost.command("image a cat", token="gr4u5hp1rjg1mxm9gcqo8x5c1f"), FORM),
        (mattermost.command("image a cat", token=WEBHOOK_TOKEN), FORM),
        (mattermost.command("image a cat", token=""), FORM),
        (mattermost.command("image a cat", token="ü\ufffd"), FORM),
        (mattermost.command("image a cat", user_id=""), FORM),
        (mattermost.said("kling image", token=COMMAND_TOKEN), FORM),
        (mattermost.said("kling image", post_id=""), FORM),
        (good.replace(b"token=", b"t%6fken2="), FORM),
        (good, json_type),
        (b"", FORM),
        (b"\xff\xfe", FORM),
        (b"%ff=%fe&token", FORM),
        (b"&".join(b"a=1" for _ in range(500)), FORM),
        (b"{}", json_type),
        (b"[" * 100_000, json_type),
        (b'{"token": null, "command": 1}', json_type),
        (b'{"context": {"task": 1}}', json_type),
        (b'{"context": {"press": "again", "task": "task_1", "proof": "x"}}', json_type),
    ]


async def test_whatever_has_no_good_token_is_forged(voice: Mattermost, mattermost: FakeMattermost) -> None:
    for body, headers in forgeries(mattermost):
        with pytest.raises(Forged):
            heard(voice, mattermost.url, body, headers)
    with pytest.raises(Forged):  # a bot that has no such token
        request = Inbound(method="POST", headers=FORM, query={}, body=mattermost.command("help", token=""))
        voice.hear(request, config={"server": mattermost.url}, secrets={"bot_token": BOT_TOKEN}, now=NOW)


async def test_a_button_that_we_made_is_heard_and_no_other(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    buttons = [
        Button(label="Again", press=Press.AGAIN, task_id="task_1"),
        Button(label="Make a video of it", press=Press.FILM, task_id="task_1"),
    ]
    await voice.post(of_bot(mattermost), card(buttons=buttons), now=NOW)
    [post] = mattermost.posts
    url, body = mattermost.press(post, "Make a video of it")
    assert url == LISTENS_AT
    pressed = heard(voice, mattermost.url, body, {"content-type": "application/json"})
    assert isinstance(pressed, Pressed)
    assert (pressed.press, pressed.task_id, pressed.person) == (Press.FILM, "task_1", ADA)
    for name, value in (("press", "again"), ("task", "task_2"), ("proof", "0" * 64), ("press", "dance")):
        told = json.loads(body)
        told["context"][name] = value
        with pytest.raises(Forged):
            heard(voice, mattermost.url, json.dumps(told).encode(), {"content-type": "application/json"})


@pytest.mark.parametrize("by", ["command", "message", "button"])
@pytest.mark.parametrize("text", [None, "*no*"])
def test_answers_are_as_the_server_reads_them(by: str, text: str | None) -> None:
    """JSON, and said to be JSON: else the server shows it as text."""
    address: Address = {"by": by, "channel": CHANNEL}
    said = Said(key="k", person=ADA, text="", address=address)
    answer = Mattermost.answer(Mattermost(None), said, text)  # type: ignore[arg-type]  # dials nobody
    assert isinstance(answer, Answer)
    assert answer.headers["content-type"] == "application/json"
    shown = json.loads(answer.body)
    words = shown.get("ephemeral_text") or shown.get("text")
    assert words == (r"\*no\*" if text else None if by == "message" else "On its way.")
    if by == "command":
        assert shown["response_type"] == "ephemeral"


@pytest.mark.parametrize("form", [False, True])
def test_of_a_message_with_countless_files_few_are_read(form: bool) -> None:
    voice = Mattermost(None)  # type: ignore[arg-type]  # dials nobody
    fields = {
        "token": WEBHOOK_TOKEN, "channel_id": CHANNEL, "user_id": USER, "post_id": "p" * 26,
        "text": "image a cat", "file_ids": ",".join([FILE] * 38_000),
    }  # fmt: skip
    body = urlencode(fields).encode() if form else json.dumps(fields).encode()
    said = heard(
        voice, "https://chat.example.com", body, FORM if form else {"content-type": "application/json"}
    )
    assert said.pictures == [{"file": FILE}] * MOST_PICTURES


async def test_an_attached_picture_is_fetched_with_the_bots_token(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    mattermost.files[FILE] = b"a picture"
    config = {"server": mattermost.url}
    assert await voice.fetch({"file": FILE}, config=config, secrets=SECRETS) == "YSBwaWN0dXJl"


@pytest.mark.parametrize(
    ("file", "secrets", "may_come"),
    [
        ("g" * 26, SECRETS, False),
        ("../users/me", SECRETS, False),
        (FILE, {**SECRETS, "bot_token": "revoked"}, False),
        (FILE, {"webhook_token": WEBHOOK_TOKEN}, False),
    ],
)
async def test_a_picture_that_cannot_be_had_is_told_so(
    voice: Mattermost, mattermost: FakeMattermost, file: str, secrets: Mapping[str, str], may_come: bool
) -> None:
    mattermost.files[FILE] = b"a picture"
    with pytest.raises(NotFetched) as caught:
        await voice.fetch({"file": file}, config={"server": mattermost.url}, secrets=secrets)
    assert caught.value.may_come is may_come


async def test_a_picture_that_is_too_large_is_not_read(voice: Mattermost, mattermost: FakeMattermost) -> None:
    mattermost.files[FILE] = b"x" * (10 * 1024 * 1024 + 1)
    with pytest.raises(NotFetched, match="larger than 10 MB"):
        await voice.fetch({"file": FILE}, config={"server": mattermost.url}, secrets=SECRETS)


async def test_a_picture_of_a_server_in_trouble_may_come_later(
    voice: Mattermost, mattermost: FakeMattermost
) -> None:
    for status in (500, 429):
        mattermost.answers(status)
        with pytest.raises(NotFetched) as caught:
            await voice.fetch({"file": FILE}, config={"server": mattermost.url}, secrets=SECRETS)
        assert caught.value.may_come


# Configuration


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"webhook_url": "https://chat.example.com/hooks/x"}, set()),
        ({"server": "https://chat.example.com", "bot_token": "t", "channel_id": CHANNEL}, set()),
        ({}, {"server", "bot_token", "channel_id"}),
        ({"server": "https://chat.example.com", "bot_token": "t"}, {"channel_id"}),
        ({"webhook_url": "https://chat.example.com/hooks/x", "bot_token": "t"}, {"bot_token"}),
        ({"webhook_url": "http://10.0.0.1/hooks/x"}, {"webhook_url"}),
        ({"webhook_url": "https://chat.example.com/hooks/x?y=1"}, {"webhook_url"}),
        ({"server": "ftp://chat.example.com", "bot_token": "t", "channel_id": CHANNEL}, {"server"}),
        ({"server": "", "bot_token": "t", "channel_id": CHANNEL}, {"server"}),
    ],
)
def test_an_endpoint_is_a_webhook_or_a_channel(
    voice: Mattermost, config: dict[str, str], wrong: set[str]
) -> None:
    faults = voice.faults(MattermostEndpoint.model_validate(config), pointer="#/config")
    assert {fault.pointer for fault in faults} == {f"#/config/{place}" for place in wrong}


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"server": "https://chat.example.com", "command_token": "t"}, set()),
        ({"server": "https://chat.example.com/sub/", "webhook_token": "t", "bot_token": "b"}, set()),
        ({"server": "https://chat.example.com", "bot_token": "b"}, {"command_token"}),
        ({"server": "http://169.254.169.254", "command_token": "t"}, {"server"}),
    ],
)
def test_a_bot_has_a_server_and_a_token_to_be_known_by(
    voice: Mattermost, config: dict[str, str], wrong: set[str]
) -> None:
    faults = voice.faults(MattermostBot.model_validate(config), pointer="#/config")
    assert {fault.pointer for fault in faults} == {f"#/config/{place}" for place in wrong}


def test_a_form_with_a_field_twice_counts_the_last() -> None:
    """As with whatever else a server may add: the token is compared with what is used, not with another."""
    body = urlencode([("token", COMMAND_TOKEN), ("token", "x"), ("command", "/kling")]).encode()
    with pytest.raises(Forged):
        heard(Mattermost(None), "https://chat.example.com", body)  # type: ignore[arg-type]  # dials nobody
