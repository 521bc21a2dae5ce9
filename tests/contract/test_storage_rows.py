"""What is stored comes back as it was, and each question about rows finds those it asks for."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.domain.deliveries import Attempt, AttemptOutcome, Delivery, DeliveryStatus
from service.domain.endpoints import Endpoint, SealedSecret
from service.domain.errors import StorageUnavailable
from service.domain.events import Event, EventType, endpoint_event
from service.domain.ids import (
    AccountId,
    DeliveryId,
    EndpointId,
    EventId,
    KeyId,
    LaneKey,
    ProcessId,
    TaskId,
    new_callback_id,
)
from service.domain.lifecycle import Status, Verdict
from service.domain.tasks import Output, OutputKind, Refusal, Task, TaskError, Transition
from service.domain.traces import Trace
from service.domain.values import replace
from storage import deliveries, endpoints, events, keys, lines, processes, tasks
from storage.columns import milliseconds, moment
from storage.database import Database
from storage.deliveries import DeliveryFilter, Leased, Outcome, Waiting
from storage.endpoints import Health
from storage.files import Files
from storage.glances import Glances
from storage.keys import ApiKey, KeyOrigin, KeyRole
from storage.lines import Head, Pool
from storage.statements import Dialect
from storage.tasks import IdempotencyKey, StoredCallback, TaskFilter
from tests.places import Places

NOW = datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
VIOLATIONS = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)
ACCOUNT, OTHER = AccountId("acc_1"), AccountId("acc_2")
ME, OTHERS = ProcessId("proc_1"), ProcessId("proc_2")
IMAGE, VIDEO = "kling.multi-image-to-image", "kling.multi-image-to-video"


@pytest.fixture
async def database(places: Places, tmp_path: Path) -> AsyncIterator[Database]:
    async with places.open(tmp_path) as database:
        async with database.transaction() as tx:
            for id in (ACCOUNT, OTHER):
                await tx.run("insert_account", id=id, name=id, created_at=0)
        yield database


def task(id: str = "task_1", **more: Any) -> Task:
    """As a submit stores it."""
    given: dict[str, Any] = {
        "id": TaskId(id),
        "account_id": ACCOUNT,
        "type": IMAGE,
        "provider": "cometapi",
        "status": Status.QUEUED,
        "input": {"prompt": "a cat", "n": 2, "cfg_scale": 0.5, "nested": [{"ä": None}]},
        "external_task_id": f"external-{id}",
        "provider_external_id": id,
        "metadata": {},
        "created_at": NOW,
        "updated_at": NOW,
        "deadline_at": NOW + HOUR,
        "next_send_at": NOW,
    }
    return Task(**(given | more))


async def store(database: Database, *born: Task) -> None:
    async with database.transaction() as tx:
        await tasks.insert(tx, born)


async def change(database: Database, before: Task, **changed: Any) -> Task:
    after = replace(before, **changed)
    async with database.transaction() as tx:
        await tasks.save(tx, [(before, after)])
    return after


async def read(database: Database, id: str = "task_1") -> Task:
    async with database.reading() as reader:
        return (await tasks.get_many(reader, [TaskId(id)]))[TaskId(id)]


def ids(found: Sequence[Any]) -> list[str]:
    return [one.id for one in found]


# Columns


@pytest.mark.parametrize("microseconds", [0, 999, 1000, 999_999])
def test_a_moment_is_kept_to_the_millisecond_rounded_down(microseconds: int) -> None:
    at = datetime(2026, 11, 22, 12, 0, 0, microseconds, tzinfo=UTC)
    assert moment(milliseconds(at)) == at.replace(microsecond=microseconds // 1000 * 1000)


# Tasks


async def test_a_task_comes_back_as_it_was_stored(database: Database) -> None:
    born = task(
        metadata={"customer": "Zoë", "n": 1, "deep": {"list": [True, None, 1.5]}},
        extras={"watermark_info": {"enabled": True}, "": None},
        path="/kling/v1/images/generations",
        trace=Trace(f"00-{'a' * 32}-{'b' * 16}-01", "congo=t61rcWkgMzE"),
    )
    await store(database, born)
    assert await read(database) == born


async def test_a_task_comes_back_as_it_was_changed(database: Database) -> None:
    born = task()
    await store(database, born)
    output = Output(
        kind=OutputKind.VIDEO,
        index=0,
        url="https://cdn.example.com/a.mp4",
        id="v-1",
        duration_s=5.041,
        watermark_url="https://cdn.example.com/w.mp4",
        expires_at=NOW + 30 * 24 * HOUR,
    )
    after = await change(
        database,
        born,
        status=Status.SUCCEEDED,
        provider_task_id="theirs",
        outputs=(output, Output(kind=OutputKind.IMAGE, index=1, url="https://cdn.example.com/b.png")),
        sequence=3,
        updated_at=NOW + SECOND,
        submitted_at=NOW,
        finished_at=NOW + SECOND,
        overdue_at=NOW,
        sends=2,
        next_send_at=None,
    )
    assert await read(database) == after


async def test_a_refusal_comes_back_with_whose_business_it_is(database: Database) -> None:
    born = task()
    await store(database, born)
    error = TaskError("1102", "no pack left", Refusal.PAYMENT)
    await change(database, born, status=Status.REJECTED, error=error, finished_at=NOW, next_send_at=None)
    assert (await read(database)).error == error


async def test_a_change_from_what_is_no_longer_there_changes_nothing(database: Database) -> None:
    """The row's guard, for a caller that does not hold it: what was made of an older row must not win."""
    born = task()
    await store(database, born)
    ahead = await change(database, born, status=Status.SUBMITTED, sequence=1, next_send_at=None)
    await change(database, born, status=Status.UNCONFIRMED, sequence=1)
    await change(database, replace(born, status=Status.SUBMITTED), sends=9)
    assert await read(database) == ahead


async def test_a_task_is_somebody_elses_to_another_account(database: Database) -> None:
    await store(database, task())
    async with database.reading() as reader:
        assert await tasks.get(reader, "task_1", account_id=OTHER) is None
        assert await tasks.page(reader, OTHER, TaskFilter(), before_id=None, limit=9) == []


async def test_a_task_is_found_by_each_of_its_names_and_by_nobody_elses(database: Database) -> None:
    """What could be two tasks' is that of the one that was given it as its own."""
    born = [task("task_1"), task("task_2", external_task_id="theirs"), task("task_3", type=VIDEO)]
    await store(database, *born)
    for one, theirs in zip(born, ("theirs", "theirs-2", "theirs-3"), strict=True):
        await change(database, one, provider_task_id=theirs)

    async def found(name: str, account_id: AccountId = ACCOUNT, type: str = IMAGE) -> str | None:
        async with database.reading() as reader:
            one = await tasks.find(reader, name, account_id=account_id, types=[type])
        return None if one is None else one.id

    assert [await found(name) for name in ("task_1", "external-task_1")] == ["task_1"] * 2
    assert [await found(name) for name in ("task_2", "theirs", "theirs-2")] == ["task_2"] * 3
    assert [await found(name, OTHER) for name in ("task_1", "external-task_1", "theirs")] == [None] * 3
    assert [await found(name) for name in ("task_3", "theirs-3", "", "\0")] == [None] * 4
    assert await found("theirs-3", type=VIDEO) == "task_3"


async def test_those_who_ask_at_the_same_time_are_each_told_of_their_own_task(database: Database) -> None:
    named = [f"task_{n:032x}" for n in range(9)]
    await store(database, *(task(id) for id in named[:4]), task(named[4], account_id=OTHER), task("task_1"))
    glances = Glances(database)

    async def found(name: str, type: str = IMAGE) -> str | None:
        one = await glances.find(name, account_id=ACCOUNT, types=[type])
        return None if one is None else one.id

    asked = [*named, named[0], "task_1", "external-task_1", "\0", "task_\0"]
    assert await asyncio.gather(*map(found, asked)) == [
        *named[:4], *[None] * 5, named[0], "task_1", "task_1", None, None,
    ]  # fmt: skip
    assert await found(named[0], VIDEO) is None


async def test_who_asks_how_a_task_stands_is_told_what_was_stored_before(database: Database) -> None:
    """Not what somebody is told who asked earlier."""
    id = f"task_{1:032x}"
    born = task(id)
    await store(database, born)
    glances = Glances(database)

    async def status() -> str | None:
        one = await glances.find(id, account_id=ACCOUNT, types=[IMAGE])
        return None if one is None else one.status

    before = asyncio.create_task(status())
    left = asyncio.create_task(status())
    await asyncio.sleep(0)
    left.cancel()
    await change(database, born, status=Status.SUBMITTED, sequence=1, next_send_at=None)
    assert await status() == Status.SUBMITTED
    assert await before in {Status.QUEUED, Status.SUBMITTED}
    assert (await asyncio.gather(left, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_numbered_pages_hold_the_accounts_tasks_of_a_type_newest_first(
    database: Database,
) -> None:
    mine = [task(f"task_{n}") for n in range(5)]
    await store(database, *mine, task("task_7", type=VIDEO), task("task_8", account_id=OTHER))

    async def page(skip: int, limit: int) -> list[str]:
        async with database.reading() as reader:
            return ids(await tasks.numbered_page(reader, ACCOUNT, types=[IMAGE], skip=skip, limit=limit))

    assert await page(0, 2) == ["task_4", "task_3"]
    assert await page(4, 2) == ["task_0"]
    assert await page(499_500, 500) == []


async def test_only_a_rejected_task_lets_go_of_its_external_id(database: Database) -> None:
    refused, running = task("task_1"), task("task_2")
    await store(database, refused, running)
    await change(
        database,
        refused,
        status=Status.REJECTED,
        error=TaskError("1301", "no", Refusal.REQUEST),
        finished_at=NOW,
        next_send_at=None,
    )
    async with database.transaction() as tx:
        assert await tasks.let_go_of_external_id(tx, TaskId("task_1"))
        assert not await tasks.let_go_of_external_id(tx, TaskId("task_2"))
        assert not await tasks.let_go_of_external_id(tx, None)
    assert (await read(database, "task_1")).external_task_id == "task_1"
    assert (await read(database, "task_2")).external_task_id == "external-task_2"


async def test_two_tasks_of_one_account_cannot_share_an_external_id(database: Database) -> None:
    await store(database, task("task_1", external_task_id="same"))
    await store(database, task("task_2", external_task_id="same", account_id=OTHER))
    with pytest.raises(VIOLATIONS):
        await store(database, task("task_3", external_task_id="same"))
    async with database.reading() as reader:
        taken = await tasks.external_ids_taken(reader, [(ACCOUNT, "same"), (OTHER, "same"), (OTHER, "free")])
    assert taken == {(ACCOUNT, "same"): "task_1", (OTHER, "same"): "task_2"}


async def test_transitions_are_listed_in_their_order(database: Database) -> None:
    await store(database, task())
    steps = [
        Transition(before=Status.QUEUED, after=Status.SUBMITTED, at=NOW, sequence=1),
        Transition(before=Status.SUBMITTED, after=Status.FAILED, at=NOW, sequence=3),
    ]
    async with database.transaction() as tx:
        await tasks.insert_transitions(tx, [(TaskId("task_1"), step) for step in reversed(steps)])
    async with database.reading() as reader:
        assert await tasks.transitions(reader, TaskId("task_1")) == steps


async def test_a_list_is_newest_first_and_goes_on_where_it_ended(database: Database) -> None:
    await store(database, *(task(f"task_{number}") for number in range(5)))
    async with database.reading() as reader:
        first = await tasks.page(reader, ACCOUNT, TaskFilter(), before_id=None, limit=3)
        rest = await tasks.page(reader, ACCOUNT, TaskFilter(), before_id=first[-1].id, limit=3)
    assert ids(first) == ["task_4", "task_3", "task_2"]
    assert ids(rest) == ["task_1", "task_0"]


TASK_FILTERS: Sequence[tuple[TaskFilter, list[str]]] = [
    (TaskFilter(), ["task_2", "task_1"]),
    (TaskFilter(status="queued"), ["task_1"]),
    (TaskFilter(type=VIDEO), ["task_2"]),
    (TaskFilter(external_task_id="external-task_1"), ["task_1"]),
    (TaskFilter(created_after=NOW + SECOND), ["task_2"]),
    (TaskFilter(created_before=NOW + SECOND), ["task_1"]),
    (TaskFilter(metadata={"customer": "c-1"}), ["task_1"]),
    (TaskFilter(metadata={"customer": "c-1", "n": "7"}), ["task_1"]),
    (TaskFilter(metadata={"customer": "c-1", "n": "8"}), []),
    (TaskFilter(metadata={"share": "0.5"}), ["task_1"]),
    (TaskFilter(metadata={"draft": "true"}), ["task_1"]),
    (TaskFilter(metadata={"draft": "false"}), ["task_2"]),
    (TaskFilter(metadata={"draft": "1"}), []),
    (TaskFilter(metadata={"nobody": "null"}), ["task_1"]),
    (TaskFilter(metadata={"unknown": "null"}), []),
    (TaskFilter(metadata={"with 'quotes'.and.dots": "%"}), ["task_1"]),
    (TaskFilter(metadata={"with 'quotes'.and.dots": "x"}), []),
    (TaskFilter(metadata={"tags": '["a",1]'}), ["task_1"]),
    (TaskFilter(metadata={"share": "0.5", "draft": "true"}, status="queued", type=IMAGE), ["task_1"]),
    (TaskFilter(metadata={"share": "0.5"}, status="submitted"), []),
    (TaskFilter(metadata={"draft": "false"}, type=IMAGE), []),
    (TaskFilter(metadata={"draft": "false"}, external_task_id="external-task_2"), ["task_2"]),
    (TaskFilter(metadata={"draft": "true"}, external_task_id="external-task_2"), []),
    (TaskFilter(status="queued", type=VIDEO), []),
]


async def test_a_filter_finds_what_it_names(database: Database) -> None:
    tags = {
        "customer": "c-1",
        "n": 7,
        "share": 0.5,
        "draft": True,
        "nobody": None,
        "with 'quotes'.and.dots": "%",
        "tags": ["a", 1],
    }
    second = task("task_2", type=VIDEO, created_at=NOW + SECOND, metadata={"draft": False})
    await store(database, task("task_1", metadata=tags), second)
    await change(database, second, status=Status.SUBMITTED, next_send_at=None)
    async with database.reading() as reader:
        for wanted, found in TASK_FILTERS:
            assert ids(await tasks.page(reader, ACCOUNT, wanted, before_id=None, limit=9)) == found, wanted


async def test_a_filter_finds_what_it_names_however_long_that_is(database: Database) -> None:
    """An index knows the beginnings alone."""
    long = "ä" * 5000
    born = [
        task(f"task_{number}", metadata={long + key: long + value})
        for number, (key, value) in enumerate([("a", "a"), ("a", "b"), ("b", "a"), ("a", "a"), ("a", "")])
    ]
    both = task("task_9", metadata={long + "a": long + "a", long + "b": long + "b"})
    await store(database, *born, both)
    async with database.reading() as reader:
        wanted = TaskFilter(metadata={long + "a": long + "a"})
        first = await tasks.page(reader, ACCOUNT, wanted, before_id=None, limit=2)
        rest = await tasks.page(reader, ACCOUNT, wanted, before_id=first[-1].id, limit=2)
    assert (ids(first), ids(rest)) == (["task_9", "task_3"], ["task_0"])


async def test_nobody_finds_anothers_tasks_by_metadata(database: Database) -> None:
    await store(database, task(metadata={"k": "v"}), task("task_2", account_id=OTHER, metadata={"k": "v"}))
    async with database.reading() as reader:
        found = await tasks.page(reader, OTHER, TaskFilter(metadata={"k": "v"}), before_id=None, limit=9)
    assert ids(found) == ["task_2"]


async def test_tasks_are_counted_by_every_status(database: Database) -> None:
    await store(database, task("task_1"), task("task_2"))
    async with database.reading() as reader:
        counted = await tasks.count_by_status(reader)
    assert counted == {status: 2 if status is Status.QUEUED else 0 for status in Status}


async def test_a_create_is_due_at_its_moment_unless_it_is_on_its_way(database: Database) -> None:
    later, sent = task("task_1", next_send_at=NOW + SECOND), task("task_3")
    await store(database, later, task("task_2"), sent, task("task_4", next_send_at=None))
    await change(database, sent, sending_since=NOW, sends=1)
    async with database.transaction() as reader:
        assert ids(await tasks.due_to_send(reader, "cometapi", now=NOW, limit=9, served={})) == ["task_2"]
        assert ids(await tasks.due_to_send(reader, "cometapi", now=NOW + SECOND, limit=9, served={})) == [
            "task_2",
            "task_1",
        ]
        assert ids(await tasks.due_to_send(reader, "cometapi", now=NOW + SECOND, limit=1, served={})) == [
            "task_2"
        ]
        assert await tasks.next_sends(reader) == {"cometapi": NOW}
        assert ids(await tasks.interrupted_sends(reader, None, limit=9)) == ["task_3"]


async def test_each_provider_has_its_own_creates_that_are_due(database: Database) -> None:
    mine = [task("task_1"), task("task_2", next_send_at=NOW - SECOND)]
    theirs = [
        task(f"task_{number}", provider="kling", next_send_at=NOW + number * SECOND) for number in (3, 4)
    ]
    await store(database, *mine, *theirs, task("task_5", provider="later", next_send_at=None))
    async with database.reading() as reader:
        assert await tasks.next_sends(reader) == {"cometapi": NOW - SECOND, "kling": NOW + 3 * SECOND}
        then = {"now": NOW + 9 * SECOND, "limit": 9, "served": {}}
        assert ids(await tasks.due_to_send(reader, "cometapi", **then)) == ["task_2", "task_1"]
        assert ids(await tasks.due_to_send(reader, "kling", **then)) == ["task_3", "task_4"]


async def behind(
    database: Database, *types: str, number: int, served: dict[AccountId, int] | None = None
) -> list[str]:
    """Who is first in line at CometAPI, of these types."""
    async with database.transaction() as tx:
        heads = [
            Head(one.kind[1], one.account_id, served=(served or {}).get(one.account_id, 0), most=9)
            for one in (await lines.standing(tx)).heads
            if one.kind in {("cometapi", type) for type in types}
        ]
        return ids(await lines.in_line(tx, "cometapi", heads, number=number))


async def test_accounts_take_turns_at_being_sent_and_at_places(database: Database) -> None:
    """Each first, then each second; who was served longest ago before others, and an account's own by their age."""
    mine = [task(f"task_{number}", places=1) for number in range(3)]
    theirs = [task(f"task_{number}", places=1, account_id=OTHER) for number in range(3, 5)]
    await store(database, *mine, *theirs)
    served = {ACCOUNT: 1}
    async with database.reading() as reader:
        due = ids(await tasks.due_to_send(reader, "cometapi", now=NOW, limit=9, served=served))
        assert due == ["task_3", "task_0", "task_4", "task_1", "task_2"]
        assert ids(await tasks.due_to_send(reader, "cometapi", now=NOW, limit=2, served=served)) == due[:2]
    for one in (*mine, *theirs):
        await change(database, one, awaits_slot=True, next_send_at=NOW + HOUR)
    async with database.transaction() as tx:
        heads = {one.account_id: one.id for one in (await lines.standing(tx)).heads}
    assert heads == {ACCOUNT: "task_0", OTHER: "task_3"}
    async with database.reading() as reader:
        line = await behind(database, IMAGE, number=9, served=served)
        assert line == ["task_3", "task_0", "task_4", "task_1", "task_2"]
        assert await behind(database, IMAGE, number=2, served=served) == line[:2]


async def test_a_family_is_counted_from_its_first_and_not_further_than_asked(
    database: Database,
) -> None:
    def child(id: str, parent: str) -> Task:
        return task(id, parent_id=TaskId(parent), rule_id=EndpointId(f"end_{id}"), depth=1)

    await store(database, task("task_1"), task("task_9"))
    await store(database, child("task_2", "task_1"), child("task_3", "task_2"), child("task_4", "task_1"))
    async with database.reading() as reader:
        assert await tasks.family(reader, TaskId("task_3"), most=9) == ("task_1", 3)
        assert await tasks.family(reader, TaskId("task_1"), most=2) == ("task_1", 2)
        assert await tasks.family(reader, TaskId("task_9"), most=9) == ("task_9", 0)
        assert await tasks.family(reader, TaskId("task_0"), most=9) == ("task_0", 0)


async def test_who_waits_goes_when_it_is_released(database: Database) -> None:
    born = [task("task_1", type=VIDEO), task("task_2"), task("task_3"), task("task_4", provider="kling")]
    await store(database, *born, task("task_5"))
    for one in born:
        await change(database, one, awaits_slot=True, next_send_at=NOW + HOUR)
    async with database.transaction() as tx:
        assert {(one.kind, one.slot_turn, one.id) for one in (await lines.standing(tx)).heads} == {
            (("cometapi", VIDEO), 0, "task_1"),
            (("cometapi", IMAGE), 0, "task_2"),
            (("kling", IMAGE), 0, "task_4"),
        }
        assert await lines.anybody_waits(tx)
    async with database.transaction() as tx:
        named = [TaskId(f"task_{number}") for number in (1, 3, 5)]
        assert await lines.release(tx, named, now=NOW + SECOND) == {"task_1", "task_3"}
    async with database.reading() as reader:
        then = {"now": NOW + SECOND, "limit": 9, "served": {}}
        assert ids(await tasks.due_to_send(reader, "cometapi", **then)) == ["task_5", "task_1", "task_3"]
        assert await behind(database, IMAGE, VIDEO, number=9) == ["task_2"]
    assert (await read(database, "task_5")).next_send_at == NOW  # it had not waited


async def test_types_that_share_places_stand_in_one_order(database: Database) -> None:
    other_type = "kling.image-generation"
    born = [
        task("task_1", type=VIDEO),
        task("task_2"),
        task("task_3", type=other_type),
        task("task_4"),
        task("task_5", account_id=OTHER, type=other_type),
    ]
    await store(database, *born)
    for one in born:
        await change(database, one, awaits_slot=True, next_send_at=NOW + HOUR)
    order = await behind(database, IMAGE, other_type, number=9, served={ACCOUNT: 1})
    assert order == ["task_5", "task_2", "task_3", "task_4"]


async def test_who_needs_more_places_than_are_asked_for_is_left_out_of_the_line(database: Database) -> None:
    born = [task(f"task_{number}", places=number) for number in (3, 2, 1)]
    await store(database, *born)
    for one in born:
        await change(database, one, awaits_slot=True, next_send_at=NOW + HOUR)
    async with database.reading() as reader:
        head = Head(IMAGE, ACCOUNT, served=0, most=2)
        assert ids(await lines.in_line(reader, "cometapi", [head], number=9)) == ["task_1", "task_2"]


async def test_what_is_known_of_a_pool_comes_back_as_it_was_saved(database: Database) -> None:
    pool = Pool(name=("cometapi", "image"), seeking=True, refused={IMAGE: 3}, left_at=NOW)
    later = replace(pool, seeking=False, refused={}, left_at=None)
    for saved in (pool, later):
        async with database.transaction() as tx:
            await lines.save_pools(tx, [saved, Pool(name=("cometapi", "video"))])
            assert (await lines.standing(tx)).pools == {
                pool.name: saved,
                ("cometapi", "video"): Pool(name=("cometapi", "video")),
            }


async def test_turns_come_back_as_they_were_saved_until_they_are_forgotten(database: Database) -> None:
    images, videos = ("cometapi", "image"), ("cometapi", "video")
    async with database.transaction() as tx:
        await lines.save_turns(tx, {(images, ACCOUNT): 1, (images, OTHER): 2, (videos, ACCOUNT): 1})
        await lines.save_turns(tx, {(images, ACCOUNT): 3})
        assert (await lines.standing(tx)).turns == {images: {ACCOUNT: 3, OTHER: 2}, videos: {ACCOUNT: 1}}
        await lines.forget_turns(tx, [images])
        assert (await lines.standing(tx)).turns == {videos: {ACCOUNT: 1}}


async def test_who_has_waited_for_several_places_is_known_while_it_asks_for_them(database: Database) -> None:
    waited = {"sending_since": NOW, "next_send_at": NOW + SECOND}
    born = [task(f"task_{number}", places=2, next_send_at=NOW) for number in range(3)]
    await store(database, *born, task("task_3", next_send_at=NOW))
    await change(database, born[0], **waited)
    await change(database, born[1], sending_since=NOW)
    await change(database, born[2], awaits_slot=True, next_send_at=NOW + HOUR)
    async with database.transaction() as tx:
        standing = await lines.standing(tx)
    [asking], [first] = standing.asking, standing.heads
    assert (asking.id, asking.places, first.id, first.places) == ("task_0", 2, "task_2", 2)


async def test_who_was_sent_to_the_end_of_the_line_is_behind_all_others_with_those_who_need_as_much(
    database: Database,
) -> None:
    born = [task(f"task_{index}", places=number) for index, number in enumerate((3, 1, 4, 2))]
    await store(database, *born)
    for one in born:
        await change(database, one, awaits_slot=True, next_send_at=NOW + HOUR)
    for turn in (0, 1):
        async with database.transaction() as tx:
            await lines.go_to_end_of_line(tx, ("cometapi", IMAGE), slot_turn=turn, places=3)
        assert await behind(database, IMAGE, number=9) == ["task_1", "task_3", "task_0", "task_2"]
        assert (await read(database, "task_2")).slot_turn == turn + 1


@pytest.mark.parametrize(
    ("status", "more", "holds"),
    [
        (Status.SUBMITTED, {"next_send_at": None}, True),
        (Status.PROCESSING, {"next_send_at": None}, True),
        (Status.UNCONFIRMED, {}, True),
        (Status.SUBMITTED, {"next_send_at": None, "submitted_at": NOW, "overdue_at": NOW}, False),
        (Status.SUBMITTED, {"next_send_at": None, "submitted_at": NOW, "overdue_at": NOW - SECOND}, True),
        (Status.QUEUED, {"sending_since": NOW, "overdue_at": NOW - SECOND}, True),
        (
            Status.SUBMITTED,
            {"next_send_at": None, "submitted_at": NOW - 9 * HOUR, "overdue_at": NOW - 10 * HOUR},
            False,
        ),
        (Status.QUEUED, {}, False),
        (Status.QUEUED, {"sending_since": NOW}, True),
        (Status.SUCCEEDED, {"next_send_at": None, "finished_at": NOW}, False),
    ],
)
async def test_a_kind_holds_places_while_the_provider_has_one_of_it(
    database: Database, status: Status, more: dict[str, Any], holds: bool
) -> None:
    one = task("task_1")
    await store(database, one)
    await change(database, one, status=status, **more)
    async with database.reading() as reader:
        assert await lines.kinds_at_providers(reader, now=NOW + SECOND) == (
            {("cometapi", IMAGE)} if holds else set()
        )


async def test_a_deadline_is_due_at_its_moment_for_what_has_not_ended_and_once(
    database: Database,
) -> None:
    ended, said, open = task("task_1"), task("task_2"), task("task_3")
    await store(database, ended, said, open, task("task_4", deadline_at=NOW + 2 * HOUR))
    await change(database, ended, status=Status.SUCCEEDED, finished_at=NOW, next_send_at=None)
    await change(database, said, overdue_at=NOW, sequence=1)
    async with database.transaction() as reader:
        assert await tasks.due_deadlines(reader, now=NOW, limit=9) == []
        assert ids(await tasks.due_deadlines(reader, now=NOW + HOUR, limit=9)) == ["task_3"]
        assert await tasks.next_deadline_at(reader) == NOW + HOUR


async def test_callbacks_are_kept_byte_for_byte_in_the_order_in_which_they_came(
    database: Database,
) -> None:
    await store(database, task())
    came = [
        StoredCallback(
            id=new_callback_id(),
            task_id=TaskId("task_1"),
            provider="cometapi",
            received_at=NOW,
            verdict=verdict,
            reason=None,
            body=b"\xff\x00" + str(verdict).encode(),
        )
        for verdict in Verdict
    ]
    async with database.transaction() as tx:
        await tasks.insert_callbacks(tx, came)
    async with database.reading() as reader:
        first = await tasks.callbacks(reader, TaskId("task_1"), after_id=None, limit=3)
        rest = await tasks.callbacks(reader, TaskId("task_1"), after_id=first[-1].id, limit=99)
        latest = await tasks.latest_callbacks(reader, TaskId("task_1"), limit=3)
    assert first + rest == came
    assert latest == came[:-4:-1]
    assert came[0].view()["body"] == "\ufffd\x00advanced"


async def test_an_idempotency_key_keeps_its_first_answer_until_it_is_taken_anew(
    database: Database,
) -> None:
    await store(database, task("task_1"), task("task_2"))
    key = IdempotencyKey(account_id=ACCOUNT, key="k", body_hash="h", task_id=TaskId("task_1"), created_at=NOW)
    answered = replace(key, answer_status=201, answer_body="{}")

    async def found() -> IdempotencyKey | None:
        async with database.reading() as reader:
            return (await tasks.idempotency_keys(reader, [(ACCOUNT, "k"), (OTHER, "k")])).get((ACCOUNT, "k"))

    async with database.transaction() as tx:
        await tasks.insert_idempotency_keys(tx, [key])
    assert await found() == key
    async with database.transaction() as tx:
        await tasks.remember_answers(tx, [answered, replace(answered, answer_status=500)])
    assert await found() == answered
    anew = replace(key, body_hash="other", task_id=TaskId("task_2"), created_at=NOW + 25 * HOUR)
    async with database.transaction() as tx:
        await tasks.insert_idempotency_keys(tx, [anew])
        await tasks.remember_answers(tx, [answered])  # the former holder's, come late
    assert await found() == anew


# Events


def event(id: str, **more: Any) -> Event:
    made = endpoint_event(EventType.ENDPOINT_TEST, ACCOUNT, {"n": 1}, NOW)
    return replace(made, id=EventId(id), **more)


async def test_positions_in_the_log_grow_from_one_commit_to_the_next(
    database: Database,
) -> None:
    async with database.transaction() as tx:
        first = await events.insert(tx, [event("evt_b"), event("evt_a")])
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await events.insert(tx, [event("evt_undone")])
            raise ZeroDivisionError
    async with database.transaction() as tx:
        second = await events.insert(tx, [event("evt_c")])
    assert [one.id for one in [*first, *second]] == ["evt_b", "evt_a", "evt_c"]
    places = [one.position for one in [*first, *second]]
    assert places == sorted(set(places))
    assert places[0] > 0
    async with database.reading() as reader:
        assert await events.of_account(reader, ACCOUNT, after_position=0, limit=9) == [*first, *second]
        assert await events.of_account(reader, ACCOUNT, after_position=places[0], limit=1) == [first[1]]
        assert await events.latest(reader, ACCOUNT, before_position=places[2], limit=9) == [
            first[1],
            first[0],
        ]
        assert await events.by_id(reader, {first[0].id}) == {first[0].id: first[0]}
        assert await events.last_position(reader, ACCOUNT) == places[2]
        assert await events.last_position(reader, OTHER) == 0


async def test_an_empty_log_begins_at_nought(database: Database) -> None:
    async with database.reading() as reader:
        assert await events.last_position(reader, ACCOUNT) == 0
        assert await events.position_before(reader, ACCOUNT, NOW) == 0


async def test_a_log_is_read_from_an_event_of_ones_own_or_a_moment(database: Database) -> None:
    async with database.transaction() as tx:
        await events.insert(tx, [event("evt_a"), event("evt_b", at=NOW + SECOND)])
    async with database.reading() as reader:
        assert await events.position(reader, "evt_b", account_id=ACCOUNT) == 2
        assert await events.position(reader, "evt_b", account_id=OTHER) is None
        assert await events.position(reader, "evt_unknown", account_id=ACCOUNT) is None
        assert await events.position_before(reader, ACCOUNT, NOW) == 0
        assert await events.position_before(reader, ACCOUNT, NOW + SECOND) == 1
        assert await events.position_before(reader, ACCOUNT, NOW + HOUR) == 2


async def test_events_are_found_by_type_and_by_task(database: Database) -> None:
    await store(database, task())
    of_task = event("evt_t", type=EventType.TASK_SUBMITTED, task_id=TaskId("task_1"), sequence=1)
    async with database.transaction() as tx:
        [stored, _] = await events.insert(tx, [of_task, event("evt_e")])
    async with database.reading() as reader:
        assert await events.of_task(reader, TaskId("task_1"), after_position=0, limit=9) == [stored]
        found = await events.of_account(reader, ACCOUNT, after_position=0, limit=9, type="task.submitted")
        assert found == [stored]
        assert await events.of_account(reader, OTHER, after_position=0, limit=9) == []


# Endpoints


def endpoint(id: str = "end_1", **more: Any) -> Endpoint:
    given: dict[str, Any] = {
        "id": EndpointId(id),
        "account_id": ACCOUNT,
        "task_id": None,
        "kind": "webhook",
        "config": {"url": "https://example.com/ü", "headers": {"X-A": "1"}},
        "secrets": (SealedSecret("sealed", None),),
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Endpoint(**(given | more))


async def put(database: Database, *made: Endpoint) -> None:
    async with database.transaction() as tx:
        await endpoints.insert(tx, made)


async def get(database: Database, id: str = "end_1") -> Endpoint | None:
    async with database.reading() as reader:
        return await endpoints.get(reader, id, account_id=ACCOUNT)


async def test_an_endpoint_comes_back_as_it_was_made_and_changed(database: Database) -> None:
    made = endpoint(
        credentials="sealed",
        filter="type",
        description="d",
        types=("task.failed", "output.*"),
        rate_per_minute=20,
    )
    await put(database, made)
    assert await get(database) == made
    changed = replace(
        made,
        config={},
        credentials=None,
        types=("*",),
        filter=None,
        description=None,
        rate_per_minute=None,
        enabled=False,
        disabled_reason="switched off",
        secrets=(SealedSecret("new", None), SealedSecret("old", NOW + HOUR)),
        failures=3,
        failing_since=NOW,
        updated_at=NOW + SECOND,
    )
    async with database.transaction() as tx:
        await endpoints.save(tx, changed)
    assert await get(database) == changed


@pytest.mark.parametrize(
    ("rate", "task_id", "is_kept"),
    [
        (1, None, True),
        (60_000, None, True),
        (None, "task_1", True),
        (0, None, False),
        (60_001, None, False),
        (1, "task_1", False),
    ],
)
async def test_a_rate_is_one_to_60000_a_minute_and_an_accounts_endpoint_s_alone(
    database: Database, rate: int | None, task_id: str | None, is_kept: bool
) -> None:
    await store(database, task("task_1"))
    made = endpoint(rate_per_minute=rate, task_id=task_id)
    if is_kept:
        await put(database, made)
        assert await get(database) == made
    else:
        with pytest.raises(VIOLATIONS):
            await put(database, made)


async def test_events_may_go_to_the_accounts_endpoints_and_to_the_tasks_own(database: Database) -> None:
    await store(database, task())
    bound = endpoint("end_2", task_id=TaskId("task_1"))
    await put(database, endpoint("end_1"), bound, endpoint("end_3", account_id=OTHER), endpoint("end_4"))
    async with database.transaction() as tx:
        await endpoints.delete(tx, EndpointId("end_4"), now=NOW)
    async with database.reading() as reader:
        assert ids(await endpoints.of(reader, [ACCOUNT, ACCOUNT], [])) == ["end_1"]
        assert ids(await endpoints.of(reader, [ACCOUNT], [TaskId("task_1")])) == ["end_1", "end_2"]
        assert ids(await endpoints.of(reader, [], [TaskId("task_1")])) == ["end_2"]
        assert await endpoints.by_id(reader, [EndpointId("end_2"), EndpointId("end_4")]) == {"end_2": bound}
        assert ids(await endpoints.page(reader, ACCOUNT, before_id=None, limit=9)) == ["end_1"]
        assert await endpoints.get(reader, "end_3", account_id=ACCOUNT) is None


async def test_what_attempts_show_of_an_endpoint_leaves_a_persons_edit_alone(
    database: Database,
) -> None:
    edited = endpoint(enabled=False, disabled_reason="switched off", description="mine")
    await put(database, edited)
    async with database.transaction() as tx:
        await endpoints.save_health(
            tx, [Health(id=edited.id, failures=2, failing_since=NOW)], now=NOW + SECOND
        )
    expected = replace(edited, failures=2, failing_since=NOW, updated_at=NOW + SECOND)
    assert await get(database) == expected


async def test_a_reason_that_attempts_give_disables(database: Database) -> None:
    await put(database, endpoint())
    gone = Health(id=EndpointId("end_1"), failures=1, failing_since=NOW, disabled_reason="gone")
    async with database.transaction() as tx:
        await endpoints.save_health(tx, [gone], now=NOW)
    stored = await get(database)
    assert stored is not None
    assert (stored.enabled, stored.disabled_reason, stored.failures) == (False, "gone", 1)


async def test_an_endpoint_that_is_well_again_has_no_failures_and_one_that_was_well_is_as_it_was(
    database: Database,
) -> None:
    failing, well = endpoint("end_1"), endpoint("end_2")
    await put(database, failing, well)
    async with database.transaction() as tx:
        await endpoints.save_health(tx, [Health(id=failing.id, failures=3, failing_since=NOW)], now=NOW)
    async with database.transaction() as tx:
        await endpoints.forget_failures(tx, {failing.id, well.id}, now=NOW + SECOND)
    async with database.reading() as reader:
        stored = await endpoints.by_id(reader, [failing.id, well.id])
    assert stored == {
        failing.id: replace(failing, updated_at=NOW + SECOND),
        well.id: well,
    }


# Deliveries


def delivery(id: str, event_id: str = "evt_1", **more: Any) -> Delivery:
    given: dict[str, Any] = {
        "id": DeliveryId(id),
        "account_id": ACCOUNT,
        "event_id": EventId(event_id),
        "event_type": "endpoint.test",
        "task_id": None,
        "endpoint_id": EndpointId("end_1"),
        "status": DeliveryStatus.PENDING,
        "attempts": 0,
        "next_attempt_at": NOW,
        "created_at": NOW,
    }
    return Delivery(**(given | more))


@pytest.fixture
async def ready(database: Database) -> Database:
    """With endpoints and events to speak of."""
    await put(database, endpoint("end_1"), endpoint("end_2"))
    async with database.transaction() as tx:
        await events.insert(tx, [event(f"evt_{number}") for number in range(1, 6)])
    return database


async def deliver(
    database: Database,
    *born: Delivery,
    lane: LaneKey | None = None,
    lease_until: datetime | None = None,
) -> None:
    async with database.transaction() as tx:
        await deliveries.insert(
            tx,
            [
                Leased(
                    one, lane or LaneKey(one.endpoint_id), lease_until, None if lease_until is None else ME
                )
                for one in born
            ],
        )


async def waiting(
    database: Database,
    now: datetime = NOW,
    *,
    busy: Sequence[str] = (),
    no_retries: Sequence[str] = (),
    by: ProcessId = ME,
    limit: int = 9,
) -> Waiting:
    async with database.reading() as reader:
        return await deliveries.waiting(
            reader,
            now=now,
            busy=[LaneKey(id) for id in busy],
            no_retries=[LaneKey(id) for id in no_retries],
            by=by,
            limit=limit,
        )


async def claim(
    database: Database,
    now: datetime = NOW,
    *,
    busy: Sequence[str] = (),
    no_retries: Sequence[str] = (),
    limit: int = 9,
) -> list[str]:
    lanes = (await waiting(database, now, busy=busy, no_retries=no_retries)).lanes
    async with database.transaction() as tx:
        due = await deliveries.due(
            tx, lanes, no_retries=[LaneKey(id) for id in no_retries], now=now, by=ME, limit=limit
        )
        await deliveries.lease(tx, [one.id for one in due], until=now + HOUR, by=ME)
    return ids(due)


async def bury(database: Database) -> None:
    async with database.transaction() as tx:
        await deliveries.bury(tx, EndpointId("end_1"), reason="r", now=NOW)


async def fetch(database: Database, id: str) -> Delivery:
    async with database.reading() as reader:
        found = await deliveries.get(reader, id, account_id=ACCOUNT)
    assert found is not None
    return found


def attempted(id: str, outcome: AttemptOutcome, number: int = 1) -> Attempt:
    return Attempt(
        delivery_id=DeliveryId(id),
        number=number,
        started_at=NOW,
        duration_ms=12,
        status_code=None if outcome is AttemptOutcome.RETRY else 200,
        outcome=outcome,
        reason="answered",
        excerpt="ok ü",
    )


async def test_a_delivery_comes_back_as_it_was_made(ready: Database) -> None:
    born, replay = delivery("dlv_1"), delivery("dlv_2", replay_of=DeliveryId("dlv_1"))
    await deliver(ready, born, replay)
    assert await fetch(ready, "dlv_1") == born
    assert await fetch(ready, "dlv_2") == replay
    async with ready.reading() as reader:
        assert await deliveries.get(reader, "dlv_1", account_id=OTHER) is None


async def test_one_event_is_owed_to_one_endpoint_once_but_replayed_at_will(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"))
    with pytest.raises(VIOLATIONS):
        await deliver(ready, delivery("dlv_2"))
    await deliver(
        ready,
        delivery("dlv_3", replay_of=DeliveryId("dlv_1")),
        delivery("dlv_4", replay_of=DeliveryId("dlv_1")),
        delivery("dlv_5", endpoint_id=EndpointId("end_2")),
    )


async def test_what_is_due_is_claimed_once_the_longest_due_first(ready: Database) -> None:
    await deliver(
        ready,
        delivery("dlv_1", "evt_1", next_attempt_at=NOW + SECOND),
        delivery("dlv_2", "evt_2"),
        delivery("dlv_3", "evt_3", next_attempt_at=NOW + HOUR),
        delivery("dlv_4", "evt_4", endpoint_id=EndpointId("end_2")),
    )
    assert await claim(ready, NOW + SECOND, busy=["end_2"]) == ["dlv_2", "dlv_1"]
    assert await claim(ready, NOW + SECOND) == ["dlv_4"]
    assert await claim(ready, NOW + SECOND) == []


async def test_a_full_lane_holds_back_all_that_waits_in_it_and_nothing_else(ready: Database) -> None:
    shared = LaneKey("acc_1/dead.example")
    await deliver(
        ready, delivery("dlv_1", "evt_1"), delivery("dlv_2", endpoint_id=EndpointId("end_2")), lane=shared
    )
    await deliver(ready, delivery("dlv_3", "evt_3"))
    assert await claim(ready, busy=[shared]) == ["dlv_3"]
    assert await claim(ready) == ["dlv_1", "dlv_2"]


async def retried(database: Database, *ids: str, at: datetime) -> None:
    """Each was attempted once, and is to be again."""
    async with database.transaction() as tx:
        outcomes = [
            Outcome(
                attempt=attempted(id, AttemptOutcome.RETRY), status=DeliveryStatus.PENDING, next_attempt_at=at
            )
            for id in ids
        ]
        await deliveries.record(tx, outcomes, now=NOW)


async def test_first_attempts_are_claimed_before_retries_however_long_these_are_due(ready: Database) -> None:
    await deliver(ready, *(delivery(f"dlv_{number}", f"evt_{number}") for number in range(1, 4)))
    await retried(ready, "dlv_1", at=NOW - HOUR)
    await retried(ready, "dlv_2", at=NOW - 2 * HOUR)
    other = delivery("dlv_4", "evt_4", endpoint_id=EndpointId("end_2"), next_attempt_at=NOW - 3 * HOUR)
    await deliver(ready, other)
    assert await claim(ready) == ["dlv_4", "dlv_3", "dlv_2", "dlv_1"]


async def test_a_lane_that_takes_no_more_retries_is_still_waited_for_by_first_attempts(
    ready: Database,
) -> None:
    await deliver(ready, delivery("dlv_1"))
    await retried(ready, "dlv_1", at=NOW - HOUR)
    assert await waiting(ready, no_retries=["end_1"]) == Waiting(lanes=[], next_moment=None)
    await deliver(ready, delivery("dlv_2", "evt_2", next_attempt_at=NOW + SECOND))
    assert (await waiting(ready, no_retries=["end_1"])).next_moment == NOW + SECOND
    assert await claim(ready, NOW + SECOND, no_retries=["end_1"]) == ["dlv_2"]
    assert await claim(ready, NOW + SECOND) == ["dlv_1"]


async def test_what_is_under_way_to_an_endpoint_moves_to_another_lane_with_it(ready: Database) -> None:
    before, after = LaneKey("acc_1/dead.example"), LaneKey("acc_1/healthy.example")
    await deliver(ready, delivery("dlv_1", "evt_1"), delivery("dlv_2", "evt_2"), lane=before)
    await deliver(ready, delivery("dlv_3", "evt_3"), lane=before, lease_until=NOW + SECOND)
    await deliver(ready, delivery("dlv_4", "evt_4", endpoint_id=EndpointId("end_2")), lane=before)
    async with ready.transaction() as tx:
        await deliveries.move(tx, EndpointId("end_1"), lane=after)
        await deliveries.rescue(tx, now=NOW + SECOND)
    assert await claim(ready, busy=[before]) == ["dlv_1", "dlv_2", "dlv_3"]
    assert await claim(ready, busy=[after]) == ["dlv_4"]


async def test_lanes_are_waited_for_the_longest_due_first_and_as_many_as_are_asked_for(
    ready: Database,
) -> None:
    for number, late in enumerate((2, 0, 1, 3)):
        one = delivery(f"dlv_{number}", f"evt_{number + 1}", next_attempt_at=NOW + late * SECOND)
        await deliver(ready, one, lane=LaneKey(f"lane_{number}"))
    at = NOW + 2 * SECOND
    assert (await waiting(ready, at)).lanes == ["lane_1", "lane_2", "lane_0"]
    assert (await waiting(ready, at, limit=2)).lanes == ["lane_1", "lane_2"]
    assert await claim(ready, at, limit=2) == ["dlv_1", "dlv_2"]
    assert await waiting(ready, NOW + SECOND) == Waiting(lanes=[], next_moment=at)


async def test_a_lane_that_another_process_holds_is_left_to_it(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"))
    async with ready.transaction() as tx:
        await processes.add(tx, OTHERS, roles=["dispatch"], lasts=HOUR)
        assert await processes.take_lanes(tx, [LaneKey("end_1")], by=OTHERS)
    assert await waiting(ready) == Waiting(lanes=[], next_moment=None)
    assert (await waiting(ready, by=OTHERS)).lanes == ["end_1"]
    async with ready.transaction() as tx:
        lane = [LaneKey("end_1")]
        assert await deliveries.due(tx, lane, no_retries=[], now=NOW, by=ME, limit=9) == []
        assert ids(await deliveries.due(tx, lane, no_retries=[], now=NOW, by=OTHERS, limit=9)) == ["dlv_1"]


async def test_first_attempts_that_waited_are_claimed_in_the_order_in_which_they_came(
    ready: Database,
) -> None:
    """Within one millisecond too: a task's events go out in their order."""
    await deliver(ready, *(delivery(f"dlv_{number}", f"evt_{number}") for number in range(1, 6)))
    assert await claim(ready) == [f"dlv_{number}" for number in range(1, 6)]


async def test_the_next_moment_is_an_attempt_or_the_end_of_a_lease(ready: Database) -> None:
    async def next_moment(*busy: str) -> datetime | None:
        return (await waiting(ready, busy=busy)).next_moment

    assert await next_moment() is None
    await deliver(ready, delivery("dlv_1", "evt_1"), lease_until=NOW + HOUR)
    assert await next_moment() == NOW + HOUR
    await deliver(ready, delivery("dlv_2", "evt_2", next_attempt_at=NOW + SECOND))
    assert await next_moment() == NOW + SECOND
    assert await next_moment("end_1") == NOW + HOUR


async def test_a_lease_that_ended_gives_its_delivery_back(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"), lease_until=NOW + HOUR)
    assert await claim(ready, NOW + HOUR) == []
    async with ready.transaction() as tx:
        assert await deliveries.rescue(tx, now=NOW + HOUR - SECOND) == 0
        assert await deliveries.rescue(tx, now=NOW + HOUR) == 1
    assert await claim(ready, NOW + HOUR) == ["dlv_1"]


async def test_every_lease_can_be_taken_from_a_process_that_is_no_more(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"), lease_until=NOW + 1000 * HOUR)
    async with ready.transaction() as tx:
        assert await deliveries.rescue(tx, now=datetime.max.replace(tzinfo=UTC)) == 1


async def test_what_is_given_back_is_due_as_it_was(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"), lease_until=NOW + HOUR)
    async with ready.transaction() as tx:
        await deliveries.give_back(tx, [DeliveryId("dlv_1")])
    assert await fetch(ready, "dlv_1") == delivery("dlv_1")
    assert await claim(ready) == ["dlv_1"]


async def test_an_attempt_leaves_its_delivery_as_it_ended_and_is_kept(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1", "evt_1"), delivery("dlv_2", "evt_2"), lease_until=NOW + HOUR)
    failed, done = attempted("dlv_1", AttemptOutcome.RETRY), attempted("dlv_2", AttemptOutcome.DELIVERED)
    async with ready.transaction() as tx:
        await deliveries.record(
            tx,
            [
                Outcome(attempt=failed, status=DeliveryStatus.PENDING, next_attempt_at=NOW + SECOND),
                Outcome(attempt=done, status=DeliveryStatus.DELIVERED, next_attempt_at=None),
            ],
            now=NOW,
        )
    waits, ended = await fetch(ready, "dlv_1"), await fetch(ready, "dlv_2")
    assert (waits.status, waits.attempts, waits.next_attempt_at, waits.finished_at, waits.reason) == (
        DeliveryStatus.PENDING,
        1,
        NOW + SECOND,
        None,
        "answered",
    )
    assert (ended.status, ended.attempts, ended.next_attempt_at, ended.finished_at, ended.reason) == (
        DeliveryStatus.DELIVERED,
        1,
        None,
        NOW,
        "answered 200",
    )
    async with ready.reading() as reader:
        assert await deliveries.attempts(reader, DeliveryId("dlv_1")) == [failed]
    assert await claim(ready, NOW + SECOND) == ["dlv_1"]


async def test_an_attempt_that_ends_after_its_delivery_is_evidence_only(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"), lease_until=NOW + HOUR)
    late = Outcome(
        attempt=attempted("dlv_1", AttemptOutcome.RETRY),
        status=DeliveryStatus.PENDING,
        next_attempt_at=NOW + SECOND,
    )
    async with ready.transaction() as tx:
        await deliveries.bury(tx, EndpointId("end_1"), reason="disabled", now=NOW)
        await deliveries.record(tx, [late, late], now=NOW)
    dead = await fetch(ready, "dlv_1")
    assert (dead.status, dead.reason, dead.attempts) == (DeliveryStatus.DEAD, "disabled", 0)
    async with ready.reading() as reader:
        assert len(await deliveries.attempts(reader, dead.id)) == 1


async def test_what_arrives_after_its_delivery_was_buried_is_delivered(ready: Database) -> None:
    """The receiver has it, whatever became of its endpoint in the meantime."""
    await deliver(ready, delivery("dlv_1"), lease_until=NOW + HOUR)
    arrived = Outcome(
        attempt=attempted("dlv_1", AttemptOutcome.DELIVERED),
        status=DeliveryStatus.DELIVERED,
        next_attempt_at=None,
    )
    async with ready.transaction() as tx:
        await deliveries.bury(tx, EndpointId("end_1"), reason="disabled", now=NOW)
        await deliveries.record(tx, [arrived], now=NOW)
    ended = await fetch(ready, "dlv_1")
    assert (ended.status, ended.attempts) == (DeliveryStatus.DELIVERED, 1)


async def test_all_that_waits_for_an_endpoint_can_be_buried(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1", "evt_1"), delivery("dlv_3", endpoint_id=EndpointId("end_2")))
    await deliver(ready, delivery("dlv_2", "evt_2"), lease_until=NOW + HOUR)
    await bury(ready)
    async with ready.reading() as reader:
        assert await deliveries.count_dead(reader) == 2
        assert await deliveries.oldest_due(reader, now=NOW) == NOW
        assert await deliveries.oldest_due(reader, now=NOW - SECOND) is None
    assert (await fetch(ready, "dlv_1")).finished_at == NOW


async def test_some_can_be_buried_each_for_its_reason(ready: Database) -> None:
    await deliver(ready, *(delivery(f"dlv_{number}", f"evt_{number}") for number in (1, 2, 3)))
    async with ready.transaction() as tx:
        reasons = {DeliveryId("dlv_1"): "one", DeliveryId("dlv_2"): "two"}
        await deliveries.bury_these(tx, reasons, now=NOW)
        await deliveries.bury_these(tx, {DeliveryId("dlv_1"): "again"}, now=NOW)
    assert [(await fetch(ready, id)).reason for id in ("dlv_1", "dlv_2", "dlv_3")] == ["one", "two", None]
    assert await claim(ready) == ["dlv_3"]


async def test_a_dead_letter_can_be_revived_and_what_has_arrived_or_was_buried_cannot(
    ready: Database,
) -> None:
    await deliver(ready, *(delivery(f"dlv_{number}", f"evt_{number}") for number in (1, 2, 3)))
    async with ready.transaction() as tx:
        reasons = {DeliveryId("dlv_1"): "answered", DeliveryId("dlv_3"): "the endpoint was disabled"}
        await deliveries.bury_these(tx, reasons, now=NOW)
        arrived = Outcome(
            attempt=attempted("dlv_2", AttemptOutcome.DELIVERED),
            status=DeliveryStatus.DELIVERED,
            next_attempt_at=None,
        )
        await deliveries.record(tx, [arrived], now=NOW)
        ids = [DeliveryId(f"dlv_{number}") for number in (1, 2, 3)]
        await deliveries.revive(tx, dict.fromkeys(ids, "answered"), now=NOW)
    assert await claim(ready) == ["dlv_1"]
    assert (await fetch(ready, "dlv_1")).finished_at is None


async def test_dead_letters_are_found_to_be_replayed_until_they_have_been(ready: Database) -> None:
    await deliver(
        ready,
        delivery("dlv_1", "evt_1", created_at=NOW - HOUR),
        delivery("dlv_2", "evt_2"),
        delivery("dlv_3", "evt_3"),
    )
    await bury(ready)

    async def failed(since: datetime, after: str = "", began: datetime = NOW) -> list[str]:
        async with ready.reading() as reader:
            return ids(
                await deliveries.failed_since(
                    reader,
                    EndpointId("end_1"),
                    account_id=ACCOUNT,
                    since=since,
                    began=began,
                    after_id=after,
                    limit=9,
                )
            )

    assert await failed(NOW - HOUR) == ["dlv_1", "dlv_2", "dlv_3"]
    assert await failed(NOW) == ["dlv_2", "dlv_3"]
    assert await failed(NOW, after="dlv_2") == ["dlv_3"]
    await deliver(ready, delivery("dlv_4", "evt_2", replay_of=DeliveryId("dlv_2")))
    assert await failed(NOW) == ["dlv_3"]
    await bury(ready)
    assert await failed(NOW) == ["dlv_3"]  # made by the same replay
    assert await failed(NOW, began=NOW + SECOND) == ["dlv_3", "dlv_4"]
    async with ready.reading() as reader:
        first = await deliveries.of_events(reader, EndpointId("end_1"), [EventId("evt_2"), EventId("evt_5")])
    assert {event_id: one.id for event_id, one in first.items()} == {"evt_2": "dlv_2"}


DELIVERY_FILTERS: Sequence[tuple[DeliveryFilter, list[str]]] = [
    (DeliveryFilter(), ["dlv_2", "dlv_1"]),
    (DeliveryFilter(endpoint_id="end_2"), ["dlv_2"]),
    (DeliveryFilter(event_id="evt_1"), ["dlv_1"]),
    (DeliveryFilter(status="dead"), ["dlv_1"]),
    (DeliveryFilter(task_id="task_1"), []),
]


async def test_deliveries_are_listed_newest_first_and_filtered(ready: Database) -> None:
    await deliver(ready, delivery("dlv_1"), delivery("dlv_2", "evt_2", endpoint_id=EndpointId("end_2")))
    await bury(ready)
    async with ready.reading() as reader:
        for wanted, found in DELIVERY_FILTERS:
            assert ids(await deliveries.page(reader, ACCOUNT, wanted, before_id=None, limit=9)) == found, (
                wanted
            )
            assert await deliveries.page(reader, OTHER, wanted, before_id=None, limit=9) == []


async def test_all_that_is_pending_of_an_account_is_listed_wherever_it_waits(ready: Database) -> None:
    """For an endpoint of its own, for a host, in somebody's hand; to be retried or not."""
    await deliver(ready, *(delivery(f"dlv_{number}", f"evt_{number}") for number in (1, 2)))
    await retried(ready, "dlv_2", at=NOW + HOUR)
    await deliver(ready, delivery("dlv_3", "evt_3"), lane=LaneKey(f"{ACCOUNT}/dead.example"))
    await deliver(ready, delivery("dlv_4", "evt_4"), lease_until=NOW + HOUR)
    pending = DeliveryFilter(status="pending")
    async with ready.reading() as reader:
        found = await deliveries.page(reader, ACCOUNT, pending, before_id=None, limit=9)
        assert ids(found) == ["dlv_4", "dlv_3", "dlv_2", "dlv_1"]
        assert await deliveries.page(reader, OTHER, pending, before_id=None, limit=9) == []


# Keys


async def test_a_key_is_found_by_its_hash_until_forever_and_tells_when_it_was_revoked(
    database: Database,
) -> None:
    async with database.transaction() as tx:
        account_id = await keys.account(tx, "new", now=NOW)
        assert await keys.account(tx, "new", now=NOW) == account_id
        assert not await keys.any_admin(tx)
        key = ApiKey(
            id=KeyId("key_1"),
            account_id=account_id,
            account_name="new",
            name="ci",
            role=KeyRole.ADMIN,
            hint="abcd",
            created_at=NOW,
        )
        await keys.insert(tx, key, hash="h")
        assert await keys.any_admin(tx)
        assert await keys.by_hash(tx, "h") == await keys.get(tx, "key_1") == key
        assert await keys.by_hash(tx, "other") is None
        await keys.revoke(tx, "key_1", now=NOW + SECOND)
        await keys.revoke(tx, "key_1", now=NOW + HOUR)
        assert await keys.page(tx, before_id=None, limit=9) == [replace(key, revoked_at=NOW + SECOND)]
        assert not await keys.any_admin(tx)
        await keys.take_over(tx, hash="h")
        assert await keys.by_hash(tx, "h") == replace(key, origin=KeyOrigin.SETTING)


# Files


def test_a_file_comes_back_by_its_hash_and_the_same_content_is_one_file(tmp_path: Path) -> None:
    files = Files(tmp_path / "inputs")
    files.put("abcd", b"\x00content")
    files.put("abcd", b"\x00content")
    assert files.get("abcd") == b"\x00content"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["abcd"]


def test_a_file_that_is_not_there_or_cannot_be_written_is_trouble_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="No such file"):
        Files(tmp_path).get("abcd")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable):
        Files(tmp_path / "file").put("abcd", b"content")


def test_callers_that_put_the_same_file_at_once_all_succeed(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: files.put("abcd", b"content"), range(8)))
    assert files.get("abcd") == b"content"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["abcd"]


async def test_a_nul_harms_nobody_and_what_cannot_hold_it_says_so(database: Database, places: Places) -> None:
    """JSON can say it, bytes can hold it, and PostgreSQL's text cannot."""
    nul = "a\0b"
    born = task(input={"prompt": nul}, metadata={"k": nul, "other": "\\u0000"})
    await store(database, born, task("task_2", metadata={"k": "c"}))
    assert (await read(database)).input == {"prompt": nul}
    async with database.reading() as reader:
        found = await tasks.page(
            reader, ACCOUNT, TaskFilter(metadata={"k": nul, "other": "\\u0000"}), before_id=None, limit=9
        )
        assert ids(found) == ["task_1"]
        assert (
            await tasks.page(reader, ACCOUNT, TaskFilter(external_task_id=nul), before_id=None, limit=9) == []
        )
        assert await tasks.page(reader, ACCOUNT, TaskFilter(status=nul), before_id=None, limit=9) == []
    await store(database, task("task_3", path=nul))
    shown = nul if places.dialect is Dialect.SQLITE else "a\N{REPLACEMENT CHARACTER}b"
    assert (await read(database, "task_3")).path == shown
