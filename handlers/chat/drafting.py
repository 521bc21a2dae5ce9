"""From a person's wish to the draft of a task: pictures are fetched, and the other task of a button is looked up."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from anyio.to_thread import run_sync
from pydantic_core import to_json

from handlers.chat.configuration import opened
from handlers.chat.grammar import VIDEO, Ask, most_pictures, of_pictures, submitted
from handlers.chat.platform import Grown, NotFetched, Platform, Press
from handlers.chat.wishes import Wish
from service.domain.bots import Bot
from service.domain.errors import InvalidRequest, TooLarge, Unprocessable
from service.domain.inputs import with_files
from service.domain.secrets import Vault
from service.domain.tasks import OutputKind, Task
from service.doors.sharing import Holding, Room
from service.submission import Draft
from service.submits import SubmitReader
from storage import bots, tasks
from storage.database import Database
from storage.files import Files


class Hopeless(Exception):
    """A wish will not become a task; the message is for the person who asked."""


class Drafter:
    """Makes of a wish the same draft that a submit by the API with the same input would be."""

    def __init__(
        self, *, database: Database, submits: SubmitReader, files: Files, vault: Vault, room: Room
    ) -> None:
        """
        Args:
            room: for accounts' bytes in memory, which pictures and bodies share.
        """
        self._database = database
        self._submits = submits
        self._files = files
        self._vault = vault
        self._room = room

    async def draft(self, platform: Platform, bot: Bot, wish: Wish) -> tuple[Draft, str]:
        """The draft, and its prompt.

        Raises:
            Hopeless: for what another try would not change.
            NotFetched: a picture may come at another try.
            Full: there is no room for its pictures now.
        """
        with self._room.hold(bot.account_id) as holding:
            if wish.press is None:
                raw, prompt = await self._of_words(platform, bot, wish, holding), wish.prompt
            else:
                raw, prompt = await self._of_button(bot, wish)
            body = await run_sync(to_json, raw)
            del raw  # its pictures are in the body
            holding.grow_to(len(body))
            try:
                return await self._submits.read(body, account_id=bot.account_id), prompt
            except Unprocessable as error:
                faults = "\n".join(f"- {fault.detail}" for fault in error.faults) or error.detail
                raise Hopeless(f"I cannot submit that:\n{faults}") from None
            except (InvalidRequest, TooLarge) as error:
                raise Hopeless(f"I cannot submit that: {error.detail}") from None

    async def _of_words(self, platform: Platform, bot: Bot, wish: Wish, holding: Holding) -> dict[str, Any]:
        assert wish.type is not None
        most = most_pictures(wish.type)
        if len(wish.pictures) + len(wish.urls) > most:
            raise Hopeless(f"I cannot submit that: it takes at most {most} pictures.")
        try:
            attached = await self._fetched(platform, bot, wish.pictures, holding)
        except NotFetched as error:
            if error.may_come:
                raise
            raise Hopeless(f"I cannot have a picture that you attached: {error}.") from None
        ask = Ask(type=wish.type, prompt=wish.prompt, options=wish.options, urls=wish.urls)
        return _submit_body(bot, wish, *submitted(ask, attached))

    async def _fetched(
        self, platform: Platform, bot: Bot, pictures: Sequence[Mapping[str, Any]], holding: Holding
    ) -> list[str]:
        """All at once; when one cannot be had the others are let go."""
        secrets = opened(self._vault, bot.credentials)
        sizes = [0] * len(pictures)

        def counting(place: int) -> Grown:
            def grown(size: int) -> None:
                sizes[place] = size
                holding.grow_to(sum(sizes))

            return grown

        fetching = [
            asyncio.ensure_future(
                platform.fetch(picture, config=bot.config, secrets=secrets, grown=counting(place))
            )
            for place, picture in enumerate(pictures)
        ]
        try:
            return await asyncio.gather(*fetching)
        finally:
            for one in fetching:
                one.cancel()
            await asyncio.gather(*fetching, return_exceptions=True)

    async def _of_button(self, bot: Bot, wish: Wish) -> tuple[dict[str, Any], str]:
        """The body, and the prompt of the task whose button it is."""
        assert wish.task_id is not None
        async with self._database.reading() as reader:
            task = await tasks.get(reader, wish.task_id, account_id=bot.account_id)
            made_here = await bots.made(reader, bot.id, wish.task_id)
        if task is None or not made_here:
            raise Hopeless("I do not have that task any longer.")
        given = await run_sync(lambda: with_files(task.input, self._files.get))
        prompt = str(given.get("prompt") or "")
        if wish.press is Press.AGAIN:
            return _submit_body(bot, wish, task.type, given), prompt
        type, pictures = _film_of(task, given)
        return _submit_body(bot, wish, type, {"prompt": prompt[:500], **pictures}), prompt


def _submit_body(bot: Bot, wish: Wish, type: str, input: Mapping[str, Any]) -> dict[str, Any]:
    """As `POST /v1/tasks` takes it."""
    metadata = {"chat": bot.platform, "user": wish.person.user}
    return {"type": type, "input": dict(input), "metadata": metadata}


def _film_of(task: Task, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Type and pictures of a video of what a task made; of a single picture, and of what that was made of."""
    made = [output.url for output in task.outputs if output.kind is OutputKind.IMAGE]
    if not made:
        raise Hopeless("There is no picture to make a video of.")
    sources = [subject["subject_image"] for subject in given.get("subject_image_list", [])]
    return of_pictures(VIDEO, (made if len(made) > 1 else [*made, *sources])[:4])
