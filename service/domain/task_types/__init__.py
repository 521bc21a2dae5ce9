"""The kinds of task, as data: a new kind is one row in one of these modules, and one input model beside it."""

from collections.abc import Mapping, Sequence
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
    "SHOWN",
    "SHOWN_BEFORE",
    "TASK_TYPES",
    "WORDS",
    "Confidence",
    "Fact",
    "Layout",
    "NotSold",
    "Places",
    "Route",
    "Standard",
    "TaskType",
    "Words",
    "row_for",
    "rows_for",
]

TASK_TYPES: Final[Mapping[str, TaskType]] = {
    row.name: row
    for row in (*images.ROWS, *videos.ROWS, *edits.ROWS, *lips.ROWS, *sounds.ROWS, *anew.ROWS, *raw.ROWS)
}

# What pages and descriptions show how to submit: a film of several pictures, which may be what another task has made.
SHOWN: Final = TASK_TYPES["kling.multi-image-to-video"]
SHOWN_BEFORE: Final = TASK_TYPES["kling.multi-image-to-image"]


def rows_for(word: str) -> Sequence[TaskType]:
    """What a word may mean, the one that takes most pictures first."""
    rows = [row for row in TASK_TYPES.values() if row.words is not None and row.words.word == word]
    return sorted(rows, key=lambda row: row.words.most if row.words is not None else 0, reverse=True)


def row_for(word: str, pictures: int) -> TaskType:
    """What a word means with so many pictures; with too many, what takes most of them.

    Raises:
        KeyError: it means nothing.
    """
    rows = rows_for(word)
    if not rows:
        raise KeyError(word)
    return next(
        (row for row in rows if row.words is not None and row.words.fewest <= pictures <= row.words.most),
        rows[0],
    )


WORDS: Final[Sequence[str]] = tuple(
    dict.fromkeys(row.words.word for row in TASK_TYPES.values() if row.words is not None)
)
