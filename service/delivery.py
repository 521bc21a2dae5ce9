"""Claims due deliveries, attempts them, records outcomes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Protocol

import structlog

from service.batching import Batcher
from service.domain.deliveries import (
    ALL_RETRIES,
    LONGEST_EXCERPT,
    LONGEST_REASON,
    Attempt,
    AttemptOutcome,
    Delivery,
    DeliveryStatus,
    Duty,
    Reply,
    is_reason_to_rest,
    result,
    storable,
)
from service.domain.endpoints import DELETED, Endpoint
from service.domain.errors import KlingelError
from service.domain.events import EventType, endpoint_event
from service.domain.follow_ups import KIND as FOLLOW_UP
from service.domain.ids import DeliveryId, EndpointId, LaneKey, ProcessId
from service.domain.kept import ARCHIVE
from service.domain.times import Clock
from service.domain.values import Struct, replace
from service.doubt import Doubt
from service.holdings import Holdings
from service.lane import Ending
from service.lanes import Lanes
from service.loops import Loop
from service.notices import Notices, Topic
from service.observability.metrics import Metrics
from service.observability.tracing import UNTRACED, Span, SpanKind, Tracing, passing
from service.patience import Patience
from service.processes import Presence
from service.publication import LEASE, Publisher
from service.stopping import Stopping
from service.wakeups import Wakeups
from storage import deliveries, endpoints, events
from storage.database import Database, Transaction
from storage.deliveries import Outcome, Waiting
from storage.endpoints import Health

ATTEMPT_DEADLINE: Final = timedelta(seconds=15)  # from DNS to the last byte
NO_OTHERS: Final[Mapping[str, timedelta]] = MappingProxyType({})
ATTEMPTS_AT_A_TIME: Final = 512
RENEWED_BEFORE: Final = LEASE / 4  # the end of a lease: others, too, give back what they find ended
CLAIM: Final = 128  # of one commit, which all others wait for
# Retries that fall due within it share one claim, which is a commit: endpoints that fail would else make as many.
CLAIM_GAP: Final = timedelta(milliseconds=250)
# Nobody waits for a delivery to be recorded: those of so long share one commit, mostly one of callbacks. At 600 callbacks a
# second a third of all commits carry outcomes, instead of 84 of 100, and are longer for the callbacks that wait for them.
GATHER_S: Final = 0.01

HOPELESS: Final = (
    f"its host fails, and its turn did not come within {ALL_RETRIES // timedelta(hours=1)} hours"
)

DISABLE_AFTER_FAILURES: Final = 100
DISABLE_AFTER: Final = timedelta(hours=24)

log = structlog.get_logger()


class Sink(Protocol):
    """Turns an event into one exchange with an outside party."""

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        """A checked configuration for endpoints of this kind: its readable part, and its secret part, JSON that is sealed.

        Args:
            before: the endpoint to be changed; what `raw` does not name stays as it is there.

        Raises:
            InvalidFields: with every fault.
        """

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        """Raises nothing for what the other side can do; the deadline cuts it off."""


class _Claimed(Struct, frozen=True):
    took_any: bool  # and so there may be more
    gave_up_all: bool  # for which there is no hope; else there may be more, also where no lane has room
    # Where it took as much as it may: the lanes to go on with, by whose turn it is.
    in_order: Sequence[LaneKey] = ()


class _Ended(Struct, frozen=True, kw_only=True):
    duty: Duty
    attempt: Attempt
    next_attempt_at: datetime | None
    exchanged: bool  # as in its reply


class Deliverer:
    """Carries out deliveries: new ones as they come into their lanes, others from the table when they fall due."""

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        publisher: Publisher,
        lanes: Lanes,
        holdings: Holdings,
        presence: Presence,
        notices: Notices,
        sinks: Mapping[str, Sink],
        wakeups: Wakeups,
        stopping: Stopping,
        metrics: Metrics,
        clock: Clock,
        deadlines: Mapping[str, timedelta] = NO_OTHERS,
        tracing: Tracing = UNTRACED,
    ) -> None:
        """
        Args:
            deadlines: of an attempt, for the kinds that need another than `ATTEMPT_DEADLINE`; less than a lease.
        """
        self._usual_patience = Patience(ATTEMPT_DEADLINE)
        self._patience = {kind: Patience(span) for kind, span in deadlines.items()}
        self._tracing = tracing
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._lanes = lanes
        self._holdings = holdings
        self._presence = presence
        self._notices = notices
        self._sinks = sinks
        self._wakeup = wakeups.delivery
        self._attempts_wakeup = wakeups.attempts
        self._metrics = metrics
        self._clock = clock
        self._stopping = stopping
        # Whether deliveries are leased to this process that nobody here has in hand.
        self._doubt = Doubt(notices)
        self._is_open = False
        self._senders: dict[asyncio.Task[None], Duty] = {}  # each with what it is attempting
        self._ended: list[_Ended] = []  # to be recorded together
        self._recordings: set[asyncio.Task[None]] = set()
        self._unrecorded = 0
        self._is_start_due = False
        self._log: structlog.typing.FilteringBoundLogger | None = None
        self._claims = Loop("deliveries.claim", self._claim_due, wakeup=wakeups.delivery, clock=clock)
        self._starts = Loop("deliveries.start", self._start_once_alive, wakeup=wakeups.attempts, clock=clock)
        self._paces = Loop("deliveries.pace", self._go_on, wakeup=wakeups.paces, clock=clock)
        lanes.serve(
            on_startable=self._start_soon,
            on_offer=self._start,
            on_room=wakeups.delivery.notify,
            on_undone=self._doubt.raise_,
            on_rest=wakeups.delivery.due_at,
            on_pace=wakeups.paces.due_at,
        )

    @property
    def alive(self) -> bool:
        return self._claims.alive and self._starts.alive and self._paces.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Delivers until the block ends; then attempts on their way may end, and all else is given back."""
        if self._database.sole_process:
            # Whatever is leased was in the hands of a process that died: nobody else can have it.
            await self._batcher.run(self._rescue, datetime.max.replace(tzinfo=UTC))
        try:
            async with self._claims.running(), self._starts.running(), self._paces.running():
                self._is_open = True
                self._start()
                try:
                    yield
                finally:
                    self._is_open = False
        finally:
            # Those that may take minutes are begun anew after the start.
            long = {
                task: duty for task, duty in self._senders.items() if duty.endpoint.kind in self._patience
            }
            for sender in long:
                sender.cancel()
            if self._senders:
                await asyncio.wait(self._senders, timeout=self._stopping.left_s())
            cut_off = long | self._senders
            for sender in cut_off:
                sender.cancel()
            await asyncio.gather(*cut_off, return_exceptions=True)
            while self._recordings:
                await asyncio.wait(self._recordings)
            left = [duty.id for duty in (*cut_off.values(), *self._lanes.waiting())] + self._lanes.recalled()
            try:
                await self._batcher.run(self._give_back, left)
            except KlingelError as error:
                log.warning(
                    "deliveries.not_given_back", reason=error.detail
                )  # their leases end by themselves

    async def inherit(self, tx: Transaction, dead: Sequence[ProcessId]) -> None:
        """What was in the hands of processes that are no more is to be claimed anew."""
        await deliveries.inherit(tx, dead)
        await self._notices.wake(tx, Topic.DELIVERIES, self._wakeup)

    async def _rescue(self, tx: Transaction, moments: Sequence[datetime]) -> list[int]:
        return [await deliveries.rescue(tx, now=now) for now in moments]

    async def _give_back(self, tx: Transaction, items: Sequence[Sequence[DeliveryId]]) -> list[None]:
        await deliveries.give_back(tx, [id for ids in items for id in ids])
        return [None] * len(items)

    async def _claim_due(self) -> datetime | None:
        waiting, looked_at = await self._waiting(), self._clock()
        claimed = await self._batcher.run(self._claim, waiting.lanes)
        while True:
            if claimed.in_order and len(waiting.lanes) < CLAIM and self._clock() < looked_at + CLAIM_GAP:
                claimed = await self._batcher.run(self._claim, claimed.in_order)
                continue
            # In any case: what waits for a lane that was full is not told, and whether it asks is known after the claim.
            waiting, looked_at = await self._waiting(), self._clock()
            if claimed.gave_up_all and not (claimed.took_any and waiting.lanes):
                break
            claimed = await self._batcher.run(self._claim, waiting.lanes)
        due = waiting.next_moment
        if due is not None:
            due = max(due, self._clock() + CLAIM_GAP)
        awake = self._lanes.end_rests()
        return min((moment for moment in (due, awake) if moment is not None), default=None)

    async def _waiting(self) -> Waiting:
        """Read before it is claimed, for who claims has all others wait."""
        async with self._database.reading() as reader:
            return await deliveries.waiting(
                reader,
                now=self._clock(),
                busy=self._lanes.full(),
                no_retries=self._lanes.full_of_retries(),
                by=self._presence.id,
                limit=CLAIM,
            )

    async def _claim(self, tx: Transaction, asked: Sequence[Sequence[LaneKey]]) -> "list[_Claimed]":
        """Takes what is due in these lanes, and in those that wait for it, into the lanes."""
        # Read here, not when it was asked for: what was turned away from its lane since must be found.
        now = self._clock()
        await self._keep_in_hand(tx, now)
        rescued = await deliveries.rescue(tx, now=now)
        recalled = self._lanes.recalled()
        await deliveries.give_back(tx, recalled)
        in_doubt = self._doubt.is_open
        if in_doubt:
            await self._give_back_lost(tx)
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
        closed = {
            delivery.id: reason
            for delivery in due
            if (reason := _why_not(delivery, targets.get(delivery.endpoint_id))) is not None
        }
        await deliveries.bury_these(tx, closed, now=now)
        # Published while the endpoint moved to another lane, they wait in its old one.
        strays = {endpoint.id: endpoint for endpoint in targets.values() if endpoint.lane not in lanes}
        for stray in strays.values():
            await deliveries.move(tx, stray.id, lane=stray.lane)
            await self._notices.post(tx, Topic.DELIVERIES)
        wanted = {delivery.endpoint_id for delivery in due if delivery.id not in closed} - strays.keys()
        held = await self._holdings.take(tx, {targets[endpoint_id].lane for endpoint_id in wanted})
        promised = {
            delivery.id: targets[delivery.endpoint_id]
            for delivery in due
            if delivery.endpoint_id in wanted
            and delivery.id not in closed
            and targets[delivery.endpoint_id].lane in held
            and self._lanes.promise_claimed(
                delivery.id, targets[delivery.endpoint_id], attempt=delivery.attempts + 1
            )
        }
        tx.on_rollback(lambda: self._lanes.release(promised))
        await deliveries.lease(tx, promised, until=now + LEASE, by=self._presence.id)
        happened = await events.by_id(tx, {delivery.event_id for delivery in due if delivery.id in promised})
        duties = [
            Duty(
                id=delivery.id,
                event=happened[delivery.event_id],
                endpoint=promised[delivery.id],
                attempt=delivery.attempts + 1,
                created_at=delivery.created_at,
            )
            for delivery in due
            if delivery.id in promised
        ]
        # New ones in the order of the log, by whichever clocks their moments were set.
        duties.sort(key=lambda duty: duty.event.position if duty.attempt == 1 else 0)
        tx.on_commit(lambda: self._lanes.forget_recalled(recalled))
        tx.on_commit(lambda: self._lanes.offer(duties))
        if len(due) < CLAIM and all(len(some) < CLAIM for some in asked):
            tx.on_commit(lambda: self._lanes.end_claim(full))
        # Of a page that no lane took the lanes ask themselves, when they have room.
        claimed = _Claimed(bool(promised or closed or strays or rescued or recalled or in_doubt), gave_up_all)
        if claimed.took_any and len(due) == CLAIM:
            had_their_turn = {endpoint.lane for endpoint in targets.values()}
            claimed = replace(
                claimed, in_order=sorted(able, key=lambda lane: lane in had_their_turn)[: CLAIM - 1]
            )
        return [claimed] * len(asked)

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

    async def _keep_in_hand(self, tx: Transaction, now: datetime) -> None:
        """What waits in a lane that rests, or keeps to a rate, may do so for longer than a lease: it is leased anew, or each
        claim would find it due, and take nothing.
        """
        ending = await deliveries.leases_ending(tx, self._presence.id, before=now + RENEWED_BEFORE)
        lost = set(self._lanes.not_here(ending)) if ending else set()
        kept = [id for id in ending if id not in lost]
        await deliveries.lease(tx, kept, until=now + LEASE, by=self._presence.id)

    async def _give_back_lost(self, tx: Transaction) -> None:
        """What a commit, or an outcome, left leased to this process of which it did not learn."""
        self._doubt.settle(tx)
        leased = await deliveries.leased(tx, self._presence.id)
        await deliveries.give_back(tx, self._lanes.not_here(leased))

    # Starts

    async def _start_once_alive(self) -> None:
        """Starts what `_next` held back, as soon as others count this process as alive again."""
        await self._presence.until_alive()
        self._start()

    async def _go_on(self) -> datetime | None:
        """A loop of its own, for the one that claims would commit each time."""
        return self._lanes.end_paces()

    def _start_soon(self) -> None:
        if not self._is_start_due:
            self._is_start_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        """In the turn in which it was offered: the answers to those whose callbacks made it come after it."""
        self._is_start_due = False
        while self._lanes.startable.is_set() and (duty := self._next()) is not None:
            sender = asyncio.create_task(self._deliver(duty))
            self._senders[sender] = duty
            sender.add_done_callback(self._on_sender_done)

    def _next(self) -> Duty | None:
        """What may be attempted now."""
        if (
            not self._is_open
            or self._stopping.has_begun
            or len(self._senders) + self._unrecorded >= ATTEMPTS_AT_A_TIME
        ):
            return None
        if not self._presence.alive:
            self._attempts_wakeup.notify()
            return None
        return self._lanes.next()

    def _on_sender_done(self, sender: "asyncio.Task[None]") -> None:
        self._senders.pop(sender, None)
        if not sender.cancelled() and (error := sender.exception()) is not None:
            log.error("delivery.attempt_broke", exc_info=error)
        self._start()

    async def _deliver(self, duty: Duty) -> None:
        """One duty after another, while there are any: a task for each would take its turn only after all others."""
        sender = asyncio.current_task()
        assert sender is not None
        following: Duty | None = duty
        while following is not None:
            self._senders[sender] = duty = following
            try:
                ended = await self._carry_out(duty)
            except BaseException:
                self._lanes.settle(duty)
                raise
            self._hand_in(ended)
            following = self._next()

    async def _carry_out(self, duty: Duty) -> _Ended:
        started_at, started = self._clock(), time.monotonic()
        delivered = False
        ending = Ending.ILL
        try:
            with self._span(duty) as span:
                told = duty if span.trace is None else replace(duty, trace=span.trace)
                reply = await self._send(told, started_at)
                ended_at = self._clock()
                verdict = result(reply, attempt=duty.attempt, now=ended_at)
                _note_end(span, reply, verdict.outcome)
            delivered = verdict.outcome is AttemptOutcome.DELIVERED
            if not reply.exchanged:
                ending = Ending.UNTRIED
            elif not is_reason_to_rest(reply, of_many=duty.endpoint.shares_lane):
                ending = Ending.WELL
            if verdict.outcome is AttemptOutcome.GONE:
                # Before the next in line can start; what is dropped becomes dead letters with this attempt's record.
                self._lanes.drop(duty.endpoint)
        finally:
            self._lanes.end(duty, ending)
        attempt = Attempt(
            delivery_id=duty.id,
            number=duty.attempt,
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            status_code=reply.status_code,
            outcome=verdict.outcome,
            reason=storable(reply.reason, LONGEST_REASON),
            excerpt=storable(reply.excerpt, LONGEST_EXCERPT),
        )
        kind = duty.endpoint.kind
        self._metrics.attempt_ended(kind, verdict.outcome)
        if delivered:
            self._metrics.delivered(kind, max((ended_at - duty.created_at).total_seconds(), 0))
        # Bound once: otherwise this is looked up for each line, in half of the time that the line takes.
        self._log = self._log or log.bind()
        self._log.info(
            "delivery.attempted",
            delivery_id=duty.id,
            event_id=duty.event.id,
            event_type=str(duty.event.type),
            task_id=duty.event.task_id,
            endpoint_id=duty.endpoint.id,
            kind=kind,
            attempt=duty.attempt,
            outcome=str(verdict.outcome),
            status_code=reply.status_code,
            reason=attempt.reason,
            duration_ms=attempt.duration_ms,
            next_attempt_at=verdict.next_attempt_at,
        )
        return _Ended(
            duty=duty,
            attempt=attempt,
            next_attempt_at=verdict.next_attempt_at,
            exchanged=reply.exchanged,
        )

    # Outcomes

    def _hand_in(self, ended: _Ended) -> None:
        """To be recorded, together with all that ends within `GATHER_S`. What failed is recorded at once: how its
        endpoint is served from now on goes by that.
        """
        self._ended.append(ended)
        self._unrecorded += 1
        is_delivered = ended.attempt.outcome is AttemptOutcome.DELIVERED
        if len(self._ended) == 1 or not is_delivered:
            recording = asyncio.create_task(self._record_ended(GATHER_S if is_delivered else 0))
            self._recordings.add(recording)
            recording.add_done_callback(self._recordings.discard)

    async def _record_ended(self, gather_s: float) -> None:
        if gather_s:
            await asyncio.sleep(gather_s)
        together, self._ended = self._ended, []
        if not together:
            return
        try:
            await self._keep(together)
        finally:
            self._unrecorded -= len(together)
            for ended in together:
                self._lanes.settle(ended.duty)
            self._start()

    async def _keep(self, together: Sequence[_Ended]) -> None:
        try:
            try:
                await self._batcher.run(self._record, together)
            except KlingelError:
                raise
            except Exception:
                if len(together) > 1:  # its neighbours must not suffer for the bad one
                    for ended in together:
                        await self._keep([ended])
                        self._lanes.settle(ended.duty)  # before a claim that it called for looks for it
                    return
                [ended] = together
                # A fault of ours: what it must not cost is the retry, or the knowledge that it was delivered. So nothing
                # of what the other side gave is in it.
                log.exception("delivery.record_broke", delivery_id=ended.duty.id)
                reason = "Klingel could not keep what was answered"
                bare = replace(ended.attempt, status_code=None, reason=reason, excerpt="")
                await self._batcher.run(self._record_bare, [replace(ended, attempt=bare)])
        except KlingelError as error:
            # Their leases are given back, or end by themselves; the messages go out once more, under the same ids.
            for ended in together:
                log.warning("delivery.not_recorded", delivery_id=ended.duty.id, reason=error.detail)
            self._doubt.raise_()
            self._wakeup.notify()
        except Exception:
            # Not even in short. Its lease ends by itself: at once would be again and again.
            log.exception("delivery.not_recorded", delivery_id=together[0].duty.id)

    def _span(self, duty: Duty) -> AbstractContextManager[Span]:
        """Of an attempt, in its task's trace: whoever gets the event may go on from there."""
        if self._tracing is UNTRACED:
            return passing(duty.event.trace)
        attributes: dict[str, str | int | bool] = {
            "klingel.delivery.id": duty.id,
            "klingel.delivery.attempt": duty.attempt,
            "klingel.event.id": duty.event.id,
            "klingel.event.type": duty.event.type,
            "klingel.endpoint.id": duty.endpoint.id,
            "klingel.endpoint.kind": duty.endpoint.kind,
        }
        if duty.event.task_id is not None:
            attributes["klingel.task.id"] = duty.event.task_id
        return self._tracing.span(
            f"deliver {duty.endpoint.kind}", SpanKind.CLIENT, parent=duty.event.trace, attributes=attributes
        )

    async def _send(self, duty: Duty, now: datetime) -> Reply:
        try:
            sink = self._sinks[duty.endpoint.kind]
        except KeyError:
            return Reply(
                status_code=None, reason=f"this Klingel does not know endpoints of kind {duty.endpoint.kind}"
            )
        patience = self._patience.get(duty.endpoint.kind, self._usual_patience)
        try:
            with patience.limited():
                return await sink.send(duty, now=now)
        except TimeoutError:
            return Reply(status_code=None, reason=f"no full answer within {patience.span.seconds} s")
        except Exception as error:
            log.exception("delivery.sink_broke", delivery_id=duty.id, kind=duty.endpoint.kind)
            return Reply(status_code=None, reason=f"Klingel could not send it: {type(error).__name__}")

    async def _record(self, tx: Transaction, groups: Sequence[Sequence[_Ended]]) -> list[None]:
        ended = list(chain.from_iterable(groups))
        # Before their deliveries are changed, as by whoever changes or deletes an endpoint.
        await tx.hold("endpoint", {one.duty.endpoint.id for one in ended})
        await self._record_bare(tx, groups)
        await self._update_health(tx, ended, self._clock())
        return [None] * len(groups)

    async def _record_bare(self, tx: Transaction, groups: Sequence[Sequence[_Ended]]) -> list[None]:
        """What became of the deliveries, and nothing that follows from it for their endpoints."""
        now = self._clock()
        ended = list(chain.from_iterable(groups))
        await deliveries.record(
            tx,
            [
                Outcome(
                    attempt=one.attempt,
                    status=_STATUS[one.attempt.outcome],
                    next_attempt_at=one.next_attempt_at,
                )
                for one in ended
            ],
            now=now,
        )
        retries = [one.next_attempt_at for one in ended if one.next_attempt_at is not None]
        if retries:
            tx.on_commit(lambda: self._wakeup.due_at(max(min(retries), now + CLAIM_GAP)))
        return [None] * len(groups)

    async def _update_health(self, tx: Transaction, ended: Sequence[_Ended], now: datetime) -> None:
        by_endpoint: defaultdict[EndpointId, list[tuple[Endpoint, Attempt]]] = defaultdict(list)
        for one in ended:
            if one.exchanged:
                by_endpoint[one.duty.endpoint.id].append((one.duty.endpoint, one.attempt))
        well = {
            id
            for id, attempts in by_endpoint.items()
            if all(attempt.outcome is AttemptOutcome.DELIVERED for _, attempt in attempts)
        }
        await endpoints.forget_failures(tx, well, now=now)
        if len(well) == len(by_endpoint):
            return  # nothing to be read: what is usual costs no turn of the database
        stored = await endpoints.by_id(tx, by_endpoint.keys() - well)
        changed: list[Health] = []
        closed: list[Endpoint] = []
        for endpoint_id, endpoint in stored.items():
            attempts = [
                attempt for was, attempt in by_endpoint[endpoint_id] if endpoint.is_configured_as(was)
            ]
            if len(attempts) < len(by_endpoint[endpoint_id]):
                # An answer of its former place, after which the lane dropped what may be for the new one.
                elsewhere = [attempt for _, attempt in by_endpoint[endpoint_id] if attempt not in attempts]
                await deliveries.revive(tx, {one.delivery_id: one.why for one in elsewhere}, now=now)
                tx.on_commit(self._doubt.raise_)
                tx.on_commit(self._wakeup.notify)
            if not attempts:
                continue
            health = _health(endpoint, attempts)
            if (health.failures, health.failing_since, health.disabled_reason) != (
                endpoint.failures,
                endpoint.failing_since,
                None,
            ):
                changed.append(health)
            if health.disabled_reason is not None:
                closed.append(replace(endpoint, enabled=False, disabled_reason=health.disabled_reason))
        await endpoints.save_health(tx, changed, now=now)
        for endpoint in closed:  # one that was off already may have further tests in line
            await self._publisher.bury(tx, endpoint, reason=endpoint.why_closed, now=now)
        disabled = [endpoint for endpoint in closed if stored[endpoint.id].enabled]
        for endpoint in disabled:
            log.warning("endpoint.disabled", endpoint_id=endpoint.id, reason=endpoint.disabled_reason)
        await self._publisher.publish(
            tx,
            [
                endpoint_event(
                    EventType.ENDPOINT_DISABLED,
                    endpoint.account_id,
                    {"endpoint": endpoint.view()},
                    now,
                )
                for endpoint in disabled
            ],
        )


_STATUS: Final = {
    AttemptOutcome.DELIVERED: DeliveryStatus.DELIVERED,
    AttemptOutcome.RETRY: DeliveryStatus.PENDING,
    AttemptOutcome.DEAD: DeliveryStatus.DEAD,
    AttemptOutcome.GONE: DeliveryStatus.DEAD,
}


def _why_not(delivery: Delivery, endpoint: Endpoint | None) -> str | None:
    """Why it is not attempted any more, if it is not: of a disabled endpoint nothing but a test."""
    if endpoint is None:
        return DELETED
    if endpoint.enabled or delivery.event_type == EventType.ENDPOINT_TEST:
        return None
    return endpoint.why_closed


def _note_end(span: Span, reply: Reply, outcome: AttemptOutcome) -> None:
    ended: dict[str, str | int | bool] = {"klingel.delivery.outcome": outcome}
    if reply.status_code is not None:
        ended["http.response.status_code"] = reply.status_code
    span.note(ended)
    if outcome is not AttemptOutcome.DELIVERED:
        span.fail(reply.reason)


def _health(endpoint: Endpoint, attempts: Sequence[Attempt]) -> Health:
    """What these attempts, in the order in which they ended, make of the endpoint."""
    failures, failing_since = endpoint.failures, endpoint.failing_since
    reason: str | None = None
    for attempt in attempts:
        if attempt.outcome is AttemptOutcome.DELIVERED:
            failures, failing_since = 0, None
            continue
        if endpoint.kind == FOLLOW_UP and attempt.outcome is AttemptOutcome.DEAD:
            continue  # no task could be made of this one event, which says nothing of the next
        failures += 1
        failing_since = failing_since or attempt.started_at.astimezone(UTC)
        if attempt.outcome is AttemptOutcome.GONE:
            reason = "it answered 410 Gone" if attempt.status_code == 410 else attempt.reason
        elif endpoint.kind == ARCHIVE:
            continue  # nobody could enable it again; each of its outputs has its own end
        elif not endpoint.enabled:
            continue  # what is still sent there is a test, which has retries like any other
        elif failures >= DISABLE_AFTER_FAILURES and attempt.started_at - failing_since >= DISABLE_AFTER:
            reason = f"{failures} attempts in a row failed, over more than {DISABLE_AFTER.days} day"
    return Health(id=endpoint.id, failures=failures, failing_since=failing_since, disabled_reason=reason)
