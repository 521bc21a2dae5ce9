"""The one place that chooses a database by where it is: a SQLite file's path, or PostgreSQL's URL."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import ModuleType

from service.domain.errors import ConfigurationError
from storage.database import Database, Inspected
from storage.sqlite import inspect_sqlite, open_sqlite


def open_database(at: Path | str) -> AbstractAsyncContextManager[Database]:
    """Made and migrated as needed.

    Raises:
        ConfigurationError: it cannot be used; the message says what to do.
    """
    if isinstance(at, Path):
        return open_sqlite(at)
    database: AbstractAsyncContextManager[Database] = _postgres().open_postgres(at)
    return database


Listening = Callable[[Callable[[str], None], Callable[[], None]], AbstractAsyncContextManager[None]]


def listening_at(at: Path | str) -> Listening | None:
    """To what other processes say there; None where there can be none."""
    if isinstance(at, Path):
        return None
    _postgres()
    from storage.listening import listening  # noqa: PLC0415 - the library may not be there

    return partial(listening, at)


def inspect_database(at: Path | str) -> Inspected:
    """Read without a change, also while Klingel works on it. Not from within an event loop.

    Raises:
        ConfigurationError: it cannot be read, or is no database of Klingel's.
    """
    if isinstance(at, Path):
        return inspect_sqlite(at)
    found: Inspected = asyncio.run(_postgres().inspect_postgres(at))
    return found


def _postgres() -> ModuleType:
    try:
        from storage import postgres  # noqa: PLC0415 - the library may not be there
    except ModuleNotFoundError:
        raise ConfigurationError(
            "KLINGEL_DATABASE_URL names a PostgreSQL database, for which a library is missing: "
            "pip install 'klingel[postgres]' (in a clone: '.[postgres]')."
        ) from None
    return postgres
