"""What one process has committed and others must know of: said in the transaction, heard once it is on disk."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from service.domain.ids import ProcessId
from service.wakeups import Wakeup, Wakeups
from storage.columns import milliseconds, moment
from storage.database import Transaction
from storage.opening import Listening

LOOKS: Final = 2  # at heartbeats, so that at least a whole span between two has passed

log = structlog.get_logger()


class Topic(StrEnum):
    """And what its notices name."""

    EVENTS = "events"  # an account with new ones
    SUBMISSION = "submission"  # nothing: there is something to send
    DEADLINES = "deadlines"  # a moment, in milliseconds
    EXPIRY = "expiry"  # a moment, in milliseconds
    COMMANDS = "commands"  # nothing
    DELIVERIES = "deliveries"  # nothing: some wait in the database, for whoever holds or takes their lanes
    RECALLED = "recalled"  # an endpoint that was changed, and its lane
    DROPPED = "dropped"  # one that takes no more, and its lane
    ROUSED = "roused"  # one that somebody wants an attempt at now, and its lane
    KEYS = "keys"  # a key that is good no longer
    SESSIONS = "sessions"  # one of the dashboard's that somebody has ended
    PROBES = "probes"  # a call of ours that came in from outside


class Notices:
    """To all other processes; this one knows already. Where there are no others, nothing is said.

    None is lost while this process is connected. When it was not, it is told that some may have been: whoever waits
    for something then looks for himself, once.
    """

    def __init__(self, process_id: Callable[[], ProcessId], listening: Listening | None = None) -> None:
        """
        Args:
            process_id: this process's own.
            listening: to the others; None where there are none.
        """
        self._process_id = process_id
        self._listening = listening
        self._heard: defaultdict[Topic, list[Callable[[str], None]]] = defaultdict(list)
        self._on_gap: list[Callable[[], None]] = []
        self._looks = 0  # that are still to come

    @property
    def has_others(self) -> bool:
        """Whether there may be other processes."""
        return self._listening is not None

    def on(self, topic: Topic, heard: Callable[[str], None]) -> None:
        """Called with what each notice names. The same may come twice."""
        self._heard[topic].append(heard)

    def on_gap(self, missed: Callable[[], None]) -> None:
        """Called when notices may have been missed, of others or of this process's own commits."""
        self._on_gap.append(missed)

    def doubt(self) -> None:
        """What this process has committed itself may be stored without its knowledge: as if others had said it, and
        nobody had heard. Also looked for later, for a server that lost us may still be at it.
        """
        self._looks = LOOKS
        self._missed()

    async def look_again(self) -> None:
        """At a heartbeat: the database answers."""
        if self._looks:
            self._looks -= 1
            self._missed()

    async def post(self, tx: Transaction, topic: Topic, names: Iterable[str] = ("",)) -> None:
        """Others hear it when this transaction is committed, and never if it is not."""
        if self._listening is not None:
            sender = self._process_id()
            await tx.run_many(
                "post_notice", [{"notice": f"{sender} {topic} {name}"} for name in sorted(set(names))]
            )

    async def wake(
        self, tx: Transaction, topic: Topic, wakeup: Wakeup, *, at: datetime | None = None
    ) -> None:
        """The loops of this kind, in all processes: after the commit, or at a moment."""
        if at is None:
            tx.on_commit(wakeup.notify)
            await self.post(tx, topic)
        else:
            tx.on_commit(lambda: wakeup.due_at(at))
            await self.post(tx, topic, [str(milliseconds(at))])

    def wake_from_here(self, wakeups: Wakeups) -> None:
        """Whatever other processes wake, this one's loops are woken by."""
        self.on(Topic.SUBMISSION, lambda _: wakeups.submission.notify())
        self.on(Topic.COMMANDS, lambda _: wakeups.commands.notify())
        self.on(Topic.DELIVERIES, lambda _: wakeups.delivery.notify())
        self.on(Topic.DEADLINES, lambda at: wakeups.deadlines.due_at(moment(int(at))))
        self.on(Topic.EXPIRY, lambda at: wakeups.expiry.due_at(moment(int(at))))
        self.on_gap(wakeups.notify_all)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hears the others until the block ends."""
        if self._listening is None:
            yield
            return
        async with self._listening(self._hear, self._missed):
            yield

    def _hear(self, notice: str) -> None:
        sender, topic, name = notice.split(" ", 2)
        if sender != self._process_id():
            for heard in self._heard.get(Topic(topic), ()):
                _call(partial(heard, name))

    def _missed(self) -> None:
        for missed in self._on_gap:
            _call(missed)


def _call(callback: Callable[[], None]) -> None:
    """Nothing that one of them raises keeps the others from being told."""
    try:
        callback()
    except Exception:
        log.exception("notice.callback_broke")
