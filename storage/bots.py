"""Chat bots, what they were asked, and the messages by which they answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.domain.bots import Allowed, Bot, Command
from service.domain.ids import AccountId, BotId, CommandId, EndpointId, ProcessId, TaskId
from service.domain.tasks import Task
from storage import tasks
from storage.columns import Row, from_json_text, json_text, milliseconds, moment
from storage.database import Reader, Transaction


def _bot(row: Row) -> Bot:
    return Bot(
        id=row["id"],
        account_id=row["account_id"],
        platform=row["platform"],
        config=from_json_text(row["config"]),
        credentials=row["credentials"],
        allow=tuple(Allowed(**allowed) for allowed in from_json_text(row["allow"])),
        open_tasks=row["open_tasks"],
        description=row["description"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )


def _changing(bot: Bot) -> dict[str, Any]:
    return {
        "id": bot.id,
        "config": json_text(bot.config),
        "credentials": bot.credentials,
        "allow": json_text([allowed.view() for allowed in bot.allow]),
        "open_tasks": bot.open_tasks,
        "description": bot.description,
        "updated_at": milliseconds(bot.updated_at),
    }


async def insert(tx: Transaction, bot: Bot) -> None:
    await tx.run(
        "insert_bot",
        **_changing(bot),
        account_id=bot.account_id,
        platform=bot.platform,
        created_at=milliseconds(bot.created_at),
    )


async def get(reader: Reader, bot_id: str) -> Bot | None:
    row = await reader.one("get_bot", id=bot_id)
    return None if row is None else _bot(row)


async def page(reader: Reader, account_id: AccountId, *, before_id: str | None, limit: int) -> list[Bot]:
    """Newest first."""
    rows = await reader.all("list_bots", account_id=account_id, before_id=before_id, limit=limit)
    return [_bot(row) for row in rows]


async def count(reader: Reader, accounts: Iterable[AccountId]) -> Counter[AccountId]:
    """How many each account has; deleted ones do not count."""
    rows = await reader.all("count_bots", accounts=json_text(sorted(set(accounts))))
    return Counter({row["account_id"]: row["number"] for row in rows})


async def save(tx: Transaction, bot: Bot) -> None:
    await tx.run("save_bot", **_changing(bot))


async def delete(tx: Transaction, bot_id: BotId, *, now: datetime) -> None:
    """What it was asked and has not begun is forgotten with it."""
    await tx.run("delete_bot", id=bot_id, now=milliseconds(now))
    await tx.run("stop_commands_of_bot", bot_id=bot_id)


def _command(row: Row) -> Command:
    return Command(
        id=row["id"],
        bot_id=row["bot_id"],
        key=row["key"],
        person=row["person"],
        asked=row["asked"],
        tries=row["tries"],
        next_try_at=moment(row["next_try_at"]),
        task_id=row["task_id"],
        created_at=moment(row["created_at"]),
    )


async def add_command(tx: Transaction, command: Command) -> bool:
    """False if it is there already."""
    added = await tx.run(
        "insert_command",
        id=command.id,
        bot_id=command.bot_id,
        key=command.key,
        person=command.person,
        asked=command.asked,
        next_try_at=milliseconds(command.next_try_at),
        created_at=milliseconds(command.created_at),
    )
    return added == 1


async def is_known(reader: Reader, bot_id: BotId, key: str) -> bool:
    return await reader.one("command_by_key", bot_id=bot_id, key=key) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What is begun already, and who has enough of it."""

    begun: Sequence[CommandId]
    accounts: Sequence[AccountId]  # of each that is begun
    busy_accounts: Sequence[AccountId]
    busy_bots: Sequence[BotId]


async def due_commands(
    tx: Transaction, others: Others, *, now: datetime, limit: int
) -> list[tuple[AccountId, Command]]:
    """Accounts take turns: first comes who has the fewest begun."""
    rows = await tx.all(
        "due_commands",
        now=milliseconds(now),
        begun=json_text(others.begun),
        accounts=json_text(others.accounts),
        busy_accounts=json_text(others.busy_accounts),
        busy_bots=json_text(others.busy_bots),
        limit=limit,
    )
    return [(row["account_id"], _command(row)) for row in rows]


async def take_commands(tx: Transaction, ids: Iterable[CommandId], *, by: ProcessId) -> None:
    """They are begun by this process, and by nobody else until it has saved them."""
    await tx.run("take_commands", ids=json_text(list(ids)), process_id=by)


async def give_back_commands(tx: Transaction, *, by: ProcessId, but: Sequence[CommandId]) -> None:
    """What this process has taken, except these."""
    await tx.run("give_back_commands", process_id=by, but=json_text(list(but)))


async def inherit_commands(tx: Transaction, processes: Sequence[ProcessId] | None) -> int:
    """Gives back what these processes had begun; None: whoever had."""
    named = None if processes is None else json_text(list(processes))
    return await tx.run("inherit_commands", processes=named)


async def count_waiting(reader: Reader, bot_ids: Iterable[BotId]) -> Counter[BotId]:
    """Commands of each that are no tasks yet."""
    rows = await reader.all("count_waiting_commands", bots=json_text(sorted(set(bot_ids))))
    return Counter({row["bot_id"]: row["number"] for row in rows})


async def commands_beginning(
    reader: Reader, bot_id: BotId, person: str, prefix: str, *, since: datetime, limit: int
) -> list[Command]:
    """Those of one person whose keys begin so."""
    rows = await reader.all(
        "commands_beginning",
        bot_id=bot_id,
        person=person,
        prefix=prefix,
        since=milliseconds(since),
        limit=limit,
    )
    return [_command(row) for row in rows]


async def next_command_at(reader: Reader, others: Others) -> datetime | None:
    """When the next is due that is neither begun nor has to wait for them."""
    at: int | None = await reader.value(
        "next_command_at",
        begun=json_text(others.begun),
        busy_accounts=json_text(others.busy_accounts),
        busy_bots=json_text(others.busy_bots),
    )
    return moment(at)


async def save_command(tx: Transaction, command: Command) -> None:
    await tx.run(
        "save_command",
        id=command.id,
        tries=command.tries,
        next_try_at=milliseconds(command.next_try_at),
        task_id=command.task_id,
    )


async def tasks_of(reader: Reader, bot_id: BotId, person: str, *, limit: int) -> list[Task | None]:
    """Newest first; None stands for what is about to become one."""
    rows = await reader.all("tasks_of_person", bot_id=bot_id, person=person, limit=limit)
    return [None if row["id"] is None else tasks.task_of(row) for row in rows]


async def count_open(reader: Reader, bot_id: BotId, person: str) -> int:
    number: int = await reader.value("count_open_of_person", bot_id=bot_id, person=person)
    return number


async def made(reader: Reader, bot_id: BotId, task_id: str) -> bool:
    """Whether it was this bot that submitted it."""
    return bool(await reader.value("is_task_of_bot", bot_id=bot_id, task_id=task_id))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """The message that stands for a task: the platform's name of it, and the event that it shows."""

    reference: Mapping[str, Any]
    sequence: int


async def message(reader: Reader, endpoint_id: EndpointId, task_id: TaskId) -> ChatMessage | None:
    row = await reader.one("get_chat_message", endpoint_id=endpoint_id, task_id=task_id)
    return None if row is None else ChatMessage(from_json_text(row["reference"]), row["sequence"])


async def remember_messages(
    tx: Transaction, messages: Sequence[tuple[EndpointId, TaskId, ChatMessage]]
) -> None:
    for endpoint_id, task_id, message in messages:
        await tx.run(
            "save_chat_message",
            endpoint_id=endpoint_id,
            task_id=task_id,
            reference=json_text(message.reference),
            sequence=message.sequence,
        )
