"""`service.domain.transitions`: whatever callbacks repeat, reorder or contradict each other, one story comes of it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.costs import Charge
from service.domain.events import ON_ARRIVAL, EventType
from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import FROM_PROVIDER, Signal, Status, Verdict
from service.domain.tasks import Output, OutputKind, Report, Task, TaskError
from service.domain.transitions import Change, overall, overdue, reported, signalled
from service.domain.values import replace

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
REFUSAL = TaskError("1201", "no")


def task(**more: object) -> Task:
    born = Task(
        id=TaskId("task_1"),
        account_id=AccountId("acc_1"),
        type="kling.multi-image-to-image",
        provider="cometapi",
        status=Status.QUEUED,
        input={},
        external_task_id="ours",
        provider_external_id="task_1",
        created_at=START,
        updated_at=START,
        deadline_at=START + timedelta(hours=1),
        next_send_at=START,
    )
    return replace(born, **more)  # type: ignore[arg-type]


def report(
    signal: Signal, *, provider_id: str | None = "theirs", external_id: str | None = "ours", **more: object
) -> Report:
    return Report(
        signal=signal,
        provider_task_id=provider_id,
        external_task_id=external_id,
        **more,  # type: ignore[arg-type]
    )


def output(url: str) -> Output:
    return Output(kind=OutputKind.IMAGE, index=0, url=url)


reports = st.builds(
    Report,
    signal=st.sampled_from(sorted(FROM_PROVIDER)),
    provider_task_id=st.sampled_from([None, "theirs", "another"]),
    external_task_id=st.sampled_from([None, "ours", "not-ours"]),
    outputs=st.lists(st.sampled_from([output("https://a.example/1"), output("https://a.example/2")])),
    error=st.sampled_from([None, TaskError("1", "first"), TaskError("2", "second")]),
    cost=st.sampled_from([None, (), (Charge(amount=Decimal("0.5"), unit="units"),)]),
)
answers = st.sampled_from([signal for signal in Signal if signal not in FROM_PROVIDER])
OVERDUE = "overdue"


def apply(stored: Task, happening: Report | Signal | str, now: datetime) -> Change | None:
    """None where the deadline finds nothing to do: `due_deadlines` leaves out ended and overdue tasks."""
    if isinstance(happening, Report):
        return reported(stored, happening, now)
    if isinstance(happening, Signal):
        return signalled(stored, happening, now, error=REFUSAL)
    if stored.status.is_terminal or stored.overdue_at is not None:
        return None
    return overdue(stored, now)


def fold(happenings: Sequence[Report | Signal | str]) -> tuple[list[Change], Task]:
    """All that happens to a task, one minute after another."""
    stored, changes = task(), []
    for minute, happening in enumerate(happenings, 1):
        change = apply(stored, happening, START + timedelta(minutes=minute))
        if change is not None:
            assert change.before is stored
            changes.append(change)
            stored = change.after
    return changes, stored


histories = st.lists(st.one_of(reports, answers, st.just(OVERDUE)), max_size=12)


@given(histories)
def test_each_transition_makes_exactly_one_event_and_they_are_counted_without_gaps(
    happenings: list[Report | Signal | str],
) -> None:
    changes, stored = fold(happenings)
    events = [change.event for change in changes if change.event is not None]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.id for event in events}) == len(events)
    assert stored.sequence == len(events)
    for change in changes:
        assert (change.event is not None) == (change.verdict in {Verdict.ADVANCED, None})
        if change.transition is None:
            assert change.after.status is change.before.status
            assert change.event is None or change.event.type in {
                EventType.TASK_OVERDUE,
                EventType.TASK_OUTPUTS_ADDED,
            }
        else:
            assert change.event is not None
            assert change.event.type is ON_ARRIVAL[change.after.status]
            assert change.event.sequence == change.transition.sequence == change.before.sequence + 1
            assert (change.transition.before, change.transition.after) == (
                change.before.status,
                change.after.status,
            )


@given(histories)
def test_an_event_tells_the_task_as_it_is_after_the_change(happenings: list[Report | Signal | str]) -> None:
    for change in fold(happenings)[0]:
        if change.event is not None:
            content = change.event.content()
            assert content["data"]["task"] == change.after.view()
            assert content["sequence"] == change.after.sequence
            assert (content["data"]["transition"] is None) == (change.transition is None)


@given(histories)
def test_once_ended_a_task_only_learns_what_it_lacked(
    happenings: list[Report | Signal | str],
) -> None:
    """The provider's id, the outputs of a success that named none, what it has cost: each once."""
    changes, _ = fold(happenings)
    ended = [change for change in changes if change.before.status.is_terminal]
    for change in ended:
        before, after = change.before, change.after
        if change.event is not None:
            assert change.event.type is EventType.TASK_OUTPUTS_ADDED
            assert before.lacks_outputs
            assert after.sequence == before.sequence + 1
            before = replace(
                before, outputs=after.outputs, sequence=after.sequence, updated_at=after.updated_at
            )
        if before.provider_task_id is None:
            before = replace(before, provider_task_id=after.provider_task_id)
        if before.cost is None:
            before = replace(before, cost=after.cost)
        assert after == before


@given(histories)
def test_a_cost_is_that_of_the_end_which_the_task_has_come_to(
    happenings: list[Report | Signal | str],
) -> None:
    """Told by a contradiction, or before the end, it is none."""
    for change in fold(happenings)[0]:
        if change.before.cost is None and change.after.cost is not None:
            assert change.after.status in {Status.SUCCEEDED, Status.FAILED}
            assert change.verdict in {Verdict.ADVANCED, Verdict.DUPLICATE}


def test_what_a_task_has_cost_may_be_told_late() -> None:
    charges = (Charge(amount=Decimal(16), unit="units"),)
    changes, stored = fold([report(Signal.COMPLETED), report(Signal.COMPLETED, cost=charges)])
    assert [change.verdict for change in changes] == [Verdict.ADVANCED, Verdict.DUPLICATE]
    assert stored.cost == charges


@given(histories)
def test_what_the_schema_demands_of_a_row_holds_after_any_history(
    happenings: list[Report | Signal | str],
) -> None:
    for change in fold(happenings)[0]:
        after = change.after
        assert (after.finished_at is not None) == after.status.is_terminal
        assert (after.error is not None) == (after.status in {Status.FAILED, Status.REJECTED})
        assert after.next_send_at is None or after.status in {Status.QUEUED, Status.UNCONFIRMED}
        assert not after.outputs or after.status is Status.SUCCEEDED


@given(histories, st.sampled_from(sorted(FROM_PROVIDER)), st.booleans())
def test_a_report_whose_ids_are_another_tasks_changes_nothing(
    happenings: list[Report | Signal | str], signal: Signal, names_external: bool
) -> None:
    stored = replace(fold(happenings)[1], provider_task_id="theirs")
    foreign = report(
        signal,
        provider_id="another",
        external_id="not-ours" if names_external else None,
        outputs=[output("https://evil.example/")],
    )
    change = reported(stored, foreign, START)
    assert (change.verdict, change.event, change.transition) == (Verdict.MISMATCHED, None, None)
    assert change.after is stored
    assert change.reason


def test_a_matching_external_id_overrules_a_differing_provider_id() -> None:
    """A gateway that mints ids of its own passes on callbacks that carry Kling's (public gateways)."""
    known = task(status=Status.SUBMITTED, provider_task_id="the-gateways")
    change = reported(known, report(Signal.COMPLETED, provider_id="klings"), START)
    assert change.verdict is Verdict.ADVANCED
    assert change.after.provider_task_id == "the-gateways"


def test_a_matching_provider_id_does_not_overrule_a_differing_external_id() -> None:
    known = task(status=Status.SUBMITTED, provider_task_id="theirs")
    change = reported(known, report(Signal.COMPLETED, external_id="not-ours"), START)
    assert change.verdict is Verdict.MISMATCHED


def test_a_report_without_ids_contradicts_nothing() -> None:
    known = task(status=Status.SUBMITTED, provider_task_id="theirs")
    bare = report(Signal.COMPLETED, provider_id=None, external_id=None)
    assert reported(known, bare, START).verdict is Verdict.ADVANCED


@pytest.mark.parametrize("status", [Status.SUBMITTED, Status.PROCESSING, Status.REJECTED])
def test_the_first_report_with_the_providers_id_sets_it_whatever_else_it_changes(status: Status) -> None:
    change = reported(task(status=status), report(Signal.SUBMITTED, provider_id="theirs"), START)
    assert change.verdict is not Verdict.ADVANCED
    assert change.after.provider_task_id == "theirs"
    assert change.before.provider_task_id is None


def test_a_callback_that_overtakes_the_creates_answer_tells_when_the_provider_had_the_task() -> None:
    change = reported(task(), report(Signal.COMPLETED), START + timedelta(seconds=3))
    assert change.after.submitted_at == change.after.finished_at == START + timedelta(seconds=3)
    assert change.after.next_send_at is None


def test_the_moment_of_submission_is_the_first_one() -> None:
    submitted = signalled(task(), Signal.ACCEPTED, START).after
    later = reported(submitted, report(Signal.STARTED), START + timedelta(minutes=1)).after
    assert later.submitted_at == START


def test_a_rejected_task_was_never_with_the_provider() -> None:
    change = signalled(task(), Signal.REFUSED, START, error=REFUSAL)
    assert (change.after.submitted_at, change.after.error) == (None, REFUSAL)


def test_a_failure_without_a_reason_still_says_so() -> None:
    change = reported(task(), report(Signal.FAILED), START)
    assert change.after.error == TaskError("provider_failed", "The provider gave no reason.")


def test_outputs_of_a_report_that_does_not_complete_are_not_taken() -> None:
    change = reported(task(), report(Signal.STARTED, outputs=[output("https://a.example/1")]), START)
    assert change.after.outputs == ()


def test_a_conflicting_report_says_what_it_contradicts() -> None:
    ended = reported(task(), report(Signal.COMPLETED), START).after
    change = reported(ended, report(Signal.FAILED), START)
    assert change.verdict is Verdict.CONFLICTING
    assert change.reason == "it says failed, but the task is succeeded already"


def test_waiting_for_a_place_ends_when_the_task_leaves_the_queue() -> None:
    waiting = task(awaits_slot=True)
    assert signalled(waiting, Signal.ACCEPTED, START).after.awaits_slot is False


def test_overdue_says_so_once_and_leaves_the_status() -> None:
    change = overdue(task(status=Status.PROCESSING, sequence=2), START)
    assert change.event is not None
    assert change.event.type is EventType.TASK_OVERDUE
    assert (change.after.status, change.after.overdue_at, change.after.sequence) == (
        Status.PROCESSING,
        START,
        3,
    )
    assert change.transition is None


def test_of_several_changes_a_task_keeps_where_it_began_and_where_it_has_come_to() -> None:
    other = overdue(task(id=TaskId("task_2"), status=Status.SUBMITTED), START)
    accepted = signalled(task(), Signal.ACCEPTED, START)
    ended = reported(accepted.after, report(Signal.COMPLETED), START)
    repeated = reported(ended.after, report(Signal.COMPLETED), START)
    assert overall([accepted, other, ended, repeated]) == [
        (accepted.before, ended.after),
        (other.before, other.after),
    ]
    assert overall([repeated]) == []


@pytest.mark.parametrize(
    ("change", "frees"),
    [
        (lambda: reported(task(status=Status.PROCESSING), report(Signal.COMPLETED), START), True),
        (lambda: reported(task(status=Status.SUBMITTED), report(Signal.FAILED), START), True),
        (lambda: reported(task(status=Status.SUCCEEDED), report(Signal.COMPLETED), START), False),
        (lambda: reported(task(status=Status.SUBMITTED), report(Signal.STARTED), START), False),
        (lambda: signalled(task(), Signal.REFUSED, START, error=REFUSAL), False),
        (lambda: overdue(task(status=Status.PROCESSING), START), False),
    ],
    ids=["succeeded", "failed", "repeated", "started", "rejected", "overdue"],
)
def test_a_place_is_free_when_a_task_that_held_one_has_just_ended(
    change: Callable[[], Change], frees: bool
) -> None:
    assert change().frees_slot is frees
