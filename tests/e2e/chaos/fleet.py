"""The same world around many processes on one PostgreSQL: three that take in and two that send, behind a balancer."""

import asyncio
import random
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.processes import LASTS
from tests.e2e.chaos.world import READY_S, Moment, World, is_ready, metrics_of
from tests.ports import free_port
from tests.postgres import OPTIONS, Server

WEBS: Final = 3
DISPATCHERS: Final = 2
# As an operator's: what it has answered for is on its disk.
ON_DISK: Final = {**OPTIONS, "fsync": "on", "full_page_writes": "on"}
OF_DISPATCHERS: Final = {
    Moment.CREATE_ARRIVED,
    Moment.CREATE_ANSWERED,
    Moment.DELIVERY_ARRIVED,
    Moment.DELIVERY_ANSWERED,
}
OF_WEBS: Final = {Moment.CALLBACK_SENT, Moment.CALLBACK_ANSWERED, Moment.SUBMIT_SENT}
STALLED_S: Final = LASTS.total_seconds() + 7
STOPS: Final = {Moment.DATABASE_RESTARTS: "fast", Moment.DATABASE_CRASHES: "immediate"}


@dataclass
class Member:
    """One process, on the port that it has in all its lives."""

    role: str
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Fleet(World):
    """Clients and the provider know one address. What is killed is started again, as a supervisor does it."""

    def __init__(
        self,
        folder: Path,
        randomness: random.Random,
        server: Server,
        *,
        webs: int = WEBS,
        dispatchers: int = DISPATCHERS,
    ) -> None:
        super().__init__(folder, randomness)
        self._server = server
        self._members = [Member(role, free_port()) for role in ("web",) * webs + ("dispatch",) * dispatchers]
        self._settings: Mapping[str, str] = {}
        self._was_killed = False
        self._restarting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        balancer = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = balancer.sockets[0].getsockname()[1]
        try:
            async with super().running():
                try:
                    yield self
                finally:
                    for member in self._members:
                        if member.process is not None:
                            member.process.kill()
                            await asyncio.to_thread(member.process.wait)
        finally:
            balancer.close()

    async def start(self, **settings: str) -> None:
        """Until there is somebody to take in and somebody to send; the others may still be on their way."""
        self._was_killed = False
        self._settings = settings

        async def some_are_ready() -> bool:
            self._supervise()
            ready = {member.role for member in self._members if await is_ready(member.port)}
            return ready >= {"web", "dispatch"}

        log = self.folder / "klingel.log"
        assert await self.until(some_are_ready, READY_S), log.read_text()[-3000:]

    def _supervise(self) -> None:
        """One that finds no database when it starts says so and ends; whoever supervises it starts it again."""
        for member in self._members:
            if not member.runs:
                member.process = self._spawn(member, **self._settings)

    def _spawn(self, member: Member, **settings: str) -> "subprocess.Popen[bytes]":
        return self.spawn(
            member.port,
            KLINGEL_DATABASE_URL=self._server.url(),
            KLINGEL_SECRET="the-chaos-harness-s-secret",
            KLINGEL_PUBLIC_URL=f"http://127.0.0.1:{self.port}",
            KLINGEL_ROLES=member.role,
            **settings,
        )

    def kill(self) -> None:
        """One, once in a life."""
        if self._was_killed:
            return
        self._was_killed = True
        if (mode := STOPS.get(self.moment)) is not None:
            self._restarting = asyncio.create_task(asyncio.to_thread(self._restart, mode))
            return
        victims = [member for member in self._victims() if member.runs]
        if not victims:
            return
        process = self.random.choice(victims).process
        assert process is not None
        if self.moment is Moment.STALLS:
            process.send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(STALLED_S, process.send_signal, signal.SIGCONT)
        else:
            process.send_signal(signal.SIGKILL)

    def _victims(self) -> Sequence[Member]:
        if self.moment in OF_DISPATCHERS:
            return [member for member in self._members if member.role == "dispatch"]
        if self.moment in OF_WEBS:
            return [member for member in self._members if member.role == "web"]
        return self._members

    def _restart(self, mode: str) -> None:
        self._server.stop(mode)
        self._server.start()

    async def death(self) -> None:
        if self._restarting is not None:
            await self._restarting
            self._restarting = None

    async def metrics(self) -> str:
        async def ready() -> bool:
            self._supervise()
            return all([await is_ready(member.port) for member in self._members])

        log = self.folder / "klingel.log"
        assert await self.until(ready, READY_S), f"{self._standing()}\n{log.read_text()[-3000:]}"
        return "\n".join([await metrics_of(member.port) for member in self._members])

    def _standing(self) -> str:
        return ", ".join(
            f"{member.role} at {member.port}: {'runs' if member.runs else 'has ended'}"
            for member in self._members
        )

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, to any that takes it."""
        webs = [member for member in self._members if member.role == "web"]
        for member in self.random.sample(webs, len(webs)):
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", member.port)
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
                return
        writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()
    with suppress(OSError):
        sink.close()


@contextmanager
def running_server() -> Iterator[Server]:
    """Of its own, in a folder that whoever PostgreSQL runs as finds its way to."""
    with tempfile.TemporaryDirectory(prefix="klingel-chaos-") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder), options=ON_DISK)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
