"""What tasks have cost, summed, and what accounts may spend."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from anyio.to_thread import run_sync

from service.domain.costs import (
    Budget,
    Period,
    Spent,
    added,
    billionths,
    day_of,
    from_billionths,
)
from service.domain.ids import AccountId
from service.domain.tasks import Task
from service.domain.times import rfc3339
from storage.columns import Row, milliseconds, moment
from storage.database import Reader, Transaction
from storage.tasks import cost_of

By = Literal["day", "type", "provider"]

FULL: Final = 9 * 10**18  # billionths: more than any budget, and nearly all that a column holds


async def add(tx: Transaction, tasks: Iterable[Task]) -> None:
    """Of tasks that have ended, and whose cost has just become known. It counts on the day on which they ended."""
    amounts: Counter[tuple[AccountId, int, str, str, str]] = Counter()
    numbers: Counter[tuple[AccountId, int, str, str, str]] = Counter()
    for task in tasks:
        ended = milliseconds(day_of(task.finished_at or task.updated_at))
        for unit, amount in added(task.cost or ()).items():
            row = (task.account_id, ended, task.provider, task.type, unit)
            amounts[row] += billionths(amount)
            numbers[row] += 1
    await tx.run_many(
        "add_usage",
        [
            {
                "account_id": account_id,
                "day": day,
                "provider": provider,
                "type": type,
                "unit": unit,
                "billionths": min(amounts[row], FULL),
                "tasks": numbers[row],
            }
            # In one order everywhere, so that two processes never wait for each other's rows.
            for row in sorted(amounts)
            for account_id, day, provider, type, unit in [row]
        ],
    )


async def spent(
    reader: Reader, account_id: AccountId, *, by: By, since: datetime, until: datetime
) -> list[Spent]:
    """Of whole days, in the order of what they are summed by."""
    rows = await reader.all(
        "usage", account_id=account_id, since=milliseconds(day_of(since)), until=milliseconds(until)
    )
    sums: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        value = rfc3339(moment(row["day"]))[:10] if by == "day" else row[by]
        sums[value, row["unit"]] += row["billionths"]
        counts[value, row["unit"]] += row["tasks"]
    return [
        Spent(value=value, unit=unit, amount=from_billionths(sums[value, unit]), tasks=counts[value, unit])
        for value, unit in sorted(sums)
    ]


async def spent_by_metadata(
    reader: Reader, account_id: AccountId, *, key: str, since: datetime, until: datetime
) -> list[Spent]:
    """Of tasks that are kept; those without the key come first."""
    rows = await reader.all(
        "usage_by_metadata",
        account_id=account_id,
        key=key.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # as the metadata is read
        since=milliseconds(since),
        until=milliseconds(until),
    )
    return await run_sync(_by_value, rows)  # there may be as many values as tasks


def _by_value(rows: Sequence[Row]) -> list[Spent]:
    amounts = {text: added(cost_of(text) or ()) for text in {row["cost"] for row in rows}}
    sums: defaultdict[tuple[str | None, str], Decimal] = defaultdict(Decimal)
    counts: Counter[tuple[str | None, str]] = Counter()
    for row in rows:
        for unit, amount in amounts[row["cost"]].items():
            sums[row["value"], unit] += amount * row["tasks"]
            counts[row["value"], unit] += row["tasks"]
    order = sorted(sums, key=lambda each: (each[0] is not None, each[0] or "", each[1]))
    return [
        Spent(value=value, unit=unit, amount=sums[value, unit], tasks=counts[value, unit])
        for value, unit in order
    ]


@dataclass(frozen=True, slots=True)
class StoredBudget:
    account_id: AccountId
    budget: Budget


def _budget(row: Row) -> StoredBudget:
    return StoredBudget(
        row["account_id"],
        Budget(
            account=row["name"],
            unit=row["unit"],
            period=Period(row["period"]),
            limit=from_billionths(row["billionths"]),
        ),
    )


async def budgets(reader: Reader) -> list[StoredBudget]:
    """Of all accounts, by their names."""
    return [_budget(row) for row in await reader.all("list_budgets")]


async def budgets_of(reader: Reader, account_id: AccountId) -> list[StoredBudget]:
    return [_budget(row) for row in await reader.all("budgets_of", account_id=account_id)]


async def put_budget(tx: Transaction, account_id: AccountId, budget: Budget) -> None:
    """Where there was one it is changed, and whether it is spent is found out anew."""
    await tx.run(
        "put_budget",
        account_id=account_id,
        unit=budget.unit,
        period=budget.period,
        billionths=billionths(budget.limit),
    )


async def drop_budget(tx: Transaction, account_id: AccountId, *, unit: str, period: Period) -> bool:
    """Whether there was one."""
    return await tx.run("drop_budget", account_id=account_id, unit=unit, period=period) > 0


async def spent_since(reader: Reader, account_id: AccountId, *, unit: str, since: datetime) -> Decimal:
    row = await reader.one("spent", account_id=account_id, unit=unit, since=milliseconds(since))
    return Decimal() if row is None else row["ones"] + from_billionths(row["billionths"])


async def note_exceeded(tx: Transaction, account_id: AccountId, budget: Budget, *, begin: datetime) -> bool:
    """Whether nobody has said so in this period yet."""
    touched = await tx.run(
        "note_exceeded",
        account_id=account_id,
        unit=budget.unit,
        period=budget.period,
        begin=milliseconds(begin),
    )
    return touched > 0
