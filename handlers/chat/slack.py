"""Slack: slash commands, mentions and buttons come in; one message for a task goes out, edited as it advances.

Three ways lead back: a bot token (into the channel or thread, edited there), a command's `response_url` (for half an
hour, five times, never edited), and an incoming webhook (whenever, never edited).
"""

import base64
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate, takewhile
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import from_json, to_json
from yarl import URL

from handlers.chat.pictures import fetch_picture
from handlers.chat.platform import (
    END_WAS_TOLD,
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
    remembering_end,
    repeats_end,
    uncounted,
)
from handlers.chat.urls import WebUrl, plain_url_faults, server_faults
from handlers.messages import ELLIPSIS, MARKS, cut
from handlers.sinks import exchange
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.media_types import HEAD, is_page
from service.domain.models import Model, StrictModel
from service.domain.times import utc_now
from service.domain.values import replace
from service.network.dialler import Dialler

# docs.slack.dev, "Verifying requests from Slack", "Handling user interaction", "Block Kit"; November 2026.
WINDOW: Final = timedelta(minutes=5)  # between Slack's clock and ours
ANSWERS_WITHIN: Final = timedelta(minutes=29)  # of 30: the last minute is for clocks and the way there
MOST_RESPONSES: Final = 5
LONGEST_TEXT: Final = 3000
LONGEST_FALLBACK: Final = 1000  # of what a notification shows
LONGEST_PROMPT: Final = 600
LONGEST_URL: Final = 3000
LONGEST_ALT_TEXT: Final = 500
LONGEST_LABEL: Final = 75
MOST_LINKS: Final = 9
ACTION: Final = "klingel."  # what the ids of our buttons begin with

# What an answer of the Web API means; anything else is tried again.
LATER: Final = frozenset({
    "ratelimited", "rate_limited", "message_limit_exceeded", "internal_error", "fatal_error", "request_timeout",
    "service_unavailable", "team_added_to_org", "external_channel_migrating", "update_failed",
})  # fmt: skip
GONE: Final = frozenset({"account_inactive", "token_revoked"})
FOR_GOOD: Final = frozenset({
    "access_denied", "accesslimited", "as_user_not_supported", "block_mismatch", "cannot_reply_to_message",
    "cant_update_message", "channel_not_found", "channel_type_not_supported", "edit_window_closed",
    "ekm_access_denied", "enterprise_is_restricted", "invalid_arguments", "invalid_auth", "invalid_blocks",
    "invalid_blocks_format", "is_archived", "is_inactive", "markdown_text_conflict", "message_not_found",
    "messages_tab_disabled", "method_deprecated", "missing_scope", "msg_blocks_too_long", "msg_too_long",
    "no_permission", "no_text", "not_allowed_token_type", "not_authed", "not_in_channel", "org_login_required",
    "restricted_action", "restricted_action_non_threadable_channel", "restricted_action_read_only_channel",
    "restricted_action_thread_locked", "restricted_action_thread_only_channel", "team_access_not_granted",
    "team_not_found", "thread_not_found", "token_expired", "too_many_attachments", "unknown_method",
    "user_not_in_channel",
})  # fmt: skip
# What an incoming webhook that was removed says, in plain text ("Sending messages using incoming webhooks").
HOOK_GONE: Final = frozenset({"no_service", "no_service_id", "no_active_hooks", "no_team", "invalid_token"})
PICTURE_REFUSED: Final = frozenset({"invalid_blocks", "invalid_blocks_format", "invalid_attachments"})

HALF_AN_HOUR: Final = (
    "Here Slack takes my answer for half an hour only. Later than that, ask me for the status."
)
NO_WAY_BACK: Final = Reply(
    status_code=None,
    reason="Slack's half hour to answer is over or used up, and the bot has neither a token nor a webhook",
    ending=AttemptOutcome.DEAD,
)

ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# What Slack makes of people, channels and links when it passes text on ("Formatting text": "Retrieving messages").
MARKUP: Final = re.compile(
    r"<(?P<sign>[@#!]|(?=https?:|mailto:|tel:))(?P<what>[^<>|]*)(?:\|(?P<label>[^<>]*))?>"
)
LINK: Final = re.compile(r"(?<!\S)https?://\S+")
FILE_PATH: Final = re.compile(
    r"/files/[A-Z0-9]+/(?P<page>F[A-Z0-9]+)(?:/|$)|/files-[a-z]+/[A-Z0-9]+-(?P<raw>F[A-Z0-9]+)(?:-|/|$)"
)

JSON: Final = "application/json; charset=utf-8"
FORM: Final = "application/x-www-form-urlencoded"

Token = Annotated[str, Field(max_length=512, pattern=r"^xox[\x21-\x7e]+$")]


class SlackBot(StrictModel):
    """With a token it answers wherever it is a member, and edits. Without, slash commands alone are answered, within
    half an hour; what comes later goes to the webhook, where there is one.
    """

    signing_secret: Annotated[str, Field(min_length=16, max_length=255, pattern=r"^[\x21-\x7e]+$")]
    bot_token: Token | None = None
    webhook_url: WebUrl | None = None
    server: WebUrl = "https://slack.com"


class SlackEndpoint(StrictModel):
    """An incoming webhook's URL, or a bot token and a channel's id: only with these is the message edited."""

    webhook_url: WebUrl | None = None
    bot_token: Token | None = None
    channel: Annotated[str, Field(pattern=r"^[CDGUW][A-Z0-9]{2,30}$")] | None = None
    thread_ts: Annotated[str, Field(pattern=r"^[0-9]{1,12}\.[0-9]{1,9}$")] | None = None
    server: WebUrl = "https://slack.com"


# What comes in, as far as it is read


class _Id(Model):
    id: str


class _Command(Model):
    text: str = ""
    trigger_id: str
    user_id: str
    user_name: str | None = None
    team_id: str | None = None
    channel_id: str
    response_url: str | None = None


def _first(files: object) -> object:
    return files[:MOST_PICTURES] if isinstance(files, list) else files


class _File(Model):
    id: str
    name: str | None = None
    user: str | None = None
    url_private: str | None = None
    file_access: str | None = None
    is_public: bool = False
    channels: Sequence[str] = ()
    groups: Sequence[str] = ()
    ims: Sequence[str] = ()

    @property
    def places(self) -> set[str]:
        return {*self.channels, *self.groups, *self.ims}


class _Written(Model):
    """A message that mentions the bot, or that somebody wrote to it alone."""

    user: str | None = None
    bot_id: str | None = None
    subtype: str | None = None
    channel: str
    channel_type: str | None = None
    text: str = ""
    ts: str
    thread_ts: str | None = None
    files: Annotated[Sequence[_File], BeforeValidator(_first)] = ()
    # Of the author, where a channel is shared between workspaces.
    user_team: str | None = None
    source_team: str | None = None
    team: str | None = None


class _Authorization(Model):
    user_id: str | None = None


class _Call(Model):
    """Of the Events API."""

    type: str
    challenge: str = ""
    team_id: str | None = None
    event: Mapping[str, Any] = {}
    authorizations: Sequence[_Authorization] = ()


class _Presser(Model):
    id: str
    username: str | None = None
    name: str | None = None
    team_id: str | None = None


class _Action(Model):
    action_id: str
    action_ts: str
    value: str | None = None


class _Under(Model):
    ts: str
    thread_ts: str | None = None


class _Interaction(Model):
    type: str
    user: _Presser
    team: _Id | None = None
    channel: _Id | None = None
    message: _Under | None = None
    response_url: str | None = None
    actions: Sequence[_Action] = ()


@dataclass(frozen=True, slots=True)
class _Ended:
    """An exchange with Slack, judged."""

    reply: Reply
    error: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        return self.reply.ending is AttemptOutcome.DELIVERED

    @property
    def is_over(self) -> bool:
        return _is_over(self.reply)

    def spoken(self, reference: Mapping[str, Any]) -> Spoken:
        """
        Args:
            reference: of the message, if it was sent.
        """
        return Spoken(reply=self.reply, reference=reference if self.is_well else None)


def _is_over(reply: Reply) -> bool:
    """Whether another try at the same place would end in the same way."""
    return reply.ending in {AttemptOutcome.DEAD, AttemptOutcome.GONE}


class Slack:
    """Listens to one app's requests, and speaks for it."""

    name = "slack"
    bot_model: type[BaseModel] = SlackBot
    bot_secrets = frozenset({"signing_secret", "bot_token", "webhook_url"})
    endpoint_model: type[BaseModel] = SlackEndpoint
    endpoint_secrets = frozenset({"webhook_url", "bot_token"})
    edits = True

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, (SlackBot, SlackEndpoint))
        faults = server_faults(self._dialler, config.server, pointer=f"{pointer}/server")
        if config.webhook_url is not None:
            faults += plain_url_faults(self._dialler, config.webhook_url, pointer=f"{pointer}/webhook_url")
            if not faults and not _is_slacks(config.server, config.webhook_url):
                faults.append(Fault("This is not a webhook of Slack.", f"{pointer}/webhook_url"))
        if isinstance(config, SlackEndpoint):
            faults += _either_faults(config, pointer)
        return faults

    # Listening

    def hear(
        self, request: Inbound, *, config: Mapping[str, Any], secrets: Mapping[str, Any], now: datetime
    ) -> Heard:
        if request.query.get("ssl_check") == "1" or b"ssl_check=1" in request.body.split(b"&"):
            return Answer()  # it looks at our certificate alone, and does not sign that
        _verify(request, secrets["signing_secret"], now)
        server = config["server"]
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == "application/json":
                return _heard_event(_Call.model_validate_json(request.body), server)
            form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100))
            if "payload" in form:
                return _heard_press(from_json(form["payload"]), server)
            return _heard_command(_Command.model_validate(form), server)
        except ValueError:
            return Answer(status=400, body=b"Not as Slack sends it\n")

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:
        """A slash command's answer is shown to who gave it; an event's and a button's to nobody."""
        if text is None:
            return Answer()
        if not heard.address.get("is_command"):
            return None
        body = to_json({"response_type": "ephemeral", "text": _escaped(text, LONGEST_TEXT)})
        return Answer(headers={"content-type": JSON}, body=body)

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        address = to.address or {}
        words = _escaped(text, LONGEST_TEXT)
        ended: _Ended | None = None
        if (response_url := _response_url(to, now)) is not None:
            told = {"response_type": "ephemeral", "replace_original": False, "text": words}
            ended = await self._hook(to, response_url, told, now)
        if (ended is None or ended.is_over) and "bot_token" in to.secrets:
            place = _place(to)
            if address.get("is_direct"):
                ended = await self._call(to, "chat.postMessage", {**place, "text": words}, now)
            else:
                whom = {"user": address["user"], "text": words}
                ended = await self._call(to, "chat.postEphemeral", {**place, **whom}, now)
        return NO_WAY_BACK if ended is None else ended.reply

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        grown: Grown = uncounted,
    ) -> str:
        token = secrets.get("bot_token")
        if token is None:
            raise NotFetched("I have no token for files in Slack; give the picture's public address")
        to = Destination(config=config, secrets=secrets)
        url = picture.get("url") or await self._found(to, picture)
        if not _is_slacks(to.config["server"], url):
            raise NotFetched("it is not kept in Slack")
        headers = {"authorization": f"Bearer {token}"}
        fetched = await fetch_picture(self._dialler, url, headers=headers, grown=grown)
        if is_page(base64.b64decode(fetched[: HEAD // 3 * 4])):
            raise NotFetched("Slack shows me a page instead; its app needs the scope files:read")
        return fetched

    async def _found(self, to: Destination, picture: Mapping[str, Any]) -> str:
        """The URL of a file that a person named by its id.

        The bot may see more files than this person, so only two kinds are given out: the person's own, and those
        that can be seen in the chat where they were named.
        """
        form = urlencode({"file": picture["id"]}).encode()
        ended = await self._exchange(to, "files.info", form, FORM, utc_now())
        if not ended.is_well:
            raise NotFetched(
                f"Slack does not show it to me: {ended.reply.reason}", may_come=not ended.is_over
            )
        try:
            file = _File.model_validate(ended.content.get("file"))
        except ValueError:
            raise NotFetched("Slack does not say where it is") from None
        is_seen = file.is_public or file.user == picture["user"] or picture["chat"] in file.places
        if not is_seen or file.url_private is None:
            raise NotFetched("it was not shared here")
        return file.url_private

    # Speaking

    def can_edit(self, to: Destination) -> bool:
        """By a `response_url` nothing is edited, but `edit` can add a message with the result."""
        return "bot_token" in to.secrets or "response_url" in (to.address or {})

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        return await self._post(to, card, now, {"responses": 0})

    async def _post(self, to: Destination, card: Card, now: datetime, before: Mapping[str, Any]) -> Spoken:
        """By the first way that is open: the next one is taken only where another try by this one would not help.

        Args:
            before: the reference so far; where nothing can be edited it holds how often the command's
                `response_url` was used.
        """
        spoken: Spoken | None = None
        for way in (self._by_token, self._by_response_url, self._by_webhook):
            if spoken is None or _is_over(spoken.reply):
                spoken = await way(to, card, now, before) or spoken
        return Spoken(reply=NO_WAY_BACK) if spoken is None else spoken

    async def _by_token(
        self,
        to: Destination,
        card: Card,
        now: datetime,
        before: Mapping[str, Any],  # noqa: ARG002 - nothing before matters to a new message that can be edited
    ) -> Spoken | None:
        if "bot_token" not in to.secrets:
            return None
        place = _place(to) | {"unfurl_links": False, "unfurl_media": False}
        ended = await self._show(
            card, lambda content: self._call(to, "chat.postMessage", {**place, **content}, now)
        )
        reference = {"channel": ended.content.get("channel"), "ts": ended.content.get("ts")}
        return ended.spoken(reference)

    async def _by_response_url(
        self, to: Destination, card: Card, now: datetime, before: Mapping[str, Any]
    ) -> Spoken | None:
        url, responses = _response_url(to, now), before["responses"]
        if url is None or responses >= MOST_RESPONSES:
            return None
        # Without a webhook the end may come too late to be said.
        end_may_be_lost = "webhook_url" not in to.secrets and not card.message.is_final
        said = {"response_type": "in_channel", "replace_original": False}
        ended = await self._show(
            card,
            lambda content: self._hook(to, url, {**content, **said}, now),
            note=HALF_AN_HOUR if end_may_be_lost else None,
        )
        return ended.spoken(remembering_end({**before, "responses": responses + 1}, card))

    async def _by_webhook(
        self, to: Destination, card: Card, now: datetime, before: Mapping[str, Any]
    ) -> Spoken | None:
        url = to.secrets.get("webhook_url")
        if url is None:
            return None
        ended = await self._show(card, lambda content: self._hook(to, url, content, now))
        return ended.spoken(remembering_end(before, card))

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        matters = card.message.matters_at_the_end
        if "ts" not in reference:
            if repeats_end(reference, card):
                return Spoken(reply=END_WAS_TOLD, reference=reference)
            # The last response is kept for the end.
            is_too_much = not card.message.is_final and reference["responses"] >= MOST_RESPONSES - 1
            if not matters or is_too_much:
                return Spoken(reply=SAID_AT_THE_END, reference=reference)
            return await self._post(to, card, now, reference)
        if "bot_token" not in to.secrets:
            return await self.post(to, card, now=now)
        place = {"channel": reference["channel"], "ts": reference["ts"]}
        ended = await self._show(
            card, lambda content: self._call(to, "chat.update", {**place, **content}, now)
        )
        if ended.is_over and matters:  # deleted, or too old to be changed
            return await self.post(to, card, now=now)
        return ended.spoken(reference)

    async def _show(
        self,
        card: Card,
        send: Callable[[Mapping[str, Any]], Awaitable[_Ended]],
        *,
        note: str | None = None,
    ) -> _Ended:
        """Slack fetches a picture before it takes the message, and refuses all of it where it cannot."""
        ended = await send(_content(card, note=note, with_picture=True))
        if ended.error in PICTURE_REFUSED and card.message.picture is not None:
            return await send(_content(card, note=note, with_picture=False))
        return ended

    async def _call(
        self, to: Destination, method: str, arguments: Mapping[str, Any], now: datetime
    ) -> _Ended:
        return await self._exchange(to, method, to_json(arguments), JSON, now)

    async def _exchange(
        self, to: Destination, method: str, body: bytes, content_type: str, now: datetime
    ) -> _Ended:
        token = to.secrets["bot_token"]
        reply, answer = await exchange.post(
            self._dialler,
            f"{to.config['server'].rstrip('/')}/api/{method}",
            body=body,
            headers={"content-type": content_type, "authorization": f"Bearer {token}"},
            now=now,
            hidden=[token],
        )
        return _Ended(reply) if answer is None else _judged(reply, answer.status, answer.body)

    async def _hook(self, to: Destination, url: str, content: Mapping[str, Any], now: datetime) -> _Ended:
        """An incoming webhook, or a command's `response_url`."""
        reply, answer = await exchange.post(
            self._dialler,
            url,
            body=to_json(content),
            headers={"content-type": JSON},
            now=now,
            hidden=[url, URL(url).raw_path, *to.secrets.values()],
        )
        return _Ended(reply) if answer is None else _judged_hook(reply, answer.status, answer.body)


def _verify(request: Inbound, signing_secret: str, now: datetime) -> None:
    """
    Raises:
        Forged.
    """
    sent_at = request.sent_at("x-slack-request-timestamp", within=WINDOW, now=now)
    signed = b"v0:" + sent_at.encode() + b":" + request.body
    expected = "v0=" + hmac.digest(signing_secret.encode(), signed, "sha256").hex()
    given = request.headers.get("x-slack-signature", "")
    if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
        raise Forged("another signature")


def _heard_command(command: _Command, server: str) -> Said:
    person = Person(
        workspace=command.team_id,
        chat=command.channel_id,
        user=command.user_id,
        name=command.user_name or command.user_id,
    )
    text, linked = _linked(_plain(command.text), server, person)
    address = _response_address(command.response_url, server)
    return Said(
        key=f"command:{command.trigger_id}",
        person=person,
        text=text,
        pictures=linked,
        address={**address, "channel": person.chat, "user": person.user, "is_command": True},
    )


def _heard_event(call: _Call, server: str) -> Said | Answer:
    if call.type == "url_verification":
        headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
        return Answer(headers=headers, body=call.challenge.encode())
    if call.type != "event_callback" or call.event.get("type") not in {"app_mention", "message"}:
        return Answer()
    said = _Written.model_validate(call.event)
    ourselves = {one.user_id for one in call.authorizations if one.user_id}
    # Bots' words are no orders, its own least of all; and of messages, those in a channel are not for it.
    if said.user is None or said.bot_id is not None or said.user in ourselves:
        return Answer()
    is_direct = said.channel_type == "im"
    if said.subtype not in {None, "file_share"} or (call.event["type"] == "message" and not is_direct):
        return Answer()
    person = Person(
        workspace=said.user_team or said.source_team or said.team or call.team_id,
        chat=said.channel,
        user=said.user,
        name=said.user,
    )
    text, linked = _linked(_plain(_after_mention(said.text, ourselves)), server, person)
    thread_ts = said.thread_ts or (None if is_direct else said.ts)
    return Said(
        # Not the event's id: an edited message, and one that is both a mention and direct, come as several events.
        key=f"message:{said.channel}:{said.ts}",
        person=person,
        text=text,
        pictures=[*(_attached(file, person) for file in said.files), *linked][:MOST_PICTURES],
        address={
            "channel": said.channel,
            "user": said.user,
            "is_direct": is_direct,
            **({} if thread_ts is None else {"thread_ts": thread_ts}),
        },
    )


def _heard_press(payload: object, server: str) -> Pressed | Answer:
    interaction = _Interaction.model_validate(payload)
    if interaction.type != "block_actions":
        return Answer()
    ours = {f"{ACTION}{press}": press for press in Press}
    action = next((one for one in interaction.actions if one.action_id in ours and one.value), None)
    if action is None or interaction.channel is None:  # a link was opened
        return Answer()
    user, chat, under = interaction.user, interaction.channel.id, interaction.message
    team = None if interaction.team is None else interaction.team.id
    address = _response_address(interaction.response_url, server)
    if under is not None and under.thread_ts is not None:
        address["thread_ts"] = under.thread_ts
    return Pressed(
        key=f"press:{chat}:{'' if under is None else under.ts}:{action.action_id}:{action.action_ts}",
        person=Person(
            workspace=user.team_id or team,
            chat=chat,
            user=user.id,
            name=user.username or user.name or user.id,
        ),
        press=ours[action.action_id],
        task_id=action.value or "",
        address={**address, "channel": chat, "user": user.id, "is_direct": chat.startswith("D")},
    )


def _response_address(url: str | None, server: str) -> dict[str, Any]:
    """The URL at which Slack takes answers, only where it leads to Slack."""
    return {"response_url": url} if url is not None and _is_slacks(server, url) else {}


def _after_mention(text: str, ourselves: set[str]) -> str:
    """What is said to the bot: after its name, or before, where nothing comes after."""
    who = "|".join(re.escape(user) for user in sorted(ourselves)) or "[A-Z0-9]+"
    before, *after = re.split(rf"<@(?:{who})(?:\|[^<>]*)?>", text, maxsplit=1)
    return after[0] if after and after[0].strip() else before


def _plain(text: str) -> str:
    """As it was typed."""
    written = MARKUP.sub(_written, text)
    return written.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _written(markup: re.Match[str]) -> str:
    sign, what, label = markup["sign"], markup["what"], markup["label"]
    if sign:
        return f"{sign.replace('!', '@')}{label or what}"
    return what if what.startswith("http") else label or what


def _linked(text: str, server: str, person: Person) -> tuple[str, list[Mapping[str, Any]]]:
    """Links to files in Slack are taken out: nobody else could open them."""
    found: list[Mapping[str, Any]] = []

    def take(link: re.Match[str]) -> str:
        file = FILE_PATH.search(URL(link[0]).path) if _is_slacks(server, link[0]) else None
        if file is None:
            return link[0]
        found.append({"id": file["page"] or file["raw"], "user": person.user, "chat": person.chat})
        return ""

    return LINK.sub(take, text), found[:MOST_PICTURES]


def _attached(file: _File, person: Person) -> Mapping[str, Any]:
    if file.url_private is None or file.file_access == "check_file_info":
        return {"id": file.id, "user": person.user, "chat": person.chat}
    return {"id": file.id, "url": file.url_private}


def _is_slacks(server: str, url: str) -> bool:
    """At this host, or one below it: Slack's files and hooks have hosts of their own."""
    try:
        ours, theirs = URL(server), URL(url)
        same = (ours.scheme, ours.port) == (theirs.scheme, theirs.port)
        host, below = ours.raw_host or "", theirs.raw_host or ""
    except ValueError:
        return False
    return same and theirs.raw_user is None and (below == host or below.endswith(f".{host}"))


def _either_faults(config: SlackEndpoint, pointer: str) -> list[Fault]:
    with_token = config.bot_token is not None
    if with_token == (config.webhook_url is not None):
        return [Fault("Give a webhook_url, or a bot_token and a channel.", f"{pointer}/webhook_url")]
    faults = []
    if with_token != (config.channel is not None):
        faults.append(Fault("A channel goes with a bot_token, and with nothing else.", f"{pointer}/channel"))
    if config.thread_ts is not None and not with_token:
        faults.append(Fault("Threads need a bot_token.", f"{pointer}/thread_ts"))
    if getattr(config, "updates", None) == "edited" and not with_token:
        detail = "A webhook cannot edit. Give a bot_token and a channel."
        faults.append(Fault(detail, f"{pointer}/updates"))
    return faults


def _place(to: Destination) -> dict[str, str]:
    """As every method that posts takes it."""
    given = to.config if to.address is None else to.address
    return {name: given[name] for name in ("channel", "thread_ts") if given.get(name) is not None}


def _response_url(to: Destination, now: datetime) -> str | None:
    url: str | None = None if to.address is None else to.address.get("response_url")
    return url if to.asked_within(ANSWERS_WITHIN, now) else None


def _judged(reply: Reply, status: int, body: bytes) -> _Ended:
    """An answer of the Web API: 200 also for what it refuses."""
    content = exchange.json_object(body)
    if content.get("ok") is True and status == 200:
        return _Ended(replace(reply, ending=AttemptOutcome.DELIVERED), content=content)
    error = content.get("error")
    if content.get("ok") is False and isinstance(error, str):
        ending = AttemptOutcome.RETRY
        if error in GONE:
            ending = AttemptOutcome.GONE
        elif error in FOR_GOOD and error not in LATER:
            ending = AttemptOutcome.DEAD
        return _Ended(replace(reply, ending=ending, reason=f"Slack refuses: {cut(error, 80)}"), error)
    if exchange.refuses_for_good(status):
        return _Ended(replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good"))
    if status == 200:
        return _Ended(replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Slack does"))
    return _Ended(replace(reply, ending=AttemptOutcome.RETRY))


def _judged_hook(reply: Reply, status: int, body: bytes) -> _Ended:
    """A hook says in plain text what it thinks; `ok` is the only good word."""
    content = exchange.json_object(body)
    if status == 200 and (body.strip() in {b"ok", b""} or content.get("ok") is True):
        return _Ended(replace(reply, ending=AttemptOutcome.DELIVERED))
    error = str(content.get("error") or body[:80].decode(errors="replace").strip())
    if error in HOOK_GONE:
        return _Ended(replace(reply, ending=AttemptOutcome.GONE, reason=f"Slack refuses: {error}"), error)
    if exchange.refuses_for_good(status):
        return _Ended(replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good"), error)
    if status == 200:
        return _Ended(replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Slack does"))
    return _Ended(replace(reply, ending=AttemptOutcome.RETRY))


def _content(card: Card, *, note: str | None, with_picture: bool) -> dict[str, Any]:
    """`text` is what a notification shows of it."""
    message = card.message
    mark, prompt = MARKS[message.mood], " ".join((card.prompt or "").split())
    title = _escaped(message.title, 200)
    blocks = [_section(f"{mark} *{title}*\n{_escaped(message.body, LONGEST_TEXT - 300)}")]
    if prompt:
        blocks.append(_section(f">{_escaped(prompt, LONGEST_PROMPT)}"))
    picture = message.picture
    if with_picture and picture is not None and len(picture) <= LONGEST_URL:
        alt_text = cut(prompt or message.title, LONGEST_ALT_TEXT)
        blocks.append({"type": "image", "image_url": picture, "alt_text": alt_text})
    if buttons := [*_links(card), *map(_button, card.buttons)]:
        blocks.append({"type": "actions", "elements": buttons})
    by = card.asked_by
    small = [note, None if by is None or by.name == by.user else f"Asked for by {cut(by.name, 80)}"]
    if shown := [_markdown(_escaped(text, LONGEST_TEXT)) for text in small if text]:
        blocks.append({"type": "context", "elements": shown})
    return {"text": f"{mark} {title}: {_escaped(prompt or message.body, LONGEST_FALLBACK)}", "blocks": blocks}


def _links(card: Card) -> list[dict[str, Any]]:
    made = [one for one in card.message.made if len(one.url) <= LONGEST_URL][:MOST_LINKS]
    return [
        {**_labelled(f"Open {one.label.lower()}"), "url": one.url, "action_id": f"{ACTION}open.{number}"}
        for number, one in enumerate(made, start=1)
    ]


def _button(button: Button) -> dict[str, Any]:
    return {**_labelled(button.label), "action_id": f"{ACTION}{button.press}", "value": button.task_id}


def _labelled(text: str) -> dict[str, Any]:
    return {"type": "button", "text": {"type": "plain_text", "text": cut(text, LONGEST_LABEL)}}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> dict[str, Any]:
    """`verbatim`: no names, channels or links are made of what only looks like them."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escaped(text: str, most: int) -> str:
    """At most so many characters, and only whole escapes."""
    escaped = text.translate(ESCAPES)
    if len(escaped) <= most:
        return escaped
    sizes = accumulate(len(character.translate(ESCAPES)) for character in text)
    fitting = sum(1 for _ in takewhile(lambda size: size < most, sizes))
    return text[:fitting].rstrip().translate(ESCAPES) + ELLIPSIS
