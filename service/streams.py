"""Live events: who listens now, and what has been committed since they began."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from service.domain.events import Event
from service.domain.ids import AccountId, KeyId, TaskId
from storage import events, keys
from storage.database import Database

# How many events a listener may be behind before it is cut off: memory is not held for who does not read.
BEHIND_LIMIT: Final = 1000
PAGE: Final = 200


class TooSlow(Exception):
    """This listener did not keep up; it resumes from the log with the last event that it got."""


class KeyRevoked(Exception):
    """The key that this listener came with is good no longer."""


class Listener:
    """One who listens: events committed since, in the order of the log."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._too_slow = False
        self._revoked = False

    def hear(self, event: Event) -> None:
        if self._events.qsize() >= BEHIND_LIMIT:
            self._too_slow = True
        else:
            self._events.put_nowait(event)

    def close(self) -> None:
        self._events.put_nowait(None)

    def revoke(self) -> None:
        """At once: what it has not been given yet it does not get."""
        self._revoked = True
        self.close()

    def check(self) -> None:
        """
        Raises:
            KeyRevoked: it may not be given anything more.
        """
        if self._revoked:
            raise KeyRevoked

    async def next(self) -> Event | None:
        """None when Klingel shuts down.

        Raises:
            TooSlow: events were left out.
            KeyRevoked: it may not be given anything more.
        """
        self.check()
        if self._too_slow:
            raise TooSlow
        heard = await self._events.get()
        self.check()
        return heard


class Streams:
    """All listeners of this process."""

    def __init__(self) -> None:
        self._of_account: defaultdict[AccountId, set[Listener]] = defaultdict(set)
        self._of_task: defaultdict[TaskId, set[Listener]] = defaultdict(set)
        self._of_key: defaultdict[KeyId, set[Listener]] = defaultdict(set)
        self._closed = False

    def publish(self, committed: Sequence[Event]) -> None:
        for event in committed:
            for listener in self._of_account.get(event.account_id, ()):
                listener.hear(event)
            if event.task_id is not None:
                for listener in self._of_task.get(event.task_id, ()):
                    listener.hear(event)

    @contextmanager
    def listen(
        self,
        *,
        account_id: AccountId | None = None,
        task_id: TaskId | None = None,
        key_id: KeyId | None = None,
    ) -> Iterator[Listener]:
        """Hears what is committed from now on: of one task, or of an account. With a key, while that is good."""
        listener = Listener()
        if self._closed:
            listener.close()
        groups: list[tuple[defaultdict[Any, set[Listener]], str]] = []
        if task_id is not None:
            groups.append((self._of_task, task_id))
        elif account_id is not None:
            groups.append((self._of_account, account_id))
        if key_id is not None:
            groups.append((self._of_key, key_id))
        for listeners, key in groups:
            listeners[key].add(listener)
        try:
            yield listener
        finally:
            for listeners, key in groups:
                listeners[key].discard(listener)
                if not listeners[key]:
                    del listeners[key]

    def close(self) -> None:
        """Ends every stream, so that a shutdown does not wait for readers."""
        self._closed = True
        for group in (*self._of_account.values(), *self._of_task.values()):
            for listener in group:
                listener.close()

    def revoke(self, key_id: KeyId) -> None:
        """Ends the streams that were opened with this key."""
        for listener in self._of_key.get(key_id, ()):
            listener.revoke()

    async def follow(
        self,
        database: Database,
        account_id: AccountId,
        *,
        key_id: KeyId,
        task_id: TaskId | None,
        after_position: int,
    ) -> AsyncGenerator[Event]:
        """The log from a position on, then what is committed, without gap or repeat, until Klingel shuts down.

        Listening begins before the log is read: what is committed meanwhile comes by both ways, and once. It also
        begins before the key is looked at once more: a revocation is then seen there, or heard.

        Raises:
            TooSlow: the reader fell too far behind.
            KeyRevoked: its key is good no longer.
        """
        position = after_position
        with self.listen(account_id=account_id, task_id=task_id, key_id=key_id) as listener:
            async with database.reading() as reader:
                key = await keys.get(reader, key_id)
            if key is None or key.revoked_at is not None:
                raise KeyRevoked
            while True:
                async with database.reading() as reader:
                    if task_id is None:
                        page = await events.of_account(
                            reader, account_id, after_position=position, limit=PAGE
                        )
                    else:
                        page = await events.of_task(reader, task_id, after_position=position, limit=PAGE)
                for event in page:
                    listener.check()
                    position = event.position
                    yield event
                if len(page) < PAGE:
                    break
            while (heard := await listener.next()) is not None:
                if heard.position > position:
                    position = heard.position
                    yield heard
