"""`service.domain.expressions`: JMESPath that nobody waits long for, whoever made it up."""

import re
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.expressions import (
    LONGEST_EXPRESSION,
    CannotEvaluate,
    InvalidExpression,
    Steps,
    check,
    evaluate,
)

STEPS = 5_000
MIB = 2**20
CONTENT = {
    "type": "task.succeeded",
    "data": {
        "task": {"metadata": {"customer": "c-1", "big": "1e999"}, "outputs": [{"url": "u"}, {"url": "v"}]}
    },
}


@pytest.mark.parametrize("expression", ["", "((", "a b", "foo[", '`"`', "'", "!" * 900, "\x00", "a" * 1001])
def test_what_is_no_expression_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(InvalidExpression) as raised:
        check(expression)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("lenght(data.task.outputs) > `1`", "there is no function lenght()"),
        ("data.a && {b: [c[?sort_by(@, &unknown(d))]]}", "there is no function unknown()"),
        ("length()", "length() takes 1 argument, not 0"),
        ("type(a, b)", "type() takes 1 argument, not 2"),
        ("!contains(a)", "contains() takes 2 arguments, not 1"),
        ("not_null()", "not_null() takes at least 1 argument, not 0"),
    ],
)
def test_a_call_that_no_content_could_make_work_is_refused(expression: str, fault: str) -> None:
    with pytest.raises(InvalidExpression, match=f"^{re.escape(fault)}$"):
        check(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "not_null(a, b, c)",
        "merge(@)",
        "length(a[::2]) > `0` && lenght",
        """`{"type": "function_expression", "value": "lenght", "children": []}`""",
    ],
)
def test_what_only_looks_like_a_wrong_call_is_taken(expression: str) -> None:
    check(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("type", "task.succeeded"),
        ("data.task.outputs[].url", ["u", "v"]),
        ("{first: data.task.outputs[0].url}", {"first": "u"}),
        ("data.unknown", None),
        ("join(', ', data.task.outputs[].url)", "u, v"),
    ],
)
def test_an_expression_has_a_value_over_its_content(expression: str, value: Any) -> None:
    check(expression)
    assert evaluate(expression, CONTENT, steps=Steps(STEPS)) == value


@pytest.mark.parametrize(
    "expression",
    ["sum(type)", "unknown(@)", "data.task.outputs[::0]", "ceil(to_number(data.task.metadata.big))", "(("],
)
def test_what_breaks_over_its_content_says_so_in_one_line(expression: str) -> None:
    with pytest.raises(CannotEvaluate) as raised:
        evaluate(expression, CONTENT, steps=Steps(STEPS))
    assert len(str(raised.value).splitlines()) == 1


# What it may cost


def test_each_evaluation_takes_from_the_steps_and_allows_none_once_they_are_spent() -> None:
    steps = Steps(STEPS)
    lefts = [steps.left]
    with pytest.raises(CannotEvaluate):
        while lefts[-1] > 0:
            evaluate("data.task.outputs[].url", CONTENT, steps=steps)
            lefts.append(steps.left)
    assert len(lefts) > 50
    assert len({before - after for before, after in pairwise(lefts)}) == 1
    with pytest.raises(CannotEvaluate):
        evaluate("type", CONTENT, steps=steps)


def test_a_part_of_the_steps_ends_with_itself_or_with_the_whole() -> None:
    whole = Steps(100)
    part = whole.part(40)
    with pytest.raises(CannotEvaluate):
        evaluate("x" * 50, CONTENT, steps=part)
    assert whole.left < 60
    assert evaluate("type", CONTENT, steps=whole.part(40)) == "task.succeeded"
    with pytest.raises(CannotEvaluate):
        evaluate("x" * 70, CONTENT, steps=whole.part(1000))


def test_a_long_expression_costs_what_it_takes_to_parse_it() -> None:
    """Thousands of different ones are more than anybody remembers parsed."""
    steps = Steps(STEPS)
    evaluate("x" * 900, CONTENT, steps=steps)
    assert steps.left < STEPS - 900


def repeated(part: str, joint: str) -> str:
    return joint.join([part] * ((LONGEST_EXPRESSION - 40) // len(part + joint)))


HOSTILE = {
    "doubling lists": repeated("[@,@][]", "|"),
    "doubling depth": repeated("[@,@]", "|") + "|to_string(@)",
    "doubling fields": repeated("{a:@,b:@}", "|") + "|to_string(@)",
    "doubling escapes": "to_string(to_array(" * 43 + "@" + "))" * 43,
    "text of texts": "map(&'" + "x" * 20 + "',to_array(@))|" + repeated("[join(@[0],[@[0],@[0],@[0]])]", "|"),
    "deep nesting": "(" * 480 + "@" + ")" * 480,
}


@pytest.mark.parametrize("expression", HOSTILE.values(), ids=HOSTILE)
def test_nobody_waits_long_for_somebodys_hostile_expression(expression: str) -> None:
    """Unbounded, the first of these takes the memory of any machine, and the process with it."""
    assert len(expression) <= LONGEST_EXPRESSION
    tracemalloc.start()
    try:
        with pytest.raises(CannotEvaluate):
            evaluate(expression, CONTENT, steps=Steps(STEPS))
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


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
def test_no_expression_over_no_content_breaks_anything_but_itself(expression: str, content: Any) -> None:
    with suppress(CannotEvaluate):
        evaluate(expression, content, steps=Steps(STEPS))
