"""Carries out deliveries: attempts what the lanes give, and has the outcomes recorded."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Protocol

import structlog

from service.batching import Batcher
from service.claims import Claims
from service.domain.deliveries import (
    LONGEST_EXCERPT,
    LONGEST_REASON,
    Attempt,
    AttemptOutcome,
    Duty,
    Reply,
    is_reason_to_rest,
    result,
    storable,
)
from service.domain.endpoints import Endpoint
from service.domain.errors import KlingelError
from service.domain.ids import ProcessId
from service.domain.times import Clock
from service.domain.values import replace
from service.doubt import Doubt
from service.endpoint_health import EndpointHealth
from service.holdings import Holdings
from service.lane import Condition
from service.lanes import Lanes
from service.loops import Loop
from service.notices import Notices, Topic
from service.observability.metrics import Metrics
from service.observability.tracing import UNTRACED, Span, SpanKind, Tracing, passing
from service.outcomes import Ended, Outcomes
from service.patience import Patience
from service.processes import Presence
from service.publication import Publisher
from service.stopping import Stopping
from service.wakeups import Wakeups
from storage import deliveries
from storage.database import Database, Transaction

ATTEMPT_DEADLINE: Final = timedelta(seconds=15)  # from DNS to the last byte
NO_OTHERS: Final[Mapping[str, timedelta]] = MappingProxyType({})
ATTEMPTS_AT_A_TIME: Final = 512

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


class Deliverer:
    """Attempts deliveries: new ones as they come into their lanes, others once they are claimed from the database."""

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
        self._lanes = lanes
        self._presence = presence
        self._notices = notices
        self._sinks = sinks
        self._wakeups = wakeups
        self._metrics = metrics
        self._clock = clock
        self._stopping = stopping
        stopping.on_begin(lanes.close)
        self._is_open = False
        self._senders: dict[asyncio.Task[None], Duty] = {}  # each with what it is attempting
        self._is_start_due = False
        self._log: structlog.typing.FilteringBoundLogger | None = None
        doubt = Doubt(notices)  # whether deliveries are leased to this process that nobody here has in hand
        self._claims = Claims(
            database=database,
            batcher=batcher,
            lanes=lanes,
            holdings=holdings,
            presence=presence,
            notices=notices,
            doubt=doubt,
            wakeup=wakeups.delivery,
            clock=clock,
        )
        self._outcomes = Outcomes(
            batcher=batcher,
            lanes=lanes,
            health=EndpointHealth(publisher=publisher, doubt=doubt, claims_wakeup=wakeups.delivery),
            doubt=doubt,
            claims_wakeup=wakeups.delivery,
            clock=clock,
            on_recorded=self._start,
        )
        self._starts = Loop("deliveries.start", self._start_once_alive, wakeup=wakeups.attempts, clock=clock)
        self._paces = Loop("deliveries.pace", self._end_paces, wakeup=wakeups.paces, clock=clock)
        lanes.serve(
            on_startable=self._start_soon,
            on_offer=self._start,
            on_room=wakeups.delivery.notify,
            on_undone=doubt.raise_,
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
            await self._claims.rescue_all()
        async with self._claims.running(), self._starts.running(), self._paces.running():
            self._is_open = True
            self._start()
            try:
                yield
            finally:
                self._stopping.begin()  # where nobody was told before
                await self._end_attempts()

    async def _end_attempts(self) -> None:
        """While they end, the loop that claims gives back all else, and each lane that has none left."""
        # Attempts that may take minutes are cut off now, and begun anew after the next start.
        long = {task: duty for task, duty in self._senders.items() if duty.endpoint.kind in self._patience}
        for sender in long:
            sender.cancel()
        if self._senders:
            await asyncio.wait(self._senders, timeout=self._stopping.left_s())
        cut_off = long | self._senders
        for sender in cut_off:
            sender.cancel()
        await asyncio.gather(*cut_off, return_exceptions=True)
        await self._outcomes.all_recorded()
        try:
            await self._claims.give_back([duty.id for duty in cut_off.values()])
        except KlingelError as error:
            # Their leases end by themselves.
            log.warning("deliveries.not_given_back", reason=error.detail)

    async def inherit(self, tx: Transaction, dead: Sequence[ProcessId]) -> None:
        """What dead processes had in hand is to be claimed anew."""
        await deliveries.inherit(tx, dead)
        await self._notices.wake(tx, Topic.DELIVERIES, self._wakeups.delivery)

    # Starts

    async def _start_once_alive(self) -> None:
        """Starts what `_next` held back, as soon as others count this process as alive again."""
        await self._presence.until_alive()
        self._start()

    async def _end_paces(self) -> datetime | None:
        """In a loop of its own: in the one that claims, each end of a pace would be a commit."""
        return self._lanes.end_paces()

    def _start_soon(self) -> None:
        if not self._is_start_due:
            self._is_start_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        """Starts all that may be attempted now. Called where deliveries are offered: the callbacks that made them are
        answered after that.
        """
        self._is_start_due = False
        while self._lanes.startable.is_set() and (duty := self._next()) is not None:
            sender = asyncio.create_task(self._deliver(duty))
            self._senders[sender] = duty
            sender.add_done_callback(self._on_sender_done)

    def _next(self) -> Duty | None:
        """What to attempt next, if anything may be attempted now."""
        if (
            not self._is_open
            or self._stopping.has_begun
            or len(self._senders) + self._outcomes.unrecorded >= ATTEMPTS_AT_A_TIME
        ):
            return None
        if not self._presence.alive:
            self._wakeups.attempts.notify()
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
            self._outcomes.hand_in(ended)
            following = self._next()

    async def _carry_out(self, duty: Duty) -> Ended:
        started_at, started = self._clock(), time.monotonic()
        condition = Condition.ILL
        try:
            with self._span(duty) as span:
                told = duty if span.trace is None else replace(duty, trace=span.trace)
                reply = await self._send(told, started_at)
                ended_at = self._clock()
                verdict = result(reply, attempt=duty.attempt, now=ended_at)
                _note_end(span, reply, verdict.outcome)
            if not reply.exchanged:
                condition = Condition.UNTRIED
            elif not is_reason_to_rest(reply, of_many=duty.endpoint.shares_lane):
                condition = Condition.WELL
            if verdict.outcome is AttemptOutcome.GONE:
                # Before the next in line can start; what is dropped becomes dead letters with this attempt's record.
                self._lanes.drop(duty.endpoint)
        finally:
            self._lanes.end(duty, condition)
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
        self._metrics.attempt_ended(duty.endpoint.kind, verdict.outcome)
        if verdict.outcome is AttemptOutcome.DELIVERED:
            seconds = max((ended_at - duty.created_at).total_seconds(), 0)
            self._metrics.delivered(duty.endpoint.kind, seconds)
        ended = Ended(
            duty=duty,
            attempt=attempt,
            next_attempt_at=verdict.next_attempt_at,
            exchanged=reply.exchanged,
        )
        self._log_attempt(ended)
        return ended

    def _log_attempt(self, ended: Ended) -> None:
        duty, attempt = ended.duty, ended.attempt
        # Bound once: otherwise this is looked up for each line, in half of the time that the line takes.
        self._log = self._log or log.bind()
        self._log.info(
            "delivery.attempted",
            delivery_id=duty.id,
            event_id=duty.event.id,
            event_type=str(duty.event.type),
            task_id=duty.event.task_id,
            endpoint_id=duty.endpoint.id,
            kind=duty.endpoint.kind,
            attempt=attempt.number,
            outcome=str(attempt.outcome),
            status_code=attempt.status_code,
            reason=attempt.reason,
            duration_ms=attempt.duration_ms,
            next_attempt_at=ended.next_attempt_at,
        )

    def _span(self, duty: Duty) -> AbstractContextManager[Span]:
        """The span of an attempt, in its task's trace: the receiver of the event may go on from there."""
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


def _note_end(span: Span, reply: Reply, outcome: AttemptOutcome) -> None:
    ended: dict[str, str | int | bool] = {"klingel.delivery.outcome": outcome}
    if reply.status_code is not None:
        ended["http.response.status_code"] = reply.status_code
    span.note(ended)
    if outcome is not AttemptOutcome.DELIVERED:
        span.fail(reply.reason)
