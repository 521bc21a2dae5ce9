"""Outputs that Klingel keeps: their files, and the changes that keeping or losing them makes."""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from service.domain.endpoints import Endpoint
from service.domain.events import EventType
from service.domain.ids import AccountId, EndpointId, TaskId
from service.domain.media_types import MediaType
from service.domain.tasks import Output, OutputKind, Task
from service.domain.values import replace

ARCHIVE: Final = "archive"  # the kind of endpoint that keeps outputs; each account has one, which nobody sees
BRING_OUTPUTS: Final = (EventType.TASK_SUCCEEDED, EventType.TASK_OUTPUTS_ADDED)
EXPIRY_NOTICE: Final = timedelta(days=3)  # so long before the provider's URL dies `output.expiring` is said
FILE_NAME: Final = re.compile(r"[0-9a-f]{40}\.[a-z0-9]{2,4}")


class FileRole(StrEnum):
    OUTPUT = "output"  # byte for byte as the provider sent it
    PREVIEW = "preview"  # a small picture of it, made here


class FileStatus(StrEnum):
    ARRIVING = "arriving"  # announced before its first byte is written: nothing lies in the store unnamed
    KEPT = "kept"
    LEAVING = "leaving"  # nobody gets it any more; its bytes are still to be dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    name: str
    account_id: AccountId
    task_id: TaskId
    place: int  # of its output among the task's, from 0
    role: FileRole
    content_type: str
    size: int  # bytes
    sha256: str  # hex
    created_at: datetime

    def view(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "content_type": self.content_type,
        }


def new_file_name(type: MediaType) -> str:
    """160 random bits: it can be neither guessed nor told from the content, which another account may have too."""
    return f"{secrets.token_hex(20)}.{type.extension}"


def reference(name: str) -> str:
    """How a task refers to a file; `service.domain.links` makes a URL of it for whoever reads the task."""
    return f"/v1/files/{name}"


def archive_id(account_id: AccountId) -> EndpointId:
    """Known without looking: an account has exactly one."""
    return EndpointId(f"end_{account_id.partition('_')[2]}")


def archive_endpoint(account_id: AccountId, now: datetime) -> Endpoint:
    return Endpoint(
        id=archive_id(account_id),
        account_id=account_id,
        task_id=None,
        kind=ARCHIVE,
        config={},
        types=BRING_OUTPUTS,
        description="keeps outputs",
        created_at=now,
        updated_at=now,
    )


def stored(task: Task, kept: Sequence[KeptFile], now: datetime) -> Task:
    """The task with one of its outputs kept.

    Args:
        kept: the output's file, and its preview where there is one.
    """
    place = kept[0].place
    output = task.outputs[place]
    for file in kept:
        output = _referring(output, file)
    return replace(
        task,
        outputs=(*task.outputs[:place], output, *task.outputs[place + 1 :]),
        sequence=task.sequence + 1,
        updated_at=now,
    )


def _referring(output: Output, file: KeptFile) -> Output:
    if file.role is FileRole.OUTPUT:
        return replace(output, stored_url=reference(file.name))
    if output.kind is OutputKind.VIDEO:
        return replace(output, poster_url=reference(file.name))
    return replace(output, thumbnail_url=reference(file.name))


def let_go(task: Task, files: Iterable[KeptFile]) -> Task:
    """The task without references to these files."""
    gone = {reference(file.name) for file in files}

    def still(url: str | None) -> str | None:
        return None if url in gone else url

    return replace(
        task,
        outputs=tuple(
            replace(
                output,
                stored_url=still(output.stored_url),
                poster_url=still(output.poster_url),
                thumbnail_url=still(output.thumbnail_url),
            )
            for output in task.outputs
        ),
    )


def expiry_notice_at(output: Output, now: datetime) -> datetime | None:
    """When to say that an output which has just come is about to be lost, unless it is kept by then.

    Half of its life is for keeping it, also where that is short. One that is lost already is not about to be.
    """
    if output.expires_at is None or output.expires_at <= now:
        return None
    return max(output.expires_at - EXPIRY_NOTICE, now + (output.expires_at - now) / 2)
