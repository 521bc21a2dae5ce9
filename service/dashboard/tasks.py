"""Tasks: the gallery, and all that is known of one of them."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.doors import Visit, back_to
from service.dashboard.inside import ask
from service.dashboard.lists import ITEMS, cursor_of, filter_of, listed
from service.dashboard.names import EndpointNames
from service.dashboard.pictures import shown
from service.dashboard.state import State
from service.domain.deliveries import Delivery
from service.domain.errors import Conflict, NotFound
from service.domain.kept import archive_id
from service.domain.lifecycle import Status
from service.domain.task_types import TASK_TYPES
from service.domain.tasks import Task, Transition
from storage import deliveries, endpoints, events, tasks
from storage.database import Reader
from storage.deliveries import DeliveryFilter
from storage.tasks import TaskFilter

MOST_CHILDREN: Final = 100
MOST_CALLBACKS: Final = 50
MOST_EVENTS: Final = 200
MOST_DELIVERIES: Final = 200
LEAST_SHARE: Final = 3.0  # of a hundred: what took a moment is to be seen too
_TASK_ID: Final = re.compile(r"task_[0-9a-f]{32}")


async def index(request: Request[State], visit: Visit) -> Response:
    state = request.state
    status = filter_of(request, "status", list(Status))
    type = filter_of(request, "type", list(TASK_TYPES))
    named = filter_of(request, "external_task_id")
    if named is not None and _TASK_ID.fullmatch(named):
        async with state["database"].reading() as reader:
            if await tasks.get(reader, named, account_id=visit.account_id) is not None:
                return back_to(f"/tasks/{named}")
    wanted = TaskFilter(status=status, type=type, external_task_id=named)
    before = cursor_of(request, "task")
    async with state["database"].searching(visit.account_id) as reader:
        found = await tasks.page(reader, visit.account_id, wanted, before_id=before, limit=ITEMS + 1)
    filters = {"status": status, "type": type, "external_task_id": named}
    page = listed(found, filters, before=before)
    return visit.render(
        request,
        "tasks.html",
        page=page,
        cards=[(task, next(iter(shown(state, task)), None)) for task in page.items],
        filters=filters,
        filtered=any(filters.values()),
        statuses=list(Status),
        types=list(TASK_TYPES),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """How long a task was in a status."""

    status: Status
    since: datetime
    until: datetime | None  # None: it still is
    took: timedelta
    start: float  # of a hundred
    width: float


def stretches(task: Task, transitions: Sequence[Transition], now: datetime) -> list[Stretch]:
    """From its birth to its end, or to now. The last one of a task that has ended takes no time, and is left out."""
    moments = [(Status.QUEUED, task.created_at), *((each.after, each.at) for each in transitions)]
    ends: list[datetime | None] = [at for _, at in moments[1:]]
    ends.append(None)
    spans = [
        (status, since, until, (until or max(now, since)) - since)
        for (status, since), until in zip(moments, ends, strict=True)
        if not (status.is_terminal and until is None)
    ]
    total = sum((took.total_seconds() for *_, took in spans), 0.0) or 1.0
    widths = [max(took.total_seconds() / total * 100, LEAST_SHARE) for *_, took in spans]
    scale = 100 / sum(widths) if widths else 1
    drawn: list[Stretch] = []
    start = 0.0
    for (status, since, until, took), width in zip(spans, widths, strict=True):
        drawn.append(
            Stretch(status=status, since=since, until=until, took=took, start=start, width=width * scale)
        )
        start += width * scale
    return drawn


async def show(request: Request[State], visit: Visit) -> Response:
    state = request.state
    archive = archive_id(visit.account_id)
    async with state["database"].searching(visit.account_id) as reader:
        task = await found(reader, request, visit)
        transitions = await tasks.transitions(reader, task.id)
        children = await tasks.children(reader, task, limit=MOST_CHILDREN)
        callbacks = await tasks.latest_callbacks(reader, task.id, limit=MOST_CALLBACKS + 1)
        log = await events.of_task(reader, task.id, after_position=0, limit=MOST_EVENTS)
        wanted = DeliveryFilter(task_id=task.id, but_endpoint_id=archive)
        made = await deliveries.page(
            reader, visit.account_id, wanted, before_id=None, limit=MOST_DELIVERIES + 1
        )
        there = await endpoints.by_id(reader, {delivery.endpoint_id for delivery in made})
    by_event: defaultdict[str, list[Delivery]] = defaultdict(list)
    for delivery in reversed(made[:MOST_DELIVERIES]):
        by_event[delivery.event_id].append(delivery)
    now = state["clock"]()
    days = state["settings"].retention_days
    return visit.render(
        request,
        "task.html",
        task=task,
        outputs=shown(state, task),
        transitions=transitions,
        stretches=stretches(task, transitions, now),
        children=children,
        callbacks=callbacks[:MOST_CALLBACKS][::-1],
        most_callbacks=MOST_CALLBACKS if len(callbacks) > MOST_CALLBACKS else None,
        events=log,
        deliveries=by_event,
        # What happened until then may have gone to more than are shown.
        shown_since=made[-1].created_at if len(made) > MOST_DELIVERIES else None,
        kept_since=now - timedelta(days=days),
        kept="1 day" if days == 1 else f"{days} days",
        endpoint_name=EndpointNames(there, archive),
        is_provider_gone=task.provider not in state["providers"],
        can_refresh=task.status is not Status.QUEUED and (not task.status.is_terminal or task.lacks_outputs),
        done=request.query_params.get("done"),
    )


async def found(reader: Reader, request: Request[State], visit: Visit) -> Task:
    """
    Raises:
        NotFound: none, or another account's.
    """
    task_id = request.path_params["id"]
    task = await tasks.get(reader, task_id, account_id=visit.account_id)
    if task is None:
        raise NotFound(f"There is no task {task_id}.")
    return task


async def refresh(request: Request[State], visit: Visit, form: FormData) -> Response:
    task_id: Any = request.path_params["id"]
    async with request.state["database"].reading() as reader:
        task = await found(reader, request, visit)
    answer = await ask(request, visit.key, "POST", f"/v1/tasks/{task.id}/refresh")
    if not answer.is_good:
        raise Conflict(answer.detail)
    return back_to(f"/tasks/{task_id}", done="refreshed")
