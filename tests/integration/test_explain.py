"""`GET /v1/events/{id}` and `…/explain`: why each endpoint got an event, or did not."""

from collections.abc import Sequence
from typing import Any

import pytest

from service.domain.explanations import LONGEST_RESULT
from tests.integration.klingel import Klingel, pointers, succeed

BREAKS = "sum(type)"


async def happened(klingel: Klingel, task: dict[str, Any], type: str = "task.succeeded") -> dict[str, Any]:
    [event] = [event for event in await klingel.events(task["id"]) if event["type"] == type]
    return event


async def explained(klingel: Klingel, event_id: str, **query: str) -> dict[str, dict[str, Any]]:
    """By endpoint, oldest first."""
    response = await klingel.http.get(f"/v1/events/{event_id}/explain", params=query)
    assert response.status_code == 200, response.text
    return {one["endpoint"]["id"]: one for one in response.json()["items"]}


def reasons(found: dict[str, dict[str, Any]]) -> Sequence[tuple[bool, str]]:
    return [(one["sent"], one["reason"]) for one in found.values()]


async def test_an_event_is_shown_as_it_was_told(klingel: Klingel) -> None:
    await klingel.endpoint()
    task = await klingel.submit()
    [received] = await klingel.receiver.until(1)
    event = await happened(klingel, task, "task.submitted")
    response = await klingel.http.get(f"/v1/events/{event['id']}")
    assert (response.content, response.headers["content-type"]) == (received.body, "application/json")
    assert (await klingel.http.get("/v1/events/evt_0")).status_code == 404


async def test_each_endpoint_is_told_why_it_got_the_event_or_did_not(klingel: Klingel) -> None:
    wants = "data.task.metadata.customer"
    made = [
        await klingel.endpoint(description="takes it"),
        await klingel.endpoint(filter=f"{wants} == '7'"),
        await klingel.endpoint(filter=f"{wants} == '8'"),
        await klingel.endpoint(filter=BREAKS),
        await klingel.endpoint(types=["task.failed", "output.*"]),
        await klingel.endpoint(enabled=False),
    ]
    bound = {"kind": "webhook", "config": {"url": klingel.receiver.url}, "types": ["task.succeeded"]}
    klingel.clock.advance(seconds=1)
    task = await klingel.submit(metadata={"customer": "7"}, endpoints=[bound])
    other = await klingel.submit(endpoints=[bound])
    await klingel.call_back(succeed(task), number=0)
    klingel.clock.advance(seconds=1)
    late = await klingel.endpoint(types=["*"])
    event = await happened(klingel, task)

    found = await explained(klingel, event["id"])

    ids = [one["id"] for one in (*made, *task["endpoints"], late)]
    assert list(found) == ids
    assert reasons(found) == [
        (True, "selected"),
        (True, "selected"),
        (False, "filter"),
        (True, "filter-broke"),
        (False, "type"),
        (False, "disabled"),
        (True, "selected"),
        (False, "created-later"),
    ]
    told = [one["detail"] for one in found.values()]
    assert told[:3] == [
        "It takes task.*.",
        "It takes task.*, and its filter gives true.",
        "Its filter gives false.",
    ]
    assert told[3].startswith("Its filter could not be evaluated over this event (In function sum()")
    assert told[4:] == [
        "It takes task.failed, output.*, and this is none of them.",
        "It was disabled: switched off.",
        "It takes task.succeeded.",
        "It was made after the event.",
    ]
    assert [one["filter_result"] for one in found.values()] == [None, "true", "false", *[None] * 5]
    # What is told is what was done.
    sent = {delivery["endpoint_id"] for delivery in await klingel.deliveries(event_id=event["id"])}
    assert sent == {id for id, one in found.items() if one["sent"]}
    assert {id for id, one in found.items() if one["delivery"]} == sent
    # One that is bound to another task is told why when it is asked for.
    [elsewhere] = [one["id"] for one in other["endpoints"]]
    asked = await explained(klingel, event["id"], endpoint_id=elsewhere)
    assert (list(asked), reasons(asked)) == ([elsewhere], [(False, "other-task")])
    assert asked[elsewhere]["detail"] == f"It is bound to another task, {other['id']}."


async def test_what_became_of_the_delivery_is_told(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(503)
    task = await klingel.submit()
    event = await happened(klingel, task, "task.submitted")

    async def tried() -> bool:
        [delivery] = await klingel.deliveries()
        return delivery["attempts"] == 1

    await klingel.until(tried)
    waiting = (await explained(klingel, event["id"]))[endpoint["id"]]
    assert (waiting["delivery"]["status"], waiting["delivery"]["attempts"]) == ("pending", 1)
    assert waiting["delivery"]["next_attempt_at"] is not None
    assert (waiting["delivery"]["reason"], waiting["replays"]) == ("answered 503", 0)

    klingel.clock.advance(seconds=10)
    [first] = await klingel.until_deliveries("delivered")
    again = await klingel.http.post(f"/v1/deliveries/{first['id']}/replay")
    await klingel.until_deliveries("delivered", "delivered")
    done = (await explained(klingel, event["id"]))[endpoint["id"]]
    assert (done["delivery"]["id"], done["delivery"]["replay_of"]) == (again.json()["id"], first["id"])
    assert (done["delivery"]["status"], done["replays"]) == ("delivered", 1)


async def test_one_that_was_deleted_since_is_still_told_of_and_one_deleted_before_is_not(
    klingel: Klingel,
) -> None:
    before, got, never = [await klingel.endpoint(types=[type]) for type in ("*", "*", "task.failed")]
    assert (await klingel.http.delete(f"/v1/endpoints/{before['id']}")).status_code == 204
    klingel.clock.advance(seconds=1)
    task = await klingel.submit()
    await klingel.until_deliveries("delivered")
    klingel.clock.advance(seconds=1)
    for one in (got, never):
        assert (await klingel.http.delete(f"/v1/endpoints/{one['id']}")).status_code == 204
    event = await happened(klingel, task, "task.submitted")

    found = await explained(klingel, event["id"])

    assert list(found) == [got["id"], never["id"]]
    assert reasons(found) == [(True, "selected"), (False, "type")]
    assert all(one["endpoint"]["deleted_at"] for one in found.values())
    assert await explained(klingel, event["id"], endpoint_id=before["id"]) == {}


async def test_a_change_since_is_not_taken_for_the_reason(klingel: Klingel) -> None:
    """Whoever mends a subscription after a lost event is not told that it was well all the time."""
    mended, narrowed, enabled, disabled, still = [
        await klingel.endpoint(types=["task.failed"]),
        await klingel.endpoint(types=["*"]),
        await klingel.endpoint(enabled=False),
        await klingel.endpoint(types=["task.failed"]),
        await klingel.endpoint(types=["task.failed"]),
    ]
    klingel.clock.advance(seconds=1)
    task = await klingel.submit()
    await klingel.until_deliveries("delivered")
    klingel.clock.advance(seconds=1)
    changes = {
        mended["id"]: {"types": ["*"]},
        narrowed["id"]: {"filter": "`false`"},
        enabled["id"]: {"enabled": True},
        disabled["id"]: {"enabled": False},
        still["id"]: {"description": "its words are no part of what it takes"},
    }
    for id, change in changes.items():
        assert (await klingel.http.patch(f"/v1/endpoints/{id}", json=change)).status_code == 200

    found = await explained(klingel, (await happened(klingel, task, "task.submitted"))["id"])

    assert reasons(found) == [
        (False, "changed-later"),
        (True, "changed-later"),
        (False, "changed-later"),
        (False, "type"),
        (False, "type"),
    ]
    at = "2026-11-22T12:00:02.000Z"
    assert [one["detail"] for one in found.values()] == [
        f"It did not take it then; it has been changed since, at {at}.",
        f"It took it by what it was then; it has been changed since, at {at}.",
        f"It did not take it then; it has been changed since, at {at}.",
        f"It takes task.failed, and this is none of them. So it is now: it was changed after the event, at {at}.",
        "It takes task.failed, and this is none of them.",
    ]


async def test_failures_are_no_change_of_what_an_endpoint_takes(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(types=["task.submitted"])
    klingel.clock.advance(seconds=1)
    klingel.receiver.answers(500)
    await klingel.submit()

    async def failed() -> bool:
        shown = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
        return bool(shown["failures"])

    await klingel.until(failed)
    [event] = (await klingel.http.get("/v1/events")).json()["items"]
    [shown] = (await explained(klingel, event["id"])).values()
    assert shown["endpoint"]["subscribed_at"] == endpoint["created_at"]
    assert shown["endpoint"]["updated_at"] > endpoint["created_at"]


async def test_one_that_was_disabled_by_its_failures_says_so(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(410)
    first = await klingel.submit()

    async def gone() -> bool:
        return not (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()["enabled"]

    await klingel.until(gone)
    klingel.clock.advance(seconds=1)
    second = await klingel.submit()
    found = [
        (await explained(klingel, (await happened(klingel, task, "task.submitted"))["id"]))[endpoint["id"]]
        for task in (first, second)
    ]
    assert [(one["sent"], one["reason"]) for one in found] == [(True, "selected"), (False, "disabled")]
    assert found[0]["delivery"]["status"] == "dead"
    assert found[1]["detail"] == "It was disabled: it answered 410 Gone."
    [told] = (await klingel.http.get("/v1/events", params={"type": "endpoint.disabled"})).json()["items"]
    assert reasons(await explained(klingel, told["id"])) == [(False, "disabled")]


async def test_a_test_is_for_the_tested_endpoint_alone(klingel: Klingel) -> None:
    tested, _ = [await klingel.endpoint(), await klingel.endpoint(types=["*"])]
    sent = (await klingel.http.post(f"/v1/endpoints/{tested['id']}/test")).json()
    assert reasons(await explained(klingel, sent["event_id"])) == [(True, "test"), (False, "other-test")]


async def test_a_delivery_that_is_no_longer_kept_is_not_taken_for_none(klingel: Klingel) -> None:
    """Deliveries are forgotten before the events of tasks that go on."""
    await klingel.endpoint()
    klingel.clock.advance(seconds=1)
    task = await klingel.submit()
    await klingel.until_deliveries("delivered")
    klingel.clock.advance(days=31)
    assert (await klingel.http.post("/v1/prune")).status_code == 200
    event = await happened(klingel, task, "task.submitted")
    assert await klingel.deliveries(event_id=event["id"]) == []
    [one] = (await explained(klingel, event["id"])).values()
    assert (one["sent"], one["reason"], one["delivery"]) == (True, "forgotten", None)


async def test_the_archive_is_nobodys_to_look_at(klingel: Klingel) -> None:
    """It gets what brings outputs, without being asked."""
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    event = await happened(klingel, task)
    assert await explained(klingel, event["id"]) == {}


async def test_many_endpoints_come_in_pages(klingel: Klingel) -> None:
    made = [(await klingel.endpoint())["id"] for _ in range(5)]
    event = await happened(klingel, await klingel.submit(), "task.submitted")
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await klingel.http.get(f"/v1/events/{event['id']}/explain", params={"limit": "2", **cursor})
        found += [one["endpoint"]["id"] for one in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            break
        cursor = {"cursor": page.json()["next_cursor"]}
    assert found == made


async def test_what_a_filter_gives_is_shown_whatever_it_is(klingel: Klingel) -> None:
    filters = ["@", "&type", "'\\ud800'", '`"\\ud800"`', "to_number('nan')"]
    for filter in filters:
        await klingel.endpoint(filter=filter)
    event = await happened(klingel, await klingel.submit(), "task.submitted")
    whole, expression, *odd = (await explained(klingel, event["id"])).values()
    assert len(whole["filter_result"]) == LONGEST_RESULT + 1
    assert whole["filter_result"].startswith('{"id": "evt_')
    assert expression["filter_result"] == '"an expression"'
    assert [one["sent"] for one in odd] == [True, True, True]


@pytest.mark.parametrize("query", [{"limit": "0"}, {"cursor": "x"}, {"endpoint_id": "ü"}, {"type": "*"}])
async def test_a_faulty_question_is_refused(klingel: Klingel, query: dict[str, str]) -> None:
    event = await happened(klingel, await klingel.submit(), "task.submitted")
    response = await klingel.http.get(f"/v1/events/{event['id']}/explain", params=query)
    assert (response.status_code, pointers(response)) == (422, [f"#/query/{next(iter(query))}"])


async def test_anothers_endpoint_is_not_told_of(klingel: Klingel) -> None:
    """Neither while it is there nor once it is deleted."""
    async with klingel.another_account() as stranger:
        config = {"url": klingel.receiver.url}
        theirs = (await stranger.post("/v1/endpoints", json={"config": config})).json()
        event = await happened(klingel, await klingel.submit(), "task.submitted")
        assert await explained(klingel, event["id"]) == {}
        assert await explained(klingel, event["id"], endpoint_id=theirs["id"]) == {}
        klingel.clock.advance(seconds=1)
        assert (await stranger.delete(f"/v1/endpoints/{theirs['id']}")).status_code == 204
    assert await explained(klingel, event["id"]) == {}
    assert await explained(klingel, event["id"], endpoint_id=theirs["id"]) == {}
