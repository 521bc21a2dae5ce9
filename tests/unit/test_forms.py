"""In which order a form's fields stand, at which one a fault is shown, and which of them somebody has changed."""

import pytest
from starlette.datastructures import FormData

from service.dashboard.forms import Field, Widget, changes, fields_of, sorted_faults
from service.domain.errors import Fault
from service.domain.task_types import TASK_TYPES

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


@pytest.mark.parametrize(
    ("type", "first"),
    [
        ("kling.text-to-video", ["prompt", "negative_prompt", "model_name"]),
        ("kling.image-to-video", ["image", "prompt", "negative_prompt", "model_name"]),
        ("kling.multi-image-to-video", ["image_list", "prompt", "negative_prompt", "model_name"]),
        ("kling.multi-image-to-image", ["subject_image_list", "prompt", "model_name"]),
    ],
)
def test_what_is_required_stands_first_and_then_the_prompt(type: str, first: list[str]) -> None:
    fields = fields_of(TASK_TYPES[type].input_model, prefix="input", pointer="#/input")
    assert [field.key for field in fields][: len(first)] == first
