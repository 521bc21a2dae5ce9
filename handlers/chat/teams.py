"""Microsoft Teams: cards to a channel or chat, by a workflow's webhook. It takes no commands, and edits nothing."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, Field
from pydantic_core import to_json
from yarl import URL

from handlers.chat.platform import Card, Destination, Spoken
from handlers.chat.urls import WebUrl
from handlers.messages import Mood, cut, cut_bytes
from handlers.sinks import exchange
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.models import StrictModel
from service.domain.values import replace
from service.network.connections import Answer
from service.network.dialler import Dialler, Refused

# A message has at most 28 KB (Microsoft Learn, "Create and send messages"): all of these together stay below it.
LONGEST_TITLE: Final = 200
LONGEST_PROMPT_BYTES: Final = 2000
LONGEST_BODY_BYTES: Final = 4000
LONGEST_URL: Final = 2000
MOST_LINKS: Final = 4
SHORTEST_SECRET: Final = 16
# What a connector says under status 200 when the message went nowhere.
ENDED_BADLY: Final = re.compile(rb"(?:returned HTTP error|failed with error)\D{0,80}(?P<status>\d{3})")
PAUSE: Final = timedelta(seconds=30)  # after too many: four a second, sixty in half a minute
COLOURS: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "accent",
    Mood.GOOD: "good",
    Mood.BAD: "attention",
    Mood.WARNING: "warning",
    Mood.NOTE: "default",
}


class TeamsEndpoint(StrictModel):
    """The workflow's own address: whoever has it can post."""

    webhook_url: WebUrl = Field(description="of the workflow, with its signature: kept sealed")


class Teams:
    """Workflows have the hosts of their environments, in several clouds: any address may be one."""

    name = "teams"
    endpoint_model: type[BaseModel] = TeamsEndpoint
    endpoint_secrets = frozenset({"webhook_url"})
    edits = False

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, TeamsEndpoint)
        try:
            self._dialler.check(config.webhook_url)
        except Refused as error:
            return [Fault(f"The URL cannot be used: {error}.", f"{pointer}/webhook_url")]
        return []

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        url = to.secrets["webhook_url"]
        reply, answer = await exchange.post(
            self._dialler,
            url,
            body=to_json(_content(card)),
            headers=exchange.JSON_UTF8_HEADERS,  # without its charset the size would count twice
            now=now,
            hidden=_hidden(url),
        )
        return Spoken(reply=reply if answer is None else _judged(reply, answer))

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        raise NotImplementedError("it does not edit")


def _hidden(url: str) -> list[str]:
    """All of it that is long enough to be a secret, as it was given and as it goes out."""
    parsed = URL(url)
    parts = [url, parsed.raw_path_qs, parsed.raw_path, *url.partition("?")[2].split("&")]
    return [*parts, *(value for value in parsed.query.values() if len(value) >= SHORTEST_SECRET)]


def _content(card: Card) -> dict[str, Any]:
    """An Adaptive Card. What others wrote goes into text runs, in which nothing is markup."""
    message = card.message
    title = {"type": "TextBlock", "text": cut(message.title, LONGEST_TITLE), "wrap": True}
    body: list[dict[str, Any]] = [
        title | {"weight": "Bolder", "size": "Medium", "color": COLOURS[message.mood]}
    ]
    prompt = cut_bytes(" ".join((card.prompt or "").split()), LONGEST_PROMPT_BYTES)
    if prompt:
        body.append(_text(prompt, italic=True))
    made = [one for one in message.made if len(one.url) <= LONGEST_URL][:MOST_LINKS]
    if message.picture is not None and len(message.picture) <= LONGEST_URL:
        picture = {"type": "Image", "url": message.picture, "altText": cut(prompt or message.title, 300)}
        opened = {"selectAction": {"type": "Action.OpenUrl", "url": made[0].url}} if made else {}
        body.append(picture | opened)
    body += [_text(line) for line in cut_bytes(message.body, LONGEST_BODY_BYTES).splitlines()]
    content = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": [
            {"type": "Action.OpenUrl", "title": f"Open {one.label.lower()}", "url": one.url} for one in made
        ],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    attachment = {"contentType": kind, "contentUrl": None, "content": content}
    return {"type": "message", "attachments": [attachment]}


def _text(text: str, *, italic: bool = False) -> dict[str, Any]:
    run: dict[str, Any] = {"type": "TextRun", "text": text}
    return {"type": "RichTextBlock", "inlines": [run | {"italic": True} if italic else run]}


def _judged(reply: Reply, answer: Answer) -> Reply:
    status = answer.status
    if 200 <= status < 300:
        if (bad := ENDED_BADLY.search(answer.body)) is not None:
            return _ended_badly(reply, int(bad["status"]))
        if "html" in answer.headers.get("content-type", ""):  # a page to sign in at, or a portal
            return replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as Teams does")
        return replace(reply, ending=AttemptOutcome.DELIVERED)
    error = exchange.json_object(answer.body).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if status == 404 and code == "WorkflowNotFound":
        return replace(reply, ending=AttemptOutcome.GONE, reason="there is no such workflow any more")
    if exchange.refuses_for_good(status) and status != 410:
        return replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good")
    return reply


def _ended_badly(reply: Reply, status: int) -> Reply:
    reason = f"answered, but Teams did not take it: {status}"
    if exchange.refuses_for_good(status):
        return replace(reply, ending=AttemptOutcome.DEAD, reason=reason)
    wait = reply.retry_after or (PAUSE if status == 429 else None)
    return replace(reply, ending=AttemptOutcome.RETRY, reason=reason, retry_after=wait)
