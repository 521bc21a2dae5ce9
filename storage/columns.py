"""How our values stand in columns: moments as milliseconds, structures as JSON text."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, overload

from pydantic_core import from_json, to_json

Row = Mapping[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@overload
def milliseconds(moment: datetime) -> int: ...
@overload
def milliseconds(moment: None) -> None: ...
@overload
def milliseconds(moment: datetime | None) -> int | None: ...
def milliseconds(moment: datetime | None) -> int | None:
    """Whole milliseconds since 1970, rounded down."""
    return None if moment is None else _since_epoch(moment)


@lru_cache(maxsize=4096)  # what happens now is written into several rows
def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


@overload
def moment(milliseconds: int) -> datetime: ...
@overload
def moment(milliseconds: None) -> None: ...
@overload
def moment(milliseconds: int | None) -> datetime | None: ...
def moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + milliseconds * _MILLISECOND


def json_text(value: object) -> str:
    return to_json(value).decode()


def from_json_text(text: str) -> Any:
    return {} if text == "{}" else [] if text == "[]" else from_json(text)  # as most of a task's columns are
