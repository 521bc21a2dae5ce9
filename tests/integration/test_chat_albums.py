"""An album's pictures come one by one, in any order, and are one command. On Telegram, which sends them so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.chat.telegram import webhook_secret
from tests.fakes.telegram import GROUP, PERSON, TOKEN, USERNAME, FakeTelegram
from tests.integration.klingel import START, Klingel, ManualClock, base64_png, png, running_klingel

STRANGER = 5100000099


@dataclass
class Chat:
    klingel: Klingel
    server: FakeTelegram
    path: str

    async def send(self, update: dict[str, Any]) -> None:
        response = await self.klingel.http.post(
            self.path,
            json=update,
            headers={"authorization": "", "x-telegram-bot-api-secret-token": webhook_secret(TOKEN)},
        )
        assert response.status_code == 200

    def part(self, name: str, text: str | None = None, **more: Any) -> dict[str, Any]:
        album = {"chat": GROUP, "media_group_id": "13", **more}
        return self.server.update(message=self.server.message(text, picture=name, **album))

    async def until_due_at(self, seconds: float) -> None:
        due = int((START.timestamp() + seconds) * 1000)

        async def reached() -> bool:
            rows = self.klingel.rows("select next_try_at from commands where next_try_at is not null")
            return rows == [{"next_try_at": due}]

        await self.klingel.until(reached)

    async def until_pictures(self) -> list[str]:
        """Of the one task that was made."""
        [create] = await self.klingel.kling.until(1)
        return [subject["subject_image"] for subject in create["subject_image_list"]]


@asynccontextmanager
async def opened(klingel: Klingel, server: FakeTelegram) -> AsyncIterator[Chat]:
    config = {"token": TOKEN, "username": USERNAME, "server": server.url}
    body = {"platform": "telegram", "config": config, "allow": [{"user": str(PERSON)}]}
    response = await klingel.http.post("/v1/bots", json=body)
    assert response.status_code == 201, response.text
    yield Chat(klingel, server, httpx.URL(response.json()["url"]).path)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[FakeTelegram]:
    server = FakeTelegram()
    server.files = {f"{name}.png": png(shade) for name, shade in (("a", 10), ("b", 20), ("c", 30))}
    async with server.running():
        yield server


@pytest.fixture
async def chat(klingel: Klingel, server: FakeTelegram) -> AsyncIterator[Chat]:
    async with opened(klingel, server) as chat:
        yield chat


async def test_a_command_waits_until_no_more_pictures_come(chat: Chat) -> None:
    a, b, c = chat.part("a.png"), chat.part("b.png", "/kling image a cat"), chat.part("c.png")
    await chat.send(b)
    await chat.until_due_at(2)
    chat.klingel.clock.advance(seconds=1.5)
    await chat.send(c)
    chat.klingel.clock.advance(seconds=0.5)
    await chat.until_due_at(3.5)  # two seconds after the latest
    await chat.send(a)
    chat.klingel.clock.advance(seconds=1.5)
    await chat.until_due_at(4)
    assert chat.klingel.kling.creates == []
    chat.klingel.clock.advance(seconds=0.5)
    assert await chat.until_pictures() == [base64_png(shade) for shade in (10, 20, 30)]


async def test_what_came_before_a_crash_is_not_forgotten(tmp_path: Path, server: FakeTelegram) -> None:
    clock = ManualClock()
    async with (
        running_klingel(tmp_path / "one", clock=clock, roles="web") as klingel,
        opened(klingel, server) as chat,
    ):
        for part in (chat.part("a.png"), chat.part("b.png", "/kling image a cat")):
            for _ in range(2):  # Telegram sends again what it has no answer to
                await chat.send(part)
        left = await klingel.snapshot(tmp_path / "two")
    clock.advance(seconds=3)
    async with running_klingel(left, clock=clock) as klingel:
        again = Chat(klingel, server, chat.path)
        assert await again.until_pictures() == [base64_png(10), base64_png(20)]


async def test_an_album_that_was_sent_before_can_be_answered_with_a_command(chat: Chat) -> None:
    parts = [chat.part("a.png"), chat.part("b.png")]
    for part in parts:
        await chat.send(part)
    chat.klingel.clock.advance(minutes=5)
    command = chat.server.message("/kling image a cat", chat=GROUP, reply_to_message=parts[1]["message"])
    await chat.send(chat.server.update(message=command))
    chat.klingel.clock.advance(seconds=2)
    assert await chat.until_pictures() == [base64_png(10), base64_png(20)]


async def test_pictures_of_strangers_and_of_other_albums_do_not_count(chat: Chat) -> None:
    await chat.send(chat.part("c.png", person=STRANGER))
    assert chat.klingel.rows("select id from commands") == []
    await chat.send(chat.part("c.png", media_group_id="1"))
    await chat.send(chat.part("c.png", media_group_id="130"))
    await chat.send(chat.part("a.png", "/kling image a cat"))
    await chat.send(chat.part("b.png"))
    chat.klingel.clock.advance(seconds=2)
    assert await chat.until_pictures() == [base64_png(10), base64_png(20)]


async def test_of_an_album_with_more_pictures_than_a_task_takes_none_is_fetched(
    chat: Chat, server: FakeTelegram
) -> None:
    server.files = {f"{number}.png": png(number) for number in range(5)}
    for number in range(4):
        await chat.send(chat.part(f"{number}.png"))
    await chat.send(chat.part("4.png", "/kling image a cat"))
    chat.klingel.clock.advance(seconds=2)

    async def is_done() -> bool:
        return not chat.klingel.rows("select id from commands where next_try_at is not null")

    await chat.klingel.until(is_done)
    await server.until(1)
    assert len(server.requests) == 1  # who asked is told
    assert chat.klingel.kling.creates == []


async def test_a_picture_that_waits_is_no_open_task_and_no_line_of_the_status(chat: Chat) -> None:
    for name in ("a.png", "b.png", "c.png"):
        await chat.send(chat.part(name))
    response = await chat.klingel.http.post(
        chat.path,
        json=chat.server.update(message=chat.server.message("status")),
        headers={"authorization": "", "x-telegram-bot-api-secret-token": webhook_secret(TOKEN)},
    )
    assert response.json()["text"].startswith("You have asked for nothing yet")
