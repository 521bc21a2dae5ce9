"""`/v1/usage` and `/v1/budgets`: what tasks have cost, and what accounts may spend."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal, get_args

from anyio.to_thread import run_sync
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import spending
from service.api.auth import authenticate, authenticate_admin
from service.api.keys import ACCOUNT_NAME
from service.api.pages import Query
from service.api.state import State
from service.domain.costs import KNOWN_UNITS, UNIT, Budget, Period, Spent, day_of, totals
from service.domain.errors import Fault, Forbidden, NotFound, Unprocessable
from service.domain.faults import PREDICATE, accept, collecting
from service.domain.ids import AccountId
from service.domain.models import StrictModel
from service.domain.times import rfc3339
from service.doors.bodies import parse_json, read_body
from storage import keys, usage
from storage.database import Database, Transaction
from storage.keys import ApiKey, KeyRole
from storage.usage import By

METADATA: Final = "metadata."
LAST_DAY: Final = day_of(datetime.max.replace(tzinfo=UTC))
MOST_ITEMS: Final = 10_000


LIMIT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")  # more decimals are not added up


def _limit(text: str) -> str:
    if not LIMIT.fullmatch(text):
        raise PydanticCustomError(
            PREDICATE,
            "must be a decimal number as text, with at most 9 digits before the point and 9 behind it",
        )
    return text


LIMIT_SCHEMA: Final = {"type": "string", "pattern": f"^{LIMIT.pattern}$"}


class BudgetBody(StrictModel):
    """How much of a unit an account may spend in a period."""

    model_config = ConfigDict(
        # Of any other unit a budget can only be taken away.
        json_schema_extra={
            "anyOf": [
                {"properties": {"unit": {"enum": list(KNOWN_UNITS)}}},
                {"properties": {"limit": {"type": "null"}}},
            ]
        },
    )

    account: str | None = Field(None, pattern=ACCOUNT_NAME, description="whose; else the caller's own")
    unit: str = Field(
        "units", pattern=f"^{UNIT.pattern}$", description="as costs have it: " + ", ".join(KNOWN_UNITS)
    )
    period: Literal["day", "month", "total"] = Field("month", description="in UTC; then it begins anew")
    limit: Annotated[str, AfterValidator(_limit), WithJsonSchema(LIMIT_SCHEMA)] | None = Field(
        description="a decimal number as text; 0 lets nothing through; null takes the budget away",
        examples=["1000"],
    )


async def show(request: Request[State]) -> Response:
    """Of tasks that have ended, on the day (UTC) on which they did. Amounts of different units are never added together."""
    key = await authenticate(request)
    state = request.state
    now = state["clock"]()
    query = Query(request, known=("from", "to", "by", "account"))
    since = query.day("from") or day_of(now).replace(day=1)
    to = query.day("to") or max(day_of(now), since)
    by = "day" if (given := query.text("by")) is None else given
    if by not in get_args(By) and not (by.startswith(METADATA) and len(by) > len(METADATA)):
        query.fault("by", f"It must be one of {', '.join(get_args(By))}, or {METADATA}<key>.")
    if to < since:
        query.fault("to", "It must not be before `from`.")
    name = query.text("account")
    query.check()
    account_id = await _account(state["database"], key, name)
    until = to + timedelta(days=1) if to < LAST_DAY else LAST_DAY
    async with state["database"].searching(key.account_id) as reader:
        if by.startswith(METADATA):
            found = await usage.spent_by_metadata(
                reader, account_id, key=by.removeprefix(METADATA), since=since, until=until
            )
        else:
            dimension = next(each for each in get_args(By) if each == by)
            found = await usage.spent(reader, account_id, by=dimension, since=since, until=until)
    asked = {"from": rfc3339(since)[:10], "to": rfc3339(to)[:10], "by": by}
    return await run_sync(_answer, asked, found)  # it may have as many items as there are tasks


def _answer(asked: dict[str, str], found: Sequence[Spent]) -> Response:
    return JSONResponse(
        {
            **asked,
            "items": [each.view() for each in found[:MOST_ITEMS]],
            "truncated": len(found) > MOST_ITEMS,
            "totals": [_total(each) for each in totals(found)],
        }
    )


def _total(each: Spent) -> dict[str, object]:
    return {name: value for name, value in each.view().items() if name != "value"}


async def budgets(request: Request[State]) -> Response:
    """An admin sees those of all accounts, others their own."""
    key = await authenticate(request)
    query = Query(request, known=())
    query.check()
    now = request.state["clock"]()
    async with request.state["database"].searching(key.account_id) as reader:
        stored = (
            await usage.budgets(reader)
            if key.role is KeyRole.ADMIN
            else await usage.budgets_of(reader, key.account_id)
        )
        found = [await spending.standing_of(reader, each, now) for each in stored]
    return JSONResponse({"items": [standing.view() for standing in found]})


def _budget(raw: object) -> BudgetBody:
    """
    Raises:
        Unprocessable: with every fault.
    """
    faults: list[Fault] = []
    body: BudgetBody | None = None
    with collecting(faults):
        body = accept(BudgetBody, raw)
    fields = raw if isinstance(raw, dict) else {}
    unit = fields.get("unit")
    # One that is there can be taken away, whatever its unit.
    is_taken_away = fields.get("limit") is None
    if isinstance(unit, str) and re.fullmatch(UNIT, unit) and unit not in KNOWN_UNITS and not is_taken_away:
        faults.append(Fault(f'"unit" must be one of {", ".join(KNOWN_UNITS)}.', "#/unit"))
    if faults or body is None:
        raise Unprocessable("The body has faults.", faults=faults)
    return body


async def put_budget(request: Request[State]) -> Response:
    """One budget for each account, unit and period; with `limit: null` there is none. From the next submit on."""
    admin = await authenticate_admin(request)
    body = _budget(parse_json(await read_body(request)))
    state = request.state
    account_id = await _account(state["database"], admin, body.account)
    await state["batcher"].run(_put, (account_id, body))
    now = state["clock"]()
    async with state["database"].reading() as reader:
        found = [
            standing.view()
            for standing in await spending.standings(reader, account_id, now)
            if (standing.budget.unit, standing.budget.period) == (body.unit, body.period)
        ]
    return JSONResponse(found[0]) if found else Response(status_code=204)


async def _put(tx: Transaction, wanted: Sequence[tuple[AccountId, BudgetBody]]) -> list[None]:
    for account_id, body in wanted:
        period = Period(body.period)
        if body.limit is None:
            await usage.drop_budget(tx, account_id, unit=body.unit, period=period)
        else:
            budget = Budget(
                account=body.account or "", unit=body.unit, period=period, limit=Decimal(body.limit)
            )
            await usage.put_budget(tx, account_id, budget)
    return [None] * len(wanted)


async def _account(database: Database, key: ApiKey, name: str | None) -> AccountId:
    """
    Raises:
        Forbidden: another's, and this is no admin key.
        NotFound: there is none of this name.
    """
    if name is None or name == key.account_name:
        return key.account_id
    if key.role is not KeyRole.ADMIN:
        raise Forbidden("Only an admin key sees other accounts.")
    async with database.reading() as reader:
        account_id = await keys.find_account(reader, name)
    if account_id is None:
        raise NotFound(f"There is no account {name!r}.")
    return account_id
