"""One example of each answer, made by the same code that makes the answers."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic_core import from_json

from service.api.endpoints import ROTATION_OVERLAP
from service.api.problems import problem_of
from service.domain.bots import Allowed, Bot
from service.domain.costs import UNITS, Budget, Charge, Period, Spent
from service.domain.costs import Standing as BudgetStanding
from service.domain.deliveries import ANSWERED, Attempt, AttemptOutcome, Delivery, DeliveryStatus
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault, Unprocessable
from service.domain.events import EventType, budget_event, endpoint_event, output_event, task_event
from service.domain.explanations import Standing, explain
from service.domain.expressions import Steps
from service.domain.ids import AccountId, BotId, CallbackId, DeliveryId, EndpointId, EventId, KeyId, TaskId
from service.domain.kept import FileRole, KeptFile, stored
from service.domain.lifecycle import Status, Verdict
from service.domain.links import Links
from service.domain.secrets import FileSignatures, PushKeys
from service.domain.task_types import SHOWN, SHOWN_BEFORE
from service.domain.tasks import Child, Output, OutputKind, Task, Transition
from service.domain.times import rfc3339
from service.settings import ProviderName
from storage.keys import ApiKey, KeyRole
from storage.tasks import StoredCallback

_AT: Final = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)
_DONE: Final = _AT + timedelta(seconds=72, milliseconds=340)
_ACCOUNT: Final = AccountId("acc_019aa93ebcc07e1186a2f0c1d2e3f401")
_TASK: Final = TaskId("task_019aa93ebcc07e1186a2f0c1d2e3f402")
_CHILD: Final = TaskId("task_019aa93fd7547e1186a2f0c1d2e3f408")
_EVENT: Final = EventId("evt_019aa93fd7547e1186a2f0c1d2e3f403")
_ENDPOINT: Final = EndpointId("end_019aa93ebcc07e1186a2f0c1d2e3f404")
_DELIVERY: Final = DeliveryId("dlv_019aa93fd7547e1186a2f0c1d2e3f405")
_BOT: Final = BotId("bot_019aa93ebcc07e1186a2f0c1d2e3f409")
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="  # noqa: S105 - an example

_task: Final = Task(
    id=_TASK,
    account_id=_ACCOUNT,
    type=SHOWN.name,
    provider=ProviderName.COMETAPI,
    status=Status.SUCCEEDED,
    input={
        "image_list": [{"image": "https://example.com/cat.png"}, {"image": "https://example.com/hat.png"}],
        "model_name": "kling-v1-6",
        "prompt": "The cat puts on the hat and bows",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "16:9",
    },
    external_task_id="order-1042",
    provider_external_id="order-1042",
    provider_task_id="881203390284693504",
    metadata={"customer": "7"},
    outputs=(
        Output(
            kind=OutputKind.VIDEO,
            index=0,
            url="https://example.com/out.mp4",
            id="5c1d",
            duration_s=5.1,
            expires_at=_DONE + timedelta(days=30),
        ),
    ),
    cost=(Charge(amount=Decimal("4.5"), unit=UNITS),),
    sequence=3,
    created_at=_AT,
    updated_at=_DONE,
    submitted_at=_AT + timedelta(milliseconds=610),
    finished_at=_DONE,
    deadline_at=_AT + timedelta(hours=1),
)
_bot: Final = Bot(
    id=_BOT,
    account_id=_ACCOUNT,
    platform="mattermost",
    config={"server": "https://chat.example.com", "command_token": "••••", "bot_token": "••••"},
    credentials=None,
    allow=[Allowed(chat="4xp9fdt77pncbef59f4k1qe83o")],
    open_tasks=3,
    description="the shop's channel",
    created_at=_AT,
    updated_at=_AT,
)
_STORED: Final = _DONE + timedelta(seconds=2)
_file: Final = KeptFile(
    name="44791a8d2f12c146f968e88dc2947628a8499c25.mp4",
    account_id=_ACCOUNT,
    task_id=_TASK,
    place=0,
    role=FileRole.OUTPUT,
    content_type="video/mp4",
    size=5_318_422,
    sha256="8bcaebcc5a30cb2a5fcf97835596a120d93cf4c5715cedeb060c8222980811d4",
    created_at=_STORED,
)
_links: Final = Links(
    FileSignatures(["an example"]), base_url="https://klingel.example.com", clock=lambda: _STORED
)
_kept: Final = _links.shown(stored(_task, [_file], _STORED))
_transition: Final = Transition(before=Status.PROCESSING, after=Status.SUCCEEDED, at=_DONE, sequence=3)
_endpoint: Final = Endpoint(
    id=_ENDPOINT,
    account_id=_ACCOUNT,
    task_id=None,
    kind="webhook",
    config={"url": "https://example.com/hooks/klingel", "format": "standard"},
    description="the shop's backend",
    created_at=_AT,
    updated_at=_AT,
)
_delivery: Final = Delivery(
    id=_DELIVERY,
    account_id=_ACCOUNT,
    event_id=_EVENT,
    event_type=EventType.TASK_SUCCEEDED,
    task_id=_TASK,
    endpoint_id=_ENDPOINT,
    status=DeliveryStatus.DELIVERED,
    attempts=1,
    next_attempt_at=None,
    reason="answered 204",
    created_at=_DONE,
    finished_at=_DONE + timedelta(milliseconds=48),
)
_attempt: Final = Attempt(
    delivery_id=_DELIVERY,
    number=1,
    started_at=_DONE,
    duration_ms=46,
    status_code=204,
    outcome=AttemptOutcome.DELIVERED,
    reason=ANSWERED,
    excerpt="",
)
_callback: Final = StoredCallback(
    id=CallbackId("cbk_019aa93fd7547e1186a2f0c1d2e3f406"),
    task_id=_TASK,
    provider=ProviderName.COMETAPI,
    received_at=_DONE,
    verdict=Verdict.ADVANCED,
    reason=None,
    body=b'{"task_id":"881203390284693504","task_status":"succeed"}',
)
_key: Final = ApiKey(
    id=KeyId("key_019aa93ebcc07e1186a2f0c1d2e3f407"),
    account_id=_ACCOUNT,
    account_name="shop",
    name="the shop's backend",
    role=KeyRole.MEMBER,
    hint="Zk3A",
    created_at=_AT,
)

_budget: Final = BudgetStanding(
    budget=Budget(account="shop", unit="units", period=Period.MONTH, limit=Decimal(1000)),
    spent=Decimal("1002.5"),
    since=Period.MONTH.begin(_AT),
    until=Period.MONTH.end(_AT),
)
_spent: Final = Spent(value="2026-11-22", unit="units", amount=Decimal("42.5"), tasks=9)

_event: Final = task_event(EventType.TASK_SUCCEEDED, _task, _transition, _DONE)
_explanation: Final = explain(
    _event,
    Standing(_endpoint, subscribed_at=_AT, deleted_at=None),
    _event.content(),
    Steps(0),
    delivery=_delivery,
    deliveries=1,
)

_detail: Final = _task.view() | {
    "input": dict(_task.input),
    "transitions": [_transition.view()],
    "children": [Child(id=_CHILD, type=SHOWN.name, status=Status.PROCESSING).view()],
}
_shown_delivery: Final = _delivery.view()

_FOLLOWING: Final = {
    "prompt": "They come alive: {{ data.task.external_task_id }}",
    "image_list": {"$": "data.task.outputs[:4].{image: url}"},
}

# By the names of the components; those of submits stand with the input models.
BODY_EXAMPLES: Final[Mapping[str, Any]] = {
    "WebhookConfig": dict(_endpoint.config),
    "EndpointBody.webhook": {
        "config": dict(_endpoint.config),
        "types": [EventType.TASK_SUCCEEDED, EventType.TASK_FAILED],
        "filter": "data.task.metadata.customer == '7'",
    },
    "EndpointBody.task": {
        "kind": "task",
        "filter": f"data.task.type == '{SHOWN_BEFORE.name}'",
        "config": {"submit": {"type": SHOWN.name, "input": _FOLLOWING}},
    },
    "FollowUpBody": {
        "on": EventType.TASK_SUCCEEDED,
        "submit": {"type": SHOWN.name, "input": _FOLLOWING},
    },
    "EndpointBody.ntfy": {"kind": "ntfy", "config": {"topic": "shop-videos"}, "rate_per_minute": 12},
    "EndpointBody.mattermost": {
        "kind": "mattermost",
        "config": {"webhook_url": "https://chat.example.com/hooks/7w6ygs3x7jbpdfpmskmk7q1cda"},
    },
    "BotBody.mattermost": {
        "platform": "mattermost",
        "config": {
            "server": "https://chat.example.com",
            "command_token": "gr4u5hp1rjg1mxm9gcqo8x5c1e",
            "bot_token": "q4k8o7p5zjdpdnnm8ecqrxcbde",
        },
        "allow": [{"chat": "4xp9fdt77pncbef59f4k1qe83o"}],
    },
    "BotPatch": {"allow": [{"user": "c3a4cqe3dfy6dgopqt8ai3hydh"}], "open_tasks": 5},
    "EndpointPatch": {"enabled": False},
    "ReplayBody": {"since": rfc3339(_AT)},
    "KeyBody": {"name": _key.name, "account": _key.account_name},
    "BudgetBody": {"account": "shop", "unit": "units", "period": "month", "limit": "1000"},
}
EXAMPLES: Final[Mapping[str, Any]] = {
    "Task": _task.view(),
    "TaskDetail": _detail,
    "SubmittedTask": _detail | {"endpoints": [{"id": _ENDPOINT, "kind": "webhook", "secret": _SECRET}]},
    "RefreshedTask": _detail | {"refresh": Verdict.DUPLICATE},
    "Callback": _callback.view(),
    "Endpoint": _endpoint.view(),
    "CreatedEndpoint": _endpoint.view() | {"secret": _SECRET},
    "WebPushKey": {"public_key": PushKeys([_SECRET]).public},
    "RotatedSecret": {
        "id": _ENDPOINT,
        "secret": _SECRET,
        "former_secrets_end_at": rfc3339(_AT + ROTATION_OVERLAP),
    },
    "Delivery": _shown_delivery,
    "DeliveryDetail": _shown_delivery | {"attempt_count": 1, "attempts": [_attempt.view()]},
    "Explanation": _explanation.view(),
    "SentTest": {"event_id": _EVENT, "delivery": _shown_delivery},
    "Replayed": {"replayed": 3},
    "TaskEvent": _event.content() | {"id": _EVENT},
    "OutputEvent": output_event(EventType.OUTPUT_STORED, _kept, 0, _STORED, file=_file.view()).content()
    | {"id": _EVENT},
    "EndpointEvent": endpoint_event(
        EventType.ENDPOINT_TEST, _ACCOUNT, {"endpoint": _endpoint.view()}, _DONE
    ).content()
    | {"id": _EVENT},
    "BudgetEvent": budget_event(_ACCOUNT, _budget, _DONE).content() | {"id": _EVENT},
    "Budget": _budget.view(),
    "BudgetList": {"items": [_budget.view()]},
    "Usage": {
        "from": "2026-11-01",
        "to": "2026-11-30",
        "by": "day",
        "items": [_spent.view()],
        "truncated": False,
        "totals": [{"unit": "units", "amount": "42.5", "tasks": 9}],
    },
    "Bot": _bot.view() | {"url": f"https://klingel.example.com{_bot.path}"},
    "ApiKey": _key.view(),
    "CreatedApiKey": _key.view() | {"key": "kl_7f0v3d0nQbQ2m1pXq5h8sJtLrWyZk3A"},
    "Problem": from_json(
        bytes(
            problem_of(
                Unprocessable(
                    "The task has faults; nothing was sent.",
                    faults=[Fault('"prompt" is required.', "#/input/prompt")],
                )
            ).body
        )
    ),
}
