"""What a task has cost: exact amounts, each in its own unit. Amounts of different units are never added together."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from enum import StrEnum
from typing import Any, Final

from service.domain.times import optional_rfc3339, rfc3339

UNITS: Final = "units"  # of a provider's resource packs
BALANCE: Final = "balance"  # of an account whose currency the provider does not name
# What Kling's pages know; a budget of anything else would never be reached.
KNOWN_UNITS: Final = (UNITS, BALANCE, "USD", "CNY", "test_USD", "test_CNY")
UNIT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

LARGEST: Final = Decimal(10) ** 6  # of one charge: more is a mistake
MOST_DECIMALS: Final = 18
BILLIONTHS: Final = Decimal(10) ** 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a provider has taken for one task.

    Args:
        amount: more than nothing, with at most 18 decimals.
        unit: `units`, `balance`, or a currency.
        list_price: what it would have been without a discount, where the provider says so.
        package: of which kind of resource pack.
    """

    amount: Decimal
    unit: str
    list_price: Decimal | None = None
    package: str | None = None

    def view(self) -> dict[str, Any]:
        optional = {
            "list_price": None if self.list_price is None else plain(self.list_price),
            "package": self.package,
        }
        shown = {"amount": plain(self.amount), "unit": self.unit}
        return shown | {name: value for name, value in optional.items() if value is not None}


def charge_of(view: Mapping[str, Any]) -> Charge:
    """What `Charge.view` shows, read again."""
    list_price = view.get("list_price")
    return Charge(
        amount=Decimal(view["amount"]),
        unit=view["unit"],
        list_price=None if list_price is None else Decimal(list_price),
        package=view.get("package"),
    )


def plain(amount: Decimal) -> str:
    """`16`, `0.35`: without an exponent, and without zeros that say nothing."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact(value: object) -> Decimal | None:
    """An amount as a provider writes it, as text or as number; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        # The shortest text that means a number is what it was written as.
        amount = Decimal(str(value).strip()) if len(str(value)) <= 64 else None
    except DecimalException:
        return None
    if amount is None or not amount.is_finite() or not 0 <= amount <= LARGEST:
        return None
    if not amount:
        return Decimal()  # however many zeros it was written with
    return amount if amount == round(amount, MOST_DECIMALS) else None


def billionths(amount: Decimal) -> int:
    """As amounts are summed: a whole number, exact up to nine decimals."""
    return round(amount * BILLIONTHS)


def from_billionths(number: int) -> Decimal:
    return Decimal(number) / BILLIONTHS


def added(charges: Iterable[Charge]) -> dict[str, Decimal]:
    """By unit."""
    sums: dict[str, Decimal] = {}
    for charge in charges:
        sums[charge.unit] = sums.get(charge.unit, Decimal()) + charge.amount
    return sums


class Period(StrEnum):
    """For how long a budget lasts; then it begins anew. All in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def begin(self, now: datetime) -> datetime:
        today = day_of(now)
        match self:
            case Period.DAY:
                return today
            case Period.MONTH:
                return today.replace(day=1)
            case Period.TOTAL:
                return datetime(1970, 1, 1, tzinfo=UTC)

    def end(self, now: datetime) -> datetime | None:
        """When the next one begins."""
        begin = self.begin(now)
        match self:
            case Period.DAY:
                return begin + timedelta(days=1)
            case Period.MONTH:
                return (begin + timedelta(days=31)).replace(day=1)
            case Period.TOTAL:
                return None


def day_of(moment: datetime) -> datetime:
    """Its first moment, UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of a unit an account may spend in a period. Once that is spent, it submits no more until the next."""

    account: str  # its name
    unit: str
    period: Period
    limit: Decimal

    def view(self) -> dict[str, Any]:
        return {
            "account": self.account,
            "unit": self.unit,
            "period": self.period,
            "limit": plain(self.limit),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget, and how much of it is spent."""

    budget: Budget
    spent: Decimal
    since: datetime
    until: datetime | None

    @property
    def is_exceeded(self) -> bool:
        return self.spent >= self.budget.limit

    def view(self) -> dict[str, Any]:
        return self.budget.view() | {
            "spent": plain(self.spent),
            "exceeded": self.is_exceeded,
            "since": None if self.budget.period is Period.TOTAL else rfc3339(self.since),
            "until": optional_rfc3339(self.until),
        }

    def told(self) -> str:
        """Why nothing more is submitted, and what to do."""
        spent, limit, unit = plain(self.spent), plain(self.budget.limit), self.budget.unit
        span = {Period.DAY: "today", Period.MONTH: "this month", Period.TOTAL: "in all"}[self.budget.period]
        said = f"The account's budget is spent: {spent} of {limit} {unit} {span} (UTC)."
        wait = "" if self.until is None else f" It begins anew at {rfc3339(self.until)}."
        return f"{said}{wait} An admin can raise it: PUT /v1/budgets."


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A sum of charges in one unit: of a day, a type, a provider, or of a value in the metadata.

    Args:
        value: None for tasks that have none.
        tasks: how many were charged for in this unit.
    """

    value: str | None
    unit: str
    amount: Decimal
    tasks: int

    def view(self) -> dict[str, Any]:
        return {"value": self.value, "unit": self.unit, "amount": plain(self.amount), "tasks": self.tasks}


def totals(spent: Sequence[Spent]) -> list[Spent]:
    """By unit, in their order."""
    sums: dict[str, Decimal] = {}
    counts: dict[str, int] = {}
    for each in spent:
        sums[each.unit] = sums.get(each.unit, Decimal()) + each.amount
        counts[each.unit] = counts.get(each.unit, 0) + each.tasks
    return [Spent(value=None, unit=unit, amount=sums[unit], tasks=counts[unit]) for unit in sorted(sums)]
