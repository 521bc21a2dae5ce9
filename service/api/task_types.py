"""`/v1/task-types`: what can be submitted, as data."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.api.auth import authenticate
from service.api.state import State
from service.domain.task_types import TASK_TYPES, Fact, Layout, Route, TaskType
from service.domain.tasks import OutputKind
from service.settings import Settings


async def index(request: Request[State]) -> Response:
    """Every type of task: its input as a JSON Schema, examples, what is known of it and who vouches for that.

    Models that are not named here are passed on all the same. What is retired can still be submitted: the provider
    decides.
    """
    await authenticate(request)
    return Response(_listed(_deadlines(request.state["settings"])), media_type="application/json")


def _deadlines(settings: Settings) -> tuple[float, float, float]:
    return settings.deadline_image, settings.deadline_video, settings.deadline_audio


@cache
def _listed(deadlines: tuple[float, float, float]) -> bytes:
    by_kind = dict(zip((OutputKind.IMAGE, OutputKind.VIDEO, OutputKind.AUDIO), deadlines, strict=True))
    items = [view(row, deadline_s=by_kind[row.deadline_as]) for row in TASK_TYPES.values()]
    return to_json({"items": items, "next_cursor": None})


def view(row: TaskType, *, deadline_s: float) -> dict[str, Any]:
    """
    Args:
        deadline_s: its default.
    """
    return {
        "name": row.name,
        "summary": row.summary,
        "makes": [] if row.makes is None else [row.makes, *row.also_makes],
        "places": row.places.said,
        "deadline_s": deadline_s,
        "paths": [
            _path(layout, route)
            for layout, routes in row.routes.items()
            if layout is not Layout.SANDBOX
            for route in routes
        ],
        "models": [{"name": name, "retired": name in row.retired_models} for name in row.models],
        "retired": None if row.retired is None else _fact(row.retired),
        "notes": [_fact(fact) for fact in row.facts],
        "input_schema": row.input_model.model_json_schema(),
        "examples": [dict(example) for example in row.examples],
    }


def _path(layout: str, route: Route) -> Mapping[str, Any]:
    return {
        "layout": layout,
        "path": None if route.given_by_caller else route.path,
        "standard": route.standard,
        "source": route.source,
        "confidence": route.confidence,
    }


def _fact(fact: Fact) -> Mapping[str, Any]:
    return {"text": fact.text, "source": fact.source, "confidence": fact.confidence}
