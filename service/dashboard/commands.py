"""What a form sends, as a command for a terminal."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

_OPENED = re.compile(r"@@file-(\d+)@@")


def curl(method: str, url: str, body: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """By a here-document: pictures are larger than an argument may be.

    Args:
        files: Base64 in the body that came as a file: by its text, the file's name.
    """
    names = list(files.values())
    places = {text: f"@@file-{number}@@" for number, text in enumerate(files)}
    written = to_json(_with_places(body, places), indent=2).decode()
    # In an unquoted here-document three characters mean something.
    safe = re.sub(r"([\\$`])", r"\\\1", written)
    filled = _OPENED.sub(lambda place: f"$(base64 < {shlex.quote(names[int(place[1])])} | tr -d '\\n')", safe)
    verb = "" if method == "POST" else f"-X {method} "
    return (
        f"curl -sS {verb}{shlex.quote(url)} \\\n"
        '  -H "Authorization: Bearer $KLINGEL_API_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  --data-binary @- <<JSON\n{filled}\nJSON"
    )


def _with_places(value: Any, places: Mapping[str, str]) -> Any:
    match value:
        case str():
            return places.get(value, value)
        case Mapping():
            return {name: _with_places(member, places) for name, member in value.items()}
        case list():
            return [_with_places(entry, places) for entry in value]
        case _:
            return value
