"""A PostgreSQL server of its own, with its usual promises kept: what is committed is on disk. On the core of the load."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.stores import opened
from tests.postgres import Server, programs

# What one gives a server of this size; all that durability is about is as it comes.
OPTIONS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
}


def version() -> str:
    """In its own words."""
    folder = programs()
    if folder is None:
        return "no PostgreSQL"
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.strip().replace("postgres (PostgreSQL)", "PostgreSQL")


@contextmanager
def postgres() -> Iterator[Callable[[], str]]:
    """Gives the URLs of new databases. It runs on the core on which this process runs."""
    with tempfile.TemporaryDirectory(prefix="klingel-bench-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # where we are root it runs as nobody
        server = Server(folder, options=OPTIONS)
        server.start()
        numbers = count(1)

        def new_database() -> str:
            made = f"bench_{next(numbers)}"
            with opened(server.url()) as store:
                store.run(f"create database {made}")
            return server.url(made)

        try:
            yield new_database
        finally:
            server.stop()
