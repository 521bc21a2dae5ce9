"""The outside world, fast enough not to be the limit: receivers of webhooks, and a provider that takes creates.

`python -m benchmarks.outside PORTS` listens on that many ports and prints them. On each of them:

- `POST /hook…` is a webhook: noted with its moment, answered 200
- `POST /silent` is never answered, nor is `POST /hook…` after `PUT /silence` and until `PUT /answers`
- any other `POST` is a create: accepted after as long as a provider takes
- `GET /counted`, `GET /arrivals`, `GET /created` tell what came; `DELETE /` forgets it
"""

import asyncio
import json
import sys
import time
from typing import Any, Final, cast
from uuid import uuid4

import uvloop

CREATE_TAKES_S: Final = 0.25
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Seen:
    """What came, on all ports."""

    def __init__(self) -> None:
        self.webhooks: list[tuple[float, bytes, bytes]] = []  # when, head, body
        self.created: bytes = b""  # the last create
        self.is_silent = False

    def forget(self) -> None:
        self.webhooks = []

    def counted(self) -> dict[str, float]:
        distinct = {(_id(head), _field(head, b"host")) for _, head, _ in self.webhooks}
        first = self.webhooks[0][0] if self.webhooks else 0
        return {"arrived": len(self.webhooks), "distinct": len(distinct), "first": first}

    def arrivals(self) -> list[dict[str, Any]]:
        return [{"at": at, "head": head.decode(), "body": body.decode()} for at, head, body in self.webhooks]


def _field(head: bytes, name: bytes) -> bytes:
    """The name in lower case."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    return head[start + len(name) + 3 : head.index(b"\r\n", start + 2)].strip()


def _id(head: bytes) -> bytes:
    return _field(head, b"webhook-id")


class Exchange(asyncio.Protocol):
    """One connection: just enough HTTP for clients that we know."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            whole = end + 4 + int(_field(head, b"content-length") or 0)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /hook") and not self._seen.is_silent:
            self._seen.webhooks.append((time.time(), head, body))
            self._transport.write(OK)
        elif head.startswith((b"POST /hook", b"POST /silent")):
            pass
        elif head.startswith(b"POST "):
            self._seen.created = body
            asyncio.get_running_loop().call_later(CREATE_TAKES_S, self._accept)
        elif head.startswith(b"DELETE "):
            self._seen.forget()
            self._transport.write(OK)
        elif head.startswith(b"PUT "):
            self._seen.is_silent = head.startswith(b"PUT /silence")
            self._transport.write(OK)
        elif head.startswith(b"GET /counted"):
            self._tell(self._seen.counted())
        elif head.startswith(b"GET /arrivals"):
            self._tell(self._seen.arrivals())
        else:
            self._tell(json.loads(self._seen.created))

    def _accept(self) -> None:
        if self._transport.is_closing():
            return
        data = {"task_id": uuid4().hex, "task_status": "submitted", "created_at": round(time.time() * 1000)}
        self._tell({"code": 0, "message": "SUCCEED", "request_id": uuid4().hex, "data": data})

    def _tell(self, document: object) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def main() -> None:
    seen = Seen()
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: Exchange(seen), "127.0.0.1", 0, backlog=1024)
        for _ in range(int(sys.argv[1]))
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
