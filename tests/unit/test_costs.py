"""`service.domain.costs` and how Kling tells them: exact to the last digit, and units never mixed."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from handlers.providers.kling.costs import read_cost
from handlers.providers.kling.documents import layers, read_object
from handlers.providers.kling.reports import read_report
from service.domain.costs import (
    Budget,
    Charge,
    Period,
    Spent,
    Standing,
    billionths,
    charge_of,
    exact,
    from_billionths,
    plain,
    totals,
)

NOW = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)


def cost(body: dict[str, Any]) -> Sequence[Charge] | None:
    return read_cost(layers(read_object(json.dumps(body).encode())))


def charge(amount: str, unit: str, **more: Any) -> Charge:
    return Charge(amount=Decimal(amount), unit=unit, **more)


@pytest.mark.parametrize(
    ("body", "charges"),
    [
        ({"final_unit_deduction": "16"}, [charge("16", "units")]),
        ({"final_unit_deduction": 3.5}, [charge("3.5", "units")]),
        (
            {"final_unit_deduction": "0.1", "final_balance_deduction": {"quota": "0"}},
            [charge("0.1", "units")],
        ),
        (
            {"final_unit_deduction": "0", "final_balance_deduction": {"quota": "1.20", "list_price": "2"}},
            [charge("1.20", "balance", list_price=Decimal(2))],
        ),
        ({"final_unit_deduction": "0", "final_balance_deduction": {"quota": "0", "list_price": "0"}}, []),
        (
            {"billing": [{"charge_type": "unit", "amount": "4", "package_type": "video"}]},
            [charge("4", "units", package="video")],
        ),
        (
            {
                "billing": [
                    {"charge_type": "cash", "cash_type": "balance", "amount": "0.28", "currency": "USD"},
                    {"charge_type": "cash", "cash_type": "test_balance", "amount": "2", "currency": "cny"},
                ]
            },
            [charge("0.28", "USD"), charge("2", "test_CNY")],
        ),
        ({"billing": []}, None),
        ({}, None),
        ({"final_unit_deduction": ""}, None),
        ({"final_unit_deduction": "a lot", "billing": "none"}, None),
        ({"final_unit_deduction": "1e9", "final_balance_deduction": {"quota": "0"}}, None),
        (
            {"code": 0, "final_unit_deduction": "7", "data": {"final_unit_deduction": "1e9"}},
            [charge("7", "units")],
        ),
        ({"code": 0, "data": {"task_id": "1", "final_unit_deduction": "7"}}, [charge("7", "units")]),
    ],
)
def test_both_standards_tell_what_a_task_has_cost(
    body: dict[str, Any], charges: Sequence[Charge] | None
) -> None:
    assert cost(body) == (None if charges is None else tuple(charges))


def test_only_the_end_of_a_task_has_a_cost() -> None:
    """`final_…` stands in each callback; before the end it is none yet."""
    body = {"task_id": "1", "task_status": "processing", "final_unit_deduction": "0"}
    assert read_report(json.dumps(body).encode()).cost is None
    ended = body | {"task_status": "failed"}
    assert read_report(json.dumps(ended).encode()).cost == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        "1e",
        "NaN",
        "Infinity",
        "-1",
        "1000000.000000001",
        "1000000000",
        "1" * 65,
        "0." + "1" * 19,
        f"1.{'0' * 40}1",
        "1e-1000010",
        [1],
        {"a": 1},
    ],
)
def test_what_is_no_amount_is_none(value: object) -> None:
    assert exact(value) is None


@pytest.mark.parametrize("value", ["0", "-0", "0.000", "0e-99999999999", "0e99999", 0.0])
def test_nothing_is_nothing_however_it_is_written(value: object) -> None:
    found = exact(value)
    assert found is not None
    assert plain(found) == "0"


def test_a_charge_that_cannot_be_true_is_left_out_and_logged() -> None:
    with capture_logs() as logged:
        found = cost(
            {
                "final_unit_deduction": "1000000000",
                "final_balance_deduction": {"quota": "a lot"},
                "billing": [{"charge_type": "unit", "amount": amount} for amount in ("4", "1e9")],
            }
        )
    assert found == (charge("4", "units"),)
    assert [(line["event"], line["field"]) for line in logged] == [
        ("cost.left_out", "final_unit_deduction"),
        ("cost.left_out", "final_balance_deduction"),
        ("cost.left_out", "billing"),
    ]


def test_of_a_charge_that_is_not_told_nothing_is_logged() -> None:
    with capture_logs() as logged:
        assert cost({"final_unit_deduction": "", "final_balance_deduction": {"quota": None}}) is None
    assert logged == []


amounts = st.decimals(min_value=0, max_value=10**6, places=9, allow_nan=False)


@given(amounts)
def test_an_amount_is_stored_and_shown_as_it_is(amount: Decimal) -> None:
    assert exact(plain(amount)) == amount
    assert from_billionths(billionths(amount)) == amount
    kept = Charge(amount=amount, unit="units", list_price=amount, package="video")
    assert charge_of(json.loads(json.dumps(kept.view()))) == kept


@given(st.lists(amounts, max_size=30))
def test_sums_lose_nothing(listed: list[Decimal]) -> None:
    assert from_billionths(sum(map(billionths, listed))) == sum(listed, Decimal())


def test_amounts_of_different_units_are_never_added() -> None:
    spent = [
        Spent(value="a", unit="units", amount=Decimal("0.1"), tasks=1),
        Spent(value="b", unit="USD", amount=Decimal("0.2"), tasks=1),
        Spent(value="b", unit="units", amount=Decimal("0.2"), tasks=2),
    ]
    assert [each.view() for each in totals(spent)] == [
        {"value": None, "unit": "USD", "amount": "0.2", "tasks": 1},
        {"value": None, "unit": "units", "amount": "0.3", "tasks": 3},
    ]


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        (Period.DAY, datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)),
        (Period.MONTH, datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (Period.TOTAL, datetime(1970, 1, 1, tzinfo=UTC), None),
    ],
)
def test_a_budget_begins_anew_with_its_period(period: Period, begin: datetime, end: datetime | None) -> None:
    assert (period.begin(NOW), period.end(NOW)) == (begin, end)


def test_december_ends_with_the_year() -> None:
    assert Period.MONTH.end(datetime(2026, 12, 31, 12, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("spent", "exceeded"), [("9.999999999", False), ("10", True), ("10.5", True)])
def test_a_budget_is_spent_when_nothing_is_left(spent: str, exceeded: bool) -> None:
    budget = Budget(account="shop", unit="units", period=Period.MONTH, limit=Decimal(10))
    standing = Standing(
        budget=budget, spent=Decimal(spent), since=Period.MONTH.begin(NOW), until=Period.MONTH.end(NOW)
    )
    assert standing.is_exceeded is exceeded
    assert standing.view()["spent"] == spent
