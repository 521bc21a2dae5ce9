"""Mattermost: a slash command or an outgoing webhook in, a post out; edited as the task advances by a bot account."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field
from pydantic_core import to_json
from yarl import URL

from handlers.chat.pictures import fetch_picture
from handlers.chat.platform import (
    END_WAS_TOLD,
    MOST_PICTURES,
    Answer,
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
    remembering_end,
    repeats_end,
    uncounted,
)
from handlers.chat.urls import WebUrl, plain_url_faults
from handlers.messages import Message, Mood, Urgency, cut
from handlers.sinks import exchange
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.models import StrictModel
from service.domain.values import replace
from service.network.connections import Answer as HttpAnswer
from service.network.dialler import Dialler

LONGEST_POST: Final = 16383  # characters of a post; of an attachment's text we take no more either
LONGEST_PROMPT: Final = 1000
# Commands are answered at `response_url` within half an hour; a minute less, for clocks and the way there.
ANSWERS_WITHIN: Final = timedelta(minutes=29)
LONGEST_RESET_S: Final = 3600
COLOURS: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "#1c76d1",
    Mood.GOOD: "#339970",
    Mood.BAD: "#d24b4e",
    Mood.WARNING: "#ffbc1f",
    Mood.NOTE: "#8d93a5",
}
MARKUP: Final = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]()#+|<>~"}
    | {"@": "@\u200b"}  # nobody is called by what others wrote
)
JSON_HEADERS: Final = {"content-type": "application/json"}
NOT_IN_CHANNEL: Final = Reply(
    status_code=None,
    reason="the bot is not in that channel: said when the task has ended",
    ending=AttemptOutcome.DELIVERED,
    exchanged=False,
)
TOO_LATE: Final = Reply(
    status_code=None,
    reason="half an hour after a command only a bot account in its channel can answer",
    ending=AttemptOutcome.DEAD,
)

Token = Annotated[str, Field(max_length=255, pattern=r"^[\x21-\x7e]+$")]
Id = Annotated[str, Field(pattern=r"^[a-z0-9]{26}$")]


class MattermostEndpoint(StrictModel):
    """An incoming webhook, or a bot account in a channel, whose posts are edited as a task advances."""

    webhook_url: WebUrl | None = Field(None, description="whoever has it can post: kept sealed")
    server: WebUrl | None = Field(None, description="with `bot_token`: the address of the Mattermost server")
    bot_token: Token | None = None
    channel_id: Id | None = None


class MattermostBot(StrictModel):
    """Without `bot_token` posts are not edited, attached pictures not seen, and after half an hour nothing is answered."""

    server: WebUrl = Field(description="the address of the Mattermost server")
    command_token: Token | None = Field(None, description="of the slash command")
    webhook_token: Token | None = Field(None, description="of the outgoing webhook")
    bot_token: Token | None = Field(None, description="of the bot account that answers")


class Mattermost:
    name = "mattermost"
    endpoint_model: type[BaseModel] = MattermostEndpoint
    endpoint_secrets = frozenset({"webhook_url", "bot_token"})
    bot_model: type[BaseModel] = MattermostBot
    bot_secrets = frozenset({"command_token", "webhook_token", "bot_token"})
    edits = True

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    def can_edit(self, to: Destination) -> bool:
        """An incoming webhook and a `response_url` do not tell the ids of their posts."""
        return "bot_token" in to.secrets

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        if isinstance(config, MattermostBot):
            faults = plain_url_faults(self._dialler, config.server, pointer=f"{pointer}/server")
            if config.command_token is None and config.webhook_token is None:
                detail = "Give the token of a slash command, of an outgoing webhook, or both."
                faults.append(Fault(detail, f"{pointer}/command_token"))
            return faults
        assert isinstance(config, MattermostEndpoint)
        by_bot = {name: getattr(config, name) for name in ("server", "bot_token", "channel_id")}
        if config.webhook_url is not None:
            detail = "An incoming webhook takes nothing else."
            return [
                *plain_url_faults(self._dialler, config.webhook_url, pointer=f"{pointer}/webhook_url"),
                *(Fault(detail, f"{pointer}/{name}") for name, value in by_bot.items() if value is not None),
            ]
        detail = "Give a webhook_url, or a server, a bot_token and a channel_id."
        missing = [Fault(detail, f"{pointer}/{name}") for name, value in by_bot.items() if value is None]
        return missing + (
            plain_url_faults(self._dialler, config.server, pointer=f"{pointer}/server")
            if config.server is not None
            else []
        )

    # Speaking

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        content = {"attachments": [_attachment(card, to)]}
        if to.address is None and "webhook_url" in to.secrets:
            return Spoken(reply=await self._hook(to.secrets["webhook_url"], content, to, now))
        if not self.can_edit(to):
            return Spoken(reply=await self._respond(to, content, now))
        spoken = await self._create(to, content, now)
        # 403: the bot is not in the channel. `response_url` reaches it without, but cannot edit.
        if spoken.reply.status_code == 403 and _response_url(to, now) is not None:
            if not (card.message.is_final or card.message.urgency is Urgency.HIGH):
                return Spoken(reply=NOT_IN_CHANNEL)
            reply = await self._respond(to, content, now)
            is_said = reply.status_code is not None and 200 <= reply.status_code < 300
            is_end = is_said and card.message.is_final
            return Spoken(reply=reply, reference=remembering_end({}, card) if is_end else None)
        return spoken

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        if "post" not in reference:
            if repeats_end(reference, card):
                return Spoken(reply=END_WAS_TOLD, reference=reference)
            return await self.post(to, card, now=now)
        props = {"props": {"attachments": [_attachment(card, to)]}}
        spoken = await self._call(to, "PUT", f"posts/{reference['post']}/patch", props, now)
        if (
            spoken.reply.status_code == 404
        ):  # somebody deleted the post: what became of the task is said all the same
            return await self.post(to, card, now=now)
        return spoken

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        """To the person alone where that is possible."""
        if _response_url(to, now) is not None:
            return await self._respond(to, {"text": _line(text), "response_type": "ephemeral"}, now)
        if not self.can_edit(to):
            return TOO_LATE
        return (await self._create(to, {"text": _line(text)}, now)).reply

    async def _create(self, to: Destination, content: Mapping[str, Any], now: datetime) -> Spoken:
        address = to.address or {"channel": to.config["channel_id"]}
        body = {
            "channel_id": address["channel"],
            "root_id": address.get("root", ""),
            "message": content.get("text", ""),
            "props": {"attachments": content.get("attachments", [])},
        }
        spoken = await self._call(to, "POST", "posts", body, now)
        if spoken.reply.status_code == 400 and body["root_id"]:  # what was answered is an answer itself
            return await self._call(to, "POST", "posts", {**body, "root_id": ""}, now)
        return spoken

    async def _call(
        self, to: Destination, method: str, path: str, body: Mapping[str, Any], now: datetime
    ) -> Spoken:
        """One call of the server's own API, which answers with the post as it now is."""
        token = to.secrets["bot_token"]
        reply, answer = await exchange.send(
            self._dialler,
            method,
            f"{_base(to.config)}/api/v4/{path}",
            body=to_json(body),
            headers={**JSON_HEADERS, "authorization": f"Bearer {token}"},
            now=now,
            hidden=_hidden(to),
        )
        if answer is None:
            return Spoken(reply=reply)
        reply = _judged(reply, answer)
        post = exchange.json_object(answer.body)
        if reply.ending is None and 200 <= answer.status < 300:
            if not isinstance(post.get("id"), str):
                return Spoken(reply=_not_mattermost(reply))
            return Spoken(reply=reply, reference={"post": post["id"]})
        return Spoken(reply=reply)

    async def _respond(self, to: Destination, content: Mapping[str, Any], now: datetime) -> Reply:
        url = _response_url(to, now)
        if url is None:
            return TOO_LATE
        reply, answer = await exchange.post(
            self._dialler,
            url,
            body=to_json({"response_type": "in_channel", **content}),
            headers=JSON_HEADERS,
            now=now,
            hidden=[*_hidden(to), url],
        )
        return reply if answer is None else _judged(reply, answer)

    async def _hook(self, url: str, content: Mapping[str, Any], to: Destination, now: datetime) -> Reply:
        reply, answer = await exchange.post(
            self._dialler, url, body=to_json(content), headers=JSON_HEADERS, now=now, hidden=_hidden(to)
        )
        if answer is None:
            return reply
        if (
            answer.status == 400
            and exchange.json_object(answer.body).get("id") == "web.incoming_webhook.invalid.app_error"
        ):
            return replace(reply, ending=AttemptOutcome.GONE, reason="there is no such incoming webhook")
        if 200 <= answer.status < 300 and answer.body.strip() != b"ok":
            return _not_mattermost(reply)
        return _judged(reply, answer)

    # Listening

    def hear(
        self,
        request: Inbound,
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        now: datetime,  # noqa: ARG002 - nothing in it is dated
    ) -> Heard:
        """What it sends is not signed: a token in it proves where it comes from; of buttons, a proof that we gave."""
        fields = _fields(request)
        if isinstance(context := fields.get("context"), dict):
            return _pressed(fields, context, secrets, request.body)
        by_command = "command" in fields
        expected = secrets.get("command_token" if by_command else "webhook_token")
        if expected is None or not _same(_text(fields, "token"), expected):
            raise Forged("not its token")
        text, post = _text(fields, "text"), _text(fields, "post_id")
        address = {"by": "command" if by_command else "message", "channel": _text(fields, "channel_id")}
        if by_command:
            key = _text(fields, "trigger_id") or hashlib.sha256(request.body).hexdigest()
            response_url = _text(fields, "response_url")
            if _is_at(response_url, config["server"]):  # nowhere else would an answer go to who asked
                address["response_url"] = response_url
            if root := _text(fields, "root_id"):
                address["root"] = root
            pictures: list[dict[str, str]] = []
        else:
            if not post:
                raise Forged("it names no post")
            key = post
            text = text.removeprefix(_text(fields, "trigger_word"))
            address["root"] = post
            names = _text(fields, "file_ids").split(",", MOST_PICTURES)[:MOST_PICTURES]
            pictures = [{"file": name} for name in names if name]
        return Said(key=key, person=_person(fields), text=text, pictures=pictures, address=address)

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:
        match heard.address["by"]:
            case "command":
                said = {"response_type": "ephemeral", "text": _line(text or "On its way.")}
            case "message":  # everybody sees it
                said = {} if text is None else {"response_type": "comment", "text": _line(text)}
            case _:
                said = {"ephemeral_text": _line(text or "On its way.")}
        return Answer(headers=JSON_HEADERS, body=to_json(said))

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        grown: Grown = uncounted,
    ) -> str:
        if "bot_token" not in secrets:
            raise NotFetched("this bot has no account on the server, and cannot see files; give addresses")
        if not _is_id(picture["file"]):
            raise NotFetched("its name is not one of Mattermost's")
        url = f"{_base(config)}/api/v4/files/{picture['file']}"
        headers = {"authorization": f"Bearer {secrets['bot_token']}"}
        return await fetch_picture(self._dialler, url, headers=headers, grown=grown)


def _base(config: Mapping[str, Any]) -> str:
    server: str = config["server"]
    return server.rstrip("/")


def _hidden(to: Destination) -> list[str]:
    names = ("webhook_url", "bot_token", "command_token", "webhook_token")
    return [to.secrets[name] for name in names if name in to.secrets]


def _response_url(to: Destination, now: datetime) -> str | None:
    """Where a command is answered, while Mattermost takes answers."""
    url: str | None = None if to.address is None else to.address.get("response_url")
    if url is None or not to.asked_within(ANSWERS_WITHIN, now):
        return None
    return url if _is_at(url, to.config["server"]) else None  # the server may have been changed since


def _is_at(url: str, server: str) -> bool:
    """Whether this URL is one of this server's addresses for answers to commands."""
    try:
        target, base = URL(url), URL(server)
        path = base.raw_path.rstrip("/") + "/hooks/commands/"
        return target.origin() == base.origin() and target.raw_path.startswith(path)
    except ValueError:
        return False


# What is sent


def _attachment(card: Card, to: Destination) -> dict[str, Any]:
    message = card.message
    shown: dict[str, Any] = {
        "fallback": cut(message.title, 200),
        "color": COLOURS[message.mood],
        "title": _escaped(message.title),
        "text": _text_of(card),
        "footer": message.task_id or "",
    }
    if message.link is not None:
        shown["title_link"] = message.link
    if message.picture is not None:
        shown["image_url"] = message.picture
    if card.buttons and to.url is not None and "bot_token" in to.secrets:
        shown["actions"] = [
            {
                "id": button.press.value,
                "name": button.label,
                "type": "button",
                "integration": {
                    "url": to.url,
                    "context": {
                        "task": button.task_id,
                        "press": button.press.value,
                        "proof": _proof(to.secrets["bot_token"], button.press, button.task_id),
                    },
                },
            }
            for button in card.buttons
        ]
    return shown


def _text_of(card: Card) -> str:
    message = card.message
    parts = []
    if card.prompt:
        parts.append(f"> {_escaped(cut(' '.join(card.prompt.split()), LONGEST_PROMPT))}\n")
    parts.append(_escaped(message.body))
    if card.asked_by is not None:
        parts.append(f"asked for by {_escaped(card.asked_by.name)}")
    if links := _links(message):
        parts.append(links)
    return cut("\n".join(parts), LONGEST_POST)


def _links(message: Message) -> str:
    return " · ".join(
        f"[{_escaped(made.label)}]({made.url.replace('(', '%28').replace(')', '%29')})"
        for made in message.made
    )


def _escaped(text: str) -> str:
    return text.translate(MARKUP)


def _line(text: str) -> str:
    return cut(_escaped(text), LONGEST_POST)


# What comes back


def _judged(reply: Reply, answer: HttpAnswer) -> Reply:
    if answer.status == 429:
        reset = answer.headers.get("x-ratelimit-reset", "")
        if reply.retry_after is None and reset.isascii() and reset.isdigit():
            return replace(reply, retry_after=timedelta(seconds=min(int(reset[:9]), LONGEST_RESET_S)))
        return reply
    if exchange.refuses_for_good(answer.status):
        return replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good")
    return reply


def _not_mattermost(reply: Reply) -> Reply:
    return replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Mattermost does")


# What is heard


def _fields(request: Inbound) -> dict[str, Any]:
    """
    Raises:
        Forged: neither a form nor a JSON object, which is all that Mattermost sends.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        return exchange.json_object(request.body)
    try:
        return dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise Forged("not a form") from None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _person(fields: Mapping[str, Any]) -> Person:
    """
    Raises:
        Forged: it does not say who.
    """
    user, chat = _text(fields, "user_id"), _text(fields, "channel_id")
    if not user or not chat:
        raise Forged("it does not say who asks, or where")
    return Person(
        workspace=_text(fields, "team_id") or None,
        chat=chat,
        user=user,
        name=_text(fields, "user_name") or user,
    )


def _pressed(
    fields: Mapping[str, Any], context: Mapping[str, Any], secrets: Mapping[str, Any], body: bytes
) -> Pressed:
    """
    Raises:
        Forged: not a button that we made.
    """
    task_id, press, token = _text(context, "task"), _text(context, "press"), secrets.get("bot_token")
    if (
        token is None
        or press not in set(Press)
        or not _same(_text(context, "proof"), _proof(token, Press(press), task_id))
    ):
        raise Forged("not one of our buttons")
    person = _person(fields)
    return Pressed(
        key=_text(fields, "trigger_id") or hashlib.sha256(body).hexdigest(),
        person=person,
        press=Press(press),
        task_id=task_id,
        address={"by": "button", "channel": person.chat},
    )


def _proof(token: str, press: Press, task_id: str) -> str:
    """That a button is ours: clients never see what it carries, and nobody else can make it."""
    return hmac.new(token.encode(), f"klingel-button\n{press}\n{task_id}".encode(), "sha256").hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _is_id(name: str) -> bool:
    return len(name) == 26 and name.isascii() and name.isalnum()
