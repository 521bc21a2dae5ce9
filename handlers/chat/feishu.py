"""Feishu and Lark: messages and buttons come in by event subscription; one card for a task goes out, edited as it advances.

An app's bot does all of it. A group's custom bot only speaks, and shows pictures only where an app uploads them for it.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets as randomness
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from yarl import URL

from handlers.chat.codes import Codes
from handlers.chat.pictures import download_picture, fetch_picture
from handlers.chat.platform import (
    MOST_PICTURES,
    SAID_AT_THE_END,
    Answer,
    Button,
    Card,
    Destination,
    Forged,
    Grown,
    Heard,
    Inbound,
    NotFetched,
    Press,
    Pressed,
    Said,
    Spoken,
    uncounted,
)
from handlers.chat.urls import WebUrl, server_faults, webhook_faults
from handlers.messages import Mood, cut, cut_bytes
from handlers.sinks import exchange
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.media_types import HEAD, is_page, media_type
from service.domain.models import Model, StrictModel
from service.domain.times import utc_now
from service.domain.values import replace
from service.network.connections import Answer as HttpAnswer
from service.network.dialler import Dialler

FEISHU: Final = "https://open.feishu.cn"
LARK: Final = "https://open.larksuite.com"
WEBHOOK_PATH: Final = "/open-apis/bot/v2/hook/"
# What was not answered is sent again for some seven hours (open.feishu.cn, "Event subscription FAQ"), and a command
# counts once however often it comes, so a later timestamp protects from nothing more.
WINDOW: Final = timedelta(hours=8)
# A card has at most 20 KB from a custom bot, 30 KB from an app, where its JSON is escaped once more.
LONGEST_TITLE: Final = 200
LONGEST_PROMPT_BYTES: Final = 1500
LONGEST_BODY_BYTES: Final = 3000
LONGEST_TOLD_BYTES: Final = 6000
LONGEST_URL: Final = 2000
MOST_LINKS: Final = 4
# For the upload of an attempt's picture: after it the message is sent without one, while there is time for that.
PICTURE_DEADLINE: Final = timedelta(seconds=8)
MOST_UPLOADED: Final = 256  # pictures, whose keys are remembered
MOST_APPS: Final = 256  # whose tokens are remembered
TOKEN_MARGIN: Final = timedelta(minutes=5)

CODES: Final = Codes(
    platform="Feishu",
    code_name="code",
    gone=frozenset({19001}),  # no such webhook any more
    for_good=frozenset({
        9499, 10003, 10012, 10014, 11246, 19002, 19021, 19022, 19024, 19036, 99991672, 230001, 230002, 230006, 230011,
        230013, 230015, 230017, 230018, 230019, 230022, 230025, 230027, 230028, 230029, 230031, 230032, 230035, 230038,
        230050, 230054, 230055, 230072, 230099, 230110, 230111,
    }),
    too_fast=frozenset({11020, 11021, 11232, 11233, 230020, 99991400, 99991402}),
    pause=timedelta(seconds=10),
    reasons={
        19021: "Feishu refuses the signature: give the webhook's secret, and look at this machine's clock",
        19022: "Feishu refuses this address: it is not in the webhook's list",
        19024: "Feishu refuses a message without the webhook's keyword",
        99991672: "Feishu refuses: the app lacks a permission",
        230002: "Feishu refuses: the bot is not in that chat",
        230006: "Feishu refuses: the app's bot is switched off",
        230027: "Feishu refuses: the app lacks a permission",
    },
)  # fmt: skip
TOKEN_ENDED: Final = frozenset({99991661, 99991663, 99991664, 99991665, 99991668})
TOKEN_STATUSES: Final = frozenset({400, 401})  # under which a file's answer says so
LOST: Final = frozenset({230011, 230031, 230110})  # recalled, deleted, or too old to be edited
NOT_ANSWERABLE: Final = frozenset({230011, 230019, 230071, 230110})  # but in its chat something can be said
CARD_REFUSED: Final = frozenset({230099, 11246})

TEMPLATES: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "blue",
    Mood.GOOD: "green",
    Mood.BAD: "red",
    Mood.WARNING: "orange",
    Mood.NOTE: "grey",
}
MENTION: Final = re.compile(r"@(?:_user_\d+|_all)(?![A-Za-z0-9_])")
LINK: Final = re.compile(r"\[[^\[\]]*\]\((https?://[^\s()]+)\)")
MESSAGE_ID: Final = re.compile(r"om_[A-Za-z0-9_-]{1,100}")
TOKEN: Final = re.compile(r"[\x21-\x7e]{1,2048}")
IMAGE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")

Secret = Annotated[str, Field(min_length=8, max_length=255, pattern=r"^[\x21-\x7e]+$")]
AppId = Annotated[str, Field(pattern=r"^cli_[A-Za-z0-9]{4,60}$")]


class FeishuBot(StrictModel):
    """All four of the app's own page; without `encrypt_key` only the verification token proves who speaks."""

    app_id: AppId
    app_secret: Secret
    verification_token: Secret
    encrypt_key: Secret | None = None
    server: WebUrl = Field(FEISHU, description=f"{LARK} for Lark")


class FeishuEndpoint(StrictModel):
    """An app and a chat that its bot is in, or a group's custom bot; the app's messages are edited."""

    webhook_url: WebUrl | None = Field(None, description="of a custom bot: kept sealed")
    secret: Secret | None = Field(None, description="of a custom bot that asks for signatures")
    app_id: AppId | None = Field(None, description="with a webhook_url: the app that uploads pictures for it")
    app_secret: Secret | None = None
    chat_id: Annotated[str, Field(pattern=r"^oc_[A-Za-z0-9_-]{1,100}$")] | None = None
    server: WebUrl = Field(FEISHU, description=f"{LARK} for Lark")


# What comes in, as far as it is read


class _Header(Model):
    event_id: Annotated[str, Field(min_length=1)]
    event_type: str
    token: str | None = None
    app_id: str | None = None
    tenant_key: str | None = None


class _Mention(Model):
    key: str
    name: str = ""
    mentioned_type: str | None = None


class _Message(Model):
    message_id: Annotated[str, Field(pattern=rf"^{MESSAGE_ID.pattern}$")]
    thread_id: str | None = None
    chat_id: str
    chat_type: str
    message_type: str
    content: str
    mentions: Sequence[_Mention] | None = None


class _UserId(Model):
    open_id: str


class _Sender(Model):
    sender_id: _UserId
    sender_type: str = "user"
    tenant_key: str | None = None


class _Written(Model):
    """`im.message.receive_v1`."""

    sender: _Sender
    message: _Message


class _Operator(Model):
    open_id: str
    tenant_key: str | None = None


class _Value(Model):
    press: Press
    task: str


class _Action(Model):
    value: Mapping[str, Any] = {}


class _Where(Model):
    open_message_id: Annotated[str, Field(pattern=rf"^{MESSAGE_ID.pattern}$")]
    open_chat_id: str


class _Acted(Model):
    """`card.action.trigger`."""

    operator: _Operator
    action: _Action
    context: _Where


@dataclass(frozen=True, slots=True)
class _Ended:
    """An exchange with Feishu, judged."""

    reply: Reply
    code: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _App:
    server: str
    id: str
    secret: str


class Feishu:
    """Listens to one app's events, and speaks for it."""

    name = "feishu"
    endpoint_model: type[BaseModel] = FeishuEndpoint
    endpoint_secrets = frozenset({"webhook_url", "secret", "app_secret"})
    bot_model: type[BaseModel] = FeishuBot
    bot_secrets = frozenset({"app_secret", "verification_token", "encrypt_key"})
    edits = True

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._tokens: dict[_App, tuple[str, datetime]] = {}  # with until when each is good
        self._asking: WeakValueDictionary[_App, asyncio.Lock] = WeakValueDictionary()
        self._uploaded: dict[tuple[_App, str], str] = {}  # pictures' keys, by their URLs

    def can_edit(self, to: Destination) -> bool:
        """A custom bot is told no ids of its messages."""
        return "webhook_url" not in to.secrets

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, (FeishuBot, FeishuEndpoint))
        faults = server_faults(self._dialler, config.server, pointer=f"{pointer}/server")
        if isinstance(config, FeishuBot):
            return faults
        servers = []  # at which a webhook may be
        if not faults:
            servers = [FEISHU, LARK] if config.server == FEISHU else [config.server]
        if (config.app_id is None) != (config.app_secret is None):
            missing = "app_id" if config.app_id is None else "app_secret"
            faults.append(Fault("An app has an app_id and an app_secret.", f"{pointer}/{missing}"))
        if config.webhook_url is None:
            if config.app_id is None:
                detail = "Give a webhook_url, or an app_id, an app_secret and a chat_id."
                faults.append(Fault(detail, f"{pointer}/webhook_url"))
            elif config.chat_id is None:
                faults.append(Fault("Say in which chat the app speaks.", f"{pointer}/chat_id"))
            if config.secret is not None:
                faults.append(Fault("This is a webhook's.", f"{pointer}/secret"))
            return faults
        if config.chat_id is not None:
            faults.append(Fault("A webhook has a chat of its own.", f"{pointer}/chat_id"))
        return faults + webhook_faults(
            self._dialler,
            config.webhook_url,
            servers=servers,
            path=WEBHOOK_PATH,
            pointer=f"{pointer}/webhook_url",
        )

    # Listening

    def hear(
        self, request: Inbound, *, config: Mapping[str, Any], secrets: Mapping[str, Any], now: datetime
    ) -> Heard:
        event = _verified(request, config, secrets, now)
        if event.get("type") == "url_verification":
            return _said({"challenge": str(event.get("challenge", ""))})
        try:
            header = _Header.model_validate(event.get("header"))
            match header.event_type:
                case "im.message.receive_v1":
                    return _heard_message(_Written.model_validate(event.get("event")))
                case "card.action.trigger":
                    return _heard_press(header, _Acted.model_validate(event.get("event")))
                case _:
                    return _said({})
        except ValidationError:
            return Answer(status=400, body=b"Not as Feishu sends it\n")

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:
        """The answer to a press is shown to the person alone; that to a message is not shown at all."""
        if isinstance(heard, Pressed):
            return _said({"toast": {"type": "info", "content": cut(text or "On its way.", 200)}})
        return _said({}) if text is None else None

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        """As a card, in which plain text has no markup."""
        elements = [_plain_text(cut_bytes(text, LONGEST_TOLD_BYTES))]
        shown = {"schema": "2.0", "body": {"elements": elements}}
        return (await self._send(to, shown, task_id=None, now=now)).reply

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        grown: Grown = uncounted,
    ) -> str:
        message, key = picture["message"], picture["image"]
        if not MESSAGE_ID.fullmatch(message) or not IMAGE_KEY.fullmatch(key):
            raise NotFetched("its name is not one of Feishu's")
        app = _App(_base(config["server"]), config["app_id"], secrets["app_secret"])
        url = f"{app.server}/open-apis/im/v1/messages/{message}/resources/{key}?type=image"
        token = await self._fetching_token(app)
        try:
            fetched = await self._fetched(url, token, grown)
        except NotFetched as error:
            if error.status not in TOKEN_STATUSES:
                raise
            self._forget_token(app, token)
            fetched = await self._fetched(url, await self._fetching_token(app), grown)
        if is_page(base64.b64decode(fetched[: HEAD // 3 * 4])):
            raise NotFetched("Feishu shows me something else; the app needs the permission im:resource")
        return fetched

    async def _fetching_token(self, app: _App) -> str:
        """
        Raises:
            NotFetched.
        """
        token = await self._token(app, utc_now())
        if isinstance(token, _Ended):
            may_come = token.reply.ending in {None, AttemptOutcome.RETRY}
            raise NotFetched(f"Feishu does not let me in: {token.reply.reason}", may_come=may_come)
        return token

    async def _fetched(self, url: str, token: str, grown: Grown) -> str:
        headers = {"authorization": f"Bearer {token}"}
        return await fetch_picture(self._dialler, url, headers=headers, grown=grown)

    # Speaking

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        if self.can_edit(to):
            send = partial(self._send, to, task_id=card.message.task_id, now=now)
        else:
            send = partial(self._hook, to, now=now)
        ended = await self._show(to, card, send, now)
        message = ended.data.get("message_id")
        if isinstance(message, str) and MESSAGE_ID.fullmatch(message):
            return Spoken(reply=ended.reply, reference={"message": message})
        return Spoken(reply=ended.reply)

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        async def send(shown: Mapping[str, Any]) -> _Ended:
            content = {"content": json.dumps(shown)}
            return await self._call(to, "PATCH", f"im/v1/messages/{reference['message']}", content, now)

        ended = await self._show(to, card, send, now)
        if ended.code in LOST:
            if card.message.matters_at_the_end:
                return await self.post(to, card, now=now)
            return Spoken(reply=SAID_AT_THE_END)
        if ended.reply.ending is AttemptOutcome.DELIVERED:
            return Spoken(reply=ended.reply, reference=reference)
        return Spoken(reply=ended.reply)

    async def _show(
        self,
        to: Destination,
        card: Card,
        send: Callable[[Mapping[str, Any]], Awaitable[_Ended]],
        now: datetime,
    ) -> _Ended:
        """With the card's picture, unless that cannot be had or Feishu refuses it."""
        picture = await self._picture(to, card.message.picture, now)
        ended = await send(_shown(card, picture))
        if ended.code in CARD_REFUSED and picture is not None:
            self._forget_picture(picture)
            return await send(_shown(card, None))
        return ended

    async def _send(
        self, to: Destination, shown: Mapping[str, Any], *, task_id: str | None, now: datetime
    ) -> _Ended:
        """As an answer to what was said, in its thread; or into the endpoint's chat.

        Args:
            task_id: of a task's card: by it Feishu knows a second attempt at the same card, and shows it once.
        """
        content = json.dumps(shown)
        body = {"msg_type": "interactive", "content": content}
        where = to.config["chat_id"] if to.address is None else to.address["message"]
        if task_id is not None:  # counts for an hour
            body["uuid"] = hashlib.sha256(f"{where}\n{task_id}\n{content}".encode()).hexdigest()[:32]
        if to.address is None:
            return await self._create(to, to.config["chat_id"], body, now)
        answer = {**body, "reply_in_thread": to.address["in_thread"]}
        ended = await self._call(to, "POST", f"im/v1/messages/{to.address['message']}/reply", answer, now)
        if ended.code in NOT_ANSWERABLE:
            return await self._create(to, to.address["chat"], body, now)
        return ended

    async def _create(self, to: Destination, chat: str, body: Mapping[str, Any], now: datetime) -> _Ended:
        whole = {**body, "receive_id": chat}
        return await self._call(to, "POST", "im/v1/messages?receive_id_type=chat_id", whole, now)

    async def _call(
        self, to: Destination, method: str, path: str, body: Mapping[str, Any], now: datetime
    ) -> _Ended:
        app = _app(to)
        assert app is not None
        return await self._exchange(app, method, path, to_json(body), exchange.JSON_UTF8_HEADERS, now)

    async def _exchange(
        self, app: _App, method: str, path: str, body: bytes, headers: Mapping[str, str], now: datetime
    ) -> _Ended:
        """With the app's token; once more with a new one where that has ended before its time."""
        call = partial(
            self._exchange_once, app, method=method, path=path, body=body, headers=headers, now=now
        )
        token = await self._token(app, now)
        if isinstance(token, str):
            ended = await call(token)
            if ended.code not in TOKEN_ENDED:
                return ended
            self._forget_token(app, token)
            token = await self._token(app, now)
        return await call(token) if isinstance(token, str) else token

    async def _exchange_once(
        self,
        app: _App,
        token: str,
        *,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        now: datetime,
    ) -> _Ended:
        reply, answer = await exchange.send(
            self._dialler,
            method,
            f"{app.server}/open-apis/{path}",
            body=body,
            headers={**headers, "authorization": f"Bearer {token}"},
            now=now,
            hidden=[token, app.secret],
        )
        return _Ended(reply) if answer is None else _judged(reply, answer)

    async def _token(self, app: _App, now: datetime) -> str | _Ended:
        """The app's token, good for some two hours; or why there is none. Callers at the same time share one request."""
        async with self._asking.setdefault(app, asyncio.Lock()):
            known = self._tokens.get(app)
            if known is not None and now < known[1]:
                return known[0]
            return await self._new_token(app, now)

    def _forget_token(self, app: _App, token: str) -> None:
        if self._tokens.get(app, ("",))[0] == token:
            del self._tokens[app]

    async def _new_token(self, app: _App, now: datetime) -> str | _Ended:
        reply, answer = await exchange.post(
            self._dialler,
            f"{app.server}/open-apis/auth/v3/tenant_access_token/internal",
            body=to_json({"app_id": app.id, "app_secret": app.secret}),
            headers=exchange.JSON_UTF8_HEADERS,
            now=now,
            hidden=[app.secret],
        )
        if answer is None:
            return _Ended(reply)
        # The excerpt would have the token in it.
        ended = _judged(replace(reply, excerpt="") if CODES.of(answer) == 0 else reply, answer)
        if ended.reply.ending is not AttemptOutcome.DELIVERED:
            return ended
        content = exchange.json_object(answer.body)
        token, expire = content.get("tenant_access_token"), content.get("expire")
        if not isinstance(token, str) or not TOKEN.fullmatch(token) or type(expire) is not int:
            reason = "answered, but not as Feishu does"
            return _Ended(replace(ended.reply, ending=AttemptOutcome.RETRY, reason=reason))
        if len(self._tokens) >= MOST_APPS:
            self._tokens.clear()
        self._tokens[app] = (token, now + timedelta(seconds=max(min(expire, 7200), 0)) - TOKEN_MARGIN)
        return token

    async def _hook(self, to: Destination, shown: Mapping[str, Any], *, now: datetime) -> _Ended:
        url, secret = to.secrets["webhook_url"], to.secrets.get("secret")
        signed = {} if secret is None else _signature(secret, now)
        reply, answer = await exchange.post(
            self._dialler,
            url,
            body=to_json({**signed, "msg_type": "interactive", "card": shown}),
            headers=exchange.JSON_UTF8_HEADERS,
            now=now,
            hidden=[url, URL(url).name, secret or ""],
        )
        return _Ended(reply) if answer is None else _judged(reply, answer)

    # Pictures

    async def _picture(self, to: Destination, url: str | None, now: datetime) -> str | None:
        """Its key, once it is uploaded: Feishu shows none by its address."""
        app = _app(to)
        if url is None or app is None:
            return None
        if (key := self._uploaded.get((app, url))) is not None:
            return key
        try:
            async with asyncio.timeout(PICTURE_DEADLINE.total_seconds()):
                content = await download_picture(self._dialler, url, headers={})
                key = await self._upload(app, content, now)
        except (NotFetched, TimeoutError):
            return None
        if key is not None:
            while len(self._uploaded) >= MOST_UPLOADED:
                del self._uploaded[next(iter(self._uploaded))]
            self._uploaded[app, url] = key
        return key

    async def _upload(self, app: _App, content: bytes, now: datetime) -> str | None:
        kind = media_type(content[:HEAD])
        if not kind.is_image:
            return None
        body, content_type = _form({"image_type": "message"}, "image", f"picture.{kind.extension}", content)
        ended = await self._exchange(app, "POST", "im/v1/images", body, {"content-type": content_type}, now)
        key = ended.data.get("image_key")
        return key if isinstance(key, str) and IMAGE_KEY.fullmatch(key) else None

    def _forget_picture(self, key: str) -> None:
        for name, known in list(self._uploaded.items()):
            if known == key:
                del self._uploaded[name]


def _base(server: str) -> str:
    return server.rstrip("/")


def _app(to: Destination) -> _App | None:
    """The app that calls the API. A custom bot needs one only to upload pictures, and may have none."""
    if "app_secret" not in to.secrets:
        return None
    url = to.secrets.get("webhook_url")
    server = to.config["server"] if url is None else str(URL(url).origin())
    return _App(_base(server), to.config["app_id"], to.secrets["app_secret"])


def _signature(secret: str, now: datetime) -> dict[str, str]:
    """Good for an hour. Time and secret are the key, and the text that is signed is empty (open.feishu.cn, "Custom bot")."""
    timestamp = str(int(now.timestamp()))
    digest = hmac.digest(f"{timestamp}\n{secret}".encode(), b"", "sha256")
    return {"timestamp": timestamp, "sign": base64.b64encode(digest).decode()}


def _form(fields: Mapping[str, str], name: str, filename: str, content: bytes) -> tuple[bytes, str]:
    """`multipart/form-data` with one file (RFC 7578), and its content type."""
    boundary = randomness.token_hex(16)
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    )
    body = b"".join([*parts, head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])
    return body, f"multipart/form-data; boundary={boundary}"


def _judged(reply: Reply, answer: HttpAnswer) -> _Ended:
    """200 also for what it refuses; 400 also for what it takes later, but for nothing else."""
    code = CODES.of(answer)
    wait = answer.headers.get("x-ogw-ratelimit-reset", "")
    if reply.retry_after is None and wait.isascii() and wait.isdigit():
        reply = replace(reply, retry_after=timedelta(seconds=int(wait[:5])))
    judged = CODES.judge(reply, answer)
    may_come = code is None or code in CODES.too_fast | TOKEN_ENDED
    if exchange.refuses_for_good(answer.status) and judged.ending is AttemptOutcome.RETRY and not may_come:
        judged = replace(judged, ending=AttemptOutcome.DEAD)
    data = exchange.json_object(answer.body).get("data")
    return _Ended(judged, code, data if isinstance(data, dict) else {})


# What is shown


def _shown(card: Card, picture: str | None) -> dict[str, Any]:
    """A card (schema 2.0). Other people's words are plain text in it: without markup, and without mentions."""
    message = card.message
    title = cut(message.title, LONGEST_TITLE)
    prompt = cut_bytes(" ".join((card.prompt or "").split()), LONGEST_PROMPT_BYTES)
    elements = [_plain_text(prompt, "grey")] if prompt else []
    if picture is not None:
        alt = {"tag": "plain_text", "content": cut(prompt or title, 200)}
        elements.append({"tag": "img", "img_key": picture, "alt": alt})
    elements.append(_plain_text(cut_bytes(message.body, LONGEST_BODY_BYTES)))
    made = [one for one in message.made if len(one.url) <= LONGEST_URL][:MOST_LINKS]
    buttons = [
        *(
            _labelled(f"Open {one.label.lower()}", {"type": "open_url", "default_url": one.url})
            for one in made
        ),
        *map(_button, card.buttons),
    ]
    if buttons:
        columns = [{"tag": "column", "width": "auto", "elements": [button]} for button in buttons]
        elements.append({"tag": "column_set", "flex_mode": "flow", "columns": columns})
    return {
        "schema": "2.0",
        "config": {"update_multi": True, "summary": {"content": title}},  # only shared cards can be edited
        "header": {"title": {"tag": "plain_text", "content": title}, "template": TEMPLATES[message.mood]},
        "body": {"elements": elements},
    }


def _plain_text(text: str, color: str | None = None) -> dict[str, Any]:
    colored = {} if color is None else {"text_color": color}
    return {"tag": "div", "text": {"tag": "plain_text", "content": text, **colored}}


def _button(button: Button) -> dict[str, Any]:
    value = {"press": button.press.value, "task": button.task_id}
    return _labelled(button.label, {"type": "callback", "value": value})


def _labelled(label: str, behavior: Mapping[str, Any]) -> dict[str, Any]:
    return {"tag": "button", "text": {"tag": "plain_text", "content": label}, "behaviors": [behavior]}


# What is heard


def _said(content: Mapping[str, Any]) -> Answer:
    return Answer(headers=exchange.JSON_UTF8_HEADERS, body=to_json(content))


def _verified(
    request: Inbound, config: Mapping[str, Any], secrets: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """What the request says.

    With an encrypt key all of it is encrypted, and signed as well but for the check of the URL; the token is in it in
    either case.

    Raises:
        Forged.
    """
    encrypt_key = secrets.get("encrypt_key")
    is_signed = encrypt_key is not None and "x-lark-signature" in request.headers
    if encrypt_key is not None and is_signed:
        _verify_signature(request, encrypt_key, now)
    event = exchange.json_object(request.body)
    if encrypt_key is not None:
        event = exchange.json_object(_decrypted(event.get("encrypt"), encrypt_key))
    is_check = event.get("type") == "url_verification"
    if encrypt_key is not None and not (is_signed or is_check):
        raise Forged("not signed")
    header = event.get("header")
    fields = event if is_check or not isinstance(header, dict) else header
    token, app_id = fields.get("token"), fields.get("app_id")
    if not isinstance(token, str) or not hmac.compare_digest(
        token.encode(errors="replace"), secrets["verification_token"].encode()
    ):
        raise Forged("not its token")
    if app_id is not None and app_id != config["app_id"]:
        raise Forged("another app's")
    return event


def _verify_signature(request: Inbound, encrypt_key: str, now: datetime) -> None:
    """
    Raises:
        Forged.
    """
    sent_at = request.sent_at("x-lark-request-timestamp", within=WINDOW, now=now)
    nonce = request.headers.get("x-lark-request-nonce", "")
    # A plain hash: its secret lies in the middle, so nothing can be appended to it.
    signed = f"{sent_at}{nonce}{encrypt_key}".encode(errors="replace") + request.body
    given = request.headers["x-lark-signature"]
    if not hmac.compare_digest(hashlib.sha256(signed).hexdigest().encode(), given.encode(errors="replace")):
        raise Forged("another signature")


def _decrypted(encrypted: object, encrypt_key: str) -> bytes:
    """AES-256-CBC, the first block being the vector.

    Raises:
        Forged.
    """
    try:
        content = base64.b64decode(encrypted if isinstance(encrypted, str) else "", validate=True)
        cipher = Cipher(
            algorithms.AES256(hashlib.sha256(encrypt_key.encode()).digest()), modes.CBC(content[:16])
        )
        decryptor, unpadder = cipher.decryptor(), PKCS7(128).unpadder()
        padded = decryptor.update(content[16:]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise Forged("not encrypted by its key") from None


def _heard_message(written: _Written) -> Said | Answer:
    message, sender = written.message, written.sender
    mentions = {one.key: one for one in message.mentions or () if one.key != "@_all"}
    kinds = {one.mentioned_type for one in mentions.values()} - {None}
    is_for_us = message.chat_type == "p2p" or (bool(mentions) and (not kinds or "bot" in kinds))
    if sender.sender_type != "user" or not is_for_us:  # bots' words are no orders, its own least of all
        return _said({})
    text, pictures = _read(message)
    return Said(
        # Not the event's id: one message may come as several events.
        key=f"message:{message.message_id}",
        person=Person(
            workspace=sender.tenant_key,
            chat=message.chat_id,
            user=sender.sender_id.open_id,
            name=sender.sender_id.open_id,
        ),
        text=_typed(text, mentions),
        pictures=[{"message": message.message_id, "image": key} for key in pictures[:MOST_PICTURES]],
        address={
            "message": message.message_id,
            "chat": message.chat_id,
            "in_thread": message.thread_id is not None,
        },
    )


def _heard_press(header: _Header, acted: _Acted) -> Pressed | Answer:
    try:
        value = _Value.model_validate(acted.action.value)
    except ValidationError:  # not one of our buttons
        return _said({})
    operator, where = acted.operator, acted.context
    return Pressed(
        key=f"press:{header.event_id}",
        person=Person(
            workspace=operator.tenant_key or header.tenant_key,
            chat=where.open_chat_id,
            user=operator.open_id,
            name=operator.open_id,
        ),
        press=value.press,
        task_id=value.task,
        address={"message": where.open_message_id, "chat": where.open_chat_id, "in_thread": False},
    )


def _read(message: _Message) -> tuple[str, list[str]]:
    """Its text, and its pictures' keys. What has neither says nothing, and is answered with help."""
    content = exchange.json_object(message.content.encode())
    match message.message_type:
        case "text":
            return str(content.get("text") or ""), []
        case "image":
            return "", [key for key in [content.get("image_key")] if isinstance(key, str)]
        case "post":
            paragraphs = list(_paragraphs(content))
            text = "\n".join("".join(map(_words, paragraph)) for paragraph in paragraphs)
            keys = [
                one.get("image_key")
                for paragraph in paragraphs
                for one in paragraph
                if one.get("tag") == "img"
            ]
            return text, [key for key in keys if isinstance(key, str)]
        case _:
            return "", []


def _paragraphs(content: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """Of a post's content, which stands below its language in some events."""
    post = content if "content" in content else next((v for v in content.values() if isinstance(v, dict)), {})
    if title := post.get("title"):
        yield [{"tag": "text", "text": str(title)}]
    paragraphs = post.get("content")
    for paragraph in paragraphs if isinstance(paragraphs, list) else []:
        yield [one for one in paragraph if isinstance(one, dict)] if isinstance(paragraph, list) else []


def _words(element: Mapping[str, Any]) -> str:
    match element.get("tag"):
        case "a":
            return f" {element.get('href') or ''} "
        case "at":
            return f" {element.get('user_id') or ''} "
        case "img":
            return " "
        case _:
            return str(element.get("text") or "")


def _typed(text: str, mentions: Mapping[str, _Mention]) -> str:
    """As it was typed: without mentions of the bot, and with the names of people who are mentioned."""

    def named(found: re.Match[str]) -> str:
        mention = mentions.get(found[0])
        return f"@{mention.name}" if mention is not None and mention.mentioned_type == "user" else ""

    return LINK.sub(r" \1 ", MENTION.sub(named, text)).strip()
