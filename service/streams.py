"""Live events: who listens now, and what has been committed since they began."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

import structlog

from service.domain.errors import KlingelError
from service.domain.events import Event
from service.domain.ids import AccountId, KeyId, TaskId
from storage import events, keys
from storage.database import Database

# How many events a listener may be behind before it is cut off: memory is not held for who does not read.
BEHIND_LIMIT: Final = 1000
PAGE: Final = 200
AFTER_TROUBLE_S: Final = 1.0

log = structlog.get_logger()


class TooSlow(Exception):
    """This listener did not keep up; it resumes from the log with the last event that it got."""


class KeyRevoked(Exception):
    """The key that this listener came with is good no longer."""


class NoEvent(Enum):
    """What a listener is given in the place of an event."""

    HEARTBEAT = auto()  # nothing has happened for a while
    END = auto()  # nothing more comes: Klingel shuts down


class Listener:
    """The events that were committed since somebody began to listen, in the order of the log."""

    __slots__ = (
        "_closed",
        "_heard",
        "_heartbeat",
        "_heartbeat_due",
        "_revoked",
        "_something",
        "_too_slow",
    )

    def __init__(self) -> None:
        self._heard: list[Event] = []  # an empty deque has 0.7 KB
        self._something: asyncio.Future[None] | None = None  # what it waits for
        self._too_slow = False
        self._revoked = False
        self._closed = False
        self._heartbeat_due = False
        self._heartbeat: asyncio.TimerHandle | None = None

    def hear(self, event: Event) -> None:
        if len(self._heard) >= BEHIND_LIMIT:
            self._too_slow = True
        else:
            self._heard.append(event)
            self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def revoke(self) -> None:
        """At once: what it has not been given yet it does not get."""
        self._revoked = True
        self.close()

    def start_heartbeat(self, every_s: float) -> None:
        """From now on `next` gives a heartbeat, so often, where it waits for an event. By a timer of the loop: a task for
        each listener would be as large as the listener.
        """
        self._heartbeat = asyncio.get_running_loop().call_later(every_s, self._on_heartbeat, every_s)

    def _on_heartbeat(self, every_s: float) -> None:
        self.start_heartbeat(every_s)
        self._heartbeat_due = True
        self._wake()

    def stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def check(self) -> None:
        """
        Raises:
            KeyRevoked: it may not be given anything more.
        """
        if self._revoked:
            raise KeyRevoked

    async def next(self) -> Event | NoEvent:
        """
        Raises:
            TooSlow: events were left out.
            KeyRevoked: it may not be given anything more.
        """
        self.check()
        if self._too_slow:
            raise TooSlow
        self._heartbeat_due = False
        while not (self._heard or self._closed or self._heartbeat_due):
            self._something = asyncio.get_running_loop().create_future()
            try:
                await self._something
            finally:
                self._something = None
        self.check()
        if self._heard:
            return self._heard.pop(0)
        return NoEvent.END if self._closed else NoEvent.HEARTBEAT

    def _wake(self) -> None:
        if self._something is not None and not self._something.done():
            self._something.set_result(None)


@dataclass(slots=True)
class _Feed:
    """Of one account whose log others write too: read from where its listeners have it, in its order."""

    position: int
    listeners: int = 0
    has_more: bool = False
    reading: "asyncio.Task[None] | None" = field(default=None)


class Streams:
    """All listeners of this process.

    Where there are other processes, whoever commits only says whose log has grown. Each process then reads what came
    after the last event that it knows, for the accounts that have listeners here: so all of them hear everything, once
    and in the log's order, wherever it was committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of_account: defaultdict[AccountId, set[Listener]] = defaultdict(set)
        self._of_task: defaultdict[TaskId, set[Listener]] = defaultdict(set)
        self._of_key: defaultdict[KeyId, set[Listener]] = defaultdict(set)
        self._feeds: dict[AccountId, _Feed] = {}
        self._checking: asyncio.Task[None] | None = None
        self._closed = False

    def publish(self, committed: Sequence[Event]) -> None:
        """By this process."""
        if self._database.sole_process:
            self._tell(committed)
        else:
            for account_id in {event.account_id for event in committed}:
                self.has_grown(account_id)

    def _tell(self, committed: Sequence[Event]) -> None:
        for event in committed:
            for listener in self._of_account.get(event.account_id, ()):
                listener.hear(event)
            if event.task_id is not None:
                for listener in self._of_task.get(event.task_id, ()):
                    listener.hear(event)

    def has_grown(self, account_id: AccountId) -> None:
        """The log of this account, somewhere."""
        feed = self._feeds.get(account_id)
        if feed is not None:
            feed.has_more = True
            if feed.reading is None and not self._closed:
                feed.reading = asyncio.create_task(self._read(account_id, feed), name="stream feed")

    async def _read(self, account_id: AccountId, feed: _Feed) -> None:
        try:
            while feed.has_more:
                feed.has_more = False
                try:
                    async with self._database.reading() as reader:
                        page = await events.of_account(
                            reader, account_id, after_position=feed.position, limit=PAGE
                        )
                except KlingelError as error:
                    log.warning("stream.not_read", account_id=account_id, reason=error.detail)
                    feed.has_more = True
                    await asyncio.sleep(AFTER_TROUBLE_S)
                    continue
                if page:
                    feed.position = page[-1].position
                    feed.has_more = feed.has_more or len(page) == PAGE
                    self._tell(page)
        finally:
            feed.reading = None

    def may_have_missed(self) -> None:
        """What was said by others: that logs have grown, and that keys are good no longer."""
        for account_id in self._feeds:
            self.has_grown(account_id)
        if self._of_key and self._checking is None and not self._closed:
            self._checking = asyncio.create_task(self._check_keys(), name="stream keys")

    async def _check_keys(self) -> None:
        try:
            for key_id in list(self._of_key):
                if not await self._is_good(key_id):
                    self.revoke(key_id)
        except KlingelError as error:  # the next notice that cannot be heard leads here again
            log.warning("stream.keys_not_checked", reason=error.detail)
        finally:
            self._checking = None

    async def _is_good(self, key_id: KeyId) -> bool:
        async with self._database.reading() as reader:
            key = await keys.get(reader, key_id)
        return key is not None and key.revoked_at is None

    @asynccontextmanager
    async def listen(
        self,
        account_id: AccountId,
        *,
        task_id: TaskId | None = None,
        key_id: KeyId | None = None,
    ) -> AsyncIterator[Listener]:
        """Hears what is committed from now on: of an account, or of one task of it. With a key, while that is good."""
        listener = Listener()
        if self._closed:
            listener.close()
        groups: list[tuple[defaultdict[Any, set[Listener]], str]] = []
        if task_id is not None:
            groups.append((self._of_task, task_id))
        else:
            groups.append((self._of_account, account_id))
        if key_id is not None:
            groups.append((self._of_key, key_id))
        async with nullcontext() if self._database.sole_process else self._fed(account_id):
            for listeners, key in groups:
                listeners[key].add(listener)
            try:
                yield listener
            finally:
                listener.stop_heartbeat()
                for listeners, key in groups:
                    listeners[key].discard(listener)
                    if not listeners[key]:
                        del listeners[key]

    @asynccontextmanager
    async def _fed(self, account_id: AccountId) -> AsyncIterator[None]:
        """While the block runs, what other processes append to the account's log from now on is told here."""
        feed = self._feeds.get(account_id)
        if feed is None:
            async with self._database.reading() as reader:
                position = await events.last_position(reader, account_id)
            feed = self._feeds.setdefault(account_id, _Feed(position))
            self.has_grown(account_id)  # while there was no feed, nobody was told
        feed.listeners += 1
        try:
            yield
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                del self._feeds[account_id]
                if feed.reading is not None:
                    feed.reading.cancel()

    def close(self) -> None:
        """Ends every stream, so that a shutdown does not wait for readers."""
        self._closed = True
        for reading in (*(feed.reading for feed in self._feeds.values()), self._checking):
            if reading is not None:
                reading.cancel()
        for group in (*self._of_account.values(), *self._of_task.values()):
            for listener in group:
                listener.close()

    def revoke(self, key_id: KeyId) -> None:
        """Ends the streams that were opened with this key."""
        for listener in self._of_key.get(key_id, ()):
            listener.revoke()

    async def follow(
        self,
        account_id: AccountId,
        *,
        key_id: KeyId,
        task_id: TaskId | None,
        after_position: int,
        has_ended: bool = False,
        heartbeat_s: float | None = None,
    ) -> AsyncGenerator[Event | None]:
        """The log from a position on, then what is committed, without gap or repeat, until Klingel shuts down.

        Listening begins before the log is read: what is committed meanwhile comes by both ways, and once. It also
        begins before the key is looked at once more: a revocation is then seen there, or heard.

        Args:
            has_ended: the task, and so its log: nothing more is waited for.
            heartbeat_s: how often None is given while nothing happens; never, without it.

        Raises:
            TooSlow: the reader fell too far behind.
            KeyRevoked: its key is good no longer.
        """
        position = after_position
        async with self.listen(account_id, task_id=task_id, key_id=key_id) as listener:
            if not await self._is_good(key_id):
                raise KeyRevoked
            # Until there is no more: a page would stay in memory for as long as its listener does.
            while page := await _page(self._database, account_id, task_id, after_position=position):
                for event in page:
                    listener.check()
                    position = event.position
                    yield event
            if has_ended:
                return
            if heartbeat_s is not None:
                listener.start_heartbeat(heartbeat_s)
            while (heard := await listener.next()) is not NoEvent.END:
                if heard is NoEvent.HEARTBEAT:
                    yield None
                elif heard.position > position:
                    position = heard.position
                    yield heard


async def _page(
    database: Database, account_id: AccountId, task_id: TaskId | None, *, after_position: int
) -> Sequence[Event]:
    async with database.reading() as reader:
        if task_id is None:
            return await events.of_account(reader, account_id, after_position=after_position, limit=PAGE)
        return await events.of_task(reader, task_id, after_position=after_position, limit=PAGE)
