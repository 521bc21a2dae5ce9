"""What happens to a task after it was accepted."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final
from uuid import uuid4

import anyio
import anyio.to_thread
import structlog

from handlers.providers.sandbox.bodies import Notice, callback_body
from handlers.providers.sandbox.callbacks import Callback, Courier
from handlers.providers.sandbox.faults import Fault
from handlers.providers.sandbox.files import Files
from handlers.providers.sandbox.media import FORMATS, Recipe
from handlers.providers.sandbox.pictures import Link, Picture, PictureError, Source, from_bytes
from handlers.providers.sandbox.products import Kind
from handlers.providers.sandbox.tasks import Clock, Ledger, Output, Status, Task

Fetch = Callable[[str], Awaitable[bytes]]
"""Reads an input's URL, or raises. Who passes one answers for where it may reach."""

FETCH_TIME: Final = timedelta(seconds=2)
SLOWNESS: Final = 10

log = structlog.get_logger()


def pace(step: timedelta, faults: frozenset[Fault]) -> timedelta:
    """How long a task stays in each status."""
    if Fault.EARLY in faults:
        return timedelta(0)
    return step * SLOWNESS if Fault.SLOW in faults else step


def callbacks_at(change: Status, *, ending: Status, faults: frozenset[Fault]) -> tuple[Status, ...]:
    """The statuses called back, in order, when a task reaches `change`."""
    if Fault.NEVER in faults:
        return ()
    ended = change is ending
    whole = (Status.SUBMITTED, Status.PROCESSING, ending)
    words: tuple[Status, ...] = (change,)
    if Fault.REORDER in faults:
        words = tuple(reversed(whole)) if ended else ()
    if Fault.DUPLICATE in faults:
        words = tuple(word for word in words for _ in range(2)) + (whole if ended else ())
    if Fault.CONTRADICT in faults and ended:
        words += (Status.FAILED if ending is Status.SUCCEED else Status.SUCCEED,)
    return words


class Lives:
    """Runs every accepted task to its end, or until `stop`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        courier: Courier,
        files: Files,
        fetch: Fetch | None,
        readers: anyio.CapacityLimiter,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._courier = courier
        self._files = files
        self._fetch = fetch
        self._readers = readers
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, task: Task) -> anyio.Event:
        """The event is set when the task has ended and its callbacks are out."""
        ended = anyio.Event()
        life = asyncio.create_task(self._outlive(task, ended))
        self._under_way.add(life)
        life.add_done_callback(self._under_way.discard)
        return ended

    async def stop(self) -> None:
        """Abandons what is under way."""
        for life in self._under_way:
            life.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _outlive(self, task: Task, ended: anyio.Event) -> None:
        try:
            await self._live(task)
        except Exception:
            log.exception("sandbox.task-broken", task_id=task.task_id)
        finally:
            ended.set()

    async def _live(self, task: Task) -> None:
        outbox, inbox = anyio.create_memory_object_stream[Callback](math.inf)
        async with inbox, anyio.create_task_group() as group:
            group.start_soon(self._courier.carry, inbox)
            async with outbox:
                for status in (Status.SUBMITTED, Status.PROCESSING, task.ending):
                    await self._reach(status, task)
                    for callback in self._callbacks(task, status):
                        outbox.send_nowait(callback)
                if Fault.EMPTY in task.faults and task.ending is Status.SUCCEED:
                    await self._fill(task)
                    for callback in self._callbacks(task, task.ending):
                        outbox.send_nowait(callback)

    async def _reach(self, status: Status, task: Task) -> None:
        match status:
            case Status.SUBMITTED:
                return
            case Status.PROCESSING:
                await anyio.sleep(task.step.total_seconds())
                task.reach(status, at=self._clock())
            case _ if Fault.EMPTY in task.faults:
                await anyio.sleep(task.step.total_seconds())
                self._ledger.end(task, outputs=())
            case _:
                self._ledger.end(task, outputs=await self._work(task))

    async def _fill(self, task: Task) -> None:
        """The results of a task that has succeeded without them."""
        task.outputs = await self._work(task)
        task.reach(task.ending, at=self._clock())

    async def _work(self, task: Task) -> tuple[Output, ...]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, task.step.total_seconds())
            pictures = await self._fetched(task)
        return () if task.ending is Status.FAILED else self._outputs(task, pictures)

    async def _fetched(self, task: Task) -> Mapping[str, Picture]:
        """The linked inputs that could be read in time; none without a fetch."""
        if self._fetch is None:
            return {}
        order = task.order
        links = {
            source.url for source in (*order.sources, order.scene, order.style) if isinstance(source, Link)
        }
        pictures: dict[str, Picture] = {}
        with anyio.move_on_after(FETCH_TIME.total_seconds()):
            async with anyio.create_task_group() as group:
                for url in links:
                    group.start_soon(self._read, self._fetch, url, pictures)
        return pictures

    async def _read(self, fetch: Fetch, url: str, pictures: dict[str, Picture]) -> None:
        try:
            content = await fetch(url)
            pictures[url] = await anyio.to_thread.run_sync(from_bytes, content, limiter=self._readers)
        except PictureError as refused:
            log.info("sandbox.input-unreadable", reason=str(refused))
        except Exception as failure:  # noqa: BLE001  a fetch is handed in; its errors are its own
            log.info("sandbox.input-unreachable", reason=type(failure).__name__)

    def _outputs(self, task: Task, pictures: Mapping[str, Picture]) -> tuple[Output, ...]:
        order = task.order

        def resolved(source: Source) -> Source:
            return pictures.get(source.url, source) if isinstance(source, Link) else source

        stem = uuid4().hex
        outputs = []
        for kind in order.product.kinds:
            for index in range(order.n if kind is Kind.IMAGE else 1):
                recipe = Recipe(
                    sources=tuple(resolved(source) for source in order.sources),
                    scene=None if order.scene is None else resolved(order.scene),
                    style=None if order.style is None else resolved(order.style),
                    prompt=order.prompt,
                    aspect_ratio=order.aspect_ratio,
                    index=index,
                    duration_s=None if kind is Kind.IMAGE else order.duration_s,
                )
                name, *others = (f"{stem}-{index}.{format}" for format in FORMATS[kind])
                for each in (name, *others):
                    self._files.add(each, recipe)
                outputs.append(
                    Output(
                        kind=kind,
                        index=index,
                        name=name,
                        url=f"{task.files_url}/{name}",
                        duration_s=recipe.duration_s,
                        wav_url=f"{task.files_url}/{others[0]}" if others else None,
                    )
                )
        return tuple(outputs)

    def _callbacks(self, task: Task, change: Status) -> list[Callback]:
        url = task.order.callback_url
        if url is None:
            return []
        task_id, external_task_id = self._identity(task)
        notices = [
            Notice(
                task=task,
                task_id=task_id,
                external_task_id=external_task_id,
                status=status,
                at=task.reached.get(status) or self._clock(),
            )
            for status in callbacks_at(change, ending=task.ending, faults=task.faults)
        ]
        return [
            Callback(
                task_id=task.task_id,
                external_task_id=task.external_task_id,
                url=url,
                status_word=notice.status,
                body=callback_body(notice),
            )
            for notice in notices
        ]

    def _identity(self, task: Task) -> tuple[str, str | None]:
        if Fault.OTHER_TASK not in task.faults:
            return task.task_id, task.external_task_id
        other = self._ledger.other_than(task)
        if other is not None:
            return other.task_id, other.external_task_id
        task_id = self._ledger.minted_id()
        return task_id, f"other-{task_id}"
