"""Archive: the outputs that an event names are copied into Klingel's own store, before the provider drops them."""

import hashlib
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Any, Final

import anyio
from anyio.to_thread import run_sync
from yarl import URL

from handlers.sinks import exchange
from service.domain.deliveries import AttemptOutcome, Duty, Reply, parse_retry_after
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault, StorageUnavailable
from service.domain.faults import InvalidFields
from service.domain.kept import KeptFile
from service.domain.lengths import announced_length
from service.domain.media_types import HEAD, UNKNOWN, is_page, media_type
from service.domain.tasks import Output, Task
from service.keeping import Content, Keeper
from service.network.connections import Download, NoAnswer
from service.network.dialler import Dialler, Refused

DEADLINE: Final = timedelta(minutes=9)  # of an attempt: all outputs of a task, and less than a lease
SILENCE: Final = timedelta(seconds=30)  # of the other side, at most
WRITERS: Final = 4  # threads that write and hash
BLOCK: Final = 1024 * 1024  # written and hashed in one go
# A file that a callback names may not be everywhere yet: so many attempts until "not found" is believed.
NOT_FOUND_AFTER: Final = 3


class _NotKept(Exception):
    """Why an output could not be kept, and whether another attempt may do better."""

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        for_good: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.for_good = for_good
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Origins:
    """Who dials what: a provider that the operator chose may be in a private network, its callbacks' URLs not.

    Args:
        dialler: guarded.
        provider_dialler: one that may go everywhere, for these origins alone.
        provider_urls: name the origins: scheme, host and port.
    """

    dialler: Dialler
    provider_dialler: Dialler
    provider_urls: Sequence[str]

    def dialler_for(self, url: str) -> Dialler:
        try:
            is_providers = URL(url).origin() in [URL(own).origin() for own in self.provider_urls]
        except ValueError:  # no URL, or one without a host: the guard says so
            is_providers = False
        return self.provider_dialler if is_providers else self.dialler


class ArchiveSink:
    """Delivers to endpoints of kind `archive`: one attempt fetches what is not kept yet of one task,
    one output after another: how many download at a time is for the lanes to say.

    Args:
        largest: bytes of one output.
    """

    def __init__(self, keeper: Keeper, origins: Origins, *, largest: int) -> None:
        self._keeper = keeper
        self._origins = origins
        self._largest = largest
        self._writers = anyio.CapacityLimiter(WRITERS)

    def configure(
        self,
        raw: object,  # noqa: ARG002 - nobody configures it
        *,
        pointer: str,
        before: Endpoint | None = None,  # noqa: ARG002
    ) -> tuple[Mapping[str, Any], str | None]:
        raise InvalidFields([Fault("Klingel makes endpoints of this kind itself.", pointer)])

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        task = None if duty.event.task_id is None else await self._keeper.task(duty.event.task_id)
        if task is None:
            return _reply([], [], 0)
        kept: list[KeptFile] = []
        failed: list[_NotKept] = []
        missing = deque(place for place, output in enumerate(task.outputs) if output.stored_url is None)
        # Each attempt begins with another one, so that an output that takes all of its time takes it from the others only
        # once. Not a part of the time for each: what is large may need all of it.
        missing.rotate(1 - duty.attempt)
        for place in missing:
            try:
                file = await self._keep(task, place, attempt=duty.attempt, now=now)
            except _NotKept as error:
                failed.append(error)
            else:
                kept += [] if file is None else [file]
        return _reply(kept, failed, len(missing))

    async def _keep(self, task: Task, place: int, *, attempt: int, now: datetime) -> KeptFile | None:
        output = task.outputs[place]
        # Nameless: whatever happens to this process, nothing of it is left.
        with tempfile.TemporaryFile() as file:
            try:
                content = await self._fetched(output, file, attempt=attempt, now=now)
                return await self._keeper.keep(task, place, content)
            except Refused as error:
                raise _NotKept(f"not dialled: {error}") from None
            except StorageUnavailable as error:
                raise _NotKept(error.detail.rstrip(".")) from None
            except (NoAnswer, OSError) as error:
                raise _NotKept(exchange.why(error)) from None

    async def _fetched(self, output: Output, file: IO[bytes], *, attempt: int, now: datetime) -> Content:
        """The output, whole, in `file`.

        Raises:
            _NotKept, Refused, OSError, NoAnswer
        """
        dialler = self._origins.dialler_for(output.url)
        headers = {"user-agent": exchange.USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
        async with dialler.get(output.url, headers=headers, silence=SILENCE) as download:
            length = _announced(download, attempt=attempt, now=now)
            if length is not None and length > self._largest:
                raise self._too_large()
            size, sha256 = await self._written(download, file)
        if length is not None and size != length:
            raise _NotKept(f"cut off: {size} of {length} bytes came")
        file.seek(0)
        head = file.read(HEAD)
        type = media_type(head)
        if not head:
            raise _NotKept("an empty file")
        if type is UNKNOWN and is_page(head):
            raise _NotKept(f"a page came instead of a {output.kind}", status=download.status)
        return Content(file=file, type=type, size=size, sha256=sha256)

    async def _written(self, download: Download, file: IO[bytes]) -> tuple[int, str]:
        """How many bytes came, and their hash."""
        hashed = hashlib.sha256()
        size = 0
        block = bytearray()

        def write(what: bytes) -> None:
            file.write(what)
            hashed.update(what)

        async for piece in download.pieces:
            size += len(piece)
            if size > self._largest:
                raise self._too_large()
            block += piece
            if len(block) >= BLOCK:
                await run_sync(write, bytes(block), limiter=self._writers)
                block.clear()
        await run_sync(write, bytes(block), limiter=self._writers)
        file.flush()
        return size, hashed.hexdigest()

    def _too_large(self) -> _NotKept:
        return _NotKept(f"larger than {self._largest} bytes (KLINGEL_FILE_MAX_BYTES)", for_good=True)


def _announced(download: Download, *, attempt: int, now: datetime) -> int | None:
    """How long the file is to be, if it is one; None where it comes in chunks, whose end can be told too."""
    status, headers = download.status, download.headers
    match status:
        case 200:
            pass
        case 410:
            raise _NotKept("gone at the provider", status=status, for_good=True)
        case 404:
            raise _NotKept("not found at the provider", status=status, for_good=attempt >= NOT_FOUND_AFTER)
        case 301 | 302 | 303 | 307 | 308:
            raise _NotKept("it redirects, and redirects are not followed", status=status)
        case _:
            wait = parse_retry_after(headers.get("retry-after"), now) if status in {429, 503} else None
            raise _NotKept("answered", status=status, retry_after=wait)
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise _NotKept("it came packed, although that was not asked for", status=status)
    if (length := announced_length(headers.get("content-length", ""))) is not None:
        return length
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return None
    raise _NotKept(
        "it does not say how long it is, so that nobody could tell if it was cut off", status=status
    )


def _reply(kept: Sequence[KeptFile], failed: Sequence[_NotKept], wanted: int) -> Reply:
    """What is kept stays kept; the next attempt goes for the rest."""
    told = [f"{file.name} {file.content_type} {file.size} bytes sha256 {file.sha256}" for file in kept]
    if not failed:
        reason = "kept" if wanted else "nothing to keep"
        return Reply(
            status_code=None,
            reason=reason,
            excerpt="\n".join(told),
            ending=AttemptOutcome.DELIVERED,
            exchanged=wanted > 0,
        )
    worst = next((error for error in failed if not error.for_good), failed[0])
    waits = [error.retry_after for error in failed if error.retry_after is not None]
    return Reply(
        status_code=worst.status,
        reason=f"{len(failed)} of {wanted} not kept: {worst.reason}" if wanted > 1 else worst.reason,
        retry_after=max(waits, default=None),
        excerpt="\n".join(told),
        ending=AttemptOutcome.DEAD if worst.for_good else AttemptOutcome.RETRY,
    )
