"""What answers show: the domain's views, as types from which their JSON Schemas are made.

A test holds them against real answers, field by field.
"""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeAliasType, TypedDict

from service.api.tasks import MOST_CHILDREN
from service.api.usage import MOST_ITEMS
from service.domain.costs import UNIT, Period
from service.domain.deliveries import AttemptOutcome, DeliveryStatus
from service.domain.events import ON_ARRIVAL, EventType
from service.domain.explanations import Cause
from service.domain.ids import id_pattern
from service.domain.lifecycle import Status, Verdict
from service.domain.task_types import TASK_TYPES, Confidence, Layout, Standard
from service.domain.tasks import OutputKind
from storage.keys import KeyRole


def id_schema(prefix: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{id_pattern(prefix)}$"}


MOMENT: Final = {"type": "string", "format": "date-time", "description": "UTC, to the millisecond"}
TASK_EVENTS: Final = (*ON_ARRIVAL.values(), EventType.TASK_OVERDUE, EventType.TASK_OUTPUTS_ADDED)
OUTPUT_EVENTS: Final = (EventType.OUTPUT_STORED, EventType.OUTPUT_EXPIRING)
ENDPOINT_EVENTS: Final = (EventType.ENDPOINT_DISABLED, EventType.ENDPOINT_TEST)
BUDGET_EVENTS: Final = (EventType.BUDGET_EXCEEDED,)

Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Moment = Annotated[str, WithJsonSchema(MOMENT)]
TaskId = Annotated[str, WithJsonSchema(id_schema("task"))]
EventId = Annotated[str, WithJsonSchema(id_schema("evt"))]
EndpointId = Annotated[str, WithJsonSchema(id_schema("end"))]
DeliveryId = Annotated[str, WithJsonSchema(id_schema("dlv"))]
CallbackId = Annotated[str, WithJsonSchema(id_schema("cbk"))]
KeyId = Annotated[str, WithJsonSchema(id_schema("key"))]
BotId = Annotated[str, WithJsonSchema(id_schema("bot"))]
TaskTypeName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TASK_TYPES)})]
EventSequence = Annotated[int, Field(ge=1, description="counts a task's events from 1 without gaps")]
PublicKey = Annotated[
    str,
    Field(
        pattern="^whpk_[A-Za-z0-9+/]{43}=$",
        description="if `config.signature` is `v1a`, where the endpoint is read; in no event",
    ),
]
Secret = Annotated[str, Field(pattern="^whsec_", description="shown this once; signs deliveries")]


class Output(TypedDict):
    """One thing that a task made, where the provider keeps it. What is not known is left out."""

    kind: OutputKind
    index: int
    url: str
    id: NotRequired[Annotated[str, Field(description="the provider's own")]]
    duration_s: NotRequired[float]
    watermark_url: NotRequired[str]
    wav_url: NotRequired[Annotated[str, Field(description="of a sound that comes as MP3 and as WAV")]]
    group: NotRequired[Annotated[str, Field(description="the series that a picture belongs to")]]
    expires_at: NotRequired[Annotated[Moment, Field(description="when the provider drops it")]]
    stored_url: NotRequired[Annotated[str, Field(description="Klingel's own copy, for whoever has the link")]]
    poster_url: NotRequired[Annotated[str, Field(description="the first frame of a video, as a small JPEG")]]
    thumbnail_url: NotRequired[Annotated[str, Field(description="a picture, as a small JPEG")]]


class TaskError(TypedDict):
    """The code is the provider's where it gave one, else Klingel's own word."""

    code: str
    message: str


Amount = Annotated[
    str, Field(pattern=r"^[0-9]{1,10}(\.[0-9]{1,18})?$", description="an exact decimal number, as text")
]
Unit = Annotated[
    str,
    Field(
        pattern=f"^{UNIT.pattern}$",
        description="`units` of resource packs, `balance`, or a currency; a cash amount from a test balance is "
        "`test_` and its currency",
    ),
]


class Charge(TypedDict):
    """What a provider has taken for a task. What is not known is left out."""

    amount: Amount
    unit: Unit
    list_price: NotRequired[Annotated[Amount, Field(description="what it would be without a discount")]]
    package: NotRequired[Annotated[str, Field(description="of which kind of resource pack")]]


Transition = TypedDict("Transition", {"from": Status, "to": Status, "at": Moment})


class Task(TypedDict):
    """The same in lists and in events."""

    id: TaskId
    type: TaskTypeName
    status: Status
    provider: Annotated[
        str,
        Field(description="the account there: `cometapi`, `kling`, `sandbox`, or a name of the operator's"),
    ]
    provider_task_id: str | None
    external_task_id: Annotated[str, Field(description="the caller's, or else the task's own id")]
    metadata: dict[str, Any]
    parent_id: Annotated[TaskId | None, Field(description="the task that it follows from")]
    outputs: list[Output]
    error: TaskError | None
    cost: Annotated[
        list[Charge] | None, Field(description="empty: nothing was taken; null: the provider has not said")
    ]
    created_at: Moment
    updated_at: Moment
    submitted_at: Moment | None
    finished_at: Moment | None
    deadline_at: Moment
    overdue_at: Moment | None


class Child(TypedDict):
    """A task that a follow-up made."""

    id: TaskId
    type: TaskTypeName
    status: Status


class TaskDetail(Task):
    """One task: also its input, Base64 pictures as references to their bytes, its transitions, and its children."""

    waits_for: NotRequired[
        Annotated[
            str, Field(description="why its create cannot go out: its account has left the providers' file")
        ]
    ]
    input: dict[str, Any]
    transitions: list[Transition]
    children: Annotated[
        list[Child], Field(max_length=MOST_CHILDREN, description="the oldest ones, if there are more")
    ]


class BoundEndpoint(TypedDict):
    """An endpoint that gets the events of one task."""

    id: EndpointId
    kind: str
    secret: Secret


class SubmittedTask(TaskDetail):
    """`endpoints` only where the submit bound some."""

    endpoints: NotRequired[list[BoundEndpoint]]


class RefreshedTask(TaskDetail):
    """`refresh` says what became of the provider's answer."""

    refresh: Verdict


class Callback(TypedDict):
    """What a provider sent, and what became of it."""

    id: CallbackId
    received_at: Moment
    verdict: Verdict
    reason: str | None
    body: Annotated[str, Field(description="as it came; bytes that are no UTF-8 are replaced")]


class Endpoint(TypedDict):
    """Where events go, and which."""

    id: EndpointId
    task_id: Annotated[TaskId | None, Field(description="the only task whose events it gets")]
    kind: str
    config: Annotated[
        dict[str, Any], Field(description="as given, but for its secret parts, which are masked")
    ]
    types: list[str]
    filter: str | None
    description: str | None
    rate_per_minute: Annotated[
        int | None, Field(description="attempts that begin within a minute, at most; null is no limit")
    ]
    enabled: bool
    disabled_reason: str | None
    failures: Annotated[int, Field(ge=0, description="attempts that failed in a row")]
    failing_since: Moment | None
    created_at: Moment
    updated_at: Moment
    public_key: NotRequired[PublicKey]


class CreatedEndpoint(Endpoint):
    secret: Secret


class WebPushKey(TypedDict):
    """An uncompressed point on P-256, in unpadded base64url."""

    public_key: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{87}$")]


class RotatedSecret(TypedDict):
    id: EndpointId
    secret: Secret
    former_secrets_end_at: Annotated[Moment, Field(description="until then both sign")]
    public_key: NotRequired[PublicKey]


class _Delivery(TypedDict):
    id: DeliveryId
    event_id: EventId
    event_type: EventType
    task_id: TaskId | None
    endpoint_id: EndpointId
    status: DeliveryStatus
    next_attempt_at: Moment | None
    replay_of: DeliveryId | None
    reason: Annotated[str | None, Field(description="how the last attempt ended")]
    created_at: Moment
    finished_at: Moment | None


class Delivery(_Delivery):
    """The duty to get one event to one endpoint."""

    attempts: Annotated[int, Field(ge=0)]


class Attempt(TypedDict):
    number: Annotated[int, Field(ge=1)]
    started_at: Moment
    duration_ms: Annotated[int, Field(ge=0)]
    status_code: Annotated[int | None, Field(description="null when there was no answer")]
    outcome: AttemptOutcome
    reason: str
    response_excerpt: str


class DeliveryDetail(_Delivery):
    attempt_count: Annotated[int, Field(ge=0)]
    attempts: list[Attempt]


class ExplainedEndpoint(Endpoint):
    """As it is now, or was when it was deleted."""

    subscribed_at: Annotated[
        Moment, Field(description="since when its types, its filter, and whether it is enabled are these")
    ]
    deleted_at: Moment | None


class Explanation(TypedDict):
    """Why an endpoint got an event, or did not."""

    endpoint: ExplainedEndpoint
    sent: Annotated[bool, Field(description="whether a delivery was made")]
    reason: Cause
    detail: Annotated[str, Field(description="the reason, for a person")]
    filter_result: Annotated[
        str | None, Field(description="the filter's value over the event as JSON, cut where it is long")
    ]
    filter_error: Annotated[str | None, Field(description="why the filter could not be evaluated")]
    delivery: Annotated[Delivery | None, Field(description="the newest")]
    replays: Annotated[int, Field(ge=0, description="deliveries before it")]


class SentTest(TypedDict):
    event_id: EventId
    delivery: Delivery


class Replayed(TypedDict):
    replayed: Annotated[int, Field(ge=0, description="how many deliveries were made")]


class TaskEventData(TypedDict):
    task: Task
    transition: Annotated[
        Transition | None,
        Field(description="null for what changes no status: `task.overdue`, `task.outputs_added`"),
    ]


class TaskEvent(TypedDict):
    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(TASK_EVENTS)})]
    timestamp: Moment
    sequence: EventSequence
    data: TaskEventData


class File(TypedDict):
    """A kept output: `GET /v1/files/{name}`."""

    name: str
    size: Annotated[int, Field(ge=1, description="bytes")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    content_type: Annotated[str, Field(description="as its bytes say")]


class OutputEventData(TypedDict):
    task: Task
    output: Annotated[Output, Field(description="the one of them that it is about")]
    file: NotRequired[Annotated[File, Field(description="for `output.stored`: the copy that was made")]]


class OutputEvent(TypedDict):
    """An output was kept, or is about to be lost at the provider and could not be."""

    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(OUTPUT_EVENTS)})]
    timestamp: Moment
    sequence: EventSequence
    data: OutputEventData


class EndpointEventData(TypedDict):
    endpoint: Endpoint
    message: NotRequired[str]


class EndpointEvent(TypedDict):
    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(ENDPOINT_EVENTS)})]
    timestamp: Moment
    sequence: None
    data: EndpointEventData


class Budget(TypedDict):
    """How much of a unit an account may spend, and how it stands. Periods begin and end in UTC."""

    account: Annotated[str, Field(description="its name")]
    unit: Unit
    period: Period
    limit: Amount
    spent: Annotated[Amount, Field(description="in this period, by tasks that have ended")]
    exceeded: Annotated[bool, Field(description="whether submits are refused")]
    since: Annotated[Moment | None, Field(description="when this period began; null for `total`")]
    until: Annotated[Moment | None, Field(description="when the next one begins; null for `total`")]


class BudgetList(TypedDict):
    items: list[Budget]


class Spent(TypedDict):
    """A sum of what tasks have cost, in one unit."""

    value: Annotated[
        str | None,
        Field(description="a day, a type, a provider, or a metadata value; null for tasks without one"),
    ]
    unit: Unit
    amount: Amount
    tasks: Annotated[int, Field(ge=1, description="how many were charged for in this unit")]


class Total(TypedDict):
    """Of all that was asked for, in one unit."""

    unit: Unit
    amount: Amount
    tasks: Annotated[int, Field(ge=1)]


Usage = TypedDict(
    "Usage",
    {
        "from": Day,
        "to": Annotated[Day, Field(description="counted in")],
        "by": str,
        "items": Annotated[list[Spent], Field(max_length=MOST_ITEMS)],
        "truncated": Annotated[bool, Field(description="whether there are more items than are shown")],
        "totals": Annotated[
            list[Total], Field(description="one for each unit: they are never added together")
        ],
    },
)


class BudgetEventData(TypedDict):
    budget: Budget


class BudgetEvent(TypedDict):
    """An account has spent a budget; said once in each period."""

    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(BUDGET_EVENTS)})]
    timestamp: Moment
    sequence: None
    data: BudgetEventData


Event = TypeAliasType("Event", TaskEvent | OutputEvent | EndpointEvent | BudgetEvent)


class Allowed(TypedDict):
    """Everyone to whom all that is given applies, by the platform's ids."""

    workspace: NotRequired[Annotated[str, Field(description="team, guild or tenant")]]
    chat: NotRequired[Annotated[str, Field(description="channel or conversation")]]
    user: NotRequired[str]


class Bot(TypedDict):
    """By which people in a chat submit tasks, and who of them may."""

    id: BotId
    platform: str
    url: Annotated[str, Field(description="where the platform is to send what people say")]
    config: Annotated[
        dict[str, Any], Field(description="as given, but for its secret parts, which are masked")
    ]
    allow: Annotated[list[Allowed], Field(description="whom it obeys; nobody while it is empty")]
    open_tasks: Annotated[int, Field(ge=1, description="of one person at a time")]
    description: str | None
    created_at: Moment
    updated_at: Moment


class ApiKey(TypedDict):
    id: KeyId
    name: str
    account: str
    role: KeyRole
    hint: Annotated[str, Field(description="its last four characters")]
    created_at: Moment
    revoked_at: Moment | None


class CreatedApiKey(ApiKey):
    key: Annotated[str, Field(description="shown this once")]


class Fault(TypedDict):
    detail: str
    pointer: Annotated[
        str,
        WithJsonSchema({"type": "string", "format": "uri-reference", "pattern": "^#(/.*)?$"}),
        Field(description="RFC 6901, in URI fragment form"),
    ]


class Problem(TypedDict):
    """RFC 9457."""

    type: Annotated[str, Field(description="`/problems/…`, or `about:blank` where the status says it all")]
    title: str
    status: int
    detail: str
    errors: NotRequired[Annotated[list[Fault], Field(description="every fault of the request")]]
    task_id: NotRequired[Annotated[TaskId, Field(description="the task that is there already")]]
    task: NotRequired[Annotated[Task, Field(description="what is kept of a refused submit")]]
    provider_code: NotRequired[Annotated[str, Field(description="the provider's own code of its refusal")]]
    budgets: NotRequired[Annotated[list[Budget], Field(description="those with nothing left")]]
    limit_bytes: NotRequired[int]
    retry_after_s: NotRequired[int]


class _Page(TypedDict):
    next_cursor: Annotated[
        str | None, Field(description="the `cursor` of the next page; null on the last one")
    ]


class KnownFact(TypedDict):
    """Something that is known of the provider, from where, and who vouches for it."""

    text: str
    source: str
    confidence: Confidence


class TypePath(TypedDict):
    """Where a provider takes it."""

    layout: Layout
    path: Annotated[str | None, Field(description="with `{model}` in it where the standard has it there")]
    standard: Standard
    source: str
    confidence: Confidence


class TypeModel(TypedDict):
    name: str
    retired: bool


class TaskTypeView(TypedDict):
    """A type of task."""

    name: TaskTypeName
    summary: str
    makes: Annotated[list[OutputKind], Field(description="empty where that is known only when it is there")]
    places: Annotated[str, Field(description="how many of the provider's parallel places it takes")]
    deadline_s: Annotated[
        float, Field(description="after which it is overdue, where the submit says nothing")
    ]
    paths: list[TypePath]
    models: Annotated[list[TypeModel], Field(description="that are known; others are passed on")]
    retired: Annotated[KnownFact | None, Field(description="why the provider no longer has it")]
    notes: list[KnownFact]
    input_schema: Annotated[dict[str, Any], Field(description="JSON Schema of `input`")]
    examples: list[dict[str, Any]]


class TaskTypePage(_Page):
    items: list[TaskTypeView]


class TaskPage(_Page):
    items: list[Task]


class TaskEventPage(_Page):
    items: list[TaskEvent | OutputEvent]


class EventPage(_Page):
    items: list[Event]


class CallbackPage(_Page):
    items: list[Callback]


class EndpointPage(_Page):
    items: list[Endpoint]


class DeliveryPage(_Page):
    items: list[Delivery]


class ExplanationPage(_Page):
    items: list[Explanation]


class BotPage(_Page):
    items: list[Bot]


class ApiKeyPage(_Page):
    items: list[ApiKey]


class Liveness(TypedDict):
    status: Literal["alive"]


class Readiness(TypedDict):
    status: Literal["ready", "not ready"]
    checks: Annotated[
        dict[str, str], Field(description="`ok`, `stopped` or `failing`, for each part of this process")
    ]
