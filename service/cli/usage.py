"""`klingel usage`."""

from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from service.cli.client import View
from service.cli.session import Given, Json
from service.cli.text import Column, table

app = App(
    name="usage",
    help="Show what tasks have cost, and say how much accounts may spend.",
    help_epilogue="""
**Examples**

```
klingel usage
klingel usage --by metadata.customer --from 2026-11-01 --to 2026-11-30
klingel usage budgets
klingel usage budget --account shop --unit units --period month --limit 1000
klingel usage budget --account shop --limit none
```
""",
)

NONE: Final = "none"
SPENT: Final[tuple[Column, ...]] = (
    ("VALUE", lambda spent: spent["value"] if spent["value"] is not None else f"({NONE})"),
    ("AMOUNT", lambda spent: spent["amount"]),
    ("UNIT", lambda spent: spent["unit"]),
    ("TASKS", lambda spent: str(spent["tasks"])),
)
BUDGETS: Final[tuple[Column, ...]] = (
    ("ACCOUNT", lambda budget: budget["account"]),
    ("PERIOD", lambda budget: budget["period"]),
    ("SPENT", lambda budget: budget["spent"]),
    ("LIMIT", lambda budget: budget["limit"]),
    ("UNIT", lambda budget: budget["unit"]),
    ("", lambda budget: "exceeded" if budget["exceeded"] else ""),
    ("UNTIL", lambda budget: (budget["until"] or "")[:10]),
)


def _in_all(usage: View) -> str:
    return ", ".join(f"{total['amount']} {total['unit']}" for total in usage["totals"])


@app.default
def show(
    *,
    by: Annotated[
        str, Parameter(show_default=True, help="`day`, `type`, `provider` or `metadata.KEY`.")
    ] = "day",
    since: Annotated[
        str | None,
        Parameter(name="--from", metavar="DAY", help="The first day (UTC). [default: of the month]"),
    ] = None,
    to: Annotated[str | None, Parameter(metavar="DAY", help="The last day. [default: today]")] = None,
    account: Annotated[str | None, Parameter(help="Another's, with an admin key.")] = None,
    json: Json = False,
    session: Given,
) -> None:
    """Show what tasks that have ended have cost, summed."""
    query = [("by", by), ("from", since), ("to", to), ("account", account)]
    usage = session.api.get("usage", query=query)
    if json:
        session.say_json(usage)
        return
    if not usage["items"]:
        session.note("Nothing was charged.")
        return
    session.say(table(SPENT, usage["items"]))
    session.note(f"{usage['from']} to {usage['to']} (UTC): {_in_all(usage)}")
    if usage["truncated"]:
        session.note("There are more than these.", "yellow")


@app.command
def budgets(*, json: Json = False, session: Given) -> None:
    """List budgets, and what is spent of them."""
    found = session.api.get("budgets")
    if json:
        session.say_json(found)
    elif found["items"]:
        session.say(table(BUDGETS, found["items"]))
    else:
        session.note("There are none.")


@app.command
def budget(
    *,
    limit: Annotated[str, Parameter(metavar="AMOUNT", help=f"`{NONE}` takes the budget away.")],
    account: Annotated[str | None, Parameter(help="Whose. [default: yours]")] = None,
    unit: Annotated[
        str,
        Parameter(
            show_default=True,
            help="As costs have it: `units`, `balance`, `USD`, `CNY`, `test_USD`, `test_CNY`.",
        ),
    ] = "units",
    period: Annotated[
        Literal["day", "month", "total"],
        Parameter(show_default=True, help="After which it begins anew (UTC)."),
    ] = "month",
    json: Json = False,
    session: Given,
) -> None:
    """Say how much an account may spend. Takes an admin key."""
    body = {
        "unit": unit,
        "period": period,
        "limit": None if limit == NONE else limit,
        **({} if account is None else {"account": account}),
    }
    made = session.api.put("budgets", body=body)
    if made is None:
        session.note("There is no such budget now.")
    elif json:
        session.say_json(made)
    else:
        session.say(table(BUDGETS, [made]))
