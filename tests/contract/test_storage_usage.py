"""Charges add up exactly on either database, also when many write at once; budgets are said to be spent once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from service.domain.costs import Budget, Charge, Period
from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Status
from service.domain.tasks import Task
from service.domain.values import replace
from storage import tasks, usage
from storage.database import Collided, Database
from storage.tasks import TaskFilter
from tests.places import Places

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
ACCOUNT, OTHER = AccountId("acc_1"), AccountId("acc_2")


@pytest.fixture
async def database(places: Places, tmp_path: Path) -> AsyncIterator[Database]:
    async with places.open(tmp_path) as database:
        async with database.transaction() as tx:
            for id in (ACCOUNT, OTHER):
                await tx.run("insert_account", id=id, name=id, created_at=0)
        yield database


def ended(id: str, *charges: Charge, **more: Any) -> Task:
    task = Task(
        id=TaskId(id),
        account_id=ACCOUNT,
        type="kling.multi-image-to-image",
        provider="cometapi",
        status=Status.SUCCEEDED,
        input={},
        external_task_id=id,
        provider_external_id=id,
        cost=charges,
        created_at=NOON,
        updated_at=NOON,
        finished_at=NOON,
        deadline_at=NOON,
    )
    return replace(task, **more)


def units(amount: str, unit: str = "units") -> Charge:
    return Charge(amount=Decimal(amount), unit=unit)


async def store(database: Database, *stored: Task) -> None:
    """As they end: inserted as queued, then saved."""
    async with database.transaction() as tx:
        queued = [replace(task, status=Status.QUEUED, finished_at=None, cost=None) for task in stored]
        await tasks.insert(tx, queued)
        await tasks.save(tx, list(zip(queued, stored, strict=True)))
        await usage.add(tx, stored)


async def test_a_cost_comes_back_as_it_was(database: Database) -> None:
    """All its digits, and the difference between nothing and nothing said."""
    exact = Charge(
        amount=Decimal("0.123456789012345678"), unit="USD", list_price=Decimal("1.5"), package="video"
    )
    known = [ended("task_1", exact, units("16")), ended("task_2"), ended("task_3", cost=None)]
    await store(database, *known)
    async with database.reading() as reader:
        found = await tasks.get_many(reader, [task.id for task in known])
    assert [found[task.id].cost for task in known] == [task.cost for task in known]


async def test_sums_are_by_day_type_provider_and_unit(database: Database) -> None:
    await store(
        database,
        ended("task_1", units("0.1")),
        ended("task_2", units("0.2"), units("0.28", "USD")),
        ended("task_3", units("4"), type="kling.raw", provider="tokyo"),
        ended("task_4", units("8"), finished_at=NOON + DAY),
        ended("task_5", units("99"), account_id=OTHER),
    )

    async def by(dimension: usage.By, until: datetime) -> list[tuple[str | None, str, str, int]]:
        async with database.reading() as reader:
            found = await usage.spent(reader, ACCOUNT, by=dimension, since=NOON, until=until)
        return [(each.value, each.unit, str(each.amount), each.tasks) for each in found]

    assert await by("day", MIDNIGHT + DAY) == [
        ("2026-11-22", "USD", "0.28", 1),
        ("2026-11-22", "units", "4.3", 3),
    ]
    assert (await by("day", MIDNIGHT + 2 * DAY))[-1] == ("2026-11-23", "units", "8", 1)
    assert await by("provider", MIDNIGHT + DAY) == [
        ("cometapi", "USD", "0.28", 1),
        ("cometapi", "units", "0.3", 2),
        ("tokyo", "units", "4", 1),
    ]
    assert [row[0] for row in await by("type", MIDNIGHT + DAY)][-1] == "kling.raw"


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        ({"a": "x"}, "x"),
        ({"a": 7}, "7"),
        ({"a": True}, "true"),
        ({"a": None}, "null"),
        ({"b": "x"}, None),
        ({}, None),
    ],
)
async def test_sums_by_metadata_take_values_as_text(
    database: Database, metadata: dict[str, Any], value: str | None
) -> None:
    await store(database, ended("task_1", units("2"), metadata=metadata), ended("task_2", units("3")))
    async with database.reading() as reader:
        found = await usage.spent_by_metadata(reader, ACCOUNT, key="a", since=MIDNIGHT, until=MIDNIGHT + DAY)
    sums = {each.value: each.amount for each in found}
    assert sums == {None: Decimal(3 if value else 5)} | ({value: Decimal(2)} if value else {})


@pytest.mark.parametrize(
    "values",
    [
        [12345678901234567890, 12345678901234567891],
        [0.0, -0.0, 0],
        [1e20, 100000000000000000000, "1e20"],
        [0.1 + 0.2, 0.3],
        ["x", "x\\u0000y"],
        [[1, "a"], {"b": 1.0}, "", " "],
    ],
)
async def test_sums_by_metadata_have_the_values_by_which_tasks_are_found(
    database: Database, values: Sequence[Any]
) -> None:
    await store(
        database,
        *(ended(f"task_{n}", units(f"{n + 1}"), metadata={"a": value}) for n, value in enumerate(values)),
    )
    async with database.reading() as reader:
        spent = await usage.spent_by_metadata(reader, ACCOUNT, key="a", since=MIDNIGHT, until=MIDNIGHT + DAY)
        found = {
            each.amount: [
                task.id
                for task in await tasks.page(
                    reader, ACCOUNT, TaskFilter(metadata={"a": each.value or ""}), before_id=None, limit=9
                )
            ]
            for each in spent
        }
    assert found == {n + 1: [f"task_{n}"] for n in range(len(values))}


async def test_a_nul_in_metadata_breaks_no_sum(database: Database) -> None:
    """JSON can say it, text cannot hold it: what stands for it is shown."""
    await store(
        database,
        ended("task_1", units("2"), metadata={"a": "x\0y"}),
        ended("task_2", units("3"), metadata={"a": "x", "b\0": 7}),
    )
    async with database.reading() as reader:
        by_a, by_b = [
            await usage.spent_by_metadata(reader, ACCOUNT, key=key, since=MIDNIGHT, until=MIDNIGHT + DAY)
            for key in ("a", "b\0")
        ]
    assert [(each.value, each.amount) for each in by_a] == [("x", 3), ("x\N{REPLACEMENT CHARACTER}y", 2)]
    assert [(each.value, each.amount) for each in by_b] == [(None, 2), ("7", 3)]


async def test_a_full_sum_stays_full_and_can_still_be_read(database: Database) -> None:
    """No whole number of a database holds more than 9.2e18 billionths; budgets end long before that."""
    huge = ended("task_1", *[units("1000000000")] * 20)
    days = [huge, replace(huge, finished_at=NOON + DAY)]
    for _ in range(2):
        async with database.transaction() as tx:
            await usage.add(tx, days)
    async with database.reading() as reader:
        found = await usage.spent(reader, ACCOUNT, by="day", since=NOON, until=MIDNIGHT + 2 * DAY)
        assert [(each.amount, each.tasks) for each in found] == [(9 * 10**9, 2)] * 2
        assert await usage.spent_since(reader, ACCOUNT, unit="units", since=MIDNIGHT) == 18 * 10**9
        assert await usage.spent_since(reader, ACCOUNT, unit="USD", since=MIDNIGHT) == 0


async def test_sums_by_metadata_let_others_have_their_turns(database: Database) -> None:
    """As many values, and as many different costs, as there are tasks."""
    await store(
        database,
        *(
            ended(f"task_{number}", units(f"0.{number + 1}", "USD"), metadata={"order": number})
            for number in range(3000)
        ),
    )
    for _ in range(20):  # one is enough: on a busy machine it may be the system that gives nobody else a turn
        if await longest_wait_in_sums(database) < 0.3:
            return
    pytest.fail("nobody else had a turn")


async def longest_wait_in_sums(database: Database) -> float:
    """How much of the time of summing nobody else had a turn: of the processor's, whatever else a machine does."""
    turns: list[float] = []

    async def take_turns() -> None:
        while True:
            turns.append(process_time())
            await asyncio.sleep(0)

    async with database.reading() as reader:
        others = asyncio.create_task(take_turns())
        await asyncio.sleep(0)
        found = await usage.spent_by_metadata(
            reader, ACCOUNT, key="order", since=MIDNIGHT, until=MIDNIGHT + DAY
        )
        turns.append(process_time())
        others.cancel()
    assert len(found) == 3000
    return max(after - before for before, after in pairwise(turns)) / (turns[-1] - turns[0])


async def test_nobody_loses_what_another_adds_at_the_same_moment(database: Database) -> None:
    async def one(number: int) -> None:
        charged = [ended(f"task_{number}", units("0.1"), type=type) for type in ("b", "a")]
        stored = False
        while not stored:
            with suppress(Collided):  # run again, as the batcher does
                async with database.transaction() as tx:
                    await usage.add(tx, charged)
                stored = True

    await asyncio.gather(*(one(number) for number in range(40)))
    async with database.reading() as reader:
        found = await usage.spent(reader, ACCOUNT, by="type", since=NOON, until=MIDNIGHT + DAY)
        spent = await usage.spent_since(reader, ACCOUNT, unit="units", since=MIDNIGHT)
    assert [(each.value, each.amount, each.tasks) for each in found] == [
        ("a", Decimal(4), 40),
        ("b", Decimal(4), 40),
    ]
    assert spent == 8


async def test_that_a_budget_is_spent_is_said_by_whoever_is_first(database: Database) -> None:
    budget = Budget(account=ACCOUNT, unit="units", period=Period.DAY, limit=Decimal("0.5"))
    async with database.transaction() as tx:
        await usage.put_budget(tx, ACCOUNT, budget)

    async def say(begin: datetime) -> bool:
        async with database.transaction() as tx:
            return await usage.note_exceeded(tx, ACCOUNT, budget, begin=begin)

    assert sorted(await asyncio.gather(*(say(MIDNIGHT) for _ in range(5)))) == [False] * 4 + [True]
    assert await say(MIDNIGHT + DAY)
    async with database.transaction() as tx:
        await usage.put_budget(tx, ACCOUNT, replace(budget, limit=Decimal(9)))
        [stored] = await usage.budgets_of(tx, ACCOUNT)
        assert stored.budget.limit == 9
        assert await usage.budgets_of(tx, OTHER) == []
        assert [each.account_id for each in await usage.budgets(tx)] == [ACCOUNT]
    assert await say(MIDNIGHT + DAY)
    async with database.transaction() as tx:
        assert await usage.drop_budget(tx, ACCOUNT, unit="units", period=Period.DAY)
        assert not await usage.drop_budget(tx, ACCOUNT, unit="units", period=Period.DAY)
