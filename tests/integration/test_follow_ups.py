"""Follow-ups: a task that something happened to leads to another one, once."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.integration.klingel import (
    IMAGE_INPUT,
    VIDEO_INPUT,
    Klingel,
    base64_png,
    callback,
    picture,
    pointers,
    running_klingel,
)
from tests.integration.klingel import refused as kling_refuses

VIDEO = "kling.multi-image-to-video"
IMAGE = "kling.multi-image-to-image"
FILM: Mapping[str, Any] = {
    "type": VIDEO,
    "input": {
        "prompt": "It comes alive: {{ data.task.metadata.title }}",
        "image_list": {"$": "data.task.outputs[].{image: url}"},
    },
}
PICTURES: Mapping[str, Any] = {**IMAGE_INPUT, "n": 2}
LITERAL: Mapping[str, Any] = {"type": VIDEO, "input": VIDEO_INPUT}


def follow_up(on: str = "task.succeeded", submit: Mapping[str, Any] = FILM, **more: Any) -> dict[str, Any]:
    return {"on": on, "submit": dict(submit), **more}


def made(task: Mapping[str, Any], number: int = 2, **more: Any) -> dict[str, Any]:
    """The callback that brings so many pictures."""
    images = [{"index": index, "url": picture(f"out-{index}")} for index in range(number)]
    return callback(task, "succeed", task_result={"images": images}, **more)


async def submitted(klingel: Klingel, *follow_ups: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    body = {"input": PICTURES, "metadata": {"title": "a cat"}, "follow_ups": list(follow_ups), **more}
    response = await klingel.http.post("/v1/tasks", json={"type": IMAGE, **body})
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.json()
    return task


async def children(klingel: Klingel, task_id: str, number: int = 1) -> list[dict[str, Any]]:
    """A task's children, whole, once there are so many."""

    async def there() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await klingel.task(task_id))["children"]
        return found if len(found) >= number else None

    return [await klingel.task(child["id"]) for child in await klingel.until(there)]


async def refused(klingel: Klingel, *follow_ups: Any, **more: Any) -> httpx.Response:
    body = {"type": IMAGE, "input": PICTURES, "follow_ups": list(follow_ups), **more}
    response = await klingel.http.post("/v1/tasks", json=body)
    assert response.status_code == 422, response.text
    assert klingel.rows("select * from tasks") == []
    return response


# A follow-up of one task


async def test_pictures_become_a_video_when_they_are_there(klingel: Klingel) -> None:
    task = await submitted(klingel, follow_up())
    assert task["children"] == []
    [rule] = task["endpoints"]
    assert rule["kind"] == "task"

    await klingel.call_back(made(task))

    [child] = await children(klingel, task["id"])
    assert (child["type"], child["parent_id"], child["children"]) == (VIDEO, task["id"], [])
    assert child["input"]["image_list"] == [{"image": picture("out-0")}, {"image": picture("out-1")}]
    assert child["input"]["prompt"] == "It comes alive: a cat"
    await klingel.kling.until(2)
    assert klingel.kling.creates[1]["image_list"] == child["input"]["image_list"]
    row = klingel.row(child["id"])
    assert (row["rule_id"], row["depth"]) == (rule["id"], 1)
    [delivery] = await klingel.until_deliveries("delivered", endpoint_id=rule["id"])
    [attempt] = await klingel.attempts(delivery["id"])
    assert attempt["outcome"] == "delivered"
    assert attempt["response_excerpt"] == f'{{"task_id":"{child["id"]}"}}'
    assert klingel.kling.status_queries == 0


async def test_its_webhooks_are_signed_by_the_secret_of_the_follow_up(klingel: Klingel) -> None:
    """Which is in the submit's answer, where that of a task to come could not be."""
    own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
    endpoint = {"config": {"url": klingel.receiver.url + "/own"}, "types": ["task.submitted"], "secret": own}
    task = await submitted(
        klingel,
        follow_up(submit={**FILM, "callback_url": klingel.receiver.url, "endpoints": [endpoint]}),
    )
    [rule] = task["endpoints"]
    shown = (await klingel.http.get(f"/v1/endpoints/{rule['id']}")).json()
    assert own not in str(shown)

    await klingel.call_back(made(task))

    received = {one.path: one for one in await klingel.receiver.until(2)}
    for path, secret in {"/hook": rule["secret"], "/hook/own": own}.items():
        one = received[path]
        expected = Webhook(secret).sign(one.headers["webhook-id"], klingel.clock(), one.body.decode())
        assert one.headers["webhook-signature"] == expected
        assert one.event["data"]["task"]["parent_id"] == task["id"]


async def test_a_whole_chain_stands_in_one_submit(klingel: Klingel) -> None:
    """Each link is bound to the task before it; the last one rings."""
    last = follow_up(submit={**LITERAL, "metadata": {"link": 3}, "callback_url": klingel.receiver.url})
    middle = {**LITERAL, "type": IMAGE, "input": IMAGE_INPUT, "metadata": {"link": 2}, "follow_ups": [last]}
    task = await submitted(klingel, follow_up(submit=middle))
    await klingel.call_back(made(task))
    [second] = await children(klingel, task["id"])
    second = await klingel.until_status(second["id"], "submitted")
    await klingel.call_back(made(second))
    [third] = await children(klingel, second["id"])
    assert (third["metadata"], third["parent_id"]) == ({"link": 3}, second["id"])
    assert klingel.row(third["id"])["depth"] == 2
    [rung, *_] = await klingel.receiver.until(1)
    assert rung.event["data"]["task"]["id"] == third["id"]


async def test_a_filter_decides_and_other_events_do_nothing(klingel: Klingel) -> None:
    task = await submitted(
        klingel,
        follow_up(
            submit={**LITERAL, "metadata": {"of": "cats"}}, filter="data.task.metadata.title == 'a cat'"
        ),
        follow_up(
            submit={**LITERAL, "metadata": {"of": "dogs"}}, filter="data.task.metadata.title == 'a dog'"
        ),
        follow_up("task.failed", submit={**LITERAL, "metadata": {"of": "nothing"}}),
    )
    await klingel.call_back(made(task))
    [child] = await children(klingel, task["id"])
    assert child["metadata"] == {"of": "cats"}
    assert len(await klingel.deliveries()) == 1


async def test_a_filter_with_a_slip_of_the_pen_is_refused(klingel: Klingel) -> None:
    """It would break over every event."""
    slip = "lenght(data.task.outputs) > `1`"
    fault = "Not a JMESPath expression: there is no function lenght()"
    bound = await refused(klingel, follow_up(submit=LITERAL, filter=slip))
    body = {"kind": "task", "filter": slip, "config": {"submit": LITERAL}}
    standing = await klingel.http.post("/v1/endpoints", json=body)
    assert [response.json()["errors"] for response in (bound, standing)] == [
        [{"detail": fault, "pointer": "#/follow_ups/0/filter"}],
        [{"detail": fault, "pointer": "#/filter"}],
    ]


async def test_a_failure_is_followed_too(klingel: Klingel) -> None:
    again = {
        "type": IMAGE,
        "input": {
            **IMAGE_INPUT,
            "model_name": "kling-v2-1",
            "prompt": "Again, after: {{ data.task.error.message }}",
        },
    }
    task = await submitted(klingel, follow_up("task.failed", submit=again))
    await klingel.call_back(callback(task, "failed", task_status_msg="too many cats"))
    [child] = await children(klingel, task["id"])
    assert child["input"]["prompt"] == "Again, after: too many cats"


# Once, whatever happens


async def test_replays_and_repeated_callbacks_make_no_second_task(klingel: Klingel) -> None:
    """Also long after the idempotency keys of callers have come to their end."""
    task = await submitted(klingel, follow_up())
    for _ in range(3):
        await klingel.call_back(made(task), number=0)
    [delivery] = await klingel.until_deliveries("delivered")
    [child] = await children(klingel, task["id"])
    await klingel.kling.until(2)  # it has been sent, before it is too old for that
    klingel.clock.advance(days=20)
    for _ in range(2):
        assert (await klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay")).status_code == 202
    found = await klingel.until_deliveries("delivered", "delivered", "delivered")
    assert found[-1]["reason"] == f"submitted already: {child['id']}"
    assert [one["id"] for one in (await klingel.task(task["id"]))["children"]] == [child["id"]]
    assert len(klingel.kling.creates) == 2


async def test_a_crash_between_the_submit_and_its_record_makes_no_second_task(
    klingel: Klingel, tmp_path: Path
) -> None:
    """The attempt is made again by whoever comes after: its outcome was never written."""
    task = await submitted(klingel, follow_up())
    await klingel.call_back(made(task))
    [child] = await children(klingel, task["id"])
    [delivery] = await klingel.until_deliveries("delivered")
    left = await klingel.snapshot(tmp_path / "left")
    klingel.places.rows(left, "delete from attempts")
    klingel.places.rows(
        left,
        "update deliveries set status = 'pending', attempts = 0, next_attempt_at = 0, finished_at = null",
    )
    async with running_klingel(left, clock=klingel.clock) as revived:
        await revived.until_deliveries("delivered")
        [attempt] = await revived.attempts(delivery["id"])
        assert attempt["reason"] == f"submitted already: {child['id']}"
        assert [one["id"] for one in (await revived.task(task["id"]))["children"]] == [child["id"]]


async def test_attempts_at_the_same_time_make_one_task(klingel: Klingel) -> None:
    task = await submitted(klingel, follow_up())
    await klingel.call_back(made(task))
    [delivery] = await klingel.until_deliveries("delivered")
    await klingel.tamper(
        "update tasks set parent_id = null, rule_id = null, depth = 0 where parent_id is not null"
    )
    await asyncio.gather(*(klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay") for _ in range(8)))
    await klingel.until_deliveries(*9 * ["delivered"])
    assert len((await klingel.task(task["id"]))["children"]) == 1


async def test_outputs_that_come_late_are_followed_when_they_come(klingel: Klingel) -> None:
    """A success may name nothing at first. Nobody has to ask for the second event."""
    task = await submitted(klingel, follow_up())
    await klingel.call_back(callback(task, "succeed"))
    [dead] = await klingel.until_deliveries("dead")
    assert dead["reason"].startswith(
        "the success came without outputs, and is tried again when they come. #/input"
    )
    assert dead["attempts"] == 1

    await klingel.call_back(made(task))

    await klingel.until_deliveries("dead", "delivered")
    [child] = await children(klingel, task["id"])
    assert len(child["input"]["image_list"]) == 2


async def test_a_success_that_was_followed_without_outputs_is_not_followed_again_with_them(
    klingel: Klingel,
) -> None:
    task = await submitted(klingel, follow_up(submit=LITERAL))
    await klingel.call_back(callback(task, "succeed"))
    [child] = await children(klingel, task["id"])
    await klingel.call_back(made(task), number=0)  # the child's create may have gone out by now
    [_, second] = await klingel.until_deliveries("delivered", "delivered")
    assert second["reason"] == f"submitted already: {child['id']}"
    assert len((await klingel.task(task["id"]))["children"]) == 1


# What goes wrong


async def test_a_template_that_gives_no_valid_task_is_dead_at_once_and_says_why(klingel: Klingel) -> None:
    task = await submitted(klingel, follow_up())
    await klingel.call_back(made(task, number=1))
    [dead] = await klingel.until_deliveries("dead")
    assert dead["reason"] == "#/input/image_list: This list must have 2 to 4 entries; it has 1."
    [attempt] = await klingel.attempts(dead["id"])
    assert '"pointer":"#/input/image_list"' in attempt["response_excerpt"]
    assert (await klingel.task(task["id"]))["children"] == []


async def test_a_provider_s_refusal_is_the_child_s_own(klingel: Klingel) -> None:
    task = await submitted(klingel, follow_up())
    klingel.kling.answers(kling_refuses(429, 1102, "arrears"))
    await klingel.call_back(made(task))
    [child] = await children(klingel, task["id"])
    child = await klingel.until_status(child["id"], "rejected")
    assert child["error"]["message"] == "arrears"
    await klingel.until_deliveries("delivered")


# What is said beforehand


async def test_every_fault_is_told_at_once_each_with_its_place(klingel: Klingel) -> None:
    """Of templates, types, inputs, endpoints, and of what stands inside."""
    response = await refused(
        klingel,
        follow_up(
            submit={**FILM, "input": {"prompt": "{{ data[ }}", "image_list": {"$": 5}, "mode": "fast"}}
        ),
        follow_up(
            submit={
                "type": "no.such",
                "input": {},
                "external_task_id": "x",
                "metadata": {"a": "b" * 17_000},
                "follow_ups": [follow_up(submit={"type": VIDEO, "input": {"prompt": "x", "image_list": []}})],
            }
        ),
        follow_up(
            "task.finished",
            submit={
                **LITERAL,
                "callback_url": "http://[",
                "endpoints": [{"kind": "pigeon"}, {"kind": "task"}],
            },
            filter="((",
        ),
        follow_up(
            submit={
                "type": IMAGE,
                "input": {**IMAGE_INPUT, "n": 3, "prompt": "{{ data.task.outputs[0].urll }}", "style": "x"},
                "follow_ups": [follow_up(submit={"type": VIDEO, "input": {"prompt": "", "image_list": []}})],
            },
        ),
        {"on": "task.failed", "submit": 5, "if": "x"},
        metadata={"title": "a cat"},
    )
    assert sorted(pointers(response)) == [
        "#/follow_ups/0/submit/input/image_list",
        "#/follow_ups/0/submit/input/mode",
        "#/follow_ups/0/submit/input/prompt",
        "#/follow_ups/1/submit/external_task_id",
        "#/follow_ups/1/submit/follow_ups/0/submit/input/image_list",
        "#/follow_ups/1/submit/metadata",
        "#/follow_ups/1/submit/type",
        "#/follow_ups/2/filter",
        "#/follow_ups/2/on",
        "#/follow_ups/2/submit/callback_url",
        "#/follow_ups/2/submit/endpoints/0/kind",
        "#/follow_ups/2/submit/endpoints/1/kind",
        "#/follow_ups/3/submit/follow_ups/0/submit/input/image_list",
        "#/follow_ups/3/submit/follow_ups/0/submit/input/prompt",
        "#/follow_ups/3/submit/input/prompt",
        "#/follow_ups/3/submit/input/style",
        "#/follow_ups/4/if",
        "#/follow_ups/4/submit",
    ]


@pytest.mark.parametrize(("name", "value"), [("type", "no.such"), ("input", None)])
async def test_a_task_that_cannot_be_read_hides_no_fault_of_what_follows_it(
    klingel: Klingel, name: str, value: object
) -> None:
    more = {"metadata": {"title": "a cat"}, name: value}
    response = await refused(klingel, follow_up("task.failed"), **more)
    assert pointers(response) == [f"#/{name}", "#/follow_ups/0/submit/input/image_list"]


async def test_a_follow_up_that_could_never_fit_this_very_task_is_refused(klingel: Klingel) -> None:
    """One picture is ordered, and two are needed: the number is known, so are the metadata."""
    response = await refused(klingel, follow_up(), input=IMAGE_INPUT, metadata={"title": "a cat"})
    assert pointers(response) == ["#/follow_ups/0/submit/input/image_list"]
    assert "it has 1" in response.json()["errors"][0]["detail"]
    response = await refused(klingel, follow_up(), metadata={"name": "a cat"})
    assert pointers(response) == ["#/follow_ups/0/submit/input/prompt"]
    response = await refused(klingel, follow_up("task.failed"), metadata={"title": "a cat"})
    assert pointers(response) == ["#/follow_ups/0/submit/input/image_list"]


async def test_eight_follow_ups_come_one_after_another_and_no_ninth(klingel: Klingel) -> None:
    def chain(links: int) -> dict[str, Any]:
        return follow_up(submit={**LITERAL, "follow_ups": [chain(links - 1)] if links > 1 else []})

    await refused(klingel, chain(9))
    task = await submitted(klingel, chain(8))
    assert len(task["endpoints"]) == 1


async def test_too_many_or_too_large_follow_ups_are_refused(klingel: Klingel) -> None:
    assert pointers(await refused(klingel, *11 * [follow_up(submit=LITERAL)])) == ["#/follow_ups"]
    large = follow_up(submit={**LITERAL, "metadata": {"a": "b" * 5000}})
    assert pointers(await refused(klingel, *7 * [large])) == ["#/follow_ups"]
    many = follow_up(submit={**LITERAL, "follow_ups": 5 * [follow_up("task.failed", submit=LITERAL)]})
    assert pointers(await refused(klingel, *9 * [many])) == ["#/follow_ups"]
    body = {"kind": "task", "config": {"submit": {**LITERAL, "metadata": {"a": "b" * 40_000}}}}
    response = await klingel.http.post("/v1/endpoints", json=body)
    assert pointers(response) == ["#/config/submit"]


async def test_pictures_inside_a_template_are_refused(klingel: Klingel) -> None:
    """A rule may make thousands of tasks, and its template is read for each."""
    inside = {"prompt": "x", "image_list": [{"image": base64_png()}, {"image": picture()}]}
    response = await refused(klingel, follow_up(submit={"type": VIDEO, "input": inside}))
    assert pointers(response) == ["#/follow_ups/0/submit/input/image_list/0/image"]


# Standing ones


async def standing(klingel: Klingel, submit: Mapping[str, Any] = FILM, **more: Any) -> dict[str, Any]:
    config = {"submit": dict(submit), **more.pop("config", {})}
    return await klingel.endpoint(kind="task", config=config, **more)


async def test_a_standing_one_follows_every_task_that_it_selects(klingel: Klingel) -> None:
    rule = await standing(klingel, filter=f"data.task.type == '{IMAGE}'")
    assert rule["types"] == ["task.succeeded", "task.outputs_added"]
    for title in ("a cat", "a dog"):
        task = await klingel.submit(metadata={"title": title})
        await klingel.call_back(made(task))
        [child] = await children(klingel, task["id"])
        assert child["input"]["prompt"] == f"It comes alive: {title}"
        await klingel.kling.until(len(klingel.kling.creates))


async def test_a_filter_that_breaks_over_an_event_makes_a_dead_letter_and_no_task(klingel: Klingel) -> None:
    """A message too many costs nothing; a task too many costs money."""
    rule = await standing(klingel, submit=LITERAL, filter="contains(data.task.metadata.tags, 'film')")
    task = await klingel.submit(metadata={"shop": "berlin"})
    await klingel.call_back(made(task))
    [dead] = await klingel.until_deliveries("dead", endpoint_id=rule["id"])
    assert dead["reason"].startswith(
        "#/filter: It could not be evaluated over this event: In function contains()"
    )
    assert (await klingel.task(task["id"]))["children"] == []
    path = f"/v1/events/{dead['event_id']}/explain"
    [told] = (await klingel.http.get(path, params={"endpoint_id": rule["id"]})).json()["items"]
    assert (told["sent"], told["reason"]) == (True, "filter-broke")
    assert told["detail"].endswith("The follow-up asks it again, and submits nothing unless it is true.")


async def test_costly_filters_of_others_make_no_task_that_the_own_filter_does_not_want(
    klingel: Klingel,
) -> None:
    """What all filters may cost together over one event was spent before the rule's was asked."""
    costly = "|".join(["[@,@][]"] * 9) + "|length(@) < `0`"
    for _ in range(12):
        await klingel.endpoint(types=["task.succeeded"], filter=costly)
    rule = await standing(klingel, submit=LITERAL, filter="data.task.metadata.film")
    plain, wanted = await klingel.submit(metadata={}), await klingel.submit(metadata={"film": "yes"})
    for number, task in enumerate((plain, wanted)):
        await klingel.call_back(made(task), number=number)
    await children(klingel, wanted["id"])
    found = await klingel.until_deliveries("delivered", "delivered", endpoint_id=rule["id"])
    assert {one["task_id"]: one["reason"].partition(":")[0] for one in found} == {
        plain["id"]: "nothing is submitted for this",
        wanted["id"]: "submitted",
    }
    assert (await klingel.task(plain["id"]))["children"] == []


async def test_tasks_that_do_not_fill_a_standing_one_s_template_never_switch_it_off(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is a dead letter that says why, and says nothing of the rule."""
    monkeypatch.setattr("service.endpoint_health.DISABLE_AFTER_FAILURES", 2)
    monkeypatch.setattr("service.endpoint_health.DISABLE_AFTER", timedelta(0))
    rule = await standing(klingel)
    for number in range(3):
        task = await klingel.submit()
        await klingel.call_back(made(task))
        await klingel.until_deliveries(*["dead"] * (number + 1), endpoint_id=rule["id"])
    shown = (await klingel.http.get(f"/v1/endpoints/{rule['id']}")).json()
    assert (shown["enabled"], shown["failures"], shown["failing_since"]) == (True, 0, None)
    filling = await klingel.submit(metadata={"title": "a cat"})
    await klingel.call_back(made(filling))
    assert len(await children(klingel, filling["id"])) == 1


async def test_a_standing_one_does_not_follow_what_it_made_itself(klingel: Klingel) -> None:
    """Or it would go on, eight paid tasks deep."""
    rule = await standing(klingel, submit=LITERAL)
    task = await klingel.submit()
    await klingel.call_back(made(task))
    [child] = await children(klingel, task["id"])
    child = await klingel.until_status(child["id"], "submitted")
    await klingel.call_back(made(child))
    [_, second] = await klingel.until_deliveries("delivered", "delivered", endpoint_id=rule["id"])
    assert (
        second["reason"] == "nothing is submitted for this: it follows from a task that this rule made itself"
    )
    assert (await klingel.task(child["id"]))["children"] == []


async def test_two_standing_ones_do_not_feed_each_other_for_ever(klingel: Klingel) -> None:
    """Nor at all: so many would make so many tasks of each other's, eight deep."""
    for _ in range(2):
        await standing(klingel, submit=LITERAL)
    root = await klingel.submit()
    open_tasks, made_by = [root], 0
    while open_tasks:
        task = open_tasks.pop()
        task = await klingel.until_status(task["id"], "submitted")
        number = next(
            index
            for index, create in enumerate(klingel.kling.creates)
            if create["external_task_id"] == task["external_task_id"]
        )
        await klingel.call_back(made(task), number=number)
        deliveries = await klingel.until_deliveries("delivered", "delivered", task_id=task["id"])
        made_by += len(deliveries)
        open_tasks += [{"id": one["id"]} for one in (await klingel.task(task["id"]))["children"]]
    rows = klingel.rows("select depth from tasks order by depth")
    assert [row["depth"] for row in rows] == [0, 1, 1]
    told = {row["reason"] for row in klingel.rows("select reason from attempts")}
    assert "nothing is submitted for this: it follows from a task that another standing rule made" in told


async def test_a_hundred_follow_ups_descend_from_one_task_and_no_more(klingel: Klingel) -> None:
    rules = [await standing(klingel, submit=LITERAL, types=["task.submitted"]) for _ in range(105)]
    task = await klingel.submit()

    async def settled() -> bool:
        [row] = klingel.rows(
            "select count(*) as n from deliveries where status in ('delivered', 'dead') and task_id = ?",
            task["id"],
        )
        return bool(row["n"] == len(rules))

    await klingel.until(settled)
    assert klingel.rows("select count(*) as n from tasks where depth = 1") == [{"n": 100}]
    dead = await klingel.deliveries(task_id=task["id"], status="dead")
    assert [one["reason"] for one in dead] == 5 * [f"100 follow-ups descend from {task['id']}: that is all."]


async def test_a_chain_that_is_wanted_ends_after_eight(klingel: Klingel) -> None:
    rule = await standing(klingel, submit=LITERAL, config={"chain": True})
    task = await klingel.submit()
    for depth in range(1, 10):
        task = await klingel.until_status(task["id"], "submitted")
        await klingel.call_back(made(task))
        if depth <= 8:
            [task] = await children(klingel, task["id"])
            assert klingel.row(task["id"])["depth"] == depth
    [*_, last] = await klingel.until_deliveries(*8 * ["delivered"], "dead", endpoint_id=rule["id"])
    assert last["reason"] == "the chain ends here: 8 follow-ups one after another"


async def test_a_test_of_a_standing_one_submits_nothing(klingel: Klingel) -> None:
    rule = await standing(klingel)
    assert (await klingel.http.post(f"/v1/endpoints/{rule['id']}/test")).status_code == 202
    [delivery] = await klingel.until_deliveries("delivered")
    assert delivery["reason"] == "nothing is submitted for this: it is no event of a task"
    assert klingel.rows("select * from tasks") == []


@pytest.mark.parametrize(
    ("types", "submit", "expected"),
    [
        (["endpoint.disabled"], LITERAL, ["#/types"]),
        (
            ["endpoint.disabled"],
            {
                "type": VIDEO,
                "input": {"prompt": [None], "image_list": [{"image": "QQ=="}, {"image": picture()}]},
            },
            ["#/types", "#/config/submit/input/image_list/0/image", "#/config/submit/input/prompt"],
        ),
        (
            ["nope"],
            {"type": VIDEO, "input": {"prompt": "x", "image_list": "x"}},
            ["#/types/0", "#/types", "#/config/submit/input/image_list"],
        ),
        (["task.failed"], FILM, ["#/config/submit/input/image_list"]),
        (["task.*"], FILM, ["#/config/submit/input/image_list"] * 6),
        (["task.succeeded"], {**LITERAL, "type": "x"}, ["#/config/submit/type"]),
        (
            ["task.succeeded"],
            {"type": VIDEO, "input": {"prompt": "x", "image_list": {"$": "data.task.outptus"}}},
            ["#/config/submit/input/image_list"],
        ),
        (
            ["task.succeeded"],
            {"type": VIDEO, "input": {"prompt": 5, "image_list": {"$": "data.task.metadata.any"}}},
            ["#/config/submit/input/prompt"],
        ),
    ],
)
async def test_a_standing_one_that_can_never_fit_is_refused(
    klingel: Klingel, types: list[str], submit: Mapping[str, Any], expected: list[str]
) -> None:
    body = {"kind": "task", "types": types, "config": {"submit": submit}}
    response = await klingel.http.post("/v1/endpoints", json=body)
    assert response.status_code == 422, response.text
    assert pointers(response) == expected


async def test_a_change_that_can_never_fit_is_told_with_its_other_faults(klingel: Klingel) -> None:
    rule = await standing(klingel)
    submit = {"type": VIDEO, "colour": "red", "input": {"prompt": "x", "image_list": "x"}}
    body = {"types": ["nope", "task.failed"], "enabled": "yes", "config": {"submit": submit}}
    response = await klingel.http.patch(f"/v1/endpoints/{rule['id']}", json=body)
    assert response.status_code == 422
    assert sorted(pointers(response)) == [
        "#/config/submit/colour",
        "#/config/submit/input/image_list",
        "#/enabled",
        "#/types/0",
    ]


async def answered_meanwhile(klingel: Klingel, sending: asyncio.Task[httpx.Response]) -> int:
    answered = 0
    while not sending.done():
        assert (await klingel.http.get("/v1/tasks/task_unknown")).status_code == 404
        answered += 1
    return answered


async def test_a_template_that_takes_long_to_be_tried_keeps_nobody_waiting(klingel: Klingel) -> None:
    """It is tried over 32 events, and may be as large as it is allowed to be."""
    raw = {"path": "/v1/x", "body": {"much": [0] * 15_000, "gap": {"$": "nothing"}}}
    config = {"submit": {"type": "kling.raw", "input": raw}}
    standing = {"kind": "task", "types": ["task.*"], "config": {"submit": LITERAL}}
    there = (await klingel.http.post("/v1/endpoints", json=standing)).json()
    for request in (
        klingel.http.post("/v1/endpoints", json={**standing, "config": config}),
        klingel.http.patch(f"/v1/endpoints/{there['id']}", json={"config": config}),
    ):
        sending = asyncio.create_task(request)
        assert await answered_meanwhile(klingel, sending) > 2
        assert (await sending).status_code == 422


async def test_a_standing_one_can_be_changed_and_what_is_read_can_be_sent_back(klingel: Klingel) -> None:
    url, header = klingel.receiver.url, {"x-token": "hidden-value"}
    submit = {**LITERAL, "endpoints": [{"kind": "webhook", "config": {"url": url, "headers": header}}]}
    rule = await standing(klingel, submit=submit)
    path = f"/v1/endpoints/{rule['id']}"
    assert "hidden-value" not in (await klingel.http.get(path)).text
    [row] = klingel.rows("select * from endpoints where id = ?", rule["id"])
    assert "hidden-value" not in str(row)

    changed = await klingel.http.patch(path, json={"config": {**rule["config"], "chain": True}})
    assert (changed.status_code, changed.json()["config"]["chain"]) == (200, True)
    changed = await klingel.http.patch(path, json={"types": ["task.failed"]})
    assert changed.json()["types"] == ["task.failed"]
    response = await klingel.http.patch(path, json={"config": {"submit": dict(FILM)}})
    assert pointers(response) == ["#/config/submit/input/image_list"]

    task = await klingel.submit()
    await klingel.call_back(callback(task, "failed"))
    [rung, *_] = await klingel.receiver.until(1)
    assert rung.headers["x-token"] == "hidden-value"


async def test_children_are_of_the_same_account_and_nobody_else_follows(klingel: Klingel) -> None:
    async with klingel.another_account() as stranger:
        body = {"kind": "task", "config": {"submit": dict(LITERAL)}, "types": ["*"]}
        assert (await stranger.post("/v1/endpoints", json=body)).status_code == 201
        task = await submitted(klingel, follow_up())
        await klingel.call_back(made(task))
        [child] = await children(klingel, task["id"])
        assert (await stranger.get(f"/v1/tasks/{child['id']}")).status_code == 404
        assert (await stranger.get("/v1/tasks")).json()["items"] == []
    assert len(klingel.rows("select * from tasks")) == 2


async def test_what_was_made_is_kept_as_long_as_it_could_be_asked_for_again(klingel: Klingel) -> None:
    """Else a replay after the child was forgotten would pay for it a second time."""
    task = await submitted(klingel, follow_up("task.submitted", submit=LITERAL))
    [child] = await children(klingel, task["id"])
    child = await klingel.until_status(child["id"], "submitted")
    number = [create["external_task_id"] for create in klingel.kling.creates].index(child["id"])
    await klingel.call_back(callback(child, "failed"), number=number)
    klingel.clock.advance(days=400)  # the parent still goes on: its events are kept
    assert (await klingel.http.post("/v1/prune")).status_code == 200
    assert {row["id"] for row in klingel.rows("select id from tasks")} == {task["id"], child["id"]}
    await klingel.call_back(made(task), number=0)
    klingel.clock.advance(days=400)
    newest = await klingel.submit()  # whose event the log goes on from
    assert (await klingel.http.post("/v1/prune")).status_code == 200
    assert [row["id"] for row in klingel.rows("select id from tasks")] == [newest["id"]]
