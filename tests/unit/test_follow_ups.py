"""Follow-ups are tried before anything happens: what could never become a task is told where it is written."""

from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.endpoints import is_pattern
from service.domain.events import EventType
from service.domain.follow_ups import (
    ANY_PARENT,
    FOLLOWED,
    LARGEST_TEMPLATE,
    LONGEST_CHAIN,
    MOST_FAULTS,
    Parent,
    rehearse,
    rehearse_all,
    subscription,
)
from service.domain.task_types import TASK_TYPES
from service.submits import FollowUpBody

AUDIO = TASK_TYPES["kling.text-to-audio"]
IMAGE = TASK_TYPES["kling.multi-image-to-image"]
VIDEO = TASK_TYPES["kling.multi-image-to-video"]
PICTURES = [{"image": "https://example.com/a.png"}, {"image": "https://example.com/b.png"}]
ALL_OUTPUTS = {"$": "data.task.outputs[].{image: url}"}
FILM: Mapping[str, Any] = {"type": VIDEO.name, "input": {"prompt": "x", "image_list": ALL_OUTPUTS}}


def told(submit: object, *parents: Parent, types: tuple[str, ...] = ("task.succeeded",)) -> list[str]:
    found = rehearse(submit, types=types, parents=parents or ANY_PARENT, pointer="#")
    return [f"{fault.pointer} {fault.detail}" for fault in found]


def film(**input: Any) -> dict[str, Any]:
    return {**FILM, "input": {**FILM["input"], **input}}


def test_every_event_of_a_task_s_life_can_be_followed() -> None:
    assert set(get_args(FollowUpBody.model_fields["on"].annotation)) == set(FOLLOWED)
    assert set(FOLLOWED) == {type for type in EventType if type.startswith("task.")}


@pytest.mark.parametrize(
    ("asked", "listens"),
    [
        (None, ("task.succeeded", "task.outputs_added")),
        (["task.succeeded"], ("task.succeeded", "task.outputs_added")),
        (["task.failed"], ("task.failed",)),
        (["task.*"], ("task.*",)),
        (["task.succeeded", "task.outputs_added"], ("task.succeeded", "task.outputs_added")),
    ],
)
def test_who_waits_for_a_success_hears_of_late_outputs_too(asked: Any, listens: tuple[str, ...]) -> None:
    assert tuple(subscription(asked)) == listens
    assert all(is_pattern(each) for each in listens)


@pytest.mark.parametrize(("n", "entries"), [(None, 1), (1, 1), (5, 5), (9, 9)])
def test_the_number_of_things_that_a_known_task_makes_is_known(n: int | None, entries: int) -> None:
    parent = Parent(type=IMAGE, input={} if n is None else {"n": n}, metadata={})
    assert told(FILM, parent) == [f"#/input/image_list This list must have 2 to 4 entries; it has {entries}."]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_template_that_fits_has_no_faults(n: int) -> None:
    assert told(FILM, Parent(type=IMAGE, input={"n": n}, metadata={})) == []


def test_of_unknown_tasks_one_that_fits_is_enough() -> None:
    assert told(FILM) == []
    assert told(film(image_list=[{"image": {"$": "data.task.outputs[8].url"}}, PICTURES[0]])) == []
    assert told(film(image_list=[{"image": {"$": "data.task.outputs[9].url"}}, PICTURES[0]])) != []
    assert told(FILM, Parent(type=VIDEO)) != []


def test_what_people_keep_in_the_metadata_of_tasks_to_come_is_not_known() -> None:
    template = film(prompt="{{ data.task.metadata.title }}", image_list={"$": "data.task.metadata.pictures"})
    assert told(template) == []
    assert told(template, Parent(type=IMAGE, metadata={"title": "x", "pictures": PICTURES})) == []
    known = told(template, Parent(type=IMAGE, metadata={}))
    assert [line.split(" ")[0] for line in known] == ["#/input/prompt", "#/input/image_list"]


def test_a_misspelt_field_is_told_also_of_unknown_tasks() -> None:
    assert told(film(prompt="{{ data.task.idd }}")) == [
        "#/input/prompt 'data.task.idd' has no value over the event."
    ]


def test_each_type_of_event_must_fit_and_the_fault_says_which_does_not() -> None:
    assert told(film(prompt="{{ data.task.error.message }}"), types=("task.failed", "task.succeeded")) == [
        "#/input/prompt Over task.succeeded: 'data.task.error.message' has no value over the event.",
        "#/input/image_list Over task.failed: This list must have 2 to 4 entries; it has 0.",
    ]


@pytest.mark.parametrize("on", FOLLOWED)
def test_what_every_event_has_can_be_used_over_every_event(on: EventType) -> None:
    prompt = (
        "{{ id }} {{ type }} {{ timestamp }} {{ data.task.status }} {{ data.task.created_at }} {{ sequence }}"
    )
    assert told(film(prompt=prompt, image_list=PICTURES), types=(on,)) == []


@pytest.mark.parametrize(
    "broken",
    [{"$": "data["}, {"$": 5}, {"$": "type", "more": 1}, "{{ data[ }}", "{{ data[ }} {{ nothing( }}"],
)
def test_a_place_that_can_never_be_filled_hides_no_other_fault(broken: object) -> None:
    """It is told elsewhere, whatever the event, and not held against other fields."""
    wrong = film(prompt=broken, mode="fast", negative_prompt="{{ data.nothing }}", surprise=1)
    assert [line.split(" ")[0] for line in told(wrong)] == [
        "#/input/negative_prompt",
        "#/input/mode",
        "#/input/surprise",
    ]
    assert told(film(prompt=broken)) == []
    assert told(film(image_list=broken)) == []


def test_a_broken_expression_hides_none_of_the_same_text() -> None:
    assert told(film(prompt="{{ data[ }} {{ data.nothing }}")) == [
        "#/input/prompt 'data.nothing' has no value over the event."
    ]


def test_a_broken_place_counts_as_given() -> None:
    """Of two fields one is needed: nobody who meant one of them is told to give the other."""
    sound = TASK_TYPES["kling.video-to-audio"].name
    assert [line.split(" ")[0] for line in told({"type": sound, "input": {}})] == ["#/input/video_id"]
    assert told({"type": sound, "input": {"video_url": {"$": "data["}}}) == []


def test_what_is_nested_too_deep_hides_no_other_fault() -> None:
    deep: Any = "{{ data[ }}"
    for _ in range(50):
        deep = [deep]
    assert [line.split(" ")[0] for line in told(film(prompt=deep, surprise=1))] == [
        "#/input/prompt",
        "#/input/surprise",
    ]


@pytest.mark.parametrize(
    "submit",
    [
        {"type": "no.such", "input": {}},
        {"input": {}},
        {"type": VIDEO.name},
        {"type": VIDEO.name, "input": {"$": "data["}},
        {"type": VIDEO.name, "input": {"a": [{"$": "type"}] * 101}},
    ],
)
def test_a_template_that_cannot_be_tried_hides_no_fault_of_what_follows_it(submit: dict[str, Any]) -> None:
    inside = {"on": "task.succeeded", "submit": film(prompt="{{ data.task.idd }}", image_list=PICTURES)}
    assert told({**submit, "follow_ups": [inside]}) == [
        "#/follow_ups/0/submit/input/prompt 'data.task.idd' has no value over the event."
    ]
    inside["submit"] = film(prompt="{{ data.task.id }}", image_list=PICTURES)
    assert told({**submit, "follow_ups": [inside]}) == []


def test_a_picture_that_is_no_url_is_told() -> None:
    assert told(film(image_list=[{"image": "{{ data.task.id }}"}, *PICTURES])) == [
        "#/input/image_list/0/image A picture in a follow-up is an http(s) URL, or comes from the event as one."
    ]


def test_a_picture_that_is_no_url_is_told_with_what_else_is_wrong() -> None:
    faults = told(film(image_list=[{"image": "QQ=="}, {"image": "\u2028"}, 5], prompt=[None], n=1))
    assert [line.split(" ")[0] for line in faults] == [
        "#/input/image_list/0/image",
        "#/input/image_list/1/image",
        "#/input/image_list/2",
        "#/input/prompt",
        "#/input/n",
    ]


def test_what_follows_a_follow_up_is_tried_over_what_that_one_makes() -> None:
    def chained(n: int) -> dict[str, Any]:
        inside = {"on": "task.succeeded", "submit": film(prompt="{{ data.task.metadata.a }}")}
        pictures = {"subject_image_list": [{"subject_image": each["image"]} for each in PICTURES], "n": n}
        return {"type": IMAGE.name, "input": pictures, "metadata": {"a": "b"}, "follow_ups": [inside]}

    assert told(chained(2)) == []
    assert told(chained(5)) == [
        "#/follow_ups/0/submit/input/image_list This list must have 2 to 4 entries; it has 5."
    ]


def test_a_sound_can_be_used_in_either_of_its_forms() -> None:
    both = "{{ data.task.outputs[0].url }} {{ data.task.outputs[0].wav_url }}"
    template = film(prompt=both, image_list=PICTURES)
    assert told(template, Parent(type=AUDIO, input={}, metadata={})) == []
    assert told(template) == []
    assert told(template, Parent(type=IMAGE, input={}, metadata={})) != []


def test_a_film_that_comes_with_its_sound_can_be_used_too() -> None:
    prompt = (
        "{{ data.task.outputs[?kind=='video'].url | [0] }} {{ data.task.outputs[?kind=='audio'].url | [0] }}"
    )
    template = film(prompt=prompt, image_list=PICTURES)
    both = TASK_TYPES["kling.video-to-audio"]
    assert told(template, Parent(type=both, input={}, metadata={})) == []
    assert told(template) == []
    assert told(template, Parent(type=AUDIO, input={}, metadata={})) != []


def test_a_follow_up_knows_of_its_parent_and_only_it() -> None:
    inside = film(prompt="{{ data.task.parent_id }}", image_list=PICTURES)
    chained = film(image_list=PICTURES) | {"follow_ups": [{"on": "task.succeeded", "submit": inside}]}
    first = Parent(type=IMAGE, input={}, metadata={})
    assert told(chained, first) == []
    assert told(inside) == []  # of tasks to come any may be a follow-up
    assert told(inside, first) == ["#/input/prompt 'data.task.parent_id' has no value over the event."]


def test_what_a_success_has_cost_can_be_used() -> None:
    charge = "{{ data.task.cost[0].amount }} {{ data.task.cost[0].unit }} {{ data.task.cost[0].list_price }}"
    template = film(prompt=charge, image_list=PICTURES)
    assert told(template) == []
    assert len(told(template, types=("task.submitted",))) == 3


def test_costly_expressions_are_given_up_on() -> None:
    """Nobody else may wait for a template that somebody made up to be slow."""
    doubling = "|".join(["[@,@][]"] * 60)
    costly = {"on": "task.succeeded", "submit": film(**{f"a{n}": {"$": doubling} for n in range(5)})}
    found = rehearse_all(
        [costly] * 10, parents=[Parent(type=IMAGE, input={"n": 2}, metadata={})], pointer="#"
    )
    assert any("too many steps" in fault.detail for fault in found)


def test_a_flood_of_unknown_fields_is_one_fault_of_each_event() -> None:
    """Each of them would else be told of each event: seconds of work for a request of 32 KiB."""
    flood = film(**{f"f{n}": 0 for n in range(2500)})
    assert told(flood) == ["#/input This must have at most 100 fields; it has 2502."]
    assert len(told(flood, types=("task.*",))) == 7


def test_of_hundreds_of_faults_the_first_hundred_are_told() -> None:
    wrong = {"on": "task.failed", "submit": film(**{f"f{n}": 0 for n in range(60)})}
    assert len(told(wrong["submit"], types=("task.*",))) == MOST_FAULTS
    assert len(told({**FILM, "follow_ups": [wrong] * 5})) == MOST_FAULTS
    assert len(rehearse_all([wrong] * 5, parents=ANY_PARENT[:1], pointer="#")) == MOST_FAULTS


def test_the_limits_are_what_the_pages_say() -> None:
    assert (LONGEST_CHAIN, LARGEST_TEMPLATE) == (8, 32 * 1024)


names = st.sampled_from(
    ["type", "input", "metadata", "follow_ups", "on", "submit", "image_list", "image", "$", "n"]
)
words = st.sampled_from([IMAGE.name, VIDEO.name, "task.succeeded", "{{ type }}", "data.task", "{{ [ }}"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=20,
)


@given(anything, st.lists(st.sampled_from(["*", "task.*", *EventType]), min_size=1, max_size=3))
def test_any_json_can_be_rehearsed(submit: Any, types: list[str]) -> None:
    for fault in rehearse(submit, types=types, parents=ANY_PARENT, pointer="#/x"):
        assert fault.pointer.startswith("#/x/")


@given(st.fixed_dictionaries({"type": st.sampled_from(list(TASK_TYPES)), "input": anything}))
def test_any_template_can_be_rehearsed(submit: Any) -> None:
    rehearse_all([{"on": "task.succeeded", "submit": submit}], parents=ANY_PARENT[:1], pointer="#")
