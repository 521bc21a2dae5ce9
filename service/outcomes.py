"""Records how attempts ended: of many deliveries in one commit."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from typing import Final

import structlog

from service.batching import Batcher
from service.claims import CLAIM_GAP
from service.domain.deliveries import Attempt, AttemptOutcome, DeliveryStatus, Duty
from service.domain.errors import KlingelError
from service.domain.times import Clock
from service.domain.values import Struct, replace
from service.doubt import Doubt
from service.endpoint_health import EndpointHealth
from service.lanes import Lanes
from service.wakeups import Wakeup
from storage import deliveries
from storage.database import Transaction
from storage.deliveries import Outcome

# Nobody waits for an outcome to be recorded: those of so long share one commit, mostly one of callbacks. At 600 callbacks a
# second a third of all commits carry outcomes, instead of 84 of 100, and are longer for the callbacks that wait for them.
GATHER_S: Final = 0.01

log = structlog.get_logger()


class Ended(Struct, frozen=True, kw_only=True):
    """An attempt that is over, and what follows from it."""

    duty: Duty
    attempt: Attempt
    next_attempt_at: datetime | None
    exchanged: bool  # as in its reply


class Outcomes:
    """Attempts that have ended and are not recorded yet."""

    def __init__(
        self,
        *,
        batcher: Batcher,
        lanes: Lanes,
        health: EndpointHealth,
        doubt: Doubt,
        claims_wakeup: Wakeup,
        clock: Clock,
        on_recorded: Callable[[], None],
    ) -> None:
        """
        Args:
            doubt: whether deliveries are leased to this process that nobody here has in hand.
            claims_wakeup: of the loop that claims them, and retries.
            on_recorded: called when some were recorded, or could not be: there are fewer of them.
        """
        self._batcher = batcher
        self._lanes = lanes
        self._health = health
        self._doubt = doubt
        self._claims_wakeup = claims_wakeup
        self._clock = clock
        self._on_recorded = on_recorded
        self._ended: list[Ended] = []  # to be recorded together
        self._recordings: set[asyncio.Task[None]] = set()
        self.unrecorded = 0

    def hand_in(self, ended: Ended) -> None:
        """Has it recorded, together with all that ends within `GATHER_S`. A failure is recorded at once, for it may say that
        the endpoint is not to be attempted any more.
        """
        self._ended.append(ended)
        self.unrecorded += 1
        is_delivered = ended.attempt.outcome is AttemptOutcome.DELIVERED
        if len(self._ended) == 1 or not is_delivered:
            recording = asyncio.create_task(self._record_ended(GATHER_S if is_delivered else 0))
            self._recordings.add(recording)
            recording.add_done_callback(self._recordings.discard)

    async def all_recorded(self) -> None:
        while self._recordings:
            await asyncio.wait(self._recordings)

    async def _record_ended(self, gather_s: float) -> None:
        if gather_s:
            await asyncio.sleep(gather_s)
        together, self._ended = self._ended, []
        if not together:
            return
        try:
            await self._keep(together)
        finally:
            self.unrecorded -= len(together)
            for ended in together:
                self._lanes.settle(ended.duty)
            self._on_recorded()

    async def _keep(self, together: Sequence[Ended]) -> None:
        """Records them, or as much of them as can be; raises nothing."""
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
            self._claims_wakeup.notify()
        except Exception:
            # Not even in short. Its lease ends by itself: at once would be again and again.
            log.exception("delivery.not_recorded", delivery_id=together[0].duty.id)

    async def _record(self, tx: Transaction, groups: Sequence[Sequence[Ended]]) -> list[None]:
        ended = list(chain.from_iterable(groups))
        # Before their deliveries are changed, as by whoever changes or deletes an endpoint.
        await tx.hold("endpoint", {one.duty.endpoint.id for one in ended})
        await self._record_bare(tx, groups)
        exchanged = [(one.duty.endpoint, one.attempt) for one in ended if one.exchanged]
        await self._health.update(tx, exchanged, self._clock())
        return [None] * len(groups)

    async def _record_bare(self, tx: Transaction, groups: Sequence[Sequence[Ended]]) -> list[None]:
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
            tx.on_commit(lambda: self._claims_wakeup.due_at(max(min(retries), now + CLAIM_GAP)))
        return [None] * len(groups)


_STATUS: Final = {
    AttemptOutcome.DELIVERED: DeliveryStatus.DELIVERED,
    AttemptOutcome.RETRY: DeliveryStatus.PENDING,
    AttemptOutcome.DEAD: DeliveryStatus.DEAD,
    AttemptOutcome.GONE: DeliveryStatus.DEAD,
}
