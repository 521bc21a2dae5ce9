"""The lines in which tasks wait for one of a provider's parallel places: no task is asked for more than needed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Status
from service.domain.providers import ProviderAccounts
from service.domain.task_types import TASK_TYPES
from service.domain.tasks import Task
from service.domain.times import Clock
from service.domain.transitions import Change
from service.notices import Notices, Topic
from service.turns import Served
from service.wakeups import Wakeups
from storage import tasks
from storage.database import Reader, Transaction
from storage.tasks import Kind, Waiting

LONGEST_WALK: Final = 8  # refusals in a row, then the provider is left alone for a while

# A provider and a kind of output. The types that make it share places, as far as we know: so Kling counts by packs, and
# so the operator does.
Pool = tuple[str, str]


class Lines:
    """Who is first in line and finds no place waits for the next one, and all others behind it: places add up, so that
    also one who needs many gets them. But who finds none although nothing of its kind runs will not fit however long
    it waits: it goes to the end of the line, and the next may ask. One after the other then asks, until one finds no
    place although something runs, or all have asked, or too many in a row were refused.

    In a line accounts take turns, who got a place longest ago first; an account's own stand in the order in which they
    came. Each type has its line, and a free place goes to one of those that share it. Some may have places of their own
    all the same: one that needs a single place and finds none passes it on to the other types.
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
        self._walks: dict[Pool, int] = {}
        # Types that one after the other found no place, though others had one to pass on.
        self._passed: dict[Pool, set[str]] = {}
        self._served: defaultdict[Pool, Served] = defaultdict(Served)

    async def held(self, reader: Reader, due: Sequence[Task]) -> list[Task]:
        """Those of them that must wait: behind somebody else, or for a place where the operator allows so many."""
        first_in_line = self._first_in_line(await tasks.first_awaiting_slot(reader))
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
        taken: Counter[Pool] = Counter()
        for (provider, type), places in (await tasks.places_at_providers(reader, now=self._clock())).items():
            taken[_pool(provider, type)] += places
        without: list[Task] = []
        for task, slots in queued:
            pool = pool_of(task)
            if taken[pool] and taken[pool] + task.places > slots:
                without.append(task)
            else:
                taken[pool] += task.places
        return without

    def _slots(self, task: Task) -> int | None:
        """How many of its kind the operator allows on their way; None for what is there already."""
        account = None if self._accounts is None else self._accounts.get(task.provider)
        known = TASK_TYPES.get(task.type)
        if account is None or known is None or task.status is not Status.QUEUED:
            return None
        return account.slots.get(known.deadline_as)

    def _first_in_line(self, heads: Iterable[Waiting]) -> dict[Kind, tuple[int, int, TaskId]]:
        """Of all accounts: its place."""
        first: dict[Kind, tuple[int, int, TaskId]] = {}
        for one in heads:
            place = self._place(one.kind, one.account_id, one.slot_turn, one.id)
            first[one.kind] = min(first.get(one.kind, place), place)
        return first

    def _place(
        self, kind: Kind, account_id: AccountId, slot_turn: int, id: TaskId
    ) -> tuple[int, int, TaskId]:
        """What is lower is before what is higher."""
        return slot_turn, self._served[_pool(*kind)].last.get(account_id, 0), id

    async def hold(self, tx: Transaction) -> None:
        """Until its end nobody else settles who is first, or gives places away."""
        await tx.hold("line", ["all"])

    async def release(
        self, tx: Transaction, changes: Sequence[Change], *, anybody_waits: bool | None = None
    ) -> None:
        """Whoever ends gives its places to those who are first in line; who leaves the line passes one on.

        Args:
            anybody_waits: in any line, where that is known already.
        """
        freed: Counter[Pool] = Counter()
        for change in changes:
            if _takes_place(change):
                self._served[pool_of(change.after)].note(change.after.account_id)
            if change.frees_slot:
                freed[pool_of(change.after)] += change.after.places
            elif change.transition is not None and change.after.status is Status.REJECTED:
                freed[pool_of(change.after)] += 1
        if not freed:
            return
        if anybody_waits is None:
            anybody_waits = await tasks.anybody_awaits_slot(tx)
        if not anybody_waits:
            return
        await self.hold(tx)  # each place goes to one
        for pool, number in freed.items():
            if await self._give(tx, pool, _types_of(pool), number, self._clock()):
                await self._notices.wake(tx, Topic.SUBMISSION, self._wakeup)

    async def walk_on(self, tx: Transaction, changes: Sequence[Change], now: datetime) -> None:
        """After the answers to creates are written: lets the next in line ask, where waiting would not help."""
        refused = [change.after for change in changes if change.after.awaits_slot]
        entered = {pool_of(change.after) for change in changes if _is_entry(change)}
        for pool in entered:
            self._passed.pop(pool, None)
        if not refused and not self._walks.keys() & entered:
            return
        await self.hold(tx)
        running = {_pool(*kind) for kind in await tasks.kinds_at_providers(tx, now=now)}
        stuck = [task for task in refused if pool_of(task) not in running]
        await tasks.go_to_end_of_line(tx, [task.id for task in stuck])
        for pool in {pool_of(task) for task in refused} & running:
            self._walks.pop(pool, None)
        for pool in entered & self._walks.keys():
            self._walks[pool] = 0
        turns: dict[Pool, int] = {}  # the highest that was asked in vain
        for task in stuck:
            pool = pool_of(task)
            self._walks[pool] = self._walks.get(pool, 0) + 1
            turns[pool] = max(task.slot_turn, turns.get(pool, 0))
        heads = await tasks.first_awaiting_slot(tx)
        for pool in (entered & self._walks.keys()) | turns.keys():
            turn = min((one.slot_turn for one in heads if _pool(*one.kind) == pool), default=None)
            if turn is None or turn > turns.get(pool, turn) or self._walks[pool] >= LONGEST_WALK:
                del self._walks[pool]  # whoever is first now asks when its own moment comes
            else:
                await self._give(tx, pool, _types_of(pool), 1, now)
        given = [
            change.after for change in changes if change.after.awaits_slot and _has_waited(change.before)
        ]
        alone = [task for task in given if task.places == 1 and pool_of(task) in running]
        await self._pass_on(tx, alone, heads, now)

    async def _pass_on(
        self, tx: Transaction, refused: Sequence[Task], heads: Sequence[Waiting], now: datetime
    ) -> None:
        """A place may be free that is none of theirs: of each of the other types that wait for one, one may ask."""
        for pool in {pool_of(task) for task in refused}:
            passed = self._passed.setdefault(pool, set())
            passed.update(task.type for task in refused if pool_of(task) == pool)
            others = {one.kind[1] for one in heads if _pool(*one.kind) == pool} - passed
            if others:
                await self._give(tx, pool, sorted(others), 1, now)
            else:
                del self._passed[pool]

    async def _give(
        self, tx: Transaction, pool: Pool, types: Sequence[str], number: int, now: datetime
    ) -> int:
        served = self._served[pool].last
        return await tasks.release_slots(
            tx, provider=pool[0], types=types, number=number, served=served, now=now
        )


def kind_of(task: Task) -> Kind:
    return task.provider, task.type


def pool_of(task: Task) -> Pool:
    return _pool(task.provider, task.type)


def _pool(provider: str, type: str) -> Pool:
    """A type that is not known any more shares with none."""
    known = TASK_TYPES.get(type)
    return provider, type if known is None else known.deadline_as


def _types_of(pool: Pool) -> Sequence[str]:
    """The types that share its places."""
    _, kind = pool
    return [name for name, known in TASK_TYPES.items() if known.deadline_as == kind] or [kind]


def _has_waited(task: Task) -> bool:
    """Whether it was asked for because a place may be free, and not because it has just come."""
    return task.next_send_at is not None and task.next_send_at > task.created_at


def _is_entry(change: Change) -> bool:
    """Whether the provider has just taken a task."""
    return change.transition is not None and change.after.status is Status.SUBMITTED


def _takes_place(change: Change) -> bool:
    """Whether the provider has a task now, or may have, that it had not before."""
    return change.before.status is Status.QUEUED and change.after.status not in {
        Status.QUEUED,
        Status.REJECTED,
    }
