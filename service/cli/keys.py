"""`klingel keys`."""

from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from service.cli.pages import EVERY, print_list
from service.cli.session import Given, Json
from service.cli.text import Column, moment

app = App(
    name="keys",
    help="Make, list and revoke API keys. Takes an admin key.",
    help_epilogue="""
**Examples**

```
klingel keys create --name ci --account shop
KLINGEL_API_KEY=$(klingel keys create --name laptop --role admin)
klingel keys revoke key_0198c5…
```
""",
)

COLUMNS: Final[tuple[Column, ...]] = (
    ("ID", lambda key: key["id"]),
    ("NAME", lambda key: key["name"]),
    ("ACCOUNT", lambda key: key["account"]),
    ("ROLE", lambda key: key["role"]),
    ("ENDS IN", lambda key: key.get("hint") or ""),
    ("CREATED", lambda key: moment(key["created_at"])),
    ("REVOKED", lambda key: moment(key.get("revoked_at"))),
)


@app.command
def create(
    *,
    name: Annotated[str, Parameter(help="What it is for.")],
    account: Annotated[
        str | None, Parameter(help="Whose tasks it sees; made when new. [default: yours]")
    ] = None,
    role: Annotated[
        Literal["admin", "member"], Parameter(show_default=True, help="What it may do.")
    ] = "member",
    json: Json = False,
    session: Given,
) -> None:
    """Make a key. It is printed this once, alone on stdout."""
    body = {"name": name, "role": role} | ({} if account is None else {"account": account})
    made = session.api.post("keys", body=body)
    if json:
        session.say_json(made)
        return
    session.say(made["key"])
    session.note(f"{made['id']} {made['name']}: {made['role']} of account {made['account']}")
    session.note("Keep the key now: it is not shown again.", "yellow")


@app.default
@app.command(name="list")
def list_keys(*, json: Json = False, session: Given) -> None:
    """List every key, without the keys themselves."""
    print_list(session, "keys", (), EVERY, COLUMNS, json=json)


@app.command
def revoke(
    key: Annotated[str, Parameter(help="Its id, not the key itself.")],
    /,
    *,
    json: Json = False,
    session: Given,
) -> None:
    """Let nobody in by this key any more."""
    answer = session.api.delete("keys", key)
    if json:
        if answer is not None:
            session.say_json(answer)
    else:
        session.note(f"Revoked {key}")
