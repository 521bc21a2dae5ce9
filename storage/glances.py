"""How tasks stand, for who asks again and again: as many as ask at the same time are answered by one statement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.ids import AccountId, is_task_id
from storage import tasks
from storage.database import Database
from storage.tasks import Glance


@dataclass(frozen=True, slots=True)
class _Asked:
    id: str
    found: "asyncio.Future[Glance | None]"


class Glances:
    """What is asked while others are being read is read with the next: one in a crowd takes 25 us of processor time,
    and 50 by itself.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Asked] = []
        self._at_work: asyncio.Task[None] | None = None

    async def find(self, name: str, *, account_id: AccountId, types: Sequence[str]) -> Glance | None:
        """By its id, else by the caller's own for it, else by the provider's.

        Args:
            types: one or two.
        """
        if is_task_id(name):  # as nearly all ask
            found = await self._by_id(name)
            if found is not None and found.account_id == account_id and found.type in types:
                return found
        async with self._database.reading() as reader:
            return await tasks.find(reader, name, account_id=account_id, types=types)

    async def _by_id(self, id: str) -> Glance | None:
        """Anybody's."""
        asked = _Asked(id, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._at_work is None:
            self._at_work = asyncio.create_task(self._work(), name="glances")
        return await asked.found

    async def _work(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            try:
                async with self._database.reading() as reader:
                    found = await tasks.glances(reader, (asked.id for asked in together))
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
                for asked in together:
                    if not asked.found.done():
                        asked.found.set_exception(error)
            else:
                for asked in together:
                    if not asked.found.done():
                        asked.found.set_result(found.get(asked.id))
        self._at_work = None
