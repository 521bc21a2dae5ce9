"""The page of docs/ about the kinds of task, made of their rows: `python -m service.catalogue` writes it."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from service.domain.inputs import Film, Image, Sound
from service.domain.task_types import TASK_TYPES, Fact, Layout, Route, TaskType

PAGE: Final = Path(__file__).parents[1] / "docs" / "task-types.md"

LAYOUTS: Final[Mapping[Layout, str]] = {Layout.COMETAPI: "CometAPI", Layout.OFFICIAL: "Kling"}
# What has a long description of its own, which stands once above. Its examples are known wherever it stands.
FILES: Final[Mapping[str, Mapping[str, Any]]] = {
    name: TypeAdapter(file).json_schema()
    for name, file in (("picture", Image), ("sound", Sound), ("film", Film))
}

HEAD: Final = """# Task types

<!-- Made by `python -m service.catalogue`: change the rows in service/domain/task_types instead. -->

What can be submitted, each with its input, its limits, and who vouches for what is known of it. The same as data:
[`GET /v1/task-types`](api.md), with a JSON Schema and examples for each; `klingel types` prints it.

- A **model** that is not in these tables is passed on: the provider decides. So does the [drop-in API](drop-in.md) with
  fields that are not in these tables, and, for such a model, with words that are not. `/v1/tasks` refuses fields that it
  does not know by name, because a mistyped one would cost money.
- What has no type yet goes as [`{raw}`](#{anchor}): a path and a body of your own.
- A type that is **retired** can still be submitted: what has ended upstream answers with the provider's own refusal.
- *Places* are those of the provider's parallel tasks; a task that finds none waits its turn.
- Deadlines: `KLINGEL_DEADLINE_IMAGE`, `KLINGEL_DEADLINE_VIDEO` and `KLINGEL_DEADLINE_AUDIO`, by what a type makes.
"""


def page() -> str:
    sections = "\n".join(_section(row) for row in TASK_TYPES.values())
    raw = next(row.name for row in TASK_TYPES.values() if row.makes is None)
    head = HEAD.format(raw=raw, anchor=_anchor(raw))
    return f"{head}{_files()}\n{_overview()}\n{sections}"


def _files() -> str:
    return "".join(f"- A *{name}*: {schema['description']}.\n" for name, schema in FILES.items())


def _overview() -> str:
    lines = ["| type | makes | at CometAPI | at Kling | places |", "|---|---|---|---|---|"]
    lines += [
        f"| [`{row.name}`](#{_anchor(row.name)}){' (retired)' if row.retired else ''} | {_makes(row)} "
        f"| {_sold(row, Layout.COMETAPI)} | {_sold(row, Layout.OFFICIAL)} | {row.places.said} |"
        for row in TASK_TYPES.values()
    ]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.replace(".", "")


def _makes(row: TaskType) -> str:
    return "whatever comes" if row.makes is None else ", ".join([row.makes, *row.also_makes])


def _sold(row: TaskType, layout: Layout) -> str:
    return "<br>".join(_path(route) for route in row.routes.get(layout, ())) or "no"


def _path(route: Route) -> str:
    return f"`{route.path or '/'}…`" if route.given_by_caller else f"`{route.path}`"


def _section(row: TaskType) -> str:
    parts = [f"## {row.name}\n", f"{row.summary}.\n"]
    if row.retired is not None:
        parts.append(f"**Retired:** {row.retired.text} ({_vouched(row.retired)})\n")
    if row.models:
        shown = [f"`{name}`{' (retired)' if name in row.retired_models else ''}" for name in row.models]
        parts.append(f"Models: {', '.join(shown)}.\n")
    parts += [_fields(row), _facts(row)]
    if row.examples:
        parts.append("```json\n" + json.dumps(_submit(row), indent=2, ensure_ascii=False) + "\n```\n")
    return "\n".join(parts)


def _submit(row: TaskType) -> Mapping[str, Any]:
    return {"type": row.name, "input": row.examples[0]}


def _vouched(fact: Fact) -> str:
    return f"{fact.source}; {fact.confidence}"


def _facts(row: TaskType) -> str:
    """Also where it is sold, which is a fact like others."""
    lines = ["| known | from | confidence |", "|---|---|---|"]
    for layout, name in LAYOUTS.items():
        lines += [
            f"| {name} takes it at {_path(route)} | {route.source} | {route.confidence} |"
            for route in row.routes.get(layout, ())
        ]
    lines += [f"| {fact.text} | {fact.source} | {fact.confidence} |" for fact in row.facts]
    return "\n".join(lines) + "\n"


def _fields(row: TaskType) -> str:
    schema = row.input_model.model_json_schema()
    lines = ["| field | is | needed |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_told(each)} | {'yes' if needed else ''} |"
        for name, each, needed in _properties(schema, schema, "")
    ]
    return "\n".join(lines) + "\n"


def _properties(
    schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Those of objects within by their whole names: `settings.duration`, `image_list[].image`."""
    needed = schema.get("required", ())
    for name, raw in schema.get("properties", {}).items():
        each = _resolved(raw, root)
        yield f"{prefix}{name}", each, name in needed
        inner, mark = (_resolved(each["items"], root), "[]") if "items" in each else (each, "")
        variants = inner.get("oneOf", [inner])
        for variant in (_resolved(one, root) for one in variants):
            kind = variant.get("properties", {}).get("type", {}) if len(variants) > 1 else {}
            words = kind.get("enum") or [kind["const"]] if kind else []
            chosen = f"{mark}({'/'.join(words)})" if words else mark
            yield from (
                found
                for found in _properties(variant, root, f"{prefix}{name}{chosen}.")
                if not (words and found[0].endswith(".type"))
            )


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without references, and without the null that stands for what is left out."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return {**_resolved(root["$defs"][name], root), **_said(schema)}
    others = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return {**_resolved(others[0], root), **_said(schema)} if len(others) == 1 else schema


def _said(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: schema[name] for name in ("description", "default", "examples") if schema.get(name) is not None
    }


def _told(schema: Mapping[str, Any]) -> str:
    description = schema.get("description", "")
    parts = [_form(schema)]
    if schema.get("type") != "object" and description not in [file["description"] for file in FILES.values()]:
        parts.append(description)
    if schema.get("default") is not None:
        parts.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(part for part in parts if part).replace("|", "\\|")


def _form(schema: Mapping[str, Any]) -> str:
    if words := _words(schema):
        return ", ".join(f"`{word}`" for word in words)
    for name, file in FILES.items():
        if schema.get("examples") == file["examples"]:
            return name
    match schema.get("type"):
        case "string":
            most = schema.get("maxLength")
            return "text" + (f", at most {most} characters" if most else "")
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _range(schema, "minimum", "maximum")
        case "boolean":
            return "true or false"
        case "array":
            return "list" + _range(schema, "minItems", "maxItems")
        case "object":
            return "object"
    return " or ".join(dict.fromkeys(_form(each) for each in schema.get("anyOf", ()))) or "object"


def _words(schema: Mapping[str, Any]) -> Sequence[str]:
    found = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    return list(dict.fromkeys(map(str, found)))


def _range(schema: Mapping[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    match low, high:
        case None, None:
            return ""
        case None, _:
            return f", at most {high}"
        case _, None:
            return f", at least {low}"
        case _ if low == high:
            return f", {low}"
        case _:
            return f", {low} to {high}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {len(TASK_TYPES)} types\n")
