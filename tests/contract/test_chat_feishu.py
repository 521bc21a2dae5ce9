"""Feishu, against a tenant that refuses what Feishu refuses, with its own SDK hearing what we hear."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from handlers.chat.configuration import configured
from handlers.chat.feishu import FEISHU, LARK, Feishu
from handlers.chat.grammar import Ask, Usage, help_text, parse
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
from handlers.messages import message_of
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.events import Event, EventType
from service.domain.faults import InvalidFields
from service.domain.tasks import TaskError
from service.domain.values import replace
from service.network.dialler import Guard, open_dialler
from tests.contract.push_services import LOOPBACK, NOW, TASK, VAULT, event_of, picture, video
from tests.fakes.feishu import (
    APP,
    APP_SECRET,
    DIRECT,
    ELSEWHERE,
    ENCRYPT,
    GROUP,
    HOOK,
    STRANGER,
    TENANT,
    USER,
    VERIFICATION,
    WEBHOOK_SECRET,
    FakeFeishu,
    Shown,
    buttons,
    encrypted,
    images,
    signed,
    texts,
)
from tests.integration.klingel import png

SUBMITTED, SUCCEEDED = EventType.TASK_SUBMITTED, EventType.TASK_SUCCEEDED
ADA = Person(workspace=TENANT, chat=GROUP, user=USER, name=USER)
SECRETS = {"app_secret": APP_SECRET, "verification_token": VERIFICATION, "encrypt_key": ENCRYPT}
SDK = Path(__file__).with_name("feishu_sdk.py")


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FakeFeishu]:
    server = FakeFeishu()
    async with server.running():
        yield server


@pytest.fixture
async def platform(anyio_backend: str) -> AsyncIterator[Feishu]:
    async with open_dialler(LOOPBACK) as dialler:
        yield Feishu(dialler)


def hear(platform: Feishu, headers: Mapping[str, str], body: bytes, **secrets: str | None) -> Any:
    given = {name: value for name, value in {**SECRETS, **secrets}.items() if value is not None}
    request = Inbound(method="POST", headers=headers, query={}, body=body)
    return platform.hear(request, config={"app_id": APP}, secrets=given, now=NOW)


def heard(platform: Feishu, server: FakeFeishu, event: Mapping[str, Any]) -> Any:
    return hear(platform, *server.sent(dict(event)))


def asked(platform: Feishu, server: FakeFeishu, event: Mapping[str, Any] | None = None) -> Destination:
    """Where a command came from."""
    said = heard(platform, server, event or server.message("image a cat"))
    config = {"server": server.url, "app_id": APP}
    return Destination(config=config, secrets=SECRETS, address=said.address, asked_at=NOW)


def own(server: FakeFeishu, **config: Any) -> Destination:
    """An endpoint of one's own; of an app, unless it says otherwise."""
    given = config or {"app_id": APP, "app_secret": APP_SECRET, "chat_id": GROUP}
    secrets = {name: given[name] for name in ("webhook_url", "secret", "app_secret") if name in given}
    return Destination(config={"server": server.url, **given}, secrets=secrets)


def hooked(server: FakeFeishu, **more: str) -> Destination:
    return own(server, webhook_url=server.url + HOOK, **more)


def made(server: FakeFeishu, number: int = 1) -> list[Any]:
    """Pictures that can be downloaded."""
    server.pictures |= {f"/{n}.png": png(n) for n in range(number)}
    return [replace(picture(n), url=f"{server.url}/{n}.png") for n in range(number)]


def card(
    type: EventType = SUCCEEDED, *, prompt: str = "a cat in a hat", event: Event | None = None, **more: Any
) -> Card:
    told = message_of(event or event_of(type, makes="image", **more))
    again = Button(label="Again", press=Press.AGAIN, task_id=TASK)
    return Card(message=told, prompt=prompt, asked_by=ADA, buttons=[again] if told.is_final else ())


def outcome(reply: Reply) -> tuple[AttemptOutcome, timedelta | None]:
    found = result(reply, attempt=1, now=NOW, jitter=0)
    return found.outcome, None if found.next_attempt_at is None else found.next_attempt_at - NOW


async def told(platform: Feishu, to: Destination, *cards: Card) -> Spoken:
    """One after the other, as the sink does."""
    spoken = await platform.post(to, cards[0], now=NOW)
    for one in cards[1:]:
        assert outcome(spoken.reply)[0] is AttemptOutcome.DELIVERED, spoken
        assert spoken.reference is not None
        spoken = await platform.edit(to, spoken.reference, one, now=NOW)
    return spoken


def only(server: FakeFeishu) -> Shown:
    [shown] = server.shown.values()
    return shown


# What comes in


@pytest.mark.timeout(300)
async def test_what_is_heard_is_what_feishus_own_library_hears(platform: Feishu, server: FakeFeishu) -> None:
    """Encrypted and signed; and what it does not take we do not take."""
    message = server.message("image a cat", pictures={"img_v3_1": png(), "img_v3_2": png()})
    await told(platform, asked(platform, server), card(outputs=made(server)))
    press = server.press(next(iter(server.shown)), "Again")
    check = {"type": "url_verification", "challenge": "ajls384kdjx98XX", "token": VERIFICATION}
    right = [server.sent(message), server.sent(press), server.sent(check)]
    headers, body = right[0]
    wrong = [
        (headers, body[:20] + bytes([body[20] ^ 1]) + body[21:]),
        (headers | {"x-lark-signature": headers["x-lark-signature"][::-1]}, body),
        (headers | {"x-lark-request-nonce": "1628671235"}, body),
        server.sent({**message, "header": {**message["header"], "token": VERIFICATION[::-1]}}),
        server.sent({**check, "token": VERIFICATION[::-1]}),
    ]
    lines = [
        json.dumps({"headers": headers, "body": base64.b64encode(body).decode()})
        for headers, body in right + wrong
    ]
    command = [sys.executable, str(SDK), ENCRYPT, VERIFICATION]
    library = await anyio.run_process(command, input="\n".join(lines).encode(), stderr=None)
    answers = [json.loads(line) for line in library.stdout.splitlines()]

    assert [one["status"] for one in answers] == [200] * 3 + [500] * 5
    said, pressed, checked = (hear(platform, *one) for one in right)
    theirs = answers[0]["event"]
    assert said.address["message"] == theirs["message"]["message_id"]
    assert said.person.user == theirs["sender"]["sender_id"]["open_id"]
    assert pressed.task_id == answers[1]["event"]["action"]["value"]["task"]
    assert json.loads(checked.body) == json.loads(answers[2]["said"])
    for one in wrong:
        with pytest.raises(Forged):
            hear(platform, *one)


async def test_a_message_with_pictures_is_heard_with_who_said_it(
    platform: Feishu, server: FakeFeishu
) -> None:
    message = server.message("image a cat &amp; a dog n=2", pictures={"img_v3_1": png(), "img_v3_2": png()})
    said = heard(platform, server, message)
    assert isinstance(said, Said)
    assert said.person == ADA
    assert said.key == "message:om_x100b5f6a1c"
    assert said.address == {"message": "om_x100b5f6a1c", "chat": GROUP, "in_thread": False}
    assert [one["image"] for one in said.pictures] == ["img_v3_1", "img_v3_2"]
    parsed = parse(said.text)
    assert isinstance(parsed, Ask)
    assert (parsed.prompt, parsed.options) == ("a cat &amp; a dog", {"n": 2})


@pytest.mark.parametrize(
    ("content", "prompt", "urls"),
    [
        ("@_user_1 image a cat", "a cat", []),
        ("image @_user_1 a cat", "a cat", []),
        ("@_user_1 image a cat for @_user_2", "a cat for @Grace", []),
        (
            "@_user_1 image a cat [the cat](http://example.com/1.png) [x](https://example.com/2.png)",
            "a cat",
            ["http://example.com/1.png", "https://example.com/2.png"],
        ),
        ("@_user_1 image\na cat\nin a hat", "a cat in a hat", []),
        ("@_user_10 image a cat", "a cat", []),
    ],
)
async def test_a_text_is_read_as_it_was_typed(
    platform: Feishu, server: FakeFeishu, content: str, prompt: str, urls: list[str]
) -> None:
    message = server.message("")
    [bot] = message["event"]["message"]["mentions"]
    grace = bot | {"key": "@_user_2", "name": "Grace", "mentioned_type": "user"}
    message["event"]["message"] |= {"content": json.dumps({"text": content}), "mentions": [bot, grace]}
    parsed = parse(heard(platform, server, message).text)
    assert isinstance(parsed, Ask)
    assert (parsed.prompt, parsed.urls) == (prompt, urls)


async def test_a_post_of_another_shape_is_read_as_well(platform: Feishu, server: FakeFeishu) -> None:
    """By language, with a title, with links, and with what it does not know."""
    link = {"tag": "a", "text": "a hat", "href": "https://example.com/hat.png"}
    odd: list[Any] = [
        "?",
        {"tag": "img"},
        {"tag": "img", "image_key": 7},
        {"tag": "emotion", "emoji_type": "OK"},
    ]
    post = {"zh_cn": {"title": "image", "content": [[{"tag": "text", "text": "a cat"}, link], odd, "?"]}}
    message = server.message("", chat=DIRECT, message_type="post", content=json.dumps(post))
    said = heard(platform, server, message)
    parsed = parse(said.text)
    assert isinstance(parsed, Ask)
    assert (parsed.prompt, parsed.urls, said.pictures) == ("a cat", ["https://example.com/hat.png"], [])


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("image", {"image_key": "img_1"}),
        ("sticker", {"file_key": "f"}),
        ("text", {}),
        ("post", {"content": 7}),
    ],
)
async def test_what_has_no_words_is_answered_with_help(
    platform: Feishu, server: FakeFeishu, kind: str, content: Any
) -> None:
    message = server.message("", chat=DIRECT, message_type=kind, content=json.dumps(content))
    assert parse(heard(platform, server, message).text) == Usage(help_text())


async def test_what_is_not_said_to_the_bot_is_not_heard(platform: Feishu, server: FakeFeishu) -> None:
    """An app may be told of everything that is said in a group."""
    unnamed = server.message("image a cat", mentions=[])
    other = server.message("image a cat")
    other["event"]["message"]["mentions"][0]["mentioned_type"] = "user"
    everybody = server.message("image a cat")
    everybody["event"]["message"]["mentions"] = [{"key": "@_all", "id": {}, "name": "all"}]
    by_bot = server.message("image a cat")
    by_bot["event"]["sender"]["sender_type"] = "app"
    for event in (unnamed, other, everybody, by_bot, server.event("im.chat.updated_v1", {})):
        assert isinstance(heard(platform, server, event), Answer)
    older = server.message("image a cat")
    del older["event"]["message"]["mentions"][0]["mentioned_type"]
    assert isinstance(heard(platform, server, older), Said)


async def test_the_check_of_the_url_is_answered_though_it_is_not_signed(
    platform: Feishu, server: FakeFeishu
) -> None:
    check = {"challenge": "ajls384kdjx98XX", "token": VERIFICATION, "type": "url_verification"}
    body = json.dumps({"encrypt": encrypted(json.dumps(check).encode(), ENCRYPT)}).encode()
    answer = hear(platform, {}, body)
    assert json.loads(answer.body) == {"challenge": "ajls384kdjx98XX"}
    assert json.loads(hear(platform, {}, json.dumps(check).encode(), encrypt_key=None).body) == {
        "challenge": "ajls384kdjx98XX"
    }
    with pytest.raises(Forged):  # with a key, nothing goes in the open
        hear(platform, {}, json.dumps(check).encode())


async def test_what_feishu_did_not_send_is_forged(platform: Feishu, server: FakeFeishu) -> None:
    event = server.message("image a cat")
    headers, body = server.sent(event)
    plain = json.dumps(event).encode()
    unsigned = {"content-type": "application/json"}
    for given, sent in (
        (unsigned, body),  # encrypted, but not signed
        (unsigned, plain),
        (signed(plain, ENCRYPT), plain),  # signed, but not encrypted
        (signed(body, "another-key"), body),
        (headers | {"x-lark-signature": ""}, body),
        (headers | {"x-lark-signature": "ü"}, body),
        (headers | {"x-lark-request-timestamp": ""}, body),
        (headers | {"x-lark-request-timestamp": "now"}, body),
        (headers | {"x-lark-request-timestamp": "１６０８７２５９８９"}, body),
        (headers | {"x-lark-request-timestamp": "9" * 400}, body),
        *((signed(sent, ENCRYPT), sent) for sent in BROKEN),
        server.sent({**event, "header": {**event["header"], "app_id": "cli_another"}}),
        server.sent({**event, "header": {**event["header"], "token": None}}),
        server.sent({**event, "header": None}),
        server.sent({**event, "header": {**event["header"], "token": "ü"}}),
    ):
        with pytest.raises(Forged):
            hear(platform, given, sent)


BROKEN = [
    b"", b"[]", b"{", b"\xff\xfe", b'{"encrypt": 7}', b'{"encrypt": "?"}', b'{"encrypt": ""}',
    b'{"encrypt": "AAAA"}', b'{"encrypt": "' + base64.b64encode(b"x" * 16) + b'"}',
    b'{"encrypt": "' + base64.b64encode(b"x" * 32) + b'"}', b'{"encrypt": "' + base64.b64encode(b"x" * 33) + b'"}',
    b'{"encrypt": "' + encrypted(b"[]", ENCRYPT).encode() + b'"}',
]  # fmt: skip


@pytest.mark.parametrize(("hours", "is_heard"), [(-9, False), (-7, True), (0, True), (7, True), (9, False)])
async def test_what_is_sent_again_for_hours_is_heard_and_nothing_older(
    platform: Feishu, server: FakeFeishu, hours: int, is_heard: bool
) -> None:
    sent = server.sent(server.message("image a cat"), now=NOW + timedelta(hours=hours))
    if is_heard:
        assert isinstance(hear(platform, *sent), Said)
    else:
        with pytest.raises(Forged):
            hear(platform, *sent)


async def test_without_an_encrypt_key_the_token_proves_it(platform: Feishu, server: FakeFeishu) -> None:
    server.encrypt_key = None
    sent = server.sent(server.message("image a cat"))
    assert isinstance(hear(platform, *sent, encrypt_key=None), Said)
    with pytest.raises(Forged):
        hear(platform, *sent, encrypt_key=None, verification_token="another-token")


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": "../../auth"},
        {"message_id": None},
        {"chat_id": None},
        {"content": None},
        {"mentions": 7},
    ],
)
async def test_a_signed_event_of_another_shape_is_refused(
    platform: Feishu, server: FakeFeishu, changes: dict[str, Any]
) -> None:
    event = server.message("image a cat")
    event["event"]["message"] |= changes
    assert heard(platform, server, event).status == 400


async def test_the_same_message_is_the_same_command(platform: Feishu, server: FakeFeishu) -> None:
    first = heard(platform, server, server.message("image a cat"))
    again = heard(platform, server, server.message("image a cat", event_id="another"))
    assert first.key == again.key


async def test_a_button_is_heard_and_answered_to_who_pressed(platform: Feishu, server: FakeFeishu) -> None:
    await told(platform, asked(platform, server), card())
    [id] = server.shown
    pressed = heard(platform, server, server.press(id, "Again", user=STRANGER))
    assert isinstance(pressed, Pressed)
    assert pressed.person == Person(workspace=TENANT, chat=GROUP, user=STRANGER, name=STRANGER)
    assert (pressed.press, pressed.task_id) == (Press.AGAIN, TASK)
    assert pressed.address == {"message": id, "chat": GROUP, "in_thread": False}
    answer = platform.answer(pressed, "Sorry, " + "x" * 500)
    assert answer is not None
    toast = json.loads(answer.body)["toast"]
    assert (toast["type"], len(toast["content"])) == ("info", 200)
    again = server.press(id, "Again")
    again["event"]["action"]["value"] = {"press": "never", "task": TASK}
    assert isinstance(heard(platform, server, again), Answer)


async def test_a_message_is_answered_with_a_card_after_it(platform: Feishu, server: FakeFeishu) -> None:
    """Its HTTP answer reaches nobody."""
    said = heard(platform, server, server.message("what?"))
    assert platform.answer(said, "I do not know that.") is None
    quiet = platform.answer(said, None)
    assert quiet is not None
    assert quiet.body == b"{}"
    words = 'I do not know “<at user_id="all">everyone</at> **what**”.\n' + "help\n" * 4000
    reply = await platform.tell(asked(platform, server), words, now=NOW)
    assert outcome(reply)[0] is AttemptOutcome.DELIVERED
    shown = only(server)
    assert shown.answers == "om_x100b5f6a1c"
    assert texts(shown.card)[0].startswith('I do not know “<at user_id="all">everyone</at> **what**”.\nhelp')


# Pictures that come in


async def test_an_attached_picture_is_fetched(platform: Feishu, server: FakeFeishu) -> None:
    said = heard(
        platform, server, server.message("image a cat", pictures={"img_v3_1": png(1), "img_v3_2": png(2)})
    )
    config = {"server": server.url, "app_id": APP}
    fetched = [await platform.fetch(one, config=config, secrets=SECRETS) for one in said.pictures]
    assert [base64.b64decode(one) for one in fetched] == [png(1), png(2)]
    assert server.given == 1


async def test_a_picture_that_cannot_be_had_is_told_of(platform: Feishu, server: FakeFeishu) -> None:
    said = heard(platform, server, server.message("image a cat", pictures={"img_v3_1": png()}))
    [attached] = said.pictures
    config = {"server": server.url, "app_id": APP}
    for missing in (
        {**attached, "image": "img_v3_2"},
        {**attached, "image": "../x"},
        {**attached, "message": "om_/../../x"},
    ):
        with pytest.raises(NotFetched) as refused:
            await platform.fetch(missing, config=config, secrets=SECRETS)
        assert not refused.value.may_come
    with pytest.raises(NotFetched, match="does not let me in") as refused:
        await platform.fetch(attached, config={"server": server.url, "app_id": "cli_other"}, secrets=SECRETS)
    assert not refused.value.may_come
    server.files[attached["message"], attached["image"]] = b'{"code": 99991672, "msg": "Access denied"}'
    with pytest.raises(NotFetched, match="permission"):
        await platform.fetch(attached, config=config, secrets=SECRETS)


async def test_pictures_that_come_together_need_one_token(platform: Feishu, server: FakeFeishu) -> None:
    """Also where it has ended before its time."""
    pictures = {f"img_v3_{n}": png(n) for n in range(4)}
    said = heard(platform, server, server.message("image a cat", pictures=pictures))
    config = {"server": server.url, "app_id": APP}

    async def fetched() -> list[bytes]:
        got = await asyncio.gather(
            *(platform.fetch(one, config=config, secrets=SECRETS) for one in said.pictures)
        )
        return [base64.b64decode(one) for one in got]

    assert await fetched() == list(pictures.values())
    assert server.given == 1
    server.ends_token()
    assert await fetched() == list(pictures.values())
    assert server.given == 2


# What goes out


async def test_one_card_follows_the_task_to_its_picture(platform: Feishu, server: FakeFeishu) -> None:
    submitted = card(SUBMITTED)
    finished = card(outputs=made(server, 2))
    await told(platform, asked(platform, server), submitted, finished)
    shown = only(server)
    assert (shown.chat, shown.answers, shown.in_thread) == (GROUP, "om_x100b5f6a1c", False)
    assert len(shown.history) == 2
    first, last = shown.history
    assert first["header"]["template"] == "blue"
    assert (last["header"]["template"], last["header"]["title"]["content"]) == ("green", "2 pictures ready")
    assert "a cat in a hat" in texts(last)
    [image] = images(last)
    assert server.uploaded[image["img_key"]] == png(0)
    assert [one["text"]["content"] for one in buttons(last)] == ["Open picture 1", "Open picture 2", "Again"]
    assert buttons(last)[0]["behaviors"][0]["default_url"] == f"{server.url}/0.png"
    assert server.given == 1


async def test_in_a_thread_it_is_answered_there(platform: Feishu, server: FakeFeishu) -> None:
    to = asked(platform, server, server.message("image a cat", thread_id="omt_d4be107c616a"))
    await told(platform, to, card(SUBMITTED))
    assert only(server).in_thread


async def test_an_endpoint_of_an_app_is_a_card_in_its_chat(platform: Feishu, server: FakeFeishu) -> None:
    await told(platform, own(server), card(SUBMITTED), card(outputs=made(server)))
    shown = only(server)
    assert (shown.chat, shown.answers, len(shown.history)) == (GROUP, None, 2)


async def test_what_is_shown_is_uploaded_once(platform: Feishu, server: FakeFeishu) -> None:
    outputs = made(server)
    await told(platform, own(server), card(outputs=outputs), card(outputs=outputs, prompt="another"))
    assert len(server.uploaded) == 1


async def test_another_attempt_is_not_another_card(platform: Feishu, server: FakeFeishu) -> None:
    """The answer to the first may have been lost."""
    to = asked(platform, server)
    first = await platform.post(to, card(SUBMITTED), now=NOW)
    again = await platform.post(to, card(SUBMITTED), now=NOW)
    assert first.reference == again.reference
    assert len(server.shown) == 1
    server.members.add(ELSEWHERE)
    chats = [own(server, app_id=APP, app_secret=APP_SECRET, chat_id=chat) for chat in (GROUP, ELSEWHERE)]
    for chat in chats:
        await platform.post(chat, card(SUBMITTED), now=NOW)
    assert len(server.shown) == 3


async def test_a_picture_that_cannot_be_uploaded_holds_nothing_up(
    platform: Feishu, server: FakeFeishu
) -> None:
    """It is left out; the link stays."""
    outputs = made(server)
    server.pictures["/0.png"] = b"<html>gone</html>"
    await told(platform, own(server), card(outputs=outputs))
    assert images(only(server).card) == []
    assert buttons(only(server).card)[0]["behaviors"][0]["default_url"] == outputs[0].url


async def test_a_key_that_is_refused_is_not_used_again(platform: Feishu, server: FakeFeishu) -> None:
    outputs = made(server)
    await told(platform, own(server), card(outputs=outputs))
    server.refused_keys = set(server.uploaded)
    await told(platform, own(server), card(outputs=outputs, prompt="another"))
    assert images(list(server.shown.values())[-1].card) == []
    await told(platform, own(server), card(outputs=outputs, prompt="a third"))
    assert len(server.uploaded) == 2
    assert images(list(server.shown.values())[-1].card) != []


@pytest.mark.parametrize("lost", ["recalled", "old"])
async def test_what_cannot_be_edited_is_said_anew_once_it_matters(
    platform: Feishu, server: FakeFeishu, lost: str
) -> None:
    to = asked(platform, server)
    spoken = await told(platform, to, card(SUBMITTED))
    assert spoken.reference is not None
    if lost == "recalled":
        only(server).recalled = True
    else:
        server.now += timedelta(days=15)
    quiet = await platform.edit(to, spoken.reference, card(EventType.TASK_PROCESSING), now=NOW)
    assert (outcome(quiet.reply)[0], len(server.shown)) == (AttemptOutcome.DELIVERED, 1)
    loud = await platform.edit(to, spoken.reference, card(outputs=made(server)), now=NOW)
    assert outcome(loud.reply)[0] is AttemptOutcome.DELIVERED
    assert loud.reference != spoken.reference
    assert len(server.shown) == 2


async def test_a_question_that_was_recalled_is_answered_in_its_chat(
    platform: Feishu, server: FakeFeishu
) -> None:
    to = asked(platform, server)
    server.said.clear()
    await told(platform, to, card(SUBMITTED))
    assert (only(server).chat, only(server).answers) == (GROUP, None)


async def test_a_token_that_ended_early_is_asked_for_anew(platform: Feishu, server: FakeFeishu) -> None:
    to = asked(platform, server)
    spoken = await told(platform, to, card(SUBMITTED))
    server.ends_token()
    assert spoken.reference is not None
    again = await platform.edit(to, spoken.reference, card(outputs=made(server)), now=NOW)
    assert outcome(again.reply)[0] is AttemptOutcome.DELIVERED
    assert server.given == 2
    later = await platform.post(to, card(SUBMITTED, prompt="later"), now=NOW + timedelta(hours=2))
    assert outcome(later.reply)[0] is AttemptOutcome.DELIVERED
    assert server.given == 3


async def test_a_wrong_secret_is_no_reason_to_try_again(platform: Feishu, server: FakeFeishu) -> None:
    to = own(server, app_id=APP, app_secret="another-secret", chat_id=GROUP)
    spoken = await platform.post(to, card(SUBMITTED), now=NOW)
    assert outcome(spoken.reply) == (AttemptOutcome.DEAD, None)
    assert "10014" in spoken.reply.reason


async def test_a_chat_without_the_bot_is_told_of(platform: Feishu, server: FakeFeishu) -> None:
    server.members.clear()
    spoken = await platform.post(own(server), card(SUBMITTED), now=NOW)
    assert outcome(spoken.reply) == (AttemptOutcome.DEAD, None)
    assert "not in that chat" in spoken.reply.reason


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (400, '{"code": 230020, "msg": "frequency limit"}', {}, (AttemptOutcome.RETRY, 10)),
        (
            429,
            '{"code": 99991400, "msg": "too many"}',
            {"x-ogw-ratelimit-reset": "42"},
            (AttemptOutcome.RETRY, 42),
        ),
        (
            400,
            '{"code": 99991400, "msg": "too many"}',
            {"x-ogw-ratelimit-reset": "7"},
            (AttemptOutcome.RETRY, 7),
        ),
        (429, "", {"retry-after": "30"}, (AttemptOutcome.RETRY, 30)),
        (500, '{"code": 230000, "msg": "oops"}', {}, (AttemptOutcome.RETRY, 5)),
        (502, "<html>Bad gateway</html>", {}, (AttemptOutcome.RETRY, 5)),
        (200, '{"code": 5, "msg": "who knows"}', {}, (AttemptOutcome.RETRY, 5)),
        (200, "<html>Log in</html>", {}, (AttemptOutcome.RETRY, 5)),
        (200, '{"code": "0"}', {}, (AttemptOutcome.RETRY, 5)),
        (200, "[]", {}, (AttemptOutcome.RETRY, 5)),
        (400, '{"code": 230099, "msg": "card"}', {}, (AttemptOutcome.DEAD, None)),
        (400, '{"code": 987654, "msg": "who knows"}', {}, (AttemptOutcome.DEAD, None)),
        (403, "", {}, (AttemptOutcome.DEAD, None)),
    ],
)
async def test_how_an_answer_is_judged(
    platform: Feishu,
    server: FakeFeishu,
    status: int,
    body: str,
    headers: dict[str, str],
    expected: tuple[AttemptOutcome, int | None],
) -> None:
    """200 for refusals, and 400 for what may be taken later."""
    await told(platform, own(server), card(SUBMITTED))  # it has a token
    server.answers(status, body, **headers)
    spoken = await platform.post(own(server), card(SUBMITTED, prompt="another"), now=NOW)
    wait = None if expected[1] is None else timedelta(seconds=expected[1])
    assert outcome(spoken.reply) == (expected[0], wait)


async def test_no_secret_stands_in_what_is_kept_of_an_answer(platform: Feishu, server: FakeFeishu) -> None:
    token = '{"code": 0, "tenant_access_token": "t-secret", "expire": "?"}'
    server.answers(200, token)
    spoken = await platform.post(own(server), card(SUBMITTED), now=NOW)
    assert outcome(spoken.reply)[0] is AttemptOutcome.RETRY
    assert "t-secret" not in repr(spoken)
    await told(platform, own(server), card(SUBMITTED))
    server.answers(400, f'{{"code": 230001, "msg": "{server.good_token} {APP_SECRET}"}}')
    spoken = await platform.post(own(server), card(SUBMITTED, prompt="another"), now=NOW)
    assert server.good_token not in repr(spoken)
    assert APP_SECRET not in repr(spoken)
    server.answers(200, f'{{"code": 19024, "msg": "{HOOK} {WEBHOOK_SECRET}"}}')
    spoken = await platform.post(hooked(server, secret=WEBHOOK_SECRET), card(), now=NOW)
    assert HOOK.rpartition("/")[2] not in repr(spoken)
    assert WEBHOOK_SECRET not in repr(spoken)


async def test_a_text_without_end_is_cut_to_what_a_card_takes(platform: Feishu, server: FakeFeishu) -> None:
    """Twenty thousand bytes for a custom bot; escapes count, and the fake counts them."""
    error = TaskError("1301", '"\\\u202e' * 3000)
    long = card(
        event=event_of(EventType.TASK_FAILED, error=error, external_task_id="é\\" * 2500),
        prompt='"图\\' * 3000,
    )
    url = "http://example.com/" + "x" * 1900
    wide = [replace(picture(n), url=f"{url}{n}.png") for n in range(9)]
    for one in (long, card(prompt='"图\\' * 3000, outputs=wide)):
        for to in (own(server), hooked(server)):
            spoken = await platform.post(to, replace(one, buttons=()), now=NOW)
            assert outcome(spoken.reply)[0] is AttemptOutcome.DELIVERED, spoken
    assert len(server.hooked) == 2


async def test_nothing_that_others_wrote_is_markup(platform: Feishu, server: FakeFeishu) -> None:
    """The fake takes plain text alone."""
    evil = "<at id=all></at> [here](http://evil.example) **b** `c`"
    await told(platform, own(server), card(prompt=evil))
    assert evil in texts(only(server).card)


# A group's custom bot


async def test_a_custom_bot_says_how_it_ended(platform: Feishu, server: FakeFeishu) -> None:
    to = hooked(server)
    assert not platform.can_edit(to)
    spoken = await platform.post(to, replace(card(outputs=made(server)), buttons=()), now=NOW)
    assert outcome(spoken.reply)[0] is AttemptOutcome.DELIVERED
    assert spoken.reference is None
    [shown] = server.hooked
    assert images(shown) == []  # nobody can upload it
    assert buttons(shown)[0]["behaviors"][0]["default_url"] == f"{server.url}/0.png"


async def test_an_app_uploads_the_pictures_of_a_custom_bot(platform: Feishu, server: FakeFeishu) -> None:
    to = hooked(server, app_id=APP, app_secret=APP_SECRET)
    await platform.post(to, replace(card(outputs=made(server)), buttons=()), now=NOW)
    [shown] = server.hooked
    [image] = images(shown)
    assert server.uploaded[image["img_key"]] == png(0)
    assert server.shown == {}


async def test_a_custom_bot_that_asks_for_signatures_gets_them(platform: Feishu, server: FakeFeishu) -> None:
    server.webhook_secret = WEBHOOK_SECRET
    one = replace(card(), buttons=())
    signed = await platform.post(hooked(server, secret=WEBHOOK_SECRET), one, now=NOW)
    assert outcome(signed.reply)[0] is AttemptOutcome.DELIVERED
    for to, now in (
        (hooked(server), NOW),
        (hooked(server, secret=WEBHOOK_SECRET[::-1]), NOW),
        (hooked(server, secret=WEBHOOK_SECRET), NOW + timedelta(hours=2)),
    ):
        spoken = await platform.post(to, one, now=now)
        assert outcome(spoken.reply) == (AttemptOutcome.DEAD, None)
        assert "signature" in spoken.reply.reason
    assert len(server.hooked) == 1


async def test_a_webhook_that_is_gone_is_told_no_more(platform: Feishu, server: FakeFeishu) -> None:
    server.answers(200, '{"code": 19001, "msg": "param invalid: incoming webhook access token invalid"}')
    spoken = await platform.post(hooked(server), card(), now=NOW)
    assert outcome(spoken.reply) == (AttemptOutcome.GONE, None)
    server.answers(200, '{"code": 11232, "msg": "frequency limited"}')
    spoken = await platform.post(hooked(server), card(), now=NOW)
    assert outcome(spoken.reply) == (AttemptOutcome.RETRY, timedelta(seconds=10))


# Configurations


def configure(platform: Feishu, config: Mapping[str, Any], *, bot: bool = False) -> Mapping[str, Any]:
    public, _ = configured(
        platform.bot_model if bot else endpoint_model(platform),
        platform.bot_secrets if bot else platform.endpoint_secrets,
        dict(config),
        pointer="#",
        vault=VAULT,
        before=None,
        more_faults=lambda read: platform.faults(read, pointer="#"),
    )
    return public


async def test_configurations_that_are_right_are_shown_without_their_secrets(platform: Feishu) -> None:
    bot = {**SECRETS, "app_id": APP}
    assert configure(platform, bot, bot=True) == {
        "app_id": APP, "server": FEISHU, "app_secret": "••••", "verification_token": "••••", "encrypt_key": "••••",
    }  # fmt: skip
    app = {"app_id": APP, "app_secret": APP_SECRET}
    for right in (
        {**app, "chat_id": GROUP, "server": LARK},
        {"webhook_url": FEISHU + HOOK},
        {"webhook_url": LARK + HOOK, "secret": WEBHOOK_SECRET, **app},
        {"webhook_url": f"http://127.0.0.1:9{HOOK}", "server": "http://127.0.0.1:9"},
    ):
        shown = repr(configure(platform, right))
        assert APP_SECRET not in shown
        assert WEBHOOK_SECRET not in shown
        assert HOOK not in shown


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({}, "#/webhook_url"),
        ({"app_id": APP, "chat_id": GROUP}, "#/app_secret"),
        ({"app_id": APP, "app_secret": APP_SECRET}, "#/chat_id"),
        ({"app_id": "x", "app_secret": APP_SECRET, "chat_id": GROUP}, "#/app_id"),
        ({"app_id": APP, "app_secret": APP_SECRET, "chat_id": GROUP, "secret": WEBHOOK_SECRET}, "#/secret"),
        ({"webhook_url": FEISHU + HOOK, "chat_id": GROUP}, "#/chat_id"),
        ({"webhook_url": "https://evil.example" + HOOK}, "#/webhook_url"),
        ({"webhook_url": "https://open.feishu.cn.evil.example" + HOOK}, "#/webhook_url"),
        ({"webhook_url": FEISHU + "/open-apis/bot/v2/hook/"}, "#/webhook_url"),
        ({"webhook_url": FEISHU + "/other"}, "#/webhook_url"),
        ({"webhook_url": "http://10.0.0.1" + HOOK, "server": "http://10.0.0.1"}, "#/server"),
        ({"webhook_url": FEISHU + HOOK, "server": LARK}, "#/webhook_url"),
        ({"app_id": APP, "app_secret": APP_SECRET, "chat_id": GROUP, "server": FEISHU + "/x"}, "#/server"),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused_by_name(
    platform: Feishu, config: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidFields) as refused:
        configure(platform, config)
    assert pointer in [fault.pointer for fault in refused.value.faults]


async def test_a_private_server_is_not_dialled(server: FakeFeishu, anyio_backend: str) -> None:
    async with open_dialler(Guard()) as dialler:
        to = own(server, app_id=APP, app_secret=APP_SECRET, chat_id=GROUP)
        there = replace(to, config={**to.config, "server": server.url.replace("127.0.0.1", "localhost")})
        spoken = await Feishu(dialler).post(there, card(SUBMITTED), now=NOW)
    assert spoken.reply.reason.startswith("not dialled")
    assert server.requests == []


async def test_a_still_stands_for_a_film(platform: Feishu, server: FakeFeishu) -> None:
    server.pictures["/still.png"] = png(9)
    event = event_of(outputs=[video(poster_url=f"{server.url}/still.png")])
    await told(platform, own(server), card(event=event))
    [image] = images(only(server).card)
    assert server.uploaded[image["img_key"]] == png(9)
