"""The front desk: takes what comes from chats, answers it, and writes commands down for the loop that makes tasks of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from handlers.chat.albums import SETTLES, part_of_album
from handlers.chat.configuration import configured, opened
from handlers.chat.grammar import Ask, AskStatus, Usage, parse
from handlers.chat.platform import Answer, Attached, Forged, Heard, Inbound, Platform, Pressed, Said
from handlers.chat.telling import Teller
from handlers.chat.wishes import Wish, sealed_wish
from service.batching import Batcher
from service.domain.bots import Bot, Command, Person
from service.domain.errors import ConfigurationError
from service.domain.ids import new_command_id
from service.domain.links import Links
from service.domain.prompts import prompt_of
from service.domain.secrets import Vault
from service.domain.tasks import Task
from service.domain.times import Clock
from service.doors.bodies import read_body
from service.notices import Notices, Topic
from service.wakeups import Wakeup
from storage import bots
from storage.database import Database, Transaction

LARGEST_REQUEST: Final = 1024 * 1024
WAITING_OF_BOT: Final = 100  # commands that are no tasks yet; then more are refused
SHOWN: Final = 5  # tasks, to a person who asks for the status

log = structlog.get_logger()


class Desk:
    """`/chat/{platform}/{bot_id}`, and how bots are configured."""

    def __init__(
        self,
        *,
        platforms: Mapping[str, Platform],
        database: Database,
        batcher: Batcher,
        teller: Teller,
        links: Links,
        vault: Vault,
        notices: Notices,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        """
        Args:
            wakeup: of the loop that makes tasks of commands.
        """
        self._platforms = platforms
        self._database = database
        self._batcher = batcher
        self._teller = teller
        self._links = links
        self._vault = vault
        self._notices = notices
        self._wakeup = wakeup
        self._clock = clock

    @property
    def platforms(self) -> Sequence[str]:
        """On which there can be bots."""
        return sorted(self._platforms)

    def configure(
        self, platform: str, raw: object, *, pointer: str, before: Bot | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        """A bot's configuration: the readable part, and the secret part, sealed.

        Raises:
            InvalidFields: with every fault.
        """
        listening = self._platforms[platform]
        return configured(
            listening.bot_model,
            listening.bot_secrets,
            raw,
            pointer=pointer,
            vault=self._vault,
            before=None if before is None else (before.config, before.credentials),
            more_faults=lambda config: listening.faults(config, pointer=pointer),
        )

    async def receive(self, request: Request[Any]) -> Response:
        """Answers within the platform's few seconds: at most one write lies before the answer."""
        platform = self._platforms.get(request.path_params["platform"])
        async with self._database.reading() as reader:
            bot = await bots.get(reader, request.path_params["bot_id"])
        if platform is None or bot is None or bot.platform != platform.name:
            return Response("Not found\n", status_code=404, media_type="text/plain")
        try:
            heard = await self._heard(platform, bot, request)
        except ConfigurationError as error:
            log.error("chat.bot_locked", bot_id=bot.id, reason=str(error))  # noqa: TRY400 - no fault of the code
            return Response("Not possible now\n", status_code=503, media_type="text/plain")
        except Forged as error:
            log.warning("chat.forged", platform=platform.name, bot_id=bot.id, reason=str(error))
            return Response("Not signed by the platform\n", status_code=401, media_type="text/plain")
        match heard:
            case Answer():
                return _response(heard)
            case Attached():
                if bot.obeys(heard.person):
                    await self._keep_part(bot, heard)
                return _response(Answer())
            case Said() | Pressed():
                return await self._answered(platform, bot, heard)

    async def _heard(self, platform: Platform, bot: Bot, request: Request[Any]) -> Heard:
        """
        Raises:
            ConfigurationError: the bot's secrets were sealed under another KLINGEL_SECRET.
            Forged: the request is not by the platform.
        """
        inbound = Inbound(
            method=request.method,
            headers={name.lower(): value for name, value in request.headers.items()},
            query=dict(request.query_params),
            body=await read_body(request, limit=LARGEST_REQUEST),
        )
        secrets = opened(self._vault, bot.credentials)
        return platform.hear(inbound, config=bot.config, secrets=secrets, now=self._clock())

    async def _answered(self, platform: Platform, bot: Bot, heard: Said | Pressed) -> Response:
        words = await self._words(bot, heard)
        answer = platform.answer(heard, words)
        if answer is not None or words is None:
            return _response(answer or Answer())
        # After the answer: the platform would else wait for itself, and ask again.
        telling = BackgroundTask(
            self._teller.tell, platform, bot, heard.address, words, asked_at=self._clock()
        )
        return _response(platform.answer(heard, None) or Answer(), telling)

    async def _words(self, bot: Bot, heard: Said | Pressed) -> str | None:
        """What is said at once; None where the task's own message will say it."""
        person = heard.person
        if not bot.obeys(person):
            log.warning("chat.stranger", bot_id=bot.id, workspace=person.workspace, user=person.user)
            return "Sorry, I may not take orders from you here. Ask whoever runs this Klingel to let you in."
        if isinstance(heard, Pressed):
            return await self._accept(bot, heard.key, Wish.of_button(heard))
        match parse(heard.text):
            case Usage(text):
                return text
            case AskStatus():
                return await self._status(bot, person)
            case Ask() as ask:
                return await self._accept(bot, heard.key, Wish.of_words(heard, ask))

    async def _status(self, bot: Bot, person: Person) -> str:
        async with self._database.reading() as reader:
            listed = await bots.tasks_of(reader, bot.id, person.user, limit=SHOWN)
        if not listed:
            return "You have asked for nothing yet. Say help to see how."
        return "\n".join(
            "about to be submitted" if task is None else _line(self._links.shown(task)) for task in listed
        )

    # What is written down

    async def _accept(self, bot: Bot, key: str, wish: Wish) -> str | None:
        """Writes the command down, or says why not. The same request once more changes nothing, and is answered like the
        first.
        """
        now = self._clock()
        command = Command(
            id=new_command_id(),
            bot_id=bot.id,
            key=key,
            person=wish.person.user,
            asked=sealed_wish(wish, self._vault),
            next_try_at=now if wish.album is None else now + SETTLES,
            created_at=now,
        )
        return await self._batcher.run(self._write_down, (bot, command))

    async def _write_down(self, tx: Transaction, commands: Sequence[tuple[Bot, Command]]) -> list[str | None]:
        await tx.hold("bot", {bot.id for bot, _ in commands})
        waiting = await bots.count_waiting(tx, (bot.id for bot, _ in commands))
        words: list[str | None] = []
        for bot, command in commands:
            if await bots.is_known(tx, bot.id, command.key):
                words.append(None)
            elif await bots.count_open(tx, bot.id, command.person) >= bot.open_tasks:
                tasks = "a task" if bot.open_tasks == 1 else f"{bot.open_tasks} tasks"
                words.append(f"You have {tasks} open already. Wait until one has ended, then ask again.")
            elif waiting[bot.id] >= WAITING_OF_BOT:
                words.append("Too much is waiting here already. Ask again in a while.")
            else:
                await bots.add_command(tx, command)
                waiting[bot.id] += 1
                await self._notices.wake(tx, Topic.COMMANDS, self._wakeup)
                words.append(None)
        return words

    async def _keep_part(self, bot: Bot, attached: Attached) -> None:
        async def add(tx: Transaction, parts: Sequence[Command]) -> list[None]:
            for one in parts:
                await bots.add_command(tx, one)
            return [None] * len(parts)

        part = part_of_album(attached, bot.id, vault=self._vault, now=self._clock())
        await self._batcher.run(add, part)


def _response(answer: Answer, then: BackgroundTask | None = None) -> Response:
    return Response(answer.body, status_code=answer.status, headers=dict(answer.headers), background=then)


def _line(task: Task) -> str:
    prompt = " ".join((prompt_of(task.input) or task.type).split())
    error = f" ({task.error.message})" if task.error is not None else ""
    urls = " ".join(output.url for output in task.outputs)
    return f"{task.status}: {prompt[:80]}{error} {urls}".rstrip()
