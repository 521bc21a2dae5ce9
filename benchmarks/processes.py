"""Real processes, started as users start them, each on the core that is its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from benchmarks.machine import LOAD, SERVERS, pinned, resident_mib
from benchmarks.stores import opened

ROOT: Final = Path(__file__).parents[1]
KLINGEL: Final = Path(sys.executable).with_name("klingel")
KEY: Final = "the-benchmarks-admin-key"
SECRET: Final = "the-benchmarks-secret"
PATIENCE_S: Final = 60
START_S: Final = 600  # at most, and that only behind what slows it down
FOREVER_S: Final = 2_000_000


def until(
    holds: Callable[[], bool], what: str, *, patience_s: float = PATIENCE_S, pause_s: float = 0.02
) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(pause_s)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, **how) as process:
        try:
            yield process
        finally:
            process.kill()


class Outside:
    """Receivers and a provider: see `benchmarks.outside`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports[0]}"
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE_S)

    def close(self) -> None:
        self._client.close()

    def hooks(self, number: int) -> list[str]:
        """URLs at as many hosts."""
        return [f"http://127.0.0.1:{port}/hook" for port in self.ports[:number]]

    def distinct(self) -> int:
        """How many webhooks came, each counted once."""
        number: int = self._ask("/counted")["distinct"]
        return number

    def arrived(self) -> int:
        number: int = self._ask("/counted")["arrived"]
        return number

    def span(self) -> float:
        """Seconds since the first webhook came."""
        first: float = self._ask("/counted")["first"]
        return time.time() - first

    def arrivals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("/arrivals")
        return found

    def created(self) -> dict[str, Any]:
        """What the provider was last sent."""
        found: dict[str, Any] = self._ask("/created")
        return found

    def answers(self, *, whether: bool) -> None:
        self._client.put("/answers" if whether else "/silence")

    def forget(self) -> None:
        self._client.delete("/")

    def _ask(self, path: str) -> Any:
        return self._client.get(path).json()


@contextmanager
def outside(*, hosts: int = 8) -> Iterator[Outside]:
    command = [sys.executable, "-m", "benchmarks.outside", str(hosts)]
    with started(pinned([LOAD], command), cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        one = Outside(json.loads(process.stdout.readline()))
        try:
            yield one
        finally:
            one.close()


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and who it is."""

    port: int
    pid: int


@contextmanager
def bare(*, under: Sequence[str] = ()) -> Iterator[Server]:
    """The baseline.

    Args:
        under: what its command is put behind.
    """
    port = free_port()
    command = [*under, sys.executable, "-m", "benchmarks.bare", str(port)]
    with started(pinned([SERVERS], command), cwd=ROOT) as process:
        until(lambda: _listens(port), "the baseline", patience_s=START_S)
        yield Server(port, process.pid)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Klingel:
    """`klingel serve` on a folder of its own. Its log goes to a file, as under any supervisor."""

    def __init__(
        self,
        folder: Path,
        outside: Outside,
        *,
        cores: Sequence[int] = (SERVERS,),
        under: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """
        Args:
            cores: on which it may run.
            under: what its command is put behind.
        """
        self.folder = folder
        self._cores = cores
        self._under = under
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "PYTHONPATH": str(
                ROOT
            ),  # the Klingel beside these benchmarks, wherever another one may be installed
            "PORT": str(self.port),
            "KLINGEL_API_KEY": KEY,
            "KLINGEL_SECRET": SECRET,
            "KLINGEL_DATA_DIR": str(folder),
            "KLINGEL_PROVIDER": "sandbox",
            "KLINGEL_PROVIDER_URL": outside.url,
            "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
            # Keeping outputs would fetch each of them: the network's speed, not Klingel's.
            "KLINGEL_STORE_URL": "none:",
            "KLINGEL_DEADLINE_IMAGE": str(FOREVER_S),
            **settings,
        }
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=PATIENCE_S,
            trust_env=False,
        )

    @property
    def database(self) -> str:
        """As `KLINGEL_DATABASE_URL`."""
        return self._settings.get("KLINGEL_DATABASE_URL", f"sqlite:///{self.folder / 'klingel.db'}")

    def start(self, **settings: str) -> float:
        """Seconds until it was ready."""
        began = time.perf_counter()
        with (self.folder / "klingel.log").open("ab") as log:
            self.process = subprocess.Popen(
                pinned(self._cores, [*self._under, sys.executable, KLINGEL, "serve"]),
                cwd=self.folder,
                env=self._settings | settings,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        until(self._is_ready, "readiness", patience_s=START_S, pause_s=0.005)
        return time.perf_counter() - began

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()[-3000:]
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, by: Literal[signal.Signals.SIGTERM, signal.Signals.SIGKILL] = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait(PATIENCE_S)
            self.process = None

    def log(self) -> str:
        return (self.folder / "klingel.log").read_text()

    @property
    def server(self) -> Server:
        assert self.process is not None
        return Server(self.port, self.process.pid)

    def memory_mib(self) -> float:
        return resident_mib(self.server.pid)

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self.client.request(method, path, json=body or None)
        assert answer.is_success, f"{answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def subscribe(self, *urls: str) -> list[str]:
        return [self.call("POST", "/v1/endpoints", config={"url": url})["id"] for url in urls]

    def pending(self) -> bool:
        """Whether a delivery has no outcome yet."""
        with opened(self.database) as store:
            # In the words of their indexes: there may be millions of others.
            free = "select 1 from deliveries where status = 'pending' and lease_until is null and next_attempt_at >= 0"
            leased = "select 1 from deliveries where lease_until is not null"
            return store.one(f"select 1 where exists ({free}) or exists ({leased})") is not None


@contextmanager
def klingel(
    folder: Path,
    outside: Outside,
    *,
    cores: Sequence[int] = (SERVERS,),
    under: Sequence[str] = (),
    **settings: str,
) -> Iterator[Klingel]:
    """Started. Killed with the block, for what it leaves is thrown away."""
    one = Klingel(folder, outside, cores=cores, under=under, **settings)
    try:
        one.start()
        yield one
    finally:
        one.stop(signal.SIGKILL)
        one.client.close()


def authorized() -> Mapping[str, str]:
    return {"authorization": f"Bearer {KEY}"}
