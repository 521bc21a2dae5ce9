"""What tasks have cost, and what accounts may spend."""

from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service import spending
from service.dashboard.doors import Visit, back_to, text_of
from service.dashboard.inside import ask
from service.dashboard.lists import filter_of
from service.dashboard.state import State
from service.domain.costs import Period, day_of, totals
from service.domain.errors import Forbidden, SearchTooWide
from storage import usage
from storage.usage import By

DIMENSIONS: Final[tuple[By, ...]] = ("day", "type", "provider")
MONTHS: Final = 12
MOST_ROWS: Final = 500


async def show(request: Request[State], visit: Visit) -> Response:
    return await _page(request, visit)


async def _page(
    request: Request[State],
    visit: Visit,
    *,
    faults: list[str] | None = None,
    values: dict[str, str] | None = None,
    status: int = 200,
    is_uncertain: bool = False,
) -> Response:
    state = request.state
    now = state["clock"]()
    months = _months(now)
    named = filter_of(request, "month", months) or months[0]
    by = filter_of(request, "by", DIMENSIONS) or "day"
    since = datetime.strptime(named, "%Y-%m").replace(tzinfo=UTC)
    dimension = next(each for each in DIMENSIONS if each == by)
    async with state["database"].searching(visit.account_id) as reader:
        try:
            found = await usage.spent(
                reader, visit.account_id, by=dimension, since=since, until=_next_month(since)
            )
            is_counted = True
        except SearchTooWide:  # a busy disk; the budgets are worth having
            found, is_counted = [], False
        stored = (
            await usage.budgets(reader)
            if visit.is_admin
            else await usage.budgets_of(reader, visit.account_id)
        )
        budgets = [await spending.standing_of(reader, each, now) for each in stored]
    return visit.render(
        request,
        "usage.html",
        status=status,
        month=named,
        months=months,
        by=by,
        dimensions=DIMENSIONS,
        spent=found[:MOST_ROWS],
        is_cut=len(found) > MOST_ROWS,
        totals=totals(found),
        is_counted=is_counted,
        budgets=budgets,
        periods=list(Period),
        faults=faults or [],
        is_uncertain=is_uncertain,
        values=values or {"account": "", "unit": "units", "period": "month", "limit": ""},
        done=request.query_params.get("done"),
    )


def _months(now: datetime) -> list[str]:
    """This one first."""
    first = day_of(now).replace(day=1)
    months: list[str] = []
    for _ in range(MONTHS):
        months.append(f"{first:%Y-%m}")
        first = (first - timedelta(days=1)).replace(day=1)
    return months


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=31)).replace(day=1)


async def put_budget(request: Request[State], visit: Visit, form: FormData) -> Response:
    given = {name: text_of(form, name) for name in ("account", "unit", "period", "limit")}
    if not given["limit"]:  # which to the API is the order to remove it
        return await _page(request, visit, faults=["A budget needs a limit."], values=given, status=422)
    return await _put(request, visit, given, done="changed")


async def remove_budget(request: Request[State], visit: Visit, form: FormData) -> Response:
    given = {name: text_of(form, name) for name in ("account", "unit", "period")}
    return await _put(request, visit, {**given, "limit": ""}, done="removed")


async def _put(request: Request[State], visit: Visit, given: dict[str, str], *, done: str) -> Response:
    body: dict[str, str | None] = {name: value for name, value in given.items() if value}
    body["limit"] = given["limit"] or None
    answer = await ask(request, visit.key, "PUT", "/v1/budgets", body=body)
    if answer.status == 403:
        raise Forbidden(answer.detail)
    if not answer.is_good:
        faults = [fault.detail for fault in answer.faults] or [answer.detail]
        return await _page(
            request,
            visit,
            faults=faults,
            values=given,
            status=answer.status,
            is_uncertain=answer.is_uncertain,
        )
    return back_to("/usage", done=done)
