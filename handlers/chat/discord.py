"""Discord: a slash command in, by the interactions endpoint; its deferred answer out, edited as the task advances."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from yarl import URL

from handlers.chat.grammar import IMAGE, VIDEO, as_said, option_schemas, options
from handlers.chat.pictures import LARGEST_PICTURE, fetch_picture
from handlers.chat.platform import (
    MOST_PICTURES,
    Answer,
    Card,
    Destination,
    Forged,
    Grown,
    Heard,
    Inbound,
    NotFetched,
    Pressed,
    Said,
    Spoken,
    read_button_id,
    uncounted,
)
from handlers.chat.urls import WebUrl, plain_url_faults
from handlers.messages import Message, Mood, cut
from handlers.sinks import exchange
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.models import Model, StrictModel
from service.domain.tasks import OutputKind
from service.domain.values import replace
from service.network.dialler import Dialler

SERVER: Final = "https://discord.com"
# Discord, "User Agent": this form; what lacks it may be refused before it is read.
USER_AGENT: Final = "DiscordBot (https://klingel.invalid, 0.1)"
WEBHOOK: Final = re.compile(
    r"/api(?:/v[0-9]+)?/webhooks/(?P<id>[0-9]{15,21})/(?P<token>[A-Za-z0-9_-]{16,200})"
)
HOSTS: Final = frozenset({"discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"})
FILE_HOSTS: Final = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
WINDOW: Final = timedelta(minutes=5)  # between Discord's clock and ours
# A command's token lasts 15 minutes; a minute less, for clocks and the way there.
ANSWERS_WITHIN: Final = timedelta(minutes=14)
# Discord, "Message" (embed limits), "Component Reference".
LONGEST_CONTENT: Final = 2000
LONGEST_TITLE: Final = 256
LONGEST_DESCRIPTION: Final = 4096
LONGEST_URL: Final = 2048
LONGEST_PROMPT: Final = 600
LONGEST_LABEL: Final = 80
LONGEST_RETRY_AFTER_S: Final = 3600.0
# A bucket that is empty for no longer is waited for; for longer, the delivery is tried again then.
LONGEST_PAUSE_S: Final = 5.0
MOST_BUCKETS: Final = 1000
EPHEMERAL: Final = 1 << 6
SUPPRESS_EMBEDS: Final = 1 << 2
# Discord, "JSON error codes".
UNKNOWN_MESSAGE: Final = 10008
UNKNOWN_WEBHOOK: Final = 10015
INVALID_WEBHOOK_TOKEN: Final = 50027
# Discord, "Application Commands": "Application Command Option Type".
SUB_COMMAND: Final = 1
KINDS: Final[Mapping[str, int]] = {"string": 3, "integer": 4, "boolean": 5, "number": 10}
ATTACHMENT: Final = 11
LONGEST_OPTION_DESCRIPTION: Final = 100
COLOURS: Final[Mapping[Mood, int]] = {
    Mood.WORKING: 0x5865F2,
    Mood.GOOD: 0x57F287,
    Mood.BAD: 0xED4245,
    Mood.WARNING: 0xFEE75C,
    Mood.NOTE: 0x99AAB5,
}
ADDRESS: Final = re.compile(r"https?://[^\s<>]+")
MARKUP: Final = re.compile(r"([\\*_~`|<>#\[\]()@:-])")
MOST_OPTIONS: Final = 25  # of a command ("Application command structure")
JSON: Final = {"content-type": "application/json"}
NO_MENTIONS: Final[Mapping[str, Any]] = {"parse": []}
TOO_LATE: Final = Reply(
    status_code=None,
    reason="a quarter of an hour after a command only a bot with a token in its channel can answer",
    ending=AttemptOutcome.DEAD,
)

NOBODY: Final = Answer(status=400, body=b"It does not say who asks for what\n")

Snowflake = Annotated[str, Field(pattern=r"^[0-9]{15,21}$")]
Server = Annotated[WebUrl, Field(description="another server than Discord's own")]


class DiscordEndpoint(StrictModel):
    """A webhook of a channel."""

    webhook_url: WebUrl = Field(description="whoever has it can post: kept sealed")
    thread_id: Snowflake | None = Field(None, description="of a thread in its channel")
    server: Server = SERVER


class DiscordBot(StrictModel):
    """Without `bot_token` nothing is said 15 minutes after a command, when a video may still be in the making."""

    application_id: Snowflake
    public_key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] = Field(description="of the application")
    bot_token: Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9._-]{20,}$")] | None = None
    server: Server = SERVER


@dataclass(frozen=True, slots=True)
class _Place:
    """Where messages are posted and found again."""

    name: str  # as a reference keeps it
    path: str  # to post to; a message's is below `messages`
    query: str = ""
    authorization: str | None = None
    holds_original: bool = False  # a deferred answer stands there already: the first message is put into it
    about: str | None = None  # the message that is replied to

    def message(self, id: str) -> str:
        return f"{self.path.removesuffix('/messages')}/messages/{id}{self._query()}"

    def post(self) -> str:
        return f"{self.path}{self._query('wait=true' if self.authorization is None else '')}"

    def referring(self) -> Mapping[str, Any]:
        if self.about is None:
            return {}
        return {"message_reference": {"message_id": self.about, "fail_if_not_exists": False}}

    def _query(self, more: str = "") -> str:
        parts = "&".join(part for part in (more, self.query) if part)
        return f"?{parts}" if parts else ""


@dataclass(frozen=True, slots=True)
class _Told:
    """An answer of Discord's, judged."""

    reply: Reply
    message: str | None = None  # its id
    code: int | None = None  # Discord's own, of a refusal

    @property
    def refuses_content(self) -> bool:
        return self.reply.status_code == 400


class Discord:
    name = "discord"
    endpoint_model: type[BaseModel] = DiscordEndpoint
    endpoint_secrets = frozenset({"webhook_url"})
    bot_model: type[BaseModel] = DiscordBot
    bot_secrets = frozenset({"bot_token"})
    edits = True

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        # By a place's path: until when the bucket of its rate limit is empty, by the event loop's clock.
        self._empty_until: dict[str, float] = {}

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, DiscordBot | DiscordEndpoint)
        faults = plain_url_faults(self._dialler, config.server, pointer=f"{pointer}/server")
        if isinstance(config, DiscordEndpoint):
            server = config.webhook_url if faults else config.server  # any server, where its own is none
            if _webhook(config.webhook_url, server) is None:
                whose = "any server" if faults else config.server
                detail = f"It is no webhook of {whose}: those look like {SERVER}/api/webhooks/…/…"
                faults.append(Fault(detail, f"{pointer}/webhook_url"))
        if isinstance(config, DiscordBot):
            try:
                Ed25519PublicKey.from_public_bytes(bytes.fromhex(config.public_key))
            except ValueError:
                faults.append(Fault("It is not an Ed25519 public key.", f"{pointer}/public_key"))
        return faults

    # Speaking

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        place = _first_place(to, now)
        if place is None:
            return Spoken(reply=TOO_LATE)
        return await self._post(to, place, card, now)

    async def _post(self, to: Destination, place: _Place, card: Card, now: datetime) -> Spoken:
        """Posts at a place; in the channel instead, where a command's token turns out to have ended."""
        told = await self._said(to, place, _content(card), now)
        if told.refuses_content:  # a URL that Discord finds fault with must not keep the result back
            told = await self._said(to, place, _content(card, bare=True), now)
        later = _fallback(place, told, to)
        if later is not None:
            return await self._post(to, later, card, now)
        if told.message is None:
            return Spoken(reply=told.reply)
        return Spoken(reply=told.reply, reference={"place": place.name, "message": told.message})

    async def _said(self, to: Destination, place: _Place, content: Mapping[str, Any], now: datetime) -> _Told:
        if place.holds_original:
            told = await self._call(to, place, "PATCH", place.message("@original"), content, now)
            if told.code != UNKNOWN_MESSAGE:  # somebody deleted it
                return told
        return await self._call(to, place, "POST", place.post(), {**content, **place.referring()}, now)

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        before = reference["message"]
        place = _place_of(reference["place"], to, now)
        if place is None:
            later = _channel_place(to, about=before)
            return Spoken(reply=TOO_LATE) if later is None else await self._post(to, later, card, now)
        path = place.message(before)
        told = await self._call(to, place, "PATCH", path, _content(card), now)
        if told.refuses_content:
            told = await self._call(to, place, "PATCH", path, _content(card, bare=True), now)
        if told.code == UNKNOWN_MESSAGE:  # what became of the task is said all the same
            return await self._post(to, replace(place, holds_original=False), card, now)
        later = _fallback(place, told, to, about=before)
        if later is not None:
            return await self._post(to, later, card, now)
        return Spoken(reply=told.reply, reference=None if told.message is None else dict(reference))

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        place = _first_place(to, now)
        if place is None:
            return TOO_LATE
        content = {**_line(text), "embeds": [], "components": []}
        told = await self._said(to, place, content, now)
        later = _fallback(place, told, to)
        return (told if later is None else await self._said(to, later, content, now)).reply

    async def _call(
        self,
        to: Destination,
        place: _Place,
        method: str,
        path: str,
        content: Mapping[str, Any],
        now: datetime,
    ) -> _Told:
        while (pause := self._empty_until.get(place.path, 0) - asyncio.get_running_loop().time()) > 0:
            if pause > LONGEST_PAUSE_S:
                return _Told(_too_fast(None, pause))
            await asyncio.sleep(pause)
        headers = dict(JSON)
        if place.authorization is not None:
            headers["authorization"] = place.authorization
        reply, answer = await exchange.send(
            self._dialler,
            method,
            f"{_base(to.config)}{path}",
            body=to_json({**content, "allowed_mentions": NO_MENTIONS}),
            headers=headers,
            agent=USER_AGENT,
            now=now,
            hidden=_hidden(to),
        )
        if answer is None:
            return _Told(reply)
        self._heed(place.path, answer.headers)
        return _judged(reply, answer.headers, exchange.json_object(answer.body), is_own=to.address is None)

    def _heed(self, path: str, headers: Mapping[str, str]) -> None:
        """Remembers until when a bucket is empty (Discord, "Rate Limits": "Header Format")."""
        clock = asyncio.get_running_loop().time()
        if headers.get("x-ratelimit-remaining") != "0":
            self._empty_until.pop(path, None)
            return
        if len(self._empty_until) >= MOST_BUCKETS:
            self._empty_until = {one: until for one, until in self._empty_until.items() if until > clock}
        if len(self._empty_until) < MOST_BUCKETS:
            self._empty_until[path] = clock + _seconds(headers.get("x-ratelimit-reset-after"))

    # Listening

    def hear(
        self,
        request: Inbound,
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],  # noqa: ARG002 - what verifies is public
        now: datetime,
    ) -> Heard:
        _verify(request, config["public_key"], now)
        try:
            asked = _Interaction.model_validate_json(request.body)
        except ValidationError:
            return NOBODY
        match asked.type:
            case 1:
                return _json_answer({"type": 1})
            case 2:
                return _commanded(asked)
            case 3:
                return _pressed(asked)
            case 4:
                return _json_answer({"type": 8, "data": {"choices": []}})
            case _:
                return _aside("I do not know what to do with that.")

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:  # noqa: ARG002 - the same for both
        """Words to the person alone; else a place is held, which the task's message fills."""
        return _json_answer({"type": 5}) if text is None else _aside(text)

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],  # noqa: ARG002 - its address is all that it takes
        grown: Grown = uncounted,
    ) -> str:
        """Its address ends after a day, and may be wanted once more: the picture itself is kept."""
        if picture["size"] > LARGEST_PICTURE:
            raise NotFetched(f"it is larger than {LARGEST_PICTURE // (1024 * 1024)} MB")
        if not _is_file_of(picture["url"], config["server"]):
            raise NotFetched("it is not at Discord")
        headers = {"user-agent": USER_AGENT}
        return await fetch_picture(self._dialler, picture["url"], headers=headers, grown=grown)


def commands() -> list[dict[str, Any]]:
    """What Discord is told that there is: `/kling image …`, `/kling video …`, `/kling status`, `/kling help`.

    Source: Discord, "Application Commands": "Application Command Object".
    """
    return [
        {
            "name": "kling",
            "type": 1,
            "description": "Pictures and videos, made of your pictures",
            "options": [
                _making("image", "Make pictures, of up to four pictures or of none", IMAGE, 2500),
                _making("video", "Make a video, of up to four pictures or of none", VIDEO, 500),
                {"type": SUB_COMMAND, "name": "status", "description": "Your latest tasks"},
                {"type": SUB_COMMAND, "name": "help", "description": "How to ask"},
            ],
        }
    ]


def _making(name: str, description: str, type: str, longest_prompt: int) -> dict[str, Any]:
    prompt = {
        "type": KINDS["string"],
        "name": "prompt",
        "description": "What to make of them",
        "required": True,
        "max_length": longest_prompt,
    }
    pictures = [
        {"type": ATTACHMENT, "name": f"picture{number}", "description": "A JPEG or PNG of at most 10 MB"}
        for number in range(1, 5)
    ]
    return {
        "type": SUB_COMMAND,
        "name": name,
        "description": description,
        "options": [prompt, *pictures, *(_option(type, *one) for one in options(type).items())],
    }


def _option(type: str, name: str, kind: str) -> dict[str, Any]:
    """An input field, with the choices and bounds that it has."""
    schema = option_schemas(type)[name]
    schema = {**schema, **schema.get("anyOf", [{}])[0]}
    option = {
        "type": KINDS[kind],
        "name": name,
        "description": cut(schema.get("description", schema["title"]), LONGEST_OPTION_DESCRIPTION),
    }
    if choices := [one for one in schema.get("enum", ()) if isinstance(one, str)]:
        option["choices"] = [{"name": choice, "value": choice} for choice in choices]
    bounds = {"min_value": "minimum", "max_value": "maximum"}
    return option | {ours: schema[theirs] for ours, theirs in bounds.items() if theirs in schema}


def _base(config: Mapping[str, Any]) -> str:
    server: str = config["server"]
    return f"{server.rstrip('/')}/api/v10"


def _hidden(to: Destination) -> list[str]:
    secrets = [to.secrets.get("bot_token"), (to.address or {}).get("token")]
    webhook = _webhook(to.secrets.get("webhook_url"), to.config["server"])
    return [secret for secret in (*secrets, webhook and webhook["token"]) if secret]


def _webhook(url: str | None, server: str) -> Mapping[str, str] | None:
    """The parts of a webhook's URL, if it is one of this server."""
    try:
        target, base = URL(url or ""), URL(server)
        is_there = target.origin() == base.origin() or (
            server == SERVER and target.scheme == "https" and target.host in HOSTS and target.port == 443
        )
    except ValueError:
        return None
    match = WEBHOOK.fullmatch(target.raw_path)
    return match.groupdict() if match is not None and is_there and not target.raw_query_string else None


def _is_file_of(url: str, server: str) -> bool:
    try:
        target = URL(url)
        if target.scheme == "https" and target.port == 443 and target.host in FILE_HOSTS:
            return True
        return server != SERVER and target.origin() == URL(server).origin()
    except ValueError:
        return False


# Places


def _first_place(to: Destination, now: datetime) -> _Place | None:
    """Where something new is said now."""
    if to.address is None:
        return _webhook_place(to)
    return _answer_place(to, now) or _channel_place(to)


def _place_of(name: str, to: Destination, now: datetime) -> _Place | None:
    """The place of a message that was posted before, if it can still be edited there."""
    match name:
        case "webhook":
            return _webhook_place(to)
        case "answer":
            return _answer_place(to, now)
        case _:
            return _channel_place(to)


def _webhook_place(to: Destination) -> _Place:
    webhook = _webhook(to.secrets["webhook_url"], to.config["server"])
    assert webhook is not None, "it was checked when it was configured"
    thread = to.config.get("thread_id")
    query = "" if thread is None else f"thread_id={thread}"
    return _Place("webhook", f"/webhooks/{webhook['id']}/{webhook['token']}", query)


def _answer_place(to: Destination, now: datetime) -> _Place | None:
    assert to.address is not None
    if not to.asked_within(ANSWERS_WITHIN, now):
        return None
    path = f"/webhooks/{to.config['application_id']}/{to.address['token']}"
    return _Place("answer", path, holds_original=True)


def _channel_place(to: Destination, *, about: str | None = None) -> _Place | None:
    """The channel in which the command was given, where the bot may post by itself."""
    if to.address is None or "bot_token" not in to.secrets:
        return None
    return _Place(
        "channel",
        f"/channels/{to.address['channel']}/messages",
        authorization=f"Bot {to.secrets['bot_token']}",
        about=about or to.address.get("message"),  # whose button was pressed; a slash command is no message
    )


def _fallback(place: _Place, told: _Told, to: Destination, *, about: str | None = None) -> _Place | None:
    """The channel, if a command's token has ended sooner than by our clock."""
    has_ended = told.code in {UNKNOWN_WEBHOOK, INVALID_WEBHOOK_TOKEN} or told.reply.status_code == 401
    return _channel_place(to, about=about) if has_ended and place.name == "answer" else None


# What is sent


def _content(card: Card, *, bare: bool = False) -> dict[str, Any]:
    """All of a message each time: an edit leaves unchanged what it does not name.

    Args:
        bare: without the URLs that Discord may refuse: of the title and of the picture.
    """
    message = card.message
    embed: dict[str, Any] = {
        "title": cut(_escaped(cut(message.title, 120)), LONGEST_TITLE),
        "description": _description(card),
        "color": COLOURS[message.mood],
    }
    if message.task_id is not None:
        embed["footer"] = {"text": message.task_id}
    if not bare:
        if message.link is not None and len(message.link) <= LONGEST_URL:
            embed["url"] = message.link
        if message.picture is not None and len(message.picture) <= LONGEST_URL:
            embed["image"] = {"url": message.picture}
    # An embed cannot have a video; an address in the text is played where it is short enough a film.
    film = next((made.url for made in message.made if made.kind is OutputKind.VIDEO), "")
    return {
        "content": film if len(film) <= LONGEST_CONTENT else "",
        "embeds": [embed],
        "components": _components(card),
    }


def _components(card: Card) -> list[dict[str, Any]]:
    buttons = [
        {
            "type": 2,
            "style": 2,
            "label": cut(button.label, LONGEST_LABEL),
            "custom_id": button.id,
        }
        for button in card.buttons
    ]
    return [{"type": 1, "components": buttons}] if buttons else []


def _description(card: Card) -> str:
    message = card.message
    lines = []
    if card.prompt:
        lines.append(f"> {_escaped(cut(' '.join(card.prompt.split()), LONGEST_PROMPT))}")
    lines.append(_escaped(cut(message.body, 1200)))
    if card.asked_by is not None:
        lines.append(f"asked for by {_escaped(cut(card.asked_by.name, 100))}")
    for link in _links(message):
        if sum(len(line) + 1 for line in lines) + len(link) <= LONGEST_DESCRIPTION:
            lines.append(link)
    return "\n".join(lines)


def _links(message: Message) -> Sequence[str]:
    return [
        f"[{_escaped(made.label)}]({made.url.replace('(', '%28').replace(')', '%29')})"
        for made in message.made
    ]


def _escaped(text: str) -> str:
    """With a backslash before all markup, but not in URLs, which a backslash would break."""
    parts: list[str] = []
    at = 0
    for address in ADDRESS.finditer(text):
        parts += [MARKUP.sub(r"\\\1", text[at : address.start()]), address[0]]
        at = address.end()
    return "".join([*parts, MARKUP.sub(r"\\\1", text[at:])])


def _line(text: str) -> dict[str, Any]:
    escaped = _escaped(text)
    while len(escaped) > LONGEST_CONTENT:
        text = cut(text, len(text) - max((len(escaped) - LONGEST_CONTENT) // 2, 1))  # a mark takes two places
        escaped = _escaped(text)
    return {"content": escaped, "flags": SUPPRESS_EMBEDS}


def _json_answer(content: Mapping[str, Any]) -> Answer:
    return Answer(headers=JSON, body=to_json(content))


def _aside(text: str) -> Answer:
    said = {**_line(text), "flags": EPHEMERAL | SUPPRESS_EMBEDS, "allowed_mentions": NO_MENTIONS}
    return _json_answer({"type": 4, "data": said})


# What comes back


def _judged(reply: Reply, headers: Mapping[str, str], content: Mapping[str, Any], *, is_own: bool) -> _Told:
    """
    Args:
        is_own: an endpoint that somebody made, not the answer to a command.
    """
    status = reply.status_code or 0
    message, code = content.get("id"), content.get("code")
    if 200 <= status < 300:
        if not isinstance(message, str):
            other = replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Discord does")
            return _Told(other)
        return _Told(reply, message)
    code = code if isinstance(code, int) else None
    if status == 429:
        after = content.get("retry_after")
        # Bounded before it is a float or a span of time, which do not hold every number; NaN is not above 0.
        seconds = 0.0
        if isinstance(after, int | float) and after > 0:
            seconds = float(min(after, LONGEST_RETRY_AFTER_S))
        waits = [seconds, _seconds(headers.get("x-ratelimit-reset-after"))]
        if reply.retry_after is not None:
            waits.append(reply.retry_after.total_seconds())
        return _Told(_too_fast(reply, max(waits)), code=code)
    # Discord shuts out callers that go on calling a webhook that was deleted.
    if is_own and (code in {UNKNOWN_WEBHOOK, INVALID_WEBHOOK_TOKEN} or (status == 404 and code is None)):
        return _Told(replace(reply, ending=AttemptOutcome.GONE, reason="there is no such webhook"), code=code)
    if exchange.refuses_for_good(status):
        return _Told(replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good"), code=code)
    return _Told(reply, code=code)


def _too_fast(reply: Reply | None, seconds: float) -> Reply:
    reply = reply or Reply(status_code=None, reason="")
    wait = timedelta(seconds=min(seconds, LONGEST_RETRY_AFTER_S))
    return replace(reply, ending=AttemptOutcome.RETRY, reason="too fast for Discord", retry_after=wait)


def _seconds(value: str | None) -> float:
    """Decimal; 0 for what is none."""
    if value is None or not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
        return 0.0
    return min(float(value), LONGEST_RETRY_AFTER_S)


# What is heard


class _User(Model):
    id: str
    username: str = ""


class _Member(Model):
    user: _User


class _Attachment(Model):
    url: str
    size: int


class _Resolved(Model):
    attachments: dict[str, _Attachment] = Field(default_factory=dict)


class _Option(Model):
    name: str
    type: int
    value: str | int | float | bool | None = None
    options: list["_Option"] = Field(default_factory=list, max_length=MOST_OPTIONS)


class _Data(Model):
    name: str = ""
    options: list[_Option] = Field(default_factory=list, max_length=MOST_OPTIONS)
    resolved: _Resolved = Field(default_factory=_Resolved)
    custom_id: str = ""


class _MessageId(Model):
    id: str


class _Interaction(Model):
    id: str
    type: int
    token: str = ""
    guild_id: str | None = None
    channel_id: str | None = None
    member: _Member | None = None
    user: _User | None = None
    data: _Data = Field(default_factory=_Data)
    message: _MessageId | None = None


def _verify(request: Inbound, public_key: str, now: datetime) -> None:
    """Checks the signature of the bytes as they came (Discord, "Security and Authorization").

    Raises:
        Forged.
    """
    sent_at = request.sent_at("x-signature-timestamp", within=WINDOW, now=now)
    try:
        signature = bytes.fromhex(request.headers.get("x-signature-ed25519", ""))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(signature, sent_at.encode() + request.body)
    except (ValueError, InvalidSignature):
        raise Forged("another signature") from None


def _commanded(asked: _Interaction) -> Heard:
    """The command as a person would have typed it: the grammar reads its options."""
    spoken = _speaker(asked)
    if spoken is None:
        return NOBODY
    person, address = spoken
    below = next((option for option in asked.data.options if option.type == SUB_COMMAND), None)
    word, given = (asked.data.name, asked.data.options) if below is None else (below.name, below.options)
    prompts = [str(option.value) for option in given if option.name == "prompt"]
    named = [as_said(one.name, _value(one.value)) for one in given if _is_named(one)]
    attached = sorted((option.name, str(option.value)) for option in given if option.type == ATTACHMENT)
    known = asked.data.resolved.attachments
    there = [known[id] for _, id in attached if id in known][:MOST_PICTURES]
    return Said(
        key=asked.id,
        person=person,
        text=" ".join([word, *prompts, *named]),
        pictures=[{"url": one.url, "size": one.size} for one in there],
        address=address,
    )


def _is_named(option: _Option) -> bool:
    return option.name != "prompt" and option.type in KINDS.values()


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pressed(asked: _Interaction) -> Heard:
    spoken = _speaker(asked)
    button = read_button_id(asked.data.custom_id)
    if spoken is None or button is None:
        return _aside("I do not know that button.")
    (person, address), (press, task_id) = spoken, button
    if asked.message is not None:
        address["message"] = asked.message.id
    return Pressed(
        key=asked.id,
        person=person,
        press=press,
        task_id=task_id,
        address=address,
    )


def _speaker(asked: _Interaction) -> tuple[Person, dict[str, Any]] | None:
    """Who, and where to answer."""
    user = asked.user if asked.member is None else asked.member.user
    if user is None or asked.channel_id is None:
        return None
    person = Person(
        workspace=asked.guild_id, chat=asked.channel_id, user=user.id, name=user.username or user.id
    )
    return person, {"token": asked.token, "channel": asked.channel_id}
