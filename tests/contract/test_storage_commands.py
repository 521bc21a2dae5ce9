"""Whose command comes next: accounts take turns, however many bots and commands one of them has."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.domain.bots import Bot, Command
from service.domain.ids import AccountId, BotId, CommandId
from storage import bots
from storage.bots import Others
from storage.database import Database
from tests.places import Places

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
BUSY, QUIET = AccountId("acc_1"), AccountId("acc_2")
# Account, bot, and how many seconds ago the command became due.
WAITING = (
    (BUSY, "bot_a", 9), (BUSY, "bot_b", 8), (BUSY, "bot_a", 7), (BUSY, "bot_c", 6),
    (QUIET, "bot_q", 2), (QUIET, "bot_q", 1),
)  # fmt: skip


@pytest.fixture
async def database(places: Places, tmp_path: Path) -> AsyncIterator[Database]:
    async with places.open(tmp_path) as database:
        async with database.transaction() as tx:
            for account_id in (BUSY, QUIET):
                await tx.run("insert_account", id=account_id, name=account_id, created_at=0)
            for account_id, bot_id in dict.fromkeys(
                (account_id, bot_id) for account_id, bot_id, _ in WAITING
            ):
                await bots.insert(tx, bot(account_id, BotId(bot_id)))
            for _, bot_id, ago in WAITING:
                await bots.add_command(tx, command(BotId(bot_id), ago))
        yield database


def bot(account_id: AccountId, id: BotId) -> Bot:
    return Bot(
        id=id,
        account_id=account_id,
        platform="mattermost",
        config={},
        credentials=None,
        allow=(),
        open_tasks=3,
        created_at=NOW,
        updated_at=NOW,
    )


def command(bot_id: BotId, ago: int) -> Command:
    return Command(
        id=CommandId(f"cmd_{ago}"),
        bot_id=bot_id,
        key=f"key_{ago}",
        person="ada",
        asked="sealed",
        next_try_at=NOW - timedelta(seconds=ago),
        created_at=NOW,
    )


def others(*begun: str, accounts: tuple[AccountId, ...] = (), busy_bots: tuple[str, ...] = ()) -> Others:
    return Others(
        begun=[CommandId(id) for id in begun],
        accounts=accounts,
        busy_accounts=[],
        busy_bots=[BotId(id) for id in busy_bots],
    )


async def due(database: Database, given: Others, *, limit: int = 10) -> list[str]:
    async with database.transaction() as tx:
        found = await bots.due_commands(tx, given, now=NOW, limit=limit)
    return [command.id for _, command in found]


async def test_accounts_take_turns(database: Database) -> None:
    assert await due(database, others()) == ["cmd_9", "cmd_2", "cmd_8", "cmd_1", "cmd_7", "cmd_6"]


async def test_who_has_the_fewest_begun_comes_first(database: Database) -> None:
    """Even where there is one place, and the others' have waited longer."""
    assert await due(database, others("cmd_9", accounts=(BUSY,)), limit=1) == ["cmd_2"]
    given = others("cmd_9", "cmd_2", "cmd_1", accounts=(BUSY, QUIET, QUIET))
    assert await due(database, given, limit=1) == ["cmd_8"]


async def test_who_has_enough_waits(database: Database) -> None:
    given = others(busy_bots=("bot_a", "bot_q"))
    assert await due(database, given) == ["cmd_8", "cmd_6"]
    full = Others(begun=[], accounts=[], busy_accounts=[BUSY], busy_bots=[])
    assert await due(database, full) == ["cmd_2", "cmd_1"]
    async with database.reading() as reader:
        assert await bots.next_command_at(reader, full) == NOW - timedelta(seconds=2)


async def test_what_waits_is_counted_for_each_bot(database: Database) -> None:
    async with database.reading() as reader:
        assert await bots.count_waiting(reader, map(BotId, ("bot_a", "bot_q", "bot_none"))) == {
            "bot_a": 2,
            "bot_q": 2,
        }
