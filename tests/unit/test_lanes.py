"""`service.lanes` and what they are made of: who is attempted next, and that a slow endpoint holds up nobody but itself."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.attempt_limits import (
    ATTEMPTS_OF_A_HOST,
    ATTEMPTS_OF_AN_ACCOUNT,
    ATTEMPTS_OF_AN_ACCOUNT_THERE,
    DOWNLOADS,
    DOWNLOADS_OF_AN_ACCOUNT,
)
from service.domain.deliveries import Duty
from service.domain.endpoints import Endpoint
from service.domain.events import Event, EventType
from service.domain.ids import AccountId, DeliveryId, EndpointId, EventId, TaskId
from service.domain.kept import archive_endpoint
from service.domain.values import replace
from service.endpoint_names import endpoint_name, named_endpoint
from service.lane import BREAKS_AFTER, CONCURRENCY, DEEPEST, DEPTH, IN_HAND, RETRIES_HELD, Condition
from service.lanes import FAILING_REMEMBERED, Lanes

RETRIES_AT_A_TIME = 4
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ids = count(1)


def endpoint(
    id: str = "a",
    *,
    of_task: str | None = None,
    host: str = "",
    account: str = "acc_1",
    failures: int = 0,
    rate: int | None = None,
) -> Endpoint:
    return Endpoint(
        id=EndpointId(id),
        account_id=AccountId(account),
        task_id=None if of_task is None else TaskId(of_task),
        kind="webhook",
        config={"url": f"https://{host or id}/hook"},
        failures=failures,
        rate_per_minute=rate,
        created_at=NOW,
        updated_at=NOW,
    )


def duty(
    *,
    to: str | Endpoint = "a",
    task: str | None = None,
    attempt: int = 1,
    id: str | None = None,
    failures: int = 0,
) -> Duty:
    number = next(ids)
    return Duty(
        id=DeliveryId(id or f"dlv_{number}"),
        event=Event(
            id=EventId(f"evt_{number}"),
            type=EventType.TASK_PROCESSING,
            account_id=AccountId("acc_1"),
            task_id=None if task is None else TaskId(task),
            sequence=None if task is None else number,
            at=NOW,
            body=b"{}",
        ),
        endpoint=to if isinstance(to, Endpoint) else endpoint(to, failures=failures),
        attempt=attempt,
        created_at=NOW,
    )


def promised(lanes: Lanes, one: Duty | None = None) -> bool:
    one = one or duty()
    return lanes.promise(one.id, one.endpoint)


def claimed(lanes: Lanes, one: Duty) -> bool:
    return lanes.promise_claimed(one.id, one.endpoint, attempt=one.attempt)


def started(lanes: Lanes) -> list[Duty]:
    """All that can start now."""
    found = []
    while (one := lanes.next()) is not None:
        found.append(one)
    return found


def deliver_all(lanes: Lanes) -> None:
    while begun := started(lanes):
        for one in begun:
            lanes.end(one, Condition.WELL)


def test_nothing_offered_is_nothing_to_start() -> None:
    lanes = Lanes()
    assert lanes.next() is None
    assert not lanes.startable.is_set()


def test_what_is_offered_can_start_at_once() -> None:
    lanes, one = Lanes(), duty()
    lanes.offer([one])
    assert lanes.startable.is_set()
    assert started(lanes) == [one]
    assert not lanes.startable.is_set()


def test_first_attempts_of_one_task_go_out_one_after_another_in_their_order() -> None:
    lanes = Lanes()
    first, second, third = duty(task="t"), duty(task="t"), duty(task="t")
    lanes.offer([first, second, third])
    for expected in (first, second, third):
        assert started(lanes) == [expected]
        lanes.end(expected, Condition.WELL)
    assert started(lanes) == []


def test_tasks_and_events_without_one_do_not_wait_for_each_other() -> None:
    lanes = Lanes()
    mine, behind, other, none = duty(task="t"), duty(task="t"), duty(task="u"), duty()
    lanes.offer([mine, behind, other, none])
    assert started(lanes) == [mine, other, none]


def test_a_failing_earlier_event_does_not_hold_back_a_later_one() -> None:
    """Its retry comes as another duty, and stands in nobody's way."""
    lanes = Lanes()
    first, second = duty(task="t"), duty(task="t")
    lanes.offer([first, second])
    started(lanes)
    lanes.end(first, Condition.ILL)
    lanes.offer([duty(task="t", attempt=2)])
    assert second in started(lanes)


def test_the_same_task_at_two_endpoints_goes_its_way_at_each() -> None:
    lanes = Lanes()
    here, there = duty(to="a", task="t"), duty(to="b", task="t")
    lanes.offer([here, there])
    assert started(lanes) == [here, there]


def test_one_endpoint_gets_eight_attempts_at_a_time() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(20)])
    begun = started(lanes)
    assert len(begun) == CONCURRENCY == 8
    lanes.end(begun[0], Condition.WELL)
    assert lanes.startable.is_set()
    assert len(started(lanes)) == 1


def test_a_slow_endpoint_takes_no_turn_from_another() -> None:
    lanes = Lanes()
    lanes.offer([duty(to="slow") for _ in range(100)])
    started(lanes)
    quick = duty(to="quick")
    lanes.offer([quick])
    assert started(lanes) == [quick]


def test_endpoints_are_served_in_turn_however_much_one_has() -> None:
    lanes = Lanes()
    lanes.offer([*(duty(to="a") for _ in range(5)), duty(to="b"), duty(to="c"), duty(to="c")])
    assert [one.endpoint.id for one in started(lanes)] == ["a", "b", "c", "a", "c", "a", "a", "a"]


def test_four_retries_run_at_a_time_and_leave_room_for_first_attempts() -> None:
    lanes = Lanes()
    lanes.offer([duty(attempt=2) for _ in range(20)])
    retries = started(lanes)
    assert len(retries) == RETRIES_AT_A_TIME
    firsts = [duty() for _ in range(10)]
    lanes.offer(firsts)
    assert started(lanes) == firsts[:4]


def test_retries_wait_while_first_attempts_do() -> None:
    lanes = Lanes()
    retry, firsts = duty(attempt=5), [duty() for _ in range(10)]
    lanes.offer([retry, *firsts])
    assert started(lanes) == firsts[:8]
    for ended in firsts[:3]:
        lanes.end(ended, Condition.WELL)
    assert started(lanes) == [*firsts[8:], retry]


def test_a_retry_that_ends_makes_room_for_the_next() -> None:
    lanes = Lanes()
    lanes.offer([duty(attempt=2) for _ in range(6)])
    begun = started(lanes)
    lanes.end(begun[0], Condition.WELL)
    assert len(started(lanes)) == 1


def test_a_duty_that_is_in_hand_already_is_not_taken_twice() -> None:
    """The lease of one that waited long ends, and the table offers it again."""
    lanes = Lanes()
    one = duty(id="dlv_same")
    lanes.offer([one])
    lanes.offer([duty(id="dlv_same")])
    assert started(lanes) == [one]
    lanes.offer([duty(id="dlv_same")])
    assert started(lanes) == []
    lanes.end(one, Condition.WELL)
    lanes.offer([duty(id="dlv_same")])
    assert started(lanes) == []  # its outcome is not recorded yet
    lanes.settle(one)
    retry = duty(id="dlv_same", attempt=2)
    lanes.offer([retry])
    assert started(lanes) == [retry]


# An endpoint that fails and fails


class Moved:
    """A clock that a test moves."""

    now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_an_endpoint_that_keeps_failing_rests_longer_and_longer_between_single_attempts() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    rests: list[datetime] = []
    lanes.serve(on_rest=rests.append)
    lanes.offer([duty() for _ in range(60)])
    begun = started(lanes)
    while begun:
        lanes.end(begun.pop(0), Condition.ILL)
        if len(rests) == 0:
            begun += started(lanes)
    assert started(lanes) == []
    for rest in (1, 2, 4, 8, 16, 30, 30):
        assert rests[-1] - clock.now == timedelta(seconds=rest)
        assert lanes.end_rests() == rests[-1]
        clock.now = rests[-1]
        lanes.end_rests()
        [alone] = started(lanes)
        lanes.end(alone, Condition.ILL)
    clock.now = rests[-1]
    lanes.end_rests()
    [alone] = started(lanes)
    lanes.end(alone, Condition.WELL)
    assert len(started(lanes)) == CONCURRENCY


def test_a_clock_that_is_set_back_makes_no_rest_longer() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    lanes.offer([duty(failures=BREAKS_AFTER - 1) for _ in range(20)])
    for begun in started(lanes):
        lanes.end(begun, Condition.ILL)
    assert lanes.end_rests() is not None
    assert started(lanes) == []
    clock.now -= timedelta(hours=1)
    assert lanes.end_rests() is None
    assert len(started(lanes)) == 1


def test_an_endpoint_that_was_well_again_rests_as_briefly_as_at_first() -> None:
    """Else a host that fails now and then would count as one that has failed for long, and be given up."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    rests: list[datetime] = []
    lanes.serve(on_rest=rests.append)
    lanes.offer([duty() for _ in range(60)])

    def fail_until_it_rests() -> timedelta:
        known = len(rests)
        while len(rests) == known:
            one = lanes.next()
            assert one is not None
            lanes.end(one, Condition.ILL)
        rest = rests[-1] - clock.now
        clock.now = rests[-1]
        lanes.end_rests()
        return rest

    assert [fail_until_it_rests().total_seconds() for _ in range(3)] == [1, 2, 4]
    well = lanes.next()
    assert well is not None
    lanes.end(well, Condition.WELL)
    assert fail_until_it_rests().total_seconds() == 1


def test_a_late_success_ends_a_rest() -> None:
    lanes = Lanes(clock=Moved())
    lanes.offer([duty(failures=BREAKS_AFTER - 1) for _ in range(20)])
    first, second, *_ = started(lanes)
    lanes.end(first, Condition.ILL)
    assert started(lanes) == []
    lanes.end(second, Condition.WELL)
    assert len(started(lanes)) == 2


def test_an_attempt_that_sends_nothing_counts_neither_way_and_ends_no_rest() -> None:
    """A chat that is told of ends alone would else look well again with each task that begins."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    rests: list[datetime] = []
    lanes.serve(on_rest=rests.append)
    lanes.offer([duty(failures=BREAKS_AFTER - 1) for _ in range(20)])
    first, second, *others = started(lanes)
    lanes.end(first, Condition.UNTRIED)
    others += started(lanes)
    assert (len(others), rests) == (CONCURRENCY - 1, [])
    lanes.end(second, Condition.ILL)
    assert rests == [clock.now + timedelta(seconds=1)]
    for one in others:
        lanes.end(one, Condition.UNTRIED)
    assert started(lanes) == []
    clock.now = rests[-1]
    lanes.end_rests()
    [alone] = started(lanes)
    lanes.end(alone, Condition.UNTRIED)
    [alone] = started(lanes)
    lanes.end(alone, Condition.ILL)
    assert rests[1:] == [clock.now + timedelta(seconds=2)]


def test_what_an_endpoint_failed_before_its_lane_was_made_counts() -> None:
    lanes = Lanes()
    lanes.offer([duty(failures=BREAKS_AFTER) for _ in range(5)])
    [alone] = started(lanes)
    lanes.end(alone, Condition.WELL)
    assert len(started(lanes)) == 4


def test_what_an_endpoint_has_failed_counts_also_before_its_row_says_so() -> None:
    """A delivery is published with the row as it was before the failures were recorded."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    lanes.offer([duty() for _ in range(BREAKS_AFTER)])
    for _ in range(BREAKS_AFTER):
        one = lanes.next()
        assert one is not None
        lanes.end(one, Condition.ILL)
    lanes.offer([duty(failures=0) for _ in range(2)])
    clock.now += timedelta(seconds=1)
    lanes.end_rests()
    assert len(started(lanes)) == 1


def test_what_the_endpoint_of_one_task_has_failed_says_nothing_of_its_host() -> None:
    """It may be the path that is wrong."""
    lanes = Lanes()
    wrong = endpoint("wrong", of_task="t", host="h.example", failures=BREAKS_AFTER)
    lanes.offer([duty(to=wrong), *of_tasks(3, "h.example")])
    assert len(started(lanes)) == 4


def test_a_single_failure_among_deliveries_slows_nobody() -> None:
    lanes = Lanes()
    lanes.offer([duty(failures=BREAKS_AFTER - 1) for _ in range(30)])
    begun = started(lanes)
    lanes.end(begun[0], Condition.WELL)
    lanes.end(begun[1], Condition.ILL)
    assert len(started(lanes)) == 2


# An endpoint with a rate


def pass_time(lanes: Lanes, clock: Moved, seconds: float) -> datetime | None:
    clock.now += timedelta(seconds=seconds)
    return lanes.end_paces()


def test_attempts_at_an_endpoint_with_a_rate_begin_one_after_another_in_its_time() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    told: list[datetime] = []
    lanes.serve(on_pace=told.append)
    twenty = endpoint(rate=20)
    retry, *firsts = [duty(to=twenty, attempt=2), *(duty(to=twenty) for _ in range(3))]
    lanes.offer([retry, *firsts])
    for expected in (*firsts, retry):
        assert started(lanes) == [expected]
        assert told[-1] == lanes.end_paces() == clock.now + timedelta(seconds=3)
        pass_time(lanes, clock, 2.9)
        assert not lanes.startable.is_set()
        assert pass_time(lanes, clock, 0.1) is None
    assert started(lanes) == []


@pytest.mark.parametrize("rate", [1, 7, 20, 59, 60_000])
def test_no_minute_sees_more_than_the_rate_allows(rate: int) -> None:
    gap = endpoint(rate=rate).gap
    assert gap is not None
    assert gap * rate >= timedelta(minutes=1)
    assert (gap - timedelta(microseconds=1)) * rate < timedelta(minutes=1)


def test_a_slow_endpoint_with_a_rate_gets_no_more_at_a_time_than_others() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    lanes.offer([duty(to=endpoint(rate=60)) for _ in range(CONCURRENCY + 5)])
    begun = started(lanes)
    for _ in range(CONCURRENCY + 3):
        pass_time(lanes, clock, 1)
        begun += started(lanes)
    assert len(begun) == CONCURRENCY
    lanes.end(begun[0], Condition.WELL)
    assert len(started(lanes)) == 1


def test_nobody_waits_for_the_rate_of_another() -> None:
    """Not even who waits for a place of the same host, or of the same account."""
    clock = Moved()
    lanes = Lanes(clock=clock, of_a_host=2, of_an_account_there=2, of_an_account=2)
    slow = endpoint("slow", host="h", rate=1)
    first, second = duty(to=slow), duty(to=slow)
    others = [duty(to=endpoint(id, host="h")) for id in "abcd"]
    lanes.offer([first, second, *others])
    assert started(lanes) == [first, others[0]]
    lanes.end(first, Condition.WELL)
    assert started(lanes) == [others[1]]
    pass_time(lanes, clock, 60)
    assert started(lanes) == []  # in line for a place, behind those who came before
    for ended, following in zip(others, [others[2], others[3], second], strict=False):
        lanes.end(ended, Condition.WELL)
        assert started(lanes) == [following]


def test_when_an_endpoint_was_sent_to_last_is_remembered_until_its_next_one_may_go_and_no_longer() -> None:
    """On PostgreSQL the process that knows it keeps the lane for as long."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    minutely = endpoint(rate=1)
    for _ in range(3):
        one = duty(to=minutely)
        lanes.offer([one])
        assert started(lanes) == [one]
        lanes.end(one, Condition.WELL)
        lanes.settle(one)
        pass_time(lanes, clock, 59)
        assert lanes.is_in_use(minutely.lane)
        lanes.offer([duty(to=minutely)])
        assert started(lanes) == []
        lanes.drop(minutely)
        assert lanes.is_in_use(minutely.lane)
        assert pass_time(lanes, clock, 1) is None
        assert not lanes.is_in_use(minutely.lane)
    assert not lanes._lanes


def test_who_is_asked_to_send_at_once_keeps_to_the_rate_all_the_same() -> None:
    """Tests and replays end rests, but a receiver that counts messages counts these, too."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    twenty = endpoint(rate=20)
    lanes.offer([duty(to=twenty), duty(to=twenty)])
    assert len(started(lanes)) == 1
    lanes.rouse(twenty)
    assert started(lanes) == []
    pass_time(lanes, clock, 3)
    assert len(started(lanes)) == 1


def test_what_sends_nothing_takes_no_time_from_what_follows() -> None:
    """A chat that is told of ends alone would else hear of a third of the tasks that it could."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    minutely = endpoint(rate=1)
    silent, told, last = (duty(to=minutely) for _ in range(3))
    lanes.offer([silent, told, last])
    assert started(lanes) == [silent]
    lanes.end(silent, Condition.UNTRIED)
    assert started(lanes) == [told]
    lanes.end(told, Condition.WELL)
    assert started(lanes) == []
    pass_time(lanes, clock, 60)
    assert started(lanes) == [last]


def test_what_sends_nothing_gives_no_time_back_that_another_has_taken_since() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    minutely = endpoint(rate=1)
    slow, sent, last = (duty(to=minutely) for _ in range(3))
    lanes.offer([slow, sent, last])
    assert started(lanes) == [slow]
    pass_time(lanes, clock, 60)
    assert started(lanes) == [sent]
    lanes.end(slow, Condition.UNTRIED)
    assert started(lanes) == []
    pass_time(lanes, clock, 60)
    assert started(lanes) == [last]


@pytest.mark.parametrize(("rate", "seconds"), [(None, 0), (60, 1), (1, 60)])
def test_a_changed_rate_holds_for_what_has_not_begun(rate: int | None, seconds: int) -> None:
    """Counted from the last attempt, whichever rate that had."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    first, second, third = (duty(to=endpoint(rate=6)) for _ in range(3))
    lanes.offer([first, second, third])
    assert started(lanes) == [first]
    lanes.recall(first.endpoint)
    changed = [replace(one, endpoint=endpoint(rate=rate)) for one in (second, third)]
    lanes.offer(changed)
    if rate is None:
        assert started(lanes) == changed
        return
    pass_time(lanes, clock, seconds - 0.001)
    assert started(lanes) == []
    pass_time(lanes, clock, 0.001)
    assert started(lanes) == changed[:1]


@pytest.mark.parametrize(("rate", "seconds"), [(120, 1), (1, 60)])
def test_an_endpoint_that_rests_and_has_a_rate_waits_for_both(rate: int, seconds: int) -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    where = endpoint(rate=rate, failures=BREAKS_AFTER)
    lanes.offer([duty(to=where), duty(to=where)])
    [begun] = started(lanes)
    lanes.end(begun, Condition.ILL)
    assert lanes.end_rests() == clock.now + timedelta(seconds=1)
    for step in (0.5, seconds - 0.501):
        pass_time(lanes, clock, step)
        lanes.end_rests()
        assert started(lanes) == []
    pass_time(lanes, clock, 0.001)
    lanes.end_rests()
    assert len(started(lanes)) == 1


def test_a_clock_that_is_set_back_makes_nobody_wait_for_longer_than_the_rate_says() -> None:
    """Nor is anything sent too early for that, as nobody knows how much time has passed."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    lanes.offer([duty(to=endpoint(rate=20)) for _ in range(3)])
    assert len(started(lanes)) == 1
    pass_time(lanes, clock, -3600)
    other = duty(to=endpoint("b", rate=20))
    lanes.offer([other])
    assert started(lanes) == [other]
    assert lanes.end_paces() == clock.now + timedelta(seconds=3)
    pass_time(lanes, clock, 3)
    assert len(started(lanes)) == 1


def test_a_clock_that_is_set_back_is_noticed_also_after_another_has_begun() -> None:
    clock = Moved()
    lanes = Lanes(clock=clock)
    lanes.offer([duty(to=endpoint(rate=20)) for _ in range(2)])
    assert len(started(lanes)) == 1
    clock.now -= timedelta(hours=1)
    lanes.offer([duty(to=endpoint("b", rate=20))])
    assert len(started(lanes)) == 1
    lanes.end_paces()
    pass_time(lanes, clock, 3)
    [begun] = started(lanes)
    assert begun.endpoint.id == "a"


def test_who_waits_for_a_rate_holds_no_more_than_who_does_not_deliver() -> None:
    """What it has in memory would take up the room of those who could send it."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    quick = endpoint(rate=60_000)
    lanes.offer([duty(to=quick) for _ in range(DEPTH)])
    for _ in range(DEPTH):
        [ended] = started(lanes)
        lanes.end(ended, Condition.WELL)
        lanes.settle(ended)
        lanes.offer([duty(to=quick)])
        pass_time(lanes, clock, 0.001)
    assert len(started(lanes)) == 1
    assert not promised(lanes, duty(to=quick))


# An endpoint that wants no more


def test_what_waits_for_an_endpoint_that_wants_no_more_is_forgotten_and_the_rest_goes_on() -> None:
    lanes = Lanes()
    running = [duty(task="t"), *(duty() for _ in range(7))]
    lanes.offer([*running, duty(task="t"), duty(task="u"), duty(attempt=2), duty(to="b")])
    [*begun, other] = sorted(started(lanes), key=lambda one: one.endpoint.id)
    assert (begun, other.endpoint.id) == (running, "b")
    lanes.drop(endpoint("a"))
    assert lanes.waiting() == []
    for one in begun:
        lanes.end(one, Condition.ILL)
        assert started(lanes) == []


def test_what_was_forgotten_may_come_again() -> None:
    lanes, one = Lanes(), duty()
    lanes.offer([one])
    lanes.drop(endpoint("a"))
    assert started(lanes) == []
    lanes.offer([one])
    assert started(lanes) == [one]


def test_an_endpoint_that_is_wanted_again_has_one_turn_like_the_others() -> None:
    lanes = Lanes()
    lanes.offer([duty(to="a")])
    lanes.drop(endpoint("a"))
    lanes.offer([*(duty(to="a") for _ in range(3)), *(duty(to="b") for _ in range(3))])
    assert [one.endpoint.id for one in started(lanes)] == ["a", "b", "a", "b", "a", "b"]


def test_an_endpoint_that_is_wanted_again_is_no_failing_one() -> None:
    """Though an attempt from before is on its way still, so that its lane has never been empty."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    rests: list[datetime] = []
    lanes.serve(on_rest=rests.append)
    lanes.offer([duty() for _ in range(CONCURRENCY + BREAKS_AFTER)])
    slow, *failing = started(lanes)
    while not rests:
        lanes.end(failing.pop(), Condition.ILL)
        failing += started(lanes)
    lanes.drop(slow.endpoint)
    for one in failing:
        lanes.end(one, Condition.UNTRIED)
    again = [duty() for _ in range(CONCURRENCY)]
    lanes.offer(again)
    assert started(lanes) == again[: CONCURRENCY - 1]


def test_an_endpoint_for_which_nothing_is_held_can_want_no_more() -> None:
    Lanes().drop(endpoint("a"))


# Places that are promised


def test_what_is_promised_and_not_committed_yet_counts() -> None:
    """A transaction may make more than a lane holds: thousands, after a bulk replay."""
    lanes = Lanes()
    made = [duty() for _ in range(DEPTH + 50)]
    kept = [one for one in made if promised(lanes, one)]
    assert kept == made[:DEPTH]
    lanes.offer(kept)
    assert len(lanes.waiting()) == DEPTH


def test_what_is_undone_gives_its_places_back() -> None:
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    made = [duty() for _ in range(DEPTH + 1)]
    kept = [one for one in made if promised(lanes, one)]
    lanes.release({one.id: one.endpoint for one in kept})
    assert calls  # nothing in the lane will end and ask for what was turned away
    lanes.end_claim(lanes.begin_claim())
    assert not lanes._lanes
    assert all(promised(lanes, one) for one in kept)


def test_of_what_is_undone_nothing_is_remembered() -> None:
    """Neither its lane, which others might have something for, nor that its endpoint has changed since."""
    lanes, one = Lanes(), duty()
    assert promised(lanes, one)
    lanes.release({one.id: one.endpoint})
    assert not lanes.is_in_use(one.endpoint.lane)
    assert claimed(lanes, one)
    lanes.recall(one.endpoint)
    lanes.release({one.id: one.endpoint})
    lanes.begin_claim()  # the one before may have read the endpoint too early
    assert claimed(lanes, one)
    lanes.offer([one])
    assert started(lanes) == [one]


def test_a_place_that_was_taken_is_not_given_back_as_well() -> None:
    lanes, one = Lanes(), duty()
    assert promised(lanes, one)
    lanes.offer([one])
    lanes.release({one.id: one.endpoint})
    assert started(lanes) == [one]


def test_what_is_claimed_takes_the_room_that_there_is_and_the_rest_is_asked_for_again() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(DEPTH - 2)])
    full = lanes.begin_claim()
    due = [duty() for _ in range(5)]
    kept = [one for one in due if claimed(lanes, one)]
    assert kept == due[:2]
    lanes.offer(kept)
    lanes.end_claim(full)
    assert not promised(lanes)
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    deliver_all(lanes)
    assert calls


def test_what_came_to_wait_is_asked_for_when_the_lane_has_room_and_not_before() -> None:
    """Each question is a commit: too much to do for each new one."""
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    lanes.offer([duty() for _ in range(DEPTH)])
    assert not promised(lanes)
    lanes.fetch([endpoint()])
    assert not lanes.takes_new_ones(endpoint())
    assert not calls
    deliver_all(lanes)
    assert calls


def test_a_lane_with_room_takes_new_ones_and_a_full_one_does_not() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(DEPTH - 1)])
    assert lanes.takes_new_ones(endpoint())
    lanes.offer([duty()])
    assert not lanes.takes_new_ones(endpoint())


def test_what_came_to_wait_for_an_empty_lane_is_asked_for_at_once() -> None:
    """Nothing in it will end and say so. Until it is there, nothing new overtakes it."""
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    assert lanes.takes_new_ones(endpoint())
    lanes.fetch([endpoint()])
    assert calls
    assert not promised(lanes)
    lanes.end_claim(lanes.begin_claim())
    assert promised(lanes)


# Many endpoints at one host, or of one account


def of_tasks(number: int, host: str, account: str = "acc_1") -> list[Duty]:
    """One for each of so many tasks, to an endpoint that is bound to it."""
    return [
        duty(
            to=endpoint(f"{account}-{host}-{index}", of_task=f"{host}-{index}", host=host, account=account),
            task=f"{host}-{index}",
        )
        for index in range(number)
    ]


def test_endpoints_of_tasks_at_a_dead_host_rest_together() -> None:
    """Each is met only a few times, and would never be found out."""
    lanes = Lanes(clock=Moved())
    lanes.offer(of_tasks(100, "dead.example"))
    begun = started(lanes)
    for one in begun[:BREAKS_AFTER]:
        lanes.end(one, Condition.ILL)
    assert started(lanes) == []
    other = of_tasks(1, "healthy.example")
    lanes.offer(other)
    assert started(lanes) == other


def test_a_dead_host_is_found_out_also_when_it_is_met_now_and_then() -> None:
    """Nothing waits for it in between, and each time it is another endpoint."""
    clock = Moved()
    lanes = Lanes(clock=clock)
    rests: list[datetime] = []
    lanes.serve(on_rest=rests.append)
    tried = 0
    for one in of_tasks(BREAKS_AFTER + 1, "dead.example"):
        lanes.offer([one])
        for begun in started(lanes):
            tried += 1
            lanes.end(begun, Condition.ILL)
            lanes.settle(begun)
    assert tried == BREAKS_AFTER
    for rest in (1, 2, 4):
        assert rests[-1] - clock.now == timedelta(seconds=rest)
        clock.now = rests[-1]
        lanes.end_rests()
        lanes.offer(of_tasks(2, "dead.example"))
        [alone] = started(lanes)
        lanes.end(alone, Condition.ILL)
        lanes.settle(alone)


def test_only_so_many_dead_hosts_are_remembered_those_that_failed_last() -> None:
    lanes = Lanes()
    failed = []
    for number in range(FAILING_REMEMBERED + 50):
        lanes.offer(of_tasks(1, f"dead-{number}.example"))
        for one in started(lanes):
            lanes.end(one, Condition.ILL)
            lanes.settle(one)
            failed.append(one.endpoint.lane)
    assert not lanes._lanes
    assert [*lanes._failing] == failed[-FAILING_REMEMBERED:]


def test_endpoints_of_one_task_at_one_host_do_not_wait_for_each_other() -> None:
    lanes = Lanes()
    ends = [endpoint(id, of_task="t", host="h.example") for id in "ab"]
    first, second = duty(to=ends[0], task="t"), duty(to=ends[0], task="t")
    other = duty(to=ends[1], task="t")
    lanes.offer([first, second, other])
    assert started(lanes) == [first, other]
    lanes.end(first, Condition.WELL)
    assert started(lanes) == [second]


def test_a_host_gets_its_share_and_what_is_held_back_stops_nobody() -> None:
    lanes = Lanes()
    many = [
        duty(to=endpoint(f"{account}-{index}", host="h.example", account=account))
        for account in ("acc_1", "acc_2", "acc_3", "acc_4")
        for index in range(ATTEMPTS_OF_AN_ACCOUNT_THERE)
    ]
    lanes.offer(many)
    begun = started(lanes)
    assert begun == many[:ATTEMPTS_OF_A_HOST]
    other = duty(to="elsewhere")
    lanes.offer([other])
    assert started(lanes) == [other]
    lanes.end(begun[0], Condition.WELL)
    lanes.end(begun[1], Condition.ILL)
    assert started(lanes) == many[ATTEMPTS_OF_A_HOST : ATTEMPTS_OF_A_HOST + 2]


def test_no_account_takes_all_places_of_a_host() -> None:
    lanes = Lanes()
    many = [duty(to=endpoint(f"a-{index}", host="h.example")) for index in range(ATTEMPTS_OF_A_HOST)]
    lanes.offer(many)
    begun = started(lanes)
    assert begun == many[:ATTEMPTS_OF_AN_ACCOUNT_THERE]
    other = duty(to=endpoint("b", host="h.example", account="acc_2"))
    lanes.offer([other])
    assert started(lanes) == [other]
    lanes.end(begun[0], Condition.WELL)
    assert started(lanes) == [many[ATTEMPTS_OF_AN_ACCOUNT_THERE]]


def test_whoever_has_a_sealed_url_shares_no_places_with_other_accounts() -> None:
    """Their kind was taken for their host: one account's slow server was everybody's."""
    lanes = Lanes()
    many = [
        duty(to=replace(endpoint(f"a-{index}"), kind="mattermost", config={}))
        for index in range(ATTEMPTS_OF_A_HOST + 1)
    ]
    other = duty(to=replace(endpoint("b", account="acc_2"), kind="mattermost", config={}))
    lanes.offer([*many, other])
    assert started(lanes) == [*many[:ATTEMPTS_OF_A_HOST], other]


def test_downloads_leave_the_other_attempts_to_webhooks_however_many_accounts_have_some() -> None:
    lanes = Lanes()
    archives = [archive_endpoint(AccountId(f"acc_{number}"), NOW) for number in range(DOWNLOADS)]
    lanes.offer([duty(to=archive) for archive in archives for _ in range(CONCURRENCY)])
    begun = started(lanes)
    assert len(begun) == DOWNLOADS
    webhook = duty(to=endpoint("b", account="acc_1"))
    lanes.offer([webhook])
    assert started(lanes) == [webhook]
    lanes.end(begun[0], Condition.WELL)
    assert len(started(lanes)) == 1


def test_who_has_much_to_download_leaves_places_to_others() -> None:
    lanes = Lanes()
    mine, others = (archive_endpoint(AccountId(id), NOW) for id in ("acc_1", "acc_2"))
    many, other = [duty(to=mine) for _ in range(CONCURRENCY)], duty(to=others)
    lanes.offer([*many, other])
    begun = started(lanes)
    assert Counter(one.endpoint.id for one in begun) == {mine.id: DOWNLOADS_OF_AN_ACCOUNT, others.id: 1}


def test_an_account_gets_its_share_and_what_is_held_back_stops_nobody() -> None:
    lanes = Lanes()
    many = [duty(to=f"end-{index}") for index in range(ATTEMPTS_OF_AN_ACCOUNT + 5)]
    lanes.offer(many)
    begun = started(lanes)
    assert begun == many[:ATTEMPTS_OF_AN_ACCOUNT]
    other = duty(to=endpoint("b", account="acc_2"))
    lanes.offer([other])
    assert started(lanes) == [other]
    lanes.end(begun[0], Condition.ILL)
    assert started(lanes) == [many[ATTEMPTS_OF_AN_ACCOUNT]]


def test_whoever_is_let_in_and_cannot_go_passes_its_place_on() -> None:
    """The first in line for a host is by then held back by its account, or dropped, or at rest."""
    lanes = Lanes()
    fillers = [
        duty(to=endpoint(f"f-{index}", host="h", account=f"acc_{4 + index % 2}"))
        for index in range(ATTEMPTS_OF_A_HOST)
    ]
    held_back, dropped, last = (
        duty(to=endpoint("x", host="h")),
        duty(to=endpoint("y", host="h", account="acc_2")),
        duty(to=endpoint("z", host="h", account="acc_3")),
    )
    lanes.offer([*fillers, held_back, dropped, last])
    begun = started(lanes)
    assert begun == fillers
    more = [duty(to=f"more-{index}") for index in range(ATTEMPTS_OF_AN_ACCOUNT)]
    lanes.offer(more)
    assert started(lanes) == more  # its account has its share
    lanes.drop(dropped.endpoint)
    lanes.end(begun[0], Condition.WELL)
    assert started(lanes) == [last]
    lanes.end(begun[1], Condition.WELL)
    lanes.end(more[0], Condition.WELL)
    assert started(lanes) == [held_back]


def test_whoever_is_let_in_and_finds_its_place_taken_stays_the_first_in_line() -> None:
    lanes = Lanes(of_a_host=1)
    running, first, second, quick = (duty(to=endpoint(id, host="h")) for id in "abcd")
    lanes.offer([running, first, second])
    assert started(lanes) == [running]
    lanes.offer([quick])  # its turn comes before that of the one that is let in
    lanes.end(running, Condition.WELL)
    assert started(lanes) == [quick]
    lanes.end(quick, Condition.WELL)
    assert started(lanes) == [first]
    lanes.end(first, Condition.WELL)
    assert started(lanes) == [second]


def test_who_waits_at_a_limit_gets_there_also_when_all_who_were_before_it_end_at_once() -> None:
    lanes = Lanes(of_a_host=2)
    duties = [duty(to=endpoint(f"{number}", host="h")) for number in range(8)]
    lanes.offer(duties)
    seen = []
    while begun := started(lanes):
        assert len(begun) == 2
        seen += begun
        for one in begun:
            lanes.end(one, Condition.WELL)
    assert seen == duties


def test_nothing_is_remembered_of_hosts_and_accounts_that_have_all_they_were_to_get() -> None:
    lanes = Lanes()
    lanes.offer(
        [*of_tasks(200, "a.example"), *of_tasks(200, "b.example", "acc_2"), *(duty() for _ in range(20))]
    )
    while begun := started(lanes):
        for one in begun:
            lanes.end(one, Condition.WELL)
            lanes.settle(one)
    assert not lanes._lanes
    assert not lanes._limits
    assert not lanes._turns
    assert not lanes._in_hand


# An endpoint that was changed


def test_what_waits_for_an_endpoint_that_was_changed_goes_back_and_comes_again_in_its_order() -> None:
    lanes = Lanes()
    first, second, other = duty(task="t"), duty(task="t"), duty(to="b")
    lanes.offer([first, second, other])
    assert started(lanes) == [first, other]
    lanes.divert(first.endpoint)
    third = duty(task="t")
    assert not promised(lanes, third)  # it must not overtake
    lanes.recall(first.endpoint)
    assert lanes.recalled() == [second.id]
    assert lanes.waiting() == []
    full = lanes.begin_claim()
    assert claimed(lanes, second)
    assert claimed(lanes, third)
    lanes.forget_recalled([second.id])
    lanes.offer([second, third])
    lanes.end_claim(full)
    assert lanes.recalled() == []
    for before, after in ((first, second), (second, third)):
        assert started(lanes) == []
        lanes.end(before, Condition.WELL)
        assert started(lanes) == [after]
    assert promised(lanes)


def test_an_endpoint_for_which_nothing_is_held_can_be_changed() -> None:
    lanes = Lanes()
    lanes.divert(endpoint("a"))
    lanes.recall(endpoint("a"))
    lanes.end_claim(lanes.begin_claim())
    assert not lanes._lanes
    assert promised(lanes)


def test_a_change_while_a_claim_is_on_its_way_lets_nothing_overtake() -> None:
    """The claim ends in the same commit, just before what waits goes back."""
    lanes, one = Lanes(), duty(task="t")
    lanes.offer([one])
    lanes.divert(one.endpoint)
    full = lanes.begin_claim()
    lanes.end_claim(full)
    lanes.recall(one.endpoint)
    assert not promised(lanes, duty(task="t"))
    lanes.end_claim(full)  # another, that had begun before
    assert not promised(lanes, duty(task="t"))


def test_a_change_of_one_endpoint_leaves_those_that_share_its_lane_alone() -> None:
    lanes = Lanes(clock=Moved())
    mine, others = of_tasks(2, "h.example")
    lanes.offer([mine, others])
    lanes.recall(mine.endpoint)
    assert lanes.recalled() == [mine.id]
    assert started(lanes) == [others]


@pytest.mark.parametrize("how", ["drop", "recall"])
def test_what_is_committed_for_others_of_its_lane_after_an_endpoint_has_changed_goes_out_at_once(
    how: str,
) -> None:
    lanes = Lanes()
    mine, others = of_tasks(2, "h.example")
    assert promised(lanes, others)
    getattr(lanes, how)(mine.endpoint)
    lanes.offer([others])
    assert (started(lanes), lanes.recalled()) == ([others], [])


def test_an_endpoint_that_wants_no_more_leaves_those_that_share_its_lane_alone() -> None:
    lanes = Lanes(clock=Moved())
    gone, more_of_it, others = *of_tasks(1, "h.example"), *of_tasks(2, "h.example")
    lanes.offer([gone])
    assert started(lanes) == [gone]
    lanes.offer([more_of_it, others])
    lanes.drop(gone.endpoint)
    lanes.end(gone, Condition.WELL)
    assert started(lanes) == [others]


# More than memory should hold


def test_a_full_lane_sends_the_rest_to_the_database_until_that_has_nothing_more() -> None:
    lanes = Lanes()
    calls: list[int] = []
    lanes.serve(on_room=lambda: calls.append(len(lanes.waiting())))
    for _ in range(DEPTH):
        one = duty()
        assert promised(lanes, one)
        lanes.offer([one])
    assert lanes.full() == {"a"}
    assert not promised(lanes)
    assert promised(lanes, duty(to="b"))
    while begun := started(lanes):
        for one in begun:
            # As long as some wait in the database the rest goes there too, behind them.
            assert not promised(lanes)
            lanes.end(one, Condition.WELL)
    assert len(calls) == 2  # with half of it free, and with all of it
    full = lanes.begin_claim()
    assert full == set()
    lanes.end_claim(full)
    assert promised(lanes)


def test_what_goes_to_the_database_while_it_is_asked_is_asked_for_again() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(DEPTH)])
    assert not promised(lanes)
    for _ in range(DEPTH):
        one = lanes.next()
        assert one is not None
        lanes.end(one, Condition.WELL)
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    full = lanes.begin_claim()
    assert not promised(lanes)  # after the claim has looked, before it is committed
    lanes.end_claim(full)
    assert len(calls) == 1
    assert not promised(lanes)


def test_a_lane_that_the_database_filled_to_the_brim_asks_for_the_rest() -> None:
    """Nothing was turned away from it: it is full of what was claimed, and more may be due."""
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    lanes.offer([duty() for _ in range(DEPTH)])
    lanes.end_claim(lanes.begin_claim())
    deliver_all(lanes)
    assert calls


def full_of_retries(lanes: Lanes) -> list[Duty]:
    """What a lane takes of the many that are due, after a claim of which it was only a part."""
    lanes.begin_claim()
    taken = [one for one in (duty(attempt=2) for _ in range(DEPTH)) if claimed(lanes, one)]
    lanes.offer(taken)
    lanes.end_claim(set())
    return taken


def test_however_many_retries_are_due_new_ones_go_straight_into_their_lane() -> None:
    lanes = Lanes()
    assert len(full_of_retries(lanes)) == RETRIES_HELD == DEPTH // 2
    assert lanes.full_of_retries() == {"a"}
    assert lanes.full() == set()
    new = [duty() for _ in range(DEPTH - RETRIES_HELD)]
    assert all(promised(lanes, one) for one in new)
    assert not promised(lanes)
    lanes.offer(new)
    assert started(lanes) == new[:CONCURRENCY]


def test_a_lane_that_had_all_the_retries_that_it_takes_asks_for_more_when_half_of_them_have_ended() -> None:
    lanes = Lanes()
    left: list[int] = []
    lanes.serve(on_room=lambda: left.append(len(lanes.waiting())))
    full_of_retries(lanes)
    while begun := started(lanes):
        for one in begun:
            lanes.end(one, Condition.WELL)
    assert left == [RETRIES_HELD // 2, 0]
    lanes.begin_claim()
    assert lanes.full_of_retries() == set()


def test_a_lane_that_was_given_all_of_its_retries_asks_for_no_more() -> None:
    """Each time would be a commit."""
    lanes = Lanes()
    calls: list[None] = []
    full_of_retries(lanes)
    assert lanes.full_of_retries() == {"a"}
    one = lanes.next()
    assert one is not None
    lanes.end(one, Condition.WELL)
    lanes.begin_claim()
    assert lanes.full_of_retries() == set()
    lanes.serve(on_room=lambda: calls.append(None))
    deliver_all(lanes)
    assert calls == []


def test_new_ones_that_wait_in_the_database_are_asked_for_as_soon_as_only_retries_are_before_them() -> None:
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    first = duty()
    lanes.offer([first, duty(attempt=2), duty(attempt=2)])
    lanes.fetch([first.endpoint])
    assert not calls
    [begun, *_] = started(lanes)
    assert begun == first
    lanes.end(first, Condition.WELL)
    assert len(calls) == 1
    lanes.fetch([first.endpoint])
    assert len(calls) == 2


@pytest.mark.parametrize("how", ["drop", "release"])
def test_what_a_lane_did_not_take_of_retries_is_asked_for_when_those_that_it_took_are_out_of_it(
    how: str,
) -> None:
    """None of them ends, and says so."""
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    mine, others = (endpoint(id, of_task=id, host="h.example") for id in "ab")
    lanes.offer([duty(to=others)])
    lanes.begin_claim()
    taken = [one for one in (duty(to=mine, attempt=2) for _ in range(DEPTH)) if claimed(lanes, one)]
    assert len(taken) == RETRIES_HELD
    if how == "drop":
        lanes.offer(taken)
        lanes.drop(mine)
    else:
        lanes.release({one.id: one.endpoint for one in taken})
    assert calls
    assert lanes.full_of_retries() == set()


def test_a_lane_that_never_overflowed_calls_nobody() -> None:
    lanes = Lanes()
    calls: list[None] = []
    lanes.serve(on_room=lambda: calls.append(None))
    lanes.offer([duty() for _ in range(DEPTH)])
    deliver_all(lanes)
    assert calls == []


def test_a_lane_that_delivers_holds_more_than_others() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(DEPTH)])
    for _ in range(DEPTH):
        ended = lanes.next()
        assert ended is not None
        lanes.end(ended, Condition.WELL)
        lanes.settle(ended)
        lanes.offer([duty()])
    assert len(lanes.waiting()) == DEPTH
    made = [duty() for _ in range(DEEPEST)]
    assert [one for one in made if promised(lanes, one)] == made[: DEEPEST - DEPTH]


def test_a_lane_that_fails_holds_no_more_than_others_again() -> None:
    lanes = Lanes()
    lanes.offer([duty() for _ in range(DEPTH)])
    for number in range(DEPTH + 1):
        ended = lanes.next()
        assert ended is not None
        lanes.end(ended, Condition.WELL if number < DEPTH else Condition.ILL)
        lanes.offer([duty()])
    assert not promised(lanes)


def test_lanes_that_deliver_hold_no_more_together_than_memory_should() -> None:
    lanes = Lanes()
    places = [f"end_{number}" for number in range(IN_HAND // DEEPEST + 2)]
    for place in places:
        lanes.offer([duty(to=place) for _ in range(DEPTH)])
    for _ in range(DEPTH * len(places)):
        ended = lanes.next()
        assert ended is not None
        lanes.end(ended, Condition.WELL)
        lanes.settle(ended)
        lanes.offer([duty(to=ended.endpoint.id)])
    for place in places:
        more = [one for one in (duty(to=place) for _ in range(DEEPEST)) if promised(lanes, one)]
        lanes.offer(more)
    assert len(lanes.waiting()) <= IN_HAND + DEEPEST


def test_a_process_that_does_not_deliver_holds_nothing() -> None:
    lanes = Lanes(open=False)
    assert not promised(lanes)
    lanes.divert(endpoint("a"))
    lanes.recall(endpoint("a"))
    assert not lanes.is_in_use(endpoint("a").lane)


def test_what_waits_is_all_that_has_not_begun() -> None:
    lanes = Lanes()
    offered = [duty(task="t"), duty(task="t"), duty(attempt=3), duty(to="b")]
    lanes.offer(offered)
    begun = lanes.next()
    assert begun is not None
    waiting = {one.id for one in lanes.waiting()}
    assert waiting == {one.id for one in offered} - {begun.id}


# Whatever happens in whatever order


HOST_LIMIT, THERE_LIMIT, ACCOUNT_LIMIT = 10, 7, 11
AT = {
    "a": endpoint("a", host="h"),
    "b": endpoint("b", host="h", account="acc_2"),
    "c": endpoint("c", host="i"),
    "d": endpoint("d", host="i", account="acc_2", rate=6),
}


class AnyOrder(RuleBasedStateMachine):
    """Lanes beside a plain list of what is waiting and a plain list of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Moved()
        self.lanes = Lanes(
            clock=self.clock,
            of_a_host=HOST_LIMIT,
            of_an_account_there=THERE_LIMIT,
            of_an_account=ACCOUNT_LIMIT,
        )
        self.rests: dict[EndpointId, datetime] = {}  # until when
        self.rested: Counter[EndpointId] = Counter()  # in a row
        self.paces: dict[EndpointId, tuple[DeliveryId, datetime]] = {}  # since whose attempt, and until when
        self.waiting: list[Duty] = []
        self.running: list[Duty] = []
        self.seen: Counter[DeliveryId] = Counter()
        self.failures: Counter[EndpointId] = Counter()  # in a row

    def may_start(self, one: Duty) -> bool:
        if one.endpoint.id in self.rests or one.endpoint.id in self.paces:
            return False
        here = [other for other in self.running if other.endpoint.id == one.endpoint.id]
        if sum(other.endpoint.host == one.endpoint.host for other in self.running) >= HOST_LIMIT:
            return False
        of_it = [other for other in self.running if other.endpoint.account_id == one.endpoint.account_id]
        if len(of_it) >= ACCOUNT_LIMIT:
            return False
        if sum(other.endpoint.host == one.endpoint.host for other in of_it) >= THERE_LIMIT:
            return False
        if len(here) >= (1 if self.failures[one.endpoint.id] >= BREAKS_AFTER else CONCURRENCY):
            return False
        if one.attempt > 1:
            return sum(other.attempt > 1 for other in here) < RETRIES_AT_A_TIME
        task = one.event.task_id
        if task is None:
            return True
        before = [
            *(other for other in here if other.attempt == 1),
            *self.waiting[: self.waiting.index(one)],
        ]
        return not any(
            other.event.task_id == task and other.endpoint.id == one.endpoint.id and other.attempt == 1
            for other in before
        )

    @rule(
        to=st.sampled_from("abcd"),
        task=st.sampled_from([None, "t", "u"]),
        attempt=st.sampled_from([1, 1, 2, 9]),
        number=st.integers(1, 12),
    )
    def offer(self, to: str, task: str | None, attempt: int, number: int) -> None:
        where = AT[to]
        offered = [duty(to=where, task=task, attempt=attempt) for _ in range(number)]
        self.lanes.offer(offered)
        self.waiting += offered

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        self.lanes.offer([data.draw(st.sampled_from([*self.waiting, *self.running]))])

    @rule(number=st.integers(1, 30))
    def start(self, number: int) -> None:
        for _ in range(number):
            one = self.lanes.next()
            if one is None:
                assert not any(self.may_start(other) for other in self.waiting)
                return
            assert self.may_start(one)
            if one.attempt > 1:
                firsts = (other for other in self.waiting if other.attempt == 1)
                assert not any(
                    self.may_start(other) for other in firsts if other.endpoint.id == one.endpoint.id
                )
            self.waiting.remove(one)
            self.running.append(one)
            if one.endpoint.gap is not None:
                self.paces[one.endpoint.id] = (one.id, self.clock.now + one.endpoint.gap)
            self.seen[one.id] += 1
            assert self.seen[one.id] == 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), number=st.integers(1, 10), condition=st.sampled_from(Condition))
    def end(self, data: st.DataObject, number: int, condition: Condition) -> None:
        for _ in range(min(number, len(self.running))):
            self.end_one(data.draw(st.sampled_from(self.running)), condition)

    def end_one(self, one: Duty, condition: Condition) -> None:
        self.running.remove(one)
        self.lanes.end(one, condition)
        self.lanes.settle(one)
        here = one.endpoint.id
        if condition is Condition.UNTRIED and self.paces.get(here, ("", NOW))[0] == one.id:
            del self.paces[here]
        self.failures[here] += condition is Condition.ILL
        if condition is Condition.WELL:
            self.begin_anew(here)
        elif condition is Condition.ILL and self.failures[here] >= BREAKS_AFTER and here not in self.rests:
            self.rests[here] = self.clock.now + timedelta(seconds=min(2 ** self.rested[here], 30))
            self.rested[here] += 1
        self.forget_if_idle(here)

    def begin_anew(self, endpoint_id: EndpointId) -> None:
        self.failures[endpoint_id] = self.rested[endpoint_id] = 0
        self.rests.pop(endpoint_id, None)

    def forget_if_idle(self, endpoint_id: EndpointId) -> None:
        held = any(other.endpoint.id == endpoint_id for other in [*self.waiting, *self.running])
        if not held and endpoint_id not in self.rests and endpoint_id not in self.paces:
            self.begin_anew(endpoint_id)

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += timedelta(seconds=seconds)
        next_one = self.lanes.end_rests()
        for endpoint_id, until in list(self.rests.items()):
            if until <= self.clock.now:
                del self.rests[endpoint_id]
                self.forget_if_idle(endpoint_id)
        assert next_one == min(self.rests.values(), default=None)
        self.lanes.end_paces()
        for endpoint_id, (_, until) in list(self.paces.items()):
            if until <= self.clock.now:
                del self.paces[endpoint_id]
                self.forget_if_idle(endpoint_id)

    @rule(to=st.sampled_from("abcd"))
    def rouse(self, to: str) -> None:
        known = EndpointId(to) in self.rests
        self.lanes.rouse(endpoint(to))
        if known:
            del self.rests[EndpointId(to)]
            self.forget_if_idle(EndpointId(to))

    @rule(to=st.sampled_from("abcd"))
    def drop(self, to: str) -> None:
        self.lanes.drop(endpoint(to))
        self.waiting = [one for one in self.waiting if one.endpoint.id != to]
        self.begin_anew(EndpointId(to))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert Counter(one.id for one in self.lanes.waiting()) == Counter(one.id for one in self.waiting)

    @invariant()
    def whoever_waits_for_work_is_woken_when_there_is_some(self) -> None:
        assert self.lanes.startable.is_set() or not any(self.may_start(one) for one in self.waiting)

    @invariant()
    def counts_are_true(self) -> None:
        held = Counter(one.endpoint.id for one in [*self.waiting, *self.running])
        assert {id: len(lane) for id, lane in self.lanes._lanes.items() if len(lane)} == held
        assert self.lanes._lanes.keys() == held.keys() | self.rests.keys() | self.paces.keys()
        for id, lane in self.lanes._lanes.items():
            assert lane.active == sum(one.endpoint.id == id for one in self.running)

    def teardown(self) -> None:
        """All of it can be brought to an end, and then nothing is held."""
        while self.waiting or self.running or self.rests or self.paces:
            self.pass_time(40)
            self.start(1000)
            for one in [*self.running]:
                self.end_one(one, Condition.WELL)
        assert not self.lanes._lanes
        assert not self.lanes._limits
        assert not self.lanes._in_hand


test_no_duty_is_lost_or_started_twice_in_any_order = AnyOrder.TestCase
AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


# Other processes


def test_what_is_said_of_an_endpoint_names_it_and_its_lane() -> None:
    """And whether others share that lane: those that are bound to tasks do."""
    own, bound = endpoint("a"), endpoint("b", of_task="t", host="example.com")
    for one in (own, bound):
        told = named_endpoint(endpoint_name(one))
        assert (told.id, told.lane, told.shares_lane) == (one.id, one.lane, one.shares_lane)


def test_a_lane_is_in_use_until_nothing_of_it_is_here() -> None:
    lanes, one = Lanes(), duty()
    assert not lanes.is_in_use(one.endpoint.lane)
    assert promised(lanes, one)
    assert lanes.is_in_use(one.endpoint.lane)
    lanes.offer([one])
    [begun] = started(lanes)
    assert lanes.is_in_use(one.endpoint.lane)
    lanes.end(begun, Condition.WELL)
    assert not lanes.is_in_use(one.endpoint.lane)


def test_what_was_counted_as_leased_and_is_nowhere_here_is_found() -> None:
    """It may be promised, waiting, on its way, or about to be given back; what is none of these was left by a commit that
    nobody heard of.
    """
    lanes = Lanes()
    coming, waiting, behind, recalled = duty(), duty(task="t"), duty(task="t"), duty(to="b")
    promised(lanes, coming)
    lanes.offer([waiting, behind, recalled])
    lanes.recall(recalled.endpoint)
    [begun] = started(lanes)
    leased = [coming.id, waiting.id, behind.id, recalled.id, DeliveryId("dlv_lost")]
    assert lanes.not_here(leased) == ["dlv_lost"]
    lanes.end(begun, Condition.WELL)
    lanes.settle(begun)
    assert lanes.not_here(leased) == [waiting.id, "dlv_lost"]


def test_a_process_that_has_lost_everything_begins_nothing_of_it_and_asks_anew() -> None:
    lanes = Lanes()
    asked: list[str] = []
    lanes.serve(on_room=lambda: asked.append("room"))
    first, second, third = duty(), duty(task="t"), duty(task="t")
    lanes.offer([first, second, third])
    begun = lanes.next()
    assert begun is not None
    lanes.abandon()
    assert asked == ["room"]
    assert started(lanes) == []
    assert lanes.not_here([first.id, second.id, third.id]) == [
        one.id for one in (first, second, third) if one is not begun
    ]
    lanes.end(begun, Condition.WELL)
    lanes.settle(begun)
    assert not lanes.is_in_use(first.endpoint.lane)


def test_a_process_that_has_lost_everything_gives_nothing_of_it_back() -> None:
    """Others have it by now: to end their leases would be to send it twice."""
    lanes, one = Lanes(), duty()
    lanes.offer([one])
    lanes.recall(one.endpoint)
    assert lanes.recalled() == [one.id]
    lanes.abandon()
    assert lanes.recalled() == []


def test_after_a_gap_in_what_was_heard_all_that_waits_is_claimed_anew() -> None:
    """Any of its endpoints may have been changed in the meantime."""
    lanes = Lanes()
    one, other = duty(to="a"), duty(to="b")
    lanes.offer([one, other])
    lanes.recall_all()
    assert sorted(lanes.recalled()) == sorted([one.id, other.id])
    assert started(lanes) == []


def test_promises_that_are_taken_back_leave_a_doubt() -> None:
    """Where the connection broke they may be kept all the same, in the database."""
    lanes, told, one = Lanes(), list[str](), duty()
    lanes.serve(on_undone=lambda: told.append("doubt"))
    assert promised(lanes, one)
    lanes.release({})
    assert told == []
    lanes.release({one.id: one.endpoint})
    assert told == ["doubt"]


@pytest.mark.parametrize("how", ["drop", "recall"])
def test_what_is_committed_after_its_endpoint_has_changed_is_claimed_anew(how: str) -> None:
    """It was made for what the endpoint was, by a transaction that another process's has overtaken."""
    lanes, told = Lanes(), list[str]()
    lanes.serve(on_room=lambda: told.append("room"))
    one = duty()
    assert lanes.promise(one.id, one.endpoint)
    getattr(lanes, how)(one.endpoint)
    told.clear()
    lanes.offer([one])
    assert (lanes.next(), lanes.recalled(), told) == (None, [one.id], ["room"])
    lanes.forget_recalled([one.id])
    lanes.begin_claim()
    assert claimed(lanes, one)
    lanes.offer([one])
    assert lanes.next() == one


def test_what_waits_for_an_endpoint_that_another_process_has_closed_is_looked_at_once_more() -> None:
    """Its row may have come to be while that one made dead letters of what it saw."""
    lanes, told = Lanes(), list[str]()
    lanes.serve(on_room=lambda: told.append("room"))
    begun, waiting = duty(task="t"), duty(task="t")
    lanes.offer([begun, waiting])
    assert lanes.next() == begun
    lanes.recall_dropped(begun.endpoint)
    assert (lanes.recalled(), lanes.waiting(), told) == ([waiting.id], [], ["room"])
    assert not promised(lanes)  # whoever publishes may have read the endpoint before
    lanes.end_claim(lanes.begin_claim())
    assert promised(lanes)


@pytest.mark.parametrize("how", ["drop", "recall", "recall_all"])
def test_what_is_claimed_while_its_endpoint_changes_is_claimed_anew(how: str) -> None:
    """The claim may have read the endpoint as it was before."""
    lanes, told, one, other = Lanes(), list[str](), duty(), duty(to="b")
    lanes.serve(on_room=lambda: told.append("room"))
    full = lanes.begin_claim()
    if how == "recall_all":
        lanes.recall_all()
    else:
        getattr(lanes, how)(one.endpoint)
        assert claimed(lanes, other)
    assert not claimed(lanes, one)
    told.clear()
    lanes.end_claim(full)
    assert (told, lanes.with_backlog()) == (["room"], [one.endpoint.lane])
    lanes.begin_claim()
    assert claimed(lanes, one)


def test_after_a_gap_in_what_was_heard_also_what_is_not_committed_yet_is_claimed_anew() -> None:
    lanes, one = Lanes(), duty()
    assert promised(lanes, one)
    lanes.recall_all()
    lanes.offer([one])
    assert (lanes.next(), lanes.recalled()) == (None, [one.id])


def test_lanes_that_are_closed_give_back_all_that_is_not_begun_and_take_nothing_more() -> None:
    lanes, told = Lanes(), list[str]()
    lanes.serve(on_room=lambda: told.append("room"))
    begun, behind, coming = duty(task="t"), duty(task="t"), duty(to="b")
    lanes.offer([begun, behind])
    assert lanes.next() == begun
    lanes.begin_claim()
    assert claimed(lanes, coming)
    lanes.close()
    assert (lanes.recalled(), lanes.waiting(), told) == ([behind.id], [], ["room"])
    lanes.offer([coming])
    assert lanes.recalled() == [behind.id, coming.id]
    assert not promised(lanes)
    assert not claimed(lanes, duty())
    assert started(lanes) == []


@pytest.mark.parametrize("condition", Condition)
def test_a_lane_that_is_closed_is_in_use_until_its_last_attempt_has_ended(condition: Condition) -> None:
    """And then asks to be given up, however that has ended. What rests, or has a backlog, is others' at once."""
    clock, told = Moved(), list[str]()
    lanes = Lanes(clock=clock)
    lanes.serve(on_room=lambda: told.append("room"))
    mine, resting, awaited = duty(failures=BREAKS_AFTER), duty(to="b", failures=BREAKS_AFTER), duty(to="c")
    lanes.offer([resting])
    assert lanes.next() == resting
    lanes.end(resting, Condition.ILL)
    lanes.settle(resting)
    lanes.divert(awaited.endpoint)
    lanes.offer([mine])
    assert lanes.next() == mine
    lanes.close()
    in_use = [one for one in (mine, resting, awaited) if lanes.is_in_use(one.endpoint.lane)]
    assert in_use == [mine]
    lanes.end(mine, condition)
    told.clear()
    lanes.settle(mine)
    assert (told, lanes.is_in_use(mine.endpoint.lane)) == (["room"], False)


def test_a_lane_that_is_closed_is_in_use_until_others_find_all_that_waits_for_it() -> None:
    """An outcome is recorded after the attempt, and what was being committed is given back after that."""
    lanes, told = Lanes(), list[str]()
    lanes.serve(on_room=lambda: told.append("room"))
    mine, coming = duty(), duty(to="b")
    lanes.offer([mine])
    assert started(lanes) == [mine]
    assert promised(lanes, coming)
    lanes.close()
    lanes.offer([coming])
    assert lanes.is_in_use(coming.endpoint.lane)
    lanes.forget_recalled([coming.id])
    assert not lanes.is_in_use(coming.endpoint.lane)
    lanes.end(mine, Condition.WELL)
    assert lanes.is_in_use(mine.endpoint.lane)
    told.clear()
    lanes.settle(mine)
    assert (lanes.is_in_use(mine.endpoint.lane), told) == (False, ["room"])


def test_a_look_at_lanes_that_are_closed_leaves_nothing_behind() -> None:
    lanes = Lanes()
    full = [duty() for _ in range(DEPTH)]
    assert all(promised(lanes, one) for one in full)
    lanes.close()
    assert lanes.full()
    lanes.release({one.id: one.endpoint for one in full})
    assert not lanes.is_in_use(full[0].endpoint.lane)


def test_what_is_promised_after_all_was_recalled_overtakes_nothing() -> None:
    lanes, earlier, later = Lanes(), duty(task="t"), duty(task="t")
    assert promised(lanes, earlier)
    lanes.recall_all()
    lanes.offer([earlier])
    assert not promised(lanes, later)
    assert lanes.recalled() == [earlier.id]


def test_a_lane_that_is_closed_is_in_use_while_it_waits_for_its_endpoints_rate() -> None:
    """Whoever has it next does not know of that."""
    clock = Moved()
    lanes, one = Lanes(clock=clock), duty(to=endpoint(rate=60))
    lanes.offer([one])
    assert lanes.next() == one
    lanes.close()
    lanes.end(one, Condition.WELL)
    lanes.settle(one)
    assert lanes.is_in_use(one.endpoint.lane)
    pass_time(lanes, clock, 1)
    assert not lanes.is_in_use(one.endpoint.lane)


def test_what_is_stored_for_a_lane_just_when_it_is_closed_does_not_keep_it_in_use() -> None:
    lanes, told, one = Lanes(), list[str](), duty()
    lanes.serve(on_room=lambda: told.append("room"))
    lanes.close()
    told.clear()
    lanes.fetch([one.endpoint])
    assert (told, lanes.is_in_use(one.endpoint.lane)) == (["room"], False)
