"""Discord, against a server that refuses what Discord refuses; what it signs is signed and verified by others' code."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import discord_interactions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.chat.discord import Discord, DiscordBot, DiscordEndpoint, _escaped, commands
from handlers.chat.grammar import QUOTES, Ask, AskStatus, parse
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
)
from handlers.messages import message_of
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.events import Event, EventType
from service.domain.tasks import TaskError
from service.network.dialler import open_dialler
from tests.contract.push_services import LOOPBACK, NOW, TASK, event_of, picture, video
from tests.fakes.discord import (
    APPLICATION,
    BOT_TOKEN,
    CHANNEL,
    GUILD,
    USER,
    WEBHOOK_TOKEN,
    FakeDiscord,
    Posted,
    _judge_command,
)

ADA = Person(workspace=GUILD, chat=CHANNEL, user=USER, name="ada")
BUTTONS = (
    Button(label="Again", press=Press.AGAIN, task_id=TASK),
    Button(label="Make a video of it", press=Press.FILM, task_id=TASK),
)


class Moment:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
async def discord(anyio_backend: str, moment: Moment) -> AsyncIterator[FakeDiscord]:
    server = FakeDiscord(clock=moment)
    async with server.running():
        yield server


@pytest.fixture
async def voice(anyio_backend: str) -> AsyncIterator[Discord]:
    async with open_dialler(LOOPBACK) as dialler:
        yield Discord(dialler)


def card(event: Event | None = None, **more: Any) -> Card:
    return Card(message=message_of(event or event_of(outputs=[picture(1)], makes="image")), **more)


def outcome(reply: Reply) -> AttemptOutcome:
    return result(reply, attempt=1, now=NOW).outcome


def config(discord: FakeDiscord) -> dict[str, str]:
    return {"application_id": APPLICATION, "public_key": discord.public_key, "server": discord.url}


def hear(
    voice: Discord, discord: FakeDiscord, payload: dict[str, Any], now: datetime = NOW, **headers: str
) -> Any:
    signed, body = discord.signed(payload)
    request = Inbound(method="POST", headers=signed | headers, query={}, body=body)
    return voice.hear(request, config=config(discord), secrets={}, now=now)


def asked(
    voice: Discord, discord: FakeDiscord, word: str = "image", **options: Any
) -> tuple[Said, dict[str, Any]]:
    """A command that was heard, and deferred."""
    interaction = discord.command(word, **options)
    said = hear(voice, discord, interaction)
    answer = voice.answer(said, None)
    assert isinstance(said, Said)
    assert answer is not None
    assert discord.answered(interaction, json.loads(answer.body)) is None
    return said, interaction


def to(discord: FakeDiscord, said: Said | Pressed, **secrets: str) -> Destination:
    return Destination(config=config(discord), secrets=secrets, address=said.address, asked_at=NOW)


def of_webhook(discord: FakeDiscord, **more: Any) -> Destination:
    return Destination(config={"server": discord.url, **more}, secrets={"webhook_url": discord.webhook_url})


def only(discord: FakeDiscord) -> Posted:
    [message] = discord.posted.values()
    return message


# Listening


def test_a_ping_is_answered(voice: Discord, discord: FakeDiscord) -> None:
    answer = hear(voice, discord, {"id": "1", "type": 1, "application_id": APPLICATION})
    assert isinstance(answer, Answer)
    assert (answer.status, json.loads(answer.body)) == (200, {"type": 1})
    assert answer.headers["content-type"] == "application/json"


def test_what_discords_example_code_believes_we_believe_and_nothing_else(
    voice: Discord, discord: FakeDiscord, capsys: pytest.CaptureFixture[str]
) -> None:
    headers, body = discord.signed({"id": "1", "type": 1})
    signature, sent_at = headers["x-signature-ed25519"], headers["x-signature-timestamp"]
    tried = [
        (body, signature, sent_at),
        *((body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], signature, sent_at) for at in range(len(body))),
        *(
            (body, f"{int(signature, 16) ^ (1 << bit):0128x}", sent_at)
            for bit in range(0, 512, 7)
        ),
        (body, signature, str(int(sent_at) + 1)),
        (body, signature[:-2], sent_at),
        (body, "", sent_at),
        (body, "not hexadecimal", sent_at),
    ]  # fmt: skip
    believed = []
    for sent, by, at in tried:
        request = Inbound(
            method="POST",
            headers={"x-signature-ed25519": by, "x-signature-timestamp": at},
            query={},
            body=sent,
        )
        try:
            voice.hear(request, config=config(discord), secrets={}, now=NOW)
        except Forged:
            believed.append(False)
        else:
            believed.append(True)
        assert discord_interactions.verify_key(sent, by, at, discord.public_key) is believed[-1]
    capsys.readouterr()  # the example prints what it finds wrong
    assert believed == [True] + [False] * (len(tried) - 1)


@pytest.mark.parametrize("sent_at", [None, "", "soon", "-1", "1e9", "²", "9" * 30, "1779451200.5"])
def test_a_signed_request_without_a_moment_is_forged(
    voice: Discord, discord: FakeDiscord, sent_at: str | None
) -> None:
    body = b'{"id": "1", "type": 1}'
    headers = {"x-signature-ed25519": discord.key.sign((sent_at or "").encode() + body).signature.hex()}
    if sent_at is not None:
        headers["x-signature-timestamp"] = sent_at
    request = Inbound(method="POST", headers=headers, query={}, body=body)
    with pytest.raises(Forged):
        voice.hear(request, config=config(discord), secrets={}, now=NOW)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_request_of_another_time_is_forged(voice: Discord, discord: FakeDiscord, seconds: int) -> None:
    with pytest.raises(Forged):
        hear(voice, discord, {"id": "1", "type": 1}, NOW + timedelta(seconds=seconds))


def test_a_command_is_said_as_the_grammar_has_it(voice: Discord, discord: FakeDiscord) -> None:
    interaction = discord.command(
        "image",
        prompt="a cat in space",
        aspect_ratio="1:1",
        n=2,
        picture2="b.png",
        picture1="a.png",
        scene_image='https://example.com/s"cene.png',
    )
    said = hear(voice, discord, interaction)
    assert isinstance(said, Said)
    assert (said.key, said.person) == (interaction["id"], ADA)
    assert [picture["url"].split("?")[0] for picture in said.pictures] == [
        f"{discord.url}/attachments/a.png",
        f"{discord.url}/attachments/b.png",
    ]
    ask = parse(said.text)
    assert isinstance(ask, Ask)
    assert (ask.prompt, ask.options) == (
        "a cat in space",
        {"aspect_ratio": "1:1", "n": 2, "scene_image": "https://example.com/scene.png"},
    )
    assert isinstance(parse(hear(voice, discord, discord.command("status")).text), AskStatus)


@pytest.mark.parametrize("quote", QUOTES)
def test_quotes_in_a_field_stay_out_of_the_prompt(voice: Discord, discord: FakeDiscord, quote: str) -> None:
    interaction = discord.command(
        "video", prompt="a cat dances", negative_prompt=f"no {quote}text{quote} at all"
    )
    ask = parse(hear(voice, discord, interaction).text)
    assert isinstance(ask, Ask)
    assert (ask.prompt, ask.options) == ("a cat dances", {"negative_prompt": "no text at all"})


def test_who_asks_in_private_is_in_no_guild(voice: Discord, discord: FakeDiscord) -> None:
    said = hear(voice, discord, discord.command("status", in_guild=False))
    assert said.person == Person(workspace=None, chat=CHANNEL, user=USER, name="ada")


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "1", "type": 2, "token": "t", "data": {"name": "kling"}},
        {"id": "1", "type": 2, "token": "t", "channel_id": "2", "data": {"name": "kling"}},
        {"type": 2},
        [],
        "ping",
    ],
)
def test_what_names_nobody_is_no_command(voice: Discord, discord: FakeDiscord, payload: Any) -> None:
    answer = hear(voice, discord, payload)
    assert isinstance(answer, Answer)
    assert answer.status == 400


def test_what_is_neither_command_nor_button_is_answered_all_the_same(
    voice: Discord, discord: FakeDiscord
) -> None:
    autocomplete = hear(voice, discord, {"id": "1", "type": 4, "token": "t"})
    assert json.loads(autocomplete.body) == {"type": 8, "data": {"choices": []}}
    modal = discord.command("image") | {"type": 5}
    assert discord.answered(modal, json.loads(hear(voice, discord, modal).body)) is not None


def test_words_reach_the_person_alone_and_call_nobody(voice: Discord, discord: FakeDiscord) -> None:
    interaction = discord.command("status")
    said = hear(voice, discord, interaction)
    answer = voice.answer(said, "@everyone **hello** " + "_" * 3000)
    assert answer is not None
    seen = discord.answered(interaction, json.loads(answer.body))
    assert seen is not None
    assert seen["content"].startswith(r"\@everyone \*\*hello\*\* \_")
    assert seen["content"].endswith("…")


def test_a_button_asks_for_its_task(voice: Discord, discord: FakeDiscord) -> None:
    content = {"embeds": [], "components": [{"type": 1, "components": [
        {"label": "Again", "custom_id": f"again:{TASK}"}, {"label": "Other", "custom_id": "other:1"},
    ]}]}  # fmt: skip
    message = Posted("1100000000000000999", "answer", content)
    press = discord.press(message, "Again")
    pressed = hear(voice, discord, press)
    assert isinstance(pressed, Pressed)
    assert (pressed.key, pressed.person, pressed.press, pressed.task_id) == (
        press["id"], ADA, Press.AGAIN, TASK,
    )  # fmt: skip
    other = discord.press(message, "Other")
    assert discord.answered(other, json.loads(hear(voice, discord, other).body)) is not None


# Speaking where one was asked


async def test_the_deferred_answer_becomes_the_result(voice: Discord, discord: FakeDiscord) -> None:
    said, _ = asked(voice, discord)
    first = await voice.post(
        to(discord, said), card(event_of(EventType.TASK_SUBMITTED), prompt="a cat"), now=NOW
    )
    assert first.reference is not None
    second = await voice.edit(
        to(discord, said), first.reference, card(prompt="a cat", asked_by=ADA, buttons=BUTTONS), now=NOW
    )
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    message = only(discord)
    assert len(message.history) == 2
    assert message.embed["title"] == "Picture ready"
    assert message.embed["image"]["url"] == message.embed["url"] == picture(1).url
    assert message.embed["description"].startswith("> a cat\n")
    assert "asked for by ada" in message.embed["description"]
    assert message.buttons == {"Again": f"again:{TASK}", "Make a video of it": f"film:{TASK}"}


async def test_a_video_is_an_address_that_discord_plays(voice: Discord, discord: FakeDiscord) -> None:
    said, _ = asked(voice, discord)
    await voice.post(to(discord, said), card(event_of(outputs=[video()])), now=NOW)
    assert only(discord).content["content"] == video().url


async def test_after_a_quarter_of_an_hour_the_bot_answers_the_message_in_its_channel(
    voice: Discord, discord: FakeDiscord, moment: Moment
) -> None:
    said, _ = asked(voice, discord)
    place = to(discord, said, bot_token=BOT_TOKEN)
    first = await voice.post(place, card(event_of(EventType.TASK_SUBMITTED)), now=NOW)
    assert first.reference is not None
    moment.now += timedelta(minutes=15)
    second = await voice.edit(place, first.reference, card(), now=moment.now)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert second.reference is not None
    before, after = discord.posted.values()
    assert (before.place, after.place) == ("answer", "channel")
    assert after.content["message_reference"] == {"message_id": before.id, "fail_if_not_exists": False}
    third = await voice.edit(place, second.reference, card(), now=moment.now)
    assert outcome(third.reply) is AttemptOutcome.DELIVERED
    assert len(after.history) == 2


async def test_a_token_that_ends_before_its_time_ends_nothing(
    voice: Discord, discord: FakeDiscord, moment: Moment
) -> None:
    """Discord's clock is the one that counts."""
    said, _ = asked(voice, discord)
    moment.now += timedelta(minutes=15)
    place = to(discord, said, bot_token=BOT_TOKEN)
    spoken = await voice.post(place, card(), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    assert only(discord).place == "channel"


async def test_without_a_bot_token_a_late_result_is_a_dead_letter_that_says_why(
    voice: Discord, discord: FakeDiscord, moment: Moment
) -> None:
    said, _ = asked(voice, discord)
    first = await voice.post(to(discord, said), card(event_of(EventType.TASK_SUBMITTED)), now=NOW)
    assert first.reference is not None
    late = NOW + timedelta(minutes=15)
    number = len(discord.requests)
    for reply in (
        (await voice.edit(to(discord, said), first.reference, card(), now=late)).reply,
        (await voice.post(to(discord, said), card(), now=late)).reply,
        await voice.tell(to(discord, said), "no", now=late),
    ):
        assert outcome(reply) is AttemptOutcome.DEAD
        assert "quarter of an hour" in reply.reason
    assert len(discord.requests) == number


async def test_a_deleted_answer_is_said_anew(voice: Discord, discord: FakeDiscord) -> None:
    said, _ = asked(voice, discord)
    first = await voice.post(to(discord, said), card(event_of(EventType.TASK_SUBMITTED)), now=NOW)
    assert first.reference is not None
    discord.delete(only(discord))
    second = await voice.edit(to(discord, said), first.reference, card(), now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert only(discord).embed["title"] == "Picture ready"
    assert second.reference is not None
    assert outcome((await voice.edit(to(discord, said), second.reference, card(), now=NOW)).reply) is (
        AttemptOutcome.DELIVERED
    )


async def test_a_refusal_is_told_in_place_of_the_result(voice: Discord, discord: FakeDiscord) -> None:
    said, _ = asked(voice, discord)
    reply = await voice.tell(to(discord, said), "I cannot submit that:\n- <@&1> is not allowed", now=NOW)
    assert outcome(reply) is AttemptOutcome.DELIVERED
    assert only(discord).content["content"] == "I cannot submit that\\:\n\\- \\<\\@&1\\> is not allowed"


async def test_the_answer_to_a_button_refers_to_its_message_once_it_is_the_bots(
    voice: Discord, discord: FakeDiscord, moment: Moment
) -> None:
    message = Posted("1100000000000000999", "answer", {"components": [{"type": 1, "components": [
        {"label": "Again", "custom_id": f"again:{TASK}"}]}]})  # fmt: skip
    pressed = hear(voice, discord, discord.press(message, "Again"))
    moment.now += timedelta(minutes=20)
    await voice.post(to(discord, pressed, bot_token=BOT_TOKEN), card(), now=moment.now)
    assert only(discord).content["message_reference"]["message_id"] == message.id


# Speaking through a webhook


async def test_a_webhooks_message_is_edited_in_place(voice: Discord, discord: FakeDiscord) -> None:
    first = await voice.post(of_webhook(discord), card(event_of(EventType.TASK_SUBMITTED)), now=NOW)
    assert first.reference is not None
    second = await voice.edit(of_webhook(discord), first.reference, card(), now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert [content["embeds"][0]["title"] for content in only(discord).history] == [
        "Video submitted",
        "Picture ready",
    ]


async def test_a_thread_of_the_channel_is_named_with_each_request(
    voice: Discord, discord: FakeDiscord
) -> None:
    place = of_webhook(discord, thread_id="1100000000000000777")
    first = await voice.post(place, card(), now=NOW)
    assert first.reference is not None
    await voice.edit(place, first.reference, card(), now=NOW)
    assert len(only(discord).history) == 2


async def test_a_webhook_that_is_no_more_is_called_no_more(voice: Discord, discord: FakeDiscord) -> None:
    other = discord.webhook_url.replace(WEBHOOK_TOKEN, "y" * 68)
    place = Destination(config={"server": discord.url}, secrets={"webhook_url": other})
    assert outcome((await voice.post(place, card(), now=NOW)).reply) is AttemptOutcome.GONE
    discord.answers(404, json.dumps({"message": "Unknown Webhook", "code": 10015}))
    assert outcome((await voice.post(of_webhook(discord), card(), now=NOW)).reply) is AttemptOutcome.GONE


async def test_a_message_that_somebody_deleted_is_written_anew(voice: Discord, discord: FakeDiscord) -> None:
    reference = {"place": "webhook", "message": "1100000000000000999"}
    spoken = await voice.edit(of_webhook(discord), reference, card(), now=NOW)
    assert spoken.reference == {"place": "webhook", "message": only(discord).id}


async def test_a_picture_whose_address_discord_does_not_like_does_not_keep_the_result_back(
    voice: Discord, discord: FakeDiscord
) -> None:
    discord.bad_hosts.add("example.com")
    first = await voice.post(of_webhook(discord), card(), now=NOW)
    assert outcome(first.reply) is AttemptOutcome.DELIVERED
    assert "image" not in only(discord).embed
    assert picture(1).url in only(discord).embed["description"]
    assert first.reference is not None
    second = await voice.edit(of_webhook(discord), first.reference, card(), now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED


async def test_long_words_and_many_outputs_stay_within_discords_limits(
    voice: Discord, discord: FakeDiscord
) -> None:
    outputs = [picture(number, stored_url=f"https://klingel.example/{'x' * 1500}") for number in range(9)]
    error = TaskError("_" * 900, "*" * 5000)
    event = event_of(EventType.TASK_FAILED, outputs=outputs, error=error, external_task_id="`" * 5000)
    spoken = await voice.post(of_webhook(discord), card(event, prompt="_" * 9000), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    assert len(only(discord).history) == 1, spoken


async def test_nothing_of_a_prompt_is_markup(voice: Discord, discord: FakeDiscord) -> None:
    prompt = "<@1> @everyone **big** [free](https://evil.example/a_b) ||x||\n# head"
    await voice.post(of_webhook(discord), card(prompt=prompt), now=NOW)
    quoted = only(discord).embed["description"].splitlines()[0]
    assert quoted == (
        r"> \<\@1\> \@everyone \*\*big\*\* \[free\]\(https://evil.example/a_b) \|\|x\|\| \# head"
    )


@given(st.text(alphabet="\\*_~`|<>#[]()@:- ab", max_size=60))
def test_every_mark_is_taken_back_and_every_letter_stays(text: str) -> None:
    escaped = _escaped(text)
    assert escaped.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == text


async def test_discords_haste_is_obeyed(voice: Discord, discord: FakeDiscord) -> None:
    discord.answers(
        429,
        json.dumps({"message": "You are being rate limited.", "retry_after": 64.57, "global": False}),
        Retry_After="65",
        X_RateLimit_Scope="user",
    )
    found = result(
        (await voice.post(of_webhook(discord), card(), now=NOW)).reply, attempt=1, now=NOW, jitter=0
    )
    assert found.outcome is AttemptOutcome.RETRY
    assert found.next_attempt_at == NOW + timedelta(seconds=65)


@pytest.mark.parametrize("seconds", ["NaN", "1e999", "-1e999", "-1e300", "9" * 400, "-" + "9" * 400, '"x"'])
async def test_a_haste_that_is_no_span_of_time_breaks_nothing(
    voice: Discord, discord: FakeDiscord, seconds: str
) -> None:
    discord.answers(429, f'{{"retry_after": {seconds}}}')
    reply = (await voice.post(of_webhook(discord), card(), now=NOW)).reply
    assert outcome(reply) is AttemptOutcome.RETRY
    assert reply.retry_after in {timedelta(0), timedelta(hours=1)}


async def test_an_empty_bucket_is_not_asked_again_until_it_is_full(
    voice: Discord, discord: FakeDiscord
) -> None:
    discord.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "3000.5"}
    await voice.post(of_webhook(discord), card(), now=NOW)
    number = len(discord.requests)
    reply = (await voice.post(of_webhook(discord), card(), now=NOW)).reply
    assert outcome(reply) is AttemptOutcome.RETRY
    assert reply.retry_after is not None
    assert timedelta(seconds=2900) < reply.retry_after <= timedelta(seconds=3000.5)
    assert len(discord.requests) == number


async def test_an_empty_bucket_is_waited_for_when_that_is_soon(voice: Discord, discord: FakeDiscord) -> None:
    discord.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.2"}
    await voice.post(of_webhook(discord), card(), now=NOW)
    assert outcome((await voice.post(of_webhook(discord), card(), now=NOW)).reply) is AttemptOutcome.DELIVERED
    assert len(discord.posted) == 2


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (400, {"code": 50035, "message": "Invalid Form Body"}, AttemptOutcome.DEAD),
        (403, {"code": 50013, "message": "Missing Permissions"}, AttemptOutcome.DEAD),
        (404, {"code": 10003, "message": "Unknown Channel"}, AttemptOutcome.DEAD),
        (500, {"message": "500: Internal Server Error", "code": 0}, AttemptOutcome.RETRY),
        (502, None, AttemptOutcome.RETRY),
        (200, {"hello": "I am a portal"}, AttemptOutcome.RETRY),
        (204, None, AttemptOutcome.RETRY),
    ],
)
async def test_an_answer_is_judged(
    voice: Discord, discord: FakeDiscord, status: int, body: Any, wanted: AttemptOutcome
) -> None:
    for _ in range(2):  # what is refused with a picture is tried without
        discord.answers(status, "" if body is None else json.dumps(body))
    assert outcome((await voice.post(of_webhook(discord), card(), now=NOW)).reply) is wanted


async def test_no_secret_comes_back_in_an_excerpt(voice: Discord, discord: FakeDiscord) -> None:
    said, interaction = asked(voice, discord)
    secrets = [WEBHOOK_TOKEN, interaction["token"], BOT_TOKEN]
    for place in (of_webhook(discord), to(discord, said, bot_token=BOT_TOKEN)):
        discord.answers(500, " ".join(secrets))
        excerpt = (await voice.post(place, card(), now=NOW)).reply.excerpt
        assert excerpt
        wanted = secrets[:1] if place.address is None else secrets[1:]
        assert not any(secret in excerpt for secret in wanted)


# Pictures


async def test_an_attachment_is_fetched_while_its_address_lasts(voice: Discord, discord: FakeDiscord) -> None:
    discord.files["a.png"] = b"\x89PNG"
    said, _ = asked(voice, discord, picture1="a.png")
    fetched = await voice.fetch(said.pictures[0], config=config(discord), secrets={})
    assert base64.b64decode(fetched) == b"\x89PNG"


@pytest.mark.parametrize(
    "attachment",
    [
        {"url": "https://evil.example/a.png", "size": 1},
        {"url": "http://cdn.discordapp.com/a.png", "size": 1},
        {"url": "https://cdn.discordapp.com.evil.example/a.png", "size": 1},
        {"url": "https://cdn.discordapp.com:8443/a.png", "size": 1},
        {"url": "nonsense", "size": 1},
        {"url": "https://cdn.discordapp.com/a.png", "size": 10 * 1024 * 1024 + 1},
    ],
)
async def test_nothing_else_is_fetched(
    voice: Discord, discord: FakeDiscord, attachment: dict[str, Any]
) -> None:
    with pytest.raises(NotFetched) as caught:
        await voice.fetch(attachment, config=config(discord), secrets={})
    assert not caught.value.may_come


# Configuration


def test_the_commands_are_such_as_discord_takes() -> None:
    [kling] = commands()
    _judge_command(kling)
    assert [option["name"] for option in kling["options"]] == ["image", "video", "status", "help"]
    [image, video, *_] = kling["options"]
    assert {"prompt", "picture1", "picture4", "aspect_ratio", "n"} <= {
        one["name"] for one in image["options"]
    }
    [duration] = [one for one in video["options"] if one["name"] == "duration"]
    assert duration["choices"] == [{"name": "5", "value": "5"}, {"name": "10", "value": "10"}]


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        (f"https://discord.com/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", True),
        (f"https://discordapp.com/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", True),
        (f"https://ptb.discord.com/api/v10/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", True),
        (f"http://discord.com/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", False),
        (f"https://discord.com.evil.example/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", False),
        (f"https://discord.com:8443/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}", False),
        (f"https://discord.com/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}/slack", False),
        (f"https://discord.com/api/webhooks/1100000000000000005/{WEBHOOK_TOKEN}?wait=true", False),
        ("https://discord.com/api/webhooks/1100000000000000005", False),
        ("nonsense", False),
    ],
)
def test_a_webhook_is_discords(voice: Discord, url: str, is_one: bool) -> None:
    faults = voice.faults(DiscordEndpoint(webhook_url=url), pointer="#/config")
    assert [fault.pointer for fault in faults] == ([] if is_one else ["#/config/webhook_url"])


def test_a_bots_faults_are_told_at_once(voice: Discord) -> None:
    bot = DiscordBot(application_id=APPLICATION, public_key="0" * 64, server="http://10.0.0.1")
    assert "#/server" in [fault.pointer for fault in voice.faults(bot, pointer="#")]
    assert voice.faults(DiscordBot(application_id=APPLICATION, public_key="d" * 64), pointer="#") == []
