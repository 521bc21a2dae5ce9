"""Values of the API as text: times, spans, tables."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from service.cli.client import View
from service.domain.lifecycle import Status

Column = tuple[str, Callable[[View], str | Text]]

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLES: Final = {
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.REJECTED: "red",
    "delivered": "green",
    "dead": "red",
    "gone": "red",
}


def clean(text: str) -> str:
    """Without control characters: what others wrote shall not command the terminal."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def as_json(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """With controls that JSON allows unescaped (U+007F to U+009F) escaped, too."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}" if found[0] > "~" else found[0], text)


def moment(text: str | None, *, now: datetime | None = None) -> str:
    """An RFC 3339 time in the local zone, as short as it stays clear: `14:03:22` for today."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).astimezone()
    today = (now or datetime.now(UTC)).astimezone()
    if at.date() == today.date():
        return at.strftime("%H:%M:%S")
    return at.strftime("%d %b %H:%M" if at.year == today.year else "%Y-%m-%d %H:%M")


def span(seconds: float) -> str:
    """Two units at most: `850 ms`, `3.2 s`, `2 m 04 s`, `1 h 05 m`, `3 d 04 h`."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, lesser, its_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lesser:02d} {its_unit}"
    return f"{whole // 60} m {whole % 60:02d} s"


def took(start: str | None, end: str | None) -> str:
    if not (start and end):
        return ""
    return span(max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()))


def failure(task: View) -> str:
    """Why a task failed or was rejected; empty when it did not."""
    error = task.get("error")
    return f"{error['message']} ({error['code']})" if error else ""


def status(word: str) -> Text:
    return Text(clean(word), _STYLES.get(word, "yellow"))


def table(columns: Sequence[Column], items: Iterable[View]) -> Text:
    """One line for each item, under a line of names; without the columns in which nothing stands."""
    rows = [[_cell(show(item)) for _, show in columns] for item in items]
    filled = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    names = [Text(columns[index][0], "bold") for index in filled]
    return _aligned([names, *([row[index] for index in filled] for row in rows)])


def details(view: View, *, leaving_out: Iterable[str] = ()) -> Text:
    """Name and value of all that is set, in the API's order."""
    skipped = {*leaving_out}
    return _aligned(
        [
            [Text(clean(name), "bold"), _cell(_value(name, value))]
            for name, value in view.items()
            if name not in skipped and value not in (None, "", [], {})
        ]
    )


def sections(view: View, parts: Iterable[tuple[str, Sequence[Column]]]) -> Text:
    """An object's details, then a table for each of its lists that has entries."""
    parts = list(parts)
    shown = [details(view, leaving_out=[name for name, _ in parts])]
    for name, columns in parts:
        if view.get(name):
            shown.append(Text("\n").join([Text(name, "bold underline"), table(columns, view[name])]))
    return Text("\n\n").join(shown)


def _aligned(rows: Sequence[Sequence[Text]]) -> Text:
    """Columns two spaces apart. Lines are never broken, so that ids and URLs can be copied from any terminal."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(" ".join(clean(value).split("\n")))


def _value(name: str, value: Any) -> str | Text:
    if name == "status":
        return status(str(value))
    if name.endswith("_at") and isinstance(value, str):
        return moment(value)
    return value if isinstance(value, str) else as_json(value)
