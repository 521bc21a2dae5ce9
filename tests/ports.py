"""Ports of this machine that a server of a test may have, and keep while it is started again."""

import random
import socket
from typing import Final

# Below those that the system hands out to whoever does not name one: in a pause of its server one of those would go to somebody
# else.
_OURS: Final = range(15_000, 30_000)


def free_port() -> int:
    """Nobody listens there now, and nobody else is likely to."""
    while True:
        port = random.choice(_OURS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
