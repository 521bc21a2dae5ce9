"""Several processes on one PostgreSQL: what holds for one holds for all of them together."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from service.api.endpoints import ENDPOINTS_OF_AN_ACCOUNT
from service.app import Hooks
from service.batching import Batcher
from service.domain.endpoints import DELETED
from service.domain.ids import LaneKey
from service.lane import CONCURRENCY
from service.notices import Topic
from service.processes import EVERY, boot_seconds
from storage.database import Transaction
from storage.postgres import _lock, open_postgres
from tests.integration.klingel import (
    ADMIN_KEY,
    FULL,
    IMAGE_INPUT,
    PATIENCE_S,
    FakeKling,
    Klingel,
    ManualClock,
    OpenCreate,
    Receiver,
    RunningClock,
    accepted,
    callback,
    picture,
    refused,
    running_klingel,
    succeed,
)
from tests.integration.test_dashboard import browsing
from tests.postgres import Databases
from tests.wire import Wire

QUICKLY = timedelta(milliseconds=500)  # between heartbeats
NEVER = timedelta(hours=1)
LIFE = timedelta(minutes=1)  # of a process without a heartbeat
LOOK_AGAIN_S = 0.05
LISTENING = (
    "select pid from pg_stat_activity "
    "where application_name = 'klingel notices' and datname = current_database() "
    "and state = 'idle' and query ~* '^(listen|select 1)'"
)
CUT = (
    "select pg_terminate_backend(pid) as cut from pg_stat_activity "
    "where application_name = 'klingel notices' and datname = current_database()"
)
STREAM = {"accept": "text/event-stream"}


class MachineTime:
    """The seconds by which a process tells whether its heartbeat is late: they pass while its machine is suspended."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def suspend(self) -> None:
        """For longer than any process counts as alive."""
        self._now += timedelta(days=365).total_seconds()


@dataclass
class House:
    """Klingels on one database, with one provider and one receiver."""

    stack: AsyncExitStack
    folder: Path
    url: str
    receiver: Receiver
    kling: FakeKling = field(default_factory=FakeKling)
    clock: ManualClock = field(default_factory=ManualClock)
    processes: list[Klingel] = field(default_factory=list)

    async def add(self, roles: str = "web,dispatch", **settings: Any) -> Klingel:
        return await self.stack.enter_async_context(self.process(roles, **settings))

    @asynccontextmanager
    async def process(
        self,
        roles: str = "web,dispatch",
        *,
        url: str | None = None,
        every: timedelta = QUICKLY,
        machine_time: Callable[[], float] = boot_seconds,
        **settings: Any,
    ) -> AsyncIterator[Klingel]:
        """One more, until the block ends.

        Args:
            url: of the database, by another way than usual.
            every: between its heartbeats.
        """
        async with running_klingel(
            self.folder,
            clock=self.clock,
            kling=self.kling,
            receiver=self.receiver,
            hooks=Hooks(heartbeat=every, monotonic=machine_time),
            database_url=url or self.url,
            roles=roles,
            **settings,
        ) as klingel:
            self.processes.append(klingel)
            self._connect()
            try:
                yield klingel
            finally:
                self.processes.remove(klingel)
                self._connect()

    def _connect(self) -> None:
        """Whoever waits for a commit sees those of all; the clock is everybody's."""

        def committed() -> None:
            for klingel in self.processes:
                klingel._committed.set()

        def moved() -> None:
            for klingel in self.processes:
                assert klingel.controls.wakeups is not None
                klingel.controls.wakeups.notify_all()

        self.clock.on_move = moved
        for klingel in self.processes:
            klingel.on_commit = committed

    async def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Past all Klingels."""
        connection = await asyncpg.connect(self.url)
        try:
            return [dict(row) for row in await connection.fetch(statement, *parameters)]
        finally:
            await connection.close()

    async def until_sql(self, statement: str, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Asked again after each commit of theirs, and each heartbeat, which is one."""
        [first, *_] = self.processes
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.sql(statement)):
                first._committed.clear()
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await first._committed.wait()
                except TimeoutError:
                    continue

    @asynccontextmanager
    async def in_the_way(self, rows: str, *parameters: Any) -> AsyncIterator["InTheWay"]:
        """Somebody else is changing what this selects, until the block ends."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                assert await connection.fetch(f"{rows} for update", *parameters)
                yield InTheWay(self, connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def taking_lane(self, lane: str, *, by: Klingel) -> AsyncIterator["InTheWay"]:
        """This process is about to take the lane, until the block ends; then it has not."""
        connection = await asyncpg.connect(self.url)
        taking = connection.transaction()
        try:
            await taking.start()
            insert = "insert into lane_holders (lane, process_id) values ($1, $2)"
            await connection.execute(insert, lane, by.state["presence"].id)
            yield InTheWay(self, connection)
            await taking.rollback()
        finally:
            await connection.close()

    async def until_listening(self, number: int) -> None:
        """So many of them hear the notices of the others."""
        await self.until_sql(LISTENING, lambda rows: len(rows) == number)


@dataclass
class InTheWay:
    """Use `House.in_the_way`."""

    house: House
    connection: asyncpg.Connection

    async def until_waited_for(self) -> None:
        await self.house.until_sql(f"select pid {self._waiting}", lambda rows: len(rows) == 1)

    async def cut_who_waits(self) -> None:
        """What they were about to write is undone."""
        assert await self.house.sql(f"select pg_terminate_backend(pid) {self._waiting}")

    @property
    def _waiting(self) -> str:
        pid = self.connection.get_server_pid()
        return f"from pg_stat_activity where {pid} = any(pg_blocking_pids(pid))"

    async def finds_free(self, kind: str, name: str) -> bool:
        """Whether it may hold this name at once: else each would wait for the other from now on."""
        free: bool = await self.connection.fetchval("select pg_try_advisory_xact_lock($1)", _lock(kind, name))
        return free

    async def finds_log_free(self) -> bool:
        """Of the account that has tasks."""
        [account] = await self.house.sql("select distinct account_id from tasks")
        return await self.finds_free("events", account["account_id"])


@pytest.fixture(autouse=True)
def _databases_here() -> None:
    """Of one kind: a SQLite file has one process."""


@pytest.fixture(autouse=True)
def _nobody_dies_of_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is dead here after a minute without a heartbeat, and no test waits for that."""
    monkeypatch.setattr("service.processes.LASTS", EVERY * (LIFE / QUICKLY))


@pytest.fixture
async def house(postgres: Databases, tmp_path: Path, anyio_backend: str) -> AsyncIterator[House]:
    database = await asyncio.to_thread(postgres.take)
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver().running())
        yield House(stack, tmp_path, database.url, receiver)
    await asyncio.to_thread(postgres.give_back, database)


@asynccontextmanager
async def stream(client: httpx.AsyncClient, **headers: str) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    async with aconnect_sse(client, "GET", "/v1/events", headers={**STREAM, **headers}) as source:
        assert source.response.status_code == 200
        yield (event async for event in source.aiter_sse() if event.data)


async def heard(events: AsyncIterator[ServerSentEvent], number: int) -> list[str]:
    """The ids of the next ones."""
    async with asyncio.timeout(PATIENCE_S):
        return [(await anext(events)).id for _ in range(number)]


async def logged(klingel: Klingel) -> list[str]:
    answer = await klingel.http.get("/v1/events", params={"order": "asc", "limit": 200})
    return [event["id"] for event in answer.json()["items"]]


# Streams


async def test_a_stream_hears_what_other_processes_commit_once_and_in_order(house: House) -> None:
    here, there = await house.add(), await house.add()
    async with here.served() as client, stream(client) as events:
        for number in range(6):
            submitted, called = (here, there) if number % 2 else (there, here)
            task = await submitted.submit()
            await called.call_back(callback(task, "processing"))
            await submitted.call_back(succeed(task))
        assert await heard(events, 18) == await logged(there)


async def test_a_stream_is_resumed_at_another_process_without_gap_or_repeat(house: House) -> None:
    here, there, elsewhere = await house.add(), await house.add(), await house.add()
    async with here.served() as client, stream(client) as events:
        await here.submit()
        await elsewhere.submit()
        [first, second] = await heard(events, 2)
    await elsewhere.submit()
    async with there.served() as client, stream(client, **{"last-event-id": first}) as events:
        await elsewhere.submit()
        log = await logged(here)
        assert [first, *await heard(events, 3)] == log
        assert log[1] == second


async def test_a_stream_goes_on_when_the_connection_for_notices_was_cut(house: House) -> None:
    here, there = await house.add(), await house.add()
    async with here.served() as client, stream(client) as events:
        await there.submit()
        first = await heard(events, 1)
        await house.until_listening(2)
        assert len(await house.sql(CUT)) == 2
        await there.submit()
        assert first + await heard(events, 1) == await logged(there)


async def test_a_stream_hears_all_of_one_commit_however_many_pages_that_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.streams.PAGE", 2)
    here, there = await house.add(), await house.add("web")
    tasks = [await there.submit() for _ in range(5)]
    async with here.served() as client, stream(client) as events:
        async with there.writes_held() as are_waiting:
            answers = [
                asyncio.create_task(there.call_back(callback(task, "processing"), number=number))
                for number, task in enumerate(tasks)
            ]
            await are_waiting("apply", 5)
        assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
        assert await heard(events, 5) == (await logged(there))[5:]


async def test_a_revoked_key_ends_its_streams_at_every_process(house: House) -> None:
    here, there = await house.add(), await house.add()
    made = (await here.http.post("/v1/keys", json={"name": "guest"})).json()
    async with there.served() as client:
        client.headers["authorization"] = f"Bearer {made['key']}"
        async with stream(client) as events:
            assert (await here.http.delete(f"/v1/keys/{made['id']}")).status_code == 204
            async with asyncio.timeout(PATIENCE_S):
                told = [event.event async for event in events]
        assert told == ["stream.dropped"]
        assert (await client.get("/v1/events")).status_code == 401


async def test_a_stream_ends_whose_key_was_revoked_when_the_connection_for_notices_was_cut(
    house: House,
) -> None:
    klingel = await house.add()
    made = (await klingel.http.post("/v1/keys", json={"name": "guest"})).json()
    async with klingel.served() as client:
        client.headers["authorization"] = f"Bearer {made['key']}"
        async with stream(client) as events:
            await klingel.submit()
            await heard(events, 1)
            await house.until_listening(1)
            # As it is when nobody could hear that it was.
            await house.sql("update api_keys set revoked_at = 1 where id = $1", made["id"])
            assert len(await house.sql(CUT)) == 1
            async with asyncio.timeout(PATIENCE_S):
                told = [json.loads(event.data) async for event in events]
    assert [each["reason"] for each in told] == ["key-revoked"]


async def test_signing_out_ends_what_the_session_watches_at_every_process(house: House) -> None:
    here, there = await house.add(), await house.add()
    async with browsing(here) as browser, there.served() as client:
        assert (await browser.sign_in(ADMIN_KEY)).status_code == 303
        [(name, value)] = browser.http.cookies.items()
        session = {"cookie": f"{name}={value}", "authorization": ""}
        async with client.stream("GET", "/live", headers=session) as watched:
            assert watched.status_code == 200
            assert (await browser.send("/sign-out", on="/")).status_code == 303
            async with asyncio.timeout(PATIENCE_S):
                assert b"data:" not in await watched.aread()
        assert (await client.get("/live", headers=session)).status_code == 401


async def test_a_key_that_the_settings_of_a_new_process_replace_ends_its_streams_at_every_other(
    house: House,
) -> None:
    here = await house.add()
    async with here.served() as client, stream(client) as events:
        await house.add(api_key="another-admin-key-0123")
        async with asyncio.timeout(PATIENCE_S):
            told = [json.loads(event.data) async for event in events]
        assert [each["reason"] for each in told] == ["key-revoked"]
        assert (await here.http.get("/v1/events")).status_code == 401


# Roles


async def test_what_comes_in_at_one_process_is_done_by_another(house: House) -> None:
    """The door waits for the answer that the other one gets."""
    web, _ = await house.add("web"), await house.add("dispatch")
    await web.endpoint()
    answer = await web.http.post(
        "/v1/tasks",
        json={
            "type": "kling.multi-image-to-image",
            "input": {
                "prompt": "a cat",
                "subject_image_list": [{"subject_image": f"https://example.com/{n}.png"} for n in "ab"],
            },
        },
    )
    assert answer.status_code == 201
    await web.call_back(succeed(answer.json()))
    received = await house.receiver.until(2)
    assert [one.event["type"] for one in received] == ["task.submitted", "task.succeeded"]


async def test_a_process_without_dispatch_prunes_on_an_order_also_while_another_one_does(
    house: House,
) -> None:
    async with house.process() as gone:
        for _ in range(30):
            await gone.call_back(succeed(await gone.submit()))
    here, there = await house.add("web"), await house.add("web")
    assert "retention" not in (await here.http.get("/readyz")).json()["checks"]  # none once a day
    house.clock.now += timedelta(days=31)
    answers = await asyncio.gather(*(klingel.http.post("/v1/prune") for klingel in (here, there)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["callbacks"] for answer in answers) == 30
    assert sum(answer.json()["events"] for answer in answers) == 59  # the log never loses its newest event


async def test_a_process_that_only_dispatches_shows_how_it_is_and_nothing_else(house: House) -> None:
    dispatch = await house.add("dispatch")
    assert (await dispatch.http.get("/readyz")).status_code == 200
    assert (await dispatch.http.get("/healthz")).status_code == 200
    assert (await dispatch.http.get("/metrics")).status_code == 200
    assert (await dispatch.http.get("/v1/tasks")).status_code == 404
    assert (await dispatch.http.get("/")).status_code == 404


# Deliveries


async def test_an_endpoint_gets_no_more_at_a_time_from_two_processes_than_from_one(house: House) -> None:
    here, there = await house.add(), await house.add()
    await here.endpoint(types=["task.submitted"])
    house.receiver.gate = asyncio.Event()
    for klingel in (here, there) * 10:
        await klingel.submit()
    received = await house.receiver.until(CONCURRENCY)
    await house.until_sql(
        "select count(*) as number from deliveries where lease_until is not null",
        lambda rows: rows[0]["number"] == 20,
    )
    assert len(received) == CONCURRENCY
    [holder] = await house.sql("select distinct process_id from lane_holders")
    assert holder["process_id"] in {here.state["presence"].id, there.state["presence"].id}
    house.receiver.gate.set()
    received = await house.receiver.until(20)
    await here.until_deliveries(*["delivered"] * 20, limit="50")
    assert len({one.headers["webhook-id"] for one in received}) == len(received) == 20


async def test_each_delivery_is_made_once_by_whichever_process(house: House) -> None:
    """Many endpoints, so that each process holds some; in the order of each task."""
    here, there = await house.add(), await house.add()
    endpoints = [await klingel.endpoint() for klingel in (here, there) * 3]
    for number in range(6):
        submitted, called = (here, there) if number % 2 else (there, here)
        task = await submitted.submit()
        await called.call_back(callback(task, "processing"))
        await submitted.call_back(succeed(task))
    received = await house.receiver.until(6 * 3 * len(endpoints))
    await here.until_deliveries(*["delivered"] * 108, limit="200")
    assert len(received) == 108
    attempts = await house.sql("select number from attempts")
    assert {attempt["number"] for attempt in attempts} == {1}


async def test_a_lane_that_is_empty_is_anybodys(house: House) -> None:
    here = await house.add()
    await here.endpoint()
    await here.submit()
    await house.receiver.until(1)
    await house.until_sql("select * from lane_holders", lambda rows: not rows)


async def test_a_rate_holds_for_all_processes_together(house: House) -> None:
    """Who has sent knows when that was, and so keeps the lane until the next one may go."""
    here, there = await house.add(), await house.add()
    await here.endpoint(types=["task.submitted"], rate_per_minute=20)
    for number, klingel in enumerate((here, there, here, there), start=1):
        await klingel.submit()
        await house.receiver.until(number)
        await here.until_deliveries(*["delivered"] * number)
        for one in (here, there):
            await one.state["publisher"]._holdings.tidy()
        assert len(await house.sql("select * from lane_holders")) == 1
        house.clock.advance(seconds=3)
    await house.until_sql("select * from lane_holders", lambda rows: not rows)


async def test_what_waits_in_a_lane_that_its_endpoint_has_left_is_sent_by_the_holder_of_its_new_one(
    house: House,
) -> None:
    """As it is when a callback, at its commit, has not yet heard of the endpoint's move to another lane."""
    web = await house.add("web")
    await house.add("dispatch")
    endpoint = await web.endpoint(types=["task.submitted"])
    house.receiver.answers(500)
    await web.submit()
    await house.until_sql("select attempts from deliveries", lambda rows: rows == [{"attempts": 1}])
    house.receiver.gate = asyncio.Event()
    await web.submit()
    await house.receiver.until(2)  # its lane is in use
    other = await house.add("dispatch")
    await house.sql("update deliveries set lane = 'the old one' where attempts = 1")
    await house.sql(
        "insert into lane_holders (lane, process_id) values ('the old one', $1)",
        other.state["dispatching"]["deliverer"]._presence.id,
    )
    house.clock.advance(seconds=10)
    await house.receiver.until(3)
    [moved] = await house.sql("select lane from deliveries where attempts = 1")
    assert moved["lane"] == endpoint["id"]
    house.receiver.gate.set()
    await web.until_deliveries("delivered", "delivered")


async def test_two_replays_at_once_send_each_dead_letter_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.replays.PAGE", 2)
    here, there = await house.add(), await house.add()
    endpoint = await here.endpoint(types=["task.submitted"])
    house.receiver.answers(410)
    await here.submit()
    await here.until_deliveries("dead")
    path = f"/v1/endpoints/{endpoint['id']}"
    await here.http.patch(path, json={"enabled": True})
    await house.sql(
        "insert into deliveries select (jsonb_populate_record(one, jsonb_build_object('id', id || n, 'replay_of', id))).* "
        "from deliveries as one, generate_series(1, 20) as n"
    )
    house.clock.advance(seconds=1)
    answers = await asyncio.gather(
        *(one.http.post(f"{path}/replay", json={"since": "2026-11-22T00:00:00Z"}) for one in (here, there))
    )
    assert [answer.status_code for answer in answers] == [202, 202]
    assert sum(answer.json()["replayed"] for answer in answers) == 20


async def test_what_somebody_else_was_at_when_it_fell_due_is_looked_for_again(house: House) -> None:
    """Whoever looks waits for no row; and who was at it, and let it go, tells nobody."""
    house.clock = RunningClock()
    klingel = await house.add(every=NEVER)
    endpoints = [await klingel.endpoint(types=["task.submitted"]) for _ in range(2)]
    house.receiver.answers(500, 500)
    await klingel.submit()
    for delivery in await klingel.until_deliveries("pending", "pending"):
        await klingel.until_attempts(delivery["id"], 1)
    other = await asyncpg.connect(house.url)
    try:
        async with other.transaction():
            await other.fetch(
                "select id from deliveries where endpoint_id = $1 for update", endpoints[0]["id"]
            )
            house.clock.advance(minutes=1)
            await house.receiver.until(3)
        await house.receiver.until(4)
    finally:
        await other.close()


async def test_a_changed_endpoint_is_changed_for_the_process_that_delivers_to_it(house: House) -> None:
    """What waits in the memory of one goes where another was told to send it."""
    here, there = await house.add("web"), await house.add("dispatch")
    endpoint = await here.endpoint(types=["task.submitted"])
    house.receiver.gate = asyncio.Event()
    for _ in range(CONCURRENCY + 3):
        await here.submit()
    await house.receiver.until(CONCURRENCY)
    await house.until_sql(
        "select count(*) as number from deliveries where lease_until is not null",
        lambda rows: rows[0]["number"] == CONCURRENCY + 3,
    )
    async with Receiver().running() as moved:
        changed = await here.http.patch(
            f"/v1/endpoints/{endpoint['id']}", json={"config": {"url": moved.url}}
        )
        assert changed.status_code == 200
        lanes = there.state["dispatching"]["deliverer"]._lanes

        async def moved_there() -> bool:
            return {duty.endpoint.config["url"] for duty in lanes.waiting()} == {moved.url}

        await there.until(moved_there)
        house.receiver.gate.set()
        await moved.until(3)
        await here.until_deliveries(*["delivered"] * (CONCURRENCY + 3), limit="50")
        assert len(house.receiver.received) == CONCURRENCY


async def test_an_endpoint_that_is_changed_while_its_deliveries_are_claimed_gets_them_as_it_is_now(
    house: House,
) -> None:
    """The claim has read it before, and then has to wait for its lane."""
    web, dispatch = await house.add("web"), await house.add("dispatch")
    endpoint = await web.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}"
    heard = asyncio.Event()
    dispatch.state["notices"].on(Topic.RECALLED, lambda _name: heard.set())
    async with Receiver().running() as moved:
        async with house.taking_lane(endpoint["id"], by=web) as other:
            assert (await web.http.post(f"{path}/test")).status_code == 202
            await other.until_waited_for()
            await web.http.patch(path, json={"config": {"url": moved.url}})
            await asyncio.wait_for(heard.wait(), PATIENCE_S)
        await moved.until(1)
        await web.until_deliveries("delivered")
    assert house.receiver.received == []


async def test_a_deleted_endpoint_gets_nothing_more_from_the_process_that_delivers_to_it(
    house: House,
) -> None:
    web, dispatch = await house.add("web"), await house.add("dispatch")
    endpoint = await web.endpoint(types=["task.submitted"])
    house.receiver.gate = asyncio.Event()
    for _ in range(CONCURRENCY + 3):
        await web.submit()
    await house.receiver.until(CONCURRENCY)
    heard = asyncio.Event()
    dispatch.state["notices"].on(Topic.DROPPED, lambda _name: heard.set())
    await web.http.delete(f"/v1/endpoints/{endpoint['id']}")
    await asyncio.wait_for(heard.wait(), 60)  # until then another attempt may begin
    house.receiver.gate.set()
    await house.until_sql(
        "select status, count(*) as number from deliveries group by status order by status",
        lambda rows: (
            [(row["status"], row["number"]) for row in rows] == [("dead", 3), ("delivered", CONCURRENCY)]
        ),
    )
    assert len(house.receiver.received) == CONCURRENCY


async def test_what_is_committed_for_an_endpoint_while_another_process_deletes_it_becomes_a_dead_letter(
    house: House,
) -> None:
    """That one has looked already for what is in somebody's hand, and waits for a delivery that somebody is at."""
    here, there = await house.add("web"), await house.add()
    endpoint = await there.endpoint(types=["task.submitted"], rate_per_minute=1)
    for number in (1, 2):
        await there.submit()
        await there.until_deliveries("delivered", *["pending"] * (number - 1))
    leased = "select * from deliveries where lease_until is not null"
    await house.until_sql(leased, lambda rows: len(rows) == 1)  # it waits for its rate
    async with house.in_the_way(leased) as other:
        deleting = asyncio.create_task(here.http.delete(f"/v1/endpoints/{endpoint['id']}"))
        await other.until_waited_for()
        await there.submit()
        await house.until_sql(leased, lambda rows: len(rows) == 2)
    assert (await deleting).status_code == 204
    left = "select status, reason from deliveries where status <> 'delivered'"
    await house.until_sql(left, lambda rows: rows == [{"status": "dead", "reason": DELETED}] * 2)


# Tasks


async def test_each_task_is_sent_once_by_whichever_process(house: House) -> None:
    processes = [await house.add() for _ in range(3)]
    submitted = await asyncio.gather(*(klingel.submit() for klingel in processes * 8))
    assert {task["status"] for task in submitted} == {"submitted"}
    assert len(house.kling.creates) == 24
    assert len({create["external_task_id"] for create in house.kling.creates}) == 24


async def test_one_idempotency_key_is_one_task_at_whichever_door(house: House) -> None:
    processes = [await house.add() for _ in range(2)]
    told = await asyncio.gather(
        *(klingel.submit(headers={"idempotency-key": "order-1"}) for klingel in processes * 5)
    )
    assert len({task["id"] for task in told}) == 1
    assert len(house.kling.creates) == 1


async def test_a_task_is_overdue_once(house: House) -> None:
    processes = [await house.add() for _ in range(3)]
    await processes[0].endpoint(types=["task.overdue"])
    tasks = [await klingel.submit(deadline_s=60) for klingel in processes * 3]
    house.clock.advance(minutes=2)
    received = await house.receiver.until(9)
    assert {one.event["data"]["task"]["id"] for one in received} == {task["id"] for task in tasks}
    rows = await house.sql("select count(*) as number from events where type = 'task.overdue'")
    assert rows == [{"number": 9}]


async def test_callbacks_about_one_task_at_several_doors_make_each_event_once(house: House) -> None:
    processes = [await house.add() for _ in range(3)]
    task = await processes[0].submit()
    answers = await asyncio.gather(
        *(
            klingel.call_back(body)
            for klingel in processes
            for body in (callback(task, "processing"), succeed(task))
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    sequences = [event["sequence"] for event in await processes[0].events(task["id"])]
    assert sequences == list(range(1, len(sequences) + 1))
    assert (await processes[1].event_types(task["id"])).count("task.succeeded") == 1


async def test_the_limit_of_endpoints_holds_for_all_doors_together(house: House) -> None:
    here, there = await house.add(), await house.add()
    body = {"config": {"url": house.receiver.url}}
    answers = await asyncio.gather(
        *(klingel.http.post("/v1/endpoints", json=body) for klingel in (here, there) * 105)
    )
    made = [answer.status_code for answer in answers].count(201)
    assert made == ENDPOINTS_OF_AN_ACCOUNT


# Death


async def test_what_a_dead_process_had_in_hand_is_done_by_another(house: House) -> None:
    """A create that was on its way is unconfirmed, and asked for again; deliveries are made; lanes are free."""
    web = await house.add("web", every=NEVER)
    endpoint = await web.endpoint(types=["task.unconfirmed"])
    task = await web.submit_async()
    await house.sql("insert into processes (id, roles, until) values ('proc_gone', 'dispatch', 0)")
    await house.sql("insert into lane_holders (lane, process_id) values ($1, 'proc_gone')", endpoint["id"])
    await house.sql("update tasks set sending_since = created_at, sends = 1, sent_by = 'proc_gone'")
    await house.add("dispatch", confirm_after=60)
    await web.until_status(task["id"], "unconfirmed")
    await house.receiver.until(1)
    assert house.kling.creates == []
    house.clock.advance(minutes=2)
    await web.until_status(task["id"], "submitted")
    assert await house.sql("select id from processes where id = 'proc_gone'") == []


@pytest.mark.parametrize(
    ("answer", "status", "provider_task_id"),
    [
        pytest.param(refused(400, 1301, "content-safety policy"), "unconfirmed", None, id="refused"),
        pytest.param(accepted("8800"), "submitted", "8800", id="accepted"),
    ],
)
async def test_an_answer_that_comes_after_a_second_create_was_begun_counts_if_it_is_an_acceptance(
    house: House, answer: httpx.Response, status: str, provider_task_id: str | None
) -> None:
    """To a process that was counted as dead meanwhile. A refusal says nothing of the create that is on its way now."""
    late, second = OpenCreate(answer), OpenCreate(httpx.ReadTimeout("no answer"))
    house.kling.answers(late, second)
    async with house.process(every=NEVER, confirm_after=60) as stalled:
        task = await stalled.submit_async()
        await house.kling.until(1)
        await house.sql("update processes set until = 0")
        others = await house.add(confirm_after=60)
        await others.until_status(task["id"], "unconfirmed")
        house.clock.advance(minutes=2)
        await house.kling.until(2)
        late.end()
    [row] = await house.sql("select * from tasks")
    assert (row["status"], row["provider_task_id"], row["sends"]) == (status, provider_task_id, 2)
    assert (row["sending_since"] is None) == (status == "submitted")
    second.end()


async def test_deliveries_in_a_dead_process_s_hand_are_made_by_another(house: House) -> None:
    web = await house.add("web", every=NEVER)
    endpoint = await web.endpoint()
    test = await web.http.post(f"/v1/endpoints/{endpoint['id']}/test")
    assert test.status_code == 202
    await house.sql("insert into processes (id, roles, until) values ('proc_gone', 'dispatch', 0)")
    await house.sql("insert into lane_holders (lane, process_id) values ($1, 'proc_gone')", endpoint["id"])
    await house.sql("update deliveries set lease_until = 9999999999999, leased_by = 'proc_gone'")
    await house.add("dispatch")
    [received] = await house.receiver.until(1)
    assert received.event["type"] == "endpoint.test"
    await web.until_deliveries("delivered")


async def test_deliveries_of_a_process_that_dies_are_made_as_soon_as_another_finds_it_dead(
    house: House,
) -> None:
    web, _ = await house.add("web", every=NEVER), await house.add("dispatch")
    endpoint = await web.endpoint()
    await house.sql(
        "insert into processes (id, roles, until) values ('proc_dying', 'dispatch', 9999999999999)"
    )
    await house.sql("insert into lane_holders (lane, process_id) values ($1, 'proc_dying')", endpoint["id"])
    assert (await web.http.post(f"/v1/endpoints/{endpoint['id']}/test")).status_code == 202
    await house.sql("update deliveries set lease_until = 9999999999999, leased_by = 'proc_dying'")
    await house.sql("update processes set until = 0 where id = 'proc_dying'")
    await house.receiver.until(1)
    await web.until_deliveries("delivered")


async def test_a_process_that_was_counted_as_dead_begins_anew(house: House) -> None:
    klingel = await house.add()
    former = klingel.state["presence"].id
    await klingel.endpoint()
    await klingel.submit()
    await house.receiver.until(1)
    await house.sql("delete from processes")
    await house.until_sql("select id from processes", lambda rows: bool(rows) and rows[0]["id"] != former)
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    received = await house.receiver.until(3)
    assert [one.event["type"] for one in received][-1] == "task.succeeded"


async def test_a_process_that_stops_leaves_nothing_behind(house: House) -> None:
    """The next one finds all that it had, without waiting for its time to run out."""
    here = await house.add()
    async with house.process() as leaving:
        await leaving.endpoint()
        house.receiver.always = 500
        await leaving.submit()
        await leaving.until_deliveries("pending")
        await house.receiver.until(1)
        id = leaving.state["presence"].id
    left = await house.sql("select id from processes where id = $1", id)
    held = await house.sql("select lane from lane_holders where process_id = $1", id)
    leased = await house.sql("select id from deliveries where leased_by = $1 and lease_until is not null", id)
    assert (left, held, leased) == ([], [], [])
    house.receiver.always = 200
    house.clock.advance(seconds=30)
    await here.until_deliveries("delivered")


async def test_a_process_that_is_told_to_stop_gives_back_all_that_it_has_not_begun_at_once(
    house: House,
) -> None:
    """Not only when its slowest attempt has ended; by then it has not even had a heartbeat."""
    async with Receiver().running() as slow, house.process(every=NEVER) as leaving:
        endpoint = await leaving.endpoint(types=["task.submitted"], config={"url": slow.url})
        await leaving.endpoint(types=["task.submitted"])
        slow.gate = asyncio.Event()
        for _ in range(CONCURRENCY + 1):
            await leaving.submit()
        await slow.until(CONCURRENCY)
        await leaving.until_deliveries(*["delivered"] * (CONCURRENCY + 1), status="delivered")
        there = await house.add(every=NEVER)
        leaving.controls.stop_starting()
        await there.submit()
        await house.receiver.until(CONCURRENCY + 2)
        await leaving.submit()
        await house.receiver.until(CONCURRENCY + 3)
        leased = (
            "select endpoint_id, count(*) as number from deliveries where lease_until is not null group by 1"
        )
        await house.until_sql(
            leased, lambda rows: rows == [{"endpoint_id": endpoint["id"], "number": CONCURRENCY}]
        )
        [held] = await house.sql(
            "select lane from lane_holders where process_id = $1", leaving.state["presence"].id
        )
        assert (held["lane"], len(slow.received)) == (endpoint["id"], CONCURRENCY)
        slow.gate.set()
        await there.until_deliveries(*["delivered"] * 2 * (CONCURRENCY + 3), limit="50")
        assert len(slow.received) == CONCURRENCY + 3


async def test_what_a_receiver_has_answered_for_the_last_time_is_known_to_whoever_goes_on(
    house: House,
) -> None:
    """A 410 that comes to a process that is told to stop: nothing more is sent there, from nowhere."""
    async with (
        Receiver().running() as slow,
        Receiver().running() as gone,
        house.process(every=NEVER) as leaving,
    ):
        await leaving.endpoint(types=["task.submitted"], config={"url": slow.url})
        types = ["task.submitted", "task.processing", "task.succeeded"]
        endpoint = await leaving.endpoint(types=types, config={"url": gone.url})
        slow.gate, gone.gate, gone.always = asyncio.Event(), asyncio.Event(), 410
        task = await leaving.submit()
        for receiver in (slow, gone):
            await receiver.until(1)
        for body in (callback(task, "processing"), succeed(task)):
            assert (await leaving.call_back(body)).status_code == 200
        there = await house.add(every=NEVER)
        leaving.controls.stop_starting()
        leased = "select id from deliveries where lease_until is not null"
        await house.until_sql(leased, lambda rows: len(rows) == 2)
        gone.gate.set()
        await there.until_deliveries(*["dead"] * 3, endpoint_id=endpoint["id"])
        held = f"select lane from lane_holders where lane = '{endpoint['id']}'"
        await house.until_sql(held, lambda rows: rows == [])
        slow.gate.set()
    assert len(gone.received) == 1


async def test_lanes_that_could_not_be_given_up_at_a_stop_are_given_up_after_all(house: House) -> None:
    """The database breaks the connection just then; another attempt goes on for long."""
    house.clock = RunningClock()
    async with Receiver().running() as slow, house.process(every=NEVER) as leaving:
        await leaving.endpoint(types=["task.submitted"], config={"url": slow.url})
        await leaving.endpoint(types=["task.submitted"])
        slow.gate = asyncio.Event()
        await leaving.submit()
        for receiver in (slow, house.receiver):
            await receiver.until(1)
        await leaving.until_deliveries("delivered", status="delivered")
        there = await house.add(every=NEVER)
        async with house.in_the_way("select * from lane_holders") as other:
            leaving.controls.stop_starting()
            await other.until_waited_for()
            await other.cut_who_waits()
        await there.submit()
        await house.receiver.until(2)
        slow.gate.set()


async def test_a_process_that_cannot_say_that_it_is_alive_begins_nothing(house: House) -> None:
    """Others may have counted it as dead, and do what it had."""
    machine_time = MachineTime()
    klingel = await house.add(machine_time=machine_time)
    presence = klingel.state["presence"]
    assert presence.alive
    machine_time.suspend()
    assert not presence.alive
    async with asyncio.timeout(PATIENCE_S):
        await presence.until_alive()  # its next heartbeat


async def test_a_process_that_was_away_itself_reaps_no_other_before_it_had_time_to_come_back(
    house: House,
) -> None:
    """The whole machine may have been."""
    machine_time = MachineTime()
    klingel = await house.add("web", machine_time=machine_time)
    presence = klingel.state["presence"]
    found: list[bool] = []
    enough = asyncio.Event()

    async def look() -> None:
        if not found:
            await house.sql("insert into processes (id, roles, until) values ('proc_away', 'web', 0)")
            machine_time.suspend()
        found.append(bool(await house.sql("select id from processes where id = 'proc_away'")))
        if len(found) == 3:
            enough.set()

    presence.on_heartbeat(look)
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    assert found[:3] == [True, True, False]


async def test_whoever_holds_up_all_writes_keeps_no_process_from_saying_that_it_is_alive(
    house: House,
) -> None:
    """As one that stands still in the midst of a transaction, with the log of an account that all write to."""
    processes = [await house.add() for _ in range(3)]
    task = await processes[0].submit()
    [account] = await house.sql("select account_id from tasks")
    connection = await asyncpg.connect(house.url)
    try:
        async with connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock($1)", _lock("events", account["account_id"])
            )
            posts = [asyncio.create_task(one.call_back(callback(task, "processing"))) for one in processes]
            waiting = "select pid from pg_locks where locktype = 'advisory' and not granted"
            await house.until_sql(waiting, lambda rows: len(rows) > 0)
            signs = "select id, until from processes order by id"
            before = await house.sql(signs)
            some = QUICKLY * 4 // timedelta(milliseconds=1)  # of which one may have been on its way
            await house.until_sql(
                signs,
                lambda rows: all(
                    now["until"] > then["until"] + some for now, then in zip(rows, before, strict=True)
                ),
            )
            assert not any(post.done() for post in posts)
        assert [answer.status_code for answer in await asyncio.gather(*posts)] == [200] * 3
    finally:
        await connection.close()


async def test_a_process_that_no_longer_counts_as_alive_reaps_no_other(house: House) -> None:
    """Though it asked for it while it did, and then the write had to wait."""
    machine_time = MachineTime()
    klingel = await house.add("web", every=NEVER, machine_time=machine_time)
    presence = klingel.state["presence"]
    await house.sql("insert into processes (id, roles, until) values ('proc_gone', 'web', 0)")
    gone = "select id from processes where id = 'proc_gone'"
    async with klingel.writes_held() as are_waiting:
        reaping = asyncio.create_task(presence.reap())
        await are_waiting("_reap", 1)
        machine_time.suspend()
    await reaping
    assert len(await house.sql(gone)) == 1
    await presence.renew()
    await presence.reap()
    assert await house.sql(gone) == []


async def test_what_comes_in_before_a_late_heartbeat_is_delivered_after_it(house: House) -> None:
    """By the process itself, where there is no other."""
    house.clock = RunningClock()
    machine_time = MachineTime()
    klingel = await house.add(every=NEVER, machine_time=machine_time)
    endpoint = await klingel.endpoint()
    machine_time.suspend()
    await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
    assert house.receiver.received == []
    await klingel.state["presence"].renew()
    await house.receiver.until(1)


async def test_what_a_process_takes_while_others_reap_it_is_still_taken_over(house: House) -> None:
    """They pass it by until it has taken, and find that then. Once they have reaped it, it takes nothing."""
    others, stalled = [await house.add("web", every=NEVER) for _ in range(2)]
    presence, holdings = stalled.state["presence"], stalled.state["publisher"]._holdings
    endpoint, task = await others.endpoint(types=["task.succeeded"]), await others.submit_async()
    reap = others.state["presence"].reap
    await house.sql("update processes set until = 0 where id = $1", presence.id)
    lane = LaneKey(endpoint["id"])
    async with stalled.state["database"].transaction() as tx:
        assert await holdings.take(tx, [lane]) == {lane}
        _, [begun] = await stalled.state["dispatching"]["submitter"]._begin(tx)
        assert begun.id == task["id"]
        await reap()
    await reap()
    assert await house.sql("select lane from lane_holders") == []
    assert (await others.task(task["id"]))["status"] == "unconfirmed"
    second = await others.submit_async()
    async with stalled.state["database"].transaction() as tx:
        assert await holdings.take(tx, ["another"]) == set()
        assert await stalled.state["dispatching"]["submitter"]._begin(tx) == (presence.id, [])
    assert (await others.task(second["id"]))["status"] == "queued"
    assert not presence.alive


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_process_that_was_away_sends_only_what_is_still_its_own(house: House, in_time: bool) -> None:
    machine_time = MachineTime()
    others, stalled = (
        await house.add("web"),
        await house.add("web", every=NEVER, machine_time=machine_time),
    )
    task = await others.submit_async()
    sender, presence = stalled.state["dispatching"]["submitter"], stalled.state["presence"]
    by, [begun] = await stalled.state["batcher"].alone(sender._begin)
    machine_time.suspend()
    sending = asyncio.create_task(sender._send(begun, by))
    if not in_time:
        await house.sql("update processes set until = 0 where id = $1", by)
        await others.until_status(task["id"], "unconfirmed")
    assert house.kling.creates == []
    await presence.renew()
    await sending
    assert len(house.kling.creates) == (1 if in_time else 0)
    assert (await others.task(task["id"]))["status"] == ("submitted" if in_time else "unconfirmed")


# Doubt


async def test_what_a_lost_commit_has_taken_in_is_sent(house: House) -> None:
    """Whoever submitted is told that it failed; nothing else would ever look for it."""
    async with Wire(house.url).running() as wire, house.process(url=wire.url, every=NEVER) as klingel:
        open_create = OpenCreate(accepted("8800"))
        house.kling.answers(open_create)
        await klingel.submit_async()
        await house.kling.until(1)  # and now the loop that sends has nothing to look for
        wire.lose_commit("order-lost")
        answer = await klingel.http.post(
            "/v1/tasks",
            json={
                "type": "kling.multi-image-to-image",
                "input": dict(IMAGE_INPUT),
                "external_task_id": "order-lost",
            },
        )
        assert (answer.status_code, wire.lost.is_set()) == (503, True)
        assert (await house.kling.until(2))[1]["external_task_id"] == "order-lost"
        open_create.end()


async def test_what_a_lost_commit_has_recorded_is_told_to_everybody(house: House) -> None:
    """To streams and endpoints of the process that took it for undone."""
    async with Wire(house.url).running() as wire, house.process(url=wire.url, every=NEVER) as klingel:
        await klingel.endpoint(types=["task.succeeded"])
        task = await klingel.submit()
        async with klingel.served() as client, stream(client) as events:
            wire.lose_commit("lost.png")
            done = callback(task, "succeed", task_result={"images": [{"index": 0, "url": picture("lost")}]})
            assert ((await klingel.call_back(done)).status_code, wire.lost.is_set()) == (503, True)
            [received] = await house.receiver.until(1)
            assert received.event["type"] == "task.succeeded"
            assert await heard(events, 1) == (await logged(klingel))[-1:]


async def test_what_a_lost_commit_has_marked_as_on_its_way_is_sent(house: House) -> None:
    """Nothing of it was, for its create goes out only after the commit."""
    house.clock = RunningClock()
    web = await house.add("web")
    task = await web.submit_async()
    async with Wire(house.url).running() as wire:
        wire.lose_commit(task["id"])
        async with house.process("dispatch", url=wire.url, every=NEVER):
            async with asyncio.timeout(PATIENCE_S):
                await wire.lost.wait()
            await web.until_status(task["id"], "submitted")
            assert len(house.kling.creates) == 1


async def test_a_process_that_looks_for_such_marks_waits_for_a_task_without_holding_the_line(
    house: House,
) -> None:
    """Whoever changes the task may be about to take the line: each would wait for the other."""
    klingel = await house.add(every=NEVER)
    open_create = OpenCreate(accepted("8800"))
    house.kling.answers(open_create)
    task = await klingel.submit_async()
    await house.kling.until(1)
    await house.until_listening(1)
    async with house.in_the_way("select * from tasks where id = $1", task["id"]) as other:
        await house.sql(CUT)
        await other.until_waited_for()
        assert await other.finds_free("line", "all")
    open_create.end()
    await klingel.until_status(task["id"], "submitted")
    assert len(house.kling.creates) == 1


async def test_what_a_lost_commit_has_taken_in_later_than_it_was_looked_for_is_sent(house: House) -> None:
    """The server was at it still: its rows come to light as leased to this process, which knows nothing of them."""
    klingel = await house.add()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    house.receiver.answers(500)
    await klingel.submit()
    await house.until_sql("select attempts from deliveries", lambda rows: rows == [{"attempts": 1}])
    await house.sql(
        "update deliveries set lease_until = 9999999999999, leased_by = $1",
        klingel.state["dispatching"]["deliverer"]._presence.id,
    )
    house.clock.advance(minutes=1)
    await house.until_listening(1)
    await house.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'klingel notices' and datname = current_database()"
    )
    await house.receiver.until(2)
    await klingel.until_deliveries("delivered", endpoint_id=endpoint["id"])


async def test_what_a_lost_commit_has_claimed_is_sent(house: House) -> None:
    async with Wire(house.url).running() as wire, house.process(url=wire.url, every=NEVER) as klingel:
        await klingel.endpoint(types=["task.submitted"])
        house.receiver.answers(500)
        await klingel.submit()
        await house.until_sql("select attempts from deliveries", lambda rows: rows == [{"attempts": 1}])
        wire.lose_commit("set lease_until")
        house.clock.advance(seconds=6)
        async with asyncio.timeout(PATIENCE_S):
            await wire.lost.wait()

        def is_delivered(rows: list[dict[str, Any]]) -> bool:
            house.clock.advance(seconds=1)  # who claims pauses for so long after a failure
            return rows == [{"status": "delivered"}]

        await house.until_sql("select status from deliveries", is_delivered)
        assert len(house.receiver.received) == 2


async def test_an_attempt_whose_record_was_lost_is_made_again_at_once(house: House) -> None:
    """Under the same id. Else nobody would look for it before its lease has ended."""
    klingel = await house.add(every=NEVER)
    await klingel.endpoint(types=["task.submitted"])
    gate = house.receiver.gate = asyncio.Event()
    await klingel.submit()
    await house.receiver.until(1)
    async with house.in_the_way("select * from deliveries") as other:
        gate.set()
        await other.until_waited_for()
        await other.cut_who_waits()
    await klingel.until_deliveries("delivered")
    first, again = house.receiver.received
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert not klingel.state["dispatching"]["deliverer"]._claims._doubt.is_open  # it is looked for once


async def test_a_submit_that_is_stored_is_never_answered_as_if_it_were_not(house: House) -> None:
    """Whoever is told to try again pays twice. What the provider said is not to be learned: so it is under way."""
    await house.add("dispatch")
    open_create = OpenCreate(accepted("8800"))
    house.kling.answers(open_create)
    async with AsyncExitStack() as there_is_a_way:
        wire = await there_is_a_way.enter_async_context(Wire(house.url).running())
        async with house.process("web", url=wire.url, every=NEVER, submit_wait=1) as web:
            asked = asyncio.create_task(
                web.http.post(
                    "/v1/tasks",
                    json={"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)},
                    headers={"idempotency-key": "one"},
                )
            )
            await house.kling.until(1)
            await there_is_a_way.aclose()
            answer = await asked
            assert (answer.status_code, answer.json()["status"]) == (202, "queued")
            open_create.end()


async def test_a_lane_that_was_given_up_by_a_lost_commit_is_held_by_one(house: House) -> None:
    async with Wire(house.url).running() as wire, house.process(url=wire.url) as here:
        there = await house.add()
        endpoint = await here.endpoint(types=["endpoint.test"])
        wire.lose_commit("delete from lane_holders where process_id = $")
        await here.http.post(f"/v1/endpoints/{endpoint['id']}/test")
        async with asyncio.timeout(PATIENCE_S):
            await wire.lost.wait()
        await here.until_deliveries("delivered")
        house.receiver.gate = asyncio.Event()
        for klingel in (there, here) * 5:
            await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
        await house.until_sql(
            "select count(*) as number from deliveries where lease_until is not null",
            lambda rows: rows[0]["number"] == 10,
        )
        leased = await house.sql("select distinct leased_by from deliveries where lease_until is not null")
        assert [row["leased_by"] for row in leased] == [there.state["presence"].id]
        house.receiver.gate.set()


async def test_a_lost_commit_is_looked_for_at_heartbeats_too(house: House) -> None:
    """Its server may still be at it when the connection is gone."""
    klingel = await house.add()
    looked = asyncio.Queue[None]()
    notices = klingel.state["notices"]
    notices.on_gap(lambda: looked.put_nowait(None))
    notices.doubt()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            await looked.get()


async def test_who_is_in_each_other_s_way_is_done_one_after_the_other(house: House) -> None:
    """Each holds what the other wants: the server undoes one, and that one is written again."""
    both = asyncio.Barrier(2)
    tried: list[str] = []

    def taking(first: str, second: str) -> Callable[[Transaction, Sequence[str]], Awaitable[list[str]]]:
        async def take(tx: Transaction, items: Sequence[str]) -> list[str]:
            tried.append(first)
            await tx.hold("account", [first])
            if len(tried) <= 2:
                await both.wait()
            await tx.hold("account", [second])
            return list(items)

        return take

    async with AsyncExitStack() as stack:
        batchers = []
        for _ in range(2):
            database = await stack.enter_async_context(open_postgres(house.url))
            batcher = Batcher(database, observe=lambda _number, _seconds: None)
            await stack.enter_async_context(batcher.running())
            batchers.append(batcher)
        here, there = batchers
        async with asyncio.timeout(PATIENCE_S):
            done = await asyncio.gather(here.run(taking("a", "b"), "one"), there.run(taking("b", "a"), "two"))
    assert done == ["one", "two"]
    assert len(tried) == 3


def charged_speech() -> httpx.Response:
    """Its result, and what it costs, are in the answer to the create."""
    ended = succeed({"id": "speech", "external_task_id": None, "provider_task_id": "77"})
    data = {**ended, "final_unit_deduction": "0.05"}
    del data["task_info"]
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


async def test_an_answer_that_brings_the_end_waits_for_nobody_while_it_holds_the_line_or_a_log(
    house: House,
) -> None:
    """As a callback elsewhere, which counts its cost, gives its place away and then publishes: they would deadlock."""
    klingel = await house.add()
    speech = {"type": "kling.raw", "input": {"path": "/v1/audio/tts", "body": {"text": "miaow"}}}
    house.kling.otherwise = charged_speech()
    assert (await klingel.http.post("/v1/tasks", json=speech)).json()["status"] == "succeeded"
    async with house.in_the_way("select * from usage_days") as other:
        respond = {"prefer": "respond-async"}
        task = (await klingel.http.post("/v1/tasks", json=speech, headers=respond)).json()
        await other.until_waited_for()
        assert await other.finds_free("line", "all")
        assert await other.finds_log_free()
    await klingel.until_status(task["id"], "succeeded")
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.succeeded"]
    assert [row["tasks"] for row in await house.sql("select tasks from usage_days")] == [2]


async def test_callbacks_about_one_task_in_one_commit_wait_for_nobody_while_they_hold_its_log(
    house: House,
) -> None:
    klingel = await house.add()
    tasks = [await klingel.submit() for _ in range(2)]
    ended = [succeed(task, final_unit_deduction="1") for task in tasks]
    assert (await klingel.call_back(ended[0], number=0)).status_code == 200
    async with house.in_the_way("select * from usage_days") as other:
        answers = []
        async with klingel.writes_held() as are_waiting:
            for number, body in enumerate([callback(tasks[1], "processing"), ended[1]], start=1):
                answers.append(asyncio.create_task(klingel.call_back(body)))
                await are_waiting("apply", number)
        await other.until_waited_for()
        assert await other.finds_log_free()
    assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
    events = await klingel.events(tasks[1]["id"])
    assert [(event["type"], event["sequence"]) for event in events] == [
        ("task.submitted", 1),
        ("task.processing", 2),
        ("task.succeeded", 3),
    ]


async def test_who_lets_the_next_in_line_ask_waits_for_nobody(house: House) -> None:
    """Whoever writes a waiting task may be about to let one ask, too."""
    klingel = await house.add()
    running = await klingel.submit()
    let_in = OpenCreate(accepted("8800"))
    house.kling.answers(FULL, let_in)
    waiting = []
    for number in (1, 2):
        waiting.append(await klingel.submit_async())
        in_line = "select id from tasks where awaits_slot = 1"
        await house.until_sql(in_line, lambda rows, number=number: len(rows) == number)
    house.clock.advance(minutes=2)
    await house.kling.until(3)  # the first one's own moment: when it gets a place, the second asks
    async with house.in_the_way("select * from tasks where id = $1", waiting[1]["id"]):
        let_in.end()
        await klingel.until_status(waiting[0]["id"], "submitted")
    assert (await klingel.call_back(succeed(running), number=0)).status_code == 200
    await klingel.until_status(waiting[1]["id"], "submitted")


async def test_accounts_take_turns_at_places_whichever_process_hears_of_an_end(house: House) -> None:
    web = await house.add("web")
    await house.add("dispatch")
    house.kling.answers(accepted("8800"), *[FULL, accepted("8801")], accepted("8802"), accepted("8803"))
    in_line = "select id from tasks where awaits_slot = 1"
    async with web.another_account() as other:
        body = {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)}
        theirs = []
        for number in range(4):
            answer = await other.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})
            theirs.append(answer.json())
            await house.until_sql(
                "select id from tasks where status = 'submitted' or awaits_slot = 1",
                lambda rows, number=number: len(rows) == number + 1,
            )
        mine = await web.submit_async()
        await house.until_sql(in_line, lambda rows: len(rows) == 4)
        for ending, following in ((theirs[0], mine), (mine, theirs[1])):
            house.clock.advance(seconds=1)
            [row] = await house.sql("select * from tasks where id = $1", ending["id"])
            number = [create["external_task_id"] for create in house.kling.creates].index(
                row["provider_external_id"]
            )
            body = callback({**ending, "external_task_id": row["provider_external_id"]}, "failed")
            assert (await web.call_back({**body, "task_id": None}, number=number)).status_code == 200
            await house.until_sql(
                f"select id from tasks where id = '{following['id']}' and status = 'submitted'", bool
            )


# The public URL


async def test_a_probe_that_comes_in_at_another_process_has_come_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.probing.TOLD_WITHIN_S", PATIENCE_S)
    here, there = await house.add(), await house.add()

    async def through_the_balancer(request: httpx.Request) -> httpx.Response:
        return await there.http.post(request.url.path, content=request.content, headers=request.headers)

    house.kling.answers(through_the_balancer)
    await house.until_listening(2)
    probed = (await here.http.post("/v1/probe")).json()
    assert (probed["reached"], probed["problem"]) == (True, None)
