"""Who guesses keys and callback URLs: failures counted for each address. What is genuine is let in all the same."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import HTTPConnection

KEYS: Final = 100  # wrong API keys before an address is told to wait
TOKENS: Final = 500  # wrong callback URLs: a provider that calls back for deleted tasks is no guesser
REFILL_S: Final = 2.0  # and one more each so many seconds
ADDRESSES: Final = 10_000  # remembered; the one not seen for longest is forgotten first


class Guesses:
    """
    Args:
        burst: failures before an address is told to wait.
        monotonic: seconds that only grow.
    """

    def __init__(self, *, burst: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._monotonic = monotonic
        self._spent: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # failures, and when they were counted

    def failed(self, request: HTTPConnection[Any]) -> None:
        """Another one."""
        address = _address(request)
        self._spent[address] = (self._failures(address) + 1, self._monotonic())
        self._spent.move_to_end(address)
        if len(self._spent) > ADDRESSES:
            self._spent.popitem(last=False)

    def wait(self, request: HTTPConnection[Any]) -> float:
        """Seconds until this address may fail again; 0 if it may now."""
        return max(self._failures(_address(request)) - self._burst + 1, 0) * REFILL_S

    def _failures(self, address: str) -> float:
        failures, at = self._spent.get(address, (0.0, 0.0))
        return max(failures - (self._monotonic() - at) / REFILL_S, 0)


def _address(request: HTTPConnection[Any]) -> str:
    """The peer's; of IPv6 its /64, which is what one customer has at the least."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
