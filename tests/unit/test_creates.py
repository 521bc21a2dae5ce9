"""`service.domain.creates`: what each end of a create makes of its task, whatever else has happened to it meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.creates import (
    Accepted,
    CreateOutcome,
    Deferred,
    Refused,
    Unknown,
    expired,
    settled,
)
from service.domain.events import EventType
from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Status
from service.domain.tasks import Refusal, Task, TaskError
from service.domain.transitions import Change
from service.domain.values import replace

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=1)
CONFIRM_AFTER = timedelta(minutes=2)
QUEUE_MAX_AGE = timedelta(hours=24)
REPEATABLE, NOT_REPEATABLE = "kling.multi-image-to-image", "kling.raw"


def sent(**more: object) -> Task:
    """A task whose first create is on its way."""
    task = Task(
        id=TaskId("task_1"),
        account_id=AccountId("acc_1"),
        type=REPEATABLE,
        provider="cometapi",
        status=Status.QUEUED,
        input={},
        external_task_id="ours",
        provider_external_id="ours",
        created_at=START,
        updated_at=START,
        deadline_at=START + timedelta(hours=1),
        next_send_at=START,
        sends=1,
        sending_since=START,
    )
    return replace(task, **more)  # type: ignore[arg-type]


def settle(task: Task, outcome: CreateOutcome, now: datetime = NOW) -> Change:
    return settled(task, outcome, now, confirm_after=CONFIRM_AFTER, queue_max_age=QUEUE_MAX_AGE)


OUTCOMES = {
    "accepted": Accepted("theirs"),
    "exists": Refused(Refusal.EXISTS, "exists", "there"),
    "refused": Refused(Refusal.REQUEST, "1201", "no"),
    "unpaid": Refused(Refusal.PAYMENT, "1102", "no money"),
    "deferred": Deferred("1302", "too fast"),
    "unknown": Unknown("timeout", "nothing came"),
}


@pytest.mark.parametrize(
    ("status", "outcome", "after"),
    [
        (Status.QUEUED, "accepted", Status.SUBMITTED),
        (Status.QUEUED, "exists", Status.REJECTED),
        (Status.QUEUED, "refused", Status.REJECTED),
        (Status.QUEUED, "unpaid", Status.REJECTED),
        (Status.QUEUED, "deferred", Status.QUEUED),
        (Status.QUEUED, "unknown", Status.UNCONFIRMED),
        (Status.UNCONFIRMED, "accepted", Status.SUBMITTED),
        (Status.UNCONFIRMED, "exists", Status.SUBMITTED),
        (Status.UNCONFIRMED, "refused", Status.UNCONFIRMED),
        (Status.UNCONFIRMED, "unpaid", Status.UNCONFIRMED),
        (Status.UNCONFIRMED, "deferred", Status.UNCONFIRMED),
        (Status.UNCONFIRMED, "unknown", Status.UNCONFIRMED),
        *((Status.PROCESSING, outcome, Status.PROCESSING) for outcome in OUTCOMES),
        *((Status.SUCCEEDED, outcome, Status.SUCCEEDED) for outcome in OUTCOMES),
    ],
)
def test_the_status_after_each_outcome(status: Status, outcome: str, after: Status) -> None:
    stored = sent(status=status)
    change = settle(stored, OUTCOMES[outcome])
    assert change.after.status is after
    assert change.before is stored
    assert (change.event is not None) == (change.transition is not None) == (after is not status)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.UNCONFIRMED, Status.PROCESSING, Status.SUCCEEDED])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_create_is_over_and_another_is_planned_only_for_a_task_that_waits(
    status: Status, outcome: str
) -> None:
    after = settle(sent(status=status), OUTCOMES[outcome]).after
    assert after.sending_since is None
    assert (after.next_send_at is not None) == (after.status in {Status.QUEUED, Status.UNCONFIRMED})


def test_an_id_that_a_callback_has_brought_is_not_replaced_by_that_of_the_creates_answer() -> None:
    assert settle(sent(), Accepted("theirs")).after.provider_task_id == "theirs"
    known = sent(status=Status.PROCESSING, provider_task_id="earlier")
    assert settle(known, Accepted("theirs")).after.provider_task_id == "earlier"


def test_a_rejected_task_says_why() -> None:
    error = settle(sent(), OUTCOMES["unpaid"]).after.error
    assert error == TaskError("1102", "no money", Refusal.PAYMENT)


def test_a_task_under_klingels_own_id_can_only_be_this_one() -> None:
    """As after a backup was restored that knows nothing of the create."""
    assert settle(sent(provider_external_id="task_1"), OUTCOMES["exists"]).after.status is Status.SUBMITTED
    unknown_there = sent(provider_external_id="task_1", type=NOT_REPEATABLE)
    assert settle(unknown_there, OUTCOMES["exists"]).after.status is Status.REJECTED


def test_a_body_is_refused_for_good_once_the_create_before_it_has_had_all_its_time() -> None:
    stored = sent(status=Status.UNCONFIRMED)
    assert settle(stored, OUTCOMES["refused"], stored.deadline_at).after.status is Status.REJECTED
    assert settle(stored, OUTCOMES["unpaid"], stored.deadline_at).after.status is Status.UNCONFIRMED


@pytest.mark.parametrize(("sends", "minutes"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (100, 60)])
def test_an_unconfirmed_task_is_sent_again_after_twice_the_time_up_to_an_hour(
    sends: int, minutes: int
) -> None:
    after = settle(sent(sends=sends), OUTCOMES["unknown"]).after
    assert after.next_send_at == NOW + timedelta(minutes=minutes)


def test_an_unconfirmed_task_waits_for_as_long_as_the_operator_says_also_where_that_is_more_than_an_hour() -> (
    None
):
    after = settled(
        sent(), OUTCOMES["unknown"], NOW, confirm_after=timedelta(hours=3), queue_max_age=QUEUE_MAX_AGE
    ).after
    assert after.next_send_at == NOW + timedelta(hours=3)


def test_an_unconfirmed_task_is_not_sent_again_where_that_may_cost_twice_or_when_it_is_too_old() -> None:
    for left in (
        settle(sent(type=NOT_REPEATABLE), OUTCOMES["unknown"]),
        settle(sent(type="gone"), OUTCOMES["unknown"]),
        settle(sent(), OUTCOMES["unknown"], START + QUEUE_MAX_AGE + timedelta(seconds=1)),
    ):
        assert (left.after.status, left.after.next_send_at) == (Status.UNCONFIRMED, None)


@pytest.mark.parametrize(
    ("outcome", "sends", "age", "delay"),
    [
        (Deferred("1302", "too fast"), 1, timedelta(), timedelta(seconds=5)),
        (Deferred("1302", "too fast"), 3, timedelta(), timedelta(seconds=20)),
        (Deferred("1302", "too fast"), 50, timedelta(), timedelta(minutes=5)),
        (Deferred("1303", "full", needs_slot=True), 50, timedelta(), timedelta(minutes=1)),
        (Deferred("1303", "full", needs_slot=True), 1, timedelta(minutes=20), timedelta(minutes=5)),
        (Deferred("1303", "full", needs_slot=True), 1, timedelta(hours=9), timedelta(minutes=10)),
        (Deferred("1302", "too fast", retry_after=timedelta()), 50, timedelta(), timedelta(seconds=5)),
        (Deferred("1302", "too fast", retry_after=timedelta(hours=1)), 1, timedelta(), timedelta(minutes=10)),
    ],
)
def test_a_deferred_task_waits_in_the_queue(
    outcome: Deferred, sends: int, age: timedelta, delay: timedelta
) -> None:
    now = START + age
    after = settle(sent(sends=sends), outcome, now).after
    assert after.next_send_at is not None
    assert delay <= after.next_send_at - now <= delay * 1.2
    assert after.awaits_slot is outcome.needs_slot


def test_a_task_whose_time_in_the_queue_has_ended_is_rejected() -> None:
    stored = sent(sending_since=None, awaits_slot=True)
    change = expired(stored, NOW)
    assert change.before is stored
    assert change.event is not None
    assert change.event.type is EventType.TASK_REJECTED
    assert (change.after.next_send_at, change.after.awaits_slot) == (None, False)
    assert change.after.error is not None
    assert change.after.error.code == "queue_expired"
