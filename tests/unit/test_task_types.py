"""The catalogue: what its rows must keep, and what is made of them."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.providers.kling.requests import create_request, query_path
from service.catalogue import PAGE, page
from service.domain.creates import Order
from service.domain.errors import Fault
from service.domain.faults import InvalidFields
from service.domain.ids import AccountId, TaskId
from service.domain.inputs import validate
from service.domain.lifecycle import Status
from service.domain.task_types import (
    TASK_TYPES,
    WORDS,
    Layout,
    NotSold,
    Standard,
    TaskType,
    row_for,
    rows_for,
)
from service.domain.tasks import Task

ROOT = Path(__file__).parents[2]
ROWS = [pytest.param(row, id=row.name) for row in TASK_TYPES.values()]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "https://example.com/a.png"


def order(type: str, path: str | None = None, **input: Any) -> Order:
    return Order(
        task_id=TaskId("task_1"),
        type=type,
        input=input,
        external_task_id="job-1",
        callback_url="https://klingel.example.com/c",
        path=path,
    )


def task(type: str, provider_task_id: str | None = "88/1", **input: Any) -> Task:
    return Task(
        id=TaskId("task_1"),
        account_id=AccountId("acc_1"),
        type=type,
        provider="kling",
        status=Status.SUBMITTED,
        input=input,
        external_task_id="job-1",
        provider_external_id="job-1",
        provider_task_id=provider_task_id,
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW,
    )


def test_nothing_else_in_the_code_names_a_type() -> None:
    names = re.compile("|".join(rf"{re.escape(name)}(?![\w-])" for name in TASK_TYPES))
    found = {
        str(file.relative_to(ROOT)): name[0]
        for folder in ("service", "handlers", "storage")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".html", ".js", ".sql"} and "task_types" not in file.parts
        if (name := names.search(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_page_of_the_docs_is_made_of_the_rows() -> None:
    """`python -m service.catalogue` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_each_path_has_at_most_two_kinds_and_a_field_tells_them_apart() -> None:
    for layout in (Layout.COMETAPI, Layout.OFFICIAL):
        routes = [route for row in TASK_TYPES.values() for route in row.routes.get(layout, ())]
        shared = [path for path, number in Counter(route.path for route in routes).items() if number > 1]
        for path in shared:
            telling = [route.told_by for route in routes if route.path == path]
            assert len(telling) == 2
            assert len([field for field in telling if field is not None]) == 1


@pytest.mark.parametrize("row", ROWS)
def test_every_row_says_where_its_facts_are_from(row: TaskType) -> None:
    assert row.facts
    assert all(fact.text.endswith(".") and fact.source for fact in row.facts)
    assert all(route.source for routes in row.routes.values() for route in routes)
    assert set(row.retired_models) <= set(row.models)
    assert row.examples
    for example in row.examples:
        validate(row.input_model, example)


@pytest.mark.parametrize("row", ROWS)
def test_a_default_model_is_one_that_is_known(row: TaskType) -> None:
    field = row.input_model.model_fields.get("model_name")
    assert (field is None) is (not row.models)
    assert field is None or field.default in row.models


AWKWARD: Sequence[Any] = (
    None, True, -1, 0, 2.5, 10**30, 10**400, "9" * 5000, "", " ", "x", "x" * 3100, "\0", "\ud800", URL, "simple", "customize", "base",
    [], [None], [[]], ["x"] * 50, [{}], [{"type": "prompt"}], [{"type": []}], [{"id": "a", "type": "element"}] * 3,
    {}, {"type": "simple", "config": []}, {"enabled": 1}, {"audio": "native"}, {"mode": "audio2video"}, {"image": {}},
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_whatever_stands_in_one_field_is_accepted_or_refused_at_a_place_that_it_has(row: TaskType) -> None:
    for example in row.examples:
        for name in row.input_model.model_fields:
            for value in AWKWARD:
                _judge(row, {**example, name: value})
    for value in AWKWARD:
        _judge(row, value)


@settings(max_examples=100)
@given(data=st.data())
def test_so_is_whatever_stands_in_several(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from([*TASK_TYPES.values()]))
    fields = st.sampled_from([*row.input_model.model_fields])
    more = data.draw(st.dictionaries(fields, st.sampled_from(AWKWARD), min_size=1, max_size=5))
    _judge(row, {**data.draw(st.sampled_from(row.examples)), **more})


def _judge(row: TaskType, raw: object) -> None:
    for fault in _faults(row, raw):
        assert _leads_somewhere(fault.pointer, raw), (raw, fault)


def _faults(row: TaskType, raw: object) -> Sequence[Fault]:
    try:
        validate(row.input_model, raw)
    except InvalidFields as refused:
        return refused.faults
    return ()


def _leads_somewhere(pointer: str, raw: object) -> bool:
    """To a place in the JSON, or to one that is missing there."""
    here: object = {"input": raw}
    steps = pointer.removeprefix("#/").split("/")
    for number, step in enumerate(steps):
        match here:
            case dict() if step in here:
                here = here[step]
            case list() if step.isdecimal() and int(step) < len(here):
                here = here[int(step)]
            case _:
                return number == len(steps) - 1
    return True


# Requests


def test_in_the_new_standard_the_model_is_in_the_path_and_our_own_stand_in_the_options() -> None:
    row = TASK_TYPES["kling.new.text-to-video"]
    asked = order(row.name, model_name="kling-3.0", prompt="a", options={"watermark_info": {"enabled": True}})
    request = create_request(row.route(Layout.OFFICIAL), asked)
    assert request.path == "/text-to-video/kling-3.0"
    assert request.fields == {
        "prompt": "a",
        "options": {
            "watermark_info": {"enabled": True},
            "callback_url": "https://klingel.example.com/c",
            "external_task_id": "job-1",
        },
    }


def test_in_the_older_one_they_stand_beside_the_fields() -> None:
    row = TASK_TYPES["kling.text-to-video"]
    request = create_request(row.route(Layout.COMETAPI), order(row.name, model_name="kling-v3", prompt="a"))
    assert request.path == "/kling/v1/videos/text2video"
    assert request.fields == {
        "model_name": "kling-v3",
        "prompt": "a",
        "callback_url": "https://klingel.example.com/c",
        "external_task_id": "job-1",
    }


@pytest.mark.parametrize(
    ("type", "layout", "known", "path"),
    [
        ("kling.avatar", Layout.COMETAPI, "88/1", "/kling/v1/videos/avatar/image2video/88%2F1"),
        ("kling.avatar", Layout.OFFICIAL, None, "/v1/videos/avatar/image2video/job-1"),
        ("kling.new.omni-video", Layout.OFFICIAL, "88/1", "/tasks?task_ids=88%2F1"),
        ("kling.new.omni-video", Layout.SANDBOX, None, "/tasks?external_task_ids=job-1"),
    ],
)
def test_each_standard_is_asked_in_its_own_place(
    type: str, layout: Layout, known: str | None, path: str
) -> None:
    assert query_path(TASK_TYPES[type].route(layout), task(type, known)) == path


# Where it is sold, and what it takes


def test_what_a_layout_has_no_path_for_is_not_sold_there() -> None:
    row = TASK_TYPES["kling.new.text-to-video"]
    assert not row.sold_at(Layout.COMETAPI)
    assert row.sold_at(Layout.SANDBOX)
    with pytest.raises(NotSold):
        row.route(Layout.COMETAPI)


def test_a_caller_gets_the_path_that_it_has_asked_at() -> None:
    row = TASK_TYPES["kling.multi-image-to-image"]
    older, newer = row.routes[Layout.COMETAPI]
    assert row.route(Layout.COMETAPI, newer.path) is newer
    assert row.route(Layout.COMETAPI, "/elsewhere") is older
    assert row.route(Layout.OFFICIAL, newer.path).standard is Standard.LEGACY


@pytest.mark.parametrize(
    ("type", "input", "number"),
    [
        ("kling.image-generation", {"n": 4}, 4),
        ("kling.image-generation", {}, 1),
        ("kling.text-to-video", {"n": 4}, 1),
        ("kling.virtual-try-on", {}, 1),
        ("kling.omni-image", {"n": 3}, 3),
        ("kling.omni-image", {"n": 3, "result_type": "series"}, 4),
        ("kling.omni-image", {"result_type": "series", "series_amount": 7}, 7),
        ("kling.omni-image", {"result_type": "series", "series_amount": "auto"}, 9),
        ("kling.raw", {"places": 5}, 5),
    ],
)
def test_places_go_by_the_input(type: str, input: dict[str, Any], number: int) -> None:
    """Kling, "Concurrency Rules": an image task takes `n` of them, others one."""
    assert TASK_TYPES[type].places(input) == number


def test_for_every_number_of_pictures_up_to_four_a_word_means_one_kind() -> None:
    for word in WORDS:
        for pictures in range(5):
            meant = [
                row for row in rows_for(word) if row.words and row.words.fewest <= pictures <= row.words.most
            ]
            assert meant == [row_for(word, pictures)]
        assert row_for(word, 9) is rows_for(word)[0]
    with pytest.raises(KeyError):
        row_for("dance", 0)
