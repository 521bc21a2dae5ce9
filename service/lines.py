"""The lines in which tasks wait for one of a provider's parallel places: no task is asked for more than needed."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Status
from service.domain.providers import ProviderAccounts
from service.domain.task_types import TASK_TYPES
from service.domain.tasks import OutputKind, Task
from service.domain.times import Clock
from service.domain.transitions import Change
from service.notices import Notices, Topic
from service.turns import Served
from service.wakeups import Wakeups
from storage import tasks
from storage.database import Reader, Transaction
from storage.tasks import Kind

LONGEST_WALK: Final = 8  # refusals in a row, then the provider is left alone for a while


class Lines:
    """Who is first in line and finds no place waits for the next one, and all others behind it: places add up, so that
    also one who needs many gets them. But who finds none although nothing of its kind runs will not fit however long
    it waits: it goes to the end of the line, and the next may ask. One after the other then asks, until one finds no
    place although something runs, or all have asked, or too many in a row were refused.

    In a line accounts take turns, who got a place longest ago first; an account's own stand in the order in which they
    came.
    """

    def __init__(
        self,
        *,
        notices: Notices,
        wakeups: Wakeups,
        clock: Clock,
        accounts: ProviderAccounts | None = None,
    ) -> None:
        self._notices = notices
        self._wakeup = wakeups.submission
        self._clock = clock
        self._accounts = accounts
        # Lines in which one after the other asks; how many in a row were refused.
        self._walks: dict[Kind, int] = {}
        self._served: defaultdict[Kind, Served] = defaultdict(Served)

    async def held(self, reader: Reader, due: Sequence[Task]) -> list[Task]:
        """Those of them that must wait: behind somebody else, or for a place where the operator allows so many."""
        first_in_line = await self._first_in_line(reader)
        behind = [
            task
            for task in due
            if task.status is Status.QUEUED
            and (kind := kind_of(task)) in first_in_line
            and self._place(kind, task.account_id, task.slot_turn, task.id) > first_in_line[kind]
        ]
        return behind + await self._without_slot(reader, [task for task in due if task not in behind])

    async def _without_slot(self, reader: Reader, due: Sequence[Task]) -> list[Task]:
        """Those for whom an account has no slot left. One that needs more than there are goes when nothing else is on
        its way: the provider decides.
        """
        queued = [(task, slots) for task in due if (slots := self._slots(task)) is not None]
        if not queued:
            return []
        taken: Counter[tuple[str, OutputKind]] = Counter()
        for (provider, type), places in (await tasks.places_at_providers(reader, now=self._clock())).items():
            if (known := TASK_TYPES.get(type)) is not None:
                taken[provider, known.deadline_as] += places
        without: list[Task] = []
        for task, slots in queued:
            kind = task.provider, TASK_TYPES[task.type].deadline_as
            if taken[kind] and taken[kind] + task.places > slots:
                without.append(task)
            else:
                taken[kind] += task.places
        return without

    def _slots(self, task: Task) -> int | None:
        """How many of its kind the operator allows on their way; None for what is there already."""
        account = None if self._accounts is None else self._accounts.get(task.provider)
        known = TASK_TYPES.get(task.type)
        if account is None or known is None or task.status is not Status.QUEUED:
            return None
        return account.slots.get(known.deadline_as)

    async def _first_in_line(self, reader: Reader) -> dict[Kind, tuple[int, int, TaskId]]:
        """Of all accounts: its place."""
        first: dict[Kind, tuple[int, int, TaskId]] = {}
        for one in await tasks.first_awaiting_slot(reader):
            place = self._place(one.kind, one.account_id, one.slot_turn, one.id)
            first[one.kind] = min(first.get(one.kind, place), place)
        return first

    def _place(
        self, kind: Kind, account_id: AccountId, slot_turn: int, id: TaskId
    ) -> tuple[int, int, TaskId]:
        """What is lower is before what is higher."""
        return slot_turn, self._served[kind].last.get(account_id, 0), id

    async def hold(self, tx: Transaction) -> None:
        """Until its end nobody else settles who is first, or gives places away."""
        await tx.hold("line", ["all"])

    async def prepare(self, tx: Transaction, changes: Sequence[Change]) -> None:
        """Before the answers to creates are written: holds what `walk_on` may need."""
        if self._walks or any(change.after.awaits_slot for change in changes):
            await self.hold(tx)

    async def release(
        self, tx: Transaction, changes: Sequence[Change], *, anybody_waits: bool | None = None
    ) -> None:
        """Whoever ends gives its places to those who are first in line; who leaves the line passes one on.

        Args:
            anybody_waits: in any line, where that is known already.
        """
        freed: Counter[Kind] = Counter()
        for change in changes:
            if _takes_place(change):
                self._served[kind_of(change.after)].note(change.after.account_id)
            if change.frees_slot:
                freed[kind_of(change.after)] += change.after.places
            elif change.transition is not None and change.after.status is Status.REJECTED:
                freed[kind_of(change.after)] += 1
        if not freed:
            return
        if anybody_waits is None:
            anybody_waits = await tasks.anybody_awaits_slot(tx)
        if not anybody_waits:
            return
        await self.hold(tx)  # each place goes to one
        for (provider, type), number in freed.items():
            released = await tasks.release_slots(
                tx,
                provider=provider,
                type=type,
                number=number,
                served=self._served[provider, type].last,
                now=self._clock(),
            )
            if released:
                await self._notices.wake(tx, Topic.SUBMISSION, self._wakeup)

    async def walk_on(self, tx: Transaction, changes: Sequence[Change], now: datetime) -> None:
        """After the answers to creates are written: lets the next in line ask, where waiting would not help."""
        refused = [change.after for change in changes if change.after.awaits_slot]
        entered = {kind_of(change.after) for change in changes if _is_entry(change)}
        if not refused and not self._walks.keys() & entered:
            return
        running = await tasks.kinds_at_providers(tx, now=now)
        stuck = [task for task in refused if kind_of(task) not in running]
        await tasks.go_to_end_of_line(tx, [task.id for task in stuck])
        for kind in {kind_of(task) for task in refused} & running:
            self._walks.pop(kind, None)
        for kind in entered & self._walks.keys():
            self._walks[kind] = 0
        turns: dict[Kind, int] = {}  # the highest that was asked in vain
        for task in stuck:
            kind = kind_of(task)
            self._walks[kind] = self._walks.get(kind, 0) + 1
            turns[kind] = max(task.slot_turn, turns.get(kind, 0))
        first_in_line = await self._first_in_line(tx)
        for kind in (entered & self._walks.keys()) | turns.keys():
            turn = first_in_line[kind][0] if kind in first_in_line else None
            if turn is None or turn > turns.get(kind, turn) or self._walks[kind] >= LONGEST_WALK:
                del self._walks[kind]  # whoever is first now asks when its own moment comes
            else:
                provider, type = kind
                served = self._served[kind].last
                await tasks.release_slots(tx, provider=provider, type=type, number=1, served=served, now=now)


def kind_of(task: Task) -> Kind:
    return task.provider, task.type


def _is_entry(change: Change) -> bool:
    """Whether the provider has just taken a task."""
    return change.transition is not None and change.after.status is Status.SUBMITTED


def _takes_place(change: Change) -> bool:
    """Whether the provider has a task now, or may have, that it had not before."""
    return change.before.status is Status.QUEUED and change.after.status not in {
        Status.QUEUED,
        Status.REJECTED,
    }
