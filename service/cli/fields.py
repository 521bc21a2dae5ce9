"""Where what was said on the command line goes in an input, by the rows of the types."""

import json as jsonlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter

from service.cli.client import View
from service.domain.inputs import Image
from service.domain.task_types import TASK_TYPES, WORDS, TaskType, row_for, rows_for

PICTURE: Final = TypeAdapter(Image).json_schema()["examples"]  # how the schema of a picture is known


def meant(type_: str, raw: View, images: int) -> TaskType | None:
    """None: a type that this client does not know, and the server may."""
    if type_ not in WORDS:
        return TASK_TYPES.get(type_)
    for row in rows_for(type_):
        if row.words is not None and row.words.fewest and set(row.words.pictures([""])) & raw.keys():
            return row  # the file has its pictures
    return row_for(type_, images)


def of_images(row: TaskType | None, images: Sequence[str]) -> dict[str, Any]:
    """Where the type takes its images."""
    if not images:
        return {}
    if row is not None and row.words is not None:
        return row.words.pictures(images)
    schema = {} if row is None else row.input_model.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        for each in (field, *field.get("anyOf", ())):
            if each.get("examples") == PICTURE:
                return {name: images[0]}
            reference = each.get("items", {}).get("$ref", "").rpartition("/")[2]
            for member, inner in schema.get("$defs", {}).get(reference, {}).get("properties", {}).items():
                if inner.get("examples") == PICTURE:
                    return {name: [{member: image} for image in images]}
    return {"image_list": [{"image": image} for image in images]}


def put(whole: dict[str, Any], name: str, value: str, schema: View, faults: list[str]) -> None:
    """As text where the field is text, else as JSON."""
    *way, last = name.split(".")
    place: Any = whole
    for step in way:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            faults.append(f"--set {name}: {step} is no object")
            return
    if _is_text(schema, name.split(".")):
        place[last] = value
        return
    try:
        place[last] = jsonlib.loads(value)
    except ValueError:
        place[last] = value


def _is_text(schema: View, way: Sequence[str]) -> bool:
    """Whether the field takes text, and no number that is said as one."""
    here: Any = schema
    for step in way:
        forms = [_resolved(form, schema) for form in (here, *here.get("anyOf", ()))]
        here = next((form["properties"][step] for form in forms if step in form.get("properties", {})), {})
    forms = [here, *here.get("anyOf", ())]
    return any(form.get("type") == "string" or "enum" in form for form in forms)


def _resolved(form: View, schema: View) -> Mapping[str, Any]:
    name = str(form.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schema["$defs"][name] if name else form
    return found
