"""Listeners to an account's event stream: `python -m benchmarks.listeners PORT KEY NUMBER`.

Prints a line when all of them have the head of their answer. After each line of input it prints what they have heard since: for each
event its own moment, how many got it, and when the last of them did.
"""

import asyncio
import json
import re
import resource
import sys
import time
from datetime import datetime
from typing import Final, cast

import uvloop

FRAME: Final = re.compile(rb"id: (\S+)\r?\n(?:event: [^\n]*\n)?data: ([^\r\n]*)\r?\n\r?\n")
OPENED_AT_ONCE: Final = 50


class Heard:
    """By event: its own moment, how many got it, when the last one did."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._answered = 0
        self.all_answered = asyncio.Event()
        self.events: dict[bytes, tuple[float, int, float]] = {}

    def answered(self) -> None:
        self._answered += 1
        if self._answered == self._wanted:
            self.all_answered.set()

    def frame(self, event_id: bytes, data: bytes) -> None:
        now = time.time()
        known = self.events.get(event_id)
        if known is None:
            known = (datetime.fromisoformat(json.loads(data)["timestamp"]).timestamp(), 0, now)
        self.events[event_id] = (known[0], known[1] + 1, now)

    def told(self) -> str:
        shown, self.events = list(self.events.values()), {}
        return json.dumps(shown)


class Listener(asyncio.Protocol):
    def __init__(self, request: bytes, heard: Heard) -> None:
        self._request = request
        self._heard = heard
        self._buffer = b""
        self._in_head = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._in_head:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            assert b" 200 " in head.partition(b"\r\n")[0], head
            self._in_head = False
            self._heard.answered()
        end_of_last = 0
        for frame in FRAME.finditer(self._buffer):
            self._heard.frame(frame[1], frame[2])
            end_of_last = frame.end()
        self._buffer = self._buffer[end_of_last:]


async def main(port: int, key: str, number: int) -> None:
    loop = asyncio.get_running_loop()
    heard = Heard(number)
    request = (
        f"GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        "accept: text/event-stream\r\n\r\n"
    ).encode()
    gate = asyncio.Semaphore(OPENED_AT_ONCE)

    async def listen() -> None:
        async with gate:
            await loop.create_connection(lambda: Listener(request, heard), "127.0.0.1", port)

    await asyncio.gather(*(listen() for _ in range(number)))
    await heard.all_answered.wait()
    print("listening", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(heard.told(), flush=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
