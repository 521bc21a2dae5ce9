"""Accounts cannot see each other: what is another's is answered like what is not there."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import ROUTES
from tests.integration.cdn import running_cdn, sends
from tests.integration.chat import bot_body
from tests.integration.klingel import IMAGE_INPUT, Klingel, callback, png, running_klingel

# What a route needs so that nothing but the account stands between a stranger and what is there.
BODIES: Mapping[str, Any] = {
    "/v1/endpoints/{id}": {"description": "mine now"},
    "/v1/bots/{id}": {"description": "mine now"},
    "/v1/endpoints/{id}/replay": {"since": "2026-11-22T00:00:00Z", "only": "all"},
}
ADMINS_OWN = ("/v1/keys",)  # of the whole installation, whatever the admin's account


@pytest.fixture
async def klingel(tmp_path: Path) -> AsyncIterator[Klingel]:
    """One that keeps outputs."""
    async with running_klingel(tmp_path, store_url=None) as klingel:
        yield klingel


async def whole_story(klingel: Klingel) -> dict[str, str]:
    """One of everything; the ids by the first part of the paths that lead there."""
    endpoint = await klingel.endpoint()
    task = await klingel.submit(external_task_id="job-1", metadata={"customer": "acme"})
    async with running_cdn() as cdn:
        images = [{"index": 0, "url": cdn.at("/out.png", sends(png()))}]
        await klingel.call_back(callback(task, "succeed", task_result={"images": images}))
        await klingel.until_deliveries("delivered", kind="archive")
    [first, _] = await klingel.until_deliveries("delivered", "delivered")
    [output] = (await klingel.task(task["id"]))["outputs"]
    return {
        "/v1/tasks/": task["id"],
        "/v1/events/": (await klingel.events(task["id"]))[0]["id"],
        "/v1/endpoints/": endpoint["id"],
        "/v1/deliveries/": first["id"],
        "/v1/files/": httpx.URL(output["stored_url"]).path.rpartition("/")[2],
        "/v1/bots/": (await klingel.http.post("/v1/bots", json=bot_body("https://chat.example.com"))).json()[
            "id"
        ],
    }


async def something_pending_and_dead(klingel: Klingel) -> None:
    """A delivery each: one waits for its retry, the endpoint of the other is deleted."""
    klingel.receiver.always = 500
    endpoint = await klingel.endpoint()
    await klingel.submit()
    for delivery in await klingel.deliveries(status="pending"):
        await klingel.until_attempts(delivery["id"], 1)
    assert (await klingel.http.delete(f"/v1/endpoints/{endpoint['id']}")).status_code == 204


async def everything(klingel: Klingel) -> dict[str, list[dict[str, Any]]]:
    """All rows that a stranger might have changed."""
    tables = (
        "tasks",
        "task_metadata",
        "events",
        "endpoints",
        "deliveries",
        "attempts",
        "callbacks",
        "transitions",
        "kept_files",
        "bots",
        "commands",
    )
    return {table: klingel.rows(f"select * from {table} order by 1, 2") for table in tables}


async def test_what_is_anothers_is_not_there(klingel: Klingel) -> None:
    """Promise 6: 404 on every route that names one thing; from the app's own list, so that none is forgotten."""
    mine = await whole_story(klingel)
    before = await everything(klingel)
    named = [
        (method, route.path)
        for route in ROUTES
        if route.path.startswith("/v1/") and "{" in route.path and not route.path.startswith(ADMINS_OWN)
        for method in sorted(route.methods)
    ]
    assert len(named) > 12
    async with klingel.another_account() as stranger:
        for method, pattern in named:
            [id] = [id for start, id in mine.items() if pattern.startswith(start)]
            unknown = id[:-1] + ("0" if id[-1] != "0" else "1")
            for headers in ({}, {"accept": "text/event-stream"}):
                theirs = await ask(stranger, method, pattern, id, headers)
                nobodys = await ask(stranger, method, pattern, unknown, headers)
                assert theirs.status_code == 404, f"{method} {pattern}"
                assert theirs.text.replace(id, "…") == nobodys.text.replace(unknown, "…"), pattern
                assert nobodys.status_code == 404, f"{method} {pattern}"
    assert await everything(klingel) == before
    for method, pattern in named:
        if method in {"GET", "HEAD"}:
            [id] = [id for start, id in mine.items() if pattern.startswith(start)]
            assert (await ask(klingel.http, method, pattern, id, {})).status_code == 200, pattern


async def ask(
    client: httpx.AsyncClient, method: str, pattern: str, id: str, headers: Mapping[str, str]
) -> httpx.Response:
    body = BODIES.get(pattern) if method in {"POST", "PATCH"} else None
    return await client.request(method, re.sub(r"\{\w+\}", id, pattern), json=body, headers=dict(headers))


async def test_no_list_holds_anothers(klingel: Klingel) -> None:
    """Nor with filters that name it, nor with cursors that point at it."""
    mine = await whole_story(klingel)
    event_id = (await klingel.events(mine["/v1/tasks/"]))[0]["id"]
    await something_pending_and_dead(klingel)
    async with klingel.another_account() as stranger:
        for path in ("/v1/tasks", "/v1/events", "/v1/endpoints", "/v1/deliveries", "/v1/bots"):
            assert (await klingel.http.get(path)).json()["items"]
            assert (await stranger.get(path)).json() == {"items": [], "next_cursor": None}
        for path, query in (
            ("/v1/tasks", {"external_task_id": "job-1"}),
            ("/v1/tasks", {"metadata.customer": "acme"}),
            ("/v1/tasks", {"status": "succeeded"}),
            ("/v1/tasks", {"type": "kling.multi-image-to-image"}),
            ("/v1/tasks", {"cursor": "task_" + "f" * 32}),
            ("/v1/events", {"order": "asc", "cursor": "0"}),
            ("/v1/events", {"cursor": "1000"}),
            ("/v1/deliveries", {"task_id": mine["/v1/tasks/"]}),
            ("/v1/deliveries", {"endpoint_id": mine["/v1/endpoints/"]}),
            ("/v1/deliveries", {"event_id": event_id}),
            ("/v1/deliveries", {"status": "delivered"}),
            ("/v1/deliveries", {"status": "pending"}),
            ("/v1/deliveries", {"status": "dead"}),
            ("/v1/deliveries", {"cursor": "dlv_" + "f" * 32}),
            ("/v1/bots", {"cursor": "bot_" + "f" * 32}),
        ):
            assert (await klingel.http.get(path, params=query)).json()["items"], (path, query)
            response = await stranger.get(path, params=query)
            assert (response.status_code, response.json()["items"]) == (200, []), (path, query)


async def test_anothers_event_is_no_place_to_resume_from(klingel: Klingel) -> None:
    """Its position in the log would tell that it is there."""
    mine = await whole_story(klingel)
    event_id = (await klingel.events(mine["/v1/tasks/"]))[0]["id"]
    async with klingel.another_account() as stranger:
        headers = {"accept": "text/event-stream", "last-event-id": event_id}
        assert (await stranger.get("/v1/events", headers=headers)).status_code == 404


async def test_no_endpoint_gets_anothers_events(klingel: Klingel) -> None:
    """Also when both happen in one commit."""
    async with klingel.another_account() as stranger:
        config = {"url": klingel.receiver.url + "/stranger"}
        response = await stranger.post("/v1/endpoints", json={"config": config, "types": ["*"]})
        assert response.status_code == 201
        await klingel.endpoint(config={"url": klingel.receiver.url + "/mine"}, types=["*"])
        body = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}
        answers = await asyncio.gather(
            *(client.post("/v1/tasks", json=body) for client in (klingel.http, stranger) * 10)
        )
        theirs = {answer.json()["id"] for answer in answers[1::2]}
        received = await klingel.receiver.until(20)
    for one in received:
        is_theirs = one.event["data"]["task"]["id"] in theirs
        assert one.path == ("/hook/stranger" if is_theirs else "/hook/mine")
    assert len(received) == 20


async def test_anothers_replay_sends_nothing_of_mine(klingel: Klingel) -> None:
    """`only: all` reads the whole log, which is everybody's, but for one account."""
    await whole_story(klingel)
    async with klingel.another_account() as stranger:
        made = await stranger.post(
            "/v1/endpoints", json={"config": {"url": klingel.receiver.url + "/stranger"}, "types": ["*"]}
        )
        response = await stranger.post(
            f"/v1/endpoints/{made.json()['id']}/replay",
            json={"since": "2026-11-22T00:00:00Z", "only": "all"},
        )
        assert response.json() == {"replayed": 0}
