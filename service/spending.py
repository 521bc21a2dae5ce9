"""What tasks cost is counted when it becomes known, and what an account may spend is looked at before it submits."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from service.domain.costs import Standing
from service.domain.errors import BudgetExceeded
from service.domain.events import Event, budget_event
from service.domain.ids import AccountId
from service.domain.transitions import Change
from storage import usage
from storage.database import Reader, Transaction


async def count(tx: Transaction, changes: Sequence[Change], now: datetime) -> list[Event]:
    """What has just become known. Gives what is to be said of budgets that it has used up."""
    charged = [change.after for change in changes if change.after.cost and change.before.cost is None]
    if not charged:
        return []
    await usage.add(tx, charged)
    happened: list[Event] = []
    for account_id in sorted({task.account_id for task in charged}):
        happened += await _said(tx, account_id, await standings(tx, account_id, now), now)
    return happened


async def refusals(
    tx: Transaction, account_ids: Iterable[AccountId], now: datetime
) -> tuple[dict[AccountId, BudgetExceeded], list[Event]]:
    """Accounts that have a budget with nothing left, and what is to be said of it if nobody has yet.

    Final charges of tasks that have ended count. What is still open has no known cost, so several tasks submitted at
    once may go beyond a limit together.
    """
    refused: dict[AccountId, BudgetExceeded] = {}
    happened: list[Event] = []
    for account_id in sorted(set(account_ids)):
        found = await standings(tx, account_id, now)
        exceeded = [standing for standing in found if standing.is_exceeded]
        if exceeded:
            told = " ".join(standing.told() for standing in exceeded)
            refused[account_id] = BudgetExceeded(told, budgets=[standing.view() for standing in exceeded])
            happened += await _said(tx, account_id, found, now)
    return refused, happened


async def standings(reader: Reader, account_id: AccountId, now: datetime) -> list[Standing]:
    """Of each of an account's budgets, in the period that is now."""
    return [await standing_of(reader, stored, now) for stored in await usage.budgets_of(reader, account_id)]


async def standing_of(reader: Reader, stored: usage.StoredBudget, now: datetime) -> Standing:
    budget = stored.budget
    begin = budget.period.begin(now)
    amount = await usage.spent_since(reader, stored.account_id, unit=budget.unit, since=begin)
    return Standing(budget=budget, spent=amount, since=begin, until=budget.period.end(now))


async def _said(
    tx: Transaction, account_id: AccountId, found: Sequence[Standing], now: datetime
) -> list[Event]:
    """Once in each period, whoever notices first."""
    return [
        budget_event(account_id, standing, now)
        for standing in found
        if standing.is_exceeded
        and await usage.note_exceeded(tx, account_id, standing.budget, begin=standing.since)
    ]
