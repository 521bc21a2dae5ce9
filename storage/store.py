"""The store of kept outputs: a folder, or a bucket at S3, Google Cloud Storage or Azure. Each file whole, or not there."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from anyio.to_thread import run_sync
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from service.domain.errors import ConfigurationError, StorageUnavailable
from storage.kept_files import NoSuchFile

PART: Final = 8 * 1024 * 1024  # of an upload: no more of a file is in memory than `PARTS_AT_A_TIME` of them
PARTS_AT_A_TIME: Final = 2
READ_PART: Final = 256 * 1024
RETRY: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}

log = structlog.get_logger()


class Store:
    """Use `open_store`. Files lie in folders by the first two letters of their names."""

    def __init__(self, objects: ObjectStore, *, folder: Path | None = None) -> None:
        """
        Args:
            folder: where the files lie if they lie on a disk of ours.
        """
        self._objects = objects
        self._folder = folder

    async def put(self, name: str, file: IO[bytes], *, content_type: str) -> None:
        """All that `file` holds from its beginning, safely stored when this returns.

        Raises:
            StorageUnavailable: it could not be; nothing is left under this name.
        """
        file.seek(0)
        attributes: Any = None if self._folder is not None else {"Content-Type": content_type}
        with _store_errors("written"):
            await obstore.put_async(
                self._objects,
                _path(name),
                file,
                attributes=attributes,
                chunk_size=PART,
                max_concurrency=PARTS_AT_A_TIME,
            )
            if self._folder is not None:
                await run_sync(_sync, self._folder / _path(name))

    async def read(self, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to and without `end`, piece by piece.

        Raises:
            NoSuchFile: before the first piece.
            StorageUnavailable: then, or later.
        """
        if start == end:
            return
        with _store_errors("read"):
            found = await obstore.get_async(self._objects, _path(name), options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=READ_PART):
                yield bytes(piece)

    async def drop(self, name: str) -> None:
        """Also what an upload that was cut off has left; nothing where there is nothing.

        Raises:
            StorageUnavailable: it may still be there.
        """
        with suppress(NoSuchFile), _store_errors("removed"):
            await obstore.delete_async(self._objects, _path(name))
        if self._folder is not None:
            with _store_errors("removed"):
                await run_sync(_drop_drafts, self._folder / _path(name))


def _path(name: str) -> str:
    return f"{name[:2]}/{name}"


@contextmanager
def _store_errors(done: str) -> Iterator[None]:
    """What the owner of a task may know of it; the operator gets the rest in the log."""
    try:
        yield
    except FileNotFoundError as error:
        raise NoSuchFile from error
    except (BaseError, OSError) as error:
        what = (str(error).splitlines() or [""])[0][:300]
        log.warning("store.failed", reason=what, error=type(error).__name__)
        raise StorageUnavailable(f"Kept outputs cannot be {done} right now.") from error


def _sync(path: Path) -> None:
    """On disk, file and names: obstore leaves that to the system."""
    for each in (path, path.parent, path.parent.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _drop_drafts(path: Path) -> None:
    """A file is called `name#number` until it is whole."""
    for draft in path.parent.glob(f"{path.name}#*"):
        draft.unlink(missing_ok=True)


def open_store(url: str) -> Store:
    """Connects to nothing yet, where there is something to connect to.

    Args:
        url: `file:///…`, `s3://bucket/folder`, `gs://…`, `az://…`; credentials are in the environment, under the
            names that each service's own tools read.

    Raises:
        ConfigurationError: it cannot be used like this.
    """
    try:
        if urlsplit(url).scheme == "file":
            folder = Path(unquote(urlsplit(url).path))
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return Store(LocalStore(folder), folder=folder)
        return Store(from_url(url, retry_config=RETRY))
    except (BaseError, OSError, ValueError) as error:
        what = (str(error).splitlines() or [""])[0][:300]
        raise ConfigurationError(f"The store of kept outputs, {url}, cannot be used: {what}.") from None
