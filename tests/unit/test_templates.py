"""Templates: literal, but for the places that an event fills."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.templates import Unfilled, faults, filled

EVENT = {
    "type": "task.succeeded",
    "data": {
        "task": {
            "id": "task_1",
            "outputs": [{"url": "https://a.test/0.png"}, {"url": "https://a.test/1.png"}],
        }
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"$": "data.task.outputs[].{image: url}"}, [{"image": f"https://a.test/{n}.png"} for n in (0, 1)]),
        ({"prompt": "after {{ data.task.id }} and {{type}}"}, {"prompt": "after task_1 and task.succeeded"}),
        ("{{ length(data.task.outputs) }} pictures", "2 pictures"),
        ({"a": [1, None, True, {"b": "literal"}]}, {"a": [1, None, True, {"b": "literal"}]}),
        ({"price": {"$": "`5`"}}, {"price": 5}),
        ("{ not a place }", "{ not a place }"),
    ],
)
def test_places_are_filled_and_all_else_is_literal(template: Any, expected: Any) -> None:
    assert list(faults(template)) == []
    assert filled(template, EVENT) == expected


@pytest.mark.parametrize("template", [{"$": "data.nothing"}, "{{ data.nothing }}", {"$": "abs(type)"}])
def test_an_expression_without_a_value_fills_nothing(template: Any) -> None:
    with pytest.raises(Unfilled):
        filled(template, EVENT)


def test_what_fills_a_place_is_not_itself_a_template() -> None:
    """A prompt or an id that looks like a template is text, and stays so."""
    event = {"data": {"task": {"id": "{{ type }}", "metadata": {"$": "type"}}}}
    assert filled({"a": "{{ data.task.id }}", "b": {"$": "data.task.metadata"}}, event) == {
        "a": "{{ type }}",
        "b": {"$": "type"},
    }


def test_every_broken_expression_is_told_with_its_place() -> None:
    template = {"a": {"$": "data["}, "b": ["ok", "{{ ( }}"], "c": {"$": "type", "d": 1}, "e": {"$": 5}}
    assert [found.path() for found in faults(template)] == ["/a", "/b/1", "/c", "/e"]


@given(JSON)
def test_any_json_is_checked_and_filled_or_told_why_not(template: Any) -> None:
    if not list(faults(template)):
        try:
            filled(template, EVENT)
        except Unfilled:
            return
