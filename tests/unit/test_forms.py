"""Which field of a form a fault is shown at."""

import pytest

from service.dashboard.forms import Field, Widget, sorted_faults
from service.domain.errors import Fault

HEADERS = Field(name="config.headers", pointer="#/config/headers", label="Headers", widget=Widget.PAIRS)


@pytest.mark.parametrize(
    ("step", "told"),
    [("2", "No. 3: no"), ("x-a", "no"), ("9" * 5000, "no"), ("²", "no")],
    ids=["a place in a list", "a name", "a name of thousands of digits", "a name that looks like a digit"],
)
def test_of_lists_it_is_said_which_entry(step: str, told: str) -> None:
    """Names are whatever somebody has made up, also numbers that Python does not read."""
    found = sorted_faults([HEADERS], [Fault("no", f"#/config/headers/{step}")])
    assert found.of_fields == {"config.headers": [told]}
    assert found.others == []
