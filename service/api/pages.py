"""Lists: `limit` and `cursor` in, `items` and `next_cursor` out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.domain.errors import Fault, Unprocessable
from service.domain.faults import pointer_token

DEFAULT_LIMIT: Final = 50
LARGEST_LIMIT: Final = 200
LONGEST_TEXT: Final = 256
WORD: Final = r"[A-Za-z0-9_.:-]{1,128}"
DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
NUMERIC_CURSOR: Final = r"[0-9]{1,18}"


@dataclass(frozen=True, slots=True)
class Page:
    """One more than `limit` is read, to know whether there is a next page."""

    limit: int
    cursor: str | None

    def respond(self, items: Sequence[Any], *, views: Sequence[Any], cursor_of: str = "id") -> Response:
        """
        Args:
            items: up to `limit + 1`, of which the last is not shown.
            views: the same, as JSON values.
        """
        more = len(items) > self.limit
        next_cursor = str(getattr(items[self.limit - 1], cursor_of)) if more else None
        return JSONResponse({"items": list(views[: self.limit]), "next_cursor": next_cursor})


class Query:
    """Reads query parameters and collects every fault of them before it raises."""

    def __init__(self, request: Request[Any], *, known: Sequence[str], families: Sequence[str] = ()) -> None:
        """
        Args:
            known: the names that this list takes, besides `limit` and `cursor`.
            families: prefixes of names, e.g. `metadata.`.
        """
        self._parameters = request.query_params
        self._faults: list[Fault] = []
        given = Counter(name for name, _ in self._parameters.multi_items())
        for name, times in given.items():
            if name not in {*known, "limit", "cursor"} and not name.startswith(tuple(families) or ("\0",)):
                self._fault(name, f"There is no filter {name!r} here.")
            elif times > 1:  # only one of them would be looked at, and nobody told which
                self._fault(name, "It is given more than once.")

    def page(self, cursors: str) -> Page:
        """
        Args:
            cursors: what this list's look like, as a pattern: another list's would lead anywhere.
        """
        limit = DEFAULT_LIMIT
        text = self._parameters.get("limit")
        if text is not None:
            if re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= LARGEST_LIMIT:
                limit = int(text)
            else:
                self._fault("limit", f"It must be a whole number from 1 to {LARGEST_LIMIT}.")
        cursor = self._parameters.get("cursor")
        if cursor is not None and not re.fullmatch(cursors, cursor):
            self._fault("cursor", "It must be the next_cursor of an earlier page of this list.")
        return Page(limit, cursor)

    def word(self, name: str) -> str | None:
        """An id or a type."""
        value = self._parameters.get(name)
        if value is not None and not re.fullmatch(WORD, value):
            self._fault(name, "It has characters that none of these has.")
            return None
        return value

    def text(self, name: str) -> str | None:
        value = self._parameters.get(name)
        if value is not None and (len(value) > LONGEST_TEXT or "\0" in value):
            self._fault(name, "It is longer than any of these can be.")
            return None
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        value = self._parameters.get(name)
        if value is not None and value not in choices:
            self._fault(name, f"It must be one of {', '.join(choices)}.")
            return None
        return value

    def moment(self, name: str) -> datetime | None:
        value = self._parameters.get(name)
        if value is None:
            return None
        moment = read_moment(value)
        if moment is None:
            self._fault(name, "It must be an RFC 3339 time, e.g. 2026-11-22T05:30:00Z.")
        return moment

    def day(self, name: str) -> datetime | None:
        """Its first moment, UTC."""
        value = self._parameters.get(name)
        if value is None:
            return None
        if not re.fullmatch(DAY, value):
            self._fault(name, "It must be a day, e.g. 2026-11-22.")
            return None
        try:
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        except ValueError:
            self._fault(name, "There is no such day.")
            return None

    def family(self, prefix: str) -> Mapping[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in self._parameters.items()
            if name.startswith(prefix)
        }

    def fault(self, name: str, detail: str) -> None:
        """One that only whoever asks can find."""
        self._fault(name, detail)

    def check(self) -> None:
        """
        Raises:
            Unprocessable: with every fault found.
        """
        if self._faults:
            raise Unprocessable("The query parameters have faults.", faults=self._faults)

    def _fault(self, name: str, detail: str) -> None:
        self._faults.append(Fault(f"{name}: {detail}", f"#/query/{pointer_token(name)}"))


def read_moment(text: str) -> datetime | None:
    """RFC 3339, with an offset."""
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if moment.tzinfo is None or "T" not in text.upper():
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None
