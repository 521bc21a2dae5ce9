"""The end of this process: when it was told of it, and how long what it has begun may still take."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

DRAIN: Final = timedelta(seconds=20)  # for creates and attempts on their way, all together


class Stopping:
    """Whoever begins things asks whether to go on; whoever waits for their end asks for how long."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            monotonic: seconds that only grow.
        """
        self._monotonic = monotonic
        self._since: float | None = None
        self._on_begin: list[Callable[[], None]] = []

    @property
    def has_begun(self) -> bool:
        return self._since is not None

    def on_begin(self, begun: Callable[[], None]) -> None:
        """Called once, when it begins."""
        self._on_begin.append(begun)

    def begin(self) -> None:
        """The first time counts."""
        if self._since is None:
            self._since = self._monotonic()
            for begun in self._on_begin:
                begun()

    def left_s(self) -> float:
        """Seconds that what is on its way still has; it begins with this, where it has not."""
        self.begin()
        assert self._since is not None
        return max(self._since + DRAIN.total_seconds() - self._monotonic(), 0.0)
