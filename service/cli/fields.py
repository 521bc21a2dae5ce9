"""Where what was said on the command line goes in an input, by the rows of the types."""

import json as jsonlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import TypeAdapter

from service.cli.client import View
from service.domain.inputs import Image
from service.domain.task_types import TASK_TYPES, WORDS, TaskType, row_for, rows_for

PICTURE: Final = TypeAdapter(Image).json_schema()["examples"]  # how the schema of a picture is known


def meant(type_: str, raw: View, images: int) -> TaskType | None:
    """None: a type that this client does not know, and the server may. What all begin with may be left out."""
    if type_ not in WORDS:
        return TASK_TYPES.get(type_) or TASK_TYPES.get(f"kling.{type_}")
    for row in rows_for(type_):
        if row.words is not None and row.words.fewest and set(row.words.pictures([""])) & raw.keys():
            return row  # the file has its pictures
    return row_for(type_, images)


def of_images(row: TaskType | None, images: Sequence[str], faults: list[str]) -> dict[str, Any]:
    """Where the type takes its images."""
    if not images:
        return {}
    if row is not None and row.words is not None:
        return row.words.pictures(images)
    schema = {} if row is None else row.input_model.model_json_schema()
    fields = schema.get("properties", {})
    if "contents" in fields:
        faults.append(
            """--image: say of each what it is, e.g. --set 'contents=[{"type": "first_frame", "url": "…"}]'"""
        )
        return {}
    for name, field in fields.items():
        if _is_picture(field):
            return {name: images[0]}
        inner = _members(field, schema)
        if "image" in inner and _is_picture(inner["image"]):
            several = len(images) > 1 and "images" in inner
            return {name: {"images": [*images]} if several else {"image": images[0]}}
        for each in (field, *field.get("anyOf", ())):
            reference = each.get("items", {}).get("$ref", "").rpartition("/")[2]
            for member, inner in schema.get("$defs", {}).get(reference, {}).get("properties", {}).items():
                if inner.get("examples") == PICTURE:
                    return {name: [{member: image} for image in images]}
    return {"image_list": [{"image": image} for image in images]}


def _is_picture(field: View) -> bool:
    return any(form.get("examples") == PICTURE for form in (field, *field.get("anyOf", ())))


def retirement(row: TaskType | None, input: View) -> str | None:
    """What is known of the end of a type, or of the model that is asked for: the provider may refuse it."""
    if row is None:
        return None
    if row.retired is not None:
        return f"{row.name} is retired: {row.retired.text}"
    field = row.input_model.model_fields.get("model_name")
    model = input.get("model_name", None if field is None else field.default)
    if model not in row.retired_models:
        return None
    instead = " or ".join(one for one in row.models if one not in row.retired_models)
    advice = f" --model {instead} may be what it takes." if instead else ""
    return f"{model} is retired at Kling, and the provider may refuse it.{advice}"


def place(whole: dict[str, Any], name: str, value: object, schema: View, faults: list[str]) -> None:
    """What a flag gave: the type's field of that name, or that of an object within.

    What it has nowhere goes to the top: a server that is newer than this client may know it.
    """
    flag = "--" + {"model_name": "model"}.get(name, name).replace("_", "-")
    fields = schema.get("properties", {})
    within = [outer for outer, field in fields.items() if name in _members(field, schema)]
    if name not in fields and "contents" in fields and not within:
        faults.append(
            f"{flag}: this type has no such field at the top; materials stand in its contents: "
            "say --set 'contents=[…]', or --input FILE.json"
        )
        return
    way = name if name in fields or len(within) != 1 else f"{within[0]}.{name}"
    if isinstance(value, str):
        put(whole, way, value, schema, faults, flag=flag)
    elif (found := _object(whole, way, faults, flag)) is not None:
        found[name] = value


def put(
    whole: dict[str, Any], name: str, value: str, schema: View, faults: list[str], *, flag: str | None = None
) -> None:
    """As text where the field is text, or nothing is known of it but the flag's name; else as JSON.

    Args:
        flag: how it was said, where not by `--set`.
    """
    found = _object(whole, name, faults, flag or f"--set {name}")
    if found is None:
        return
    way = name.split(".")
    is_known = bool(_forms(schema, way))
    found[way[-1]] = value
    if _is_text(schema, way) or (flag is not None and not is_known):
        return
    with suppress(ValueError):
        found[way[-1]] = jsonlib.loads(value)


def _object(whole: dict[str, Any], name: str, faults: list[str], flag: str) -> dict[str, Any] | None:
    """That in which the field stands; None where it cannot."""
    found: Any = whole
    for step in name.split(".")[:-1]:
        found = found.setdefault(step, {})
        if not isinstance(found, dict):
            faults.append(f"{flag}: {step} is no object")
            return None
    inner: dict[str, Any] = found
    return inner


def _is_text(schema: View, way: Sequence[str]) -> bool:
    """Whether the field takes text, and no number that is said as one."""
    return any(form.get("type") == "string" or "enum" in form for form in _forms(schema, way))


def _forms(schema: View, way: Sequence[str]) -> Sequence[View]:
    """What the field may be; nothing of one that the schema does not name."""
    here: Any = schema
    for step in way:
        here = _members(here, schema).get(step, {})
    return [form for form in (here, *here.get("anyOf", ())) if form]


def _members(field: View, schema: View) -> Mapping[str, Any]:
    """The fields of an object."""
    forms = [_resolved(form, schema) for form in (field, *field.get("anyOf", ()))]
    return {name: inner for form in forms for name, inner in form.get("properties", {}).items()}


def _resolved(form: View, schema: View) -> Mapping[str, Any]:
    name = str(form.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schema["$defs"][name] if name else form
    return found
