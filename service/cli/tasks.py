"""`klingel tasks`."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.text import Text

from service.cli.client import View
from service.cli.pages import ONE, Page, print_list
from service.cli.session import Given, Json, Session, pairs
from service.cli.text import Column, as_json, failure, moment, sections, status, took
from service.domain.lifecycle import Status

app = App(
    name="tasks",
    help="Look at tasks.",
    help_epilogue="""
**Examples**

```
klingel tasks --status failed --limit 10
klingel tasks --metadata order=1234 --all --json
klingel tasks show task_0198c5…
klingel tasks refresh task_0198c5…
```
""",
)


def _status(task: View) -> Text:
    shown = status(task["status"])
    return shown + Text(" overdue", "red") if task.get("overdue_at") else shown


def _external_id(task: View) -> str:
    """Only where the caller gave one: else it is our own id."""
    return "" if task["external_task_id"] == task["id"] else str(task["external_task_id"])


COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda task: task["id"]),
    ("TYPE", lambda task: task["type"]),
    ("STATUS", _status),
    ("CREATED", lambda task: moment(task["created_at"])),
    ("TOOK", lambda task: took(task["created_at"], task.get("finished_at"))),
    ("EXTERNAL ID", _external_id),
)
OUTPUTS: Final[tuple[Column, ...]] = (
    ("#", lambda output: str(output["index"])),
    ("KIND", lambda output: output["kind"]),
    ("DURATION", lambda output: f"{output['duration_s']:g} s" if output.get("duration_s") else ""),
    ("URL", lambda output: output["url"]),
    ("EXPIRES", lambda output: moment(output.get("expires_at"))),
    ("STORED", lambda output: output.get("stored_url") or ""),
)
TRANSITIONS: Final[tuple[Column, ...]] = (
    ("FROM", lambda transition: status(transition["from"])),
    ("TO", lambda transition: status(transition["to"])),
    ("AT", lambda transition: moment(transition["at"])),
    ("AFTER", lambda transition: transition["after"]),
)


@app.default
@app.command(name="list")
def list_tasks(
    *,
    status: Annotated[Status | None, Parameter(help="Only these.")] = None,
    type_: Annotated[str | None, Parameter(name="--type", help="Only of this type.")] = None,
    external_task_id: Annotated[str | None, Parameter(help="The one with this id of yours.")] = None,
    metadata: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE", help="Only with these.")] = (),
    page: Page = ONE,
    json: Json = False,
    session: Given,
) -> None:
    """List tasks, newest first."""
    filters = [
        ("status", status),
        ("type", type_),
        ("external_task_id", external_task_id),
        *((f"metadata.{name}", value) for name, value in pairs("--metadata", metadata).items()),
    ]
    print_list(session, "tasks", filters, page, COLUMNS, json=json)


@app.command
def show(task: str, /, *, json: Json = False, session: Given) -> None:
    """Show one task: its input, outputs and transitions."""
    _print_task(session, session.api.get("tasks", task), json=json)


@app.command
def refresh(task: str, /, *, json: Json = False, session: Given) -> None:
    """Ask the provider once how a task stands, for a callback that was lost for good."""
    _print_task(session, session.api.post("tasks", task, "refresh"), json=json)


@app.command
def callbacks(task: str, /, *, json: Json = False, session: Given) -> None:
    """Show every callback received about a task, and what became of it."""
    pages = session.api.pages("tasks", task, "callbacks")
    received = [callback for page in pages for callback in page["items"]]
    if json:
        session.say_json({"items": received, "next_cursor": None})
        return
    for callback in received:
        reason = f": {callback['reason']}" if callback.get("reason") else ""
        session.say(f"{moment(callback['received_at'])}  {callback['verdict']}{reason}")
        body = callback.get("body")
        session.say(f"  {body if isinstance(body, str) else as_json(body)}")


def _print_task(session: Session, task: View, *, json: bool) -> None:
    if json:
        session.say_json(task)
        return
    shown = {**task, "error": failure(task), "transitions": list(_spaced(task.get("transitions", ())))}
    session.say(sections(shown, [("outputs", OUTPUTS), ("transitions", TRANSITIONS)]))


def _spaced(transitions: Iterable[View]) -> Iterable[dict[str, Any]]:
    """Each with the time since the one before."""
    before = None
    for transition in transitions:
        yield {**transition, "after": took(before, transition["at"])}
        before = transition["at"]
