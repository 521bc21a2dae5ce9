"""Open loop: requests go out at moments that were drawn before, whatever became of those before them.

Times count from the drawn moment, so that a server that stalls is not spared the requests that it kept from being sent.
Two threads with plain sockets: an event loop's timers are a millisecond coarse.
"""

import random
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Final

from benchmarks.processes import Server

# As many as requests a second: one on which nothing is asked for ten seconds is cut off.
LEAST_CONNECTIONS: Final = 8
MOST_CONNECTIONS: Final = 256


@dataclass(slots=True)
class Sent:
    """One request; moments as by `time.time`.

    Args:
        meant: when it was to go out.
    """

    meant: float
    left: float = 0.0
    answered: float = 0.0

    @property
    def took_ms(self) -> float:
        return (self.answered - self.meant) * 1000

    @property
    def late_ms(self) -> float:
        """By which the generator itself was late, or had no connection left."""
        return (self.left - self.meant) * 1000


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    number: int = 0  # of the request on its way
    received: bytes = b""


def send(server: Server, requests: Sequence[bytes], *, a_second: float, seed: int = 1) -> list[Sent]:
    """Each once; arrivals are independent of each other (exponential gaps). Each must be answered 2xx."""
    randomness = random.Random(seed)
    idle: SimpleQueue[_Connection] = SimpleQueue()
    selector = selectors.DefaultSelector()
    for _ in range(min(max(round(a_second), LEAST_CONNECTIONS), MOST_CONNECTIONS)):
        connection = _Connection(socket.create_connection(("127.0.0.1", server.port)))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        idle.put(connection)
    moment = time.time() + 0.1
    sent: list[Sent] = []
    for _ in requests:
        moment += randomness.expovariate(a_second)
        sent.append(Sent(moment))
    refused: list[bytes] = []
    reader = Thread(target=_read, args=(selector, idle, sent, refused))
    reader.start()
    for number, request in enumerate(requests):
        if (wait := sent[number].meant - time.time()) > 0:
            time.sleep(wait)
        connection = idle.get()
        connection.number = number
        sent[number].left = time.time()
        connection.socket.sendall(request)
    reader.join()
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    selector.close()
    assert not refused, refused[0]
    return sent


def _read(
    selector: selectors.BaseSelector,
    idle: "SimpleQueue[_Connection]",
    sent: Sequence[Sent],
    refused: list[bytes],
) -> None:
    left = len(sent)
    while left:
        for key, _ in selector.select():
            connection: _Connection = key.data
            piece = connection.socket.recv(65536)
            assert piece, "a connection was closed"
            connection.received += piece
            head, end, body = connection.received.partition(b"\r\n\r\n")
            if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
                continue
            sent[connection.number].answered = time.time()
            if not head.startswith(b"HTTP/1.1 2"):
                refused.append(connection.received)
            connection.received = b""
            left -= 1
            idle.put(connection)
