"""`klingel events`."""

from collections.abc import Callable
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.text import Text

from service.cli.client import View
from service.cli.pages import ONE, Page, print_list
from service.cli.session import Given, Json, Session, UsageError
from service.cli.text import Column, clean, details, moment, status, table

app = App(
    name="events",
    help="Look at events, follow them live, or ask why an endpoint got one, or did not.",
    help_epilogue="""
**Examples**

```
klingel events --type task.failed --limit 20
klingel events --follow
klingel events --follow --json --since evt_0198c5… | jq .data.task.status
klingel events explain evt_0198c5…
```
""",
)


def _task_id(event: View) -> str:
    return str(event.get("data", {}).get("task", {}).get("id", ""))


COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda event: event["id"]),
    ("TIME", lambda event: moment(event["timestamp"])),
    ("TYPE", lambda event: event["type"]),
    ("SEQUENCE", lambda event: str(event.get("sequence") or "")),
    ("TASK", _task_id),
)


@app.default
@app.command(name="list")
def list_events(
    *,
    type_: Annotated[str | None, Parameter(name="--type", help="Only of this type.")] = None,
    follow: Annotated[bool, Parameter(help="Print each event as it happens, one a line.")] = False,
    since: Annotated[
        str | None, Parameter(help="With --follow: first all that came after this event.")
    ] = None,
    page: Page = ONE,
    json: Json = False,
    session: Given,
) -> None:
    """List the account's events, or follow them live.

    A stream that is cut goes on where it was, without gap or repeat. Ctrl-C ends it.
    """
    if follow:
        if page != ONE:
            raise UsageError("--limit, --cursor and --all do not go with --follow")
        _follow(session, type_, since, json=json)
    elif since is not None:
        raise UsageError("--since goes with --follow")
    else:
        print_list(session, "events", [("type", type_)], page, COLUMNS, json=json)


@app.command
def show(event: str, /, *, json: Json = False, session: Given) -> None:
    """Show one event."""
    shown = session.api.get("events", event)
    if json:
        session.say_json(shown)
    else:
        session.say(details(shown))


@app.command
def explain(
    event: str,
    /,
    *,
    endpoint: Annotated[
        str | None, Parameter(help="Only this one, also one that is bound to a task.")
    ] = None,
    json: Json = False,
    session: Given,
) -> None:
    """Say for each endpoint why it got an event or did not, and what became of its delivery.

    **Examples**

    ```
    klingel events explain evt_0198c5…
    klingel events explain evt_0198c5… --endpoint end_0198c5…
    ```
    """
    pages = session.api.pages("events", event, "explain", query=[("endpoint_id", endpoint), ("limit", 200)])
    found = [one for page in pages for one in page["items"]]
    if json:
        session.say_json(found)
    elif found:
        session.say(table(EXPLANATIONS, found))
    else:
        session.note("There was no endpoint that it could have gone to.")


def _of_delivery(name: str) -> Callable[[View], str]:
    return lambda explanation: str((explanation.get("delivery") or {}).get(name) or "")


EXPLANATIONS: Final[tuple[Column, ...]] = (
    ("ENDPOINT", lambda one: one["endpoint"]["id"]),
    ("DESCRIPTION", lambda one: one["endpoint"].get("description") or ""),
    ("KIND", lambda one: one["endpoint"]["kind"]),
    ("SENT", lambda one: Text("yes", "green") if one["sent"] else Text("no", "yellow")),
    ("REASON", lambda one: one["reason"]),
    ("DELIVERY", _of_delivery("id")),
    ("STATUS", lambda one: status(_of_delivery("status")(one))),
    ("ATTEMPTS", _of_delivery("attempts")),
    ("NEXT", lambda one: moment((one.get("delivery") or {}).get("next_attempt_at"))),
    ("LAST", _of_delivery("reason")),
    ("REPLAYS", lambda one: str(one.get("replays") or "")),
    ("WHY", lambda one: one["detail"]),
)


def _follow(session: Session, type_: str | None, since: str | None, *, json: bool) -> None:
    for event in session.api.stream("events", since=since):
        if type_ is not None and event["type"] != type_:
            continue
        if json:
            session.say_json(event, indent=None)
        else:
            session.say(_line(event))


def _line(event: View) -> Text:
    kind, _, word = event["type"].partition(".")
    return Text.assemble(
        moment(event["timestamp"]),
        f"  {clean(kind)}.",
        status(word),
        clean(f"  {_task_id(event)}  {event['id']}"),
    )
