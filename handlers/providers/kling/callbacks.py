"""What Kling sends back: read by whoever knows where it was sent to, with no account at the provider."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from handlers.providers.kling.reports import read_report
from service.domain.signatures import verifies
from service.domain.tasks import Report


class CallbackReaders(Mapping[str, "KlingCallbacks"]):
    """Of every account that is configured, and of any other name: tasks may be with one that was so before. What
    comes for these is told apart by its URL alone.

    Args:
        webhook_secrets: of each that is configured.
    """

    def __init__(self, webhook_secrets: Mapping[str, Sequence[str]]) -> None:
        self._known = {
            name: KlingCallbacks(name, webhook_secrets=secrets) for name, secrets in webhook_secrets.items()
        }

    def __getitem__(self, name: str) -> "KlingCallbacks":
        return self._known.get(name) or KlingCallbacks(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


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
