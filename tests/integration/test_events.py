"""`/v1/events` and a task's own: the log, and the log as it grows."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from service.domain.events import Event
from service.streams import KeyRevoked
from tests.integration.klingel import (
    PATIENCE_S,
    Klingel,
    OpenCreate,
    accepted,
    callback,
    pointers,
    refused,
    running_klingel,
    succeed,
)

STREAM = {"accept": "text/event-stream"}


async def story(klingel: Klingel) -> dict[str, Any]:
    """A task and its three events."""
    task = await klingel.submit()
    for body in (callback(task, "processing"), succeed(task)):
        await klingel.call_back(body)
    return task


def ids(events: list[Any]) -> list[str]:
    return [event["id"] for event in events]


# The log


async def test_the_log_of_the_account_is_read_newest_first_or_in_its_order(klingel: Klingel) -> None:
    """For people who look at it, and for programs that follow it."""
    tasks = [await story(klingel) for _ in range(3)]
    order = [event["id"] for task in tasks for event in await klingel.events(task["id"])]
    assert len(order) == 9
    newest = (await klingel.http.get("/v1/events")).json()
    assert (ids(newest["items"]), newest["next_cursor"]) == (order[::-1], None)
    for direction, expected in (("asc", order), ("desc", order[::-1])):
        found: list[str] = []
        query: dict[str, Any] = {"order": direction, "limit": 4}
        while True:
            page = (await klingel.http.get("/v1/events", params=query)).json()
            found += ids(page["items"])
            if page["next_cursor"] is None:
                break
            assert len(page["items"]) == 4
            query["cursor"] = page["next_cursor"]
        assert found == expected


async def test_the_log_can_be_read_by_type(klingel: Klingel) -> None:
    tasks = [await story(klingel) for _ in range(2)]
    for order, expected in (("asc", tasks), ("desc", tasks[::-1])):
        query = {"type": "task.succeeded", "order": order}
        found = (await klingel.http.get("/v1/events", params=query)).json()["items"]
        assert [event["data"]["task"]["id"] for event in found] == [task["id"] for task in expected]
        assert {event["type"] for event in found} == {"task.succeeded"}


async def test_the_log_of_a_task_is_read_in_its_order_page_by_page(klingel: Klingel) -> None:
    """Its sequence counts from 1 without gaps, and each event says what has changed."""
    await story(klingel)
    task = await story(klingel)
    whole = await klingel.events(task["id"])
    assert [event["sequence"] for event in whole] == [1, 2, 3]
    transitions = (await klingel.task(task["id"]))["transitions"]
    assert [event["data"]["transition"] for event in whole] == transitions
    first = (await klingel.http.get(f"/v1/tasks/{task['id']}/events", params={"limit": 2})).json()
    query = {"limit": 2, "cursor": first["next_cursor"]}
    rest = (await klingel.http.get(f"/v1/tasks/{task['id']}/events", params=query)).json()
    assert first["items"] + rest["items"] == whole
    assert rest["next_cursor"] is None


async def test_faults_of_a_query_are_told_at_once(klingel: Klingel) -> None:
    query = {"limit": "201", "cursor": "evt_1", "type": "task.lost", "order": "up", "since": "now"}
    response = await klingel.http.get("/v1/events", params=query)
    assert response.status_code == 422
    assert sorted(pointers(response)) == [
        f"#/query/{name}" for name in ("cursor", "limit", "order", "since", "type")
    ]


# A stream that ends


async def stream(klingel: Klingel, task_id: str, **headers: str) -> list[ServerSentEvent]:
    """All of a stream that ends by itself."""
    response = await klingel.http.get(f"/v1/tasks/{task_id}/events", headers=STREAM | headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    return [event async for event in EventSource(response).aiter_sse()]


async def test_a_tasks_stream_tells_its_story_and_ends(klingel: Klingel) -> None:
    """Ends after the terminal event; each carries its id, its type, and the event as it is delivered."""
    await story(klingel)
    task = await story(klingel)
    told = await stream(klingel, task["id"])
    log = await klingel.events(task["id"])
    assert [json.loads(one.data) for one in told] == log
    assert [one.id for one in told] == ids(log)
    assert [one.event for one in told] == ["task.submitted", "task.processing", "task.succeeded"]


async def test_a_rejected_tasks_stream_ends_too(klingel: Klingel) -> None:
    """Whichever way it ended."""
    klingel.kling.answers(refused(400, 1301))
    task = await klingel.submit_async()
    assert [one.event for one in await stream(klingel, task["id"])] == ["task.rejected"]


async def test_a_tasks_stream_resumes_after_the_last_event_that_came(klingel: Klingel) -> None:
    """HTML, "Server-sent events": `Last-Event-ID`; for those who cannot set headers also in the query."""
    task = await story(klingel)
    first, second, third = ids(await klingel.events(task["id"]))
    assert [one.id for one in await stream(klingel, task["id"], **{"last-event-id": first})] == [
        second,
        third,
    ]
    path = f"/v1/tasks/{task['id']}/events"
    response = await klingel.http.get(path, params={"last_event_id": second}, headers=STREAM)
    assert [event.id async for event in EventSource(response).aiter_sse()] == [third]
    assert await stream(klingel, task["id"], **{"last-event-id": third}) == []


async def test_a_tasks_stream_ends_also_when_its_terminal_event_is_no_longer_kept(klingel: Klingel) -> None:
    """It tells what the log has left: it could wait for the end of an ended task for ever."""
    task = await story(klingel)
    first, *_, last = ids(await klingel.events(task["id"]))
    await klingel.submit()  # the log never loses its newest event
    await klingel.tamper(f"delete from events where id = '{last}'")
    async with klingel.served() as client:
        for since, types in (
            ({}, ["task.submitted", "task.processing"]),
            ({"last-event-id": first}, ["task.processing"]),
        ):
            async with following(client, f"/v1/tasks/{task['id']}/events", since) as events:
                assert [one.event async for one in events] == types
        await klingel.tamper(f"delete from events where task_id = '{task['id']}'")
        async with following(client, f"/v1/tasks/{task['id']}/events") as events:
            assert [one async for one in events] == []


async def test_a_tasks_stream_that_is_resumed_after_its_end_tells_what_came_later(klingel: Klingel) -> None:
    """Such as outputs that were late."""
    task = await klingel.submit()
    await klingel.call_back(callback(task, "succeed"))
    end = ids(await klingel.events(task["id"]))[-1]
    outputs = [{"index": 0, "url": "https://cdn.example.com/out.png"}]
    await klingel.call_back(callback(task, "succeed", task_result={"images": outputs}))
    told = await stream(klingel, task["id"], **{"last-event-id": end})
    assert [one.event for one in told] == ["task.outputs_added"]


async def test_an_event_to_resume_from_that_is_unknown_is_said_so(klingel: Klingel) -> None:
    """Rather than to begin anew or to leave something out: what came after it may be lost to the reader."""
    task = await story(klingel)
    for path in ("/v1/events", f"/v1/tasks/{task['id']}/events"):
        response = await klingel.http.get(path, headers=STREAM | {"last-event-id": "evt_0"})
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


# Streams on a real connection


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    async with (
        asyncio.timeout(PATIENCE_S),
        aconnect_sse(client, "GET", path, headers=dict(headers or {})) as source,
    ):
        source.response.raise_for_status()
        # What has no data is no event: a browser dispatches none for it.
        yield (event async for event in source.aiter_sse() if event.data)


async def heard(events: AsyncIterator[ServerSentEvent], number: int) -> list[ServerSentEvent]:
    return [await anext(events) for _ in range(number)]


async def revoke(klingel: Klingel, made: Mapping[str, Any]) -> None:
    assert (await klingel.http.delete(f"/v1/keys/{made['id']}")).status_code == 204


@asynccontextmanager
async def another_key(klingel: Klingel) -> AsyncIterator[tuple[Mapping[str, Any], Mapping[str, str]]]:
    """A member's key of the same account: what was made, and the header that carries it."""
    made = (await klingel.http.post("/v1/keys", json={"name": "to be revoked"})).json()
    yield made, {"authorization": f"Bearer {made['key']}"}


async def test_streams_end_when_their_key_is_revoked_and_no_others(klingel: Klingel) -> None:
    """Promise 6: who was put out does not go on listening; the last event says why."""
    task = await klingel.submit()
    async with klingel.served() as client, another_key(klingel) as (made, key):
        async with (
            following(client, "/v1/events", key) as of_account,
            following(client, f"/v1/tasks/{task['id']}/events", key) as of_task,
            following(client, "/v1/events") as mine,
        ):
            await heard(of_task, 1)
            await revoke(klingel, made)
            for stream in (of_account, of_task):
                last = await anext(stream)
                assert (last.event, json.loads(last.data)["reason"]) == ("stream.dropped", "key-revoked")
                assert [event async for event in stream] == []
            await klingel.call_back(succeed(task))
            assert (await anext(mine)).event == "task.succeeded"
        assert (await client.get("/v1/events", headers=STREAM | key)).status_code == 401


async def test_a_stream_that_opens_while_its_key_is_revoked_ends_as_well(klingel: Klingel) -> None:
    """The key was looked at before the revocation, the listening began after it."""
    async with another_key(klingel) as (made, _):
        await revoke(klingel, made)
        account_id = klingel.rows("select account_id from api_keys limit 1")[0]["account_id"]
        followed = klingel.state["streams"].follow(
            account_id, key_id=made["id"], task_id=None, after_position=0
        )
        with pytest.raises(KeyRevoked):
            await anext(followed)


async def test_a_revoked_stream_is_given_nothing_more_of_the_log(klingel: Klingel) -> None:
    """Also what was read for it already, and what it had not yet taken."""
    await story(klingel)
    async with another_key(klingel) as (made, _):
        account_id = klingel.rows("select account_id from api_keys limit 1")[0]["account_id"]
        followed = klingel.state["streams"].follow(
            account_id, key_id=made["id"], task_id=None, after_position=0
        )
        await anext(followed)
        await revoke(klingel, made)
        with pytest.raises(KeyRevoked):
            await anext(followed)


def followed(klingel: Klingel) -> AsyncGenerator[Event | None, None]:
    """The account's log from its beginning, without HTTP."""
    [key] = klingel.rows("select id, account_id from api_keys limit 1")
    return klingel.state["streams"].follow(
        key["account_id"],
        key_id=key["id"],
        task_id=None,
        after_position=0,
        heartbeat_s=0.01,
    )


async def test_a_stream_on_which_nothing_happens_says_so_now_and_then(klingel: Klingel) -> None:
    """What is in between would else take the connection for dead, and a reader that has gone would not be noticed."""
    task = await klingel.submit()
    async with aclosing(followed(klingel)) as live:
        assert (await anext(live)).type == "task.submitted"
        assert await anext(live) is None
        assert await anext(live) is None
        await klingel.call_back(succeed(task))
        while (heard := await anext(live)) is None:
            pass
        assert heard.type == "task.succeeded"


async def test_a_head_request_for_a_stream_ends(klingel: Klingel) -> None:
    answer = await klingel.http.head("/v1/events", headers=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.content == b""


async def test_a_live_stream_of_a_task_tells_each_event_as_it_happens(klingel: Klingel) -> None:
    """Progress is shown live, not by asking."""
    thinking = OpenCreate(accepted("880000000000000001"))
    klingel.kling.answers(thinking)
    task = await klingel.submit_async()
    async with klingel.served() as client, following(client, f"/v1/tasks/{task['id']}/events") as events:
        thinking.end()
        [first] = await heard(events, 1)
        assert first.event == "task.submitted"
        task = json.loads(first.data)["data"]["task"]
        for word, type in (("processing", "task.processing"), ("failed", "task.failed")):
            await klingel.call_back(callback(task, word))
            [one] = await heard(events, 1)
            assert one.event == type
        assert [one async for one in events] == []


async def test_a_live_stream_of_the_account_begins_now_and_tells_of_this_account_alone(
    klingel: Klingel,
) -> None:
    """What happens from now on."""
    await story(klingel)
    async with klingel.served() as client, following(client, "/v1/events") as events:
        async with klingel.another_account() as other:
            body = {"type": "kling.multi-image-to-image", "input": (await story(klingel))["input"]}
            assert (await other.post("/v1/tasks", json=body)).status_code == 201
        last = await klingel.submit()
        told = await heard(events, 4)
    log = (await klingel.http.get("/v1/events")).json()["items"]
    assert [one.id for one in told] == ids(log[:4][::-1])
    assert json.loads(told[-1].data)["data"]["task"]["id"] == last["id"]


async def test_a_resumed_stream_has_no_gap_and_no_repetition_however_busy_it_is(klingel: Klingel) -> None:
    """It is resumed from the durable log, while more and more is committed."""
    for _ in range(3):
        await story(klingel)
    log = (await klingel.http.get("/v1/events", params={"order": "asc"})).json()["items"]
    start = log[2]["id"]
    async with klingel.served() as client:
        submits = [asyncio.create_task(klingel.submit()) for _ in range(60)]
        readers = []
        for _ in range(5):
            await klingel.submit()
            headers = {"last-event-id": start}
            readers.append(asyncio.create_task(_first(client, headers, len(log) - 3 + 65)))
        told = await asyncio.gather(*readers)
        await asyncio.gather(*submits)
    rows = klingel.rows("select id from events order by position")
    expected = [row["id"] for row in rows][3:]
    for one in told:
        assert one == expected


async def _first(client: httpx.AsyncClient, headers: Mapping[str, str], number: int) -> list[str]:
    async with following(client, "/v1/events", headers) as events:
        return [event.id for event in await heard(events, number)]


async def test_a_reader_that_was_cut_off_goes_on_where_it_was(klingel: Klingel) -> None:
    """Each connection tells what the one before did not."""
    told: list[str] = []
    async with klingel.served() as client:
        async with following(client, "/v1/events") as events:
            await klingel.submit()
            told += [one.id for one in await heard(events, 1)]
        await story(klingel)
        async with following(client, "/v1/events", {"last-event-id": told[-1]}) as events:
            told += [one.id for one in await heard(events, 2)]
        async with following(client, "/v1/events", {"last-event-id": told[-1]}) as events:
            await klingel.submit()
            told += [one.id for one in await heard(events, 2)]
    assert told == [row["id"] for row in klingel.rows("select id from events order by position")]


async def test_a_reader_that_was_away_for_more_than_a_page_gets_all_of_it(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.streams.PAGE", 2)
    await story(klingel)
    await story(klingel)
    first, *others = ids((await klingel.http.get("/v1/events", params={"order": "asc"})).json()["items"])
    async with (
        klingel.served() as client,
        following(client, "/v1/events", {"last-event-id": first}) as events,
    ):
        assert [one.id for one in await heard(events, 5)] == others


async def test_what_is_committed_while_the_log_is_read_is_told_once(klingel: Klingel) -> None:
    """It comes by both ways: it is in the log by then, and was heard."""
    await klingel.submit()
    async with aclosing(followed(klingel)) as live:
        told = [(await anext(live)).id]
        await klingel.submit()
        while (event := await anext(live)) is not None:
            told.append(event.id)
    assert told == [row["id"] for row in klingel.rows("select id from events order by position")]


@pytest.mark.parametrize("before", ["nothing", "a story", "a story that is forgotten meanwhile"])
async def test_a_reader_that_was_cut_off_before_its_first_event_goes_on_where_it_began(
    klingel: Klingel, before: str
) -> None:
    """The stream begins with an id alone, which a browser keeps: of the place in the log."""
    if before != "nothing":
        await story(klingel)
    seen = [row["id"] for row in klingel.rows("select id from events order by position")]
    async with klingel.served() as client:
        id = await place(client)
        is_forgotten = before == "a story that is forgotten meanwhile"
        if is_forgotten:
            klingel.clock.advance(days=31)
        missed = await klingel.submit()
        assert (await klingel.http.post("/v1/prune")).status_code == 200
        kept = {row["id"] for row in klingel.rows("select id from events")}
        assert kept.isdisjoint(seen) == (is_forgotten or not seen)
        async with following(client, "/v1/events", {"last-event-id": id}) as events:
            told = await heard(events, 1)
            await klingel.call_back(succeed(missed))
            told += await heard(events, 1)
    assert [one.event for one in told] == ["task.submitted", "task.succeeded"]
    assert {one.json()["data"]["task"]["id"] for one in told} == {missed["id"]}


async def test_a_reader_whose_place_was_lost_with_a_restore_is_told_so(tmp_path: Path) -> None:
    """What happens next has positions before that place: it would wait, and hear nothing of it."""
    async with running_klingel(tmp_path / "one") as klingel, klingel.served() as client:
        await klingel.submit()
        kept = await place(client)
        backup = await klingel.snapshot(tmp_path / "two")
        await story(klingel)
        lost = await place(client)
    async with running_klingel(backup) as restored, restored.served() as client:
        async with client.stream("GET", "/v1/events", headers=STREAM | {"last-event-id": lost}) as answer:
            assert answer.status_code == 404
            assert "is not in the log" in json.loads(await answer.aread())["detail"]
        async with following(client, "/v1/events", {"last-event-id": kept}) as events:
            await restored.submit()
            [told] = await heard(events, 1)
    assert told.event == "task.submitted"


async def place(client: httpx.AsyncClient) -> str:
    """With which the account's stream begins now."""
    async with aconnect_sse(client, "GET", "/v1/events") as source, asyncio.timeout(PATIENCE_S):
        lines = source.response.aiter_lines()
        name, _, id = (await anext(lines)).partition(": ")
        assert (name, await anext(lines)) == ("id", "")
    return id


async def test_a_stop_ends_every_stream_at_once(klingel: Klingel) -> None:
    """A stream never ends by itself, and nobody who stops Klingel wants to wait for its readers."""
    async with klingel.served() as client, following(client, "/v1/events") as events:
        await klingel.submit()
        assert (await anext(events)).event == "task.submitted"
        klingel.controls.stop_streams()
        assert await _all(events) == []


async def _all(events: AsyncIterator[ServerSentEvent]) -> list[ServerSentEvent]:
    return [event async for event in events]


@pytest.mark.parametrize("accept", ["text/event-stream", "text/event-stream, */*;q=0.1"])
async def test_a_stream_is_what_who_accepts_one_gets(klingel: Klingel, accept: str) -> None:
    """Browsers' EventSource sends the first; libraries send more."""
    task = await story(klingel)
    response = await klingel.http.get(f"/v1/tasks/{task['id']}/events", headers={"accept": accept})
    assert response.headers["content-type"].startswith("text/event-stream")
