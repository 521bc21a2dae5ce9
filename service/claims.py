"""Takes deliveries that are due out of the database, and into their lanes."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Final

import structlog

from service.batching import Batcher
from service.domain.deliveries import ALL_RETRIES, Delivery, Duty
from service.domain.endpoints import DELETED, Endpoint
from service.domain.events import EventType
from service.domain.ids import DeliveryId, EndpointId, LaneKey
from service.domain.times import Clock
from service.domain.values import Struct, replace
from service.doubt import Doubt
from service.holdings import Holdings
from service.lanes import Lanes
from service.loops import Loop
from service.notices import Notices, Topic
from service.processes import Presence
from service.publication import LEASE
from service.wakeups import Wakeup
from storage import deliveries, endpoints, events
from storage.database import Database, Transaction
from storage.deliveries import Waiting

CLAIM: Final = 128  # deliveries of one commit, which all others wait for
# Retries that fall due within it share one claim, which is a commit: endpoints that fail would else make as many.
CLAIM_GAP: Final = timedelta(milliseconds=250)
RENEWED_BEFORE: Final = LEASE / 4  # the end of a lease: other processes, too, give back what they find ended

HOPELESS: Final = (
    f"its host fails, and its turn did not come within {ALL_RETRIES // timedelta(hours=1)} hours"
)

log = structlog.get_logger()


class _Claimed(Struct, frozen=True):
    took_any: bool  # and so there may be more
    gave_up_all: bool  # for which there is no hope; else there may be more, also where no lane has room
    # Where the claim took as many as it may: the lanes to go on with, those first that had no turn in it.
    next_lanes: Sequence[LaneKey] = ()


class Claims:
    """A loop that claims what is due: when something falls due, waits for a lane in the database, or a lane has room again.

    Once the lanes are closed it claims nothing more, and gives back what others may have.
    """

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        lanes: Lanes,
        holdings: Holdings,
        presence: Presence,
        notices: Notices,
        doubt: Doubt,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        """
        Args:
            doubt: whether deliveries are leased to this process that nobody here has in hand.
        """
        self._database = database
        self._batcher = batcher
        self._lanes = lanes
        self._holdings = holdings
        self._presence = presence
        self._notices = notices
        self._doubt = doubt
        self._clock = clock
        self._loop = Loop("deliveries.claim", self._claim_due, wakeup=wakeup, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._loop.running():
            yield

    async def rescue_all(self) -> None:
        """Whatever is leased, to whomever and until whenever, is to be claimed anew."""

        async def rescue(tx: Transaction) -> None:
            await deliveries.rescue(tx, now=datetime.max.replace(tzinfo=UTC))

        await self._batcher.alone(rescue)

    async def give_back(self, ids: Sequence[DeliveryId]) -> None:
        """The leases of these deliveries end now, and those of all that was taken out of its lane."""

        async def give_back(tx: Transaction) -> None:
            await deliveries.give_back(tx, ids)
            if [*ids, *await self._give_back_recalled(tx)]:
                await self._notices.post(tx, Topic.DELIVERIES)

        await self._batcher.alone(give_back)

    # When to claim

    async def _claim_due(self) -> datetime | None:
        if not self._lanes.open:
            await self._leave_to_others()
            return None
        waiting, looked_at = await self._waiting(), self._clock()
        claimed = await self._batcher.run(self._claim, waiting.lanes)
        while True:
            if claimed.next_lanes and len(waiting.lanes) < CLAIM and self._clock() < looked_at + CLAIM_GAP:
                claimed = await self._batcher.run(self._claim, claimed.next_lanes)
                continue
            # Looked for again in any case: nobody tells of what comes to wait for a full lane, and whether the lane itself asks
            # for it is known only after the claim.
            waiting, looked_at = await self._waiting(), self._clock()
            if claimed.gave_up_all and not (claimed.took_any and waiting.lanes):
                break
            claimed = await self._batcher.run(self._claim, waiting.lanes)
        due = waiting.next_moment
        if due is not None:
            due = max(due, self._clock() + CLAIM_GAP)
        rests_end = self._lanes.end_rests()
        return min((moment for moment in (due, rests_end) if moment is not None), default=None)

    async def _leave_to_others(self) -> None:
        """What is not begun, and then the lanes in which nothing is on its way: others are told of these."""
        if self._lanes.recalled():
            await self.give_back([])
        await self._holdings.tidy()

    async def _waiting(self) -> Waiting:
        """For which lanes something is due. Read before the claim: all others wait while a transaction writes."""
        async with self._database.reading() as reader:
            return await deliveries.waiting(
                reader,
                now=self._clock(),
                busy=self._lanes.full(),
                no_retries=self._lanes.full_of_retries(),
                by=self._presence.id,
                limit=CLAIM,
            )

    # A claim

    async def _claim(self, tx: Transaction, asked: Sequence[Sequence[LaneKey]]) -> "list[_Claimed]":
        """Takes what is due in the lanes that are asked for, and in those with a backlog, into the lanes."""
        # Read here, not when the claim was asked for: what was turned away from its lane since must be found.
        now = self._clock()
        if not self._lanes.open:  # they were closed since
            return [_Claimed(took_any=False, gave_up_all=True)] * len(asked)
        gave_back_any = await self._tend_leases(tx, now)
        gave_up_all = await self._give_up(tx, now)
        full = self._lanes.begin_claim()
        # What may come to wait for any other lane is told by whoever puts it there.
        lanes = dict.fromkeys(chain(*asked, self._lanes.with_backlog()))
        able = [lane for lane in lanes if lane not in full]
        no_retries = self._lanes.full_of_retries()
        due = await deliveries.due(
            tx, able, no_retries=no_retries, now=now, by=self._presence.id, limit=CLAIM
        )
        targets = await endpoints.by_id(tx, {delivery.endpoint_id for delivery in due})
        closed = await self._bury_closed(tx, due, targets, now)
        strays = await self._move_strays(tx, targets, lanes)
        wanted = [
            delivery for delivery in due if delivery.id not in closed and delivery.endpoint_id not in strays
        ]
        promised = await self._promise(tx, wanted, targets)
        tx.on_rollback(lambda: self._lanes.release(promised))
        await deliveries.lease(tx, promised, until=now + LEASE, by=self._presence.id)
        duties = await _duties(tx, [delivery for delivery in wanted if delivery.id in promised], targets)
        tx.on_commit(lambda: self._lanes.offer(duties))
        if len(due) < CLAIM and all(len(some) < CLAIM for some in asked):
            tx.on_commit(lambda: self._lanes.end_claim(full))
        # A page of which no lane took anything counts for nothing: its lanes ask by themselves, when they have room.
        claimed = _Claimed(bool(promised or closed or strays or gave_back_any), gave_up_all)
        if claimed.took_any and len(due) == CLAIM:
            had_their_turn = {endpoint.lane for endpoint in targets.values()}
            in_turn = sorted(able, key=lambda lane: lane in had_their_turn)
            claimed = replace(claimed, next_lanes=in_turn[: CLAIM - 1])
        return [claimed] * len(asked)

    async def _tend_leases(self, tx: Transaction, now: datetime) -> bool:
        """Renews leases of what is in hand here, and ends those of what nobody has in hand. Whether any were ended."""
        await self._keep_in_hand(tx, now)
        rescued = await deliveries.rescue(tx, now=now)
        recalled = await self._give_back_recalled(tx)
        in_doubt = self._doubt.is_open
        if in_doubt:
            await self._give_back_lost(tx)
        return bool(rescued or recalled or in_doubt)

    async def _give_back_recalled(self, tx: Transaction) -> Sequence[DeliveryId]:
        recalled = self._lanes.recalled()
        await deliveries.give_back(tx, recalled)
        tx.on_commit(lambda: self._lanes.forget_recalled(recalled))
        return recalled

    async def _keep_in_hand(self, tx: Transaction, now: datetime) -> None:
        """What waits in a lane that rests, or keeps to a rate, may do so for longer than a lease: it is leased anew, or each
        claim would find it due, and take nothing.
        """
        ending = await deliveries.leases_ending(tx, self._presence.id, before=now + RENEWED_BEFORE)
        lost = set(self._lanes.not_here(ending)) if ending else set()
        kept = [id for id in ending if id not in lost]
        await deliveries.lease(tx, kept, until=now + LEASE, by=self._presence.id)

    async def _give_back_lost(self, tx: Transaction) -> None:
        """Ends the leases that a commit, or an outcome, has left to this process without its knowledge."""
        self._doubt.settle(tx)
        leased = await deliveries.leased(tx, self._presence.id)
        await deliveries.give_back(tx, self._lanes.not_here(leased))

    async def _give_up(self, tx: Transaction, now: datetime) -> bool:
        """What was to have its turn long ago, at hosts that have failed for long, becomes dead letters: more comes to wait
        there than the attempts that such a host gets bring to their ends. What was late for another reason, as after Klingel
        was down, is attempted.

        Returns:
            Whether this was all.
        """
        lanes = self._lanes.hopeless()
        if not lanes:
            return True
        overdue = await deliveries.due(
            tx, lanes, no_retries=[], now=now - ALL_RETRIES, by=self._presence.id, limit=CLAIM
        )
        await deliveries.bury_these(tx, {delivery.id: HOPELESS for delivery in overdue}, now=now)
        if overdue:
            tx.on_commit(lambda: log.warning("deliveries.given_up", number=len(overdue), reason=HOPELESS))
        return len(overdue) < CLAIM

    async def _bury_closed(
        self,
        tx: Transaction,
        due: Sequence[Delivery],
        targets: Mapping[EndpointId, Endpoint],
        now: datetime,
    ) -> Collection[DeliveryId]:
        """Makes dead letters of what is due for endpoints that take no more, and gives these."""
        closed = {
            delivery.id: reason
            for delivery in due
            if (reason := _why_closed(delivery, targets.get(delivery.endpoint_id))) is not None
        }
        await deliveries.bury_these(tx, closed, now=now)
        return closed

    async def _move_strays(
        self, tx: Transaction, targets: Mapping[EndpointId, Endpoint], lanes: Collection[LaneKey]
    ) -> Collection[EndpointId]:
        """Deliveries that were published while their endpoint moved to another lane wait in its old one: they are moved
        after it. Gives the endpoints.
        """
        strays = {endpoint.id: endpoint for endpoint in targets.values() if endpoint.lane not in lanes}
        for stray in strays.values():
            await deliveries.move(tx, stray.id, lane=stray.lane)
            await self._notices.post(tx, Topic.DELIVERIES)
        return strays

    async def _promise(
        self, tx: Transaction, wanted: Sequence[Delivery], targets: Mapping[EndpointId, Endpoint]
    ) -> dict[DeliveryId, Endpoint]:
        """Those of the deliveries for which their lanes keep a place, with their endpoints: only lanes that this process
        holds, and that have room.
        """
        held = await self._holdings.take(tx, {targets[delivery.endpoint_id].lane for delivery in wanted})
        promised: dict[DeliveryId, Endpoint] = {}
        for delivery in wanted:
            endpoint = targets[delivery.endpoint_id]
            if endpoint.lane not in held:
                continue
            if not self._lanes.promise_claimed(delivery.id, endpoint, attempt=delivery.attempts + 1):
                continue
            promised[delivery.id] = endpoint
        return promised


async def _duties(
    tx: Transaction, taken: Sequence[Delivery], targets: Mapping[EndpointId, Endpoint]
) -> list[Duty]:
    """First attempts in the order of the log, by whichever clocks their moments were set; retries before them."""
    happened = await events.by_id(tx, {delivery.event_id for delivery in taken})
    duties = [
        Duty(
            id=delivery.id,
            event=happened[delivery.event_id],
            endpoint=targets[delivery.endpoint_id],
            attempt=delivery.attempts + 1,
            created_at=delivery.created_at,
        )
        for delivery in taken
    ]
    return sorted(duties, key=lambda duty: duty.event.position if duty.attempt == 1 else 0)


def _why_closed(delivery: Delivery, endpoint: Endpoint | None) -> str | None:
    """Why the delivery is not attempted any more, if it is not. A disabled endpoint gets tests alone."""
    if endpoint is None:
        return DELETED
    if endpoint.enabled or delivery.event_type == EventType.ENDPOINT_TEST:
        return None
    return endpoint.why_closed
