"""`klingel types`."""

from typing import Annotated, Any, Final

from cyclopts import Parameter

from service.cli.session import Exit, Given, Json
from service.cli.text import Column, as_json, table

COLUMNS: Final[tuple[Column, ...]] = (
    ("TYPE", lambda one: one["name"]),
    ("MAKES", lambda one: ", ".join(one["makes"]) or "whatever comes"),
    ("AT", lambda one: ", ".join(dict.fromkeys(path["layout"] for path in one["paths"]))),
    ("WHAT", lambda one: one["summary"] + (" (retired)" if one["retired"] else "")),
)


def types(
    name: Annotated[
        str | None, Parameter(help="One type: its fields, its limits and where they are from.")
    ] = None,
    /,
    *,
    json: Json = False,
    session: Given,
) -> Exit | None:
    """List what can be submitted."""
    items: list[dict[str, Any]] = session.api.get("task-types")["items"]
    if name is None:
        if json:
            session.say_json({"items": items})
        else:
            session.say(table(COLUMNS, items))
        return None
    found = next((item for item in items if item["name"] in {name, f"kling.{name}"}), None)
    if found is None:
        session.note(
            f"There is no type {name}. There are: {', '.join(item['name'] for item in items)}", "red"
        )
        return Exit.REFUSED
    if json:
        session.say_json(found)
        return None
    session.say(_told(found))
    return None


def _told(one: dict[str, Any]) -> str:
    lines = [f"{one['name']}: {one['summary']}"]
    if one["retired"]:
        lines.append(f"Retired: {one['retired']['text']}")
    if one["models"]:
        names = [model["name"] + (" (retired)" if model["retired"] else "") for model in one["models"]]
        lines.append(f"Models: {', '.join(names)}")
    lines += [f"- {note['text']} [{note['source']}; {note['confidence']}]" for note in one["notes"]]
    lines.append("Input, as JSON Schema:")
    lines.append(as_json(one["input_schema"], indent=2))
    for example in one["examples"]:
        lines += ["For example:", as_json({"type": one["name"], "input": example}, indent=2)]
    return "\n".join(lines)
