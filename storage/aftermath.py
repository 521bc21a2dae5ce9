"""What follows a transaction: one thing if it is stored, another if it, or a part of it, is undone."""

from collections.abc import Callable, Iterable

import structlog

log = structlog.get_logger()

Callback = Callable[[], None]


class Aftermath:
    """The callbacks of one transaction."""

    def __init__(self) -> None:
        self._if_stored: list[Callback] = []
        self._if_undone: list[Callback] = []

    def on_commit(self, callback: Callback) -> None:
        self._if_stored.append(callback)

    def on_rollback(self, callback: Callback) -> None:
        self._if_undone.append(callback)

    def mark(self) -> tuple[int, int]:
        """A point to go back to."""
        return len(self._if_stored), len(self._if_undone)

    def stored(self) -> None:
        _call(self._if_stored)

    def undone(self, since: tuple[int, int] = (0, 0)) -> None:
        """Everything after this mark is undone, the last of it first."""
        stored, undone = since
        del self._if_stored[stored:]
        callbacks = self._if_undone[undone:]
        del self._if_undone[undone:]
        _call(reversed(callbacks))


def _call(callbacks: Iterable[Callback]) -> None:
    """What is on disk, or is not, stays so whatever one of them raises: it keeps no other from being called."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("transaction.callback_broke", callback=getattr(callback, "__qualname__", "?"))
