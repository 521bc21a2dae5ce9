"""A change becomes rows: task, transition, event, and a delivery for each endpoint that wants it. All, or nothing."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from service import spending
from service.domain.deliveries import Delivery, DeliveryStatus, Duty
from service.domain.endpoints import STEPS_OF_A_FILTER, STEPS_OF_AN_EVENT, Endpoint
from service.domain.events import Event
from service.domain.expressions import Steps
from service.domain.ids import LaneKey, TaskId, new_delivery_id
from service.domain.tasks import Task
from service.domain.times import Clock
from service.domain.transitions import Change, overall
from service.domain.values import replace
from service.endpoint_names import endpoint_name
from service.holdings import Holdings
from service.lanes import Lanes
from service.lines import Lines
from service.notices import Notices, Topic
from service.outputs import Outputs
from service.processes import Presence
from service.streams import Streams
from storage import deliveries, endpoints, events, tasks
from storage.affected import Affected, affected
from storage.database import Transaction
from storage.deliveries import Leased

# Longer than the last of a full lane takes that delivers; what is still in hand when it ends is not sent twice. A process that
# dies is given its share back by then.
LEASE: Final = timedelta(minutes=40)


class Publisher:
    """Writes what has happened and, once that is on disk, tells those who wait for it."""

    def __init__(
        self,
        *,
        lanes: Lanes,
        holdings: Holdings,
        lines: Lines,
        outputs: Outputs,
        streams: Streams,
        notices: Notices,
        presence: Presence,
        clock: Clock,
    ) -> None:
        self._outputs = outputs
        self._lanes = lanes
        self._holdings = holdings
        self._notices = notices
        self._presence = presence
        self._lines = lines
        self._streams = streams
        self._clock = clock

    async def affected(
        self, tx: Transaction, ids: Iterable[TaskId]
    ) -> "tuple[dict[TaskId, Task], Affected | None]":
        """Tasks to be changed; and for `record` what it would ask later, where that is true until the end: each step less
        is a change of threads less.
        """
        if not self._holdings.sole:
            return await tasks.to_change(tx, ids), None
        found = await affected(tx, ids)
        return found.tasks, found

    async def record(
        self, tx: Transaction, changes: Sequence[Change], *, known: Affected | None = None
    ) -> None:
        """Whoever changes tasks has read them `to_change`. Who changes several, or one several times, records all of it in one
        call, in its order; each change of a task starts from what the one before has made of it.

        Args:
            known: of these tasks, and perhaps of others.
        """
        happened = await self.write(tx, changes, known=known)
        await self.publish(tx, happened, candidates=None if known is None else known.candidates)

    async def write(
        self, tx: Transaction, changes: Sequence[Change], *, known: Affected | None = None
    ) -> list[Event]:
        """As `record`, but for the events: gives them, for who has more to write before they are published. What is held for
        the accounts' logs is held last, for all who publish wait for it.
        """
        await tasks.save(tx, overall(changes))
        await tasks.insert_transitions(
            tx, [(c.after.id, c.transition) for c in changes if c.transition is not None]
        )
        spent = await spending.count(tx, changes, self._clock())
        await self._outputs.expect(tx, changes)
        await self._lines.release(tx, changes, anybody_waits=None if known is None else known.in_line)
        return [*(c.event for c in changes if c.event is not None), *spent]

    async def publish(
        self, tx: Transaction, happened: Sequence[Event], *, candidates: Sequence[Endpoint] | None = None
    ) -> None:
        """Events and their deliveries; after the commit the new duties go straight into their lanes.

        Args:
            candidates: all that they may go to, where these are known already.
        """
        if not happened:
            return
        if candidates is None:  # before their logs are held, for which all who publish wait
            candidates = await endpoints.of(
                tx,
                (event.account_id for event in happened),
                (event.task_id for event in happened if event.task_id is not None),
            )
        stored = await events.insert(tx, happened)
        archives = await self._outputs.archives(tx, stored)
        pairs = await _wanted(stored, [*candidates, *archives])
        await self.schedule(tx, pairs)
        await self._tell(tx, stored)

    async def _tell(self, tx: Transaction, stored: Sequence[Event]) -> None:
        tx.on_commit(lambda: self._streams.publish(stored))
        await self._notices.post(tx, Topic.EVENTS, {event.account_id for event in stored})

    async def publish_to(self, tx: Transaction, event: Event, endpoint: Endpoint) -> Delivery:
        """An event for one endpoint alone, whatever it has subscribed to: a test."""
        stored = await events.insert(tx, [event])
        [delivery] = await self.schedule(tx, [(stored[0], endpoint)])
        await self._tell(tx, stored)
        await self._rouse(tx, endpoint)
        return delivery

    async def _rouse(self, tx: Transaction, endpoint: Endpoint) -> None:
        tx.on_commit(partial(self._lanes.rouse, endpoint))
        await self._notices.post(tx, Topic.ROUSED, [endpoint_name(endpoint)])

    async def bury(self, tx: Transaction, endpoint: Endpoint, *, reason: str, now: datetime) -> None:
        """All that waits for an endpoint that takes no more becomes dead letters, also what is in its lane."""
        await deliveries.bury(tx, endpoint.id, reason=reason, now=now)
        tx.on_commit(lambda: self._lanes.drop(endpoint))
        await self._notices.post(tx, Topic.DROPPED, [endpoint_name(endpoint)])

    async def save(self, tx: Transaction, endpoint: Endpoint, *, before: Endpoint) -> None:
        """A changed endpoint. What is in its lane and not begun is claimed anew, and goes to what it is now."""
        await endpoints.save(tx, endpoint)
        if endpoint.lane != before.lane:
            await deliveries.move(tx, endpoint.id, lane=endpoint.lane)
        for one in {before.lane: before, endpoint.lane: endpoint}.values():
            self._lanes.divert(one)
            tx.on_commit(partial(self._lanes.recall, one))
            await self._notices.post(tx, Topic.RECALLED, [endpoint_name(one)])
        tx.on_rollback(self._lanes.on_room)  # nothing lines up there now, and a claim finds it out
        if not endpoint.is_configured_as(before):
            await self._rouse(tx, endpoint)  # it rested for what it met before

    async def schedule(
        self, tx: Transaction, pairs: Sequence[tuple[Event, Endpoint]], *, made: Sequence[Delivery] = ()
    ) -> list[Delivery]:
        """One new delivery for each pair, or those that were made for a person's replay; in their lanes after the commit.

        Where a lane is full they wait in the database, and whoever empties the lane fetches them. Where another process
        holds it, that one does.
        """
        now = self._clock()
        targets = {endpoint.id: endpoint for _, endpoint in pairs}
        held = await self._lanes_here(tx, targets.values())
        born: list[Leased] = []
        duties: list[Duty] = []
        waiting: dict[LaneKey, Endpoint] = {}
        fresh = made or [new_delivery(event, endpoint, now) for event, endpoint in pairs]
        for delivery, (event, endpoint) in zip(fresh, pairs, strict=True):
            in_hand = endpoint.lane in held and self._lanes.promise(delivery.id, endpoint)
            lease_until = now + LEASE if in_hand else None
            born.append(Leased(delivery, endpoint.lane, lease_until, self._presence.id))
            if in_hand:
                duties.append(Duty(id=delivery.id, event=event, endpoint=endpoint, attempt=1, created_at=now))
            else:
                waiting[endpoint.lane] = endpoint
        promised = {duty.id: duty.endpoint for duty in duties}
        tx.on_rollback(lambda: self._lanes.release(promised))
        await deliveries.insert(tx, born)
        tx.on_commit(lambda: self._lanes.offer(duties))
        behind = [endpoint for lane, endpoint in waiting.items() if lane in held]
        tx.on_commit(lambda: self._lanes.fetch(behind))
        if waiting.keys() - held:
            await self._notices.post(tx, Topic.DELIVERIES)
            if not self._presence.alive:  # and so holds nothing: it looks for itself, until it may
                tx.on_commit(self._lanes.on_room)
        if made:
            for endpoint in targets.values():
                await self._rouse(tx, endpoint)
        return list(fresh)

    async def _lanes_here(self, tx: Transaction, targets: Collection[Endpoint]) -> Collection[LaneKey]:
        """Those of their lanes that are held here. Where something older waits in the database, that another process, or
        an earlier life of this one, has put there, new ones go behind it.
        """
        if not self._lanes.open:
            return ()
        held = await self._holdings.take(tx, {endpoint.lane for endpoint in targets})
        if self._holdings.sole and self._lanes.has_caught_up:
            return held
        may_go_in = {one.id: one for one in targets if one.lane in held and self._lanes.takes_new_ones(one)}
        if may_go_in and (awaited := await deliveries.awaited(tx, may_go_in)):
            for id in awaited:
                self._lanes.divert(may_go_in[id])
            tx.on_rollback(self._lanes.on_room)  # a claim finds out that nothing waits there now
        return held


def new_delivery(event: Event, endpoint: Endpoint, now: datetime) -> Delivery:
    return Delivery(
        id=new_delivery_id(),
        account_id=endpoint.account_id,
        event_id=event.id,
        event_type=event.type,
        task_id=event.task_id,
        endpoint_id=endpoint.id,
        status=DeliveryStatus.PENDING,
        attempts=0,
        next_attempt_at=now,
        created_at=now,
    )


def replayed(delivery: Delivery, now: datetime) -> Delivery:
    """A new delivery of the same event to the same endpoint, asked for by a person."""
    return replace(
        delivery,
        id=new_delivery_id(),
        status=DeliveryStatus.PENDING,
        attempts=0,
        next_attempt_at=now,
        replay_of=delivery.id,
        reason=None,
        created_at=now,
        finished_at=None,
    )


async def _wanted(stored: Sequence[Event], candidates: Sequence[Endpoint]) -> "list[tuple[Event, Endpoint]]":
    """Each event with each endpoint that wants it. Between costly filters everybody else has a turn."""
    by_account: defaultdict[str, list[Endpoint]] = defaultdict(list)
    by_task: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in candidates:
        if endpoint.task_id is None:
            by_account[endpoint.account_id].append(endpoint)
        else:
            by_task[endpoint.task_id].append(endpoint)
    pairs: list[tuple[Event, Endpoint]] = []
    for event in stored:
        here = [*by_account[event.account_id], *by_task[event.task_id or ""]]
        content = event.content() if any(endpoint.filter for endpoint in here) else None
        steps = Steps(STEPS_OF_AN_EVENT)
        yield_at = steps.left - STEPS_OF_A_FILTER
        for endpoint in here:
            if endpoint.wants(event, content, steps):
                pairs.append((event, endpoint))
            if steps.left < yield_at:
                yield_at = steps.left - STEPS_OF_A_FILTER
                await asyncio.sleep(0)
    return pairs
