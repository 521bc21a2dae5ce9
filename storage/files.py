"""Files by the hash of their content: pictures that came as Base64, kept outside the database."""

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.domain.errors import StorageUnavailable

DROP_AFTER_S: Final = 24 * 3600


class Files:
    """A folder of content, each file named by its SHA-256. The same content is one file. Blocking: use a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, sha256: str, content: bytes) -> None:
        """On disk when it returns.

        Raises:
            StorageUnavailable: the disk is full or cannot be written.
        """
        path = self._path(sha256)
        try:
            if path.exists():
                os.utime(path)  # young again: `drop` leaves it to the task that is about to refer to it
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(draft).replace(path)
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

    def drop(self, hashes: Iterable[str]) -> None:
        """Those not put within the last day: a younger one may be a submit's that is not stored yet."""
        for sha256 in hashes:
            path = self._path(sha256)
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > DROP_AFTER_S:
                    path.unlink()

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
