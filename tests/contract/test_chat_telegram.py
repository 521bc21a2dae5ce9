"""Telegram, against a server that refuses what Telegram refuses; an independent library talks to the same server."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import telegram
from telegram.request import HTTPXRequest

from handlers.chat.grammar import Ask, AskStatus, Usage, parse
from handlers.chat.platform import (
    Album,
    Answer,
    Attached,
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
from handlers.chat.telegram import Telegram, TelegramBot, commands, webhook_secret
from handlers.messages import message_of
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.events import Event, EventType
from service.domain.tasks import TaskError
from service.network.dialler import open_dialler
from tests.contract.push_services import LOOPBACK, NOW, TASK, event_of, picture, video
from tests.fakes.telegram import (
    GROUP,
    PERSON,
    SUPERGROUP,
    TOKEN,
    USERNAME,
    FakeTelegram,
    Refusal,
    Shown,
)

ADA = Person(workspace=None, chat=str(PERSON), user=str(PERSON), name="ada")
BUTTONS = (
    Button(label="Again", press=Press.AGAIN, task_id=TASK),
    Button(label="Make a video of it", press=Press.FILM, task_id=TASK),
)
SECRETS = {"token": TOKEN}
MEGABYTE = 1024 * 1024


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FakeTelegram]:
    server = FakeTelegram()
    async with server.running():
        yield server


@pytest.fixture
async def voice(anyio_backend: str) -> AsyncIterator[Telegram]:
    async with open_dialler(LOOPBACK) as dialler:
        yield Telegram(dialler)


def card(event: Event | None = None, **more: Any) -> Card:
    return Card(message=message_of(event or event_of(outputs=[picture(1)], makes="image")), **more)


def film(**more: Any) -> Card:
    return card(event_of(outputs=[video()]), **more)


def submitted() -> Card:
    return card(event_of(EventType.TASK_SUBMITTED))


def outcome(reply: Reply) -> AttemptOutcome:
    return result(reply, attempt=1, now=NOW).outcome


def to(server: FakeTelegram, chat: int = PERSON, **address: Any) -> Destination:
    return Destination(
        config={"server": server.url, "username": USERNAME},
        secrets=SECRETS,
        address={"chat": str(chat), "message": 7, **address},
        asked_at=NOW,
    )


def own(server: FakeTelegram, chat: int = GROUP, **more: Any) -> Destination:
    return Destination(config={"server": server.url, "chat_id": str(chat), **more}, secrets=SECRETS)


def only(server: FakeTelegram) -> Shown:
    [shown] = server.shown.values()
    return shown


def hear(voice: Telegram, update: Any, secret: str | None = None) -> Any:
    """As PTB reads it, too, where it is an update."""
    if isinstance(update, dict) and "update_id" in update:
        assert telegram.Update.de_json(update).update_id == update["update_id"]
    headers = {"x-telegram-bot-api-secret-token": webhook_secret(TOKEN) if secret is None else secret}
    request = Inbound(method="POST", headers=headers, query={}, body=json.dumps(update).encode())
    return voice.hear(request, config={"username": USERNAME}, secrets=SECRETS, now=NOW)


def said(voice: Telegram, server: FakeTelegram, text: str, **more: Any) -> Any:
    return hear(voice, server.update(message=server.message(text, **more)))


# The server, as an independent library finds it


async def test_the_fake_takes_what_a_known_client_sends(
    server: FakeTelegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "true")  # how it is to tell spans; the other way is deprecated
    asking, listening = (
        HTTPXRequest(connect_timeout=60, read_timeout=60, write_timeout=60, pool_timeout=60) for _ in range(2)
    )
    async with telegram.Bot(
        TOKEN,
        base_url=f"{server.url}/bot",
        base_file_url=f"{server.url}/file/bot",
        request=asking,
        get_updates_request=listening,
    ) as bot:
        assert bot.username == USERNAME
        sent = await bot.send_message(PERSON, "<b>hello</b> &amp; more", parse_mode="HTML")
        assert sent.text == "hello & more"
        with pytest.raises(telegram.error.BadRequest, match="entities"):
            await bot.send_message(PERSON, "a < b", parse_mode="HTML")
        with pytest.raises(telegram.error.BadRequest, match="not modified"):
            await sent.edit_text("<b>hello</b> &amp; more", parse_mode="HTML")
        server.refusals.append(Refusal(429, "Too Many Requests: retry after 3", retry_after=3))
        with pytest.raises(telegram.error.RetryAfter):
            await bot.send_message(PERSON, "again")
        server.files["a.png"] = b"\x89PNG"
        file = await bot.get_file("x:a.png")
        assert bytes(await file.download_as_bytearray()) == b"\x89PNG"


# Listening


def test_the_secret_is_made_of_the_token_and_does_not_tell_it() -> None:
    secret = webhook_secret(TOKEN)
    assert len(secret) == 64
    assert secret != webhook_secret(TOKEN[:-1] + "A")
    assert TOKEN.partition(":")[2] not in secret


def test_another_secret_is_forged(voice: Telegram, server: FakeTelegram) -> None:
    update = server.update(message=server.message("status"))
    right = webhook_secret(TOKEN)
    wrong = [right[:at] + ("0" if right[at] != "0" else "1") + right[at + 1 :] for at in range(len(right))]
    for secret in [*wrong, "", right.upper(), right + "0", right[:-1], TOKEN, "ü\x80"]:
        with pytest.raises(Forged):
            hear(voice, update, secret)
    request = Inbound(method="POST", headers={}, query={}, body=json.dumps(update).encode())
    with pytest.raises(Forged):
        voice.hear(request, config={"username": USERNAME}, secrets=SECRETS, now=NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image a cat", "image a cat"),
        ("/kling image a cat", "image a cat"),
        ("/kling@Kling_Test_Bot image\na cat", "image a cat"),
        ("/image a cat n=2", "image a cat n=2"),
        (f"/video@{USERNAME} it runs", "video it runs"),
        ("/kling", "help"),
        ("/start", "help"),
        ("/help", "help"),
    ],
)
def test_what_is_said_in_private_is_a_command(
    voice: Telegram, server: FakeTelegram, text: str, words: str
) -> None:
    heard = said(voice, server, text)
    assert isinstance(heard, Said)
    assert (heard.text, heard.person) == (words, ADA)
    assert isinstance(parse(heard.text), Ask | AskStatus | Usage)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"/kling@{USERNAME} image a cat", "image a cat"),
        ("/kling image a cat", "image a cat"),
        ("/video it runs", "video it runs"),
        (f"/help@{USERNAME}", "help"),
        ("/help", None),  # of which bot?
        ("/image@another_bot a cat", None),
        ("image a cat", None),
        ("the /kling image thing", None),
    ],
)
def test_in_a_group_only_what_is_meant_for_it_is_heard(
    voice: Telegram, server: FakeTelegram, text: str, words: str | None
) -> None:
    heard = said(voice, server, text, chat=GROUP)
    if words is None:
        assert heard == Answer()
    else:
        assert (heard.text, heard.person.chat, heard.person.user) == (words, str(GROUP), str(PERSON))


def test_a_photo_is_taken_in_its_largest_size(voice: Telegram, server: FakeTelegram) -> None:
    server.files["a.png"] = b"x" * 1000
    heard = said(voice, server, "/image a cat", picture="a.png")
    assert heard.pictures == [{"file": "x:a.png", "size": 1000}]
    assert heard.album is None


def test_a_picture_may_be_sent_as_a_file_and_another_file_is_none(
    voice: Telegram, server: FakeTelegram
) -> None:
    document = {"file_id": "f:a.png", "file_unique_id": "a", "mime_type": "image/png", "file_size": 9}
    message = server.message(caption="/image a cat", document=document)
    assert hear(voice, server.update(message=message)).pictures == [{"file": "f:a.png", "size": 9}]
    message["document"] = document | {"mime_type": "application/pdf"}
    assert hear(voice, server.update(message=message)).pictures == []


def test_the_picture_of_the_message_that_is_answered_counts(voice: Telegram, server: FakeTelegram) -> None:
    server.files |= {"a.png": b"a", "b.png": b"b"}
    replied = server.message(picture="a.png", chat=GROUP)
    heard = said(voice, server, "/image both", chat=GROUP, picture="b.png", reply_to_message=replied)
    assert [one["file"] for one in heard.pictures] == ["x:a.png", "x:b.png"]


def test_the_parts_of_an_album_are_one_album(voice: Telegram, server: FakeTelegram) -> None:
    server.files |= {"a.png": b"a", "b.png": b"b"}
    first = server.message("/video go", picture="a.png", media_group_id="77")
    second = server.message(picture="b.png", media_group_id="77")
    heard, part = hear(voice, server.update(message=first)), hear(voice, server.update(message=second))
    assert isinstance(heard, Said)
    assert heard.album == Album(id=f"{PERSON}:77", place=first["message_id"])
    assert part == Attached(
        person=ADA,
        pictures=[{"file": "x:b.png", "size": 1}],
        album=Album(id=f"{PERSON}:77", place=second["message_id"]),
    )


@pytest.mark.parametrize(
    "update",
    [
        {"update_id": 1, "edited_message": {"message_id": 1}},
        {"update_id": 1, "my_chat_member": {}},
        {"update_id": 1},
        {"update_id": "one"},
        [],
        "hello",
    ],
)
def test_what_concerns_no_bot_is_taken_and_nothing_follows(voice: Telegram, update: Any) -> None:
    request = Inbound(
        method="POST",
        headers={"x-telegram-bot-api-secret-token": webhook_secret(TOKEN)},
        query={},
        body=json.dumps(update).encode(),
    )
    assert voice.hear(request, config={"username": USERNAME}, secrets=SECRETS, now=NOW) == Answer()


def test_other_bots_and_channels_give_no_orders(voice: Telegram, server: FakeTelegram) -> None:
    message = server.message("/kling status")
    bot = message | {"from": message["from"] | {"is_bot": True}}
    assert hear(voice, server.update(message=bot)) == Answer()
    channel = {name: value for name, value in message.items() if name != "from"}
    assert hear(voice, server.update(message=channel)) == Answer()


async def test_a_button_asks_for_its_task_and_the_answer_reaches_the_person_alone(
    voice: Telegram, server: FakeTelegram
) -> None:
    server.fetches_everything = True
    await voice.post(to(server), card(buttons=BUTTONS), now=NOW)
    update = server.press(only(server), "Make a video of it")
    pressed = hear(voice, update)
    assert isinstance(pressed, Pressed)
    assert (pressed.key, pressed.person, pressed.press, pressed.task_id) == (
        str(update["update_id"]), ADA, Press.FILM, TASK,
    )  # fmt: skip
    for text in (None, "You have a task open already. " * 20):
        answer = voice.answer(pressed, text)
        assert answer is not None
        call = json.loads(answer.body)
        server.call(call.pop("method"), call)
    assert list(server.notices) == [update["callback_query"]["id"]]


def test_a_button_of_somebody_else_does_nothing(voice: Telegram, server: FakeTelegram) -> None:
    shown = Shown(1, PERSON, markup={"inline_keyboard": [[{"text": "x", "callback_data": "again:1"}]]})
    assert hear(voice, server.press(shown, "x")) == Answer()


def test_words_are_an_answer_to_the_message(voice: Telegram, server: FakeTelegram) -> None:
    heard = said(voice, server, "/kling@kling_test_bot help", chat=GROUP)
    assert voice.answer(heard, None) == Answer()
    answer = voice.answer(heard, "a <b> & " + "😀" * 5000)
    assert answer is not None
    call = json.loads(answer.body)
    server.call(call.pop("method"), call)
    assert only(server).text.startswith("a <b> & 😀")
    assert only(server).sent["reply_parameters"]["message_id"] == heard.address["message"]


# Speaking


async def test_one_message_becomes_the_picture(voice: Telegram, server: FakeTelegram) -> None:
    server.media[picture(1).url] = ("photo", MEGABYTE)
    first = await voice.post(
        to(server, GROUP), card(event_of(EventType.TASK_SUBMITTED), prompt="a cat"), now=NOW
    )
    assert first.reference is not None
    assert only(server).text == "⏳ Video submitted\na cat\norder-1042 · kling.multi-image-to-video"
    assert only(server).sent["reply_parameters"] == {"message_id": 7, "allow_sending_without_reply": True}
    second = await voice.edit(
        to(server, GROUP), first.reference, card(prompt="a cat", asked_by=ADA, buttons=BUTTONS), now=NOW
    )
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert second.reference == {**first.reference, "media": picture(1).url}
    shown = only(server)
    assert (shown.media, shown.edits) == (("photo", picture(1).url), 1)
    assert shown.text.startswith("✅ Picture ready\na cat\n")
    assert shown.text.endswith("Picture\nasked for by ada")
    assert f'<a href="{picture(1).url}">Picture</a>' in shown.html
    assert shown.buttons == {"Again": f"again:{TASK}", "Make a video of it": f"film:{TASK}"}


async def test_what_follows_the_picture_changes_its_caption_and_keeps_it(
    voice: Telegram, server: FakeTelegram
) -> None:
    server.media[picture(1).url] = ("photo", MEGABYTE)
    first = await voice.post(to(server), card(), now=NOW)
    assert first.reference is not None
    again = await voice.edit(to(server), first.reference, card(), now=NOW)
    assert outcome(again.reply) is AttemptOutcome.DELIVERED  # shown already
    late = card(event_of(EventType.TASK_OVERDUE))
    second = await voice.edit(to(server), first.reference, late, now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert (only(server).media, second.reference) == (("photo", picture(1).url), first.reference)
    assert only(server).text.startswith("⚠️ Video overdue")


async def test_a_video_is_sent_as_one(voice: Telegram, server: FakeTelegram) -> None:
    server.media[video().url] = ("video", 20 * MEGABYTE)
    await voice.post(to(server), film(), now=NOW)
    assert only(server).media == ("video", video().url)


@pytest.mark.parametrize("first", ["posted", "edited"])
async def test_a_video_that_telegram_does_not_fetch_is_a_link(
    voice: Telegram, server: FakeTelegram, first: str
) -> None:
    server.media[video().url] = ("video", 21 * MEGABYTE)
    if first == "posted":
        spoken = await voice.post(to(server), film(), now=NOW)
    else:
        before = await voice.post(to(server), submitted(), now=NOW)
        assert before.reference is not None
        spoken = await voice.edit(to(server), before.reference, film(), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    assert only(server).media is None
    assert f'<a href="{video().url}">Video</a>' in only(server).html
    assert spoken.reference is not None
    assert spoken.reference["media"] is None


async def test_a_message_that_somebody_deleted_is_written_anew(voice: Telegram, server: FakeTelegram) -> None:
    reference = {"chat": str(PERSON), "message": 1, "media": None}
    spoken = await voice.edit(to(server), reference, submitted(), now=NOW)
    assert spoken.reference == {"chat": str(PERSON), "message": only(server).id, "media": None}


async def test_a_topic_of_a_forum_is_answered_there(voice: Telegram, server: FakeTelegram) -> None:
    topic = {"message_thread_id": 55, "is_topic_message": True}
    heard = said(voice, server, "/kling image a", chat=SUPERGROUP, **topic)
    place = Destination(config={"server": server.url}, secrets=SECRETS, address=heard.address, asked_at=NOW)
    await voice.post(place, submitted(), now=NOW)
    assert only(server).sent["message_thread_id"] == 55
    thread = said(voice, server, "/kling image a", chat=SUPERGROUP, message_thread_id=55)
    assert "thread" not in thread.address


async def test_a_group_that_became_a_supergroup_is_found_again(voice: Telegram, server: FakeTelegram) -> None:
    first = await voice.post(to(server, GROUP), submitted(), now=NOW)
    assert first.reference is not None
    server.migrated[GROUP] = SUPERGROUP
    # The supergroup has messages of its own under the same numbers.
    server.shown[SUPERGROUP, first.reference["message"]] = Shown(
        first.reference["message"], SUPERGROUP, "other"
    )
    second = await voice.edit(to(server, GROUP), first.reference, submitted(), now=NOW)
    assert outcome(second.reply) is AttemptOutcome.DELIVERED
    assert second.reference is not None
    assert second.reference["chat"] == str(SUPERGROUP)
    number = len(server.requests)
    third = await voice.post(own(server), submitted(), now=NOW)
    assert (third.reference or {})["chat"] == str(SUPERGROUP)
    assert len(server.requests) == number + 1  # the old id is not tried again
    again = await voice.edit(to(server, GROUP), first.reference, submitted(), now=NOW)
    assert outcome(again.reply) is AttemptOutcome.DELIVERED
    assert server.shown[SUPERGROUP, first.reference["message"]].text == "other"


async def test_an_endpoint_of_ones_own_speaks_in_its_chat(voice: Telegram, server: FakeTelegram) -> None:
    spoken = await voice.post(own(server, SUPERGROUP, message_thread_id=3), submitted(), now=NOW)
    assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
    assert only(server).sent["message_thread_id"] == 3
    assert "reply_parameters" not in only(server).sent


async def test_long_words_stay_within_telegrams_limits(voice: Telegram, server: FakeTelegram) -> None:
    server.fetches_everything = True
    outputs = [picture(number) for number in range(9)]
    error = TaskError("<" * 900, "😀" * 5000)
    event = event_of(EventType.TASK_FAILED, outputs=outputs, error=error, external_task_id="&" * 5000)
    long = card(event, prompt="😀" * 9000, asked_by=ADA, buttons=BUTTONS)
    for number, fetches in enumerate((True, False), start=1):
        server.fetches_everything = fetches
        spoken = await voice.post(to(server), long, now=NOW)
        assert outcome(spoken.reply) is AttemptOutcome.DELIVERED
        assert len(server.shown) == number
    with_picture, as_text = server.shown.values()
    assert (with_picture.media is not None, as_text.media is None) == (True, True)
    assert all(f"Picture {number}" in with_picture.text for number in range(1, 10))


async def test_nothing_of_a_prompt_is_markup(voice: Telegram, server: FakeTelegram) -> None:
    prompt = '<a href="https://evil.example">free</a> & </blockquote> &lt;'
    await voice.post(to(server), card(event_of(EventType.TASK_SUBMITTED), prompt=prompt), now=NOW)
    assert prompt in only(server).text.splitlines()


async def test_telegrams_haste_is_obeyed(voice: Telegram, server: FakeTelegram) -> None:
    server.refusals.append(Refusal(429, "Too Many Requests: retry after 17", retry_after=17))
    reply = (await voice.post(to(server), submitted(), now=NOW)).reply
    found = result(reply, attempt=1, now=NOW, jitter=0)
    assert (found.outcome, found.next_attempt_at) == (AttemptOutcome.RETRY, NOW + timedelta(seconds=17))


@pytest.mark.parametrize(
    ("refusal", "of_a_command", "of_ones_own"),
    [
        (Refusal(403, "Forbidden: bot was blocked by the user"), AttemptOutcome.DEAD, AttemptOutcome.GONE),
        (Refusal(400, "Bad Request: chat not found"), AttemptOutcome.DEAD, AttemptOutcome.DEAD),
        (Refusal(401, "Unauthorized"), AttemptOutcome.DEAD, AttemptOutcome.DEAD),
        (Refusal(500, "Internal Server Error"), AttemptOutcome.RETRY, AttemptOutcome.RETRY),
    ],
)
async def test_a_refusal_is_judged(
    voice: Telegram,
    server: FakeTelegram,
    refusal: Refusal,
    of_a_command: AttemptOutcome,
    of_ones_own: AttemptOutcome,
) -> None:
    for place, wanted in ((to(server), of_a_command), (own(server), of_ones_own)):
        server.refusals.append(refusal)
        assert outcome((await voice.post(place, submitted(), now=NOW)).reply) is wanted


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (200, '{"ok": false, "error_code": 403, "description": "Forbidden"}', AttemptOutcome.GONE),
        (200, "welcome to the hotel", AttemptOutcome.RETRY),
        (502, "<html>", AttemptOutcome.RETRY),
    ],
)
async def test_a_200_is_not_believed_by_itself(
    voice: Telegram, server: FakeTelegram, status: int, body: str, wanted: AttemptOutcome
) -> None:
    server.answers(status, body)
    assert outcome((await voice.post(own(server), submitted(), now=NOW)).reply) is wanted


@pytest.mark.parametrize("code", ["0", "-1", "true", "99", "600", str(2**31), str(2**63), "9" * 4000])
async def test_a_code_that_is_no_status_is_not_taken_for_one(
    voice: Telegram, server: FakeTelegram, code: str
) -> None:
    """No database would keep every number."""
    server.answers(200, f'{{"ok": false, "error_code": {code}, "parameters": {{"migrate_to_chat_id": 5}}}}')
    reply = (await voice.post(own(server), submitted(), now=NOW)).reply
    assert (reply.status_code, outcome(reply)) == (200, AttemptOutcome.RETRY)


async def test_no_token_comes_back_in_an_excerpt(voice: Telegram, server: FakeTelegram) -> None:
    server.answers(500, f"/bot{TOKEN}/sendMessage failed")
    reply = (await voice.post(to(server), submitted(), now=NOW)).reply
    assert "failed" in reply.excerpt
    assert TOKEN not in reply.excerpt + reply.reason


# Pictures


async def fetch(voice: Telegram, server: FakeTelegram, **picture: Any) -> str:
    return await voice.fetch(picture, config={"server": server.url}, secrets=SECRETS)


async def test_a_picture_is_fetched_and_its_address_told_to_nobody(
    voice: Telegram, server: FakeTelegram
) -> None:
    server.files["a.png"] = b"\x89PNG"
    assert base64.b64decode(await fetch(voice, server, file="x:a.png", size=4)) == b"\x89PNG"


@pytest.mark.parametrize(
    ("picture", "reason", "may_come"),
    [
        ({"file": "x:a.png", "size": 11 * MEGABYTE}, "larger", False),
        ({"file": "x:large.png", "size": None}, "larger", False),
        ({"file": "x:gone.png", "size": 1}, "wrong file_id", False),
    ],
)
async def test_a_picture_that_cannot_be_had_says_why(
    voice: Telegram, server: FakeTelegram, picture: dict[str, Any], reason: str, may_come: bool
) -> None:
    server.files["large.png"] = b"x" * (10 * MEGABYTE + 1)
    with pytest.raises(NotFetched, match=reason) as caught:
        await fetch(voice, server, **picture)
    assert caught.value.may_come is may_come
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/var/lib/a.png", "a.png?x=1", "a/../b", "", "a b"])
async def test_a_path_that_leads_elsewhere_is_not_followed(
    voice: Telegram, server: FakeTelegram, path: str
) -> None:
    server.answers(200, json.dumps({"ok": True, "result": {"file_id": "1", "file_path": path}}))
    with pytest.raises(NotFetched):
        await fetch(voice, server, file="1")
    assert len(server.requests) == 1


async def test_a_server_in_trouble_may_give_it_later(voice: Telegram, server: FakeTelegram) -> None:
    server.answers(502, "<html>")
    with pytest.raises(NotFetched) as caught:
        await fetch(voice, server, file="x:a.png")
    assert caught.value.may_come


# Configuration


def test_a_server_that_is_not_dialled_is_a_fault(voice: Telegram) -> None:
    bot = TelegramBot(token=TOKEN, username=USERNAME, server="http://10.0.0.1:8081")
    assert [fault.pointer for fault in voice.faults(bot, pointer="#/config")] == ["#/config/server"]
    assert voice.faults(TelegramBot(token=TOKEN, username=USERNAME), pointer="#") == []


def test_the_commands_are_such_as_telegram_takes(server: FakeTelegram) -> None:
    assert server.call("setMyCommands", {"commands": commands()})
