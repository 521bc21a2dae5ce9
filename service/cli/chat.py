"""`klingel chat`: what a platform must be told of a bot, from the machine of whoever holds the platform's token."""

from collections.abc import Mapping
from typing import Any, Final

import httpx
from cyclopts import App

from service.cli.client import Refused, Unreachable, View
from service.cli.session import Session, UsageError

app = App(name="chat", help="Tell a chat platform about a bot.")
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
