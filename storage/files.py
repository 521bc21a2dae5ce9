"""Files by the hash of their content: pictures that came as Base64, kept outside the database.

A file is on disk before the task that needs it, and goes again if there will be no such task. Until that is known it is
held: two submits may have the same picture, and the one that is refused must not take it from the other.
"""

import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
from anyio.to_thread import run_sync

from service.domain.errors import StorageUnavailable
from storage.columns import json_text
from storage.database import Database, Reader

DROP_AFTER_S: Final = 24 * 3600
SWEEP_PAGE: Final = 500

_NAME = re.compile(r"[0-9a-f]{64}")
_DRAFT: Final = ".part"

log = structlog.get_logger()


class Files:
    """A folder of content, each file named by its SHA-256. The same content is one file. Blocking: use a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: Counter[str] = Counter()
        self._leaving: set[str] = set()
        # Those of the held ones that were not there before: when they were put, in ns.
        self._made: dict[str, int] = {}
        self._lock = threading.Lock()

    def hold(self, hashes: Collection[str]) -> None:
        """Nothing takes them away until they are released or abandoned, also those that were about to go."""
        with self._lock:
            self._held.update(hashes)
            self._leaving.difference_update(hashes)

    def release(self, hashes: Collection[str]) -> None:
        """Ends a `hold`; a task needs them, or may."""
        with self._lock:
            self._release(hashes)
            for sha256 in hashes:
                if sha256 not in self._held:
                    self._made.pop(sha256, None)

    def abandon(self, hashes: Collection[str]) -> list[str]:
        """Ends a `hold`. Gives those held by nobody else, which `discard` is to judge."""
        with self._lock:
            self._release(hashes)
            left = [sha256 for sha256 in hashes if sha256 not in self._held]
            self._leaving.update(left)
            return left

    def discard(self, left: Iterable[str], *, needed: Collection[str]) -> None:
        """Of those abandoned, the ones that are not needed and that nobody has held since. What another process was the first
        or the last to put is left to `sweep`: it may be about to need it.
        """
        for sha256 in left:
            with self._lock:
                if sha256 in self._leaving:
                    made = self._made.pop(sha256, None)
                    if sha256 not in needed:
                        with suppress(FileNotFoundError):
                            if self._path(sha256).stat().st_mtime_ns == made:
                                self._path(sha256).unlink()
                self._leaving.discard(sha256)

    def _release(self, hashes: Collection[str]) -> None:
        self._held.subtract(hashes)
        self._held = +self._held

    def put(self, sha256: str, content: bytes) -> None:
        """On disk when it returns.

        Raises:
            StorageUnavailable: the disk is full or cannot be written.
        """
        path = self._path(sha256)
        try:
            now = time.time_ns()
            if path.exists():
                # Young again: `drop` leaves it to the task that is about to refer to it.
                os.utime(path, ns=(now, now))
                with self._lock:
                    if sha256 in self._made:
                        self._made[sha256] = now
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=path.parent, suffix=_DRAFT)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.utime(draft, ns=(now, now))
                Path(draft).replace(path)
                with self._lock:
                    self._made[sha256] = now
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageUnavailable(
                f"An input picture cannot be stored right now ({error.strerror})."
            ) from error

    def get(self, sha256: str) -> bytes:
        """
        Raises:
            StorageUnavailable: it is not there, or cannot be read.
        """
        try:
            return self._path(sha256).read_bytes()
        except OSError as error:
            raise StorageUnavailable(f"A stored input picture cannot be read ({error.strerror}).") from error

    def drop(self, hashes: Iterable[str]) -> int:
        """Those neither held nor put within the last day: a younger one may be needed since. Gives how many."""
        dropped = 0
        for sha256 in hashes:
            path = self._path(sha256)
            with self._lock, suppress(FileNotFoundError):
                if sha256 not in self._held and _is_old(path):
                    path.unlink()
                    dropped += 1
        return dropped

    def old(self) -> list[str]:
        """The hashes of all that `drop` would take. What is left of interrupted writing is thrown away meanwhile."""
        found: list[str] = []
        for path in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):
                if not _is_old(path):
                    continue
                if _NAME.fullmatch(path.name):
                    found.append(path.name)
                elif path.suffix == _DRAFT:
                    path.unlink()
        return found

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > DROP_AFTER_S


@asynccontextmanager
async def kept(files: Files, database: Database, contents: Mapping[str, bytes]) -> AsyncIterator[None]:
    """Puts them on disk for the task that the block stores. If it raises, what no task needs goes again at once.

    A block that is cancelled leaves them: what it asked for may yet be stored. `sweep` finds what is left in vain.

    Raises:
        StorageUnavailable: the disk is full or cannot be written.
    """
    if not contents:
        yield
        return

    def put() -> None:
        for sha256, content in contents.items():
            files.put(sha256, content)

    hashes = list(contents)
    files.hold(hashes)
    try:
        await run_sync(put)
        yield
    except Exception:
        await _discard(files, database, files.abandon(hashes))
        raise
    except BaseException:
        files.release(hashes)
        raise
    files.release(hashes)


async def _discard(files: Files, database: Database, left: Collection[str]) -> None:
    """Says in the log what it cannot do: the caller has a fault of its own to tell."""
    needed: Collection[str] = left
    try:
        async with database.reading() as reader:
            needed = await _needed(reader, left)
    except StorageUnavailable as error:
        log.warning("files.not_discarded", reason=error.detail)
    try:
        await run_sync(lambda: files.discard(left, needed=needed))
    except OSError as error:
        log.warning("files.not_discarded", reason=error.strerror)


async def sweep(files: Files, database: Database) -> int:
    """Drops what is on disk for no task, from submits that a crash interrupted. Gives how many.

    Raises:
        StorageUnavailable: the database, or the folder, cannot be read or written.
    """
    try:
        old = await run_sync(files.old)
        dropped = 0
        for start in range(0, len(old), SWEEP_PAGE):
            page = old[start : start + SWEEP_PAGE]
            async with database.reading() as reader:
                needed = await _needed(reader, page)
            dropped += await run_sync(files.drop, [sha256 for sha256 in page if sha256 not in needed])
    except OSError as error:
        raise StorageUnavailable(f"Input pictures cannot be swept ({error.strerror}).") from error
    return dropped


async def _needed(reader: Reader, hashes: Collection[str]) -> set[str]:
    return {row["sha256"] for row in await reader.all("files_in_use", hashes=json_text(list(hashes)))}
