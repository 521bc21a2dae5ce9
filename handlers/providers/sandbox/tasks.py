"""The tasks the stand-in has accepted."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from handlers.providers.sandbox.answers import Code, RequestError
from handlers.providers.sandbox.faults import Fault
from handlers.providers.sandbox.products import Kind, Product, Ware
from handlers.providers.sandbox.validation import Order

Clock = Callable[[], datetime]

MOST_TASKS: Final = 50_000


class Status(StrEnum):
    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEED = "succeed"
    FAILED = "failed"


def utc_now() -> datetime:
    return datetime.now(UTC)


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result. `duration_s` is None for a picture."""

    kind: Kind
    index: int
    name: str
    url: str
    duration_s: float | None = None
    wav_url: str | None = None  # of a sound, which comes twice


@dataclass(slots=True, kw_only=True)
class Task:
    """`reached` holds when each status was reached, `step` how long the task stays in each."""

    task_id: str
    account: str
    order: Order
    step: timedelta
    faults: frozenset[Fault]
    files_url: str
    created_at: datetime
    status: Status = Status.SUBMITTED
    reached: dict[Status, datetime] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()

    @property
    def external_task_id(self) -> str | None:
        return self.order.external_task_id

    @property
    def ending(self) -> Status:
        return Status.FAILED if Fault.FAIL in self.faults else Status.SUCCEED

    def reach(self, status: Status, *, at: datetime) -> None:
        self.status = status
        self.reached[status] = at


class Ledger:
    """Every task of this run; the oldest go when there are over `MOST_TASKS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._running: dict[str, Task] = {}
        self._by_external: dict[tuple[str, str], Task] = {}
        self._last_id = 800_000_000_000_000_000 + milliseconds(clock()) * 1000

    def minted_id(self) -> str:
        """18 digits, growing, and not met again after a restart."""
        self._last_id += 1
        return str(self._last_id)

    def check(self, order: Order, *, account: str, slots: int | None) -> None:
        """Raises `RequestError`: 1201 for a known external id, 1303 with too few slots free."""
        name = order.external_task_id
        if name is not None and (account, name) in self._by_external:
            raise RequestError(Code.BAD_VALUE, f"external_task_id '{name}' already exists")
        if slots is not None and self._slots_taken(order.product.kind) + order.slots > slots:
            raise RequestError(Code.TOO_MANY_TASKS, "parallel task over resource pack limit")

    def accept(
        self, order: Order, *, account: str, step: timedelta, faults: frozenset[Fault], files_url: str
    ) -> Task:
        task = Task(
            task_id=self.minted_id(),
            account=account,
            order=order,
            step=step,
            faults=faults,
            files_url=files_url,
            created_at=self._clock(),
        )
        task.reach(Status.SUBMITTED, at=task.created_at)
        self._tasks[task.task_id] = task
        self._running[task.task_id] = task
        if order.external_task_id is not None:
            self._by_external[account, order.external_task_id] = task
        if len(self._tasks) > MOST_TASKS:
            self._forget_oldest()
        return task

    def end(self, task: Task, *, outputs: tuple[Output, ...]) -> None:
        """Frees the task's slots."""
        task.outputs = outputs
        task.reach(task.ending, at=self._clock())
        self._running.pop(task.task_id, None)

    def find(self, name: str, *, account: str, product: Product | Ware) -> Task:
        """By task id or external id. Raises `RequestError` 1201."""
        task = self._tasks.get(name) or self._by_external.get((account, name))
        if task is None or task.account != account or task.order.product.name != product.name:
            raise RequestError(Code.BAD_VALUE, "task not found by id or external id")
        return task

    def find_new(self, names: Iterable[str], *, account: str) -> list[Task]:
        """Those of the new standard, by task id or external id; what is not there is left out."""
        found = (self._tasks.get(name) or self._by_external.get((account, name)) for name in names)
        return [
            task
            for task in found
            if task is not None and task.account == account and task.order.product.is_new
        ]

    def page(self, *, account: str, product: Product | Ware, number: int, size: int) -> list[Task]:
        """Newest first; pages count from 1."""
        newest = (
            task
            for task in reversed(self._tasks.values())
            if task.account == account and task.order.product.name == product.name
        )
        return list(islice(newest, (number - 1) * size, number * size))

    def other_than(self, task: Task) -> Task | None:
        return next((other for other in reversed(self._tasks.values()) if other is not task), None)

    def _slots_taken(self, kind: Kind) -> int:
        return sum(task.order.slots for task in self._running.values() if task.order.product.kind is kind)

    def _forget_oldest(self) -> None:
        _, task = self._tasks.popitem(last=False)
        if task.external_task_id is not None:
            del self._by_external[task.account, task.external_task_id]
