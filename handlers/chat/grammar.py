"""The one grammar of commands, the same on every platform.

image <prompt> [name=value …]     and up to four pictures, attached or as URLs
video <prompt> [name=value …]
status
help
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from typing import Any, Final

from service.domain.task_types import TASK_TYPES, TaskType, row_for, rows_for

# The task types of the two words with the most pictures; with fewer, `of_pictures` finds the type that takes them.
IMAGE: Final = rows_for("image")[0].name
VIDEO: Final = rows_for("video")[0].name
# Some platforms write addresses as <https://…|label>.
URL: Final = re.compile(r"<?(?P<url>https?://[^\s<>|]+)(?:\|[^>]*)?>?[,;]*", re.IGNORECASE)
QUOTES: Final = '"“”„'  # phones write them as they please
TOKEN: Final = re.compile(
    rf"(?P<name>[a-z][a-z_]{{0,39}})=(?P<value>[{QUOTES}][^{QUOTES}]*[{QUOTES}]|\S*)|\S+"
)
_NO_QUOTES: Final = str.maketrans("", "", QUOTES)
# Input fields that are no options: a command has a way of its own to give them.
NOT_OPTIONS: Final = frozenset({"prompt", "image", "image_list", "subject_image_list", "scence_image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """To make something."""

    type: str
    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)
    urls: Sequence[str] = ()  # of pictures, beside those that are attached


@dataclass(frozen=True, slots=True)
class AskStatus:
    pass


@dataclass(frozen=True, slots=True)
class Usage:
    """What to answer to `help`, or to what is no command."""

    text: str


Asked = Ask | AskStatus | Usage

_WORDS: Final[Mapping[str, str]] = {
    "image": IMAGE, "picture": IMAGE, "img": IMAGE, "video": VIDEO, "film": VIDEO,
}  # fmt: skip


def parse(text: str) -> Asked:
    word, rest = (*text.split(maxsplit=1), "", "")[:2]
    word = word.lower().removeprefix("/")
    if (type := _WORDS.get(word)) is not None:
        return _ask(type, rest)
    match word:
        case "status":
            return AskStatus()
        case "help" | "":
            return Usage(help_text())
        case _:
            return Usage(f"I do not know “{word[:40]}”.\n{help_text()}")


def submitted(ask: Ask, attached: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The task's type and `input`: attached pictures first, then those by URL."""
    type, pictures = of_pictures(ask.type, [*attached, *ask.urls])
    return type, {"prompt": ask.prompt, **ask.options, **pictures}


def of_pictures(type: str, pictures: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The task type that takes so many pictures, and the input fields that these become."""
    row = row_for(_word(type), len(pictures))
    assert row.words is not None
    return row.name, row.words.pictures(pictures)


def _word(type: str) -> str:
    words = TASK_TYPES[type].words
    assert words is not None
    return words.word


@cache
def most_pictures(type: str) -> int:
    return max(row.words.most for row in _meant(type) if row.words is not None)


def _meant(type: str) -> Sequence[TaskType]:
    """All task types of the word that stands for this type, that with the most pictures first."""
    return rows_for(_word(type))


def help_text() -> str:
    return (
        "Say, with up to four pictures (attached, or as addresses) or without any:\n"
        "  image <what to make of them>\n"
        "  video <what shall happen>\n"
        "Options follow as name=value:\n"
        f"  image: {', '.join(options(IMAGE))}\n"
        f"  video: {', '.join(options(VIDEO))}\n"
        "status shows your latest tasks, help this."
    )


def _ask(type: str, rest: str) -> Asked:
    known = options(type)
    given: dict[str, Any] = {}
    unknown: list[str] = []
    urls: list[str] = []
    words: list[str] = []
    for token in TOKEN.finditer(rest):
        name, value = token["name"], token["value"]
        if name in known:
            given[name] = _typed(_unwrapped(value), known[name])
        elif name is not None:
            unknown.append(name)
        elif (url := URL.fullmatch(token[0])) is not None:
            urls.append(url["url"].rstrip(",;"))
        else:
            words.append(token[0])
    prompt = " ".join(words)
    word = _word(type)
    if unknown:
        names = ", ".join(unknown)
        return Usage(f"There is no option {names} for {word}. There are: {', '.join(known)}.")
    if not prompt:
        return Usage(f"Say what to make: {word} <prompt>, with up to four pictures or none.")
    return Ask(type=type, prompt=prompt, options=given, urls=urls)


def _unwrapped(value: str) -> str:
    value = value.strip(QUOTES)
    url = URL.fullmatch(value)
    return value if url is None else url["url"]


def as_said(name: str, value: str) -> str:
    """An option with its whole value, whatever is in it, but without its quotes: they would end it."""
    return f'{name}="{value.translate(_NO_QUOTES)}"'


def options(type: str) -> dict[str, str]:
    """The JSON types, by name, of the input fields that can be given as name=value, of all task types of its word."""
    fields = option_schemas(type)
    typed = {name: _json_type(schema) for name, schema in fields.items() if name not in NOT_OPTIONS}
    return {name: kind for name, kind in typed.items() if kind in {"string", "integer", "number", "boolean"}}


@cache
def option_schemas(type: str) -> Mapping[str, Any]:
    """By name: the input fields of all task types of its word; of a field that several have, the first one's."""
    found: dict[str, Any] = {}
    for row in _meant(type):
        found = row.input_model.model_json_schema()["properties"] | found
    return found


def _json_type(schema: Mapping[str, Any]) -> str:
    """An optional field's is that of its first choice; words to choose from are text."""
    if "enum" in schema or "const" in schema:
        return "string"
    if "anyOf" in schema:
        return _json_type(schema["anyOf"][0])
    return str(schema.get("type", "object"))


def _typed(value: str, kind: str) -> Any:
    """As a JSON value. Text that is not of the type stays text: the submit refuses it, and names the field."""
    try:
        match kind:
            case "integer":
                return int(value)
            case "number":
                number = float(value)
                return number if isfinite(number) else value  # JSON has no others
            case "boolean":
                return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower(), value)
    except ValueError:
        pass
    return value
