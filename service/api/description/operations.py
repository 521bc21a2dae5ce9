"""What each route takes and answers, as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from inspect import getdoc
from typing import Any, Final

from service.api import (
    bots,
    deliveries,
    endpoints,
    events,
    files,
    health,
    keys,
    probing,
    pruning,
    task_types,
    tasks,
    usage,
    web_push,
)
from service.api.description import answers
from service.api.description.answers import id_schema
from service.api.keys import ACCOUNT_NAME
from service.api.pages import DEFAULT_LIMIT, LARGEST_LIMIT, LONGEST_TEXT, NUMERIC_CURSOR, WORD
from service.api.problems import MEDIA_TYPE
from service.api.submitting import IDEMPOTENCY_KEY
from service.domain import errors
from service.domain.deliveries import DeliveryStatus
from service.domain.errors import KlingelError
from service.domain.events import EventType
from service.domain.ids import id_pattern
from service.domain.kept import FILE_NAME
from service.domain.lifecycle import Status
from service.domain.media_types import MEDIA_TYPES
from service.probing import Probed
from service.providers import NAME

JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
TEXT: Final = "text/plain"


class Tag(StrEnum):
    TASKS = "tasks"
    EVENTS = "events"
    ENDPOINTS = "endpoints"
    DELIVERIES = "deliveries"
    FILES = "files"
    BOTS = "bots"
    KEYS = "keys"
    DROP_IN = "drop-in"
    PROVIDERS = "providers"
    USAGE = "usage"
    UPKEEP = "upkeep"


class Access(StrEnum):
    """Who may ask."""

    ANYONE = "anyone"
    MEMBER = "member"
    ADMIN = "admin"


REFUSES: Final[Mapping[Access, Sequence[type[KlingelError]]]] = {
    Access.ANYONE: (),
    Access.MEMBER: (errors.Unauthenticated, errors.TooManyFailures),
    Access.ADMIN: (errors.Unauthenticated, errors.TooManyFailures, errors.Forbidden),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Args:
        content: by media type, a type from `answers` or a JSON Schema.
    """

    what: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def shows(shown: object, what: str = "What was asked for.", **headers: str) -> Answer:
    return Answer(what, {JSON: shown}, {name.replace("_", "-"): text for name, text in headers.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    id: str
    summary: str
    description: str = ""
    tag: Tag
    access: Access = Access.MEMBER
    path: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: Sequence[Mapping[str, Any]] = ()
    body: str | None = None  # a component of `schemas.body_schemas`
    answers: Mapping[int, Answer]
    problems: Sequence[type[KlingelError]] = ()


def _told(handler: Callable[..., Any]) -> str:
    return getdoc(handler) or ""


def _query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def _matching(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", **more}


def _one_of(choices: type[StrEnum]) -> dict[str, Any]:
    return {"type": "string", "enum": list(choices)}


def _paged(cursor: str) -> tuple[dict[str, Any], ...]:
    limit = {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": DEFAULT_LIMIT}
    return (
        _query("limit", limit, "Items on a page."),
        _query("cursor", _matching(cursor), "`next_cursor` of the page before."),
    )


EVENTS_PAGED: Final = _paged(NUMERIC_CURSOR)
RESUMED: Final = (
    _header(
        "Last-Event-ID",
        {"type": "string"},
        "For a stream: the event after which it goes on; `evt_` and 32 zeros stand before every event.",
    ),
)
METADATA: Final = {
    "name": "metadata",
    "in": "query",
    "style": "form",
    "explode": True,
    "schema": {
        "type": "object",
        "patternProperties": {"^metadata\\.": {"type": "string"}},
        "additionalProperties": False,
    },
    "description": "Any number of `metadata.<name>=<value>`: tasks with these values, compared as text.",
}

IDEMPOTENT: Final = (
    _header(
        "Idempotency-Key",
        _matching(IDEMPOTENCY_KEY.pattern),
        "For 24 hours the same key and body get the same answer.",
    ),
)

TASK: Final = {"id": id_schema("task")}
EVENT: Final = {"id": id_schema("evt")}
ENDPOINT: Final = {"id": id_schema("end")}
DELIVERY: Final = {"id": id_schema("dlv")}
KEY: Final = {"id": id_schema("key")}
DAY: Final = {"type": "string", "format": "date"}
BOT: Final = {"id": id_schema("bot")}
FILE: Final = {"name": _matching(FILE_NAME.pattern)}
FILE_CONTENT: Final[Mapping[str, Any]] = {type.name: {} for type in MEDIA_TYPES}
CALLBACK: Final = {
    "provider": _matching(NAME.pattern),
    "task_id": id_schema("task"),
    "token": {"type": "string", "description": "made from the other two and KLINGEL_SECRET"},
}

STREAMED: Final = {
    "type": "string",
    "description": "Server-sent events: `id` and `event` are those of the event, `data` is its JSON. An account's "
    "stream that begins now begins with an `id` alone, from which it can be resumed. `stream.dropped` is the last of a "
    "stream that is cut off: `reason` is `too-slow` (connect again) or `key-revoked`.",
}
BODY_PROBLEMS: Final = (errors.InvalidRequest, errors.TooLarge, errors.Unprocessable)
LOCATION: Final = "where it is shown"

_SUBMITTED_HEADERS: Final = {
    "Location": LOCATION,
    "Idempotent-Replayed": "`true` where an earlier submit with this Idempotency-Key is answered again",
    "Preference-Applied": "`respond-async` where that was asked for",
}
_SUBMITTED: Final = {JSON: answers.SubmittedTask}

_CALLBACK: Final = Operation(
    id="receiveCallback",
    summary="Take a provider's callback",
    description="For the provider alone, under the URL that a create gave it. It is kept as evidence, whatever "
    "becomes of it.",
    tag=Tag.PROVIDERS,
    access=Access.ANYONE,
    path=CALLBACK,
    body="ProviderCallback",
    answers={
        200: Answer("It is on disk.", {TEXT: {"const": "ok\n"}}),
        400: Answer("It is on disk, but says nothing of a task.", {TEXT: {"type": "string"}}),
        404: Answer("The same for all that is unknown or forged.", {TEXT: {"const": "Not found\n"}}),
        413: Answer("Larger than 1 MiB.", {TEXT: {"type": "string"}}),
        429: Answer(
            "Too many unknown URLs from this address.",
            {TEXT: {"type": "string"}},
            {"Retry-After": "seconds"},
        ),
    },
    problems=(errors.Unavailable, errors.StorageUnavailable),
)

# By method and path, as the routes are.
_CHAT: Final = Operation(
    id="receiveFromChat",
    summary="Take what people say to a chat bot",
    description="For the platform alone, under the `url` that the bot shows. Requests and answers are the platform's own; "
    "what it does not vouch for changes nothing.",
    tag=Tag.BOTS,
    access=Access.ANYONE,
    path={"platform": {"type": "string"}, "bot_id": id_schema("bot")},
    answers={
        200: Answer("As the platform wants it.", {JSON: {}, TEXT: {"type": "string"}}),
        400: Answer("Not as this platform sends it.", {TEXT: {"type": "string"}}),
        401: Answer("Not by this platform.", {TEXT: {"type": "string"}}),
        404: Answer("There is no such bot.", {TEXT: {"const": "Not found\n"}}),
        503: Answer("Its secrets cannot be opened here.", {TEXT: {"type": "string"}}),
    },
    problems=(errors.TooLarge, errors.Unavailable),
)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "POST /v1/tasks": Operation(
        id="submitTask",
        summary="Submit a task",
        description=_told(tasks.submit),
        tag=Tag.TASKS,
        parameters=(
            *IDEMPOTENT,
            _header(
                "Prefer",
                {"type": "string", "examples": ["respond-async"]},
                "`respond-async` waits for nothing.",
            ),
        ),
        body="SubmitBody",
        answers={
            201: Answer("The provider has it.", _SUBMITTED, _SUBMITTED_HEADERS),
            202: Answer("Stored; whether the provider has it is still open.", _SUBMITTED, _SUBMITTED_HEADERS),
        },
        problems=(
            *BODY_PROBLEMS,
            errors.ExternalTaskIdTaken,
            errors.IdempotencyKeyReused,
            errors.BudgetExceeded,
            errors.ProviderRefused,
            errors.PaymentRequired,
            errors.ProviderMisconfigured,
            errors.Unavailable,
            errors.Busy,
        ),
    ),
    "GET /v1/tasks": Operation(
        id="listTasks",
        summary="List tasks, newest first",
        tag=Tag.TASKS,
        parameters=(
            _query("status", _one_of(Status), "Only these."),
            _query("type", _matching(WORD), "Only these."),
            _query("external_task_id", {"type": "string", "maxLength": LONGEST_TEXT}, "Only this one."),
            _query("created_after", answers.MOMENT, "Made then or later; RFC 3339."),
            _query("created_before", answers.MOMENT, "Made earlier; RFC 3339."),
            METADATA,
            *_paged(id_pattern("task")),
        ),
        answers={200: shows(answers.TaskPage)},
        problems=(errors.Unprocessable, errors.SearchTooWide),
    ),
    "GET /v1/tasks/{id}": Operation(
        id="showTask",
        summary="Show a task, with its input and its transitions",
        tag=Tag.TASKS,
        path=TASK,
        answers={200: shows(answers.TaskDetail)},
        problems=(errors.NotFound,),
    ),
    "GET /v1/tasks/{id}/events": Operation(
        id="listTaskEvents",
        summary="List a task's events, or follow them",
        description=_told(events.of_task),
        tag=Tag.TASKS,
        path=TASK,
        parameters=(*EVENTS_PAGED, *RESUMED),
        answers={200: Answer("Its events.", {JSON: answers.TaskEventPage, STREAM: STREAMED})},
        problems=(errors.NotFound, errors.Unprocessable, errors.TooManyStreams),
    ),
    "GET /v1/tasks/{id}/callbacks": Operation(
        id="listTaskCallbacks",
        summary="List the callbacks received for a task",
        description=_told(tasks.callbacks),
        tag=Tag.TASKS,
        path=TASK,
        parameters=_paged(id_pattern("cbk")),
        answers={200: shows(answers.CallbackPage)},
        problems=(errors.NotFound, errors.Unprocessable),
    ),
    "POST /v1/tasks/{id}/refresh": Operation(
        id="refreshTask",
        summary="Ask the provider for a task's status, once",
        description=_told(tasks.refresh),
        tag=Tag.TASKS,
        path=TASK,
        answers={200: shows(answers.RefreshedTask)},
        problems=(
            errors.NotFound,
            errors.TaskNotRefreshable,
            errors.ProviderRefused,
            errors.PaymentRequired,
            errors.ProviderMisconfigured,
            errors.ProviderUnavailable,
            errors.Unavailable,
        ),
    ),
    "GET /v1/events": Operation(
        id="listEvents",
        summary="List the account's events, or follow them",
        description=_told(events.of_account),
        tag=Tag.EVENTS,
        parameters=(
            _query("type", _one_of(EventType), "Only these."),
            _query(
                "order",
                {"type": "string", "enum": list(events.ORDERS), "default": events.ORDERS[-1]},
                "By time.",
            ),
            *EVENTS_PAGED,
            *RESUMED,
        ),
        answers={200: Answer("The log.", {JSON: answers.EventPage, STREAM: STREAMED})},
        problems=(errors.NotFound, errors.Unprocessable, errors.SearchTooWide, errors.TooManyStreams),
    ),
    "GET /v1/events/{id}": Operation(
        id="showEvent",
        summary="Show an event",
        description=_told(events.show),
        tag=Tag.EVENTS,
        path=EVENT,
        answers={200: shows(answers.Event)},
        problems=(errors.NotFound,),
    ),
    "GET /v1/events/{id}/explain": Operation(
        id="explainEvent",
        summary="Say why each endpoint got an event, or did not",
        description=_told(events.explain),
        tag=Tag.EVENTS,
        path=EVENT,
        parameters=(_query("endpoint_id", _matching(WORD), "Only this one."), *_paged(id_pattern("end"))),
        answers={200: shows(answers.ExplanationPage)},
        problems=(errors.NotFound, errors.Unprocessable),
    ),
    "POST /v1/endpoints": Operation(
        id="createEndpoint",
        summary="Say where events go",
        description=_told(endpoints.create),
        tag=Tag.ENDPOINTS,
        body="EndpointBody",
        answers={201: shows(answers.CreatedEndpoint, "Events go there from now on.", Location=LOCATION)},
        problems=(*BODY_PROBLEMS, errors.TooManyEndpoints, errors.Unavailable),
    ),
    "GET /v1/endpoints": Operation(
        id="listEndpoints",
        summary="List endpoints, newest first",
        description="Those bound to a task are not among them.",
        tag=Tag.ENDPOINTS,
        parameters=_paged(id_pattern("end")),
        answers={200: shows(answers.EndpointPage)},
        problems=(errors.Unprocessable,),
    ),
    "GET /v1/endpoints/{id}": Operation(
        id="showEndpoint",
        summary="Show an endpoint",
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        answers={200: shows(answers.Endpoint)},
        problems=(errors.NotFound,),
    ),
    "PATCH /v1/endpoints/{id}": Operation(
        id="updateEndpoint",
        summary="Change an endpoint",
        description=_told(endpoints.update),
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        body="EndpointPatch",
        answers={200: shows(answers.Endpoint, "As it is now.")},
        problems=(
            *BODY_PROBLEMS,
            errors.NotFound,
            errors.Conflict,
            errors.ChangedMeanwhile,
            errors.Unavailable,
        ),
    ),
    "DELETE /v1/endpoints/{id}": Operation(
        id="deleteEndpoint",
        summary="Delete an endpoint",
        description=_told(endpoints.delete),
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        answers={204: Answer("It is gone.")},
        problems=(errors.NotFound, errors.Unavailable),
    ),
    "POST /v1/endpoints/{id}/test": Operation(
        id="testEndpoint",
        summary="Send a test event to an endpoint",
        description=_told(endpoints.test),
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        answers={202: shows(answers.SentTest, "It is on its way.")},
        problems=(errors.NotFound, errors.TooManyRequests, errors.Unavailable),
    ),
    "POST /v1/endpoints/{id}/rotate-secret": Operation(
        id="rotateSecret",
        summary="Give an endpoint a new signing secret",
        description=_told(endpoints.rotate_secret),
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        answers={200: shows(answers.RotatedSecret, "The new secret.")},
        problems=(errors.NotFound, errors.Unavailable),
    ),
    "POST /v1/endpoints/{id}/replay": Operation(
        id="replayEndpoint",
        summary="Deliver past events to an endpoint again",
        description=_told(endpoints.replay),
        tag=Tag.ENDPOINTS,
        path=ENDPOINT,
        body="ReplayBody",
        answers={202: shows(answers.Replayed, "They are on their way.")},
        problems=(
            *BODY_PROBLEMS,
            errors.NotFound,
            errors.EndpointDisabled,
            errors.TooManyRequests,
            errors.Unavailable,
        ),
    ),
    "GET /v1/web-push/key": Operation(
        id="showWebPushKey",
        summary="Show the key under which a browser subscribes to push",
        description=_told(web_push.key),
        tag=Tag.ENDPOINTS,
        answers={200: shows(answers.WebPushKey, "The present one.")},
    ),
    "GET /v1/deliveries": Operation(
        id="listDeliveries",
        summary="List deliveries, newest first",
        description=_told(deliveries.index),
        tag=Tag.DELIVERIES,
        parameters=(
            _query("kind", {"type": "string", "enum": list(deliveries.KINDS)}, "Only those to the archive."),
            _query("endpoint_id", _matching(WORD), "Only those to it."),
            _query("status", _one_of(DeliveryStatus), "Only these."),
            _query("event_id", _matching(WORD), "Only those of it."),
            _query("task_id", _matching(WORD), "Only those of its events."),
            *_paged(id_pattern("dlv")),
        ),
        answers={200: shows(answers.DeliveryPage)},
        problems=(errors.Unprocessable, errors.SearchTooWide),
    ),
    "GET /v1/deliveries/{id}": Operation(
        id="showDelivery",
        summary="Show a delivery, with its attempts",
        description=_told(deliveries.show),
        tag=Tag.DELIVERIES,
        path=DELIVERY,
        answers={200: shows(answers.DeliveryDetail)},
        problems=(errors.NotFound,),
    ),
    "POST /v1/deliveries/{id}/replay": Operation(
        id="replayDelivery",
        summary="Deliver one event again",
        description=_told(deliveries.replay),
        tag=Tag.DELIVERIES,
        path=DELIVERY,
        answers={202: shows(answers.Delivery, "The new delivery.", Location=LOCATION)},
        problems=(errors.NotFound, errors.EndpointDisabled, errors.Unavailable),
    ),
    "GET /v1/files/{name}": Operation(
        id="getFile",
        summary="Get a kept output",
        description=_told(files.show),
        tag=Tag.FILES,
        path=FILE,
        parameters=(
            _query("expires", {"type": "integer", "minimum": 0}, "Of a signed link: seconds since 1970."),
            _query("signature", {"type": "string"}, "Of a signed link; no key is needed then."),
            _header("Range", {"type": "string", "examples": ["bytes=0-1023"]}, "One range of bytes."),
            _header("If-Range", {"type": "string"}, "The range only if the file is still this one."),
            _header("If-None-Match", {"type": "string"}, "Nothing if the file is still one of these."),
        ),
        answers={
            200: Answer("All of it.", FILE_CONTENT, {"ETag": "made from its SHA-256"}),
            206: Answer("The range.", FILE_CONTENT, {"Content-Range": "which bytes, of how many"}),
            304: Answer("You have it."),
            416: Answer(
                "There are no such bytes.",
                {MEDIA_TYPE: answers.Problem},
                {"Content-Range": "how many bytes there are"},
            ),
        },
        problems=(errors.Forbidden, errors.NotFound),
    ),
    "POST /v1/bots": Operation(
        id="createBot",
        summary="Make a chat bot",
        description=_told(bots.create),
        tag=Tag.BOTS,
        body="BotBody",
        answers={201: shows(answers.Bot, "It listens.", Location=LOCATION)},
        problems=(*BODY_PROBLEMS, errors.TooManyBots, errors.Unavailable),
    ),
    "GET /v1/bots": Operation(
        id="listBots",
        summary="List chat bots, newest first",
        tag=Tag.BOTS,
        parameters=_paged(id_pattern("bot")),
        answers={200: shows(answers.BotPage)},
        problems=(errors.Unprocessable,),
    ),
    "GET /v1/bots/{id}": Operation(
        id="showBot",
        summary="Show a chat bot",
        tag=Tag.BOTS,
        path=BOT,
        answers={200: shows(answers.Bot)},
        problems=(errors.NotFound,),
    ),
    "PATCH /v1/bots/{id}": Operation(
        id="updateBot",
        summary="Change a chat bot",
        description=_told(bots.update),
        tag=Tag.BOTS,
        path=BOT,
        body="BotPatch",
        answers={200: shows(answers.Bot, "As it is now.")},
        problems=(*BODY_PROBLEMS, errors.NotFound, errors.ChangedMeanwhile, errors.Unavailable),
    ),
    "DELETE /v1/bots/{id}": Operation(
        id="deleteBot",
        summary="Delete a chat bot",
        description=_told(bots.delete),
        tag=Tag.BOTS,
        path=BOT,
        answers={204: Answer("It is gone.")},
        problems=(errors.NotFound, errors.Unavailable),
    ),
    "POST /v1/keys": Operation(
        id="createKey",
        summary="Make an API key",
        description=_told(keys.create),
        tag=Tag.KEYS,
        access=Access.ADMIN,
        body="KeyBody",
        answers={201: shows(answers.CreatedApiKey, "The key.")},
        problems=(*BODY_PROBLEMS, errors.Unavailable),
    ),
    "GET /v1/task-types": Operation(
        id="listTaskTypes",
        summary="List what can be submitted",
        description=_told(task_types.index),
        tag=Tag.TASKS,
        answers={200: shows(answers.TaskTypePage)},
    ),
    "GET /v1/keys": Operation(
        id="listKeys",
        summary="List the API keys of all accounts, newest first",
        tag=Tag.KEYS,
        access=Access.ADMIN,
        parameters=_paged(id_pattern("key")),
        answers={200: shows(answers.ApiKeyPage)},
        problems=(errors.Unprocessable,),
    ),
    "DELETE /v1/keys/{id}": Operation(
        id="revokeKey",
        summary="Revoke an API key",
        description=_told(keys.revoke),
        tag=Tag.KEYS,
        access=Access.ADMIN,
        path=KEY,
        answers={204: Answer("It works no more.")},
        problems=(errors.NotFound, errors.Conflict, errors.Unavailable),
    ),
    "GET /v1/usage": Operation(
        id="showUsage",
        summary="What tasks have cost, summed",
        description=_told(usage.show),
        tag=Tag.USAGE,
        parameters=(
            _query("from", DAY, "The first day; else the first of this month."),
            _query("to", DAY, "The last day, counted in; else today."),
            _query(
                "by",
                _matching(
                    rf"(day|type|provider|metadata\..{{1,{LONGEST_TEXT - len(usage.METADATA)}}})",
                    default="day",
                ),
                "Of `metadata.<key>`: tasks that are kept, by the value as text; null for those that have none.",
            ),
            _query("account", _matching(ACCOUNT_NAME.strip("^$")), "Another's, for admins."),
        ),
        answers={200: shows(answers.Usage)},
        problems=(errors.Unprocessable, errors.SearchTooWide, errors.Forbidden, errors.NotFound),
    ),
    "GET /v1/budgets": Operation(
        id="listBudgets",
        summary="List budgets, and what is spent of them",
        description=_told(usage.budgets),
        tag=Tag.USAGE,
        answers={200: shows(answers.BudgetList)},
        problems=(errors.Unprocessable, errors.SearchTooWide),
    ),
    "PUT /v1/budgets": Operation(
        id="putBudget",
        summary="Say how much an account may spend",
        description=_told(usage.put_budget),
        tag=Tag.USAGE,
        access=Access.ADMIN,
        body="BudgetBody",
        answers={200: shows(answers.Budget, "The budget."), 204: Answer("There is none now.")},
        problems=(*BODY_PROBLEMS, errors.NotFound, errors.Unavailable),
    ),
    "POST /v1/prune": Operation(
        id="prune",
        summary="Forget what is older than the settings say",
        description=_told(pruning.prune),
        tag=Tag.UPKEEP,
        access=Access.ADMIN,
        answers={200: shows(dict[str, int], "How many rows of each kind.")},
        problems=(errors.Unavailable,),
    ),
    "POST /v1/probe": Operation(
        id="probe",
        summary="Whether callbacks would arrive",
        description=_told(probing.probe),
        tag=Tag.UPKEEP,
        access=Access.ADMIN,
        answers={200: shows(Probed, "How it went.")},
    ),
    "POST /chat/{platform}/{bot_id}": _CHAT,
    "GET /chat/{platform}/{bot_id}": replace(
        _CHAT, id="checkChat", summary="Answer a chat platform that checks the bot's address"
    ),
    "POST /callbacks/{provider}/{task_id}/{token}": _CALLBACK,
    "POST /callbacks/{provider}/{task_id}/{token}/": replace(_CALLBACK, id="receiveCallbackAtSlash"),
    "GET /healthz": Operation(
        id="healthz",
        summary="Whether this process lives",
        tag=Tag.UPKEEP,
        access=Access.ANYONE,
        answers={200: shows(answers.Liveness, "It does.")},
    ),
    "GET /readyz": Operation(
        id="readyz",
        summary="Whether this process can do its work",
        description=_told(health.readyz),
        tag=Tag.UPKEEP,
        access=Access.ANYONE,
        answers={
            200: shows(answers.Readiness, "It can."),
            503: shows(answers.Readiness, "It cannot; `checks` says what of it, and its log why."),
        },
    ),
    "GET /metrics": Operation(
        id="metrics",
        summary="Prometheus metrics",
        tag=Tag.UPKEEP,
        access=Access.ANYONE,
        answers={200: Answer("In the text format.", {TEXT: {"type": "string"}})},
        problems=(errors.StorageUnavailable,),
    ),
    "GET /openapi.json": Operation(
        id="describe",
        summary="This description",
        tag=Tag.UPKEEP,
        access=Access.ANYONE,
        answers={200: shows({"type": "object"}, "OpenAPI 3.1.")},
    ),
}
