"""Provider messages made fit to show: bounded, and without what must not be shown."""

import re
from collections.abc import Callable
from typing import Final

MAX_MESSAGE_LENGTH: Final = 500
SHORTEST_SECRET: Final = 8  # anything shorter is a word, not a secret
REPLACEMENT: Final = "[redacted]"

Redact = Callable[[str], str]


def redactor(*, authorization: str, callback_url: str | None = None) -> Redact:
    """As `hider`, and gives at most 500 characters."""
    hide = hider(authorization=authorization, callback_url=callback_url)

    def redact(message: str) -> str:
        shown = hide(message)
        return shown if len(shown) <= MAX_MESSAGE_LENGTH else shown[: MAX_MESSAGE_LENGTH - 1] + "…"

    return redact


def hider(*, authorization: str, callback_url: str | None = None) -> Redact:
    """Gives all, in which the credential, the callback URL and its token are hidden.

    Args:
        authorization: the header's value as sent; what follows its last space is the credential.
        callback_url: its last segment is the token, hidden also where it stands alone or the URL is cut short.
    """
    stem, _, token = (callback_url or "").rstrip("/").rpartition("/")
    secrets = [authorization.rpartition(" ")[2], token]
    hidden = [re.escape(secret) for secret in secrets if len(secret) >= SHORTEST_SECRET]
    if len(stem) >= SHORTEST_SECRET:
        hidden.insert(0, re.escape(stem) + r"[^\s\"'<>]*")

    def hide(message: str) -> str:
        # Compiled here, for few answers have anything to be shown, and each callback URL is a pattern of its own.
        return re.compile("|".join(hidden) or r"(?!)", re.IGNORECASE).sub(REPLACEMENT, message)

    return hide
