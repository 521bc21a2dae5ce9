"""Which field of a form a fault is shown at, and which of them somebody has changed."""

import pytest
from starlette.datastructures import FormData

from service.dashboard.forms import Field, Widget, changes, sorted_faults
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


@pytest.mark.parametrize(
    "field",
    [
        Field(name="headers", pointer="#", label="", widget=Widget.PAIRS, default={}),
        Field(name="tls", pointer="#", label="", widget=Widget.SWITCH, default=False),
        Field(name="port", pointer="#", label="", widget=Widget.NUMBER, default=80),
    ],
    ids=lambda field: field.name,
)
async def test_what_is_not_there_and_is_left_blank_is_no_change(field: Field) -> None:
    assert (await changes([field], FormData(), {})).body == {}
