"""How long a body is to be is read of whatever somebody has put into its head."""

import pytest

from service.domain.lengths import announced_length


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        ("10", 10),
        ("00010", 10),
        ("", None),
        ("-1", None),
        ("1 0", None),
        ("²", None),
        ("0x10", None),
    ],
)
def test_a_length_is_a_whole_number(value: str, length: int | None) -> None:
    assert announced_length(value) == length


def test_zeros_before_a_length_say_nothing_however_many() -> None:
    assert announced_length("0" * 5000 + "7") == 7
    assert announced_length("0" * 5000) == 0


def test_a_length_of_thousands_of_digits_is_larger_than_anything_may_be() -> None:
    assert (announced_length("9" * 5000) or 0) > 10**15
