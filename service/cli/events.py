"""`klingel events`."""

from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.text import Text

from service.cli.client import View
from service.cli.pages import ONE, Page, print_list
from service.cli.session import Given, Json, Session, UsageError
from service.cli.text import Column, clean, moment, status

app = App(
    name="events",
    help="Look at events, or follow them live.",
    help_epilogue="""
**Examples**

```
klingel events --type task.failed --limit 20
klingel events --follow
klingel events --follow --json --since evt_0198c5… | jq .data.task.status
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
