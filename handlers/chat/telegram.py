"""Telegram: a command in, by the bot API's webhook; one message a task out, edited into its picture or video."""

import hashlib
import hmac
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from handlers.chat.pictures import LARGEST_PICTURE, fetch_picture
from handlers.chat.platform import (
    Album,
    Answer,
    Attached,
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
from handlers.messages import ELLIPSIS, MARKS
from handlers.sinks import exchange
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.models import Model, StrictModel
from service.domain.tasks import OutputKind
from service.domain.times import utc_now
from service.domain.values import replace
from service.network.dialler import Dialler

SERVER: Final = "https://api.telegram.org"
SIGNED_BY: Final = "x-telegram-bot-api-secret-token"
# In UTF-16 code units, after the markup is taken out (Bot API, `sendMessage`, `sendPhoto`, `answerCallbackQuery`).
LONGEST_TEXT: Final = 4096
LONGEST_CAPTION: Final = 1024
LONGEST_NOTICE: Final = 200
LONGEST_PROMPT: Final = 600
LONGEST_RETRY_AFTER_S: Final = 3600
MOST_SIZES: Final = 50  # of a photo; Telegram tells of a handful
JSON_HEADERS: Final = {"content-type": "application/json"}
MOVED: Final = Reply(status_code=None, reason="the group has another id now", ending=AttemptOutcome.DEAD)
UPDATES: Final = ("message", "callback_query")  # what Telegram is asked to send
PICTURES: Final = frozenset({"image/jpeg", "image/png"})
COMMAND: Final = re.compile(
    r"/(?P<name>[A-Za-z0-9_]{1,32})(?:@(?P<to>[A-Za-z0-9_]{1,64}))?(?:\s+(?P<rest>.*))?", re.DOTALL
)
WHOLE: Final = frozenset({"kling", "klingel"})  # `/kling image a cat`: the command stands after the name
ALONE: Final = WHOLE | {"image", "video"}  # taken as ours in a group also without `@` and the bot's name
FILE_PATH: Final = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*(?:\.[A-Za-z0-9]+)?")

Token = Annotated[str, Field(pattern=r"^[0-9]{3,20}:[A-Za-z0-9_-]{20,100}$")]
Server = Annotated[WebUrl, Field(description="another Bot API server than Telegram's own")]


class TelegramEndpoint(StrictModel):
    """A chat that a bot is in."""

    token: Token = Field(description="the bot's, by BotFather")
    chat_id: Annotated[str, Field(pattern=r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{4,64})$")]
    message_thread_id: Annotated[int, Field(gt=0)] | None = Field(None, description="a topic of a forum")
    server: Server = SERVER


class TelegramBot(StrictModel):
    """`klingel chat register telegram` tells Telegram of it."""

    token: Token = Field(description="by BotFather")
    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{4,64}$")] = Field(
        description="without the @; commands to other bots in a group are not ours"
    )
    server: Server = SERVER


def webhook_secret(token: str) -> str:
    """What Telegram is told to send with each update: nobody without the bot's token can make it."""
    return hmac.new(token.encode(), b"klingel webhook", hashlib.sha256).hexdigest()


def commands() -> list[dict[str, str]]:
    """For the menu that Telegram shows."""
    said = {
        "image": "make pictures, of up to four pictures or of none",
        "video": "make a video, of up to four pictures or of none",
        "status": "your latest tasks",
        "help": "how to ask",
    }
    return [{"command": name, "description": description} for name, description in said.items()]


@dataclass(frozen=True, slots=True)
class _Media:
    kind: str  # as `InputMedia` and the methods' fields name it
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class _Told:
    reply: Reply
    chat: str  # where it went in the end
    message: int | None = None
    problem: str = ""  # the description of a refusal, in lower case
    moved: bool = False

    @property
    def is_done(self) -> bool:
        return self.reply.ending is AttemptOutcome.DELIVERED

    @property
    def refuses_content(self) -> bool:
        """Telegram refuses what is shown, and not the chat."""
        return self.reply.status_code in {400, 413} and "chat not found" not in self.problem

    @property
    def is_lost(self) -> bool:
        """The message that was to be edited is not there any more."""
        return self.moved or any(
            words in self.problem for words in ("message to edit not found", "message can't be edited", "message_id_invalid")
        )  # fmt: skip


class Telegram:
    name = "telegram"
    endpoint_model: type[BaseModel] = TelegramEndpoint
    endpoint_secrets = frozenset({"token"})
    bot_model: type[BaseModel] = TelegramBot
    bot_secrets = frozenset({"token"})
    edits = True

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        # The new ids of groups that became supergroups, by token and chat. Not stored: Telegram's next refusal tells them.
        self._moved: dict[tuple[str, str], str] = {}

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, TelegramBot | TelegramEndpoint)
        return plain_url_faults(self._dialler, config.server, pointer=f"{pointer}/server")

    # Speaking

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        place = _place(to)
        for media in _media(card):
            shown = {media.kind: media.url, "caption": _text(card, LONGEST_CAPTION), **_markup(card)}
            told = await self._call(to, media.method, {**place, **shown}, now)
            if not told.refuses_content:
                return _spoken(told, media)
        told = await self._call(to, "sendMessage", {**place, **_written(card), **_markup(card)}, now)
        return _spoken(told, None)

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        which = {"chat_id": reference["chat"], "message_id": reference["message"]}
        shown: str | None = reference["media"]
        told, media = await self._edited(to, which, shown, card, now)
        if told.is_lost:
            return await self.post(to, card, now=now)
        if not told.is_done:
            return Spoken(reply=told.reply)
        url = shown if media is None else media.url
        return Spoken(reply=told.reply, reference={**reference, "media": url})

    async def _edited(
        self, to: Destination, which: Mapping[str, Any], shown: str | None, card: Card, now: datetime
    ) -> tuple[_Told, _Media | None]:
        """
        Args:
            shown: the URL of the picture or video that the message is; none of text. It cannot become text again.
        """
        caption = {"caption": _text(card, LONGEST_CAPTION), "parse_mode": "HTML"}
        for media in _media(card):
            if media.url == shown:
                break
            new = {"media": {"type": media.kind, "media": media.url, **caption}}
            told = await self._call(to, "editMessageMedia", {**which, **new, **_buttons(card)}, now)
            if told.is_done or told.is_lost or not told.refuses_content:
                return told, media
        if shown is not None:
            content = {**which, **caption, **_buttons(card)}
            return await self._call(to, "editMessageCaption", content, now), None
        return await self._call(
            to, "editMessageText", {**which, **_written(card), **_markup(card)}, now
        ), None

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        return (await self._call(to, "sendMessage", {**_place(to), **_plain(text)}, now)).reply

    async def _call(self, to: Destination, method: str, content: Mapping[str, Any], now: datetime) -> _Told:
        """One call; where the group has become another one, a second call there.

        A message is not edited there, for its id may be another message's: `moved` says that it is lost.
        """
        token = to.secrets["token"]
        given = str(content["chat_id"])
        chat = self._moved.get((token, given), given)
        if chat != given and "message_id" in content:
            return _Told(MOVED, chat, moved=True)
        told = await self._called(to, method, {**content, "chat_id": chat}, chat, now)
        if told.moved:
            self._moved[token, given] = told.chat
            if "message_id" not in content:
                return await self._called(to, method, {**content, "chat_id": told.chat}, told.chat, now)
        return told

    async def _called(
        self, to: Destination, method: str, content: Mapping[str, Any], chat: str, now: datetime
    ) -> _Told:
        reply, answer = await exchange.post(
            self._dialler,
            f"{_base(to.config)}/bot{to.secrets['token']}/{method}",
            body=to_json(content),
            headers=JSON_HEADERS,
            now=now,
            hidden=[to.secrets["token"]],
        )
        if answer is None:
            return _Told(reply, chat)
        return _judged(reply, exchange.json_object(answer.body), chat, is_own=to.address is None)

    # Listening

    def hear(
        self,
        request: Inbound,
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        now: datetime,  # noqa: ARG002 - nothing in it is dated
    ) -> Heard:
        given = request.headers.get(SIGNED_BY, "")
        if not hmac.compare_digest(given.encode(errors="replace"), webhook_secret(secrets["token"]).encode()):
            raise Forged("another secret")
        try:
            update = _Update.model_validate_json(request.body)
        except ValidationError:
            return Answer()  # of a kind that concerns no bot of ours
        if update.message is not None:
            return _heard(update.update_id, update.message, config["username"])
        if update.callback_query is not None:
            return _pressed(update.update_id, update.callback_query)
        return Answer()

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:
        """One call may be made by the answer itself (Bot API, "Making requests when getting updates")."""
        if isinstance(heard, Pressed):
            notice = {"text": _cut(text, LONGEST_NOTICE), "show_alert": True} if text else {}
            call = {"method": "answerCallbackQuery", "callback_query_id": heard.address["query"], **notice}
        elif text is not None:
            call = {"method": "sendMessage", **_place_of(heard.address), **_plain(text)}
        else:
            return Answer()
        return Answer(headers=JSON_HEADERS, body=to_json(call))

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        grown: Grown = uncounted,
    ) -> str:
        """Its URL has the bot's token in it: it stays here."""
        if (picture.get("size") or 0) > LARGEST_PICTURE:
            raise NotFetched(f"it is larger than {LARGEST_PICTURE // (1024 * 1024)} MB")
        to = Destination(config=config, secrets=secrets, address={})
        reply, answer = await exchange.post(
            self._dialler,
            f"{_base(config)}/bot{secrets['token']}/getFile",
            body=to_json({"file_id": picture["file"]}),
            headers=JSON_HEADERS,
            now=utc_now(),
            hidden=[secrets["token"]],
        )
        if answer is None:
            raise NotFetched(reply.reason, may_come=True)
        content = exchange.json_object(answer.body)
        if not content.get("ok"):
            judged = _judged(reply, content, "", is_own=False)
            may_come = judged.reply.ending in {None, AttemptOutcome.RETRY}
            raise NotFetched(judged.problem or "Telegram does not give it", may_come=may_come)
        path = str((content.get("result") or {}).get("file_path") or "")
        if not FILE_PATH.fullmatch(path):
            raise NotFetched("Telegram does not say where it is")
        url = f"{_base(to.config)}/file/bot{secrets['token']}/{path}"
        return await fetch_picture(self._dialler, url, headers={}, grown=grown)


def _base(config: Mapping[str, Any]) -> str:
    server: str = config["server"]
    return server.rstrip("/")


def _place(to: Destination) -> dict[str, Any]:
    if to.address is not None:
        return _place_of(to.address)
    place = {"chat_id": to.config["chat_id"]}
    if (thread := to.config.get("message_thread_id")) is not None:
        place["message_thread_id"] = thread
    return place


def _place_of(address: Mapping[str, Any]) -> dict[str, Any]:
    place = {
        "chat_id": address["chat"],
        "reply_parameters": {"message_id": address["message"], "allow_sending_without_reply": True},
    }
    if address.get("thread") is not None:
        place["message_thread_id"] = address["thread"]
    return place


# What is sent


def _media(card: Card) -> Iterator[_Media]:
    """What a message may show, the best first: where Telegram does not take one, the next is tried."""
    message = card.message
    film = next((made.url for made in message.made if made.kind is OutputKind.VIDEO), None)
    if film is not None:
        yield _Media("video", "sendVideo", film)
    if message.picture is not None:
        yield _Media("photo", "sendPhoto", message.picture)


def _written(card: Card) -> dict[str, Any]:
    preview = card.message.picture or card.message.link
    options = {"is_disabled": True} if preview is None else {"url": preview, "prefer_large_media": True}
    return {"text": _text(card, LONGEST_TEXT), "link_preview_options": options}


def _plain(text: str) -> dict[str, Any]:
    return {"text": _cut(text, LONGEST_TEXT), "link_preview_options": {"is_disabled": True}}


def _markup(card: Card) -> dict[str, Any]:
    return {"parse_mode": "HTML", **_buttons(card)}


def _buttons(card: Card) -> dict[str, Any]:
    """One button a row. An edit that names no buttons takes them away."""
    rows = [[{"text": button.label, "callback_data": button.id}] for button in card.buttons]
    return {"reply_markup": {"inline_keyboard": rows}} if rows else {}


def _text(card: Card, most: int) -> str:
    """HTML, of which at most `most` UTF-16 code units are seen."""
    message = card.message
    title = f"{MARKS[message.mood]} {_cut(message.title, 100)}"
    asker = "" if card.asked_by is None else _cut(f"asked for by {card.asked_by.name}", 100)
    links = " · ".join(made.label for made in message.made)
    room = most - _size(title + asker + links) - 10  # line ends
    body = _cut(message.body, room // 2)
    prompt = _cut(" ".join((card.prompt or "").split()), min(room - _size(body), LONGEST_PROMPT))
    parts = [
        f"<b>{html.escape(title)}</b>",
        f"<blockquote>{html.escape(prompt)}</blockquote>" if prompt else "",
        html.escape(body),
        " · ".join(
            f'<a href="{html.escape(made.url)}">{html.escape(made.label)}</a>' for made in message.made
        ),
        f"<i>{html.escape(asker)}</i>" if asker else "",
    ]
    return "\n".join(part for part in parts if part)


def _size(text: str) -> int:
    """As Telegram counts: characters beyond the basic plane are two."""
    return len(text.encode("utf-16-le", errors="replace")) // 2


def _cut(text: str, most: int) -> str:
    if _size(text) <= most:
        return text
    kept = text.encode("utf-16-le", errors="replace")[: (most - 1) * 2]
    return kept.decode("utf-16-le", errors="ignore").rstrip() + ELLIPSIS


# What comes back


def _judged(reply: Reply, content: Mapping[str, Any], chat: str, *, is_own: bool) -> _Told:
    """
    Args:
        is_own: an endpoint that somebody made, not the answer to a command.
    """
    problem = str(content.get("description") or "").lower()
    parameters = content.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    if content.get("ok") is True:
        result = content.get("result")
        message = result.get("message_id") if isinstance(result, dict) else None
        done = replace(reply, ending=AttemptOutcome.DELIVERED)
        return _Told(done, chat, message if isinstance(message, int) else None)
    code = content.get("error_code")
    # Its codes are HTTP's; what is none may be too large for a database.
    if content.get("ok") is not False or not isinstance(code, int) or not 100 <= code < 600:
        other = replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Telegram does")
        return _Told(other if reply.status_code == 200 else reply, chat)
    reply = replace(reply, status_code=code)
    if isinstance(new := parameters.get("migrate_to_chat_id"), int):
        return _Told(replace(MOVED, status_code=code), str(new), problem=problem, moved=True)
    match code:
        case 400 if "message is not modified" in problem:
            return _Told(replace(reply, ending=AttemptOutcome.DELIVERED, reason="shown already"), chat)
        case 429:
            seconds = parameters.get("retry_after")
            wait = reply.retry_after
            if isinstance(seconds, int) and seconds > 0:
                wait = timedelta(seconds=min(seconds, LONGEST_RETRY_AFTER_S))
            waiting = replace(
                reply, ending=AttemptOutcome.RETRY, reason="too fast for Telegram", retry_after=wait
            )
            return _Told(waiting, chat, problem=problem)
        case 403:  # blocked by the user, or thrown out of the chat
            ending = AttemptOutcome.GONE if is_own else AttemptOutcome.DEAD
            return _Told(
                replace(reply, ending=ending, reason="the bot may not speak there"), chat, problem=problem
            )
        case _ if code >= 500:
            return _Told(replace(reply, ending=AttemptOutcome.RETRY), chat, problem=problem)
        case _:
            return _Told(
                replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good"), chat, problem=problem
            )


def _spoken(told: _Told, media: _Media | None) -> Spoken:
    if told.message is None:
        return Spoken(reply=told.reply)
    url = None if media is None else media.url
    return Spoken(reply=told.reply, reference={"chat": told.chat, "message": told.message, "media": url})


# What is heard


class _User(Model):
    id: int
    is_bot: bool = False
    first_name: str = ""
    username: str | None = None


class _Chat(Model):
    id: int
    type: str


class _Photo(Model):
    file_id: str
    width: int
    height: int
    file_size: int | None = None


class _Document(Model):
    file_id: str
    mime_type: str | None = None
    file_size: int | None = None


class _Message(Model):
    message_id: int
    sender: _User | None = Field(None, alias="from")
    chat: _Chat
    message_thread_id: int | None = None
    is_topic_message: bool = False
    media_group_id: str | None = None
    text: str | None = None
    caption: str | None = None
    photo: list[_Photo] = Field(default_factory=list, max_length=MOST_SIZES)
    document: _Document | None = None
    reply_to_message: "_Message | None" = None

    def pictures(self) -> list[dict[str, Any]]:
        """A photo in its largest size; a picture that was sent as a file."""
        if self.photo:
            largest = max(self.photo, key=lambda size: size.width * size.height)
            return [{"file": largest.file_id, "size": largest.file_size}]
        if self.document is not None and self.document.mime_type in PICTURES:
            return [{"file": self.document.file_id, "size": self.document.file_size}]
        return []

    def album(self) -> Album | None:
        if self.media_group_id is None or not self.pictures():
            return None
        return Album(id=f"{self.chat.id}:{self.media_group_id}", place=self.message_id)

    def address(self) -> dict[str, Any]:
        address: dict[str, Any] = {"chat": str(self.chat.id), "message": self.message_id}
        if self.is_topic_message:
            address["thread"] = self.message_thread_id
        return address


class _Query(Model):
    id: str
    sender: _User = Field(alias="from")
    data: str = ""
    message: _Message | None = None


class _Update(Model):
    update_id: int
    message: _Message | None = None
    callback_query: _Query | None = None


def _heard(update_id: int, message: _Message, username: str) -> Heard:
    if message.sender is None or message.sender.is_bot:
        return Answer()
    person = _person(message.sender, message.chat)
    text = _asked(message.text or message.caption or "", message.chat, username)
    own = message.album()
    if text is None:
        if own is None:
            return Answer()
        return Attached(person=person, pictures=message.pictures(), album=own)
    replied = message.reply_to_message
    before = [] if replied is None else replied.pictures()
    return Said(
        key=str(update_id),
        person=person,
        text=text,
        pictures=[*before, *message.pictures()],
        album=own if own is not None or replied is None else replied.album(),
        address=message.address(),
    )


def _asked(text: str, chat: _Chat, username: str) -> str | None:
    """The command's words; None where nothing was said to this bot."""
    command = COMMAND.fullmatch(text.strip())
    if command is None:
        return " ".join(text.split()) or None if chat.type == "private" else None
    name, to, rest = command["name"].lower(), command["to"], " ".join((command["rest"] or "").split())
    if to is not None and to.lower() != username.lower():
        return None
    if to is None and chat.type != "private" and name not in ALONE:
        return None  # which of the bots here is meant?
    if name in WHOLE:
        return rest or "help"
    return "help" if name == "start" else f"{name} {rest}".strip()


def _pressed(update_id: int, query: _Query) -> Heard:
    button = read_button_id(query.data)
    if button is None or query.message is None:
        return Answer()
    press, task_id = button
    return Pressed(
        key=str(update_id),
        person=_person(query.sender, query.message.chat),
        press=press,
        task_id=task_id,
        address={**query.message.address(), "query": query.id},
    )


def _person(user: _User, chat: _Chat) -> Person:
    return Person(
        workspace=None,
        chat=str(chat.id),
        user=str(user.id),
        name=user.username or user.first_name or str(user.id),
    )
