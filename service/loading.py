"""What is loaded when somebody first wants it, not when Klingel starts: most never use most of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class Later(Generic[Loaded]):
    """
    Args:
        load: called once, however many want it at the same time; again after it has failed. What it imports, it imports
            in a thread where that takes long.
    """

    def __init__(self, load: Callable[[], Awaitable[Loaded]]) -> None:
        self._load = load
        self._loading = asyncio.Lock()
        self._loaded: tuple[Loaded] | None = None

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    async def __call__(self) -> Loaded:
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = (await self._load(),)
        return self._loaded[0]
