"""How a task is asked for and asked about, in each of Kling's two standards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from service.domain.creates import Order
from service.domain.raw import path_at
from service.domain.task_types import Route, Standard
from service.domain.tasks import Task

TASKS: Final = "/tasks"  # where those of the new standard are asked about


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What is posted, and where."""

    path: str
    fields: Mapping[str, Any]


def create_request(route: Route, order: Order) -> CreateRequest:
    path, fields = _said(route, order.input)
    fields = {**order.extras, **fields}
    ours = {"callback_url": order.callback_url, "external_task_id": order.external_task_id}
    if _standard(route, order.input) is Standard.LEGACY:
        return CreateRequest(path, fields | ours)
    options = fields.get("options")
    return CreateRequest(path, fields | {"options": (options if isinstance(options, dict) else {}) | ours})


def query_path(route: Route, task: Task) -> str:
    """By the provider's id, else by the external id."""
    wanted = quote(task.provider_task_id or task.provider_external_id, safe="")
    if _standard(route, task.input) is Standard.LEGACY:
        return f"{_said(route, task.input)[0]}/{wanted}"
    by = "external_task_ids" if task.provider_task_id is None else "task_ids"
    return (
        f"{path_at(TASKS, _beginning(route, task.input)) if route.given_by_caller else TASKS}?{by}={wanted}"
    )


def _standard(route: Route, input: Mapping[str, Any]) -> Standard:
    return Standard(input.get("standard", Standard.LEGACY)) if route.given_by_caller else route.standard


def _beginning(route: Route, input: Mapping[str, Any]) -> str:
    """Of a path that the caller gives."""
    if route.anew is not None and _standard(route, input) is Standard.NEW:
        return route.anew
    return route.path


def _said(route: Route, input: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and body, but for what is Klingel's to say."""
    if route.given_by_caller:
        return path_at(input["path"], _beginning(route, input)), dict(input["body"])
    fields = {route.renames.get(name, name): value for name, value in input.items()}
    if route.standard is Standard.LEGACY:
        return route.path, fields
    return route.path.format(model=quote(str(fields.pop("model_name")), safe="")), fields
