"""`klingel deliveries`."""

from typing import Annotated, Final

from cyclopts import App, Parameter

from service.cli.client import View
from service.cli.pages import ONE, Page, print_list
from service.cli.session import Given, Json, Session
from service.cli.text import Column, moment, sections, span, status

app = App(
    name="deliveries",
    help="Look at deliveries and their attempts, or replay them.",
    help_epilogue="""
**Examples**

```
klingel deliveries --status dead
klingel deliveries --status dead --kind archive
klingel deliveries --task task_0198c5…
klingel deliveries show dlv_0198c5…
klingel deliveries replay dlv_0198c5…
```
""",
)


def _attempts(delivery: View) -> str:
    """How many there were: lists give the number, one delivery gives them all."""
    attempts = delivery.get("attempts")
    return str(len(attempts) if isinstance(attempts, list) else attempts or 0)


def _duration(attempt: View) -> str:
    milliseconds = attempt.get("duration_ms")
    return "" if milliseconds is None else span(milliseconds / 1000)


COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda delivery: delivery["id"]),
    ("EVENT", lambda delivery: delivery["event_type"]),
    ("STATUS", lambda delivery: status(delivery["status"])),
    ("ATTEMPTS", _attempts),
    ("NEXT", lambda delivery: moment(delivery.get("next_attempt_at"))),
    ("CREATED", lambda delivery: moment(delivery["created_at"])),
    ("ENDPOINT", lambda delivery: delivery["endpoint_id"]),
    ("TASK", lambda delivery: delivery.get("task_id") or ""),
    ("REASON", lambda delivery: delivery.get("reason") or ""),
)
ATTEMPTS: Final[tuple[Column, ...]] = (
    ("#", lambda attempt: str(attempt["number"])),
    ("STARTED", lambda attempt: moment(attempt["started_at"])),
    ("TOOK", _duration),
    ("HTTP", lambda attempt: str(attempt.get("status_code") or "")),
    ("OUTCOME", lambda attempt: status(attempt["outcome"])),
    ("REASON", lambda attempt: attempt.get("reason") or ""),
    ("RESPONSE", lambda attempt: attempt.get("response_excerpt") or ""),
)


@app.default
@app.command(name="list")
def list_deliveries(
    *,
    endpoint: Annotated[str | None, Parameter(help="Only to this endpoint.")] = None,
    kind: Annotated[
        str | None, Parameter(help="`archive`: the copies of outputs, which are not listed otherwise.")
    ] = None,
    status: Annotated[str | None, Parameter(help="Only these, e.g. `dead`.")] = None,
    event: Annotated[str | None, Parameter(help="Only of this event.")] = None,
    task: Annotated[str | None, Parameter(help="Only of this task's events.")] = None,
    page: Page = ONE,
    json: Json = False,
    session: Given,
) -> None:
    """List deliveries, newest first."""
    filters = [
        ("endpoint_id", endpoint),
        ("kind", kind),
        ("status", status),
        ("event_id", event),
        ("task_id", task),
    ]
    print_list(session, "deliveries", filters, page, COLUMNS, json=json)


@app.command
def show(delivery: str, /, *, json: Json = False, session: Given) -> None:
    """Show one delivery and each of its attempts."""
    _print(session, session.api.get("deliveries", delivery), json=json)


@app.command
def replay(delivery: str, /, *, json: Json = False, session: Given) -> None:
    """Deliver the same event to the same endpoint again, as a new delivery."""
    _print(session, session.api.post("deliveries", delivery, "replay"), json=json)


def _print(session: Session, delivery: View, *, json: bool) -> None:
    if json:
        session.say_json(delivery)
    elif isinstance(delivery.get("attempts"), list):
        session.say(sections(delivery, [("attempts", ATTEMPTS)]))
    else:
        session.say(sections(delivery, ()))
