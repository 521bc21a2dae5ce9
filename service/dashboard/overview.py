"""The first page: how things are."""

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from service.dashboard import charts
from service.dashboard.doors import Visit
from service.dashboard.rendering import show_milliseconds
from service.dashboard.state import State
from service.domain.errors import SearchTooWide
from service.domain.lifecycle import Status
from storage import endpoints, overview, tasks
from storage.tasks import TaskFilter

HOURS: Final = 24
SPAN: Final = timedelta(hours=1)
LATEST: Final = 6
# Statuses that look alike from afar, from the bottom of a bar up.
GROUPS: Final = {
    "succeeded": (Status.SUCCEEDED,),
    "failed": (Status.FAILED, Status.REJECTED),
    "open": (Status.QUEUED, Status.SUBMITTED, Status.PROCESSING, Status.UNCONFIRMED),
}


async def show(request: Request[State], visit: Visit) -> Response:
    state = request.state
    now = state["clock"]()
    start = now.replace(minute=0, second=0, microsecond=0) - (HOURS - 1) * SPAN
    account_id = visit.account_id
    async with state["database"].searching(account_id) as reader:
        latest = await tasks.page(reader, account_id, TaskFilter(), before_id=None, limit=LATEST)
        wired = await endpoints.page(reader, account_id, before_id=None, limit=1)
        dead = await overview.count_dead(reader, account_id)
        due = await overview.oldest_due(reader, account_id, now=now)
    try:
        async with state["database"].searching(account_id) as reader:
            counted = await overview.tasks_over_time(reader, account_id, since=start, span=SPAN)
            took = await overview.delivered(reader, account_id, since=start)
    except SearchTooWide:  # a busy disk; the rest of the page is worth having
        counted, took, is_counted = {}, [], False
    else:
        is_counted = True
    buckets = [
        {
            group: number
            for group, statuses in GROUPS.items()
            if (number := sum(counted.get(hour, {}).get(status, 0) for status in statuses))
        }
        for hour in range(HOURS)
    ]
    usual, slow = charts.percentiles(took, start=start, span=SPAN, count=HOURS, shares=(0.5, 0.95))
    ordered = sorted(each.ms for each in took)
    return visit.render(
        request,
        "overview.html",
        latest=latest,
        has_endpoints=bool(wired),
        dead=dead,
        most_dead=overview.MOST_DEAD,
        due=due,
        is_counted=is_counted,
        # Of more than these the latest are looked at.
        most_tasks=sum(map(sum, (each.values() for each in counted.values()))) >= overview.MOST_TASKS,
        by_status={
            status: sum(counted.get(hour, {}).get(status, 0) for hour in range(HOURS)) for status in Status
        },
        usual_ms=ordered[len(ordered) // 2] if ordered else None,
        slow_ms=ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)] if ordered else None,
        tasks_chart=charts.stacked(
            buckets, list(GROUPS), start=start, span=SPAN, what="Tasks of the last 24 hours"
        ),
        latency_chart=charts.lined(
            {"half took at most": usual, "95 % took at most": slow},
            start=start,
            span=SPAN,
            what="From callback to delivery",
            show=show_milliseconds,
        ),
    )
