"""All commands of `klingel`, and how each of them ends."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError, Group, Parameter

from service.cli import bots, chat, deliveries, endpoints, events, keys, server, tasks, usage
from service.cli.client import Refused, Unreachable
from service.cli.doctor import doctor
from service.cli.listen import listen
from service.cli.prune import prune
from service.cli.serving import serve
from service.cli.session import Exit, Session, UsageError
from service.cli.submit import submit
from service.cli.types import types
from service.cli.watch import watch
from service.domain.errors import ConfigurationError

EXIT_CODES = """
**Exit codes**

```
0    done
1    the task failed or was rejected; `doctor` found a fault
2    the command line or a setting is wrong
3    the server said no
4    the server cannot be reached
130  interrupted
```
"""

app = App(
    name="klingel",
    help="""Submit AI generation tasks, never poll, receive signed webhooks.

The client commands find the server by `KLINGEL_URL` (`http://127.0.0.1:8000` when unset) and `KLINGEL_API_KEY`,
in the environment or in `.env`.
""",
    help_format="markdown",
    help_epilogue=EXIT_CODES,
    version=lambda: version("klingel"),
    default_parameter=Parameter(negative="", show_default=False, consume_multiple=True),
)

CLIENT = Group("Client commands", sort_key=1)
SERVER = Group("Server commands", sort_key=2)

app.command(
    submit,
    group=CLIENT,
    help_epilogue="""
**Examples**

```
klingel submit --type video --image a.png --image b.png --watch
klingel submit --type image --image a.png --image b.png --n 2 --json
klingel submit --type video --input task.json --metadata order=1234 \\
    --callback-url https://example.com/hooks --async
```
"""
    + EXIT_CODES,
)
app.command(
    watch,
    group=CLIENT,
    help_epilogue="""
**Examples**

```
klingel watch task_0198c5…
klingel watch task_0198c5… | xargs -n 1 curl -O
```
"""
    + EXIT_CODES,
)
app.command(
    types,
    group=CLIENT,
    help_epilogue=f"**Examples**\n\n```\nklingel types\nklingel types text-to-video\n```\n{EXIT_CODES}",
)
for resource in (tasks, events, endpoints, deliveries, bots, chat, keys, usage):
    resource.app.group = (CLIENT,)
    app.command(resource.app)
app.command(
    listen,
    group=CLIENT,
    help_epilogue="""
**Examples**

```
klingel listen --forward-to http://localhost:3000/hook
klingel listen --forward-to http://localhost:3000/hook --type task.succeeded --secret whsec_…
```
"""
    + EXIT_CODES,
)
SERVER_EXAMPLES: dict[Callable[..., object], str] = {
    serve: """
klingel serve
COMETAPI_KEY=sk-… KLINGEL_PUBLIC_URL=https://klingel.example.com klingel serve
""",
    server.migrate: """
klingel migrate && klingel serve
""",
    server.sandbox: """
klingel sandbox --port 8001 --step 0.2
klingel sandbox --fault duplicate reorder --slots 2
""",
}
app.command(
    prune, group=CLIENT, help_epilogue=f"**Examples**\n\n```\nklingel prune --json\n```\n{EXIT_CODES}"
)
for command, examples in SERVER_EXAMPLES.items():
    app.command(command, group=SERVER, help_epilogue=f"**Examples**\n\n```{examples}```\n{EXIT_CODES}")
app.command(
    doctor,
    group=SERVER,
    help_epilogue="""
**Examples**

```
klingel doctor
klingel doctor --json | jq '.findings[] | select(.verdict == "fault")'
```
"""
    + EXIT_CODES,
)
app.register_install_completion_command()


def run(tokens: Sequence[str], session: Session | None = None) -> int:
    """Answers the exit code."""
    session = session or Session()
    try:
        command, bound, injected = app.parse_args(tokens, exit_on_error=False)
        session.json = bool(bound.arguments.get("json"))
        result = command(*bound.args, **bound.kwargs, **dict.fromkeys(injected, session))
    except FAILURES as error:
        return told(error, session)
    finally:
        session.close()
    return Exit.OK if result is None else int(result)


# As which any command may end, besides well.
FAILURES: Final = (CycloptsError, UsageError, ConfigurationError, Refused, Unreachable, KeyboardInterrupt)


def told(failure: BaseException, session: Session) -> Exit:
    """Says it, where it has not been said yet."""
    match failure:
        case Refused():
            session.show_refusal(failure)
            return Exit.REFUSED
        case Unreachable():
            session.note(f"Cannot reach {failure}", "red")
            return Exit.UNREACHABLE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case CycloptsError():  # has been printed
            return Exit.USAGE
        case _:
            session.note(str(failure), "red")
            return Exit.USAGE
