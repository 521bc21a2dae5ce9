from service.stopping import DRAIN, Stopping


def test_whatever_is_waited_for_first_a_stop_takes_no_longer_than_once() -> None:
    now = 100.0
    stopping = Stopping(monotonic=lambda: now)
    assert not stopping.has_begun
    stopping.begin()
    assert stopping.has_begun
    now += 12
    stopping.begin()  # told twice
    assert stopping.left_s() == DRAIN.total_seconds() - 12
    now += 60
    assert stopping.left_s() == 0


def test_a_stop_that_nobody_was_told_of_begins_when_something_is_waited_for() -> None:
    stopping = Stopping(monotonic=lambda: 100.0)
    assert stopping.left_s() == DRAIN.total_seconds()
    assert stopping.has_begun


def test_who_asked_for_it_is_told_once_when_a_stop_begins() -> None:
    stopping, told = Stopping(), list[str]()
    stopping.on_begin(lambda: told.append("begun"))
    assert told == []
    stopping.begin()
    stopping.left_s()
    assert told == ["begun"]
