"""What attempts say of their endpoints: failures in a row are counted, and whoever fails for too long is disabled."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from service.domain.deliveries import Attempt, AttemptOutcome
from service.domain.endpoints import Endpoint
from service.domain.events import EventType, endpoint_event
from service.domain.follow_ups import KIND as FOLLOW_UP
from service.domain.ids import EndpointId
from service.domain.kept import ARCHIVE
from service.domain.values import replace
from service.doubt import Doubt
from service.publication import Publisher
from service.wakeups import Wakeup
from storage import deliveries, endpoints
from storage.database import Transaction
from storage.endpoints import Health

DISABLE_AFTER_FAILURES: Final = 100
DISABLE_AFTER: Final = timedelta(hours=24)

log = structlog.get_logger()


class EndpointHealth:
    def __init__(self, *, publisher: Publisher, doubt: Doubt, claims_wakeup: Wakeup) -> None:
        """
        Args:
            doubt: whether deliveries are leased to this process that nobody here has in hand.
            claims_wakeup: of the loop that claims them.
        """
        self._publisher = publisher
        self._doubt = doubt
        self._claims_wakeup = claims_wakeup

    async def update(
        self, tx: Transaction, attempted: Sequence[tuple[Endpoint, Attempt]], now: datetime
    ) -> None:
        """
        Args:
            attempted: the attempts, in the order in which they ended, each with the endpoint as it was then.
        """
        by_endpoint: defaultdict[EndpointId, list[tuple[Endpoint, Attempt]]] = defaultdict(list)
        for endpoint, attempt in attempted:
            by_endpoint[endpoint.id].append((endpoint, attempt))
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
            attempts = await self._of_what_it_is_now(tx, endpoint, by_endpoint[endpoint_id], now)
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
        await self._tell_disabled(tx, [endpoint for endpoint in closed if stored[endpoint.id].enabled], now)

    async def _of_what_it_is_now(
        self,
        tx: Transaction,
        endpoint: Endpoint,
        attempted: Sequence[tuple[Endpoint, Attempt]],
        now: datetime,
    ) -> list[Attempt]:
        """The attempts that were made at the endpoint as it is configured now. The others say nothing of the place where it
        is now: what they have made dead letters is due again, and goes there.
        """
        here = [attempt for was, attempt in attempted if endpoint.is_configured_as(was)]
        if len(here) < len(attempted):
            # Such an attempt may also have made the lane drop what is for the new place; a claim finds that.
            elsewhere = [attempt for _, attempt in attempted if attempt not in here]
            await deliveries.revive(tx, {one.delivery_id: one.why for one in elsewhere}, now=now)
            tx.on_commit(self._doubt.raise_)
            tx.on_commit(self._claims_wakeup.notify)
        return here

    async def _tell_disabled(self, tx: Transaction, disabled: Sequence[Endpoint], now: datetime) -> None:
        for endpoint in disabled:
            log.warning("endpoint.disabled", endpoint_id=endpoint.id, reason=endpoint.disabled_reason)
        happened = [
            endpoint_event(
                EventType.ENDPOINT_DISABLED, endpoint.account_id, {"endpoint": endpoint.view()}, now
            )
            for endpoint in disabled
        ]
        await self._publisher.publish(tx, happened)


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
