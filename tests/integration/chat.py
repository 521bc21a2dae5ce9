"""A bot of a running Klingel in a chat on Mattermost, with somebody who talks to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes.mattermost import (
    BOT_TOKEN,
    CHANNEL,
    COMMAND_TOKEN,
    USER,
    WEBHOOK_TOKEN,
    FakeMattermost,
    Post,
)
from tests.integration.klingel import START, Klingel, picture

FORM = {"content-type": "application/x-www-form-urlencoded", "authorization": ""}
ASKED = f"image a cat in a hat {picture('a')} {picture('b')}"
ALLOWED = [{"chat": CHANNEL}]


def bot_body(server: str, **body: Any) -> dict[str, Any]:
    config = {
        "server": server, "command_token": COMMAND_TOKEN, "webhook_token": WEBHOOK_TOKEN, "bot_token": BOT_TOKEN,
    }  # fmt: skip
    return {"platform": "mattermost", "config": config | body.pop("config", {}), "allow": ALLOWED, **body}


@dataclass
class Chat:
    klingel: Klingel
    mattermost: FakeMattermost
    bot: dict[str, Any]

    @property
    def path(self) -> str:
        return httpx.URL(self.bot["url"]).path

    async def tell(self, body: bytes, **headers: str) -> httpx.Response:
        """As Mattermost does, without our key."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.klingel.http.post(self.path, content=body, headers=FORM | headers)

    async def say(self, text: str, **more: str) -> str:
        """A slash command; what it answers to who gave it."""
        response = await self.tell(self.mattermost.command(text, **more))
        assert response.status_code == 200, response.text
        words: str = response.json()["text"]
        return words

    async def press(self, label: str, *, post: str | None = None, **more: Any) -> str:
        url, body = self.mattermost.press(post or list(self.mattermost.posts)[-1], label, **more)
        assert url == self.bot["url"]
        response = await self.tell(body, content_type="application/json")
        assert response.status_code == 200, response.text
        words: str = response.json()["ephemeral_text"]
        return words

    async def tasks(self) -> list[dict[str, Any]]:
        """Newest first."""
        items: list[dict[str, Any]] = (await self.klingel.http.get("/v1/tasks")).json()["items"]
        return items

    async def until_submitted(self, number: int = 1) -> dict[str, Any]:
        """The newest task, once the provider has accepted so many."""

        async def reached() -> dict[str, Any] | None:
            found = await self.tasks()
            accepted = [task for task in found if task["provider_task_id"]]
            return found[0] if len(accepted) == number else None

        task: dict[str, Any] = await self.klingel.until(reached)
        return task

    async def until_done(self) -> None:
        """Nothing that was said waits to become a task."""

        async def reached() -> bool:
            return not self.klingel.rows("select id from commands where next_try_at is not null")

        await self.klingel.until(reached)

    async def until_shown(self, title: str) -> Post:
        """The newest post, once it has this title."""
        await self.klingel.until(lambda: self._is_shown(title))
        return self.post

    async def _is_shown(self, title: str) -> bool:
        return bool(self.mattermost.posts) and self.post.attachment.get("title") == title

    @property
    def post(self) -> Post:
        return list(self.mattermost.posts.values())[-1]

    @property
    def told(self) -> list[str]:
        """What was said to the person alone, after the answer."""
        return [sent["text"] for sent in self.mattermost.responses if sent["response_type"] == "ephemeral"]


@asynccontextmanager
async def running_mattermost() -> AsyncIterator[FakeMattermost]:
    mattermost = FakeMattermost(now=START)
    async with mattermost.running():
        yield mattermost


async def opened_chat(klingel: Klingel, mattermost: FakeMattermost, **body: Any) -> Chat:
    response = await klingel.http.post("/v1/bots", json=bot_body(mattermost.url, **body))
    assert response.status_code == 201, response.text
    return Chat(klingel, mattermost, response.json())


__all__ = ["ALLOWED", "ASKED", "FORM", "USER", "Chat", "bot_body", "opened_chat", "running_mattermost"]
