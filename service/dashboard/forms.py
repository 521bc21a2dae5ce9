"""Forms out of JSON Schemas, and back: what somebody has entered becomes the JSON that the API takes.

A form holds what a schema asks for and judges nothing: the API does, and each fault is shown at the field that it is about.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final

from anyio.to_thread import run_sync
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json
from starlette.datastructures import FormData, UploadFile

from service.domain.errors import Fault
from service.domain.faults import pointer_token
from service.domain.images import MAX_BYTES, MIN_SIDE
from service.domain.inputs import MAX_SOUND_BYTES, Image, Sound

LONG_TEXT: Final = 200  # characters, from which on a text gets several lines
# How the schema of a picture, or of a sound, is known wherever it stands.
_PICTURE: Final = TypeAdapter(Image).json_schema()
_SOUND: Final = TypeAdapter(Sound).json_schema()
PICTURE_HINT: Final = (
    f"JPEG or PNG, at most {MAX_BYTES // 2**20} MB, at least {MIN_SIDE} px a side, between 1:2.5 and 2.5:1"
)
SOUND_HINT: Final = f"MP3, WAV, M4A or AAC, at most {MAX_SOUND_BYTES // 2**20} MB"
_SECRETS: Final = ("token", "password", "secret")
_FIRST: Final = ("prompt", "negative_prompt")  # of what may be left out, whatever its model's order
_WORDS: Final = {"url": "URL", "urls": "URLs", "id": "id", "cfg": "CFG", "s": "(s)", "n": "Number"}
_PLACE: Final = re.compile(r"[0-9]{1,9}")  # in a list
FILE: Final = ".file"  # after a field's name: what was chosen from disk


class Widget(StrEnum):
    TEXT = "text"
    AREA = "area"
    SECRET = "secret"  # noqa: S105 - a kind of field
    NUMBER = "number"
    CHOICE = "choice"
    CHOICES = "choices"  # any number of them
    SWITCH = "switch"
    PICTURE = "picture"
    PICTURES = "pictures"
    SOUND = "sound"
    LINES = "lines"  # a list of texts, one to a line
    PAIRS = "pairs"  # names and texts, `name: text` to a line
    JSON = "json"
    GROUP = "group"


_WIDE: Final = frozenset(
    {
        Widget.AREA,
        Widget.PICTURE,
        Widget.PICTURES,
        Widget.SOUND,
        Widget.LINES,
        Widget.PAIRS,
        Widget.JSON,
        Widget.GROUP,
        Widget.CHOICES,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str  # in the form
    pointer: str  # into the JSON, from its object
    label: str
    widget: Widget
    required: bool = False
    hint: str | None = None
    choices: Sequence[Any] = ()
    least: float | None = None
    most: float | None = None
    longest: int | None = None
    default: Any = None
    is_whole: bool = False
    wrapped: str | None = None  # in a list of objects that hold one picture each: its name there
    parts: Sequence["Field"] = ()

    @property
    def is_wide(self) -> bool:
        return self.widget in _WIDE

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def element(self) -> str:
        """The id of its element in the page."""
        return self.name.replace(".", "-")


def fields_of(model: type[BaseModel], *, prefix: str, pointer: str) -> list[Field]:
    """
    Args:
        prefix: of the fields' names in the form.
        pointer: where the object stands in the request.
    """
    return list(_fields_of(model, prefix, pointer))


@cache  # a schema is made of its model anew each time, which takes long
def _fields_of(model: type[BaseModel], prefix: str, pointer: str) -> Sequence[Field]:
    schema = model.model_json_schema()
    # A second spelling of a field is for programs that know no better.
    spellings = {
        name for name, info in model.model_fields.items() if info.serialization_alias in model.model_fields
    }
    fields = [each for each in _fields(schema, schema, prefix, pointer) if each.key not in spellings]
    return sorted(fields, key=_rank)


def _rank(each: Field) -> int:
    if each.required:
        return 0
    return 1 + (_FIRST.index(each.key) if each.key in _FIRST else len(_FIRST))


def _fields(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str, pointer: str) -> list[Field]:
    required = schema.get("required", ())
    # The first of each.
    examples = {name: value for each in reversed(schema.get("examples", ())) for name, value in each.items()}
    return [
        _field(
            name,
            raw,
            root,
            f"{prefix}.{name}",
            f"{pointer}/{pointer_token(name)}",
            required=name in required,
            example=examples.get(name),
        )
        for name, raw in schema.get("properties", {}).items()
    ]


def _field(
    name: str,
    raw: Mapping[str, Any],
    root: Mapping[str, Any],
    full_name: str,
    pointer: str,
    *,
    required: bool,
    example: Any,
) -> Field:
    schema = _resolved(raw, root)
    hint = raw.get("description") or schema.get("description")
    shared: dict[str, Any] = {
        "name": full_name,
        "pointer": pointer,
        "label": _label(name),
        "required": required,
        "hint": hint,
        "default": raw.get("default"),
    }
    for file, widget, usual in (
        (_PICTURE, Widget.PICTURE, PICTURE_HINT),
        (_SOUND, Widget.SOUND, SOUND_HINT),
    ):
        if schema.get("examples") == file["examples"]:
            said = raw.get("description")
            return Field(
                **{**shared, "hint": usual if said in {None, file["description"]} else said}, widget=widget
            )
    if words := _words(schema):
        return Field(**shared, widget=Widget.CHOICE, choices=list(dict.fromkeys(map(str, words))))
    match schema.get("type"):
        case "boolean":
            return Field(**shared, widget=Widget.SWITCH)
        case "integer" | "number" as kind:
            return Field(
                **shared,
                widget=Widget.NUMBER,
                least=schema.get("minimum"),
                most=schema.get("maximum"),
                is_whole=kind == "integer",
            )
        case "string":
            return Field(**shared, widget=_text_widget(name, schema), longest=schema.get("maxLength"))
        case "array":
            return _list_field(shared, schema, root, example)
        case "object" if "properties" in schema:
            return Field(
                **{**shared, "hint": raw.get("description")},
                widget=Widget.GROUP,
                parts=[
                    replace(part, required=part.required and required)
                    for part in _fields(schema, root, full_name, pointer)
                ],
            )
        case "object" if isinstance(values := schema.get("additionalProperties"), Mapping) and (
            values.get("type") == "string"
        ):
            return Field(**{**shared, "hint": hint or "One to a line, name: text"}, widget=Widget.PAIRS)
    return _json_field(shared, example)


def _json_field(shared: Mapping[str, Any], example: Any) -> Field:
    said = f"{shared['hint']}; as JSON" if shared["hint"] else "As JSON"
    shown = "" if example is None else f", e.g. {json.dumps(example, ensure_ascii=False)}"
    return Field(**{**shared, "hint": said + shown}, widget=Widget.JSON)


def _words(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Those that it may be, where it may be nothing else."""
    if "const" in schema:
        return [schema["const"]]
    forms = [_words(form) for form in schema.get("anyOf", ())]
    return [*schema.get("enum", ()), *(word for words in forms for word in words)] if all(forms) else ()


def _list_field(
    shared: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], example: Any
) -> Field:
    items = _resolved(schema.get("items", {}), root)
    counts: dict[str, Any] = {"least": schema.get("minItems"), "most": schema.get("maxItems")}
    members = items.get("properties", {})
    if len(members) == 1:
        [(name, member)] = members.items()
        if _resolved(member, root).get("examples") == _PICTURE["examples"]:
            return Field(**{**shared, "hint": PICTURE_HINT}, **counts, widget=Widget.PICTURES, wrapped=name)
    if items.get("examples") == _PICTURE["examples"]:
        return Field(**{**shared, "hint": shared["hint"] or PICTURE_HINT}, **counts, widget=Widget.PICTURES)
    if items.get("type") == "string":
        return Field(**shared, **counts, widget=Widget.LINES)
    return _json_field(shared, example or items.get("examples"))


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without references, and without the null that stands for what is left out."""
    if reference := schema.get("$ref"):
        found: Any = root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return _resolved(found, root)
    others = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(others[0], root) if len(others) == 1 else schema


def _text_widget(name: str, schema: Mapping[str, Any]) -> Widget:
    if any(name == word or name.endswith(f"_{word}") for word in _SECRETS):
        return Widget.SECRET
    longest = schema.get("maxLength", 0)
    return Widget.AREA if longest >= LONG_TEXT and "prompt" in name else Widget.TEXT


def _label(name: str) -> str:
    words = [_WORDS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[0].upper() + text[1:]


@dataclass(slots=True)
class Entered:
    """What a form held."""

    body: dict[str, Any]
    faults: list[Fault] = field(default_factory=list)  # what cannot be made JSON of
    # Base64 in the body that came as a file: by its text, the file's name.
    files: dict[str, str] = field(default_factory=dict)


async def entered(fields: Sequence[Field], form: FormData) -> Entered:
    """What was left blank is left out."""
    found = Entered({})
    for each in fields:
        value = await _value(each, form, found)
        if value is not None:
            found.body[each.key] = value
    return found


async def _value(each: Field, form: FormData, found: Entered) -> Any:
    if each.widget is Widget.GROUP:
        inner = await entered(each.parts, form)
        found.faults += inner.faults
        found.files |= inner.files
        return inner.body or None
    if each.widget in {Widget.PICTURE, Widget.PICTURES, Widget.SOUND}:
        return await _pictures(each, form, found)
    if each.widget is Widget.CHOICES:
        return [value for value in form.getlist(each.name) if isinstance(value, str)] or None
    given = form.get(each.name)
    text = given.replace("\r\n", "\n") if isinstance(given, str) else ""
    if each.widget is Widget.SWITCH:
        # A box that is not ticked sends nothing: what says otherwise than the default is said.
        is_on = bool(text)
        return None if is_on == bool(each.default) else is_on
    if not text.strip():
        return None
    match each.widget:
        case Widget.NUMBER:
            return _number(text.strip(), each)
        case Widget.LINES:
            return [line.strip() for line in text.splitlines() if line.strip()]
        case Widget.PAIRS:
            return dict(_pairs(text, each, found))
        case Widget.JSON:
            return _json(text, each, found)
        case Widget.AREA:
            return text
        case _:
            return text.strip()


async def _pictures(each: Field, form: FormData, found: Entered) -> Any:
    """Files first, in the order in which they were chosen; then addresses, one to a line."""
    pictures: list[str] = []
    for file in form.getlist(each.name + FILE):
        if isinstance(file, UploadFile) and file.filename:
            content = await file.read()
            text = (await run_sync(base64.b64encode, content)).decode()
            found.files[text] = file.filename
            pictures.append(text)
    given = form.get(each.name)
    pictures += (
        [line.strip() for line in given.splitlines() if line.strip()] if isinstance(given, str) else []
    )
    if not pictures:
        return None
    if each.widget is not Widget.PICTURES:
        if len(pictures) > 1:
            found.faults.append(
                Fault(f"One {each.widget} is taken here: a file or an address.", each.pointer)
            )
        return pictures[0]
    return [picture if each.wrapped is None else {each.wrapped: picture} for picture in pictures]


def _number(text: str, each: Field) -> Any:
    """What is no number stays text, for the API to refuse."""
    try:
        number = float(text)
    except ValueError:
        return text
    is_plain = number.is_integer() and each.is_whole
    return int(number) if is_plain else number if number - number == 0 else text


def _pairs(text: str, each: Field, found: Entered) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            found.faults.append(Fault(f"“{line.strip()[:60]}” is not “name: text”.", each.pointer))
        elif line.strip():
            yield name.strip(), value.strip()


def _json(text: str, each: Field, found: Entered) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        found.faults.append(Fault(f"This is not JSON: {error}.", each.pointer))
        return None


async def changes(fields: Sequence[Field], form: FormData, current: Mapping[str, Any]) -> Entered:
    """What differs from what is there. A secret that is left blank stays; what else is blanked is taken away."""
    found = Entered({})
    for each in fields:
        now = current.get(each.key, each.default)
        if each.widget is Widget.SWITCH:
            value: Any = bool(form.get(each.name))
        else:
            value = await _value(each, form, found)
        if each.widget is Widget.GROUP and value is None:
            is_changed = any(shown_values(each.parts, now or {}).values())  # which was blanked
        elif each.widget is Widget.GROUP:
            is_changed = value != {name: part for name, part in (now or {}).items() if name in value}
        elif each.widget is Widget.SECRET:
            is_changed = value is not None
        else:
            value = each.default if value is None else value
            is_changed = value != now
        if is_changed:
            found.body[each.key] = value
    return found


def values_of(fields: Sequence[Field], form: FormData) -> dict[str, Any]:
    """What is to stand in the fields when a form is shown again; secrets and files are to be given again."""
    values: dict[str, Any] = {}
    for each in _flat(fields):
        given = form.get(each.name)
        if each.widget is Widget.CHOICES:
            values[each.name] = form.getlist(each.name)
        elif isinstance(given, str) and each.widget is not Widget.SECRET:
            values[each.name] = given
        elif each.widget is Widget.SWITCH:
            values[each.name] = ""
    return values


def shown_values(fields: Sequence[Field], current: Mapping[str, Any]) -> dict[str, Any]:
    """What is to stand in the fields of something that is there already."""
    values: dict[str, Any] = {}
    for each in fields:
        value = current.get(each.key)
        match each.widget, value:
            case _, None:
                pass
            case Widget.GROUP, Mapping():
                values |= shown_values(each.parts, value)
            case Widget.SECRET, _:
                pass
            case Widget.CHOICES, list():
                values[each.name] = value
            case Widget.SWITCH, _:
                values[each.name] = "on" if value else ""
            case Widget.LINES, list():
                values[each.name] = "\n".join(map(str, value))
            case Widget.PAIRS, Mapping():
                values[each.name] = "\n".join(f"{name}: {text}" for name, text in value.items())
            case Widget.JSON, _:
                values[each.name] = to_json(value, indent=2).decode()
            case _:
                values[each.name] = str(value)
    return values


def _flat(fields: Sequence[Field]) -> Iterator[Field]:
    for each in fields:
        yield from _flat(each.parts) if each.widget is Widget.GROUP else (each,)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Faults by the field that they are about, and the others."""

    of_fields: Mapping[str, Sequence[str]]
    others: Sequence[str]
    first: str | None  # the first of these fields in the form, to which a browser is led


def sorted_faults(fields: Sequence[Field], faults: Sequence[Fault]) -> Sorted:
    """Each at the deepest field that holds its place; of lists it is said which entry."""
    of_fields: dict[str, list[str]] = {}
    others: list[str] = []
    known = sorted(_flat(fields), key=lambda each: len(each.pointer), reverse=True)
    for fault in faults:
        holder = next((each for each in known if _holds(each.pointer, fault.pointer)), None)
        if holder is None:
            others.append(fault.detail)
            continue
        rest = fault.pointer.removeprefix(holder.pointer).strip("/").split("/")[0]
        which = f"No. {int(rest) + 1}: " if _PLACE.fullmatch(rest) else ""
        of_fields.setdefault(holder.name, []).append(which + fault.detail)
    first = next((each.name for each in _flat(fields) if each.name in of_fields), None)
    return Sorted(of_fields, others, first)


def _holds(pointer: str, place: str) -> bool:
    return place == pointer or place.startswith(f"{pointer}/")
