"""A refresh: one read of a task at its provider, on a person's order. Polling does not exist here."""

from service.batching import Batcher
from service.domain.errors import NotFound
from service.domain.lifecycle import Verdict
from service.domain.tasks import Task
from service.domain.times import Clock
from service.domain.transitions import reported
from service.publication import Publisher
from service.sending import Provider
from storage import tasks
from storage.database import Transaction


async def refresh(
    task: Task, provider: Provider, *, batcher: Batcher, publisher: Publisher, clock: Clock
) -> Verdict:
    """What the provider says now, counted like a callback.

    Raises:
        ProviderUnavailable, ProviderRefused: the query failed.
        NotFound: the provider does not know the task.
    """
    report = await provider.read(task)

    async def apply(tx: Transaction) -> Verdict | NotFound:
        stored = (await tasks.to_change(tx, [task.id])).get(task.id)
        if stored is None:
            return NotFound(f"There is no task {task.id}.")
        change = reported(stored, report, clock())
        await publisher.record(tx, [change])
        assert change.verdict is not None
        return change.verdict

    return await batcher.alone(apply)
