"""DingTalk: a group's custom bot. It takes no commands, and what it said cannot be edited."""

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import BaseModel, Field
from pydantic_core import to_json
from yarl import URL

from handlers.chat.codes import Codes
from handlers.chat.platform import Card, Destination, Spoken
from handlers.chat.urls import WebUrl, server_faults, webhook_faults
from handlers.messages import MARKS, cut, cut_bytes
from handlers.sinks import exchange
from service.domain.errors import Fault
from service.domain.models import StrictModel
from service.network.dialler import Dialler

SERVER: Final = "https://oapi.dingtalk.com"
PATH: Final = "/robot/send"
LONGEST_TITLE: Final = 100
LONGEST_PROMPT_BYTES: Final = 2000
LONGEST_BODY_BYTES: Final = 6000
LONGEST_URL: Final = 2048
MOST_BUTTONS: Final = 5
# open.dingtalk.com, "Custom robot access": "Error codes".
CODES: Final = Codes(
    platform="DingTalk",
    code_name="errcode",
    gone=frozenset({300001, 400013, 400101, 400102, 400106}),  # no such token, bot or group any more
    for_good=frozenset({40035, 43004, 310000, 400105, 430101, 430102, 430103, 430104}),
    too_fast=frozenset({90030, 130101, 410100}),  # twenty a minute
    pause=timedelta(minutes=1),
    reasons={310000: "DingTalk's check: the bot asks for another keyword, address or signature"},
)
# Its Markdown has no escapes that all its clients know: what would be markup is shown by its wide twin.
TWINS: Final = str.maketrans(
    {character: chr(ord(character) + 0xFEE0) for character in "<>[]*#`"} | {"@": "@\u200b"}
)


class DingtalkEndpoint(StrictModel):
    """Both secrets are kept sealed."""

    webhook_url: WebUrl = Field(description="of the custom bot, with its access_token")
    secret: Annotated[str, Field(pattern=r"^[\x21-\x7e]{8,255}$")] | None = Field(
        None, description="where the bot asks for signatures: it begins with SEC"
    )
    server: WebUrl = SERVER


class Dingtalk:
    name = "dingtalk"
    endpoint_model: type[BaseModel] = DingtalkEndpoint
    endpoint_secrets = frozenset({"webhook_url", "secret"})
    edits = False

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, DingtalkEndpoint)
        faults = server_faults(self._dialler, config.server, pointer=f"{pointer}/server")
        return faults + webhook_faults(
            self._dialler,
            config.webhook_url,
            servers=[] if faults else [config.server],
            path=PATH,
            parameter="access_token",
            pointer=f"{pointer}/webhook_url",
        )

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        url, secret = to.secrets["webhook_url"], to.secrets.get("secret")
        reply, answer = await exchange.post(
            self._dialler,
            url if secret is None else f"{url}&{_signature(secret, now)}",
            body=to_json({**_content(card), "at": {"isAtAll": False}}),
            headers=exchange.JSON_UTF8_HEADERS,
            now=now,
            hidden=[url, URL(url).query["access_token"], secret or ""],
        )
        return Spoken(reply=reply if answer is None else CODES.judge(reply, answer))

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        raise NotImplementedError("it does not edit")


def _signature(secret: str, now: datetime) -> str:
    """Good for an hour. Source: open.dingtalk.com, "Custom robot access": "Sign"."""
    timestamp = str(int(now.timestamp() * 1000))
    digest = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), "sha256")
    return f"timestamp={timestamp}&sign={quote(base64.b64encode(digest).decode(), safe='')}"


def _content(card: Card) -> dict[str, Any]:
    """A card with buttons, where there is something to open."""
    message = card.message
    title = f"{MARKS[message.mood]} {cut(message.title, LONGEST_TITLE)}"
    prompt = cut_bytes(" ".join((card.prompt or "").split()), LONGEST_PROMPT_BYTES)
    parts = [f"### {_plain(title)}"]
    if prompt:
        parts.append(f"> {_plain(prompt)}")
    if message.picture is not None and len(message.picture) <= LONGEST_URL:
        parts.append(f"![]({_address(message.picture)})")
    # Two spaces before a line break, or it is none.
    parts.append("  \n".join(_plain(cut_bytes(message.body, LONGEST_BODY_BYTES)).splitlines()))
    text = "\n\n".join(parts)
    made = [one for one in message.made if len(one.url) <= LONGEST_URL][:MOST_BUTTONS]
    if not made:
        return {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
    shown: dict[str, Any] = {"title": title, "text": text}
    if len(made) == 1:
        shown |= {"singleTitle": f"Open {made[0].label.lower()}", "singleURL": made[0].url}
    else:
        buttons = [{"title": f"Open {one.label.lower()}", "actionURL": one.url} for one in made]
        shown |= {"btnOrientation": "0", "btns": buttons}
    return {"msgtype": "actionCard", "actionCard": shown}


def _plain(text: str) -> str:
    return text.translate(TWINS)


def _address(url: str) -> str:
    return url.replace("(", "%28").replace(")", "%29")
