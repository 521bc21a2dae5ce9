"""The one grammar of commands, the same on every platform.

image <prompt> [name=value …]     and pictures, attached or as URLs
video <prompt> [name=value …]
status
help
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from typing import Any, Final

from service.domain.task_types import TASK_TYPES

IMAGE: Final = "kling.multi-image-to-image"
VIDEO: Final = "kling.multi-image-to-video"
# Some platforms write addresses as <https://…|label>.
URL: Final = re.compile(r"<?(?P<url>https?://[^\s<>|]+)(?:\|[^>]*)?>?[,;]*", re.IGNORECASE)
TOKEN: Final = re.compile(
    r"""(?P<name>[a-z][a-z_]{0,39})=(?P<value>["“”„][^"“”„]*["“”]|\S*)|\S+""",  # phones write quotes as they please
)
# Said by name in the options' place, they would be a second way to say what has one.
NOT_OPTIONS: Final = frozenset({"prompt", "image_list", "subject_image_list", "scence_image"})


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

_PICTURES: Final[Mapping[str, Callable[[Sequence[str]], dict[str, Any]]]] = {
    IMAGE: lambda pictures: {"subject_image_list": [{"subject_image": one} for one in pictures]},
    VIDEO: lambda pictures: {"image_list": [{"image": one} for one in pictures]},
}
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


def submit_input(ask: Ask, attached: Sequence[str]) -> dict[str, Any]:
    """The task's `input`: attached pictures first, then those by URL."""
    return {"prompt": ask.prompt, **ask.options, **_PICTURES[ask.type]([*attached, *ask.urls])}


def pictures_input(type: str, pictures: Sequence[str]) -> dict[str, Any]:
    return _PICTURES[type](pictures)


@cache
def most_pictures(type: str) -> int:
    (name,) = pictures_input(type, ())
    schema = TASK_TYPES[type].input_model.model_json_schema()
    most: int = schema["properties"][name]["maxItems"]
    return most


def help_text() -> str:
    return (
        "Attach two to four pictures (or give their addresses) and say:\n"
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
    word = "image" if type == IMAGE else "video"
    if unknown:
        names = ", ".join(unknown)
        return Usage(f"There is no option {names} for {word}. There are: {', '.join(known)}.")
    if not prompt:
        return Usage(f"Say what to make: {word} <prompt>, with two to four pictures.")
    return Ask(type=type, prompt=prompt, options=given, urls=urls)


def _unwrapped(value: str) -> str:
    value = value.strip('"“”„')
    url = URL.fullmatch(value)
    return value if url is None else url["url"]


def options(type: str) -> dict[str, str]:
    """By name: the JSON type of those input fields that fit on a line."""
    fields = TASK_TYPES[type].input_model.model_json_schema()["properties"]
    typed = {name: _json_type(schema) for name, schema in fields.items() if name not in NOT_OPTIONS}
    return {name: kind for name, kind in typed.items() if kind in {"string", "integer", "number", "boolean"}}


def _json_type(schema: Mapping[str, Any]) -> str:
    """An optional field's is that of its first choice; words to choose from are text."""
    if "enum" in schema or "const" in schema or "$ref" in schema:
        return "string"
    if "anyOf" in schema:
        return _json_type(schema["anyOf"][0])
    return str(schema.get("type", "object"))


def _typed(value: str, kind: str) -> Any:
    """As JSON has it; what is not of its type stays text, and is refused by name."""
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
