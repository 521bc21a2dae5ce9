"""Endpoints of kind `task`: what becomes of an attempt, with the real submitter and a database that may be in trouble."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.delivery import Sink
from service.domain.deliveries import AttemptOutcome, Duty, Reply, result
from service.domain.events import Event
from service.domain.ids import DeliveryId
from service.domain.values import replace
from storage import endpoints, events
from tests.integration.klingel import VIDEO_INPUT, Klingel, callback, picture, running_klingel

LITERAL: Mapping[str, Any] = {"type": "kling.multi-image-to-video", "input": dict(VIDEO_INPUT)}
FILM: Mapping[str, Any] = {
    **LITERAL,
    "input": {"prompt": "x", "image_list": {"$": "data.task.outputs[].{image: url}"}},
}


@pytest.fixture
async def klingel(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Klingel]:
    async with running_klingel(tmp_path) as running:
        yield running


def sink_of(klingel: Klingel) -> Sink:
    sink: Sink = klingel.state["sinks"]["task"]
    return sink


async def duty_of(klingel: Klingel, submit: Mapping[str, Any], *, outputs: int = 2, **config: Any) -> Duty:
    """The success of a real task, for a real endpoint that nobody else attempts: it is switched off."""
    made = await klingel.endpoint(kind="task", config={"submit": dict(submit), **config}, enabled=False)
    task = await klingel.submit()
    images = [{"index": index, "url": picture(f"out-{index}")} for index in range(outputs)]
    await klingel.call_back(callback(task, "succeed", task_result={"images": images}))
    async with klingel.state["database"].reading() as reader:
        log = await events.of_task(reader, task["id"], after_position=0, limit=100)
        [endpoint] = (await endpoints.by_id(reader, [made["id"]])).values()
    now = klingel.clock()
    return Duty(id=DeliveryId("dlv_1"), event=log[-1], endpoint=endpoint, attempt=1, created_at=now)


async def sent(klingel: Klingel, duty: Duty) -> tuple[AttemptOutcome, Reply]:
    reply = await sink_of(klingel).send(duty, now=klingel.clock())
    return result(reply, attempt=1, now=klingel.clock()).outcome, reply


def filtered(duty: Duty, filter: str) -> Duty:
    return replace(duty, endpoint=replace(duty.endpoint, filter=filter))


async def made_of(klingel: Klingel, duty: Duty) -> list[dict[str, Any]]:
    assert duty.event.task_id is not None
    children: list[dict[str, Any]] = (await klingel.task(duty.event.task_id))["children"]
    return children


async def test_a_submitted_task_is_delivered_and_named(klingel: Klingel) -> None:
    duty = await duty_of(klingel, FILM)
    outcome, reply = await sent(klingel, duty)
    [child] = await made_of(klingel, duty)
    assert outcome is AttemptOutcome.DELIVERED
    assert reply.exchanged
    assert (reply.reason, reply.excerpt) == (f"submitted: {child['id']}", f'{{"task_id":"{child["id"]}"}}')


async def test_twice_is_once(klingel: Klingel) -> None:
    duty = await duty_of(klingel, FILM)
    first, second = [await sent(klingel, duty) for _ in range(2)]
    assert first[0] is second[0] is AttemptOutcome.DELIVERED
    assert first[1].excerpt == second[1].excerpt
    assert len(await made_of(klingel, duty)) == 1


async def test_many_at_the_same_time_are_once_too(klingel: Klingel) -> None:
    """All find that nothing was submitted yet; all but one are told what the first one led to."""
    duty = await duty_of(klingel, FILM)
    async with klingel.writes_held() as are_waiting:
        sends = [asyncio.create_task(sent(klingel, duty)) for _ in range(8)]
        await are_waiting("_store", 8)
    ended = await asyncio.gather(*sends)
    assert {outcome for outcome, _ in ended} == {AttemptOutcome.DELIVERED}
    [child] = await made_of(klingel, duty)
    assert {reply.reason for _, reply in ended} == {f"submitted: {child['id']}"}


async def test_what_is_invalid_now_stays_so_and_is_not_tried_again(klingel: Klingel) -> None:
    duty = await duty_of(klingel, FILM, outputs=1)
    outcome, reply = await sent(klingel, duty)
    assert outcome is AttemptOutcome.DEAD
    assert reply.reason == "#/input/image_list: This list must have 2 to 4 entries; it has 1."
    assert await made_of(klingel, duty) == []


@pytest.mark.parametrize("filter", ["data.task.metadata.film", "data.task.outputs[5]", "`false`"])
async def test_an_event_of_which_the_filter_is_not_true_leads_to_nothing(
    klingel: Klingel, filter: str
) -> None:
    """Whyever it was brought: others had used up the time to ask its filter, or the rule was changed since."""
    outcome, reply = await sent(klingel, filtered(await duty_of(klingel, LITERAL), filter))
    assert outcome is AttemptOutcome.DELIVERED
    assert reply.reason == "nothing is submitted for this: the filter is not true of it"
    assert not reply.exchanged


async def test_a_filter_that_breaks_over_the_event_submits_nothing_and_says_why(klingel: Klingel) -> None:
    duty = filtered(await duty_of(klingel, LITERAL), "contains(data.task.metadata.tags, 'film')")
    outcome, reply = await sent(klingel, duty)
    assert outcome is AttemptOutcome.DEAD
    assert reply.reason.startswith(
        "#/filter: It could not be evaluated over this event: In function contains()"
    )
    assert "null" in reply.reason
    assert await made_of(klingel, duty) == []


async def test_a_filter_that_is_true_of_the_event_lets_it_through(klingel: Klingel) -> None:
    duty = filtered(await duty_of(klingel, FILM), "length(data.task.outputs) == `2`")
    assert (await sent(klingel, duty))[0] is AttemptOutcome.DELIVERED
    assert len(await made_of(klingel, duty)) == 1


async def test_a_template_that_names_what_is_gone_since_is_dead_too(klingel: Klingel) -> None:
    """Rules outlive the Klingel that took them: a type or a kind of endpoint may be no more."""
    duty = await duty_of(klingel, LITERAL)
    stale = {**LITERAL, "type": "kling.former", "endpoints": [{"kind": "pigeon", "config": {}}]}
    duty = replace(duty, endpoint=replace(duty.endpoint, config={"submit": stale}))
    outcome, reply = await sent(klingel, duty)
    assert outcome is AttemptOutcome.DEAD
    assert "#/type: There is no type 'kling.former'." in reply.reason
    assert "#/endpoints/0/kind: There is no kind 'pigeon'." in reply.reason


async def test_a_value_that_is_no_object_is_no_input(klingel: Klingel) -> None:
    duty = await duty_of(klingel, LITERAL)
    for expression in ("data.task.id", "data.task.outputs", "data.task.nothing"):
        whole = {**LITERAL, "input": {"$": expression}}
        outcome, reply = await sent(
            klingel, replace(duty, endpoint=replace(duty.endpoint, config={"submit": whole}))
        )
        assert outcome is AttemptOutcome.DEAD, expression
        assert reply.reason.startswith("#/input: "), reply.reason


async def test_while_nothing_can_be_stored_it_is_tried_again(klingel: Klingel) -> None:
    duty = await duty_of(klingel, FILM)
    await klingel.tamper("pragma query_only = on")
    outcome, reply = await sent(klingel, duty)
    assert outcome is AttemptOutcome.RETRY
    assert reply.reason.startswith("The database cannot be used right now")
    assert await made_of(klingel, duty) == []
    await klingel.tamper("pragma query_only = off")
    assert (await sent(klingel, duty))[0] is AttemptOutcome.DELIVERED
    assert len(await made_of(klingel, duty)) == 1


async def test_a_task_that_is_no_longer_there_is_not_followed(klingel: Klingel) -> None:
    duty = await duty_of(klingel, LITERAL)
    gone: Event = replace(duty.event, task_id="task_" + 32 * "0")
    outcome, reply = await sent(klingel, replace(duty, event=gone))
    assert (outcome, reply.reason) == (AttemptOutcome.DEAD, "its task is not kept any longer")


async def test_another_account_s_task_is_not_there(klingel: Klingel) -> None:
    """Were such a delivery ever made, it would lead to nothing."""
    duty = await duty_of(klingel, LITERAL)
    async with klingel.another_account() as stranger:
        body = {"type": "kling.multi-image-to-video", "input": VIDEO_INPUT}
        theirs = (await stranger.post("/v1/tasks", json=body)).json()["id"]
    outcome, _ = await sent(klingel, replace(duty, event=replace(duty.event, task_id=theirs)))
    assert outcome is AttemptOutcome.DEAD
    assert [row["id"] for row in klingel.rows("select id from tasks where parent_id is not null")] == []
