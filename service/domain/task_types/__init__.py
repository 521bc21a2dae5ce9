"""The kinds of task, as data: a new kind is one row in one of these modules, and one input model beside it."""

from collections.abc import Mapping
from typing import Final

from service.domain.task_types import anew, edits, images, lips, raw, sounds, videos
from service.domain.task_types.row import (
    Confidence,
    Fact,
    Layout,
    NotSold,
    Places,
    Route,
    Standard,
    TaskType,
    Words,
)

__all__ = [
    "TASK_TYPES",
    "Confidence",
    "Fact",
    "Layout",
    "NotSold",
    "Places",
    "Route",
    "Standard",
    "TaskType",
    "Words",
]

TASK_TYPES: Final[Mapping[str, TaskType]] = {
    row.name: row
    for row in (*images.ROWS, *videos.ROWS, *edits.ROWS, *lips.ROWS, *sounds.ROWS, *anew.ROWS, *raw.ROWS)
}
