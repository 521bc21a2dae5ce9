"""Who guesses waits; who knows does not."""

from starlette.requests import HTTPConnection

from service.doors.guesses import ADDRESSES, REFILL_S, Guesses


def from_address(host: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "client": (host, 1), "headers": []})


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_after_its_burst_and_may_fail_again_later() -> None:
    seconds = Seconds()
    guesses, guesser = Guesses(burst=3, monotonic=seconds), from_address("192.0.2.1")
    for _ in range(3):
        assert guesses.wait(guesser) == 0
        guesses.failed(guesser)
    assert guesses.wait(guesser) == REFILL_S
    assert guesses.wait(from_address("192.0.2.2")) == 0
    seconds.now += REFILL_S
    assert guesses.wait(guesser) == 0


def test_one_ipv6_customer_is_one_address() -> None:
    guesses = Guesses(burst=1)
    guesses.failed(from_address("2001:db8::1"))
    assert guesses.wait(from_address("2001:db8::ffff"))
    assert not guesses.wait(from_address("2001:db8:0:1::1"))


def test_memory_is_bounded_however_many_addresses_fail() -> None:
    guesses = Guesses(burst=1)
    for number in range(ADDRESSES + 100):
        guesses.failed(from_address(f"host-{number}"))
    assert len(guesses._spent) == ADDRESSES
