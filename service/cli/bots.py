"""`klingel bots`."""

from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from service.cli.client import View
from service.cli.numbers import Whole
from service.cli.pages import EVERY, print_list
from service.cli.session import Given, Json, Session, UsageError, pairs
from service.cli.text import Column, details

app = App(
    name="bots",
    help="Say by which chat bots people may submit tasks, and who may.",
    help_epilogue="""
**Examples**

```
klingel bots create --platform mattermost --allow chat=4xp9fdt77pncbef59f4k1qe83o \\
    --config server=https://chat.example.com command_token=… bot_token=…
klingel bots update bot_0198c5… --allow workspace=T0ABC user=U0DEF,chat=C0GHI
klingel bots update bot_0198c5… --allow nobody
klingel bots delete bot_0198c5…
```
""",
)

NOBODY: Final = "nobody"
COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda bot: bot["id"]),
    ("PLATFORM", lambda bot: bot["platform"]),
    ("ALLOW", lambda bot: " ".join(_shown(allowed) for allowed in bot["allow"]) or NOBODY),
    ("OPEN TASKS", lambda bot: str(bot["open_tasks"])),
    ("URL", lambda bot: bot["url"]),
    ("DESCRIPTION", lambda bot: bot.get("description") or ""),
)

Config = Annotated[
    tuple[str, ...],
    Parameter(metavar="KEY=VALUE", help="What its platform needs: docs/chat/ tells for each."),
]
Allow = Annotated[
    tuple[str, ...],
    Parameter(
        metavar="KEY=ID[,KEY=ID]",
        help="Whom it obeys, by the platform's ids: `workspace`, `chat`, `user`. Joined by commas, all must apply. "
        "`nobody` alone for nobody.",
    ),
]
OpenTasks = Annotated[
    Whole | None, Parameter(help="How many unfinished tasks one person may have at a time.")
]


@app.default
@app.command(name="list")
def list_bots(*, json: Json = False, session: Given) -> None:
    """List every bot."""
    print_list(session, "bots", (), EVERY, COLUMNS, json=json)


@app.command
def show(bot: str, /, *, json: Json = False, session: Given) -> None:
    """Show one bot, and the address at which its platform reaches it."""
    _print(session, session.api.get("bots", bot), json=json)


@app.command
def create(
    *,
    platform: Annotated[str, Parameter(help="Where people talk to it.")],
    config: Config = (),
    allow: Allow = (),
    open_tasks: OpenTasks = None,
    description: str | None = None,
    json: Json = False,
    session: Given,
) -> None:
    """Make a bot. Its `url` is what the platform is to be told."""
    body = {"platform": platform, "config": {}, **_changes(config, allow, open_tasks, description)}
    made = session.api.post("bots", body=body)
    _print(session, made, json=json)
    if not json and not made["allow"]:
        session.note("It obeys nobody yet: klingel bots update … --allow …", "yellow")


@app.command
def update(
    bot: str,
    /,
    *,
    config: Config = (),
    allow: Allow = (),
    open_tasks: OpenTasks = None,
    description: str | None = None,
    json: Json = False,
    session: Given,
) -> None:
    """Change what is given; the rest stays. `--allow` says the whole list anew."""
    changes = _changes(config, allow, open_tasks, description)
    if not changes:
        raise UsageError("Nothing to change: see klingel bots update --help")
    _print(session, session.api.patch("bots", bot, body=changes), json=json)


@app.command
def delete(bot: str, /, *, json: Json = False, session: Given) -> None:
    """Delete a bot. Its tasks go on, and answer nowhere."""
    answer = session.api.delete("bots", bot)
    if json:
        if answer is not None:
            session.say_json(answer)
    else:
        session.note(f"Deleted {bot}")


def _changes(
    config: tuple[str, ...], allow: tuple[str, ...], open_tasks: int | None, description: str | None
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if config:
        changes["config"] = pairs("--config", config)
    if allow:
        changes["allow"] = [] if allow == (NOBODY,) else [pairs("--allow", one.split(",")) for one in allow]
    if open_tasks is not None:
        changes["open_tasks"] = open_tasks
    if description is not None:
        changes["description"] = description or None
    return changes


def _shown(allowed: View) -> str:
    return ",".join(f"{name}={value}" for name, value in allowed.items())


def _print(session: Session, answer: View, *, json: bool) -> None:
    if json:
        session.say_json(answer)
    else:
        session.say(details(answer))
