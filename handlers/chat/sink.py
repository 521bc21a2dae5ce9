"""A task in a chat: one message, which is edited as the task advances where the platform can."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

from pydantic import BaseModel, create_model

from handlers.chat.configuration import configured, opened
from handlers.chat.platform import (
    SAID_AT_THE_END,
    Button,
    Card,
    Destination,
    EditsSomewhere,
    Platform,
    Press,
    Spoken,
    Voice,
)
from handlers.messages import message_of
from service.batching import Batcher
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.events import Event
from service.domain.ids import EndpointId, TaskId
from service.domain.lifecycle import Status
from service.domain.prompts import prompt_of
from service.domain.secrets import Vault
from service.domain.tasks import OutputKind
from service.domain.values import replace
from storage import bots, tasks
from storage.bots import ChatMessage
from storage.database import Database, Transaction

SHOWN_ALREADY: Final = Reply(
    status_code=None,
    reason="a later state is shown already",
    ending=AttemptOutcome.DELIVERED,
    exchanged=False,
)
BOT_IS_GONE: Final = Reply(status_code=None, reason="its bot was deleted", ending=AttemptOutcome.DEAD)

Updates = Literal["edited", "final", "each"]


class ChatSink:
    """Delivers to the endpoints of one platform: those that a bot's command bound to its task, and those of the API."""

    def __init__(
        self,
        voice: Voice | Platform,
        *,
        vault: Vault,
        database: Database,
        batcher: Batcher,
        reachable_url: str,
    ) -> None:
        self._voice = voice
        self._vault = vault
        self._database = database
        self._batcher = batcher
        self._reachable_url = reachable_url
        self._turns: WeakValueDictionary[tuple[EndpointId, TaskId], asyncio.Lock] = WeakValueDictionary()
        self.model = endpoint_model(voice)

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        return configured(
            self.model,
            self._voice.endpoint_secrets,
            raw,
            pointer=pointer,
            vault=self._vault,
            before=None if before is None else (before.config, before.credentials),
            more_faults=lambda config: self._voice.faults(config, pointer=pointer),
        )

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        endpoint, event = duty.endpoint, duty.event
        secrets = opened(self._vault, endpoint.credentials)
        to = await self._destination(endpoint, secrets)
        if to is None:
            return BOT_IS_GONE
        updates: Updates = endpoint.config.get("updates") or default_updates(self._voice)
        if updates == "edited" and not self._can_edit(to):
            updates = "final"
        card = card_of(event, secrets, has_bot="bot" in endpoint.config, as_it_stands=updates == "edited")
        if updates == "final" and event.sequence is not None and not card.message.matters_at_the_end:
            return SAID_AT_THE_END
        if "bot" not in endpoint.config:
            card = replace(card, prompt=await self._prompt(event))
        if event.task_id is None or event.sequence is None or updates == "each":
            return (await self._voice.post(to, card, now=now)).reply
        # One after another, so that each sees what the one before has posted.
        async with self._turns.setdefault((endpoint.id, event.task_id), asyncio.Lock()):
            return await self._show(to, card, event.task_id, event.sequence, endpoint.id, now)

    async def _prompt(self, event: Event) -> str | None:
        """The task's own, for an event carries no input. None as well where the task is forgotten."""
        if event.task_id is None:
            return None
        async with self._database.reading() as reader:
            task = await tasks.get(reader, event.task_id, account_id=event.account_id)
        return None if task is None else prompt_of(task.input)

    async def _show(
        self,
        to: Destination,
        card: Card,
        task_id: TaskId,
        sequence: int,
        endpoint_id: EndpointId,
        now: datetime,
    ) -> Reply:
        async with self._database.reading() as reader:
            told = await bots.message(reader, endpoint_id, task_id)
        if told is not None and told.sequence >= sequence:
            return SHOWN_ALREADY
        spoken = await self._say(to, card, told, now)
        if spoken.reference is not None:
            shown = ChatMessage(spoken.reference, sequence)
            await self._batcher.run(_remember, (endpoint_id, task_id, shown))
        return spoken.reply

    async def _say(self, to: Destination, card: Card, told: ChatMessage | None, now: datetime) -> Spoken:
        if told is None or not self._can_edit(to):
            return await self._voice.post(to, card, now=now)
        return await self._voice.edit(to, told.reference, card, now=now)

    def _can_edit(self, to: Destination) -> bool:
        voice = self._voice
        return voice.edits and (not isinstance(voice, EditsSomewhere) or voice.can_edit(to))

    async def _destination(self, endpoint: Endpoint, secrets: Mapping[str, Any]) -> Destination | None:
        if "bot" not in endpoint.config:
            return Destination(config=endpoint.config, secrets=secrets)
        async with self._database.reading() as reader:
            bot = await bots.get(reader, endpoint.config["bot"])
        if bot is None:
            return None
        return Destination(
            config=bot.config,
            secrets=opened(self._vault, bot.credentials),
            address=secrets["address"],
            asked_at=datetime.fromisoformat(secrets["asked_at"]),
            url=f"{self._reachable_url}{bot.path}",
        )


async def _remember(
    tx: Transaction, messages: Sequence[tuple[EndpointId, TaskId, ChatMessage]]
) -> list[None]:
    await bots.remember_messages(tx, messages)
    return [None] * len(messages)


def endpoint_model(voice: Voice | type[Voice]) -> type[BaseModel]:
    """The platform's own fields, and how often it speaks."""
    return _endpoint_model(voice.name, voice.endpoint_model)


@cache  # a model takes longer to make than most of what else happens at a start
def _endpoint_model(name: str, base: type[BaseModel]) -> type[BaseModel]:
    return create_model(f"{name.capitalize()}Endpoint", __base__=base, updates=(Updates | None, None))


def default_updates(voice: Voice) -> Updates:
    """One message for a task, either way."""
    return "edited" if voice.edits else "final"


def card_of(event: Event, asked: Mapping[str, Any], *, has_bot: bool, as_it_stands: bool = False) -> Card:
    """
    Args:
        asked: what the endpoint of a bot keeps of its command: `prompt`, `person`.
        as_it_stands: as in `message_of`, for what is written over what was said before.
    """
    message = message_of(event, as_it_stands=as_it_stands, to_asker=has_bot)
    person = asked.get("person")
    return Card(
        message=message,
        prompt=asked.get("prompt"),
        asked_by=None if person is None else Person(**person),
        buttons=_buttons(event) if has_bot else (),
    )


def _buttons(event: Event) -> Sequence[Button]:
    task = event.content()["data"].get("task")
    if task is None or not Status(task["status"]).is_terminal:
        return ()
    buttons = [Button(label="Again", press=Press.AGAIN, task_id=task["id"])]
    if any(output["kind"] == OutputKind.IMAGE for output in task["outputs"]):
        buttons.append(Button(label="Make a video of it", press=Press.FILM, task_id=task["id"]))
    return buttons
