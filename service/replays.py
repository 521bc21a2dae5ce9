"""Bulk replays: new deliveries of what failed, or of all that an endpoint subscribes to."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

from service.domain.endpoints import STEPS_OF_A_FILTER, Endpoint
from service.domain.events import Event, EventType
from service.domain.expressions import Steps
from service.domain.ids import AccountId
from service.domain.times import Clock
from service.publication import Publisher, new_delivery, replayed
from storage import deliveries, endpoints, events
from storage.database import Transaction

PAGE: Final = 200  # deliveries made in one commit
STEPS_OF_A_PAGE: Final = (
    300_000  # of the filter, while the commit is made: enough for any that is not made to be slow
)


class Replays:
    """Page by page, each in a commit of its own, so that callbacks never wait behind a large replay."""

    def __init__(
        self,
        publisher: Publisher,
        account_id: AccountId,
        endpoint: Endpoint,
        since: datetime,
        *,
        only: str,
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._account_id = account_id
        self._endpoint = endpoint
        self._since = since
        self._only = only
        self._clock = clock
        self._after_id = ""
        self._after_position = 0
        self._up_to: int | None = None
        self._began: datetime | None = None
        self.finished = False

    async def make_page(self, tx: Transaction) -> int:
        """The number of deliveries that it made."""
        tx.on_rollback(
            partial(self._go_back, (self._after_id, self._after_position, self._up_to, self._began))
        )
        # Of two replays at once, asked for at two processes, the second finds nothing left.
        await tx.hold("endpoint", [self._endpoint.id])
        now_it_is = (await endpoints.by_id(tx, [self._endpoint.id])).get(self._endpoint.id)
        if now_it_is is None or not now_it_is.enabled:
            self.finished = True  # deleted, or switched off, between two pages
            return 0
        self._endpoint = now_it_is
        if self._only == "failed":
            return await self._failed(tx, self._clock())
        return await self._all(tx, self._clock())

    def _go_back(self, before: tuple[str, int, int | None, datetime | None]) -> None:
        """To where it was before a page that is undone."""
        self._after_id, self._after_position, self._up_to, self._began = before
        self.finished = False

    async def _failed(self, tx: Transaction, now: datetime) -> int:
        if self._began is None:
            self._began = now
        dead = await deliveries.failed_since(
            tx,
            self._endpoint.id,
            account_id=self._account_id,
            since=self._since,
            began=self._began,
            after_id=self._after_id,
            limit=PAGE,
        )
        self.finished = len(dead) < PAGE
        if dead:
            self._after_id = dead[-1].id
        happened = await events.by_id(tx, {delivery.event_id for delivery in dead})
        pairs = [(happened[delivery.event_id], self._endpoint) for delivery in dead]
        await self._publisher.schedule(tx, pairs, made=[replayed(delivery, now) for delivery in dead])
        return len(dead)

    async def _all(self, tx: Transaction, now: datetime) -> int:
        if self._up_to is None:
            self._up_to = await events.last_position(tx, self._account_id)
            self._after_position = await events.position_before(tx, self._account_id, self._since)
        page = await events.of_account(tx, self._account_id, after_position=self._after_position, limit=PAGE)
        page = [event for event in page if event.position <= self._up_to]
        self.finished = len(page) < PAGE
        if page:
            self._after_position = page[-1].position
        ids = [event.id for event in await self._wanted(page)]
        happened = await events.by_id(tx, ids)
        wanted = [happened[id] for id in ids]
        earlier = await deliveries.of_events(tx, self._endpoint.id, [event.id for event in wanted])
        made = [
            replayed(earlier[event.id], now)
            if event.id in earlier
            else new_delivery(event, self._endpoint, now)
            for event in wanted
        ]
        await self._publisher.schedule(tx, [(event, self._endpoint) for event in wanted], made=made)
        return len(wanted)

    async def _wanted(self, page: Sequence[Event]) -> list[Event]:
        """Between costly filters everybody else has a turn."""
        steps = Steps(STEPS_OF_A_PAGE)
        wanted: list[Event] = []
        for event in page:
            before = steps.left
            if self._is_for_it(event, steps):
                wanted.append(event)
            if before - steps.left > STEPS_OF_A_FILTER // 2:
                await asyncio.sleep(0)
        return wanted

    def _is_for_it(self, event: Event, steps: Steps) -> bool:
        """Whether it would go there if it happened now; a test goes to the endpoint that is tested, and no other."""
        if event.type is EventType.ENDPOINT_TEST:
            return False
        return self._endpoint.wants(event, event.content(), steps)
