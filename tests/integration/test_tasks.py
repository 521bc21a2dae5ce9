"""`GET /v1/tasks` and a refresh: what Klingel's own rows tell, so that nobody asks the provider."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.chat import bot_body
from tests.integration.klingel import (
    Answer,
    Klingel,
    callback,
    picture,
    pointers,
    refused,
    succeed,
)


async def found(klingel: Klingel, **query: str) -> list[str]:
    response = await klingel.http.get(
        "/v1/tasks", params={name.replace("__", "."): query[name] for name in query}
    )
    assert response.status_code == 200, response.text
    return [task["external_task_id"] for task in response.json()["items"]]


# Lists


async def test_tasks_are_found_by_what_they_are(klingel: Klingel) -> None:
    """Status, type, external id, and when they were created; newest first."""
    first = await klingel.submit(external_task_id="first")
    klingel.clock.advance(seconds=10)
    await klingel.submit("kling.multi-image-to-video", external_task_id="second")
    klingel.clock.advance(seconds=10)
    await klingel.submit(external_task_id="third")
    await klingel.call_back(succeed(first), number=0)
    assert await found(klingel) == ["third", "second", "first"]
    assert await found(klingel, status="submitted") == ["third", "second"]
    assert await found(klingel, status="succeeded") == ["first"]
    assert await found(klingel, type="kling.multi-image-to-video") == ["second"]
    assert await found(klingel, external_task_id="third") == ["third"]
    assert await found(klingel, created_after="2026-11-22T12:00:10Z") == ["third", "second"]
    assert await found(klingel, created_before="2026-11-22T13:00:10+01:00") == ["first"]
    assert await found(klingel, status="submitted", type="kling.multi-image-to-image") == ["third"]


async def test_tasks_are_found_by_their_metadata(klingel: Klingel) -> None:
    """Whatever the caller keeps there, several at once; values are compared as text."""
    await klingel.submit(external_task_id="a", metadata={"customer": "acme", "order": 7, "a.b": "c"})
    await klingel.submit(external_task_id="b", metadata={"customer": "acme", "order": 8})
    await klingel.submit(external_task_id="c", metadata={"customer": "100%"})
    assert await found(klingel, metadata__customer="acme") == ["b", "a"]
    assert await found(klingel, metadata__customer="acme", metadata__order="7") == ["a"]
    assert await found(klingel, **{"metadata__a.b": "c"}) == ["a"]
    assert await found(klingel, metadata__customer="%") == []
    assert await found(klingel, metadata__nothing="acme") == []


async def test_tasks_are_listed_page_by_page(klingel: Klingel) -> None:
    """A page stays what it was, though new tasks come meanwhile."""
    for number in range(5):
        await klingel.submit(external_task_id=f"job-{number}")
    first = (await klingel.http.get("/v1/tasks", params={"limit": 2})).json()
    await klingel.submit(external_task_id="later")
    second = (await klingel.http.get("/v1/tasks", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    listed = [task["external_task_id"] for task in first["items"] + second["items"]]
    assert listed == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    assert second["next_cursor"] is None
    assert "input" not in first["items"][0]


async def test_faults_of_a_query_are_told_at_once(klingel: Klingel) -> None:
    response = await klingel.http.get(
        "/v1/tasks",
        params={
            "status": "done",
            "type": "a b",
            "created_after": "yesterday",
            "created_before": "2026-11-22T12:00:00",
            "limit": "-1",
            "cursor": "'; drop table tasks",
            "prompt": "cat",
        },
    )
    assert response.status_code == 422
    assert sorted(pointers(response)) == [
        f"#/query/{name}"
        for name in ("created_after", "created_before", "cursor", "limit", "prompt", "status", "type")
    ]


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ([("status", "failed"), ("status", "submitted")], "#/query/status"),
        ([("status", "failed"), ("status", "failed")], "#/query/status"),
        ([("metadata.shop", "1"), ("metadata.shop", "2")], "#/query/metadata.shop"),
        ([("limit", "1"), ("limit", "2")], "#/query/limit"),
    ],
)
async def test_a_filter_that_is_given_twice_is_a_fault(
    klingel: Klingel, given: list[tuple[str, str]], pointer: str
) -> None:
    """Whoever asks for two statuses is not to take the tasks of one of them for all there are."""
    response = await klingel.http.get("/v1/tasks", params=httpx.QueryParams(given))
    assert (response.status_code, pointers(response)) == (422, [pointer])


async def test_filters_by_several_keys_of_the_metadata_are_no_repetition(klingel: Klingel) -> None:
    task = await klingel.submit(metadata={"shop": "1", "order": "2"})
    await klingel.submit(metadata={"shop": "1"})
    both = {"metadata.shop": "1", "metadata.order": "2"}
    listed = (await klingel.http.get("/v1/tasks", params=both)).json()["items"]
    assert [each["id"] for each in listed] == [task["id"]]


async def test_a_list_goes_on_by_its_own_cursors_alone(klingel: Klingel) -> None:
    """Another list's would end it too early, or begin it again for ever."""
    for number in range(2):
        await klingel.endpoint()
        assert (
            await klingel.http.post("/v1/bots", json=bot_body("https://chat.example.com"))
        ).status_code == 201
        await klingel.http.post("/v1/keys", json={"name": f"key {number}"})
        task = await klingel.submit()
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    [event, *_] = (await klingel.http.get("/v1/events")).json()["items"]
    kinds = {
        "/v1/tasks": "task_",
        "/v1/deliveries": "dlv_",
        "/v1/endpoints": "end_",
        "/v1/bots": "bot_",
        "/v1/keys": "key_",
        "/v1/events": "",
        f"/v1/tasks/{task['id']}/callbacks": "cbk_",
        f"/v1/tasks/{task['id']}/events": "",
        f"/v1/events/{event['id']}/explain": "end_",
    }
    cursors: dict[str, str] = {}
    for path, kind in kinds.items():
        cursors[path] = (await klingel.http.get(path, params={"limit": 1})).json()["next_cursor"]
        assert cursors[path].startswith(kind)
    for path, kind in kinds.items():
        for other, cursor in cursors.items():
            response = await klingel.http.get(path, params={"limit": 1, "cursor": cursor})
            if other == path:
                assert len(response.json()["items"]) == 1, path
            elif kinds[other] != kind:
                assert (response.status_code, pointers(response)) == (422, ["#/query/cursor"]), (path, cursor)


# Refresh


async def queried(klingel: Klingel, task: dict[str, Any], word: str, **more: Any) -> httpx.Response:
    """What a person's order leads to when the provider says this."""
    data = callback(task, word, **more)
    klingel.kling.answers(httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": data}))
    return await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")


async def test_a_refresh_brings_what_a_lost_callback_would_have(klingel: Klingel) -> None:
    """Promise 1: one read on one person's order; it counts like a callback, events and all."""
    await klingel.endpoint()
    task = await klingel.submit()
    result = {"images": [{"index": 0, "url": picture("out")}]}
    response = await queried(klingel, task, "succeed", task_result=result)
    assert (response.status_code, response.json()["refresh"]) == (200, "advanced")
    assert response.json()["status"] == "succeeded"
    query = klingel.kling.requests[-1]
    assert (query.method, query.url.path) == (
        "GET",
        f"/kling/v1/images/generations/{task['provider_task_id']}",
    )
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.succeeded"]
    received = await klingel.receiver.until(2)
    assert received[1].event["data"]["task"]["outputs"][0]["url"] == picture("out")
    again = await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/task-not-refreshable")
    assert klingel.kling.status_queries == 1


async def test_a_queued_task_is_not_refreshed(klingel: Klingel) -> None:
    """The provider does not have it; under its external id it may have another."""
    klingel.kling.answers(httpx.ConnectError("refused"))
    task = await klingel.submit_async(external_task_id="job-1")
    await klingel.until_row(task["id"], sends=1, sending_since=None)
    response = await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")
    assert (response.status_code, response.json()["type"]) == (409, "/problems/task-not-refreshable")
    assert klingel.kling.status_queries == 0


@pytest.mark.parametrize("by", ["callback", "refresh"])
async def test_outputs_that_a_success_lacked_are_taken_from_a_later_word(klingel: Klingel, by: str) -> None:
    """The provider said `succeed` before its pictures had addresses: a paid result is not lost for that."""
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.call_back(callback(task, "succeed"))
    assert (await klingel.task(task["id"]))["outputs"] == []
    if by == "callback":
        await klingel.call_back(succeed(task))
        assert await klingel.verdicts(task["id"]) == ["advanced", "advanced"]
    else:
        data = succeed(task)
        klingel.kling.answers(httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": data}))
        await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")
    task = await klingel.task(task["id"])
    assert (task["status"], [output["url"] for output in task["outputs"]]) == ("succeeded", [picture("out")])
    events = await klingel.events(task["id"])
    assert [event["type"] for event in events][-2:] == ["task.succeeded", "task.outputs_added"]
    assert [event["sequence"] for event in events] == [1, 2, 3]
    assert events[-1]["data"]["transition"] is None
    assert len(await klingel.receiver.until(3)) == 3
    await klingel.call_back(succeed(task))
    assert len(await klingel.events(task["id"])) == 3


async def test_a_refresh_that_tells_nothing_new_changes_nothing(klingel: Klingel) -> None:
    """No event for what is known."""
    task = await klingel.submit()
    row = klingel.row(task["id"])
    assert (await queried(klingel, task, "submitted")).json()["refresh"] == "duplicate"
    assert klingel.row(task["id"]) == row


async def test_an_unconfirmed_task_is_asked_for_by_its_external_id(klingel: Klingel) -> None:
    """Kling, query answers: `{id}` is either; ours is known before any answer."""
    klingel.kling.answers(httpx.ReadTimeout("no answer"))
    task = await klingel.until_status((await klingel.submit_async())["id"], "unconfirmed")
    response = await queried(klingel, task | {"provider_task_id": "77"}, "processing")
    assert (response.json()["status"], response.json()["provider_task_id"]) == ("processing", "77")
    assert klingel.kling.requests[-1].url.path.endswith(f"/{task['external_task_id']}")
    klingel.clock.advance(hours=1)
    await klingel.submit()
    assert len(klingel.kling.creates) == 2


FAILING: list[tuple[Answer, int]] = [
    (refused(400, 1201, "Task not found by id"), 404),
    (refused(401, 1002, "api key not found"), 502),
    (refused(429, 1302, "too fast"), 503),
    (refused(500, 5000, "internal error"), 503),
    (httpx.ReadTimeout("no answer"), 503),
    (httpx.ConnectError("refused"), 503),
    (httpx.Response(502, html="<html>"), 503),
    (httpx.Response(200, json={"code": 0, "data": []}), 404),
    (httpx.Response(200, text="ok"), 503),
]


async def test_a_refresh_that_fails_changes_nothing(klingel: Klingel) -> None:
    """A problem says what the provider said; the task waits for its callback as before."""
    task = await klingel.submit()
    row = klingel.row(task["id"])
    for answer, status in FAILING:
        klingel.kling.answers(answer)
        response = await klingel.http.post(f"/v1/tasks/{task['id']}/refresh")
        assert response.status_code == status, answer
        assert response.headers["content-type"] == "application/problem+json"
        assert klingel.row(task["id"]) == row
    assert (await klingel.call_back(succeed(task))).status_code == 200


async def test_a_refresh_and_a_callback_at_once_make_one_event(klingel: Klingel) -> None:
    """Promise 4: whichever comes first."""
    task = await klingel.submit()
    await asyncio.gather(
        queried(klingel, task, "failed"), *(klingel.call_back(callback(task, "failed")) for _ in range(3))
    )
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.failed"]
