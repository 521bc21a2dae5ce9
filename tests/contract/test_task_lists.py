"""Lists of tasks read what they show, not all that is stored; and show the same as if they did."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.domain.ids import AccountId, TaskId, first_id
from service.domain.tasks import Task
from storage import tasks
from storage.columns import json_text, milliseconds
from storage.database import Database
from storage.tasks import AT_FIRST, TaskFilter
from tests.places import Places

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 48
ACCOUNT = AccountId("acc_1")


@pytest.fixture
async def database(places: Places, tmp_path: Path) -> AsyncIterator[Database]:
    async with places.open(tmp_path) as database:
        async with database.transaction() as tx:
            await tx.run("insert_account", id=ACCOUNT, name=ACCOUNT, created_at=0)
        yield database


async def fill(database: Database, *, ids_ahead: timedelta) -> None:
    """One task an hour, the newest of them now."""
    same: dict[str, Any] = {
        "account_id": ACCOUNT, "type": "t", "provider": "p", "status": "queued", "input": "{}", "places": 1,
        "provider_external_id": "", "extras": "{}", "path": None, "metadata": "{}", "parent_id": None, "rule_id": None,
        "depth": 0, "traceparent": None, "tracestate": None, "updated_at": 0, "deadline_at": 0, "next_send_at": None,
    }  # fmt: skip
    rows = []
    for hours in range(HOURS):
        at = NOW - hours * HOUR
        id = first_id("task", at + ids_ahead)
        rows.append(same | {"id": id, "external_task_id": id, "created_at": milliseconds(at)})
    async with database.transaction() as tx:
        await tx.run_many("insert_task", rows)


async def hours_listed(database: Database, **wanted: Any) -> Sequence[int]:
    async with database.reading() as reader:
        found = await tasks.page(reader, ACCOUNT, TaskFilter(**wanted), before_id=None, limit=HOURS)
    return [(NOW - task.created_at) // HOUR for task in found]


@pytest.mark.parametrize(
    "ids_ahead",
    [timedelta(), timedelta(seconds=30), timedelta(days=9), timedelta(days=-9)],
    ids=["of the same clock", "a little ahead", "of a clock far ahead", "of a clock far behind"],
)
async def test_tasks_are_found_by_when_they_were_made_whatever_moment_their_ids_name(
    database: Database, ids_ahead: timedelta
) -> None:
    await fill(database, ids_ahead=ids_ahead)
    assert await hours_listed(database, created_after=NOW - 3 * HOUR) == [0, 1, 2, 3]
    assert await hours_listed(database, created_before=NOW - 45 * HOUR) == [46, 47]
    between = {"created_after": NOW - 7 * HOUR, "created_before": NOW - 5 * HOUR}
    assert await hours_listed(database, **between) == [6, 7]
    assert await hours_listed(database, **between, status="queued", type="t") == [6, 7]
    ever = {
        "created_after": datetime.min.replace(tzinfo=UTC),
        "created_before": datetime.max.replace(tzinfo=UTC),
    }
    assert await hours_listed(database, **ever) == list(range(HOURS))


# Several filters at a time


KINDS = (
    {"status": "queued", "type": "common", "metadata": {}},
    {"status": "queued", "type": "common", "metadata": {"customer": "7"}},
    {"status": "queued", "type": "rare", "metadata": {"customer": "7"}},
    {"status": "unconfirmed", "type": "common", "metadata": {"customer": "7", "urgent": True}},
    {"status": "unconfirmed", "type": "rare", "metadata": {"urgent": True}},
)
WANTED: Sequence[dict[str, Any]] = (
    {"status": "queued", "type": "rare"},
    {"metadata": {"customer": "7"}, "status": "unconfirmed"},
    {"metadata": {"customer": "7"}, "type": "common"},
    {"metadata": {"customer": "7", "urgent": "true"}},
    {"metadata": {"customer": "7", "urgent": "true"}, "status": "queued", "type": "common"},
    {"metadata": {"urgent": "true"}, "created_before": NOW - HOUR},
    {"metadata": {"customer": "7"}, "created_after": NOW - 600 * HOUR, "created_before": NOW - 300 * HOUR},
)


def is_wanted(task: Task, wanted: Mapping[str, Any]) -> bool:
    return (
        task.status == wanted.get("status", task.status)
        and task.type == wanted.get("type", task.type)
        and wanted.get("created_after", task.created_at) <= task.created_at
        and (task.created_at < wanted["created_before"] if "created_before" in wanted else True)
        and all(
            json_text(task.metadata.get(key)).strip('"') == text
            for key, text in wanted.get("metadata", {}).items()
        )
    )


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (90, 5, 1, 1, 1), (1, 90, 1, 5, 1), (1, 1, 1, 1, 90)])
async def test_pages_by_several_filters_together_show_each_task_once_whichever_of_them_finds_fewest(
    database: Database, weights: Sequence[int]
) -> None:
    """More tasks than are looked at in one step."""
    chosen = random.Random(sum(weights))
    born = [
        Task(
            id=TaskId(first_id("task", at)), account_id=ACCOUNT, provider="p", input={}, external_task_id=f"{number}",
            provider_external_id="", created_at=at, updated_at=at, deadline_at=at, **kind,
        )
        for number, kind in enumerate(chosen.choices(KINDS, weights, k=3 * AT_FIRST))
        for at in [NOW - number * HOUR]
    ]  # fmt: skip
    async with database.transaction() as tx:
        await tasks.insert(tx, born)
    async with database.reading() as reader:
        for wanted in WANTED:
            shown: list[Task] = []
            cursor = None
            while page := await tasks.page(
                reader, ACCOUNT, TaskFilter(**wanted), before_id=cursor, limit=250
            ):
                shown += page
                cursor = page[-1].id
            assert shown == [task for task in born if is_wanted(task, wanted)], wanted
