"""The OpenAPI document, put together from the operations and the schemas that they name."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel

from service.api.description import answers, dropin
from service.api.description.operations import JSON, OPERATIONS, REFUSES, Access, Answer, Operation, Tag
from service.api.description.schemas import body_schemas, bot_schemas, reference, schemas_of
from service.api.envelopes import ROOT
from service.api.problems import MEDIA_TYPE
from service.domain.errors import KlingelError, StorageUnavailable
from service.doors.statuses import STATUS

_INFO: Final = {
    "title": "Klingel",
    "version": version("klingel"),
    "summary": "Submits Kling image and video tasks, and rings when something happens. Nobody polls.",
    "description": "Every answer to a request that could be read carries `X-Request-Id`; one that is sent is taken over. Bodies are read as JSON whatever "
    "`Content-Type` says. Faults of the service itself are a 500 problem. A request that is too slow or whose head is "
    "too large ends with 408 or 431 and no body. Fields may be added to what is answered at any time; fields that are "
    f"not known are refused in what is sent. Below `{ROOT}` it is otherwise: what is not known goes to the provider, and "
    "what is refused, or goes wrong, is answered in Kling's own envelope.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
_TAGS: Final = {
    Tag.TASKS: "Generations, from submit to result.",
    Tag.EVENTS: "The log of what happened, and the log as it grows.",
    Tag.ENDPOINTS: "Where events go.",
    Tag.DELIVERIES: "What became of each event at each endpoint.",
    Tag.FILES: "What tasks made, kept by Klingel.",
    Tag.BOTS: "Chat bots by which people submit tasks.",
    Tag.KEYS: "API keys, for admins.",
    Tag.USAGE: "What tasks have cost, and what accounts may spend.",
    Tag.DROP_IN: "CometAPI's own paths, for clients that were written for it: they change their base URL and key.",
    Tag.PROVIDERS: "Where providers call back.",
    Tag.UPKEEP: "For whoever looks after this Klingel.",
}
_PROVIDER_CALLBACK: Final = {
    "type": "object",
    "description": "As Kling or a gateway sends it: a task's id and status, bare or in layers of `data`.",
    "examples": [
        {
            "task_id": "881203390284693504",
            "task_status": "succeed",
            "task_info": {"external_task_id": "order-1042"},
            "task_result": {
                "videos": [{"id": "5c1d", "url": "https://example.com/out.mp4", "duration": "5.1"}]
            },
        }
    ],
}
_BEARER: Final = "apiKey"
_NO_PROBLEM: Final = "about:blank"


def describe(
    configs: Mapping[str, type[BaseModel]], bots: Mapping[str, type[BaseModel]] | None = None
) -> dict[str, Any]:
    """
    Args:
        configs: how each kind of endpoint is configured.
        bots: how a bot on each platform is; where none is known, anything.
    """
    operations = {**OPERATIONS, **dropin.OPERATIONS}
    shown = [
        content
        for operation in operations.values()
        for answer in operation.answers.values()
        for content in answer.content.values()
        if not isinstance(content, Mapping)
    ]
    referred, components = schemas_of([*shown, answers.Event, answers.Problem, dropin.KlingRefusal])
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route, operation in operations.items():
        method, path = route.split(" ")
        paths[path][method.lower()] = _operation(operation, referred)
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
        "security": [{_BEARER: []}],
        "paths": dict(paths),
        "webhooks": {"event": {"post": _webhook(referred)}},
        "components": {
            "schemas": components
            | body_schemas(configs)
            | bot_schemas(bots or {})
            | dropin.body_schemas()
            | {"ProviderCallback": _PROVIDER_CALLBACK},
            "securitySchemes": {
                _BEARER: {"type": "http", "scheme": "bearer", "description": "An API key: `kl_…`."}
            },
        },
    }


def _operation(operation: Operation, referred: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.access is Access.ANYONE:
        described["security"] = []
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in operation.path.items()
    ]
    if parameters or operation.parameters:
        described["parameters"] = [*parameters, *operation.parameters]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": reference(operation.body)}},
        }
    described["responses"] = _responses(operation, referred)
    return described


def _responses(operation: Operation, referred: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[int, dict[str, Any]] = {
        status: _response(answer, referred) for status, answer in operation.answers.items()
    }
    for status, codes in _problems(operation).items():
        found = told.setdefault(status, {"description": HTTPStatus(status).phrase + ".", "content": {}})
        found["content"][MEDIA_TYPE] = {"schema": _problem(status, codes)}
        if status in _HEADERS:
            found["headers"] = found.get("headers", {}) | _headers(_HEADERS[status])
    return {str(status): told[status] for status in sorted(told)}


def _response(answer: Answer, referred: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.what}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    if answer.content:
        described["content"] = {
            media_type: {"schema": content if isinstance(content, Mapping) else referred[content]}
            for media_type, content in answer.content.items()
        }
    return described


# What `problem_of` sends along.
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "`Bearer`"},
    429: {"Retry-After": "seconds"},
    503: {"Retry-After": "seconds"},
}


def _headers(named: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}


def _problems(operation: Operation) -> dict[int, list[str]]:
    """The types of problem that may come, by status."""
    if operation.tag is Tag.DROP_IN:
        return {}  # it answers with none
    kinds: list[type[KlingelError]] = [*REFUSES[operation.access], *operation.problems]
    if operation.access is not Access.ANYONE:
        kinds.append(StorageUnavailable)
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for kind in dict.fromkeys(kinds):
        by_status[_status(kind)].append(f"/problems/{kind.code}")
    if operation.path and operation.access is not Access.ANYONE:
        # A slash in a parameter leads to no route.
        by_status[HTTPStatus.NOT_FOUND].append(_NO_PROBLEM)
    return by_status


def _status(kind: type[KlingelError]) -> int:
    return next(STATUS[each] for each in kind.__mro__ if each in STATUS)


def _problem(status: int, types: Sequence[str]) -> dict[str, Any]:
    narrowed = {"type": {"enum": list(types)}, "status": {"const": status}}
    return {"allOf": [reference(answers.Problem.__name__), {"properties": narrowed}]}


def _webhook(referred: Mapping[Any, Any]) -> dict[str, Any]:
    headers = {
        "webhook-id": (
            {"type": "string", "pattern": "^evt_[0-9a-f]{32}$"},
            "The event's id: the same for every attempt.",
        ),
        "webhook-timestamp": (
            {"type": "string", "pattern": "^[0-9]+$"},
            "When this attempt went out: seconds since 1970.",
        ),
        "webhook-signature": (
            {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"},
            "One for each secret in force: HMAC-SHA256 over `id.timestamp.body`.",
        ),
    }
    context = {
        "traceparent": "Of the trace to which the task belongs, where there is one (W3C Trace Context).",
        "tracestate": "What whoever submitted the task said with it.",
    }
    return {
        "operationId": "receiveEvent",
        "summary": "An event at one of your endpoints",
        "description": "Signed by Standard Webhooks (https://www.standardwebhooks.com). At least once: what comes "
        "twice has the same `webhook-id`.",
        "tags": [Tag.ENDPOINTS],
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": schema, "description": text}
            for name, (schema, text) in headers.items()
        ]
        + [
            {"name": name, "in": "header", "schema": {"type": "string"}, "description": text}
            for name, text in context.items()
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": referred[answers.Event]}}},
        "responses": {
            "2XX": {"description": "Delivered."},
            "410": {"description": "Disables the endpoint."},
            "429": {"description": "Tried again; the first two retries obey `Retry-After`, up to an hour."},
            "503": {"description": "Tried again; the first two retries obey `Retry-After`, up to an hour."},
            "default": {"description": "Tried again, for more than a day. Redirects are not followed."},
        },
    }
