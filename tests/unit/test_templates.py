"""Templates: literal, but for the places that an event fills."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.expressions import Steps
from service.domain.templates import DEEPEST, MOST_PLACES, Filled, faults, fill

EVENT = {
    "type": "task.succeeded",
    "data": {
        "task": {
            "id": "task_1",
            "metadata": {},
            "outputs": [{"url": "https://a.test/0.png"}, {"url": "https://a.test/1.png"}],
        }
    },
}
PLACES = st.sampled_from(
    [{"$": "data.task.outputs"}, "{{ type }}", "{{ nothing }}", {"$": "((("}, {"$": 1}, "{{}}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | PLACES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$"), inner),
    max_leaves=20,
)


def filled(template: Any, *, steps: int = 20_000) -> Filled:
    return fill(template, EVENT, steps=Steps(steps))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"$": "data.task.outputs[].{image: url}"}, [{"image": f"https://a.test/{n}.png"} for n in (0, 1)]),
        ({"prompt": "after {{ data.task.id }} and {{type}}"}, {"prompt": "after task_1 and task.succeeded"}),
        ("{{ length(data.task.outputs) }} pictures: {{ data.task.metadata }}", "2 pictures: {}"),
        ({"a": [1, None, True, {"b": "literal"}]}, {"a": [1, None, True, {"b": "literal"}]}),
        ({"price": {"$": "`5`"}}, {"price": 5}),
        ({"no": {"$": "`false`"}}, {"no": False}),
        ("{ not a place }", "{ not a place }"),
        ("}} {{ type }} }} {{ open", "}} task.succeeded }} {{ open"),
    ],
)
def test_places_are_filled_and_all_else_is_literal(template: Any, expected: Any) -> None:
    assert faults(template) == []
    assert filled(template) == Filled(expected, ())


def test_every_place_without_a_value_is_a_gap_that_says_why() -> None:
    template = {"a": [{"$": "data.nothing"}], "b": "x {{ data.nothing }} {{ abs(type) }}", "c": "{{ type }}"}
    found = filled(template)
    assert found.value == {"a": [None], "b": None, "c": "task.succeeded"}
    assert [gap.location for gap in found.gaps] == [("a", 0), ("b",), ("b",)]
    assert found.gaps[0].detail == "'data.nothing' has no value over the event."
    assert found.gaps[2].detail.startswith("'abs(type)' breaks over the event: ")


@pytest.mark.parametrize("expression", ["&data", "[&data]", '`"\\ud800"`', '{"\\ud800": type}'])
def test_what_is_no_json_is_a_gap(expression: str) -> None:
    """JMESPath has values that no provider could be sent."""
    found = filled({"a": {"$": expression}, "b": f"x {{{{ {expression} }}}}"})
    assert found.value == {"a": None, "b": None}
    assert [gap.location for gap in found.gaps] == [("a",), ("b",)]
    assert found.gaps[0].detail == f"{expression!r} gives no JSON over the event."


def test_what_fills_a_place_is_not_itself_a_template() -> None:
    """A prompt or an id that looks like a template is text, and stays so."""
    event = {"data": {"task": {"id": "{{ type }}", "metadata": {"$": "type"}}}}
    template = {"a": "{{ data.task.id }}", "b": {"$": "data.task.metadata"}}
    assert fill(template, event, steps=Steps(1000)).value == {"a": "{{ type }}", "b": {"$": "type"}}


def test_every_broken_expression_is_told_with_its_place() -> None:
    template = {"a": {"$": "data["}, "b": ["ok", "{{ ( }}"], "c": {"$": "type", "d": 1}, "e": {"$": 5}}
    assert [found.path() for found in faults(template)] == ["/a", "/b/1", "/c", "/e"]


def test_a_template_is_neither_too_deep_nor_too_full_of_places() -> None:
    deep: Any = "{{ type }}"
    for _ in range(DEEPEST):
        deep = [deep]
    assert faults(deep) == []
    assert [found.detail for found in faults([deep])] == ["A template is nested at most 32 levels deep."]
    many = ["{{ type }}"] * MOST_PLACES
    assert faults(many) == []
    assert [found.path() for found in faults([*many, {"$": "type"}])] == [""]


def test_a_text_is_read_once_however_many_places_are_opened_in_it() -> None:
    """Else a few thousand braces would keep everybody waiting for half a minute."""
    assert faults("{{" * 1_000_000) == []


def test_expressions_share_their_steps() -> None:
    """A hundred that cost little each must not cost much together."""
    template = ["{{ data.task.outputs[].url | join(',', @) }}"] * MOST_PLACES
    assert filled(template, steps=1_000_000).gaps == ()
    found = filled(template, steps=2_000)
    assert 0 < len(found.gaps) < MOST_PLACES
    assert all("too many steps" in gap.detail for gap in found.gaps)


@given(JSON)
def test_any_json_is_checked_and_filled(template: Any) -> None:
    """Where nothing is wrong and nothing is missing, the value has the template's shape."""
    if faults(template) == []:
        found = filled(template)
        if not found.gaps and isinstance(template, dict) and "$" not in template:
            assert found.value.keys() == template.keys()


@given(JSON)
def test_what_has_no_places_is_left_as_it_is(template: Any) -> None:
    if "$" not in repr(template) and "{{" not in repr(template):
        assert filled(template) == Filled(template, ())
