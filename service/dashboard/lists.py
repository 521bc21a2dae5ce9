"""Lists with filters, page by page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from service.dashboard.state import State
from service.domain.ids import id_pattern

T = TypeVar("T")

ITEMS: Final = 48
LONGEST_FILTER: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[T]):
    items: Sequence[T]
    older: str | None  # the query of the next page
    newest: str | None  # and of the first one, on others than that


def cursor_of(request: Request[State], prefix: str) -> str | None:
    """One that is none of this list is as if there were none.

    Args:
        prefix: of the ids of what is listed.
    """
    cursor = request.query_params.get("before", "")
    return cursor if re.fullmatch(id_pattern(prefix), cursor) else None


def filter_of(request: Request[State], name: str, choices: Sequence[str] | None = None) -> str | None:
    """None for an empty one, and for one that filters nothing there is."""
    value = request.query_params.get(name, "").strip()
    if not value or len(value) > LONGEST_FILTER or "\0" in value:
        return None
    return value if choices is None or value in choices else None


def listed(found: Sequence[Any], filters: Mapping[str, str | None], *, before: str | None) -> Listed[Any]:
    """
    Args:
        found: up to one more than are shown.
        before: the cursor that they were found by.
    """
    chosen = {name: value for name, value in filters.items() if value is not None}
    older = {**chosen, "before": found[ITEMS - 1].id} if len(found) > ITEMS else None
    return Listed(
        items=found[:ITEMS],
        older=None if older is None else f"?{urlencode(older)}",
        newest=f"?{urlencode(chosen)}" if before is not None else None,
    )
