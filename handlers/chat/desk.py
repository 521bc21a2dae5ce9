"""The front desk: a command comes in from a chat, is written down, answered, and becomes a task."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from anyio.to_thread import run_sync
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from handlers.chat.configuration import configured, opened
from handlers.chat.grammar import (
    VIDEO,
    Ask,
    AskStatus,
    Usage,
    most_pictures,
    of_pictures,
    parse,
    submitted,
)
from handlers.chat.platform import (
    MOST_PICTURES,
    Album,
    Answer,
    Attached,
    Destination,
    Forged,
    Grown,
    Inbound,
    NotFetched,
    Platform,
    Press,
    Pressed,
    Said,
)
from service.batching import Batcher
from service.domain.bots import Bot, Command, Person
from service.domain.endpoints import ALL_TASK_EVENTS, EndpointDraft
from service.domain.errors import (
    BudgetExceeded,
    ConfigurationError,
    ExternalTaskIdTaken,
    InvalidRequest,
    KlingelError,
    TooLarge,
    Unprocessable,
)
from service.domain.events import EventType
from service.domain.ids import AccountId, BotId, CommandId, ProcessId, TaskId, new_command_id
from service.domain.inputs import with_files
from service.domain.links import Links
from service.domain.prompts import prompt_of
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.tasks import OutputKind, Task
from service.domain.times import Clock, rfc3339
from service.domain.values import replace
from service.doors.bodies import read_body
from service.doors.sharing import Full, Holding, Room
from service.loops import Loop, not_at_once
from service.notices import Notices, Topic
from service.processes import Presence
from service.submission import Draft, Submitter
from service.submits import SubmitReader
from service.wakeups import Wakeup
from storage import bots, tasks
from storage.database import Database, Transaction
from storage.files import Files

LARGEST_REQUEST: Final = 1024 * 1024
AT_A_TIME: Final = 32
# Pictures that do not come hold up nobody else's commands:
AT_A_TIME_OF_ACCOUNT: Final = 8  # however many bots it has,
AT_A_TIME_OF_BOT: Final = 4  # nor those of the account's other bots
WAITING_OF_BOT: Final = 100  # commands that are no tasks yet; then more are refused
MOST_PARTS: Final = 10  # of an album are read: no task takes as many
SHOWN: Final = 5  # tasks, to who asks for their status
TRIES: Final = 5
FIRST_PAUSE: Final = timedelta(seconds=2)  # doubles with each try
WORK_DEADLINE: Final = timedelta(minutes=2)  # of one try: pictures are fetched
TELL_DEADLINE: Final = timedelta(seconds=15)
# What a chat is told of a task: also when there is a copy with links that last, and a still of a video.
TOLD: Final = (*ALL_TASK_EVENTS, EventType.OUTPUT_STORED)
ALBUM_SETTLES: Final = timedelta(seconds=2)  # after the latest of its pictures that was told of
ALBUM_LASTS: Final = timedelta(days=1)  # so long after its pictures they can be asked for

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
    album: Album | None = None
    press: Press | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    account_id: AccountId
    bot_id: BotId
    work: asyncio.Task[None]


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
        links: Links,
        vault: Vault,
        room: Room,
        presence: Presence,
        notices: Notices,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        """
        Args:
            room: for accounts' bytes in memory, which pictures and bodies share.
        """
        self._platforms = platforms
        self._database = database
        self._batcher = batcher
        self._submits = submits
        self._submitter = submitter
        self._files = files
        self._links = links
        self._vault = vault
        self._room = room
        self._presence = presence
        self._notices = notices
        self._wakeup = wakeup
        self._clock = clock
        self._in_doubt = False  # the database may count commands as begun here that are not
        notices.on_gap(self._doubt)  # a server that lost us may be at a commit of ours for some time yet
        self._open: dict[CommandId, _Begun] = {}
        self._loop = Loop("commands", self._work_due, wakeup=wakeup, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A command that is on its way when the block ends is begun anew at the next start, and is no second task."""
        if self._database.sole_process:
            await self._batcher.run(self._inherit_all, None)  # begun by a process that died
        try:
            async with self._loop.running():
                yield
        finally:
            begun = [one.work for one in self._open.values()]
            for work in begun:
                work.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

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
        try:
            secrets = opened(self._vault, bot.credentials)
        except ConfigurationError as error:
            log.error("chat.bot_locked", bot_id=bot.id, reason=str(error))  # noqa: TRY400 - no fault of the code
            return Response("Not possible now\n", status_code=503, media_type="text/plain")
        try:
            heard = platform.hear(inbound, config=bot.config, secrets=secrets, now=self._clock())
        except Forged as error:
            log.warning("chat.forged", platform=platform.name, bot_id=bot.id, reason=str(error))
            return Response("Not signed by the platform\n", status_code=401, media_type="text/plain")
        if isinstance(heard, Answer):
            return _response(heard)
        if isinstance(heard, Attached):
            if bot.obeys(heard.person):
                await self._keep(bot, heard)
            return _response(Answer())
        words = await self._words(bot, heard)
        answer = platform.answer(heard, words)
        if answer is not None or words is None:
            return _response(answer or Answer())
        # After the answer: the platform would else wait for itself, and ask again.
        telling = BackgroundTask(self._tell, platform, bot, heard.address, words, asked_at=self._clock())
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
                    urls=ask.urls[:MOST_PICTURES],
                    pictures=heard.pictures[:MOST_PICTURES],
                    album=heard.album,
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
            next_try_at=now if work.album is None else now + ALBUM_SETTLES,
            created_at=now,
        )
        return await self._batcher.run(self._write_down, (bot, command))

    async def _keep(self, bot: Bot, attached: Attached) -> None:
        """A picture waits for its command like a command that is done: it is forgotten with them."""
        part = Command(
            id=new_command_id(),
            bot_id=bot.id,
            key=f"{_album_key(attached.album)}{attached.album.place}",
            person=attached.person.user,
            asked=self._vault.seal(to_json(attached.pictures).decode()),
            created_at=self._clock(),
        )

        async def add(tx: Transaction, parts: Sequence[Command]) -> list[None]:
            for one in parts:
                await bots.add_command(tx, one)
            return [None] * len(parts)

        await self._batcher.run(add, part)

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

    async def _status(self, bot: Bot, person: Person) -> str:
        async with self._database.reading() as reader:
            listed = await bots.tasks_of(reader, bot.id, person.user, limit=SHOWN)
        if not listed:
            return "You have asked for nothing yet. Say help to see how."
        return "\n".join(
            "about to be submitted" if task is None else _line(self._links.shown(task)) for task in listed
        )

    # Working

    async def _work_due(self) -> datetime | None:
        """Begins what is due, and waits for none of it."""
        while len(self._open) < AT_A_TIME:
            await self._presence.until_alive()
            taken = await self._batcher.run(self._take, None)
            for account_id, command in taken:
                self._begin(account_id, command)
            if not taken:
                async with self._database.reading() as reader:
                    due = await bots.next_command_at(reader, self._others())
                return not_at_once(due, self._clock())
        return None  # whatever ends asks again

    async def _take(self, tx: Transaction, asked: Sequence[None]) -> list[list[tuple[AccountId, Command]]]:
        """What is due, for this process alone."""
        if self._in_doubt:
            await self._give_back_lost(tx)
        room = AT_A_TIME - len(self._open)
        found = await bots.due_commands(tx, self._others(), now=self._clock(), limit=room)
        taken: list[tuple[AccountId, Command]] = []
        for account_id, command in found:
            others = self._others(taken)
            if command.bot_id not in others.busy_bots and account_id not in others.busy_accounts:
                taken.append((account_id, command))
        if taken and not await self._presence.may_take(tx):
            taken = []
        if taken:
            await bots.take_commands(tx, [command.id for _, command in taken], by=self._presence.id)
            tx.on_rollback(self._doubt)
        # One loop asks, so there is one answer; were there more, the first would have it all.
        return [taken, *([] for _ in asked[1:])]

    def _doubt(self) -> None:
        self._in_doubt = True

    async def _give_back_lost(self, tx: Transaction) -> None:
        """What a commit of which this process did not learn has taken: nothing of it was begun."""
        self._in_doubt = False
        tx.on_rollback(self._doubt)
        await bots.give_back_commands(tx, by=self._presence.id, but=list(self._open))

    async def inherit(self, tx: Transaction, dead: Sequence[ProcessId]) -> None:
        """What processes that are no more had begun."""
        await bots.inherit_commands(tx, dead)
        await self._notices.wake(tx, Topic.COMMANDS, self._wakeup)

    async def _inherit_all(self, tx: Transaction, asked: Sequence[None]) -> list[None]:
        await bots.inherit_commands(tx, None)
        return [None] * len(asked)

    def _others(self, taken: Sequence[tuple[AccountId, Command]] = ()) -> bots.Others:
        """Than what may be begun now: what is, and what is about to be."""
        of_accounts = [one.account_id for one in self._open.values()] + [account for account, _ in taken]
        of_bots = [one.bot_id for one in self._open.values()] + [command.bot_id for _, command in taken]
        return bots.Others(
            begun=list(self._open),
            accounts=of_accounts,
            busy_accounts=[id for id, n in Counter(of_accounts).items() if n >= AT_A_TIME_OF_ACCOUNT],
            busy_bots=[id for id, n in Counter(of_bots).items() if n >= AT_A_TIME_OF_BOT],
        )

    def _begin(self, account_id: AccountId, command: Command) -> None:
        work = asyncio.create_task(self._work(command), name=f"command {command.id}")
        self._open[command.id] = _Begun(account_id, command.bot_id, work)
        work.add_done_callback(lambda done: self._on_ended(command.id, done))

    def _on_ended(self, command_id: CommandId, work: "asyncio.Task[None]") -> None:
        del self._open[command_id]
        if work.cancelled():
            return
        if (error := work.exception()) is None:
            self._wakeup.notify()
        else:  # what became of it is not on disk: another try finds out
            log.error("chat.work_broke", command_id=command_id, exc_info=error)
            self._doubt()
            self._wakeup.due_at(self._clock() + FIRST_PAUSE)

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
        parts: Sequence[Command] = ()
        if work.album is not None:
            parts = await self._parts(command, work.album)
            settled_at = max((part.created_at for part in parts), default=command.created_at) + ALBUM_SETTLES
            if self._clock() < settled_at:
                await self._save(replace(command, next_try_at=settled_at))
                return
        tried = replace(command, tries=command.tries + 1)
        try:
            async with asyncio.timeout(WORK_DEADLINE.total_seconds()):
                task_id = await self._submit(platform, bot, command, self._whole(work, parts))
        except Hopeless as error:
            await self._save(replace(tried, next_try_at=None))
            await self._tell(platform, bot, work.address, str(error), asked_at=command.created_at)
        except Full:  # for a moment, and by what others hold: it does not count
            await self._save(replace(command, next_try_at=self._clock() + FIRST_PAUSE))
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
        words = f"I could not submit it: {told}. Please ask again."
        await self._tell(platform, bot, work.address, words, asked_at=tried.created_at)

    async def _parts(self, command: Command, album: Album) -> list[Command]:
        since = command.created_at - ALBUM_LASTS
        async with self._database.reading() as reader:
            return await bots.commands_beginning(
                reader, command.bot_id, command.person, _album_key(album), since=since, limit=MOST_PARTS
            )

    def _whole(self, work: _Work, parts: Sequence[Command]) -> _Work:
        """With all pictures of its album that have come, in their order.

        Raises:
            ConfigurationError: under another KLINGEL_SECRET.
        """
        if work.album is None:
            return work
        before = len(_album_key(work.album))
        placed = {int(part.key[before:]): from_json(self._vault.open(part.asked)) for part in parts}
        placed[work.album.place] = work.pictures
        return replace(
            work, pictures=[picture for _, pictures in sorted(placed.items()) for picture in pictures]
        )

    async def _submit(self, platform: Platform, bot: Bot, command: Command, work: _Work) -> TaskId:
        """
        Raises:
            Hopeless: for what another try would not change.
            Full: there is no room for its pictures now.
        """
        named = (bot.account_id, command.id)
        async with self._database.reading() as reader:
            taken = await tasks.external_ids_taken(reader, [named])
        if named in taken:  # a crash came between its task and the note of it
            return taken[named]
        with self._room.hold(bot.account_id) as holding:
            draft, prompt = await self._drafted(platform, bot, work, holding)
        answering = self._answering(bot, command, work, prompt)
        # One name, one task: whatever happens in between, the same command submits nothing twice.
        draft = replace(draft, external_task_id=command.id, endpoints=(*draft.endpoints, answering))
        try:
            return (await self._submitter.submit(bot.account_id, draft)).task_id
        except ExternalTaskIdTaken as error:
            return TaskId(str(error.members["task_id"]))
        except BudgetExceeded as error:
            raise Hopeless(f"I cannot submit that: {error.detail}") from None

    async def _drafted(
        self, platform: Platform, bot: Bot, work: _Work, holding: Holding
    ) -> tuple[Draft, str]:
        """With its prompt."""
        if work.press is None:
            raw, prompt = await self._asked(platform, bot, work, holding), work.prompt
        else:
            raw, prompt = await self._pressed(bot, work)
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

    async def _asked(self, platform: Platform, bot: Bot, work: _Work, holding: Holding) -> dict[str, Any]:
        assert work.type is not None
        most = most_pictures(work.type)
        if len(work.pictures) + len(work.urls) > most:
            raise Hopeless(f"I cannot submit that: it takes at most {most} pictures.")
        try:
            attached = await self._fetched(platform, bot, work.pictures, holding)
        except NotFetched as error:
            if error.may_come:
                raise
            raise Hopeless(f"I cannot have a picture that you attached: {error}.") from None
        ask = Ask(type=work.type, prompt=work.prompt, options=work.options, urls=work.urls)
        return _body(bot, work, *submitted(ask, attached))

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
        type, pictures = _film_of(task, given)
        return _body(bot, work, type, {"prompt": prompt[:500], **pictures}), prompt

    def _answering(self, bot: Bot, command: Command, work: _Work, prompt: str) -> EndpointDraft:
        """The task's own endpoint: the place where it was asked for."""
        kept = {
            "address": work.address,
            "asked_at": rfc3339(command.created_at),
            "prompt": prompt,
            "person": asdict(work.person),
        }
        return EndpointDraft(
            kind=bot.platform,
            config={"bot": bot.id},
            credentials=self._vault.seal(to_json(kept).decode()),
            secret=self._vault.seal(new_endpoint_secret()),
            types=TOLD,
        )

    async def _save(self, command: Command) -> None:
        async def save(tx: Transaction, commands: Sequence[Command]) -> list[None]:
            for one in commands:
                await bots.save_command(tx, one)
            return [None] * len(commands)

        await self._batcher.run(save, command)

    async def _tell(
        self, platform: Platform, bot: Bot, address: Mapping[str, Any], text: str, *, asked_at: datetime
    ) -> None:
        """Once: who hears nothing asks again."""
        to = Destination(
            config=bot.config,
            secrets=opened(self._vault, bot.credentials),
            address=address,
            asked_at=asked_at,
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
            "album": None if asked.get("album") is None else Album(**asked["album"]),
        }
    )


def _album_key(album: Album) -> str:
    return f"album:{album.id}:"


def _body(bot: Bot, work: _Work, type: str, input: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"chat": bot.platform, "user": work.person.user}
    return {"type": type, "input": dict(input), "metadata": metadata}


def _film_of(task: Task, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Of what was made; where that is one picture, of what it was made of too."""
    made = [output.url for output in task.outputs if output.kind is OutputKind.IMAGE]
    if not made:
        raise Hopeless("There is no picture to make a video of.")
    sources = [subject["subject_image"] for subject in given.get("subject_image_list", [])]
    return of_pictures(VIDEO, (made if len(made) > 1 else [*made, *sources])[:4])


def _line(task: Task) -> str:
    prompt = " ".join((prompt_of(task.input) or task.type).split())
    error = f" ({task.error.message})" if task.error is not None else ""
    urls = " ".join(output.url for output in task.outputs)
    return f"{task.status}: {prompt[:80]}{error} {urls}".rstrip()
