"""`service.domain.endpoints`: which events go where, and with which secrets."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.endpoints import (
    ENDPOINTS_OF_AN_ACCOUNT,
    LONGEST_LANE,
    STEPS_OF_A_FILTER,
    STEPS_OF_AN_EVENT,
    Endpoint,
    SealedSecret,
    is_pattern,
    selects,
    sift,
)
from service.domain.events import EventType, endpoint_event
from service.domain.expressions import Steps, check
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


def passes(expression: str, content: object, steps: Steps) -> bool:
    return sift(expression, content, steps).goes


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
    check(expression)
    assert passes(expression, CONTENT, Steps(STEPS_OF_A_FILTER)) is passed


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
    assert passes(expression, CONTENT, Steps(STEPS_OF_A_FILTER)) is True


def test_a_filter_gets_its_share_of_what_an_event_may_cost() -> None:
    """One that is made to be slow takes nothing from the next."""
    steps = Steps(STEPS_OF_AN_EVENT)
    slow = "|".join(["[@,@]"] * 50)
    assert passes(slow, CONTENT, steps)
    assert STEPS_OF_AN_EVENT - STEPS_OF_A_FILTER * 1.1 < steps.left < STEPS_OF_AN_EVENT
    assert not passes("type == 'task.failed'", CONTENT, steps)


def test_an_event_for_many_costly_filters_is_evaluated_so_far_and_then_passes() -> None:
    """Nobody waits for the rest: 200 endpoints with such filters had held up everybody for seconds."""
    steps = Steps(STEPS_OF_AN_EVENT)
    slow = "|".join(["[@,@]"] * 50)
    began = thread_time()
    assert all(passes(f"{slow}|`{number}`", CONTENT, steps) for number in range(200))
    assert thread_time() - began < 1
    assert passes("type == 'task.failed'", CONTENT, steps)


def test_all_filters_that_an_account_can_have_are_evaluated_if_they_are_not_made_to_be_slow() -> None:
    steps = Steps(STEPS_OF_AN_EVENT)
    plain = (
        "type == 'task.succeeded' && data.task.metadata.customer == 'c-{}' && length(data.task.outputs) > `0`"
    )
    passed = [passes(plain.format(number), CONTENT, steps) for number in range(ENDPOINTS_OF_AN_ACCOUNT)]
    assert [number for number, each in enumerate(passed) if each] == [1]


# Where they lead, and with whom they wait


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({"url": "https://Example.com/hook?to=https://other.example"}, "example.com"),
        ({"url": "http://user:word@example.com:8080"}, "example.com:8080"),
        ({"url": "https://[2001:DB8:0::1]:8443/"}, "[2001:db8::1]:8443"),
        ({"url": "nats://example.com:4222"}, "example.com:4222"),
        ({"url": "https://[broken"}, "webhook"),
        ({"url": "nothing"}, "webhook"),
        ({"url": 5}, "webhook"),
        ({}, "webhook"),
    ],
)
def test_the_host_is_that_of_the_url_or_the_kind(config: dict[str, Any], host: str) -> None:
    assert endpoint(config=config).host == host


def test_endpoints_of_tasks_share_a_lane_with_those_of_their_account_at_their_host_alone() -> None:
    def lane(**more: Any) -> str:
        return endpoint(**({"config": {"url": "https://example.com/a"}} | more)).lane

    mine = lane(task_id="task_1")
    assert mine == lane(task_id="task_2", id="end_2", config={"url": "https://example.com/b"})
    assert mine != lane(task_id="task_1", config={"url": "https://other.example/a"})
    assert mine != lane(task_id="task_1", account_id="acc_2")
    assert lane() == "end_1"
    assert lane(id="end_2") == "end_2"


@pytest.mark.parametrize(
    "url",
    [
        "https://EXAMPLE.com/", "https://example.com:443/", "https://example.com:00443", "https://example.com./",
        "https://example.com:/", "https://ｅxample.com:٤٤٣/", "https://user@example.com/",
    ],
)  # fmt: skip
def test_a_host_is_one_however_it_is_spelled(url: str) -> None:
    assert endpoint(config={"url": url}).shown_host == "example.com"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com:" + "٠" * 4000 + "80/",
        "nats://[2606:4700::1111%" + "x" * 4000 + "]:4222",
        "https://" + "a" * 4000 + "/",
    ],
)
def test_no_url_makes_a_lane_too_long_for_an_index(url: str) -> None:
    assert len(endpoint(config={"url": url}, task_id="task_1").lane) <= LONGEST_LANE


# Endpoints


def happened() -> Any:
    return endpoint_event(EventType.ENDPOINT_TEST, AccountId("acc_1"), {"a": 1}, NOW)


def test_an_endpoint_wants_what_its_types_select_and_its_filter_passes() -> None:
    event = happened()
    assert endpoint(types=["*"]).wants(event, event.content(), Steps(STEPS_OF_AN_EVENT))
    assert endpoint(types=["*"], filter="data.a == `1`").wants(
        event, event.content(), Steps(STEPS_OF_AN_EVENT)
    )
    assert not endpoint(types=["*"], filter="data.a == `2`").wants(
        event, event.content(), Steps(STEPS_OF_AN_EVENT)
    )
    assert not endpoint(types=["task.*"]).wants(event, event.content(), Steps(STEPS_OF_AN_EVENT))


def test_a_disabled_endpoint_wants_nothing() -> None:
    event = happened()
    assert not endpoint(types=["*"], enabled=False, disabled_reason="gone").wants(
        event, event.content(), Steps(STEPS_OF_AN_EVENT)
    )


def test_while_secrets_overlap_both_sign_newest_first_and_then_the_new_one_alone() -> None:
    ends = NOW + timedelta(hours=24)
    rotating = endpoint(secrets=(SealedSecret("new", None), SealedSecret("old", ends)))
    assert rotating.signing_secrets(NOW) == ["new", "old"]
    assert rotating.signing_secrets(ends - timedelta(milliseconds=1)) == ["new", "old"]
    assert rotating.signing_secrets(ends) == ["new"]


def test_an_endpoint_shows_neither_its_secrets_nor_its_credentials() -> None:
    shown = endpoint(credentials="sealed-credentials", secrets=(SealedSecret("sealed-secret", None),)).view()
    assert "sealed" not in str(shown)
