"""The lines in which tasks wait for one of a provider's parallel places: no task is asked for more than needed."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Status
from service.domain.providers import ProviderAccounts
from service.domain.task_types import TASK_TYPES
from service.domain.tasks import Task
from service.domain.times import Clock
from service.domain.transitions import Change
from service.domain.values import replace
from service.notices import Notices, Topic
from service.wakeups import Wakeups
from storage import lines
from storage.database import Transaction
from storage.lines import Head, Kind, Pool, PoolName, Standing, Waiting

NEVER: Final = 2**31  # so many places nobody needs

# Those who share places for sure: a pool, or a type alone.
_Line = Kind | PoolName
_Position = tuple[int, int, int, TaskId]  # in a line; what is lower is before what is higher


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
    to the first of another. So does who is overdue, for nobody counts on it any more, and who is refused for good. What
    ended in its own create's answer held nothing that others had missed: it lets the next of its type ask.

    Who is given a place and refused lets another ask in its stead: the next who is not known to be refused, too. Known
    is what has been refused since places became free: of each type so many places, or more. So whatever becomes free,
    each type asks in vain but once for as many places, or fewer, and some time nobody is left to ask. A refusal of what
    was asked before places became free that were not given to others makes nothing known: somebody asks again.

    More may be free than was told of, where somebody gets a place at its own moment, without an end that gave it; or
    several places, which have added up; or where one who wanted several is refused, or lets others pass; or who asked too
    early, or was put off for another reason, gets it at last. Then one after the other asks, each as soon as the one before has got its place, until one that needs a single
    place, and shares places for sure, is refused.

    Who needs several places, and is refused although nothing runs that it could wait for, goes to the end of the line
    with all of its type that need as many; so does one that has been there before. As nobody who shares places with it
    overtakes one who needs several, what runs comes to its end: it cannot block the others for good.

    What is known of a pool while somebody waits is in the database, for whichever process comes to need it. Should
    something be missed all the same, each task's own moment, which comes at least every ten minutes, makes up for it.
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
        # When places became free last while nobody waited, of what this process has seen end: a write each time would cost
        # everybody more than it helps the few who are asking just then.
        self._freed_at: dict[PoolName, datetime] = {}

    async def hold(self, tx: Transaction) -> None:
        """Until its end nobody else settles who is first, or gives places away."""
        await tx.hold("line", ["all"])

    async def held(self, tx: Transaction, due: Sequence[Task]) -> list[Task]:
        """Those of them that must wait: behind somebody else, or for a place where the operator allows so many. The others
        ask.
        """
        known = await _Known.read(tx)
        first = self._first_in_line([*known.heads, *known.asking], known, singles_too=True)
        behind = [task for task in due if not _is_given(task) and self._is_behind(task, first, known)]
        rest = sorted((task for task in due if task not in behind), key=_is_given, reverse=True)
        held = behind + await self._without_slot(tx, rest)
        for name in {pool_of(task) for task in rest if task.awaits_slot and task not in held}:
            known.change(name, seeking=True)  # at its own moment
        await known.save(tx)
        return held

    def _is_behind(self, task: Task, first: Mapping[_Line, _Position], known: "_Known") -> bool:
        if task.status is not Status.QUEUED:
            return False
        one = Waiting(kind_of(task), task.account_id, task.slot_turn, task.id, task.places)
        return self._is_after(one, first, known)

    async def _without_slot(self, tx: Transaction, due: Sequence[Task]) -> list[Task]:
        """Those for whom an account has no slot left, and all behind them. One that needs more than there are goes when
        nothing else is on its way: the provider decides.
        """
        queued = [(task, slots) for task in due if (slots := self._slots(task)) is not None]
        if not queued:
            return []
        taken: Counter[PoolName] = Counter()
        for (provider, type), number in (await lines.places_at_providers(tx, now=self._clock())).items():
            taken[_pool(provider, type)] += number
        without: list[Task] = []
        full: set[PoolName] = set()
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

    def _sharers(self, kind: Kind) -> _Line:
        """Those who share places for sure: its pool, or its type alone."""
        known = TASK_TYPES.get(kind[1])
        shares = known is not None and (known.shares_places or self._counted(kind) is not None)
        return _pool(*kind) if shares else kind

    def _first_in_line(
        self, waiting: Iterable[Waiting], known: "_Known", *, singles_too: bool = False
    ) -> dict[_Line, _Position]:
        """Where the first stands whom nobody may overtake: of each type, and of those who share with it. For a single place
        (`singles_too`) that is nobody of its own type.
        """
        first: dict[_Line, _Position] = {}
        for one in waiting:
            if one.places > 1 or singles_too:
                position = known.position(one)
                for line in {one.kind, self._sharers(one.kind)} if one.places > 1 else {one.kind}:
                    first[line] = min(first.get(line, position), position)
        return first

    def _is_after(self, one: Waiting, first: Mapping[_Line, _Position], known: "_Known") -> bool:
        position = known.position(one)
        return any(first.get(line, position) < position for line in (one.kind, self._sharers(one.kind)))

    async def release(
        self, tx: Transaction, changes: Sequence[Change], *, anybody_waits: bool | None = None
    ) -> None:
        """Whoever ends, is overdue or refused for good gives its places to those who are first in line.

        Args:
            anybody_waits: in any line, where that is known already.
        """
        freed = self._freed(changes)
        if not freed.by_pool and not freed.at_once:
            return
        now = self._clock()
        if anybody_waits is None:
            anybody_waits = await lines.anybody_waits(tx)
        if not anybody_waits:
            self._freed_at |= dict.fromkeys(freed.by_pool, now)
            return
        await self.hold(tx)  # each place goes to one
        known = await _Known.read(tx)
        for name, account_id, had_waited in freed.had_turns:
            known.note_turn(name, account_id, again=had_waited)
        blocked = self._first_in_line(known.asking, known)
        given: list[Waiting] = []
        for kind, number in freed.at_once.items():
            own = [one for one in known.heads if one.kind == kind]
            given += await self._give(tx, known, own, number, blocked, now)
        for name, number in freed.by_pool.items():
            known.change(name, refused={})
            if name in freed.leave_more:
                known.change(name, seeking=True)
            own = known.heads_of(name)
            others = [one for one in known.heads if one.kind[0] == name[0]]
            first = own if own or any(_pool(*one.kind) == name for one in known.asking) else others
            given += (taking := await self._give(tx, known, first, number, blocked, now))
            fitting = sum(one.places for one in taking if self._sharers(one.kind) in freed.lines)
            if fitting < number:  # the rest is left to whoever is asking just now
                known.change(name, left_at=now)
        await known.save(tx)
        if given:
            await self._notices.wake(tx, Topic.SUBMISSION, self._wakeup)

    def _freed(self, changes: Iterable[Change]) -> "_Freed":
        freed = _Freed(Counter(), Counter(), set(), [], set())
        for change in changes:
            task = change.after
            name = pool_of(task)
            if change.frees_slot and change.at_once:
                freed.at_once[kind_of(task)] += task.places
            elif change.frees_slot or _gives_up_waiting(change):
                freed.by_pool[name] += task.places
                freed.lines.add(self._sharers(kind_of(task)))
                freed.had_turns.append((name, task.account_id, False))
            elif change.transition is not None and task.status is Status.REJECTED:
                # Where places are counted here it held as many as it asked for; what else is free is not known.
                freed.by_pool[name] += task.places if self._counted(kind_of(task)) is not None else 1
                freed.lines.add(self._sharers(kind_of(task)))
                freed.had_turns.append((name, task.account_id, has_waited(change.before)))
                if task.places > 1:
                    freed.leave_more.add(name)
        return freed

    async def answered(self, tx: Transaction, changes: Sequence[Change], now: datetime) -> None:
        """After the answers to creates are written: lets others ask, where places may be free that are not taken."""
        refused = [change for change in changes if change.after.awaits_slot]
        asked = [change for change in changes if _has_asked(change) and not change.after.awaits_slot]
        if not refused and not asked:
            return
        await self.hold(tx)
        running = await self._running(tx, now) if refused else set()
        await self._go_to_end_of_line(tx, [change.after for change in refused], running)
        known = await _Known.read(tx)
        self._forget_old_refusals(known, {change.after.id for change in refused})
        asks: Counter[PoolName] = Counter()
        for change in asked:
            task, name = change.after, pool_of(change.after)
            known.note_turn(name, task.account_id)
            if task.status is Status.QUEUED:
                # Put off: it keeps what it was given, and others wait until it has got it.
                known.change(name, seeking=True)
            elif task.status is Status.SUBMITTED and (known.pool(name).seeking or task.places > 1):
                known.change(name, seeking=True, refused=self._of_others(task, known.pool(name).refused))
                asks[name] = 1
        # Those for a single place last: what they say of all who share it counts.
        for change in sorted(refused, key=lambda change: change.after.places, reverse=True):
            task, name = change.after, pool_of(change.after)
            pool = known.pool(name)
            if self._asked_too_early(change, pool):
                known.change(name, seeking=True)
                asks[name] = max(asks[name], 1)
                continue
            fewest = min(task.places, pool.refused.get(task.type, NEVER))
            known.change(name, refused={**pool.refused, task.type: fewest})
            if task.places > 1 or self._sharers(kind_of(task)) == name:
                known.change(name, seeking=task.places > 1)
            if has_waited(change.before) or self._waits_in_vain(task, running):
                asks[name] += 1
        for name, number in asks.items():
            refusals = known.pool(name).refused
            own = known.heads_of(name)
            hopeful = [one for one in own if one.places < refusals.get(one.kind[1], NEVER)]
            hopeless = [one for one in own if one not in hopeful]
            blocked = self._first_in_line([*known.asking, *hopeless], known)
            if not await self._give(tx, known, hopeful, number, blocked, now, refusals):
                known.change(name, seeking=False)
        await known.save(tx)

    def _of_others(self, entered: Task, refused: Mapping[str, int]) -> Mapping[str, int]:
        """What one who has got its places says nothing about."""
        line = self._sharers(kind_of(entered))
        return {
            type: number
            for type, number in refused.items()
            if type != entered.type and self._sharers((entered.provider, type)) != line
        }

    async def _running(self, tx: Transaction, now: datetime) -> set[_Line]:
        """Of whom the provider has one, by pools, types, and those who share."""
        kinds = await lines.kinds_at_providers(tx, now=now)
        return {_pool(*kind) for kind in kinds} | {self._sharers(kind) for kind in kinds}

    def _waits_in_vain(self, task: Task, running: Container[_Line]) -> bool:
        """Whether nothing runs that it could wait for; for several places it does not wait twice."""
        if task.places == 1:
            return pool_of(task) not in running
        return task.slot_turn > 0 or self._sharers(kind_of(task)) not in running

    async def _go_to_end_of_line(
        self, tx: Transaction, refused: Iterable[Task], running: Container[_Line]
    ) -> None:
        for task in refused:
            if task.places > 1 and self._waits_in_vain(task, running):
                await lines.go_to_end_of_line(tx, kind_of(task), slot_turn=task.slot_turn, places=task.places)

    def _forget_old_refusals(self, known: "_Known", refused: Container[TaskId]) -> None:
        """Nobody has kept an eye on the places of a pool for which nobody had been waiting."""
        others = {_pool(*one.kind) for one in known.heads if one.id not in refused}
        for name in {_pool(*one.kind) for one in known.heads} - others:
            known.change(name, refused={})

    def _asked_too_early(self, change: Change, pool: Pool) -> bool:
        """Whether places became free while it was asking, and others were not given them."""
        since = change.before.sending_since
        moments = pool.left_at, self._freed_at.get(pool.name)
        return since is not None and any(at is not None and since < at for at in moments)

    async def _give(
        self,
        tx: Transaction,
        known: "_Known",
        heads: Iterable[Waiting],
        number: int,
        blocked: Mapping[_Line, _Position],
        now: datetime,
        refused: Mapping[str, int] | None = None,
    ) -> Sequence[Waiting]:
        """So many places are free: those behind these heads go, as many as fit and always one. Gives who does.

        Args:
            blocked: behind whom nobody goes.
            refused: as in `Pool`.
        """
        ahead = [one for one in heads if not self._is_after(one, blocked, known)]
        if not ahead:
            return []
        line = await lines.in_line(
            tx,
            ahead[0].kind[0],
            [
                Head(
                    one.kind[1],
                    one.account_id,
                    served=known.turn_of(one),
                    most=(refused or {}).get(one.kind[1], NEVER) - 1,
                )
                for one in ahead
            ],
            number=number,
        )
        given: list[Waiting] = []
        needed = 0
        for one in line:
            if not self._is_after(one, blocked, known):
                if given and needed + one.places > number:
                    break
                given.append(one)
                needed += one.places
        released = await lines.release(tx, [one.id for one in given], now=now)
        going = [one for one in given if one.id in released]
        if len(going) < len(given):  # somebody else is writing the others: whoever gets a place lets them ask
            known.change(_pool(*given[0].kind), seeking=True)
        return going


class _Freed(NamedTuple):
    """How many places."""

    by_pool: Counter[PoolName]
    at_once: Counter[Kind]  # by what ended in the answer to its create
    lines: set[_Line]
    had_turns: list[tuple[PoolName, AccountId, bool]]  # and whether it had waited for that
    leave_more: set[PoolName]  # pools of which somebody had asked for more


class _Known:
    """How the lines stand; and what has changed of that, until it is saved."""

    def __init__(self, standing: Standing) -> None:
        self.heads = standing.heads
        self.asking = standing.asking
        self._stored = standing.pools
        self._pools = dict(standing.pools)
        self._turns = {name: dict(turns) for name, turns in standing.turns.items()}
        self._with_turns = standing.turns.keys()
        self._noted: dict[tuple[PoolName, AccountId], int] = {}

    @classmethod
    async def read(cls, tx: Transaction) -> "_Known":
        return cls(await lines.standing(tx))

    def heads_of(self, name: PoolName) -> list[Waiting]:
        return [one for one in self.heads if _pool(*one.kind) == name]

    def pool(self, name: PoolName) -> Pool:
        return self._pools.get(name) or Pool(name=name)

    def change(self, name: PoolName, **fields: object) -> None:
        self._pools[name] = replace(self.pool(name), **fields)  # type: ignore[arg-type]

    def position(self, one: Waiting) -> _Position:
        return one.slot_turn, one.turn, self.turn_of(one), one.id

    def turn_of(self, one: Waiting) -> int:
        """When its account had a place of its pool last."""
        return self._turns.get(_pool(*one.kind), {}).get(one.account_id, 0)

    def note_turn(self, name: PoolName, account_id: AccountId, *, again: bool = True) -> None:
        """An account has had a place just now.

        Args:
            again: also if it is known to have had one before.
        """
        turns = self._turns.setdefault(name, {})
        if again or account_id not in turns:
            turns[account_id] = self._noted[name, account_id] = max(turns.values(), default=0) + 1

    async def save(self, tx: Transaction) -> None:
        await lines.save_pools(
            tx,
            [pool for name, pool in self._pools.items() if pool != self._stored.get(name, Pool(name=name))],
        )
        waited_for = {_pool(*one.kind) for one in self.heads}
        await lines.save_turns(
            tx, {noted: number for noted, number in self._noted.items() if noted[0] in waited_for}
        )
        await lines.forget_turns(tx, self._with_turns - waited_for)


def kind_of(task: Task) -> Kind:
    return task.provider, task.type


def pool_of(task: Task) -> PoolName:
    return _pool(task.provider, task.type)


def _pool(provider: str, type: str) -> PoolName:
    """A type that is not known any more shares with none."""
    known = TASK_TYPES.get(type)
    return provider, type if known is None else known.deadline_as


def has_waited(task: Task) -> bool:
    """Whether it is asked for because a place may be free, and not because it has just come."""
    return task.next_send_at is not None and task.next_send_at > task.created_at


def _is_given(task: Task) -> bool:
    """Whether it is out of the line already: its turn has come."""
    return not task.awaits_slot and has_waited(task)


def _has_asked(change: Change) -> bool:
    """Whether a create was answered that was sent because a place may have been free."""
    return change.before.status is Status.QUEUED and has_waited(change.before)


def _gives_up_waiting(change: Change) -> bool:
    """Whether nothing is expected of its places any more, though the provider may have the task."""
    before, after = change.before, change.after
    is_there = after.status is not Status.QUEUED or after.sending_since is not None
    return before.overdue_at is None and after.overdue_at is not None and is_there
