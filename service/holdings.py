"""Which lanes are this process's to deliver to: each is held by one at a time, so that an endpoint's limits hold for all."""

from collections.abc import Callable, Collection, Iterable

from service.batching import Batcher
from service.domain.ids import LaneKey, ProcessId
from service.notices import Notices, Topic
from service.processes import Presence
from storage import processes
from storage.database import Transaction


class Holdings:
    """A lane is taken by whoever first has something for it, in the same transaction, and given up when it is empty: at
    the holder's next heartbeat, at once when it is told to stop, or when the holder is reaped. What comes meanwhile at other
    processes waits in the database, and the holder is told.

    Where the database has one process, that one holds them all.
    """

    def __init__(
        self,
        presence: Presence,
        notices: Notices,
        batcher: Batcher,
        *,
        sole: bool,
        in_use: Callable[[LaneKey], bool],
    ) -> None:
        """
        Args:
            sole: whether there are no other processes.
            in_use: whether this process has something to do for a lane.
        """
        self._presence = presence
        self._notices = notices
        self._batcher = batcher
        self._sole = sole
        self._in_use = in_use
        self._held: set[LaneKey] = set()
        self._leaving: set[LaneKey] = set()  # not held any more, and the database may not know it yet
        presence.on_loss(self._forget)
        presence.on_heartbeat(self.tidy)

    @property
    def sole(self) -> bool:
        return self._sole

    async def take(self, tx: Transaction, lanes: Iterable[LaneKey]) -> Collection[LaneKey]:
        """Those of them that are held here now."""
        wanted = set(lanes)
        if self._sole:
            return wanted
        if not self._presence.alive:
            return set()
        taken: set[LaneKey] = set()
        if (new := wanted - self._held) and await self._presence.may_take(tx):
            by = self._presence.id
            taken = await processes.take_lanes(tx, new, by=by)
            # Not before: another transaction, at the same time, would rely on what this one may yet undo.
            tx.on_commit(lambda: self._keep(taken, by=by))
        return wanted & (self._held | taken)

    def _keep(self, taken: Collection[LaneKey], *, by: ProcessId) -> None:
        if by == self._presence.id:
            self._held.update(taken)
            self._leaving.difference_update(taken)

    def _forget(self) -> None:
        self._held.clear()
        self._leaving.clear()

    async def tidy(self) -> None:
        """Gives up the lanes that are empty."""
        if self._leaving or not all(map(self._in_use, self._held)):
            await self._batcher.alone(self._give_up)

    async def _give_up(self, tx: Transaction) -> None:
        empty = {lane for lane in self._held if not self._in_use(lane)}
        self._held -= empty  # also if this is undone, or seems so: whoever wants one is told by the database whose it is
        self._leaving |= empty
        leaving = set(self._leaving)
        await processes.give_up_lanes(tx, leaving, by=self._presence.id)
        tx.on_commit(lambda: self._leaving.difference_update(leaving))
        await self._notices.post(tx, Topic.DELIVERIES)  # what others have for them they left to this one
