"""`klingel chat`: what a platform must be told of a bot, from the machine of whoever holds the platform's token."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import httpx
from cyclopts import App, Parameter

from service.cli.client import Refused, Unreachable, View
from service.cli.session import Given, Session, UsageError

app = App(
    name="chat",
    help="Tell a chat platform about a bot.",
    help_epilogue="""
**Examples**

```
DISCORD_BOT_TOKEN=… klingel chat register discord bot_0198c5…
TELEGRAM_BOT_TOKEN=… klingel chat register telegram bot_0198c5…
```
""",
)
register = App(
    name="register",
    help="Tell a platform where a bot is, and which commands it takes. Again as often as you like.",
    help_epilogue="""
The platform's token is read from the environment, goes to the platform alone, and is not printed.
""",
)
app.command(register)

TIMEOUT: Final = httpx.Timeout(30, connect=10)
HIDDEN: Final = "…"
# Where platforms say in words what was wrong.
REASONS: Final = ("description", "message", "error", "detail")

DISCORD_TOKEN: Final = "DISCORD_BOT_TOKEN"  # noqa: S105 - a variable's name
TELEGRAM_TOKEN: Final = "TELEGRAM_BOT_TOKEN"  # noqa: S105


@register.command
def discord(
    bot: str,
    /,
    *,
    guild: Annotated[
        str | None, Parameter(help="Only there, and at once; everywhere it may take a while.")
    ] = None,
    session: Given,
) -> None:
    """Give the application its slash command, and the address at which it is asked. DISCORD_BOT_TOKEN holds its token."""
    # Beside the other commands this is slow to load.
    from handlers.chat.discord import USER_AGENT, commands  # noqa: PLC0415

    shown, token = bot_on(session, "discord", bot), token_of(session, DISCORD_TOKEN)
    config = shown["config"]
    base = f"{config['server'].rstrip('/')}/api/v10/applications"
    headers = {"authorization": f"Bot {token}", "user-agent": USER_AGENT}
    ours = tell_platform(session, "GET", f"{base}/@me", token=token, headers=headers)
    if (ours["id"], ours["verify_key"]) != (config["application_id"], config["public_key"].lower()):
        raise UsageError(
            f"{DISCORD_TOKEN} is of the application {ours['id']} with the public key {ours['verify_key']}, "
            f"but {bot} has application_id={config['application_id']} public_key={config['public_key']}"
        )
    place = f"/guilds/{guild}" if guild else ""
    path = f"{base}/{config['application_id']}{place}/commands"
    told = tell_platform(session, "PUT", path, token=token, headers=headers, body=commands())
    names = ", ".join(f"/{one['name']}" for one in told)
    session.note(f"Commands: {names}")
    address = {"interactions_endpoint_url": shown["url"]}
    tell_platform(session, "PATCH", f"{base}/@me", token=token, headers=headers, body=address)
    session.note(f"Discord asks at {shown['url']}")


@register.command
def telegram(bot: str, /, *, session: Given) -> None:
    """Tell Telegram where the bot is, and which commands it takes. TELEGRAM_BOT_TOKEN holds its token."""
    from handlers.chat.telegram import UPDATES, commands, webhook_secret  # noqa: PLC0415

    shown, token = bot_on(session, "telegram", bot), token_of(session, TELEGRAM_TOKEN)
    config = shown["config"]
    base = f"{config['server'].rstrip('/')}/bot{token}"

    def call(method: str, **body: object) -> Any:
        answer = tell_platform(session, "POST", f"{base}/{method}", token=token, body=body)
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            raise refusal(200, answer, token=token)
        return answer["result"]

    username = call("getMe")["username"]
    if username.lower() != config["username"].lower():
        raise UsageError(f"{TELEGRAM_TOKEN} is of @{username}, but {bot} has username={config['username']}")
    call("setMyCommands", commands=commands())
    call("setWebhook", url=shown["url"], secret_token=webhook_secret(token), allowed_updates=UPDATES)
    session.note(f"@{username} is asked at {shown['url']}")


def bot_on(session: Session, platform: str, bot_id: str) -> View:
    """The bot as Klingel shows it, with its `url`.

    Raises:
        UsageError: it is on another platform.
    """
    bot: View = session.api.get("bots", bot_id)
    if bot["platform"] != platform:
        raise UsageError(f"{bot_id} is a bot on {bot['platform']}, not on {platform}")
    return bot


def token_of(session: Session, variable: str) -> str:
    """
    Raises:
        UsageError: the environment has none.
    """
    if not (token := session.environ.get(variable, "").strip()):
        raise UsageError(f"{variable} is not set: the platform's token is read from there")
    return token


def tell_platform(
    session: Session,
    method: str,
    url: str,
    *,
    token: str,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> Any:
    """The JSON of its answer (None: it said nothing), if its status is one of success; whether it means success is for the caller to judge.

    Args:
        token: wherever it goes in; it is kept out of what is printed.

    Raises:
        Refused, Unreachable.
    """
    try:
        with httpx.Client(transport=session.platform_transport, timeout=TIMEOUT) as client:
            response = client.request(method, url, headers=headers, json=body)
    except httpx.RequestError as error:
        reason = (str(error) or type(error).__name__).replace(token, HIDDEN)
        raise Unreachable(f"{httpx.URL(url).host}: {reason}") from None
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not response.is_success or (answer is None and response.content):
        raise refusal(response.status_code, answer, token=token)
    return answer


def refusal(status: int, answer: object, *, token: str) -> Refused:
    """A platform's no, as the client commands show one."""
    said = answer if isinstance(answer, dict) else {}
    words = [str(said[name]) for name in REASONS if said.get(name)]
    detail = "\n".join(words) or "It gave no reason."
    return Refused(status, {"title": "The platform refused", "detail": detail.replace(token, HIDDEN)})
