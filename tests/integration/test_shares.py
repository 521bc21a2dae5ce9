"""What one account takes of what is everybody's: nobody else notices."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

from service.doors.sharing import BODIES_BYTES, BODIES_BYTES_OF_ONE
from storage.columns import milliseconds
from storage.sqlite import SEARCHERS
from storage.statements import Dialect
from tests.integration.klingel import IMAGE_INPUT, START, Klingel, base64_png, callback, running_klingel

MANY_TASKS = {
    Dialect.SQLITE: """
insert into tasks (
    id, account_id, type, provider, status, input, external_task_id, metadata, created_at, updated_at, deadline_at,
    finished_at, cost
)
with recursive keys (i) as (select 1 union all select i + 1 from keys where i < 60),
    many (metadata) as (select json_group_object('key_' || i, 'value') from keys),
    n (i) as (select {first} union all select i + 1 from n where i < {last})
select printf('task_01b%029x', i), (select id from accounts), 't', 'p', 'succeeded', '{{}}', i, metadata, {ended}, {ended}, {ended},
    {ended}, '[]'
from n, many
""",
    Dialect.POSTGRES: """
insert into tasks (
    id, account_id, type, provider, status, input, external_task_id, metadata, created_at, updated_at, deadline_at,
    finished_at, cost
)
with many (metadata) as (select json_object_agg('key_' || i, 'value') from generate_series(1, 60) as i)
select 'task_01b' || lpad(to_hex(i), 29, '0'), (select id from accounts), 't', 'p', 'succeeded', '{{}}',
    cast(i as text), cast(metadata as text), {ended}, {ended}, {ended}, {ended}, '[]'
from generate_series({first}, {last}) as i, many
""",
}


# Lists and sums


async def test_a_sum_over_too_much_is_refused_in_a_moment(klingel: Klingel) -> None:
    """It took as long as it took, and so did everybody else's sign-in."""
    many = MANY_TASKS[klingel.places.dialect]
    for first in range(1, 400_000, 20_000):  # until it is too much for this machine
        await klingel.tamper(many.format(first=first, last=first + 19_999, ended=milliseconds(START)))
        answer = await klingel.http.get("/v1/usage", params={"by": "metadata.key_60"})
        if answer.status_code != 200:
            break
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/search-too-wide")
    narrow = await klingel.http.get("/v1/tasks", params={"external_task_id": "77"})
    assert [task["external_task_id"] for task in narrow.json()["items"]] == ["77"]


async def test_lists_keep_nobody_from_signing_in(klingel: Klingel) -> None:
    task = await klingel.submit()
    async with AsyncExitStack() as lists, asyncio.timeout(60):
        for number in range(SEARCHERS):
            await lists.enter_async_context(klingel.state["database"].searching(f"acc_{number}"))
        listing = asyncio.create_task(klingel.http.get("/v1/tasks"))
        assert (await klingel.task(task["id"]))["status"] == "submitted"
        assert (await klingel.call_back(callback(task, "processing"))).status_code == 200
        assert not listing.done()
    assert (await listing).status_code == 200


# Live streams


async def test_an_account_has_so_many_live_streams_and_others_have_theirs(tmp_path: Path) -> None:
    """One key once could hold every connection there is."""
    async with (
        running_klingel(tmp_path, account_streams=2) as klingel,
        klingel.served() as client,
        AsyncExitStack() as held,
    ):
        live = {"accept": "text/event-stream"}
        task = await klingel.submit()
        first = await held.enter_async_context(client.stream("GET", "/v1/events", headers=live))
        async with client.stream("GET", f"/v1/tasks/{task['id']}/events", headers=live) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            refused = await client.get("/v1/events", headers=live)
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-streams")
            assert (refused.json()["limit"], refused.headers["retry-after"]) == (2, "30")
            assert (await client.get("/v1/events")).status_code == 200  # a list is none
            key = (await client.post("/v1/keys", json={"name": "x", "account": "other"})).json()["key"]
            other = {**live, "authorization": f"Bearer {key}"}
            async with client.stream("GET", "/v1/events", headers=other) as theirs:
                assert theirs.status_code == 200

        async with asyncio.timeout(60):  # it takes a moment until the server notices who has left
            while True:
                async with client.stream("GET", "/v1/events", headers=live) as again:
                    if again.status_code == 200:
                        break


# Tests and replays


async def test_tests_have_a_pace(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}/test"
    answers = await asyncio.gather(*(klingel.http.post(path) for _ in range(150)))
    [refused, *_] = [answer for answer in answers if answer.status_code != 202]
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-requests")
    assert refused.headers["retry-after"] == str(refused.json()["retry_after_s"]) == "1"
    assert sum(answer.status_code == 202 for answer in answers) >= 100
    async with klingel.another_account() as other:
        theirs = await other.post("/v1/endpoints", json={"config": {"url": klingel.receiver.url}})
        assert (await other.post(f"/v1/endpoints/{theirs.json()['id']}/test")).status_code == 202


async def test_one_replay_of_an_endpoint_at_a_time(klingel: Klingel) -> None:
    endpoint, other = await klingel.endpoint(), await klingel.endpoint()
    await klingel.submit()

    async def replay(of: dict[str, object]) -> int:
        asked = {"since": "2026-01-01T00:00:00Z", "only": "all"}
        return (await klingel.http.post(f"/v1/endpoints/{of['id']}/replay", json=asked)).status_code

    async with klingel.writes_held() as are_waiting:
        first = asyncio.create_task(replay(endpoint))
        await are_waiting("make_page", 1)
        assert await replay(endpoint) == 429
        others = asyncio.create_task(replay(other))
        await are_waiting("make_page", 2)
    assert (await first, await others) == (202, 202)
    assert await replay(endpoint) == 202


# Large bodies


async def test_large_bodies_are_turned_away_while_there_is_no_room_and_small_ones_never(
    klingel: Klingel,
) -> None:
    """Each waits in memory for its turn to be read: 64 MiB on each of 4,096 connections are too many."""
    inside = base64_png(1)
    large = {
        "type": "kling.multi-image-to-image",
        "input": {**IMAGE_INPUT, "subject_image_list": [{"subject_image": inside}] * 2},
    }
    body = json.dumps(large).encode().ljust(200_000)
    rooms = klingel.state["shares"].bodies
    [account] = {row["account_id"] for row in klingel.rows("select account_id from api_keys")}
    for whose, size in (("somebody", BODIES_BYTES_OF_ONE), (account, BODIES_BYTES_OF_ONE)):
        with rooms.hold("others") as others, rooms.hold(whose) as holding:
            holding.grow_to(size)
            if whose != account:
                others.grow_to(BODIES_BYTES - size)
            for path in ("/v1/tasks", "/kling/v1/images/multi-image2image"):
                answer = await klingel.http.post(path, content=body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
            assert (await klingel.http.post("/v1/tasks", content=body)).json()["type"] == "/problems/busy"
            await klingel.submit()
    assert (await klingel.http.post("/v1/tasks", content=body)).status_code == 201
    assert rooms._total == 0
