"""What Kling sends back: read by whoever knows where it was sent to, with no account at the provider."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from handlers.providers.kling.reports import read_report
from service.domain.signatures import verifies
from service.domain.tasks import Report


class KlingCallbacks:
    """
    Args:
        webhook_secrets: `whsec_…`; with none, callbacks are told apart by their URL alone.
    """

    def __init__(self, name: str, *, webhook_secrets: Sequence[str] = ()) -> None:
        self.name = name
        self._webhook_secrets = tuple(webhook_secrets)

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> bool:
        """Whether a callback's signature is the provider's; True when no secret is set."""
        named = {name.lower(): value for name, value in headers.items()}
        return not self._webhook_secrets or verifies(named, body, secrets=self._webhook_secrets, now=now)

    def parse(self, body: bytes) -> Report:
        """
        Raises:
            Unreadable: a ValueError whose message says why no task can be read from it.
        """
        return read_report(body)
