"""The lines in which tasks wait for one of a provider's parallel places: no task is asked for more than needed."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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

# A provider and a kind of output: the types that make it share places, or may.
Pool = tuple[str, str]
_Place = tuple[int, int, TaskId]  # in line; what is lower is before what is higher


@dataclass(slots=True)
class _Offer:
    """What one of a pool has freed, and those to whom it was given have not told whether they found it."""

    given: int = 0  # to so many tasks
    freed_by: set[str] = field(default_factory=set)  # types that may still have them
    asked: set[str] = field(default_factory=set)  # types that found none since


class Lines:
    """Who is sent when, so that no place is left empty while a task that fits waits, and few are asked for in vain.

    What is shared. Types that make the same kind of output are a pool: they take turns at each place that one of them
    frees. That they share places is known of most, as Kling counts by packs; and of all whose kind the operator counts
    (`slots`). Others (`TaskType.shares_places`) perhaps have their own. Even those that share may be counted apart in a
    way that nobody tells, so one that needs a single place and finds none says nothing about other types.

    Who goes first. In a line accounts take turns, who got a place longest ago first; an account's own stand in the
    order in which they came.

    Who comes waits unsent behind those of its type who wait, and behind one who waits for several places and shares
    them with it: so places add up, also for one who needs many. Whoever else comes asks. Who has been given a place
    goes, whatever the line looks like by then.

    Who ends gives its places to the first of its pool, as many as fit and always one; where nobody of its pool waits,
    to the first of another. So does who is overdue: nobody counts on it any more. What ended in its own create's answer held nothing that others had missed: it lets the next
    of its type ask.

    Who is given a place and refused lets one of the next type of the pool ask, and so on, each type once: until the
    places are taken, or were not found even by the type that freed them, or are found too few by one for whom they add
    up. Places that nobody of the pool had been waiting for are passed on to nobody.

    Who is refused although nothing runs that it could wait for goes to the end of the line, and the next one asks; so
    does who needs several and has been at the end before. One after the other then asks, until one must wait, or all
    have asked, or too many in a row were refused. As nobody of its pool overtakes one who needs several, what runs comes to
    its end: it cannot block the others for good.

    Who gets several places at last, or a place at its own moment, without an end that gave it, lets the next one ask, and so
    on until one is refused: more may be free than it needed. So does whoever is refused for good and wanted several.

    What is in memory here is of this process. Where it is missing one is asked too many or too few, and each task's own
    moment, which comes at least every ten minutes, makes up for it.
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
        self._offers: dict[Pool, _Offer] = {}
        self._served: defaultdict[Pool, Served] = defaultdict(Served)

    async def held(self, reader: Reader, due: Sequence[Task]) -> list[Task]:
        """Those of them that must wait: behind somebody else, or for a place where the operator allows so many."""
        waiting = await tasks.first_awaiting_slot(reader)
        first = self._first_in_line([*waiting, *await tasks.asking_for_places(reader)])
        behind = [task for task in due if not _is_given(task) and self._is_behind(task, first)]
        rest = sorted((task for task in due if task not in behind), key=_is_given, reverse=True)
        held = behind + await self._without_slot(reader, rest)
        for task in rest:
            if task not in held and (task.awaits_slot or (has_waited(task) and task.places > 1)):
                self._walks.setdefault(pool_of(task), 0)
        return held

    def _is_behind(self, task: Task, first: Mapping[Kind, _Place]) -> bool:
        if task.status is not Status.QUEUED:
            return False
        kind = kind_of(task)
        place = self._place(kind, task.account_id, task.slot_turn, task.id)
        return any(first.get(line, place) < place for line in (kind, self._sharers(kind)))

    async def _without_slot(self, reader: Reader, due: Sequence[Task]) -> list[Task]:
        """Those for whom an account has no slot left, and all behind them. One that needs more than there are goes when
        nothing else is on its way: the provider decides.
        """
        queued = [(task, slots) for task in due if (slots := self._slots(task)) is not None]
        if not queued:
            return []
        taken: Counter[Pool] = Counter()
        for (provider, type), places in (await tasks.places_at_providers(reader, now=self._clock())).items():
            taken[_pool(provider, type)] += places
        without: list[Task] = []
        full: set[Pool] = set()
        for task, slots in queued:
            pool = pool_of(task)
            if pool in full or (taken[pool] and taken[pool] + task.places > slots):
                without.append(task)
                full.add(pool)
            else:
                taken[pool] += task.places
        return without

    def _slots(self, task: Task) -> int | None:
        """How many of its kind the operator allows on their way; None for what is there already."""
        return self._counted(kind_of(task)) if task.status is Status.QUEUED else None

    def _counted(self, kind: Kind) -> int | None:
        provider, type = kind
        account = None if self._accounts is None else self._accounts.get(provider)
        known = TASK_TYPES.get(type)
        return None if account is None or known is None else account.slots.get(known.deadline_as)

    def _sharers(self, kind: Kind) -> Kind | Pool:
        """Those who share places for sure: its pool, or its type alone."""
        known = TASK_TYPES.get(kind[1])
        shares = known is not None and (known.shares_places or self._counted(kind) is not None)
        return _pool(*kind) if shares else kind

    def _first_in_line(self, heads: Iterable[Waiting]) -> dict[Kind | Pool, _Place]:
        """The place of the first of each type; and of those who share, of the first for whom places add up."""
        first: dict[Kind | Pool, _Place] = {}
        for one in heads:
            place = self._place(one.kind, one.account_id, one.slot_turn, one.id)
            for line in {one.kind, self._sharers(one.kind)} if one.places > 1 else {one.kind}:
                first[line] = min(first.get(line, place), place)
        return first

    def _place(self, kind: Kind, account_id: AccountId, slot_turn: int, id: TaskId) -> _Place:
        return slot_turn, self._served[_pool(*kind)].last.get(account_id, 0), id

    async def hold(self, tx: Transaction) -> None:
        """Until its end nobody else settles who is first, or gives places away."""
        await tx.hold("line", ["all"])

    async def release(
        self, tx: Transaction, changes: Sequence[Change], *, anybody_waits: bool | None = None
    ) -> None:
        """Whoever ends, or is overdue, gives its places to those who are first in line; who leaves the line passes one on.

        Args:
            anybody_waits: in any line, where that is known already.
        """
        freed: Counter[Pool] = Counter()
        freed_by: defaultdict[Pool, set[str]] = defaultdict(set)
        freed_at_once: Counter[Kind] = Counter()
        for change in changes:
            task = change.after
            if _takes_place(change):
                self._served[pool_of(task)].note(task.account_id)
            if change.frees_slot and change.at_once:
                freed_at_once[kind_of(task)] += task.places
            elif change.frees_slot:
                freed[pool_of(task)] += task.places
                freed_by[pool_of(task)].add(task.type)
            elif change.transition is not None and task.status is Status.REJECTED:
                # Where places are counted here it held as many as it asked for; what else is free is not known.
                freed[pool_of(task)] += task.places if self._counted(kind_of(task)) is not None else 1
                if task.places > 1:
                    self._walks.setdefault(pool_of(task), 0)
            elif _gives_up_waiting(change):
                freed[pool_of(task)] += task.places
                freed_by[pool_of(task)].add(task.type)
        if not freed and not freed_at_once:
            return
        if anybody_waits is None:
            anybody_waits = await tasks.anybody_awaits_slot(tx)
        if not anybody_waits:
            return
        await self.hold(tx)  # each place goes to one
        kinds = {one.kind for one in await tasks.first_awaiting_slot(tx)}
        now = self._clock()
        released = 0
        for kind in freed_at_once.keys() & kinds:
            released += await self._give(tx, _pool(*kind), [kind[1]], freed_at_once[kind], now)
        for pool, number in freed.items():
            given = await self._give(tx, pool, _types_of(pool), number, now)
            released += given
            if pool in freed_by and any(_pool(*kind) == pool for kind in kinds):
                offer = self._offers.setdefault(pool, _Offer())
                offer.given += given
                offer.freed_by |= freed_by[pool]
                offer.asked.clear()
        if released:
            await self._notices.wake(tx, Topic.SUBMISSION, self._wakeup)

    async def walk_on(self, tx: Transaction, changes: Sequence[Change], now: datetime) -> None:
        """After the answers to creates are written: lets the next in line ask, where waiting would not help."""
        refused = [change.after for change in changes if change.after.awaits_slot]
        entered = {pool_of(change.after) for change in changes if _is_entry(change)}
        given = [change for change in changes if has_waited(change.before)]
        self._take_offers(change.after for change in given if _is_entry(change))
        if not refused and not self._walks.keys() & entered:
            return
        await self.hold(tx)
        kinds = await tasks.kinds_at_providers(tx, now=now)
        running = {_pool(*kind) for kind in kinds} | {self._sharers(kind) for kind in kinds}
        stuck = [task for task in refused if self._is_stuck(task, running)]
        waiting = [task for task in refused if task not in stuck]
        await tasks.go_to_end_of_line(tx, [task.id for task in stuck])
        for pool in {pool_of(task) for task in waiting}:
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
        in_vain = [change.after for change in given if change.after in waiting]
        for pool in ({pool_of(task) for task in in_vain} & self._offers.keys()) - self._walks.keys():
            await self._pass_on(tx, pool, [task for task in in_vain if pool_of(task) == pool], heads, now)

    def _is_stuck(self, task: Task, running: Container[Pool | Kind]) -> bool:
        """Whether it would wait for nothing."""
        if task.places == 1:
            return pool_of(task) not in running
        return task.slot_turn > 0 or self._sharers(kind_of(task)) not in running

    def _take_offers(self, entered: Iterable[Task]) -> None:
        for pool in map(pool_of, entered):
            if (offer := self._offers.get(pool)) is not None:
                offer.given -= 1
                if offer.given <= 0:
                    del self._offers[pool]

    async def _pass_on(
        self, tx: Transaction, pool: Pool, refused: Sequence[Task], heads: Sequence[Waiting], now: datetime
    ) -> None:
        """A place may be free that is none of theirs: of the other types that wait for one, one may ask."""
        offer = self._offers[pool]
        for task in refused:
            offer.asked.add(task.type)
            lines = {kind_of(task), self._sharers(kind_of(task))} if task.places > 1 else {kind_of(task)}
            for type in list(offer.freed_by):
                kind = task.provider, type
                if lines & {kind, self._sharers(kind)}:
                    offer.freed_by.discard(type)
        others = {one.kind[1] for one in heads if _pool(*one.kind) == pool} - offer.asked
        if offer.freed_by and others:
            await self._give(tx, pool, sorted(others), 1, now)
        else:
            del self._offers[pool]

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


def has_waited(task: Task) -> bool:
    """Whether it is asked for because a place may be free, and not because it has just come."""
    return task.next_send_at is not None and task.next_send_at > task.created_at


def _is_given(task: Task) -> bool:
    """Whether it is out of the line already: its turn has come."""
    return not task.awaits_slot and has_waited(task)


def _is_entry(change: Change) -> bool:
    """Whether the provider has just taken a task."""
    return change.transition is not None and change.after.status is Status.SUBMITTED


def _gives_up_waiting(change: Change) -> bool:
    """Whether nothing is expected of its places any more, though the provider may have the task."""
    before, after = change.before, change.after
    is_there = after.status is not Status.QUEUED or after.sending_since is not None
    return before.overdue_at is None and after.overdue_at is not None and is_there


def _takes_place(change: Change) -> bool:
    """Whether the provider has a task now, or may have, that it had not before."""
    return change.before.status is Status.QUEUED and change.after.status not in {
        Status.QUEUED,
        Status.REJECTED,
    }
