"""What follows when a task brings outputs: somebody keeps them, or it is said in time that they will be lost."""

from collections.abc import Sequence

from service.domain.endpoints import Endpoint
from service.domain.events import Event
from service.domain.kept import BRING_OUTPUTS, archive_endpoint, expiry_notice_at
from service.domain.times import Clock
from service.domain.transitions import Change
from service.notices import Notices, Topic
from service.wakeups import Wakeup
from storage import endpoints, kept_files
from storage.database import Transaction
from storage.kept_files import ExpiryNotice


class Outputs:
    def __init__(self, *, kept: bool, expiry: Wakeup, notices: Notices, clock: Clock) -> None:
        """
        Args:
            kept: whether what a task made goes to its account's archive.
            expiry: of the loop that says what is about to be lost.
        """
        self._kept = kept
        self._expiry = expiry
        self._notices = notices
        self._clock = clock

    async def archives(self, tx: Transaction, stored: Sequence[Event]) -> list[Endpoint]:
        """Of the accounts whose tasks have just brought outputs; made where there is none yet."""
        if not self._kept:
            return []
        accounts = {event.account_id for event in stored if event.type in BRING_OUTPUTS}
        archives = [archive_endpoint(account_id, self._clock()) for account_id in sorted(accounts)]
        await endpoints.ensure(tx, archives)
        return archives

    async def expect(self, tx: Transaction, changes: Sequence[Change]) -> None:
        """When each output will be about to be lost; whoever keeps it before forgets the notice."""
        now = self._clock()
        notices = [
            ExpiryNotice(change.after.id, place, notice_at)
            for change in changes
            if change.event is not None and change.event.type in BRING_OUTPUTS
            for place, output in enumerate(change.after.outputs)
            if (notice_at := expiry_notice_at(output, now)) is not None
        ]
        await kept_files.expect_expiries(tx, notices)
        if notices:
            first = min(one.notice_at for one in notices)
            await self._notices.wake(tx, Topic.EXPIRY, self._expiry, at=first)
