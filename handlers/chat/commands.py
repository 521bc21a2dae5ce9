"""The loop that makes tasks of the commands that the desk wrote down."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from pydantic_core import to_json

from handlers.chat.albums import parts_of_album, settled_at, with_parts
from handlers.chat.drafting import Drafter, Hopeless
from handlers.chat.platform import NotFetched, Platform
from handlers.chat.telling import Teller
from handlers.chat.wishes import Wish, opened_wish
from service.batching import Batcher
from service.domain.bots import Bot, Command
from service.domain.endpoints import ALL_TASK_EVENTS, EndpointDraft
from service.domain.errors import BudgetExceeded, ConfigurationError, ExternalTaskIdTaken, KlingelError
from service.domain.events import EventType
from service.domain.ids import AccountId, BotId, CommandId, ProcessId, TaskId
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.times import Clock, rfc3339
from service.domain.values import replace
from service.doors.sharing import Full
from service.doubt import Doubt
from service.loops import Loop, not_at_once
from service.notices import Notices, Topic
from service.processes import Presence
from service.submission import Submitter
from service.wakeups import Wakeup
from storage import bots, tasks
from storage.database import Database, Transaction

AT_A_TIME: Final = 32
# A command whose pictures do not come holds up no commands of others:
AT_A_TIME_OF_ACCOUNT: Final = 8  # however many bots it has,
AT_A_TIME_OF_BOT: Final = 4  # nor those of the account's other bots
TRIES: Final = 5
FIRST_PAUSE: Final = timedelta(seconds=2)  # doubles with each try
WORK_DEADLINE: Final = timedelta(minutes=2)  # of one try: pictures are fetched
# What a chat is told of a task: also when there is a copy with links that last, and a still of a video.
TOLD: Final = (*ALL_TASK_EVENTS, EventType.OUTPUT_STORED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A command that is being worked on."""

    account_id: AccountId
    bot_id: BotId
    work: asyncio.Task[None]


class CommandLoop:
    """Takes commands that are due, for this process alone, and works on many at a time."""

    def __init__(
        self,
        *,
        platforms: Mapping[str, Platform],
        database: Database,
        batcher: Batcher,
        drafter: Drafter,
        submitter: Submitter,
        teller: Teller,
        vault: Vault,
        presence: Presence,
        notices: Notices,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        self._platforms = platforms
        self._database = database
        self._batcher = batcher
        self._drafter = drafter
        self._submitter = submitter
        self._teller = teller
        self._vault = vault
        self._presence = presence
        self._notices = notices
        self._wakeup = wakeup
        self._clock = clock
        self._begun: dict[CommandId, _Begun] = {}
        self._doubt = Doubt(notices)  # whether commands are marked as taken here that were not begun
        self._loop = Loop("commands", self._begin_due, wakeup=wakeup, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A command that is being worked on when the block ends is begun anew at the next start, and is no second task."""
        if self._database.sole_process:
            await self._batcher.run(self._inherit_all, None)  # begun by a process that died
        try:
            async with self._loop.running():
                yield
        finally:
            working = [begun.work for begun in self._begun.values()]
            for work in working:
                work.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def inherit(self, tx: Transaction, dead: Sequence[ProcessId]) -> None:
        """Gives back the commands that processes had begun which are no more."""
        await bots.inherit_commands(tx, dead)
        await self._notices.wake(tx, Topic.COMMANDS, self._wakeup)

    async def _inherit_all(self, tx: Transaction, asked: Sequence[None]) -> list[None]:
        await bots.inherit_commands(tx, None)
        return [None] * len(asked)

    # Which commands

    async def _begin_due(self) -> datetime | None:
        """Begins what is due, and waits for none of it."""
        while len(self._begun) < AT_A_TIME:
            await self._presence.until_alive()
            taken = await self._batcher.run(self._take, None)
            for account_id, command in taken:
                self._begin(account_id, command)
            if not taken:
                async with self._database.reading() as reader:
                    due = await bots.next_command_at(reader, self._others())
                return not_at_once(due, self._clock())
        return None  # the end of each command calls the loop again

    async def _take(self, tx: Transaction, asked: Sequence[None]) -> list[list[tuple[AccountId, Command]]]:
        """Marks commands that are due as taken by this process."""
        if self._doubt.is_open:
            await self._give_back_lost(tx)
        room = AT_A_TIME - len(self._begun)
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
            tx.on_rollback(self._doubt.raise_)
        # One loop asks, so there is one answer; were there more, the first would have it all.
        return [taken, *([] for _ in asked[1:])]

    def _others(self, taken: Sequence[tuple[AccountId, Command]] = ()) -> bots.Others:
        """The commands beside those that may be begun now: begun already, or about to be."""
        of_accounts = [one.account_id for one in self._begun.values()] + [account for account, _ in taken]
        of_bots = [one.bot_id for one in self._begun.values()] + [command.bot_id for _, command in taken]
        return bots.Others(
            begun=list(self._begun),
            accounts=of_accounts,
            busy_accounts=[id for id, n in Counter(of_accounts).items() if n >= AT_A_TIME_OF_ACCOUNT],
            busy_bots=[id for id, n in Counter(of_bots).items() if n >= AT_A_TIME_OF_BOT],
        )

    async def _give_back_lost(self, tx: Transaction) -> None:
        """Gives back what was taken by a commit of which this process did not learn: no work on it was begun."""
        self._doubt.settle(tx)
        await bots.give_back_commands(tx, by=self._presence.id, but=list(self._begun))

    def _begin(self, account_id: AccountId, command: Command) -> None:
        work = asyncio.create_task(self._work(command), name=f"command {command.id}")
        self._begun[command.id] = _Begun(account_id, command.bot_id, work)
        work.add_done_callback(lambda done: self._on_ended(command.id, done))

    def _on_ended(self, command_id: CommandId, work: "asyncio.Task[None]") -> None:
        del self._begun[command_id]
        if work.cancelled():
            return
        if (error := work.exception()) is None:
            self._wakeup.notify()
        else:  # what became of it is not on disk: another try finds out
            log.error("chat.work_broke", command_id=command_id, exc_info=error)
            self._doubt.raise_()
            self._wakeup.due_at(self._clock() + FIRST_PAUSE)

    # One command

    async def _work(self, command: Command) -> None:
        async with self._database.reading() as reader:
            bot = await bots.get(reader, command.bot_id)
        platform = None if bot is None else self._platforms.get(bot.platform)
        if bot is None or platform is None:
            await self._save(replace(command, next_try_at=None))
            return
        try:
            wish = opened_wish(command, self._vault)
        except ConfigurationError as error:
            log.error("chat.command_lost", command_id=command.id, reason=str(error))  # noqa: TRY400 - no fault of the code
            await self._save(replace(command, next_try_at=None))
            return
        parts: Sequence[Command] = ()
        if wish.album is not None:
            async with self._database.reading() as reader:
                parts = await parts_of_album(reader, wish.album, command)
            if self._clock() < (settled := settled_at(command, parts)):
                await self._save(replace(command, next_try_at=settled))
                return
        await self._try(platform, bot, command, wish, parts)

    async def _try(
        self, platform: Platform, bot: Bot, command: Command, wish: Wish, parts: Sequence[Command]
    ) -> None:
        """One try to make a task of a command, and what becomes of the command after it."""
        tried = replace(command, tries=command.tries + 1)
        try:
            async with asyncio.timeout(WORK_DEADLINE.total_seconds()):
                whole = with_parts(wish, parts, self._vault)
                task_id = await self._submit(platform, bot, command, whole)
        except Hopeless as error:
            await self._give_up(platform, bot, tried, wish, str(error))
        except Full:  # for a moment, and of what others hold: this try does not count
            await self._save(replace(command, next_try_at=self._clock() + FIRST_PAUSE))
        except (KlingelError, NotFetched, TimeoutError) as error:
            await self._try_later(platform, bot, tried, wish, error)
        except Exception as error:
            log.exception("chat.submitting_broke", command_id=command.id)
            await self._try_later(platform, bot, tried, wish, error)
        else:
            await self._save(replace(tried, next_try_at=None, task_id=task_id))
            log.info("chat.submitted", bot_id=bot.id, command_id=command.id, task_id=task_id)

    async def _try_later(
        self, platform: Platform, bot: Bot, tried: Command, wish: Wish, error: Exception
    ) -> None:
        """Or no more, after the last try."""
        reason = str(error) or type(error).__name__
        log.warning("chat.not_submitted", command_id=tried.id, tries=tried.tries, reason=reason)
        if tried.tries < TRIES:
            doublings: int = 2 ** (tried.tries - 1)
            await self._save(replace(tried, next_try_at=self._clock() + FIRST_PAUSE * doublings))
            return
        told = reason if isinstance(error, NotFetched) else "something is wrong here"
        await self._give_up(platform, bot, tried, wish, f"I could not submit it: {told}. Please ask again.")

    async def _give_up(self, platform: Platform, bot: Bot, tried: Command, wish: Wish, why: str) -> None:
        await self._save(replace(tried, next_try_at=None))
        await self._teller.tell(platform, bot, wish.address, why, asked_at=tried.created_at)

    async def _submit(self, platform: Platform, bot: Bot, command: Command, wish: Wish) -> TaskId:
        """The task of this command: a new one, or the one that an earlier try made.

        Raises:
            Hopeless: for what another try would not change.
            Full: there is no room for its pictures now.
        """
        named = (bot.account_id, command.id)
        async with self._database.reading() as reader:
            known = await tasks.external_ids_taken(reader, [named])
        if named in known:  # a crash came between its task and the note of it
            return known[named]
        draft, prompt = await self._drafter.draft(platform, bot, wish)
        answering = self._answering(bot, command, wish, prompt)
        # One name, one task: whatever happens in between, the same command submits nothing twice.
        draft = replace(draft, external_task_id=command.id, endpoints=(*draft.endpoints, answering))
        try:
            return (await self._submitter.submit(bot.account_id, draft)).task_id
        except ExternalTaskIdTaken as error:
            return TaskId(str(error.members["task_id"]))
        except BudgetExceeded as error:
            raise Hopeless(f"I cannot submit that: {error.detail}") from None

    def _answering(self, bot: Bot, command: Command, wish: Wish, prompt: str) -> EndpointDraft:
        """The task's own endpoint: the place where the bot was asked for it."""
        kept = {
            "address": wish.address,
            "asked_at": rfc3339(command.created_at),
            "prompt": prompt,
            "person": asdict(wish.person),
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
