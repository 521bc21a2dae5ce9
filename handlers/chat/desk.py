"""The front desk: a command comes in from a chat, is written down, answered, and becomes a task."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from anyio.to_thread import run_sync
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from handlers.chat.configuration import configured, opened
from handlers.chat.grammar import VIDEO, Ask, AskStatus, Usage, parse, pictures_input, submit_input
from handlers.chat.platform import (
    Answer,
    Destination,
    Forged,
    Inbound,
    NotFetched,
    Platform,
    Press,
    Pressed,
    Said,
)
from service.batching import Batcher
from service.bodies import read_body
from service.domain.bots import Bot, Command, Person
from service.domain.endpoints import EndpointDraft
from service.domain.errors import ConfigurationError, KlingelError, Unprocessable
from service.domain.ids import TaskId, new_command_id
from service.domain.inputs import with_files
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.tasks import OutputKind, Task
from service.domain.times import Clock
from service.loops import Loop
from service.submission import Draft, Once, Submitter
from service.submits import SubmitReader
from service.wakeups import Wakeup
from storage import bots, tasks
from storage.database import Database, Transaction
from storage.files import Files

LARGEST_REQUEST: Final = 1024 * 1024
AT_A_TIME: Final = 8
SHOWN: Final = 5  # tasks, to who asks for their status
TRIES: Final = 5
FIRST_PAUSE: Final = timedelta(seconds=2)  # doubles with each try
WORK_DEADLINE: Final = timedelta(minutes=2)  # of one try: pictures are fetched
TELL_DEADLINE: Final = timedelta(seconds=15)

log = structlog.get_logger()


class Hopeless(Exception):
    """It will not become a task; the message is for who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a command asks for, as it is kept."""

    person: Person
    address: Mapping[str, Any]
    type: str | None = None
    prompt: str = ""
    options: Mapping[str, Any]
    urls: Sequence[str] = ()
    pictures: Sequence[Mapping[str, Any]] = ()
    press: Press | None = None
    task_id: str | None = None


class Desk:
    """`/chat/{platform}/{bot_id}`, and the loop that turns what was written down there into tasks."""

    def __init__(
        self,
        *,
        platforms: Mapping[str, Platform],
        database: Database,
        batcher: Batcher,
        submits: SubmitReader,
        submitter: Submitter,
        files: Files,
        vault: Vault,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        self._platforms = platforms
        self._database = database
        self._batcher = batcher
        self._submits = submits
        self._submitter = submitter
        self._files = files
        self._vault = vault
        self._wakeup = wakeup
        self._clock = clock
        self._loop = Loop("commands", self._work_due, wakeup=wakeup, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._loop.running():
            yield

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

    # Listening

    async def receive(self, request: Request[Any]) -> Response:
        """Answered within the platform's seconds: at most one write lies before the answer."""
        platform = self._platforms.get(request.path_params["platform"])
        async with self._database.reading() as reader:
            bot = await bots.get(reader, request.path_params["bot_id"])
        if platform is None or bot is None or bot.platform != platform.name:
            return Response("Not found\n", status_code=404, media_type="text/plain")
        inbound = Inbound(
            method=request.method,
            headers={name.lower(): value for name, value in request.headers.items()},
            query=dict(request.query_params),
            body=await read_body(request, limit=LARGEST_REQUEST),
        )
        secrets = opened(self._vault, bot.credentials)
        try:
            heard = platform.hear(inbound, config=bot.config, secrets=secrets, now=self._clock())
        except Forged as error:
            log.warning("chat.forged", platform=platform.name, bot_id=bot.id, reason=str(error))
            return Response("Not signed by the platform\n", status_code=401, media_type="text/plain")
        if isinstance(heard, Answer):
            return _response(heard)
        words = await self._words(bot, heard)
        answer = platform.answer(heard, words)
        if answer is not None or words is None:
            return _response(answer or Answer())
        # After the answer: the platform would else wait for itself, and ask again.
        telling = BackgroundTask(self._tell, platform, bot, heard.address, words)
        return _response(platform.answer(heard, None) or Answer(), telling)

    async def _words(self, bot: Bot, heard: Said | Pressed) -> str | None:
        """What is said at once; None where the task's own message will say it."""
        person = heard.person
        if not bot.obeys(person):
            log.warning("chat.stranger", bot_id=bot.id, workspace=person.workspace, user=person.user)
            return "Sorry, I may not take orders from you here. Ask whoever runs this Klingel to let you in."
        if isinstance(heard, Pressed):
            return await self._accept(
                bot,
                heard,
                _Work(
                    person=person, address=heard.address, options={}, press=heard.press, task_id=heard.task_id
                ),
            )
        match parse(heard.text):
            case Usage(text):
                return text
            case AskStatus():
                return await self._status(bot, person)
            case Ask() as ask:
                work = _Work(
                    person=person,
                    address=heard.address,
                    type=ask.type,
                    prompt=ask.prompt,
                    options=ask.options,
                    urls=ask.urls,
                    pictures=heard.pictures,
                )
                return await self._accept(bot, heard, work)

    async def _accept(self, bot: Bot, heard: Said | Pressed, work: _Work) -> str | None:
        """One write. The same request once more changes nothing, and is answered like the first."""
        now = self._clock()
        command = Command(
            id=new_command_id(),
            bot_id=bot.id,
            key=heard.key,
            person=work.person.user,
            asked=self._vault.seal(to_json(asdict(work)).decode()),
            next_try_at=now,
            created_at=now,
        )
        return await self._batcher.run(self._write_down, (bot, command))

    async def _write_down(self, tx: Transaction, commands: Sequence[tuple[Bot, Command]]) -> list[str | None]:
        words: list[str | None] = []
        for bot, command in commands:
            if await bots.is_known(tx, bot.id, command.key):
                words.append(None)
            elif await bots.count_open(tx, bot.id, command.person) >= bot.open_tasks:
                tasks = "a task" if bot.open_tasks == 1 else f"{bot.open_tasks} tasks"
                words.append(f"You have {tasks} open already. Wait until one has ended, then ask again.")
            else:
                await bots.add_command(tx, command)
                tx.on_commit(self._wakeup.notify)
                words.append(None)
        return words

    async def _status(self, bot: Bot, person: Person) -> str:
        async with self._database.reading() as reader:
            listed = await bots.tasks_of(reader, bot.id, person.user, limit=SHOWN)
        if not listed:
            return "You have asked for nothing yet. Say help to see how."
        return "\n".join("about to be submitted" if task is None else _line(task) for task in listed)

    # Working

    async def _work_due(self) -> datetime | None:
        async with self._database.reading() as reader:
            due = await bots.due_commands(reader, now=self._clock(), limit=AT_A_TIME)
        await asyncio.gather(*(self._work(command) for command in due))
        async with self._database.reading() as reader:
            return await bots.next_command_at(reader)

    async def _work(self, command: Command) -> None:
        async with self._database.reading() as reader:
            bot = await bots.get(reader, command.bot_id)
        platform = None if bot is None else self._platforms.get(bot.platform)
        if bot is None or platform is None:
            await self._save(replace(command, next_try_at=None))
            return
        try:
            work = _opened_work(self._vault, command)
        except ConfigurationError as error:
            log.error("chat.command_lost", command_id=command.id, reason=str(error))  # noqa: TRY400 - no fault of the code
            await self._save(replace(command, next_try_at=None))
            return
        tried = replace(command, tries=command.tries + 1)
        try:
            async with asyncio.timeout(WORK_DEADLINE.total_seconds()):
                task_id = await self._submit(platform, bot, command, work)
        except Hopeless as error:
            await self._save(replace(tried, next_try_at=None))
            await self._tell(platform, bot, work.address, str(error))
        except (KlingelError, NotFetched, TimeoutError) as error:
            await self._try_later(platform, bot, tried, work, error)
        except Exception as error:
            log.exception("chat.submitting_broke", command_id=command.id)
            await self._try_later(platform, bot, tried, work, error)
        else:
            await self._save(replace(tried, next_try_at=None, task_id=task_id))
            log.info("chat.submitted", bot_id=bot.id, command_id=command.id, task_id=task_id)

    async def _try_later(
        self, platform: Platform, bot: Bot, tried: Command, work: _Work, error: Exception
    ) -> None:
        reason = str(error) or type(error).__name__
        log.warning("chat.not_submitted", command_id=tried.id, tries=tried.tries, reason=reason)
        if tried.tries < TRIES:
            doublings: int = 2 ** (tried.tries - 1)
            await self._save(replace(tried, next_try_at=self._clock() + FIRST_PAUSE * doublings))
            return
        await self._save(replace(tried, next_try_at=None))
        told = reason if isinstance(error, NotFetched) else "something is wrong here"
        await self._tell(platform, bot, work.address, f"I could not submit it: {told}. Please ask again.")

    async def _submit(self, platform: Platform, bot: Bot, command: Command, work: _Work) -> TaskId:
        """
        Raises:
            Hopeless: for what another try would not change.
        """
        if work.press is None:
            raw = await self._asked(platform, bot, work)
            prompt = work.prompt
        else:
            raw, prompt = await self._pressed(bot, work)
        try:
            draft = await self._submits.read(to_json(raw))
        except Unprocessable as error:
            faults = "\n".join(f"- {fault.detail}" for fault in error.faults) or error.detail
            raise Hopeless(f"I cannot submit that:\n{faults}") from None
        draft = replace(draft, endpoints=(*draft.endpoints, self._answering(bot, work, prompt)))
        # A crash between this and the command's own write submits nothing twice.
        stored = await self._submitter.submit(bot.account_id, draft, once=_once(command, draft))
        return stored.task_id

    async def _asked(self, platform: Platform, bot: Bot, work: _Work) -> dict[str, Any]:
        assert work.type is not None
        secrets = opened(self._vault, bot.credentials)
        try:
            attached = await asyncio.gather(
                *(platform.fetch(picture, config=bot.config, secrets=secrets) for picture in work.pictures)
            )
        except NotFetched as error:
            if error.may_come:
                raise
            raise Hopeless(f"I cannot have a picture that you attached: {error}.") from None
        ask = Ask(type=work.type, prompt=work.prompt, options=work.options, urls=work.urls)
        return _body(bot, work, ask.type, submit_input(ask, attached))

    async def _pressed(self, bot: Bot, work: _Work) -> tuple[dict[str, Any], str]:
        assert work.task_id is not None
        async with self._database.reading() as reader:
            task = await tasks.get(reader, work.task_id, account_id=bot.account_id)
            made_here = await bots.made(reader, bot.id, work.task_id)
        if task is None or not made_here:
            raise Hopeless("I do not have that task any longer.")
        given = await run_sync(lambda: with_files(task.input, self._files.get))
        prompt = str(given.get("prompt") or "")
        if work.press is Press.AGAIN:
            return _body(bot, work, task.type, given), prompt
        return _body(bot, work, VIDEO, {"prompt": prompt[:500], **_film_of(task, given)}), prompt

    def _answering(self, bot: Bot, work: _Work, prompt: str) -> EndpointDraft:
        """The task's own endpoint: the place where it was asked for."""
        kept = {"address": work.address, "prompt": prompt, "person": asdict(work.person)}
        return EndpointDraft(
            kind=bot.platform,
            config={"bot": bot.id},
            credentials=self._vault.seal(to_json(kept).decode()),
            secret=self._vault.seal(new_endpoint_secret()),
        )

    async def _save(self, command: Command) -> None:
        async def save(tx: Transaction, commands: Sequence[Command]) -> list[None]:
            for one in commands:
                await bots.save_command(tx, one)
            return [None] * len(commands)

        await self._batcher.run(save, command)

    async def _tell(self, platform: Platform, bot: Bot, address: Mapping[str, Any], text: str) -> None:
        to = Destination(
            config=bot.config,
            secrets=opened(self._vault, bot.credentials),
            address=address,
            asked_at=self._clock(),
        )
        try:
            async with asyncio.timeout(TELL_DEADLINE.total_seconds()):
                reason = (await platform.tell(to, text, now=self._clock())).reason
        except TimeoutError:
            reason = "no answer in time"
        log.info("chat.told", platform=platform.name, bot_id=bot.id, reason=reason)


def _response(answer: Answer, then: BackgroundTask | None = None) -> Response:
    return Response(answer.body, status_code=answer.status, headers=dict(answer.headers), background=then)


def _opened_work(vault: Vault, command: Command) -> _Work:
    asked = from_json(vault.open(command.asked))
    return _Work(
        **asked
        | {
            "person": Person(**asked["person"]),
            "press": None if asked["press"] is None else Press(asked["press"]),
        }
    )


def _once(command: Command, draft: Draft) -> Once:
    return Once(key=f"chat:{command.id}", body_hash=draft.type.name)


def _body(bot: Bot, work: _Work, type: str, input: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"chat": bot.platform, "user": work.person.user}
    return {"type": type, "input": dict(input), "metadata": metadata}


def _film_of(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of what was made; where that is one picture, of what it was made of too, for a film takes two to four."""
    made = [output.url for output in task.outputs if output.kind is OutputKind.IMAGE]
    if not made:
        raise Hopeless("There is no picture to make a video of.")
    sources = [subject["subject_image"] for subject in given.get("subject_image_list", [])]
    return pictures_input(VIDEO, (made if len(made) > 1 else [*made, *sources])[:4])


def _line(task: Task) -> str:
    prompt = " ".join(str(task.input.get("prompt") or task.type).split())
    error = f" ({task.error.message})" if task.error is not None else ""
    urls = " ".join(output.url for output in task.outputs)
    return f"{task.status}: {prompt[:80]}{error} {urls}".rstrip()
