"""What reports about tasks need to know of them, in one step."""

from collections.abc import Iterable, Sequence

from service.domain.endpoints import Endpoint
from service.domain.ids import TaskId
from service.domain.tasks import Task
from service.domain.values import Struct
from storage.columns import json_text
from storage.database import Transaction
from storage.endpoints import endpoint_of
from storage.tasks import task_of


class Affected(Struct, frozen=True):
    """Tasks that are about to change; until the transaction's end nobody else changes them.

    Args:
        candidates: all endpoints to which their events may go, enabled or not.
        in_line: whether anybody waits for a place at a provider.
    """

    tasks: dict[TaskId, Task]
    candidates: Sequence[Endpoint]
    in_line: bool


async def affected(tx: Transaction, ids: Iterable[TaskId]) -> Affected:
    """For where nobody else writes: the whole of it stays true until the transaction's end."""
    asked = {"ids": json_text(sorted(set(ids)))}
    found, candidates, waiting = await tx.several(
        ("tasks_to_change", asked), ("endpoints_of_tasks", asked), ("any_awaiting_slot", {})
    )
    return Affected(
        tasks={row["id"]: task_of(row) for row in found},
        candidates=[endpoint_of(row) for row in candidates],
        in_line=bool(waiting),
    )
