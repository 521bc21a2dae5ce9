"""Reads Kling's callbacks. It needs no account there: tasks may be with one that is not configured any more."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from handlers.providers.kling.reports import read_report
from service.domain.signatures import verifies
from service.domain.tasks import Report


class KlingCallbacks:
    """Reads the callbacks of one account at Kling.

    Args:
        webhook_secrets: `whsec_…`; without any no signature is asked for, and the callback's URL alone proves it.
    """

    def __init__(self, name: str, *, webhook_secrets: Sequence[str] = ()) -> None:
        self.name = name
        self._webhook_secrets = tuple(webhook_secrets)

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> bool:
        """Whether a callback's signature is the provider's; True when no secret is set."""
        if not self._webhook_secrets:
            return True
        named = {name.lower(): value for name, value in headers.items()}
        return verifies(named, body, secrets=self._webhook_secrets, now=now)

    def parse(self, body: bytes) -> Report:
        """
        Raises:
            Unreadable: a ValueError whose message says why no task can be read from it.
        """
        return read_report(body)


def callback_readers(webhook_secrets: Mapping[str, Sequence[str]]) -> Callable[[str], KlingCallbacks]:
    """The reader of each account by its name; for a name that is not configured, one without secrets.

    Args:
        webhook_secrets: of each account that is configured.
    """
    known = {name: KlingCallbacks(name, webhook_secrets=secrets) for name, secrets in webhook_secrets.items()}
    return lambda name: known.get(name) or KlingCallbacks(name)
