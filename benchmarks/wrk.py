"""Closed loop: as many connections, each of which sends its next request when the last one is answered. Sent by wrk."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import LOAD, needed, pinned, processor_s
from benchmarks.processes import Server

SCRIPT: Final = Path(__file__).with_name("requests.lua")


@dataclass(frozen=True, slots=True)
class Pressed:
    """
    Args:
        answered: with a status below 400.
        processor_s: that the server ran for it.
    """

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    processor_s: float

    @property
    def each_us(self) -> float:
        """Of the server's processor time."""
        return self.processor_s / self.answered * 1e6

    @property
    def a_second(self) -> float:
        return self.answered / self.seconds


def post(port: int, path: str, body: bytes, **headers: str) -> bytes:
    """A request as it goes over the wire."""
    return _request("POST", port, path, {**headers, "content-length": str(len(body))}) + body


def get(port: int, path: str, **headers: str) -> bytes:
    return _request("GET", port, path, headers)


def _request(method: str, port: int, path: str, headers: dict[str, str]) -> bytes:
    fields = {"host": f"127.0.0.1:{port}", "content-type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def press(
    server: Server, requests: Sequence[bytes], *, connections: int, seconds: float, once: bool = False
) -> Pressed:
    """
    Args:
        once: no request may be sent twice, so there have to be more than are answered in this time.
    """
    with tempfile.NamedTemporaryFile(prefix="klingel-bench-") as file:
        file.write(b"".join(request + b"\0" for request in requests))
        file.flush()
        command = [
            needed("wrk", "wrk"), "--threads=1", f"--connections={connections}", f"--duration={round(seconds)}s",
            "--timeout=30s", f"--script={SCRIPT}", f"http://127.0.0.1:{server.port}/", "--", file.name,
        ]  # fmt: skip
        before = processor_s(server.pid)
        done = subprocess.run(pinned([LOAD], command), capture_output=True, text=True, check=True)
        ran = processor_s(server.pid) - before
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["refused"], done.stdout
    assert not told["broken"], done.stdout
    if once:
        assert told["answered"] + connections < len(requests), f"more than {len(requests)} were wanted"
    return Pressed(told["answered"], told["seconds"], told["p50_ms"], told["p99_ms"], ran)
