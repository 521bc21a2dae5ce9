"""Keeps outputs: their bytes in the store, the fact in the task, `output.stored` for whoever wants to know."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Final

import structlog

from service.batching import Batcher
from service.domain.errors import StorageUnavailable
from service.domain.events import EventType, output_event
from service.domain.ids import TaskId
from service.domain.kept import FileRole, FileStatus, KeptFile, let_go, new_file_name, stored
from service.domain.links import Links
from service.domain.media_types import MediaType
from service.domain.tasks import Task
from service.domain.times import Clock
from service.domain.transitions import Change
from service.pace import Pace
from service.previews import PREVIEW_TYPE, Previews
from service.publication import Publisher
from storage import kept_files, tasks
from storage.database import Database, Transaction

if TYPE_CHECKING:  # loaded where there is one
    from storage.store import Store

PAGE: Final = 200
ARRIVES_WITHIN: Final = timedelta(days=1)  # or never: no attempt takes as long

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A whole output, where the store can read it."""

    file: IO[bytes]
    type: MediaType
    size: int  # bytes
    sha256: str  # hex


@dataclass(frozen=True, slots=True)
class _Gone:
    """So many files have left their tasks."""

    number: int
    began: float


class Keeper:
    """
    Args:
        store: None where nothing is kept any more; what was kept is forgotten in its time all the same.
    """

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        publisher: Publisher,
        store: "Store | None",
        links: Links,
        previews: Previews,
        clock: Clock,
    ) -> None:
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._store = store
        self._links = links
        self._previews = previews
        self._clock = clock

    async def task(self, task_id: TaskId) -> Task | None:
        async with self._database.reading() as reader:
            return (await tasks.get_many(reader, [task_id])).get(task_id)

    async def keep(self, task: Task, place: int, content: Content) -> KeptFile | None:
        """The output's file; None where somebody else has kept it in the meantime.

        Args:
            place: of the output among the task's, from 0.

        Raises:
            StorageUnavailable: the store or the database; nothing is kept.
        """
        store = self._store
        if store is None:
            raise StorageUnavailable("Nothing is kept here: KLINGEL_STORE_URL is none:.")
        now = self._clock()  # of both: they go in the same moment, too
        output = _named(task, place, FileRole.OUTPUT, content, now)
        await self._batcher.run(self._announce, [output])
        await store.put(output.name, content.file, content_type=output.content_type)
        files = [output]
        if (made := await self._previews.of(content.file, content.type)) is not None:
            small = _preview_content(made)
            preview = _named(task, place, FileRole.PREVIEW, small, now)
            if await self._keep_preview(store, preview, small):
                files.append(preview)
        if await self._batcher.run(self._record, files):
            return output
        await self._drop_leaving()
        return None

    async def _keep_preview(self, store: "Store", preview: KeptFile, content: Content) -> bool:
        try:
            await self._batcher.run(self._announce, [preview])
            await store.put(preview.name, content.file, content_type=preview.content_type)
        except StorageUnavailable as error:
            log.warning("preview.not_kept", task_id=preview.task_id, reason=error.detail)
            return False
        return True

    async def _announce(self, tx: Transaction, items: Sequence[Sequence[KeptFile]]) -> list[None]:
        await kept_files.announce(tx, [file for files in items for file in files])
        return [None] * len(items)

    async def _record(self, tx: Transaction, items: Sequence[Sequence[KeptFile]]) -> list[bool]:
        """For each, whether it is the copy that counts."""
        known = await tasks.to_change(tx, {files[0].task_id for files in items})
        changes: list[Change] = []
        results: list[bool] = []
        for files in items:
            task = known[files[0].task_id]
            if (change := await self._record_one(tx, task, files)) is not None:
                known[task.id] = change.after
                changes.append(change)
            results.append(change is not None)
        await self._publisher.record(tx, changes)
        return results

    async def _record_one(self, tx: Transaction, task: Task, files: Sequence[KeptFile]) -> Change | None:
        """What the task is changed by; None where another copy counts."""
        names, output = [file.name for file in files], files[0]
        if task.outputs[output.place].stored_url is not None:
            await kept_files.set_status(tx, names, FileStatus.LEAVING)
            return None
        await kept_files.set_status(tx, names, FileStatus.KEPT)
        await kept_files.forget_expiries(tx, [(task.id, output.place)])
        now = self._clock()
        after = stored(task, files, now)
        event = output_event(
            EventType.OUTPUT_STORED, self._links.shown(after), output.place, now, file=output.view()
        )
        return Change(before=task, after=after, event=event)

    def read(self, file: KeptFile, *, start: int, end: int) -> AsyncIterator[bytes]:
        """As `Store.read`.

        Raises:
            StorageUnavailable: nothing is kept any more.
        """
        if self._store is None:
            raise StorageUnavailable("The store of kept outputs is switched off.")
        return self._store.read(file.name, start=start, end=end)

    async def forget(self, *, before: datetime, tasks_before: datetime) -> int:
        """Files that were made earlier, and those of tasks that ended earlier; how many.

        What is in the store goes after the commit that takes it from its task, and the row last: a crash in
        between leaves nothing that is not tried again.
        """
        number, pace = 0, Pace()
        while True:
            gone = await self._batcher.run(self._let_go, (before, tasks_before, pace.rows))
            number += gone.number
            if not gone.number:
                break
            await asyncio.sleep(pace.after(time.perf_counter() - gone.began))
        await self._drop_leaving()
        return number

    async def _let_go(self, tx: Transaction, asked: Sequence[tuple[datetime, datetime, int]]) -> list[_Gone]:
        done: list[_Gone] = []
        await tx.hold("retention", ["kept files"])
        for before, tasks_before, rows in asked:
            began = time.perf_counter()
            files = await kept_files.old(
                tx,
                before=before,
                arriving_before=self._clock() - ARRIVES_WITHIN,
                tasks_before=tasks_before,
                limit=rows,
            )
            await kept_files.set_status(tx, [file.name for file in files], FileStatus.LEAVING)
            owners = await tasks.to_change(tx, {file.task_id for file in files})
            await kept_files.save_outputs(tx, [let_go(task, files) for task in owners.values()])
            done.append(_Gone(len(files), began))
        return done

    async def _drop_leaving(self) -> None:
        after = ""
        while True:
            async with self._database.reading() as reader:
                names = await kept_files.leaving(reader, after=after, limit=PAGE)
            if not names:
                return
            after = names[-1]
            try:
                if self._store is not None:
                    for name in names:
                        await self._store.drop(name)
                await self._batcher.run(self._forget_names, names)
            except StorageUnavailable as error:
                log.warning("files.not_dropped", number=len(names), reason=error.detail)
                return

    async def _forget_names(self, tx: Transaction, items: Sequence[Sequence[str]]) -> list[None]:
        await kept_files.delete(tx, [name for names in items for name in names])
        return [None] * len(items)


def _named(task: Task, place: int, role: FileRole, content: Content, now: datetime) -> KeptFile:
    return KeptFile(
        name=new_file_name(content.type),
        account_id=task.account_id,
        task_id=task.id,
        place=place,
        role=role,
        content_type=content.type.name,
        size=content.size,
        sha256=content.sha256,
        created_at=now,
    )


def _preview_content(made: bytes) -> Content:
    return Content(
        file=io.BytesIO(made), type=PREVIEW_TYPE, size=len(made), sha256=hashlib.sha256(made).hexdigest()
    )
