"""Kept outputs: which files the store holds for whom, and notices of outputs that are about to be lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.ids import TaskId, first_id
from service.domain.kept import FileRole, FileStatus, KeptFile
from service.domain.tasks import Task
from storage.columns import Row, json_text, milliseconds, moment
from storage.database import Reader, Transaction


class NoSuchFile(Exception):
    """The store has no file of this name."""


def _file(row: Row) -> KeptFile:
    return KeptFile(
        name=row["name"],
        account_id=row["account_id"],
        task_id=row["task_id"],
        place=row["place"],
        role=FileRole(row["role"]),
        content_type=row["content_type"],
        size=row["size"],
        sha256=row["sha256"],
        created_at=moment(row["created_at"]),
    )


async def announce(tx: Transaction, files: Sequence[KeptFile]) -> None:
    """Before their first byte is written: a crash then leaves nothing in the store that no row names."""
    await tx.run_many(
        "announce_file",
        [
            {
                "name": file.name,
                "account_id": file.account_id,
                "task_id": file.task_id,
                "place": file.place,
                "role": file.role,
                "content_type": file.content_type,
                "size": file.size,
                "sha256": file.sha256,
                "created_at": milliseconds(file.created_at),
            }
            for file in files
        ],
    )


async def set_status(tx: Transaction, names: Iterable[str], status: FileStatus) -> None:
    await tx.run_many("set_file_status", [{"name": name, "status": status} for name in names])


async def get(reader: Reader, name: str) -> KeptFile | None:
    """One that is kept, whosever it is."""
    row = await reader.one("get_kept_file", name=name)
    return None if row is None else _file(row)


async def old(
    reader: Reader, *, before: datetime, arriving_before: datetime, tasks_before: datetime, limit: int
) -> list[KeptFile]:
    """
    Args:
        before: kept ones that were made earlier,
        arriving_before: those that have not arrived since then,
        tasks_before: and those of tasks that ended earlier.
    """
    rows = await reader.all(
        "old_files",
        before=milliseconds(before),
        arriving_before=milliseconds(arriving_before),
        tasks_before=milliseconds(tasks_before),
        task_bound=first_id("task", tasks_before),
        limit=limit,
    )
    return [_file(row) for row in rows]


async def leaving(reader: Reader, *, after: str, limit: int) -> list[str]:
    """Names, in their order."""
    return [row["name"] for row in await reader.all("leaving_files", after=after, limit=limit)]


async def delete(tx: Transaction, names: Iterable[str]) -> None:
    await tx.run_many("delete_kept_file", [{"name": name} for name in names])


async def save_outputs(tx: Transaction, tasks: Iterable[Task]) -> None:
    await tx.run_many(
        "save_outputs",
        [{"id": task.id, "outputs": json_text([output.view() for output in task.outputs])} for task in tasks],
    )


@dataclass(frozen=True, slots=True)
class ExpiryNotice:
    """An output that is about to be lost, and when to say so."""

    task_id: TaskId
    place: int  # of the output among the task's, from 0
    notice_at: datetime


async def expect_expiries(tx: Transaction, expiries: Sequence[ExpiryNotice]) -> None:
    await tx.run_many(
        "expect_expiry",
        [
            {"task_id": one.task_id, "place": one.place, "notice_at": milliseconds(one.notice_at)}
            for one in expiries
        ],
    )


async def due_expiries(tx: Transaction, *, now: datetime, limit: int) -> list[ExpiryNotice]:
    rows = await tx.all("due_expiries", now=milliseconds(now), limit=limit)
    return [ExpiryNotice(row["task_id"], row["place"], moment(row["notice_at"])) for row in rows]


async def next_expiry(reader: Reader) -> datetime | None:
    at: int | None = await reader.value("next_expiry")
    return moment(at)


async def forget_expiries(tx: Transaction, told: Iterable[tuple[TaskId, int]]) -> None:
    await tx.run_many("forget_expiry", [{"task_id": task_id, "place": place} for task_id, place in told])
