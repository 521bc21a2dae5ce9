"""Who asks, where somebody passes requests on: X-Forwarded-For is believed of proxies that the operator trusts."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_HOPS: Final = 32  # looked at; who lists more has nothing to tell
_BRACKETED: Final = re.compile(r"\[([^\]]*)\](:[0-9]+)?")


class TrustedProxies:
    """Sets the client of each request to who asked the first proxy that is trusted.

    Each proxy adds at the right end of the header whom it was asked by. What is left of the first address that is
    not trusted was said by somebody who is not: it is not looked at.
    """

    def __init__(self, app: ASGIApp, *, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._networks and scope["type"] == "http" and scope["client"] is not None:
            peer, _ = scope["client"]
            client = self._client(peer, scope["headers"])
            if client != peer:
                # Which port it had nobody tells.
                scope = {**scope, "client": (client, 0)}
        await self._app(scope, receive, send)

    def _client(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        client = _address(peer)
        if client is None:
            return peer
        lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        for hop in reversed(",".join(lines).rsplit(",", MOST_HOPS)[-MOST_HOPS:] if lines else []):
            if not self._is_trusted(client):
                break
            before = _address(hop.strip())
            if before is None:
                break  # a trusted proxy does not know, or says it in a way of its own
            client = before
        return str(client)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    """Also with a port, as some proxies write it."""
    if (bracketed := _BRACKETED.fullmatch(text)) is not None:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
