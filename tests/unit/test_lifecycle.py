"""`service.domain.lifecycle`: every pair of status and signal, and every order in which signals can come."""

import re
from enum import StrEnum
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.deliveries import AttemptOutcome, DeliveryStatus
from service.domain.events import ON_ARRIVAL, TERMINAL_EVENTS
from service.domain.lifecycle import (
    FROM_PROVIDER,
    MEANING,
    TERMINAL,
    TRANSITIONS,
    Signal,
    Status,
    Step,
    Verdict,
    advance,
)
from service.domain.tasks import Refusal
from storage.keys import KeyRole
from storage.statements import Dialect, load_statements

# How far along its life a task in this status is. Terminal ones are equally far: none comes after another.
RANK = {
    Status.QUEUED: 0,
    Status.UNCONFIRMED: 1,
    Status.SUBMITTED: 2,
    Status.PROCESSING: 3,
    Status.SUCCEEDED: 4,
    Status.FAILED: 4,
    Status.REJECTED: 4,
}

# What each signal, from left to right, does to a task in the status at the left: the status that it goes to, or why it
# stays (d: duplicate, s: stale, c: conflicting). Written by hand, not made from the table.
EXPECTED = """
             accepted   exists     refused   unknown      expired   submitted  started     completed  failed
queued       submitted  submitted  rejected  unconfirmed  rejected  submitted  processing  succeeded  failed
unconfirmed  submitted  submitted  rejected  d            s         submitted  processing  succeeded  failed
submitted    d          d          s         s            s         d          processing  succeeded  failed
processing   s          s          s         s            s         s          d           succeeded  failed
succeeded    s          s          c         s            c         s          s           d          c
failed       s          s          c         s            c         s          s           c          d
rejected     c          c          d         c            d         c          c           c          c
"""
STAYS = {"d": Verdict.DUPLICATE, "s": Verdict.STALE, "c": Verdict.CONFLICTING}


def expected_steps() -> list[tuple[Status, Signal, Step]]:
    head, *lines = EXPECTED.strip().splitlines()
    signals = [Signal(word) for word in head.split()]
    steps = []
    for line in lines:
        name, *cells = line.split()
        status = Status(name)
        for signal, cell in zip(signals, cells, strict=True):
            step = Step(STAYS[cell], status) if cell in STAYS else Step(Verdict.ADVANCED, Status(cell))
            steps.append((status, signal, step))
    return steps


def test_every_pair_is_expected_to_do_something() -> None:
    pairs = [(status, signal) for status, signal, _ in expected_steps()]
    assert sorted(pairs) == sorted((status, signal) for status in Status for signal in Signal)


@pytest.mark.parametrize(("status", "signal", "step"), expected_steps())
def test_each_signal_does_to_each_status_what_the_design_says(
    status: Status, signal: Signal, step: Step
) -> None:
    assert advance(status, signal) == step


def test_no_terminal_status_has_a_way_out() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0].is_terminal]
    assert {status for status in Status if status.is_terminal} == TERMINAL


def test_every_transition_goes_forward_to_what_its_signal_means() -> None:
    for (before, signal), after in TRANSITIONS.items():
        assert RANK[after] > RANK[before]
        assert MEANING[signal] is after


@given(st.lists(st.sampled_from(Signal)))
def test_no_order_of_signals_takes_a_task_backwards_or_through_two_ends(signals: list[Signal]) -> None:
    path = [Status.QUEUED]
    for signal in signals:
        step = advance(path[-1], signal)
        assert (step.verdict is Verdict.ADVANCED) == (step.status is not path[-1])
        path.append(step.status)
    ranks = [RANK[status] for status in path]
    assert ranks == sorted(ranks)
    assert len(set(path) & TERMINAL) <= 1


@given(st.lists(st.sampled_from(Signal)))
def test_a_signal_repeated_at_once_changes_nothing_more(signals: list[Signal]) -> None:
    """A provider repeats its callbacks: the second of two never advances, wherever in a life they come."""
    status = Status.QUEUED
    for signal in signals:
        status = advance(status, signal).status
        again = advance(status, signal)
        assert again.status is status
        assert again.verdict is not Verdict.ADVANCED


@given(st.permutations(sorted(FROM_PROVIDER - {Signal.FAILED})))
def test_callbacks_in_any_order_end_where_they_end_in_order(signals: list[Signal]) -> None:
    status = Status.SUBMITTED
    for signal in signals:
        status = advance(status, signal).status
    assert status is Status.SUCCEEDED


def test_every_status_in_which_a_task_arrives_has_its_event() -> None:
    assert set(ON_ARRIVAL) == set(TRANSITIONS.values()) == set(Status) - {Status.QUEUED}
    for status, event_type in ON_ARRIVAL.items():
        assert event_type == f"task.{status}"
    assert {ON_ARRIVAL[status] for status in TERMINAL} == TERMINAL_EVENTS


# The schema says the same words


def schema() -> str:
    """All migrations in their order, without comments."""
    folder = files("storage") / "migrations" / "sqlite"
    texts = sorted((file.name, file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql"))
    return re.sub(r"--.*", "", "\n".join(text for _, text in texts))


def words(listed: str) -> set[str]:
    return set(re.findall(r"'(\w+)'", listed))


def table(name: str) -> str:
    """Its text as the last migration to make it has it."""
    return re.findall(rf"create table {name} \((.*?)\n\)", schema(), re.DOTALL)[-1]


def partial_indexes(of: str) -> list[str]:
    """The conditions of those that are left when all migrations are done."""
    made: dict[str, str] = {}
    for name, on, condition, dropped in re.findall(
        r"create (?:unique )?index (\w+) on (\w+) [^;]*?(?:\bwhere ([^;]*))?;|drop index (\w+);", schema()
    ):
        if dropped:
            del made[dropped]
        else:
            made[name] = condition if on == of else ""
    return list(filter(None, made.values()))


@pytest.mark.parametrize(
    ("name", "column", "kind"),
    [
        ("tasks", "status", Status),
        ("tasks", "error_refusal", Refusal),
        ("callbacks", "verdict", Verdict),
        ("deliveries", "status", DeliveryStatus),
        ("attempts", "outcome", AttemptOutcome),
        ("api_keys", "role", KeyRole),
    ],
)
def test_the_schema_allows_the_words_of_the_code_and_no_others(
    name: str, column: str, kind: type[StrEnum]
) -> None:
    [listed] = re.findall(
        rf"^\s*{column} text[^,]*?check \(((?:[^()]|\([^()]*\))*)\)", table(name), re.DOTALL | re.MULTILINE
    )
    assert words(listed) == set(kind)


@pytest.mark.parametrize("name", ["tasks", "transitions", "callbacks", "events", "deliveries", "attempts"])
def test_no_check_of_what_is_written_for_each_callback_makes_sqlite_build_a_list_for_each_row(
    name: str,
) -> None:
    """Of three words and more it makes a table, anew for each row: said with `or` they are compared."""
    listed = re.findall(r"\bin \(([^()]*)\)", table(name) + "".join(partial_indexes(name)))
    assert not [each for each in listed if each.count(",") >= 2]


def test_the_schema_ties_a_moment_of_finishing_to_the_terminal_statuses() -> None:
    [listed] = re.findall(r"\(finished_at is not null\) = \(([^()]*)\)", table("tasks"))
    assert words(listed) == TERMINAL


def test_deadlines_are_looked_up_for_what_has_not_ended_and_by_its_index() -> None:
    [condition] = [each for each in partial_indexes("tasks") if "overdue_at" in each]
    assert " ".join(condition.split()) == "overdue_at is null and finished_at is null"
    for dialect in Dialect:
        statements = load_statements(dialect)
        for name in ("due_deadlines", "next_deadline_at"):
            assert condition in statements[name]
