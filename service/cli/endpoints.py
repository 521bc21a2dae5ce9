"""`klingel endpoints`."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from service.cli.client import View
from service.cli.numbers import Whole
from service.cli.pages import EVERY, print_list
from service.cli.session import Given, Json, Session, UsageError, pairs
from service.cli.text import Column, details

app = App(
    name="endpoints",
    help="Say where events are delivered.",
    help_epilogue="""
**Examples**

```
klingel endpoints create --url https://example.com/hooks \\
    --types task.succeeded task.failed
klingel endpoints create --url https://example.com/hooks \\
    --filter "data.task.metadata.shop == 'berlin'"
klingel endpoints test end_0198c5…
klingel endpoints update end_0198c5… --disable
klingel endpoints update end_0198c5… --rate-per-minute 20
klingel endpoints replay end_0198c5… --since 2026-11-22T00:00:00Z
```
""",
)

COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda endpoint: endpoint["id"]),
    ("KIND", lambda endpoint: endpoint["kind"]),
    ("ENABLED", lambda endpoint: "yes" if endpoint["enabled"] else f"no: {endpoint.get('disabled_reason')}"),
    ("TYPES", lambda endpoint: " ".join(endpoint.get("types") or ())),
    ("URL", lambda endpoint: str(endpoint.get("config", {}).get("url", ""))),
    ("DESCRIPTION", lambda endpoint: endpoint.get("description") or ""),
)

SIGNED: Final = frozenset({"webhook", "task"})  # kinds that use their secret

Url = Annotated[str | None, Parameter(help="Where to deliver.")]
Types = Annotated[tuple[str, ...], Parameter(metavar="TYPE", help="Event types; `task.*` for all of a kind.")]
Filter = Annotated[
    str | None,
    Parameter(name="--filter", metavar="JMESPATH", help="Over the event; what it finds must be true."),
]
Rate = Annotated[
    Whole | None,
    Parameter(metavar="N", help="So many attempts begin within a minute, at most; 0 is no limit."),
]
Headers = Annotated[
    tuple[str, ...], Parameter(name="--header", metavar="NAME=VALUE", help="Sent with each delivery.")
]
Config = Annotated[
    tuple[str, ...],
    Parameter(metavar="KEY=VALUE", help="What else its kind needs, e.g. `format=cloudevents`."),
]


@app.default
@app.command(name="list")
def list_endpoints(*, json: Json = False, session: Given) -> None:
    """List every endpoint."""
    print_list(session, "endpoints", (), EVERY, COLUMNS, json=json)


@app.command
def show(endpoint: str, /, *, json: Json = False, session: Given) -> None:
    """Show one endpoint."""
    _print(session, session.api.get("endpoints", endpoint), json=json)


@app.command
def create(
    *,
    url: Url = None,
    kind: Annotated[str, Parameter(help="How to deliver.", show_default=True)] = "webhook",
    types: Types = (),
    filter_: Filter = None,
    description: str | None = None,
    rate_per_minute: Rate = None,
    header: Headers = (),
    config: Config = (),
    json: Json = False,
    session: Given,
) -> None:
    """Make an endpoint. Its secret, with which webhooks are signed, is printed this once."""
    body = {"kind": kind, **_changes(url, types, filter_, description, rate_per_minute, header, config)}
    _print_with_secret(session, session.api.post("endpoints", body=body), json=json)


@app.command
def update(
    endpoint: str,
    /,
    *,
    enabled: Annotated[
        bool | None, Parameter(name="--enable", negative="--disable", help="Deliver to it again, or no more.")
    ] = None,
    url: Url = None,
    types: Types = (),
    filter_: Filter = None,
    description: str | None = None,
    rate_per_minute: Rate = None,
    header: Headers = (),
    config: Config = (),
    json: Json = False,
    session: Given,
) -> None:
    """Change what is given; the rest stays. An empty filter or description, or a rate of 0, removes it."""
    changes = _changes(url, types, filter_, description, rate_per_minute, header, config)
    if enabled is not None:
        changes["enabled"] = enabled
    if not changes:
        raise UsageError("Nothing to change: see klingel endpoints update --help")
    _print(session, session.api.patch("endpoints", endpoint, body=changes), json=json)


@app.command
def delete(endpoint: str, /, *, json: Json = False, session: Given) -> None:
    """Delete an endpoint."""
    answer = session.api.delete("endpoints", endpoint)
    if json:
        if answer is not None:
            session.say_json(answer)
    else:
        session.note(f"Deleted {endpoint}")


@app.command(name="test")
def send_test(endpoint: str, /, *, json: Json = False, session: Given) -> None:
    """Send a real test event by the real path."""
    _print(session, session.api.post("endpoints", endpoint, "test"), json=json)


@app.command
def rotate_secret(endpoint: str, /, *, json: Json = False, session: Given) -> None:
    """Give an endpoint a new secret. The old one signs along for 24 hours."""
    _print_with_secret(session, session.api.post("endpoints", endpoint, "rotate-secret"), json=json)


@app.command
def replay(
    endpoint: str,
    /,
    *,
    since: Annotated[str, Parameter(metavar="RFC3339", help="Events from this time on.")],
    only: Annotated[Literal["failed", "all"], Parameter(show_default=True, help="Which of them.")] = "failed",
    json: Json = False,
    session: Given,
) -> None:
    """Deliver past events again."""
    body = {"since": since, "only": only}
    _print(session, session.api.post("endpoints", endpoint, "replay", body=body), json=json)


def _changes(
    url: str | None,
    types: tuple[str, ...],
    filter_: str | None,
    description: str | None,
    rate_per_minute: int | None,
    header: tuple[str, ...],
    config: tuple[str, ...],
) -> dict[str, Any]:
    inner: dict[str, Any] = dict(pairs("--config", config))
    if url is not None:
        inner["url"] = url
    if header:
        inner["headers"] = pairs("--header", header)
    changes: dict[str, Any] = {"config": inner} if inner else {}
    if types:
        changes["types"] = list(types)
    if filter_ is not None:
        changes["filter"] = filter_ or None
    if description is not None:
        changes["description"] = description or None
    if rate_per_minute is not None:
        changes["rate_per_minute"] = rate_per_minute or None
    return changes


def _print(session: Session, answer: View | None, *, json: bool) -> None:
    if json:
        session.say_json(answer)
    elif answer is None:
        session.note("Done")
    else:
        session.say(details(answer))


def _print_with_secret(session: Session, endpoint: View, *, json: bool) -> None:
    _print(session, endpoint, json=json)
    if not json and endpoint.get("kind", "webhook") in SIGNED:
        session.note(
            "Keep the secret now: it is not shown again. Receivers verify signatures with it.", "yellow"
        )
