"""A signal becomes a change: the task before and after, its transition and its event, all or none."""

from collections.abc import Iterable
from datetime import datetime

from service.domain.events import ON_ARRIVAL, Event, EventType, task_event
from service.domain.ids import TaskId
from service.domain.lifecycle import Signal, Status, Verdict, advance
from service.domain.tasks import Report, Task, TaskError, Transition, contradiction
from service.domain.values import Struct, replace


class Change(Struct, frozen=True, kw_only=True):
    """What must be written together. Without an event, only how the create stands has changed, or nothing."""

    before: Task
    after: Task
    verdict: Verdict | None = None  # of the signal, or of the report; None where neither has come
    reason: str | None = None
    transition: Transition | None = None
    event: Event | None = None
    at_once: bool = False  # the end stood in the answer to a create that had not waited

    @property
    def frees_slot(self) -> bool:
        """Whether a task that held a place at the provider has just ended."""
        return self.transition is not None and self.after.status in {Status.SUCCEEDED, Status.FAILED}


def signalled(
    stored: Task,
    signal: Signal,
    now: datetime,
    *,
    task: Task | None = None,
    error: TaskError | None = None,
) -> Change:
    """What the answer to a create does to a task.

    Args:
        stored: as it is before the change.
        task: the same, with what is already known of it besides its status; else `stored` itself.
    """
    return _arrive(stored, stored if task is None else task, signal, now, error=error)


def reported(task: Task, report: Report, now: datetime) -> Change:
    """What a callback, or the answer to a refresh, does to a task; so does a create's that brings the end at once.

    The first report that carries the provider's id sets it, whatever else it changes. Outputs and an error come
    with the signal that they belong to, so a report that changes no status changes neither; only outputs that a
    success lacked are taken from a later one, and a cost that nobody has told yet.
    """
    if (reason := contradiction(task, report)) is not None:
        return Change(verdict=Verdict.MISMATCHED, before=task, after=task, reason=reason)
    known = task
    if task.provider_task_id is None and report.provider_task_id is not None:
        known = replace(task, provider_task_id=report.provider_task_id)
    if task.cost is None and report.cost is not None and _ends(task, report):
        known = replace(known, cost=report.cost)
    error = report.error
    if report.signal is Signal.FAILED and error is None:
        error = TaskError("provider_failed", "The provider gave no reason.")
    return _arrive(task, known, report.signal, now, report=report, error=error)


def overdue(task: Task, now: datetime) -> Change:
    """Past its deadline: said once; the status stays, and a later callback still counts."""
    after = replace(task, overdue_at=now, updated_at=now, sequence=task.sequence + 1)
    return Change(before=task, after=after, event=task_event(EventType.TASK_OVERDUE, after, None, now))


def overall(changes: Iterable[Change]) -> list[tuple[Task, Task]]:
    """Each task that changes, as it was before the first of its changes and as it is after the last."""
    both: dict[TaskId, tuple[Task, Task]] = {}
    for change in changes:
        if change.after is not change.before:
            first = both.get(change.after.id)
            both[change.after.id] = (change.before if first is None else first[0], change.after)
    return list(both.values())


def _ends(task: Task, report: Report) -> bool:
    """Whether it speaks of the end that the task has come to, or comes to by it."""
    return advance(task.status, report.signal).verdict in {Verdict.ADVANCED, Verdict.DUPLICATE} and (
        report.signal in {Signal.COMPLETED, Signal.FAILED}
    )


def _outputs_added(stored: Task, task: Task, report: Report, now: datetime) -> Change:
    """It succeeded once already, but only now is told with what."""
    after = replace(task, outputs=report.outputs, sequence=task.sequence + 1, updated_at=now)
    return Change(
        verdict=Verdict.ADVANCED,
        before=stored,
        after=after,
        reason="it brings the outputs that were missing",
        event=task_event(EventType.TASK_OUTPUTS_ADDED, after, None, now),
    )


def _arrive(
    stored: Task,
    task: Task,
    signal: Signal,
    now: datetime,
    *,
    report: Report | None = None,
    error: TaskError | None = None,
) -> Change:
    step = advance(task.status, signal)
    if step.verdict is Verdict.DUPLICATE and report is not None and report.outputs and task.lacks_outputs:
        return _outputs_added(stored, task, report, now)
    if step.verdict is not Verdict.ADVANCED:
        reason = None
        if step.verdict is Verdict.CONFLICTING:
            reason = f"it says {signal}, but the task is {task.status} already"
        return Change(verdict=step.verdict, before=stored, after=task, reason=reason)
    waits = step.status in {Status.QUEUED, Status.UNCONFIRMED}
    after = replace(
        task,
        status=step.status,
        sequence=task.sequence + 1,
        updated_at=now,
        # A callback that overtook the create's answer tells as well that the provider has it.
        submitted_at=task.submitted_at or (None if waits or step.status is Status.REJECTED else now),
        finished_at=now if step.status.is_terminal else None,
        outputs=report.outputs if report is not None and step.status is Status.SUCCEEDED else task.outputs,
        error=error if step.status in {Status.FAILED, Status.REJECTED} else None,
        next_send_at=task.next_send_at if waits else None,
        awaits_slot=task.awaits_slot and waits,
    )
    transition = Transition(before=task.status, after=after.status, at=now, sequence=after.sequence)
    return Change(
        verdict=Verdict.ADVANCED,
        before=stored,
        after=after,
        transition=transition,
        event=task_event(ON_ARRIVAL[after.status], after, transition, now),
    )
