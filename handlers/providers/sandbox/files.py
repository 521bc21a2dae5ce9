"""The outputs: recipes when a task succeeds, files on disk once somebody asks for one."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from handlers.providers.sandbox.media import Recipe

MOST_FILES: Final = 20_000
MOST_BYTES: Final = 200 * 1024 * 1024
PARALLEL: Final = 2


@dataclass(slots=True, kw_only=True)
class _Entry:
    recipe: Recipe
    size: int
    made: bool = False
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Files:
    """Keeps the newest within `most_bytes`, pictures in recipes counted like files.

    Making an output costs far more than accepting its task, so it waits for the first request: a sandbox under load
    whose outputs nobody fetches stays cheap.
    """

    def __init__(
        self, directory: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES
    ) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._total = 0
        self._makers = anyio.CapacityLimiter(PARALLEL)

    def add(self, name: str, recipe: Recipe) -> None:
        self._entries[name] = _Entry(recipe=recipe, size=recipe.size)
        self._total += recipe.size
        self._drop_oldest()

    async def find(self, name: str) -> Path | None:
        """Where the file is, made now if need be; None when there is none, or none any more."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        path = self._directory / name
        async with entry.lock:
            if not entry.made:
                size = await anyio.to_thread.run_sync(entry.recipe.make, path, limiter=self._makers)
                entry.made = True
                self._grow(name, entry, by=size)
        return path if name in self._entries else None

    def _grow(self, name: str, entry: _Entry, *, by: int) -> None:
        if name not in self._entries:
            (self._directory / name).unlink()
            return
        entry.size += by
        self._total += by
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self._entries) > 1 and (
            self._total > self._most_bytes or len(self._entries) > self._most_files
        ):
            name, entry = self._entries.popitem(last=False)
            self._total -= entry.size
            if entry.made:
                (self._directory / name).unlink()
