"""`service.doors.recognition`: which keys need not be looked up, and for how long."""

from datetime import UTC, datetime

import pytest

from service.domain.ids import AccountId, KeyId
from service.doors.recognition import KNOWN_S, MOST_KNOWN, KnownKeys
from storage.keys import ApiKey, KeyRole

KEY = ApiKey(
    id=KeyId("key_1"),
    account_id=AccountId("acc_1"),
    account_name="one",
    name="a key",
    role=KeyRole.MEMBER,
    hint="abcd",
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> KnownKeys:
    known = KnownKeys(monotonic=clock)
    known.remember("a", KEY, forgotten=known.forgotten)
    return known


def test_a_key_is_known_for_a_moment(known: KnownKeys, clock: Clock) -> None:
    clock.now += KNOWN_S / 2
    assert known.get("a") is KEY
    assert known.get("b") is None
    clock.now += KNOWN_S / 2
    assert known.get("a") is None


def test_to_ask_does_not_make_the_moment_longer(known: KnownKeys, clock: Clock) -> None:
    for _ in range(11):
        known.get("a")
        clock.now += KNOWN_S / 10
    assert known.get("a") is None


def test_a_revocation_ends_it_at_once(known: KnownKeys) -> None:
    known.forget()
    assert known.get("a") is None


def test_what_was_looked_up_before_a_revocation_is_not_remembered_after_it(known: KnownKeys) -> None:
    """The look may have been at what was there before."""
    before = known.forgotten
    known.forget()
    known.remember("a", KEY, forgotten=before)
    assert known.get("a") is None
    known.remember("a", KEY, forgotten=known.forgotten)
    assert known.get("a") is KEY


def test_so_many_are_known_and_no_more(known: KnownKeys) -> None:
    for number in range(3 * MOST_KNOWN):
        known.remember(str(number), KEY, forgotten=0)
    assert len(known._known) <= MOST_KNOWN
