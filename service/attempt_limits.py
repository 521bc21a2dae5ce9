"""How many attempts run at a time at one host, for one account, or of one kind: across lanes, each of which has a limit
of its own.
"""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Generic, TypeVar

from service.domain.deliveries import Duty
from service.domain.ids import AccountId
from service.domain.kept import ARCHIVE

# So that no host and no account, however many endpoints it has, takes all that Klingel can do at a time, and no account all
# that a host is asked for.
ATTEMPTS_OF_A_HOST: Final = 64
ATTEMPTS_OF_AN_ACCOUNT_THERE: Final = 32  # at one host
ATTEMPTS_OF_AN_ACCOUNT: Final = 128
# Fetching an output takes minutes where a provider's CDN is slow, and then it is slow for all accounts: it can have so few
# of all attempts that webhooks do not miss them, and one account no more than a quarter of these.
DOWNLOADS: Final = 16
DOWNLOADS_OF_AN_ACCOUNT: Final = 4

Waiter = TypeVar("Waiter")  # what waits for a place: a lane


class Limit(Generic[Waiter]):
    """How many attempts may run at a time at one host, of one account, of both, or of a kind; and the lanes that wait
    until one of these attempts has ended.
    """

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self._most = most
        self.active = 0
        self.waiting: deque[Waiter] = deque()

    @property
    def is_reached(self) -> bool:
        return self.active >= self._most


class AttemptLimits(Generic[Waiter]):
    """The limits at which attempts are counted now, or for which lanes wait; each attempt is counted at several."""

    def __init__(self, *, of_a_host: int, of_an_account_there: int, of_an_account: int) -> None:
        self._of_a_host = of_a_host
        self._of_an_account_there = of_an_account_there
        self._of_an_account = of_an_account
        self._in_use: dict[str, Limit[Waiter]] = {}
        self._named = lru_cache(maxsize=1024)(self._name)

    def __len__(self) -> int:
        return len(self._in_use)

    def of(self, duty: Duty) -> Sequence[Limit[Waiter]]:
        """Those at which an attempt of this duty is counted."""
        endpoint = duty.endpoint
        named = self._named(endpoint.account_id, endpoint.shown_host, endpoint.kind)
        return [self._in_use.get(name) or Limit(name, most) for name, most in named]

    def begin(self, limits: Sequence[Limit[Waiter]]) -> None:
        """An attempt is counted at each of these from now on."""
        for limit in limits:
            limit.active += 1
            self._in_use[limit.name] = limit

    def forget_unused(self, limit: Limit[Waiter]) -> None:
        if not limit.active and not limit.waiting:
            del self._in_use[limit.name]

    def _name(self, account: AccountId, host: str, kind: str) -> Sequence[tuple[str, int]]:
        """The names of the limits, and how many attempts each allows."""
        if kind == ARCHIVE:
            return (
                (f"account {account} {kind}", DOWNLOADS_OF_AN_ACCOUNT),
                (kind, DOWNLOADS),
                (f"account {account}", self._of_an_account),
            )
        if not host:  # what others of its kind do is no matter: they may be at other servers
            return (
                (f"account {account} {kind}", self._of_a_host),
                (f"account {account}", self._of_an_account),
            )
        return (
            (f"host {host}", self._of_a_host),
            (f"account {account} host {host}", self._of_an_account_there),
            (f"account {account}", self._of_an_account),
        )
