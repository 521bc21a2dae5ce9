"""`service.domain.deliveries`: what an attempt's end means, and when the next one is."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.deliveries import (
    LONGEST_RETRY_AFTER,
    OBEYED_RETRIES,
    SCHEDULE,
    AttemptOutcome,
    Reply,
    Result,
    is_reason_to_rest,
    parse_retry_after,
    result,
    storable,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LAST = len(SCHEDULE) + 1
ATTEMPTS = range(1, LAST + 1)
HOUR = timedelta(hours=1)


def reply(status_code: int | None, retry_after: timedelta | None = None) -> Reply:
    return Reply(status_code=status_code, reason="answered", retry_after=retry_after)


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_ends_the_delivery_at_any_attempt(status: int, attempt: int) -> None:
    assert result(reply(status), attempt=attempt, now=NOW) == Result(AttemptOutcome.DELIVERED)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_410_ends_the_delivery_at_any_attempt_with_retries_left(attempt: int) -> None:
    assert result(reply(410), attempt=attempt, now=NOW) == Result(AttemptOutcome.GONE)


@pytest.mark.parametrize("ending", AttemptOutcome)
@pytest.mark.parametrize("status", [None, 200, 410, 500])
def test_a_sink_that_knows_how_it_ended_is_believed_over_the_status(
    status: int | None, ending: AttemptOutcome
) -> None:
    """Some platforms answer 200 to what they refuse, and brokers answer no status at all."""
    told = Reply(status_code=status, reason="told", ending=ending)
    assert result(told, attempt=1, now=NOW).outcome is ending


def test_a_wait_that_a_sink_asks_for_is_obeyed_whatever_the_status() -> None:
    told = Reply(
        status_code=200,
        reason="too fast",
        ending=AttemptOutcome.RETRY,
        retry_after=timedelta(seconds=90),
    )
    assert result(told, attempt=1, now=NOW, jitter=0).next_attempt_at == NOW + timedelta(seconds=90)


FAILURES = [
    None,
    100,
    199,
    300,
    301,
    302,
    307,
    308,
    400,
    401,
    403,
    404,
    409,
    418,
    429,
    499,
    500,
    502,
    503,
    599,
    999,
]


@pytest.mark.parametrize("status", FAILURES)
def test_all_else_is_tried_again_by_the_schedule_and_dead_after_the_last(status: int | None) -> None:
    """The delays that are promised; a redirect is a failure like any other."""
    given = [result(reply(status), attempt=attempt, now=NOW, jitter=0) for attempt in ATTEMPTS]
    assert [one.outcome for one in given] == [AttemptOutcome.RETRY] * 8 + [AttemptOutcome.DEAD]
    assert [one.next_attempt_at - NOW for one in given if one.next_attempt_at is not None] == [
        timedelta(seconds=5),
        timedelta(seconds=30),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=2),
        timedelta(hours=5),
        timedelta(hours=10),
        timedelta(hours=10),
    ]
    assert given[-1].next_attempt_at is None


@pytest.mark.parametrize(("jitter", "factor"), [(-1, 0.8), (0, 1), (1, 1.2)])
@pytest.mark.parametrize("attempt", range(1, LAST))
def test_jitter_moves_a_retry_by_a_fifth_at_most(attempt: int, jitter: float, factor: float) -> None:
    given = result(reply(500), attempt=attempt, now=NOW, jitter=jitter)
    assert given.next_attempt_at == NOW + SCHEDULE[attempt - 1] * factor


def test_the_jitter_is_random_and_within_its_bounds() -> None:
    moments = {result(reply(500), attempt=1, now=NOW).next_attempt_at for _ in range(200)}
    assert len(moments) > 100
    assert all(at is not None and 4 <= (at - NOW).total_seconds() <= 6 for at in moments)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "obeyed"),
    [
        (timedelta(seconds=7), timedelta(seconds=7)),
        (timedelta(minutes=59), timedelta(minutes=59)),
        (HOUR, HOUR),
        (timedelta(days=365), HOUR),
    ],
)
@pytest.mark.parametrize("attempt", [1, OBEYED_RETRIES])
def test_retry_after_is_obeyed_up_to_an_hour_instead_of_the_schedule(
    status: int, asked: timedelta, obeyed: timedelta, attempt: int
) -> None:
    given = result(reply(status, asked), attempt=attempt, now=NOW, jitter=0)
    assert given == Result(AttemptOutcome.RETRY, NOW + obeyed)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("attempt", range(OBEYED_RETRIES + 1, LAST))
@pytest.mark.parametrize("asked", [timedelta(seconds=1), HOUR, timedelta(days=2)])
def test_from_the_third_retry_on_retry_after_only_lengthens_the_schedule(
    status: int, attempt: int, asked: timedelta
) -> None:
    """An endpoint that asked for a second each time had used up its nine attempts in eight."""
    given = result(reply(status, asked), attempt=attempt, now=NOW, jitter=0)
    assert given == Result(AttemptOutcome.RETRY, NOW + max(min(asked, HOUR), SCHEDULE[attempt - 1]))


@pytest.mark.parametrize("attempt", [1, len(SCHEDULE)])
def test_retry_after_0_has_no_wish_and_the_schedule_stands(attempt: int) -> None:
    """Else an endpoint that says so each time would have used up all attempts within seconds."""
    given = result(reply(429, timedelta(0)), attempt=attempt, now=NOW, jitter=0)
    assert given == Result(AttemptOutcome.RETRY, NOW + SCHEDULE[attempt - 1])


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=365)), st.floats(-1, 1))
def test_nobody_is_asked_earlier_than_they_said_nor_much_later(asked: timedelta, jitter: float) -> None:
    at = result(reply(503, asked), attempt=1, now=NOW, jitter=jitter).next_attempt_at
    assert at is not None
    wanted = min(asked, LONGEST_RETRY_AFTER)
    assert wanted <= at - NOW <= wanted * 1.05


@pytest.mark.parametrize("status", [None, 302, 400, 500, 502])
def test_retry_after_counts_with_429_and_503_only(status: int | None) -> None:
    given = result(reply(status, HOUR), attempt=1, now=NOW, jitter=0)
    assert given.next_attempt_at == NOW + SCHEDULE[0]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_gives_no_attempt_beyond_the_last(status: int) -> None:
    assert result(reply(status, HOUR), attempt=LAST, now=NOW) == Result(AttemptOutcome.DEAD)


@given(
    st.one_of(st.none(), st.integers(100, 999)),
    st.integers(1, 100),
    st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(days=400))),
)
def test_every_end_of_an_attempt_means_something(
    status: int | None, attempt: int, retry_after: timedelta | None
) -> None:
    given = result(reply(status, retry_after), attempt=attempt, now=NOW)
    assert (given.next_attempt_at is not None) == (given.outcome is AttemptOutcome.RETRY)
    if given.next_attempt_at is not None:
        assert NOW <= given.next_attempt_at <= NOW + timedelta(hours=12)


# Rests


@pytest.mark.parametrize("of_many", [False, True])
@pytest.mark.parametrize("status", [None, 429, 500, 502, 503])
def test_no_answer_and_one_that_tells_of_trouble_or_of_too_much_are_reasons_to_rest(
    status: int | None, of_many: bool
) -> None:
    assert is_reason_to_rest(reply(status), of_many=of_many)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 408, 422])
def test_an_answer_about_one_of_many_at_a_host_is_no_reason_that_the_others_rest(status: int) -> None:
    assert not is_reason_to_rest(reply(status), of_many=True)
    assert is_reason_to_rest(reply(status), of_many=False)


@pytest.mark.parametrize("of_many", [False, True])
@pytest.mark.parametrize("status", [None, 200, 404, 500])
@pytest.mark.parametrize("ending", AttemptOutcome)
def test_only_where_a_sink_says_that_it_should_be_tried_again_is_its_word_a_reason_to_rest(
    ending: AttemptOutcome, status: int | None, of_many: bool
) -> None:
    told = Reply(status_code=status, reason="told", ending=ending)
    assert is_reason_to_rest(told, of_many=of_many) == (ending is AttemptOutcome.RETRY)


@pytest.mark.parametrize("of_many", [False, True])
@pytest.mark.parametrize("status", [200, 204, 410])
def test_what_is_delivered_or_gone_is_no_reason_to_rest(status: int, of_many: bool) -> None:
    assert not is_reason_to_rest(reply(status), of_many=of_many)


# Retry-After


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("0", timedelta(0)),
        ("120", timedelta(minutes=2)),
        ("  5  ", timedelta(seconds=5)),
        ("9" * 5000, timedelta(days=365)),
        (format_datetime(NOW + HOUR, usegmt=True), HOUR),
        ("Sun, 22 Nov 2026 13:00:00 GMT", HOUR),
        ("Sunday, 22-Nov-26 13:00:00 GMT", HOUR),
        ("Sun Nov 22 13:00:00 2026", HOUR),
        ("Sun, 22 Nov 2026 13:00:00 -0000", HOUR),
        ("Sun, 22 Nov 2026 11:00:00 GMT", timedelta(0)),
    ],
)
def test_retry_after_is_seconds_or_any_of_the_three_http_dates(value: str, span: timedelta) -> None:
    """RFC 9110, 10.2.3 and 5.6.7: a recipient reads also the two obsolete forms, and all of them are UTC."""
    assert parse_retry_after(value, NOW) == span


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "-1",
        "1.5",
        "1e3",
        "٣",
        "²",
        "0x10",
        ",",
        "0 0 0 0 0",
        "Mon, 1 Jan 99999 00:00:00 GMT",
    ],
)
def test_what_is_neither_is_nothing(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


PIECES = (
    "Mon Sun, 1 31 Feb Nov 22 2026 99 99999999999 25:61:61 13:00:00 13:00 GMT UTC EST Z "
    '+9999 -2359 -0000 +99999999 ( ) " \\ . : , - \x00'
)
pieces = st.sampled_from(PIECES.split(" "))


@given(st.one_of(st.text(), st.lists(pieces).map(" ".join)))
def test_no_retry_after_breaks_an_attempt_or_lies_in_the_past(value: str) -> None:
    span = parse_retry_after(value, NOW)
    assert span is None or span >= timedelta(0)


# What is kept


@given(st.text(st.characters(), max_size=30), st.integers(1, 20))
def test_what_is_kept_of_an_answer_can_be_stored_and_told(text: str, longest: int) -> None:
    kept = storable(text, longest)
    assert len(kept) <= longest
    assert "\0" not in kept
    assert kept.encode().decode() == kept


def test_a_header_that_is_not_utf_8_is_kept_with_marks_for_what_cannot_be_read() -> None:
    """As aiohttp reads it: RFC 9110 lets bytes above 0x7f into a header's value."""
    assert storable(b"gzip\xff".decode(errors="surrogateescape"), 100) == "gzip�"
    assert storable("wörter ☃", 100) == "wörter ☃"
