"""WeCom (Enterprise WeChat): a group's bot. It takes no commands, and what it said cannot be edited."""

import asyncio
import base64
import hashlib
import io
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json
from yarl import URL

from handlers.chat.codes import Codes
from handlers.chat.pictures import download_picture
from handlers.chat.platform import Card, Destination, NotFetched, Spoken
from handlers.chat.urls import WebUrl, server_faults, webhook_faults
from handlers.messages import MARKS, Made, cut_bytes
from handlers.sinks import exchange
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.media_types import HEAD, JPEG, PNG, media_type
from service.domain.models import StrictModel
from service.domain.tasks import OutputKind
from service.domain.values import replace
from service.network.dialler import Dialler
from service.previews import Previews

SERVER: Final = "https://qyapi.weixin.qq.com"
PATH: Final = "/cgi-bin/webhook/send"
# developer.work.weixin.qq.com, "Group bot configuration": all in bytes.
LONGEST_TEXT: Final = 2048
LONGEST_TITLE: Final = 128
LONGEST_DESCRIPTION: Final = 512
LONGEST_URL: Final = 2048
MOST_ARTICLES: Final = 8
LARGEST_PICTURE: Final = 2 * 1024 * 1024
# From when the message goes out: an attempt that is cut off later would say all of it again.
PICTURE_DEADLINE: Final = timedelta(seconds=12)
CODES: Final = Codes(
    platform="WeCom",
    code_name="errcode",
    gone=frozenset({93000}),  # no such key any more
    for_good=frozenset({40008, 40058, 41001, 44004, 45002, 93004, 301019}),
    too_fast=frozenset({45009, 45033}),  # twenty a minute
    pause=timedelta(minutes=1),
)


class WecomEndpoint(StrictModel):
    """Articles show pictures by their addresses, so WeCom must be able to reach these."""

    webhook_url: WebUrl = Field(description="of the group's bot, with its key: kept sealed")
    pictures: Literal["linked", "sent"] = Field(
        "linked", description="`sent`: the picture itself follows the message, and outlives its address"
    )
    server: WebUrl = SERVER


class Wecom:
    name = "wecom"
    endpoint_model: type[BaseModel] = WecomEndpoint
    endpoint_secrets = frozenset({"webhook_url"})
    edits = False

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._previews = Previews()

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        assert isinstance(config, WecomEndpoint)
        faults = server_faults(self._dialler, config.server, pointer=f"{pointer}/server")
        return faults + webhook_faults(
            self._dialler,
            config.webhook_url,
            servers=[] if faults else [config.server],
            path=PATH,
            parameter="key",
            pointer=f"{pointer}/webhook_url",
        )

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        """The message decides; a picture that cannot be sent after it is no reason to say all of it again."""
        deadline = asyncio.get_running_loop().time() + PICTURE_DEADLINE.total_seconds()
        reply = await self._send(to, _content(card), now)
        picture = card.message.picture
        if (
            reply.ending is not AttemptOutcome.DELIVERED
            or picture is None
            or to.config.get("pictures") != "sent"
        ):
            return Spoken(reply=reply)
        try:
            async with asyncio.timeout_at(deadline):
                shown = await self._send(to, await self._picture(picture), now)
            why = None if shown.ending is AttemptOutcome.DELIVERED else shown.reason
        except NotFetched as error:
            why = str(error)
        except TimeoutError:
            why = "it takes too long"
        if why is None:
            return Spoken(reply=reply)
        return Spoken(reply=replace(reply, reason=f"answered, but the picture was not sent: {why}"))

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        raise NotImplementedError("it does not edit")

    async def _picture(self, url: str) -> dict[str, Any]:
        """
        Raises:
            NotFetched: it cannot be had, or not be made small enough.
        """
        content = await download_picture(self._dialler, url, headers={})
        kind = media_type(content[:HEAD])
        if kind not in {JPEG, PNG} or len(content) > LARGEST_PICTURE:
            smaller = await self._previews.of(io.BytesIO(content), kind)
            if smaller is None:
                raise NotFetched("it is no picture that WeCom shows")
            content = smaller
        proof = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"msgtype": "image", "image": {"base64": base64.b64encode(content).decode(), "md5": proof}}

    async def _send(self, to: Destination, content: Mapping[str, Any], now: datetime) -> Reply:
        url = to.secrets["webhook_url"]
        reply, answer = await exchange.post(
            self._dialler,
            url,
            body=to_json(content),
            headers=exchange.JSON_UTF8_HEADERS,
            now=now,
            hidden=[url, URL(url).query["key"]],
        )
        return reply if answer is None else CODES.judge(reply, answer)


def _content(card: Card) -> dict[str, Any]:
    """An article for each thing to open; without any, a text. Neither has markup, but for a text's mentions."""
    message = card.message
    title = f"{MARKS[message.mood]} {message.title}"
    prompt = cut_bytes(" ".join((card.prompt or "").split()), 200)
    words = f"{prompt}\n{message.body}" if prompt else message.body
    made = [one for one in message.made if len(one.url.encode()) <= LONGEST_URL][:MOST_ARTICLES]
    if not made:
        text = f"{title}\n{words}".replace("<@", "<\u200b@")
        return {"msgtype": "text", "text": {"content": cut_bytes(text, LONGEST_TEXT)}}
    articles = []
    for number, one in enumerate(made):
        article = {
            "title": cut_bytes(f"{title}: {one.label}" if len(made) > 1 else title, LONGEST_TITLE),
            "description": cut_bytes(words if number == 0 else "", LONGEST_DESCRIPTION),
            "url": one.url,
        }
        picture = _shown(one) or (message.picture if number == 0 else None)
        if picture is not None and len(picture.encode()) <= LONGEST_URL:
            article["picurl"] = picture
        articles.append(article)
    return {"msgtype": "news", "news": {"articles": articles}}


def _shown(made: Made) -> str | None:
    return made.url if made.kind is OutputKind.IMAGE else made.still
