from service.pace import FEWEST, MOST, REST, SHORT_REST, SLICE_S, UNHURRIED_S, Pace

COMMIT_S = 0.008  # what nothing can be done about


def test_a_slice_that_took_too_long_is_followed_by_smaller_ones_and_never_by_none() -> None:
    pace = Pace(rows=FEWEST * 4, quickest=COMMIT_S)
    taken = [pace.rows]
    for _ in range(4):
        pace.after(COMMIT_S + SLICE_S * 3)
        taken.append(pace.rows)
    assert taken == [FEWEST * 4, FEWEST * 2, FEWEST, FEWEST, FEWEST]


def test_quick_slices_grow_up_to_a_bound() -> None:
    pace = Pace()
    for _ in range(20):
        pace.after(SLICE_S / 100)
    assert pace.rows == MOST


def test_a_commit_that_always_takes_long_makes_no_slice_smaller() -> None:
    pace = Pace()
    for _ in range(20):
        pace.after(COMMIT_S)
    assert pace.rows == MOST


def test_a_slice_that_took_about_as_long_as_it_may_is_repeated() -> None:
    pace = Pace(rows=FEWEST + 7, quickest=COMMIT_S)
    pace.after(COMMIT_S + SLICE_S * 0.8)
    assert pace.rows == FEWEST + 7


def test_the_writer_is_others_for_most_of_the_time() -> None:
    assert Pace().after(0.01) == 0.01 * REST


def test_what_takes_hours_is_hurried_so_that_a_day_is_enough() -> None:
    pace = Pace()
    rests: list[float] = []
    while pace.passed < UNHURRIED_S:
        rests.append(pace.after(10))
    assert set(rests) == {10 * REST}
    assert pace.after(10) == 10 * SHORT_REST
