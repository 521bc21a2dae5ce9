"""Who waits for a place at the provider, who is asked next, and that nobody asks in vain for ever."""

import json
import random
from itertools import pairwise
from typing import Any

import httpx
import pytest

from service.sending import CREATES_AT_A_TIME
from storage.columns import milliseconds
from tests.integration.klingel import (
    FULL,
    IMAGE_INPUT,
    VIDEO_INPUT,
    Klingel,
    OpenCreate,
    accepted,
    callback,
    refused,
    succeed,
)

IMAGE, VIDEO = "kling.multi-image-to-image", "kling.multi-image-to-video"


async def test_the_next_terminal_callback_releases_exactly_one_waiting_task_in_order(
    klingel: Klingel,
) -> None:
    """On 1303 the queue holds, and those that come later line up unsent."""
    running = await klingel.submit(external_task_id="running")
    klingel.kling.answers(FULL)
    waiting = [await klingel.submit_async(external_task_id="first")]
    await klingel.until_row(waiting[0]["id"], awaits_slot=1, sends=1)
    for name in ("second", "third"):
        waiting.append(await klingel.submit_async(external_task_id=name))
        await klingel.until_row(waiting[-1]["id"], awaits_slot=1, sends=0)
    assert len(klingel.kling.creates) == 2
    for ended, (place, released) in zip(
        (succeed(running), callback({**waiting[0], "provider_task_id": None}, "failed")),
        enumerate(waiting[:2]),
        strict=True,
    ):
        assert (await klingel.call_back(ended, number=0 if place == 0 else 2)).status_code == 200
        await klingel.until_status(released["id"], "submitted")
        assert len(klingel.kling.creates) == 3 + place
        assert [klingel.row(task["id"])["awaits_slot"] for task in waiting[place + 1 :]] == [1] * (2 - place)
    assert [create["external_task_id"] for create in klingel.kling.creates] == [
        "running",
        "first",
        "first",
        "second",
    ]


async def test_a_callback_that_ends_nothing_releases_nobody(klingel: Klingel) -> None:
    """A place is free when a task has ended, once: not at each callback, and not at its repetition."""
    running = await klingel.submit()
    ended = await klingel.submit()
    await klingel.call_back(succeed(ended))
    klingel.kling.answers(FULL)
    waiting = await klingel.submit_async()
    await klingel.until_row(waiting["id"], awaits_slot=1)
    assert (await klingel.call_back(callback(running, "processing"), number=0)).status_code == 200
    assert (await klingel.call_back(succeed(ended), number=1)).status_code == 200
    assert (await klingel.submit("kling.multi-image-to-video"))[
        "status"
    ] == "submitted"  # the loop has looked
    assert klingel.row(waiting["id"])["awaits_slot"] == 1
    assert len(klingel.kling.creates) == 4


async def test_a_full_queue_of_pictures_holds_up_no_video(klingel: Klingel) -> None:
    """Kling, "Concurrency Rules": places are counted by kind of pack."""
    klingel.kling.answers(FULL)
    waiting = await klingel.submit_async(IMAGE)
    await klingel.until_row(waiting["id"], awaits_slot=1)
    assert (await klingel.submit(VIDEO))["status"] == "submitted"


async def test_without_any_callback_the_first_in_line_asks_for_a_place_and_nobody_overtakes_it(
    klingel: Klingel,
) -> None:
    """A slow back-off as the safety net; first come, first served there too."""
    running = await klingel.submit()
    klingel.kling.answers(FULL, FULL)
    first = await klingel.submit_async()
    asks_at = (await klingel.until_row(first["id"], awaits_slot=1))["next_send_at"]
    second = await klingel.submit_async()
    held_until = (await klingel.until_row(second["id"], awaits_slot=1))["next_send_at"]
    assert held_until < asks_at  # so the second one's moment comes first
    klingel.clock.advance(milliseconds=asks_at - milliseconds(klingel.clock()) - 1)

    async def held_again() -> bool:
        row = klingel.row(second["id"])
        return bool(row["next_send_at"] > held_until or row["sends"])

    await klingel.until(held_again)
    assert len(klingel.kling.creates) == 2
    klingel.clock.advance(milliseconds=1)
    await klingel.until_row(first["id"], awaits_slot=1, sends=2)
    assert klingel.row(second["id"])["sends"] == 0
    klingel.clock.advance(minutes=3)
    await klingel.until_status(first["id"], "submitted")
    klingel.clock.advance(minutes=1)
    await klingel.until_status(second["id"], "submitted")
    order = [running["id"], *[first["id"]] * 3, second["id"]]
    assert [create["external_task_id"] for create in klingel.kling.creates] == order


class Places:
    """A provider with so many parallel places; a create needs one for each of its `n` pictures."""

    def __init__(self, number: int) -> None:
        self.free = number

    def __call__(self, request: httpx.Request) -> httpx.Response:
        needed = json.loads(request.content).get("n", 1)
        if needed > self.free:
            return FULL
        self.free -= needed
        return accepted(f"88{id(request)}")


def pictures(number: int) -> dict[str, Any]:
    return {"input": {**IMAGE_INPUT, "n": number}}


async def ended(klingel: Klingel, places: Places, task: dict[str, Any]) -> None:
    places.free += task["input"].get("n", 1)
    body = callback(task, "failed")
    path = next(
        httpx.URL(create["callback_url"]).path
        for create in klingel.kling.creates
        if create["external_task_id"] == task["external_task_id"]
    )
    await klingel.http.post(path, json={**body, "task_id": None}, headers={"authorization": ""})


async def test_who_will_never_fit_lets_the_others_pass(klingel: Klingel) -> None:
    """Nine pictures where there are five places: refused although nothing runs, it goes to the end of the line."""
    places = klingel.kling.otherwise = Places(5)
    running = [await klingel.submit(**pictures(3))]
    too_many = await klingel.submit_async(**pictures(9))
    await klingel.until_row(too_many["id"], awaits_slot=1, sends=1)
    behind = [await klingel.submit_async(**pictures(1)) for _ in range(6)]
    for task in behind:
        await klingel.until_row(task["id"], awaits_slot=1, sends=0)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[0])
    for task in behind[:5]:
        await klingel.until_status(task["id"], "submitted")
    await klingel.until_row(behind[5]["id"], awaits_slot=1)
    assert klingel.row(too_many["id"])["status"] == "queued"
    await ended(klingel, places, behind[2])
    await klingel.until_status(behind[5]["id"], "submitted")


async def test_places_add_up_until_the_first_in_line_fits(klingel: Klingel) -> None:
    """Or one that needs two would be overtaken for ever by those that need one."""
    places = klingel.kling.otherwise = Places(2)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    needs_two = await klingel.submit_async(**pictures(2))
    await klingel.until_row(needs_two["id"], awaits_slot=1, sends=1)
    needs_one = await klingel.submit_async(**pictures(1))
    await klingel.until_row(needs_one["id"], awaits_slot=1)
    await ended(klingel, places, running[0])
    await klingel.until_row(needs_two["id"], awaits_slot=1, sends=2)
    assert klingel.row(needs_one["id"])["sends"] == 0
    await ended(klingel, places, running[1])
    await klingel.until_status(needs_two["id"], "submitted")
    await ended(klingel, places, needs_two)
    await klingel.until_status(needs_one["id"], "submitted")


async def test_nobody_waits_behind_all_that_another_account_has_queued(klingel: Klingel) -> None:
    thinking = [OpenCreate(accepted(f"77{number:016d}")) for number in range(CREATES_AT_A_TIME)]
    klingel.kling.answers(*thinking)
    async with klingel.another_account() as other:
        body = {"type": IMAGE, "input": dict(IMAGE_INPUT)}
        for _ in range(CREATES_AT_A_TIME + 10):
            await other.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})
        await klingel.kling.until(CREATES_AT_A_TIME)
        mine = await klingel.submit_async()
        thinking[0].end()
        await klingel.until_status(mine["id"], "submitted")
        assert klingel.kling.creates[CREATES_AT_A_TIME]["external_task_id"] == mine["external_task_id"]
        for one in thinking:
            one.end()


async def test_accounts_take_turns_at_a_providers_places(klingel: Klingel) -> None:
    """One that has queued fifty once had the next fifty places."""
    places = klingel.kling.otherwise = Places(1)
    async with klingel.another_account() as other:
        running = (await other.post("/v1/tasks", json={"type": IMAGE, **pictures(1)})).json()
        theirs = []
        for _ in range(5):
            response = await other.post(
                "/v1/tasks", json={"type": IMAGE, **pictures(1)}, headers={"prefer": "respond-async"}
            )
            theirs.append(response.json())
            await klingel.until_row(theirs[-1]["id"], awaits_slot=1)
        mine = [await klingel.submit_async(**pictures(1)) for _ in range(2)]
        for task in mine:
            await klingel.until_row(task["id"], awaits_slot=1)
        order = [running, mine[0], theirs[0], mine[1], theirs[1], theirs[2]]
        for task, following in pairwise(order):
            klingel.clock.advance(seconds=1)
            row = klingel.row(task["id"])
            await ended(klingel, places, {**task, "external_task_id": row["provider_external_id"]})
            await klingel.until_row(following["id"], status="submitted")


async def test_an_account_whose_tasks_are_refused_for_good_has_had_its_turn_each_time(
    klingel: Klingel,
) -> None:
    """Of five hundred such tasks each was asked for once before anybody else's."""
    places = klingel.kling.otherwise = Places(1)
    running = await klingel.submit(**pictures(1))
    async with klingel.another_account() as other:
        body = {"type": IMAGE, **pictures(1)}
        theirs = [
            (await other.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})).json()
            for _ in range(3)
        ]
        mine = await klingel.submit_async(**pictures(1))
        for task in (*theirs, mine):
            await klingel.until_row(task["id"], awaits_slot=1)
        klingel.clock.advance(seconds=1)
        klingel.kling.answers(refused(400, 1301, "content-safety policy"))
        await ended(klingel, places, running)
        await klingel.until_status(mine["id"], "submitted")
        rows = [klingel.row(task["id"]) for task in theirs]
    assert [(row["status"], row["sends"]) for row in rows] == [("rejected", 2), ("queued", 0), ("queued", 0)]


GENERATION = {"input": {"prompt": "a cat"}}


async def test_types_that_share_places_take_turns_at_them(klingel: Klingel) -> None:
    """Kling, "Concurrency Rules": all kinds of pictures are of one pack. One with fifty of a type once had them all."""
    places = klingel.kling.otherwise = Places(1)
    running = await klingel.submit(**pictures(1))
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
    async with klingel.another_account() as other:
        body = {"type": "kling.image-generation", **GENERATION}
        theirs = (await other.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})).json()
        for task in (*waiting, theirs):
            await klingel.until_row(
                task["id"], awaits_slot=1, slot_turn=0
            )  # what holds the place is of its kind
        for task, following in pairwise((running, theirs, *waiting)):
            klingel.clock.advance(seconds=1)
            row = klingel.row(task["id"])
            await ended(klingel, places, {**task, "external_task_id": row["provider_external_id"]})
            await klingel.until_row(following["id"], status="submitted")


@pytest.mark.parametrize("number", [5, 9])
async def test_who_needs_many_places_holds_up_nobody_for_good_and_is_overtaken_by_no_type_that_shares_them(
    klingel: Klingel, number: int
) -> None:
    """Five of five places add up as what runs ends; nine never do, and the others go when that is known."""
    places = klingel.kling.otherwise = Places(5)
    running = [await klingel.submit("kling.image-generation", **GENERATION) for _ in range(2)]
    many = await klingel.submit_async(**pictures(number))
    await klingel.until_row(many["id"], awaits_slot=1, sends=1)
    behind = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
    behind.append(await klingel.submit_async("kling.image-generation", **GENERATION))
    for task in behind:
        await klingel.until_row(task["id"], awaits_slot=1, sends=0)
    for task in running:
        klingel.clock.advance(seconds=1)
        await ended(klingel, places, task)
        await klingel.until_row(many["id"], sending_since=None)
    if number == 5:
        await klingel.until_status(many["id"], "submitted")
        await ended(klingel, places, many)
    for task in behind:
        await klingel.until_status(task["id"], "submitted")
    assert klingel.row(many["id"])["status"] == ("failed" if number == 5 else "queued")


async def test_nobody_overtakes_one_who_is_just_asking_for_the_places_that_have_added_up(
    klingel: Klingel,
) -> None:
    """The answer takes a second, in which a busy account has new tasks."""
    places = klingel.kling.otherwise = Places(2)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    needs_two = await klingel.submit_async(**pictures(2))
    await klingel.until_row(needs_two["id"], awaits_slot=1, sends=1)
    klingel.clock.advance(seconds=1)
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking)
    await ended(klingel, places, running[0])
    await klingel.kling.until(4)
    newer = await klingel.submit_async("kling.image-generation", **GENERATION)
    await klingel.until_row(newer["id"], awaits_slot=1, sends=0)
    thinking.end()
    await klingel.until_row(needs_two["id"], awaits_slot=1, sends=2)
    await ended(klingel, places, running[1])
    await klingel.until_status(needs_two["id"], "submitted")


async def test_places_that_were_kept_and_not_needed_go_to_those_behind(klingel: Klingel) -> None:
    """Two and three are free in the end, of which the first takes four."""
    places = klingel.kling.otherwise = Places(5)
    running = [await klingel.submit(**pictures(number)) for number in (2, 3)]
    needs_four = await klingel.submit_async(**pictures(4))
    await klingel.until_row(needs_four["id"], awaits_slot=1, sends=1)
    needs_one = await klingel.submit_async(**pictures(1))
    await klingel.until_row(needs_one["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[0])
    await klingel.until_row(needs_four["id"], awaits_slot=1, sends=2)
    await ended(klingel, places, running[1])
    for task in (needs_four, needs_one):
        await klingel.until_status(task["id"], "submitted")


async def test_places_freed_together_go_to_as_many_of_several_accounts(klingel: Klingel) -> None:
    """Two each. Who was given a place once went back into the line, behind others of the account before it."""
    places = klingel.kling.otherwise = Places(4)
    running = await klingel.submit(**pictures(4))
    async with klingel.another_account() as other:
        body = {"type": IMAGE, **pictures(1)}
        theirs = [
            (await other.post("/v1/tasks", json=body, headers={"prefer": "respond-async"})).json()
            for _ in range(6)
        ]
        mine = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
        for task in (*theirs, *mine):
            await klingel.until_row(task["id"], awaits_slot=1)
        klingel.clock.advance(seconds=1)
        await ended(klingel, places, running)
        for task in (*theirs[:2], *mine[:2]):
            await klingel.until_row(task["id"], status="submitted")
        assert {klingel.row(task["id"])["sends"] for task in (*theirs[3:], *mine[2:])} == {0}


async def test_who_finds_a_place_at_its_own_moment_lets_the_next_ask(klingel: Klingel) -> None:
    """More may have become free than Klingel was told: one after the other asks, until one finds none."""
    places = klingel.kling.otherwise = Places(1)
    await klingel.submit(**pictures(1))
    waiting = []
    for _ in range(4):
        waiting.append(await klingel.submit_async(**pictures(1)))
        await klingel.until_row(waiting[-1]["id"], awaits_slot=1)
    asked = len(klingel.kling.creates)
    places.free = 2
    klingel.clock.advance(minutes=2)
    for task in waiting[:2]:
        await klingel.until_status(task["id"], "submitted")
    await klingel.until_row(waiting[2]["id"], awaits_slot=1, sends=1)
    assert klingel.row(waiting[3]["id"])["sends"] == 0
    assert len(klingel.kling.creates) == asked + 3


TRY_ON = {"input": {"human_image": "https://example.com/a.png", "cloth_image": "https://example.com/b.png"}}


@pytest.mark.parametrize("number", [1, 4])
async def test_a_place_of_a_types_own_is_not_lost_on_an_older_task_that_cannot_use_it(
    klingel: Klingel, number: int
) -> None:
    """Virtual try-on makes pictures, and has a pack of its own: nothing adds up from it for others."""
    packs = {True: Places(2), False: Places(4)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)
    await klingel.submit(**pictures(4))
    older = await klingel.submit_async(**pictures(number))
    await klingel.until_row(older["id"], awaits_slot=1, sends=1)
    running = [await klingel.submit("kling.virtual-try-on", **TRY_ON) for _ in range(2)]
    waiting = [await klingel.submit_async("kling.virtual-try-on", **TRY_ON) for _ in range(3)]
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    for task, following in zip(running, waiting, strict=False):
        await ended(klingel, packs[True], task)
        await klingel.until_status(following["id"], "submitted")
    await klingel.until_row(older["id"], awaits_slot=1, slot_turn=0, sends=3)


async def test_a_place_that_nobody_finds_is_asked_for_once_by_each_type_at_most(klingel: Klingel) -> None:
    """Somebody else has it."""
    places = klingel.kling.otherwise = Places(2)
    for _ in range(2):
        running = await klingel.submit("kling.image-generation", **GENERATION)
    waiting = [
        await klingel.submit_async(type, **body)
        for type, body in (
            ("kling.virtual-try-on", TRY_ON),
            ("kling.image-generation", GENERATION),
            (IMAGE, pictures(1)),
        )
    ]
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1, sends=1)
    klingel.clock.advance(seconds=1)
    places.free = -1
    await ended(klingel, places, running)
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1, sends=2)
    last = await klingel.submit_async(VIDEO)
    await klingel.until_row(last["id"], awaits_slot=1)  # when this one has asked, others would have
    assert [klingel.row(task["id"])["sends"] for task in waiting] == [2, 2, 2]


async def test_those_who_find_no_place_do_not_ask_each_other_on_and_on(klingel: Klingel) -> None:
    """One for whom there never are enough, and one of another type: they once took turns at asking, without an end."""
    packs = {True: Places(1), False: Places(2)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)
    too_many = await klingel.submit_async(**pictures(9))
    await klingel.until_row(too_many["id"], awaits_slot=1, slot_turn=1)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    await klingel.submit("kling.virtual-try-on", **TRY_ON)
    waiting = await klingel.submit_async("kling.virtual-try-on", **TRY_ON)
    await klingel.until_row(waiting["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    await ended(klingel, packs[False], running[0])
    for task in (waiting, too_many):
        await klingel.until_row(task["id"], awaits_slot=1, sends=2)
    await klingel.submit(VIDEO)  # when this one has been asked for, others would have
    assert [klingel.row(task["id"])["sends"] for task in (waiting, too_many)] == [2, 2]


async def test_places_freed_together_are_found_by_another_type_than_was_asked_first(klingel: Klingel) -> None:
    packs = {True: Places(1), False: Places(3)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)
    await klingel.submit("kling.virtual-try-on", **TRY_ON)
    running = await klingel.submit(**pictures(3))
    older = [await klingel.submit_async("kling.virtual-try-on", **TRY_ON) for _ in range(3)]
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
    for task in (*older, *waiting):
        await klingel.until_row(task["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    await ended(klingel, packs[False], running)
    for task in waiting:
        await klingel.until_status(task["id"], "submitted")


async def test_places_freed_while_somebody_asks_in_vain_are_found_at_once(klingel: Klingel) -> None:
    """The provider has said no before the end came: without another end nobody would ask for a minute."""
    places = klingel.kling.otherwise = Places(1)
    running = await klingel.submit(**pictures(1))
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking)
    late = await klingel.submit_async(**pictures(1))
    await klingel.kling.until(2)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running)
    thinking.end()
    await klingel.until_status(late["id"], "submitted")


async def test_who_asks_in_vain_while_others_are_given_what_becomes_free_makes_nobody_ask(
    klingel: Klingel,
) -> None:
    """Where there are ends all the time sixteen creates were on their way at any time, nearly all in vain."""
    places = klingel.kling.otherwise = Places(2)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1)
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[0])
    await klingel.kling.until(4)
    places.free = 0  # somebody else has it
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[1])
    await klingel.until_status(waiting[1]["id"], "submitted")
    thinking.end()
    await klingel.until_row(waiting[0]["id"], awaits_slot=1, sends=2)
    last = await klingel.submit_async(VIDEO)
    await klingel.until_row(last["id"], awaits_slot=1)  # when this one has asked, another would have
    assert [klingel.row(task["id"])["sends"] for task in waiting] == [2, 1, 0]


async def test_each_place_freed_while_several_ask_in_vain_is_found(klingel: Klingel) -> None:
    places = klingel.kling.otherwise = Places(2)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    thinking = [OpenCreate(FULL), OpenCreate(FULL)]
    klingel.kling.answers(*thinking)
    late = [await klingel.submit_async(**pictures(1)) for _ in range(2)]
    await klingel.kling.until(4)
    klingel.clock.advance(seconds=1)
    for task in running:
        await ended(klingel, places, task)
    for one in thinking:
        one.end()
    for task in late:
        await klingel.until_status(task["id"], "submitted")


@pytest.mark.parametrize(
    ("type", "body"), [("kling.virtual-try-on", TRY_ON), (VIDEO, {"input": dict(VIDEO_INPUT)})]
)
async def test_a_place_that_was_given_to_one_who_cannot_use_it_is_found_by_one_who_was_asking(
    klingel: Klingel, type: str, body: dict[str, Any]
) -> None:
    """A film, or what has a pack of its own, is given the place because no picture waits; but one is on its way."""
    packs = {True: Places(1), False: Places(2)}
    word = "try-on" if "try-on" in type else "video"
    klingel.kling.otherwise = lambda request: packs[word in request.url.path](request)
    await klingel.submit(type, **body)
    other = await klingel.submit_async(type, **body)
    await klingel.until_row(other["id"], awaits_slot=1)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking)
    late = await klingel.submit_async(**pictures(1))
    await klingel.kling.until(5)
    klingel.clock.advance(seconds=1)
    await ended(klingel, packs[False], running[0])
    await klingel.until_row(other["id"], awaits_slot=1, sends=2)
    thinking.end()
    await klingel.until_status(late["id"], "submitted")


async def test_a_place_goes_to_who_makes_something_else_where_nobody_else_waits(klingel: Klingel) -> None:
    """In the end the provider alone knows what shares places."""
    places = klingel.kling.otherwise = Places(1)
    running = await klingel.submit(**pictures(1))
    film = await klingel.submit_async(VIDEO)
    await klingel.until_row(film["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running)
    await klingel.until_status(film["id"], "submitted")


async def test_all_places_that_had_added_up_for_one_who_is_refused_for_good_go_to_others(
    klingel: Klingel,
) -> None:
    """Also where the first of them has a pack of its own, and finds none."""
    packs = {True: Places(1), False: Places(4)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)
    await klingel.submit("kling.virtual-try-on", **TRY_ON)
    running = [await klingel.submit(**pictures(1)) for _ in range(4)]
    many = await klingel.submit_async(**pictures(4))
    await klingel.until_row(many["id"], awaits_slot=1)
    older = await klingel.submit_async("kling.virtual-try-on", **TRY_ON)
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(4)]
    for task in (older, *waiting):
        await klingel.until_row(task["id"], awaits_slot=1)
    for number, task in enumerate(running[:3], start=2):
        klingel.clock.advance(seconds=1)
        await ended(klingel, packs[False], task)
        for asked in (many, older):
            await klingel.until_row(asked["id"], awaits_slot=1, sends=number)
    klingel.kling.answers(refused(400, 1301, "content-safety policy"))
    klingel.clock.advance(seconds=1)
    await ended(klingel, packs[False], running[3])
    await klingel.until_status(many["id"], "rejected")
    for task in waiting:
        await klingel.until_status(task["id"], "submitted")


async def test_who_is_put_off_for_another_reason_lets_the_next_ask_when_it_gets_its_place(
    klingel: Klingel,
) -> None:
    """Nothing runs by then whose end would."""
    places = klingel.kling.otherwise = Places(2)
    running = [await klingel.submit(**pictures(1)) for _ in range(2)]
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(3)]
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    klingel.kling.answers(*[refused(429, 1302, "too fast")] * 2)
    for task in running:
        await ended(klingel, places, task)
    for task, sends in zip(waiting, (2, 1), strict=False):
        await klingel.until_row(task["id"], awaits_slot=0, sends=sends, sending_since=None)
    places.free = 3
    klingel.clock.advance(seconds=13)
    for task in waiting:
        await klingel.until_status(task["id"], "submitted")


async def test_places_that_one_asks_for_are_not_given_to_those_behind_it(klingel: Klingel) -> None:
    """Where somebody ends while it is asking: so they add up also where there are ends all the time."""
    places = klingel.kling.otherwise = Places(3)
    running = [await klingel.submit(**pictures(1)) for _ in range(3)]
    needs_two = await klingel.submit_async(**pictures(2))
    await klingel.until_row(needs_two["id"], awaits_slot=1, sends=1)
    behind = await klingel.submit_async(**pictures(1))
    await klingel.until_row(behind["id"], awaits_slot=1)
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[0])
    await klingel.kling.until(5)
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running[1])
    thinking.end()
    await klingel.until_status(needs_two["id"], "submitted")
    assert klingel.kling.creates[5]["external_task_id"] == needs_two["external_task_id"]


async def test_a_place_that_one_type_cannot_use_goes_to_another_that_waits(klingel: Klingel) -> None:
    """Virtual try-on makes pictures, and has a pack of its own."""
    packs = {True: Places(1), False: Places(1)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)
    await klingel.submit("kling.virtual-try-on", **TRY_ON)
    running = await klingel.submit(**pictures(1))
    older = await klingel.submit_async("kling.virtual-try-on", **TRY_ON)
    await klingel.until_row(older["id"], awaits_slot=1, sends=1)
    waiting = await klingel.submit_async(**pictures(1))
    await klingel.until_row(waiting["id"], awaits_slot=1)
    klingel.clock.advance(seconds=1)
    await ended(klingel, packs[False], running)
    await klingel.until_status(waiting["id"], "submitted")
    assert klingel.row(older["id"])["awaits_slot"] == 1


async def test_who_needs_what_has_just_been_refused_is_not_asked(klingel: Klingel) -> None:
    """Somebody else fills the account: one has asked in vain, the others wait for their moments."""
    places = klingel.kling.otherwise = Places(1)
    running = await klingel.submit(**pictures(1))
    waiting = [await klingel.submit_async(**pictures(1)) for _ in range(5)]
    for task in waiting:
        await klingel.until_row(task["id"], awaits_slot=1)
    asked = len(klingel.kling.creates)
    places.free = -1
    klingel.clock.advance(seconds=1)
    await ended(klingel, places, running)
    await klingel.until_row(waiting[0]["id"], awaits_slot=1, sends=2)
    last = await klingel.submit_async("kling.multi-image-to-video")
    await klingel.until_row(last["id"], awaits_slot=1)  # when this one has gone, another would have
    assert len(klingel.kling.creates) == asked + 2


async def test_a_released_task_that_is_refused_passes_its_place_on(klingel: Klingel) -> None:
    """The place is still free then, and no further callback may come to say so."""
    running = await klingel.submit()
    klingel.kling.answers(FULL, refused(400, 1301, "content-safety policy"))
    first = await klingel.submit_async()
    await klingel.until_row(first["id"], awaits_slot=1)
    second, third = await klingel.submit_async(), await klingel.submit_async()
    for waiting in (second, third):
        await klingel.until_row(waiting["id"], awaits_slot=1)
    await klingel.call_back(succeed(running), number=0)
    await klingel.until_status(first["id"], "rejected")
    await klingel.until_status(second["id"], "submitted")
    assert klingel.row(third["id"])["awaits_slot"] == 1


async def test_an_unconfirmed_task_does_not_line_up_behind_one_that_waits_for_a_place(
    klingel: Klingel,
) -> None:
    """It may hold a place already; what it needs is an answer, in its own time."""
    thinking = OpenCreate(FULL)
    klingel.kling.answers(thinking, httpx.ReadTimeout("no answer"))
    first = await klingel.submit_async()
    await klingel.kling.until(1)
    second = await klingel.submit_async()
    await klingel.until_status(second["id"], "unconfirmed")
    thinking.end()
    await klingel.until_row(first["id"], awaits_slot=1)
    klingel.kling.otherwise = FULL
    klingel.clock.advance(seconds=119)
    await klingel.until_row(first["id"], awaits_slot=1, sends=2)
    klingel.kling.otherwise = None
    klingel.clock.advance(seconds=1)
    await klingel.until_status(second["id"], "submitted")
    assert klingel.row(first["id"])["awaits_slot"] == 1


@pytest.mark.parametrize("number", range(4))
async def test_whatever_comes_and_ends_no_place_stays_empty_while_all_who_wait_for_it_would_fit(
    klingel: Klingel, number: int
) -> None:
    """Each number is a story: tasks of three types, of which one has places of its own, come and end as chance has it. And
    after each of them some time nobody asks any more.
    """
    story = random.Random(number)
    packs = {True: Places(2), False: Places(5)}
    klingel.kling.otherwise = lambda request: packs["try-on" in request.url.path](request)

    async def nobody_asks() -> bool:
        [row] = klingel.rows(
            "select count(*) as number from tasks where sending_since is not null or next_send_at <= ?",
            milliseconds(klingel.clock()),
        )
        return not row["number"]

    for _ in range(50):
        klingel.clock.advance(milliseconds=story.randrange(1, 400))
        running = klingel.rows("select * from tasks where status = 'submitted' order by id")
        if running and story.random() < 0.5:
            row = story.choice(running)
            task = {
                "id": row["id"],
                "external_task_id": row["provider_external_id"],
                "provider_task_id": None,
            }
            await ended(klingel, packs["try-on" in row["type"]], {**task, "input": json.loads(row["input"])})
        else:
            many = pictures(story.choice([1, 1, 2, 3, 5, 7]))
            type, body = story.choice(
                [(IMAGE, many), ("kling.image-generation", GENERATION), ("kling.virtual-try-on", TRY_ON)]
            )
            await klingel.submit_async(type, **body)
        await klingel.until(nobody_asks)
        waiting = klingel.rows("select type, places from tasks where awaits_slot = 1")
        for own, places in packs.items():
            needed = [row["places"] for row in waiting if ("try-on" in row["type"]) is own]
            assert not needed or max(needed) > places.free
