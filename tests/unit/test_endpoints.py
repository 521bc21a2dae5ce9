"""`service.domain.endpoints`: which events go where, and with which secrets."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.endpoints import (
    LONGEST_FILTER,
    Endpoint,
    InvalidFilter,
    SealedSecret,
    check_filter,
    is_pattern,
    passes,
    selects,
)
from service.domain.events import EventType, endpoint_event
from service.domain.ids import AccountId, EndpointId

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TASK_EVENTS = {type for type in EventType if type.startswith("task.")}


def endpoint(**more: Any) -> Endpoint:
    given: dict[str, Any] = {
        "id": EndpointId("end_1"),
        "account_id": AccountId("acc_1"),
        "task_id": None,
        "kind": "webhook",
        "config": {},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Endpoint(**(given | more))


# Patterns


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["*"], set(EventType)),
        (["task.*"], TASK_EVENTS),
        (["task.succeeded"], {EventType.TASK_SUCCEEDED}),
        (["task.failed", "task.rejected"], {EventType.TASK_FAILED, EventType.TASK_REJECTED}),
        (["task.failed", "task.*"], TASK_EVENTS),
        (["output.*"], {EventType.OUTPUT_STORED, EventType.OUTPUT_EXPIRING}),
        ([], set()),
        (["task"], set()),
        (["task."], set()),
        (["tas.*"], set()),
        (["task*"], set()),
        (["*.succeeded"], set()),
        (["Task.Succeeded"], set()),
        ([""], set()),
    ],
)
def test_a_pattern_is_a_type_a_family_or_everything(
    patterns: Sequence[str], selected: set[EventType]
) -> None:
    assert {type for type in EventType if selects(patterns, type)} == selected


@given(st.text())
def test_a_pattern_is_what_selects_anything(pattern: str) -> None:
    assert is_pattern(pattern) == any(selects([pattern], type) for type in EventType)


@pytest.mark.parametrize(
    ("pattern", "known"), [("*", True), ("task.*", True), ("task.done", False), ("job.*", False), ("", False)]
)
def test_a_pattern_that_selects_nothing_is_none(pattern: str, known: bool) -> None:
    assert is_pattern(pattern) is known


# Filters

CONTENT = {
    "type": "task.succeeded",
    "sequence": 2,
    "data": {"task": {"metadata": {"customer": "c-1", "n": 0, "big": "1e999"}, "outputs": [{"index": 0}]}},
}


@pytest.mark.parametrize(
    ("expression", "passed"),
    [
        ("type == 'task.succeeded'", True),
        ("type == 'task.failed'", False),
        ("contains(['task.failed', 'task.succeeded'], type)", True),
        ("data.task.metadata.customer == 'c-1' && sequence > `1`", True),
        ("data.task.outputs[?index > `0`]", False),
        ("data.task.outputs[?index == `0`]", True),
        ("length(data.task.outputs) > `0`", True),
        # JMESPath's truth: null, false and what is empty are false; 0 is a value like any other
        ("data.task.metadata.unknown", False),
        ("data.task.metadata.n", True),
        ("`0`", True),
        ("''", False),
        ("`[]`", False),
        ("`{}`", False),
        ("`false`", False),
        ("`null`", False),
        ("'0'", True),
        ("[data.unknown]", True),
    ],
)
def test_a_filter_passes_what_it_finds_true(expression: str, passed: bool) -> None:
    check_filter(expression)
    assert passes(expression, CONTENT) is passed


@pytest.mark.parametrize(
    "expression",
    [
        "sum(type)",
        "unknown(@)",
        "data.task.outputs[::0]",
        "ceil(to_number(data.task.metadata.big))",
        'sort(`[1, "a"]`)',
        "((",
        "",
    ],
)
def test_a_filter_that_cannot_be_evaluated_over_an_event_lets_it_pass(expression: str) -> None:
    """Rather one event too many than one lost silently."""
    assert passes(expression, CONTENT) is True


@pytest.mark.parametrize("expression", ["", "((", "a b", "foo[", '`"`', "'", "!" * 900, "\x00", "a" * 1001])
def test_a_filter_that_is_none_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        check_filter(expression)
    assert len(str(raised.value).splitlines()) == 1


def repeated(part: str, joint: str) -> str:
    return joint.join([part] * ((LONGEST_FILTER - 40) // len(part + joint)))


HOSTILE = {
    "doubling lists": repeated("[@,@][]", "|"),
    "doubling depth": repeated("[@,@]", "|") + "|to_string(@)",
    "doubling fields": repeated("{a:@,b:@}", "|") + "|to_string(@)",
    "doubling escapes": "to_string(to_array(" * 43 + "@" + "))" * 43,
    "text of texts": "map(&'" + "x" * 20 + "',to_array(@))|" + repeated("[join(@[0],[@[0],@[0],@[0]])]", "|"),
    "deep nesting": "(" * 480 + "@" + ")" * 480,
}


@pytest.mark.parametrize("expression", HOSTILE.values(), ids=HOSTILE)
def test_nobody_waits_long_for_somebodys_hostile_filter(expression: str) -> None:
    """Unbounded, the first of these takes the memory of any machine, and the process with it."""
    assert len(expression) <= LONGEST_FILTER
    began = process_time()
    assert passes(expression, CONTENT) is True
    assert process_time() - began < 2


PARTS = """
    @ type data task metadata outputs index unknown a [] [*] [0] [-1] [::2] [::0] [?@] * . | || && ! == < ( ) , &
    `1` `null` `"x"` `[1,"a",null]` `{"a":1}` 'x' [ ] { } a: to_number( to_string( sort_by( max_by( map( merge( keys(
    values( sum( avg( join( length( reverse( contains( ceil( not_null( type( to_array( abs( floor( starts_with( min(
"""
expressions = st.lists(st.sampled_from(PARTS.split())).map("".join)
contents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["type", "data", "a"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None)  # the first expression compiled takes longer
@given(st.one_of(st.text(st.characters(exclude_characters="`")), expressions), contents)
def test_no_filter_over_no_event_breaks_its_publication(expression: str, content: Any) -> None:
    assert passes(expression, content) in {True, False}


# Endpoints


def happened() -> Any:
    return endpoint_event(EventType.ENDPOINT_TEST, AccountId("acc_1"), {"a": 1}, NOW)


def test_an_endpoint_wants_what_its_types_select_and_its_filter_passes() -> None:
    event = happened()
    assert endpoint(types=["*"]).wants(event, event.content())
    assert endpoint(types=["*"], filter="data.a == `1`").wants(event, event.content())
    assert not endpoint(types=["*"], filter="data.a == `2`").wants(event, event.content())
    assert not endpoint(types=["task.*"]).wants(event, event.content())


def test_a_disabled_endpoint_wants_nothing() -> None:
    event = happened()
    assert not endpoint(types=["*"], enabled=False, disabled_reason="gone").wants(event, event.content())


def test_while_secrets_overlap_both_sign_newest_first_and_then_the_new_one_alone() -> None:
    ends = NOW + timedelta(hours=24)
    rotating = endpoint(secrets=(SealedSecret("new", None), SealedSecret("old", ends)))
    assert rotating.signing_secrets(NOW) == ["new", "old"]
    assert rotating.signing_secrets(ends - timedelta(milliseconds=1)) == ["new", "old"]
    assert rotating.signing_secrets(ends) == ["new"]


def test_an_endpoint_shows_neither_its_secrets_nor_its_credentials() -> None:
    shown = endpoint(credentials="sealed-credentials", secrets=(SealedSecret("sealed-secret", None),)).view()
    assert "sealed" not in str(shown)
