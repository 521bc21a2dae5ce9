"""What Kling says that a task has cost, in the words of both its standards.

Source: Kling, "Callback protocol" (2026): `final_unit_deduction` and `final_balance_deduction` (legacy), `billing` (new).
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

import structlog

from handlers.providers.kling.documents import JSONObject, text
from service.domain.costs import BALANCE, UNIT, UNITS, Charge, exact

LEGACY_UNITS: Final = "final_unit_deduction"
LEGACY_BALANCE: Final = "final_balance_deduction"
BILLING: Final = "billing"
NAMES: Final = frozenset({LEGACY_UNITS, LEGACY_BALANCE, BILLING})
MOST_CHARGES: Final = 20  # of one task; Kling has at most a few

log = structlog.get_logger()


def read_cost(found: Sequence[JSONObject]) -> tuple[Charge, ...] | None:
    """
    Args:
        found: outermost first; the innermost that speaks of it counts.

    Returns:
        What was taken, and nothing for what was free; None where nothing that can be read is said of it.
    """
    for layer in reversed(found):
        if NAMES.isdisjoint(layer):
            continue
        charges = [*_legacy(layer), *_billed(layer)][:MOST_CHARGES]
        taken = tuple(charge for charge in charges if charge is not None and charge.amount)
        if taken or (charges and None not in charges):
            return taken
    return None


def _legacy(layer: JSONObject) -> Iterator[Charge | None]:
    if _is_told(units := layer.get(LEGACY_UNITS)):
        yield _charge(units, UNITS, of=LEGACY_UNITS)
    balance = layer.get(LEGACY_BALANCE)
    if isinstance(balance, dict) and _is_told(quota := balance.get("quota")):
        yield _charge(quota, BALANCE, of=LEGACY_BALANCE, list_price=_price(balance.get("list_price")))


def _billed(layer: JSONObject) -> Iterator[Charge | None]:
    """`billing`: each one in units of a pack, or in cash of a balance that may be one for tests."""
    listed = layer.get(BILLING)
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and _is_told(amount := item.get("amount")):
            yield _charge(
                amount,
                _unit(item),
                of=BILLING,
                list_price=_price(item.get("list_price")),
                package=(text(item.get("package_type")) or "")[:32] or None,
            )


def _is_told(amount: object) -> bool:
    return amount is not None and amount != ""


def _charge(
    said: object, unit: str, *, of: str, list_price: Decimal | None = None, package: str | None = None
) -> Charge | None:
    """None for what cannot be counted: it is left out, for a cost never holds up the result that it stands beside."""
    amount = exact(said)
    if amount is None:
        log.warning("cost.left_out", field=of)
        return None
    return Charge(amount=amount, unit=unit, list_price=list_price, package=package)


def _unit(item: JSONObject) -> str:
    if text(item.get("charge_type")) == "unit":
        return UNITS
    currency = text(item.get("currency"))
    if currency is None or not UNIT.fullmatch(f"test_{currency}"):
        return BALANCE
    test = text(item.get("cash_type")) == "test_balance"
    return f"test_{currency.upper()}" if test else currency.upper()


def _price(value: object) -> Decimal | None:
    """Nothing is said of a price by none, or by 0."""
    return exact(value) or None
