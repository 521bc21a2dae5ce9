"""A command of ours as a real process, whose printed lines can be waited for."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import IO, Final, TypeVar

ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = Path(sys.executable).parent
PATIENCE_S: Final = 90  # for what never comes; no test waits for it to pass
SOON_S: Final = 60  # for one that does not stop when it is told to; no test waits for it to pass

T = TypeVar("T")


def surroundings(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """An environment with none of the settings of whoever runs the tests."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", **more}


def run(
    *command: str | Path, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, whatever its exit code."""
    return subprocess.run(
        command,
        cwd=folder,
        env=surroundings(folder, environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def until(holds: Callable[[], T], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """What `holds` gives once that is true: for what gives no signal that could be waited for."""
    deadline = time.monotonic() + patience_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return value


class Process:
    """Use `running`."""

    def __init__(self, *command: str | Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.output: list[str] = []  # lines of standard output
        self.errors: list[str] = []  # lines of standard error
        self._changed = Condition()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=surroundings(folder, environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        streams = ((self._process.stdout, self.output), (self._process.stderr, self.errors))
        self._readers = [Thread(target=self._read, args=stream, daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def until(self, holds: Callable[[], T], what: str) -> T:
        """What `holds` gives once that is true; asked again after each line that the process prints."""
        found: list[T] = []

        def settled() -> bool:
            if value := holds():
                found.append(value)
            return bool(found) or not any(reader.is_alive() for reader in self._readers)

        with self._changed:
            self._changed.wait_for(settled, timeout=PATIENCE_S)
        assert found, "\n".join([f"never came: {what}", *self.output, *self.errors])
        return found[0]

    def says(self, pattern: str) -> re.Match[str]:
        """The first line of its output that has this in it, once it was printed."""
        return self.until(
            lambda: next(filter(None, (re.search(pattern, line) for line in self.output)), None), pattern
        )

    def ends(self) -> int:
        """Its exit code, once it has ended by itself and everything that it printed was read."""
        code = self._process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code, once it has stopped."""
        self._process.send_signal(by)
        try:
            self._process.wait(SOON_S)
        except subprocess.TimeoutExpired:
            raise AssertionError("\n".join(["did not stop", *self.output, *self.errors])) from None
        return self.ends()

    def _clean_up(self) -> None:
        try:
            if not self.has_ended:
                self.stop()
        finally:
            if not self.has_ended:
                os.killpg(self._process.pid, signal.SIGKILL)
                self.ends()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()


@contextmanager
def running(
    *command: str | Path, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Ended with the block, whatever happens in it."""
    process = Process(*command, folder=folder, environment=environment or {})
    try:
        yield process
    finally:
        process._clean_up()
