"""Sends queued tasks to their provider: never two creates that may both have been accepted."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from anyio.to_thread import run_sync

from service.batching import Batcher
from service.domain.creates import (
    Accepted,
    CreateOutcome,
    Deferred,
    Order,
    Unknown,
    expired,
    settled,
    slot_delay,
)
from service.domain.errors import KlingelError, StorageUnavailable
from service.domain.ids import ProcessId, new_callback_id
from service.domain.inputs import referenced_files, with_files
from service.domain.lifecycle import Status, Verdict
from service.domain.secrets import CallbackTokens
from service.domain.tasks import Report, Task
from service.domain.times import Clock
from service.domain.transitions import Change, reported
from service.domain.values import replace
from service.doubt import Doubt
from service.lines import Lines, has_waited
from service.loops import Loop
from service.notices import Notices, Topic
from service.observability.tracing import UNTRACED, Span, SpanKind, Tracing
from service.processes import Presence
from service.publication import Publisher
from service.stopping import Stopping
from service.turns import Served
from service.wakeups import Wakeups
from storage import tasks
from storage.database import Database, Transaction
from storage.files import Files
from storage.tasks import StoredCallback

CREATES_AT_A_TIME: Final = 16  # of one provider: one that hangs holds up no other
AFTER_TROUBLE: Final = timedelta(seconds=1)

UNRECORDABLE: Final = Unknown("internal", "Klingel could not record the provider's answer.")

log = structlog.get_logger()


class Provider(Protocol):
    """An outside system that runs generations."""

    @property
    def name(self) -> str: ...

    async def create(self, order: Order) -> CreateOutcome:
        """Raises nothing for what the wire can do: each end is an outcome."""

    async def read(self, task: Task) -> Report:
        """One status query, on a person's order.

        Raises:
            ProviderUnavailable, ProviderRefused, NotFound.
        """


class TaskSender:
    """Sends where its loop runs; elsewhere it only settles what dead processes were sending."""

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        publisher: Publisher,
        lines: Lines,
        providers: Mapping[str, Provider],
        files: Files,
        tokens: CallbackTokens,
        callback_base_url: str,
        confirm_after: timedelta,
        queue_max_age: timedelta,
        presence: Presence,
        notices: Notices,
        wakeups: Wakeups,
        stopping: Stopping,
        clock: Clock,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._tracing = tracing
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._lines = lines
        self._providers = providers
        self._files = files
        self._tokens = tokens
        self._callback_base_url = callback_base_url
        self._confirm_after = confirm_after
        self._queue_max_age = queue_max_age
        self._presence = presence
        self._notices = notices
        self._wakeups = wakeups
        self._stopping = stopping
        self._clock = clock
        self._sends: dict[asyncio.Task[None], Task] = {}
        self._doubt = Doubt(notices)  # about creates that were not begun here
        self._served = Served()
        self._loop = Loop("submission", self._send_due, wakeup=wakeups.submission, clock=clock)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends until the block ends; creates on their way may then end."""
        if self._database.sole_process:
            # A create that is on its way was sent by a process that died: there is no other.
            await self._batcher.alone(self._settle_interrupted)
        try:
            async with self._loop.running():
                yield
        finally:
            await self._leave_unsent()
            if self._sends:
                await asyncio.wait(self._sends, timeout=self._stopping.left_s())
            for send in self._sends:
                send.cancel()  # the next start finds `sending_since`, and the task becomes unconfirmed
            await asyncio.gather(*self._sends, return_exceptions=True)

    async def inherit(self, tx: Transaction, dead: Sequence[ProcessId]) -> None:
        """Settles what dead processes were sending."""
        await self._settle_sends_of(tx, dead)

    async def _send_due(self) -> datetime | None:
        if self._stopping.has_begun:
            return None
        await self._presence.until_alive()
        if not any(self._room(provider) for provider in self._providers):
            return None  # the first create that ends wakes the loop
        if self._doubt.is_open:
            await self._take_back_unsent()
        by, begun = await self._batcher.alone(self._begin)
        for task in begun:
            self._start_sending(task, by)
        async with self._database.reading() as reader:
            moments = await tasks.next_sends(reader)
        return min((at for provider, at in moments.items() if self._room(provider)), default=None)

    def _room(self, provider: str) -> int:
        """How many more creates may be on their way to the provider."""
        return CREATES_AT_A_TIME - sum(task.provider == provider for task in self._sends.values())

    def _start_sending(self, task: Task, by: ProcessId) -> None:
        send = asyncio.create_task(self._send(task, by))
        self._sends[send] = task
        send.add_done_callback(self._on_sent)

    def _on_sent(self, send: "asyncio.Task[None]") -> None:
        self._sends.pop(send, None)
        self._wakeups.submission.notify()  # there is room for another
        if not send.cancelled() and (error := send.exception()) is not None:
            log.error("submission.send_broke", exc_info=error)

    async def _begin(self, tx: Transaction) -> tuple[ProcessId, list[Task]]:
        """Marks due tasks as being sent, before a byte goes out: a crash must find that a create may be there. Accounts
        take turns, so that nobody waits behind all that another has queued.

        While older tasks wait for a free slot, younger ones line up behind them unsent, also when their own moment has
        come: only the first in line asks for a place.
        """
        await self._lines.hold(tx)
        now = self._clock()
        by = self._presence.id
        found = await self._due(tx, now)
        free = await tasks.free_to_change(tx, (task.id for task in found))
        due = [free[task.id] for task in found if task.id in free and _may_be_sent(free[task.id], now)]
        if due and not await self._presence.may_take(tx):
            return by, []
        too_old = [t for t in due if t.status is Status.QUEUED and now - t.created_at > self._queue_max_age]
        await self._publisher.record(tx, [expired(task, now) for task in too_old])
        due = [task for task in due if task not in too_old]
        held = await self._lines.held(tx, due)
        await tasks.save(
            tx,
            [
                (task, replace(task, awaits_slot=True, next_send_at=now + slot_delay(task, now)))
                for task in held
            ],
        )
        begun = [
            (task, replace(task, sends=task.sends + 1, sending_since=now, awaits_slot=False))
            for task in due
            if task not in held
        ]
        await tasks.save(tx, begun)
        await tasks.mark_sent(tx, (task.id for task, _ in begun), by=by)
        if begun:
            tx.on_rollback(self._doubt.raise_)
        for task, _ in begun:
            self._served.note(task.account_id)
        return by, [after for _, after in begun]

    async def _due(self, tx: Transaction, now: datetime) -> list[Task]:
        """Of providers that have room, at most `CREATES_AT_A_TIME`; the loop comes back for more."""
        due: list[Task] = []
        for provider, at in (await tasks.next_sends(tx)).items():
            room = min(self._room(provider), CREATES_AT_A_TIME - len(due))
            if at <= now and room > 0:
                due += await tasks.due_to_send(tx, provider, now=now, limit=room, served=self._served.last)
        return due

    async def _leave_unsent(self) -> None:
        """Lets the next process send what was marked while the loop was told to stop."""
        try:
            await self._take_back_unsent()
        except StorageUnavailable as error:
            log.warning("submission.not_taken_back", reason=error.detail)

    async def _take_back_unsent(self) -> None:
        """Undoes what a commit of which this process did not learn has marked as on its way: nothing of it was sent.

        Such a commit may still be going on, and holds the line until its end: so that end is waited for. The line is
        let go again before the rows are taken, for whoever holds one of these rows may be about to take the line.
        """
        await self._batcher.alone(self._lines.hold)
        await self._batcher.alone(self._take_back)

    async def _take_back(self, tx: Transaction) -> None:
        self._doubt.settle(tx)
        begun = {task.id for task in self._sends.values()}
        most = len(begun) + CREATES_AT_A_TIME
        marked = await tasks.interrupted_sends(tx, [self._presence.id], limit=most)
        await tasks.save(
            tx,
            [
                (task, replace(task, sends=task.sends - 1, sending_since=None))
                for task in marked
                if task.id not in begun
            ],
        )

    async def _send(self, task: Task, by: ProcessId) -> None:
        """
        Args:
            by: the id under which this process has marked it as on its way.
        """
        provider = self._providers.get(task.provider)
        if provider is None:
            outcome: CreateOutcome | None = Deferred(
                "provider_unknown", f"This Klingel has no provider {task.provider!r} now."
            )
        else:
            with self._tracing.span(
                f"create {task.type}",
                SpanKind.CLIENT,
                parent=task.trace,
                attributes={
                    "klingel.task.id": task.id,
                    "klingel.task.type": task.type,
                    "klingel.provider": task.provider,
                    "klingel.create.number": task.sends,
                },
            ) as span:
                outcome = await self._create(provider, task, by)
                if outcome is not None:
                    _note_outcome(span, outcome)
        if outcome is None:  # the process that found this one dead settles the task
            log.warning("task.left_to_others", task_id=task.id, send=task.sends)
            return
        log.info(
            "task.sent",
            task_id=task.id,
            provider=task.provider,
            send=task.sends,
            outcome=type(outcome).__name__.lower(),
            code=getattr(outcome, "code", None),
        )
        await self._keep_settling(task, outcome)

    async def _keep_settling(self, task: Task, outcome: CreateOutcome) -> None:
        """Tries until the database takes the answer, which nobody else has."""
        while True:
            try:
                return await self._batcher.run(self._settle, (task, outcome))
            except KlingelError as error:
                log.warning("submission.not_recorded", task_id=task.id, reason=error.detail)
                await asyncio.sleep(AFTER_TROUBLE.total_seconds())
            except Exception:
                if outcome == UNRECORDABLE:
                    raise  # the next start finds `sending_since`, and the task becomes unconfirmed
                log.exception("submission.not_recorded", task_id=task.id)
                outcome = UNRECORDABLE

    async def _create(self, provider: Provider, task: Task, by: ProcessId) -> CreateOutcome | None:
        """How the create ended; None where others count this process as dead: then nothing was sent."""
        try:
            complete = await self._complete(task.input)
        except KlingelError as error:
            return Deferred("input_unreadable", error.detail)
        token = self._tokens.sign(provider.name, task.id)
        order = Order(
            task_id=task.id,
            type=task.type,
            input=complete,
            external_task_id=task.provider_external_id,
            callback_url=f"{self._callback_base_url}/callbacks/{provider.name}/{task.id}/{token}",
            extras=task.extras,
            path=task.path,
            is_resend=task.status is Status.UNCONFIRMED,
        )
        if not await self._presence.is_still(by):
            return None
        try:
            return await provider.create(order)
        except Exception as error:
            log.exception("submission.provider_broke", task_id=task.id, provider=provider.name)
            return Unknown(
                "internal", f"Klingel could not read the provider's answer ({type(error).__name__})."
            )

    async def _complete(self, input: Mapping[str, Any]) -> Mapping[str, Any]:
        """The input with its files in it. Most inputs have none, and need no thread to read them."""
        if not referenced_files(input):
            return input
        return await run_sync(lambda: with_files(input, self._files.get))

    async def _settle(self, tx: Transaction, outcomes: Sequence[tuple[Task, CreateOutcome]]) -> list[None]:
        now = self._clock()
        stored = await tasks.to_change(tx, (task.id for task, _ in outcomes))
        # An answer that could not be recorded for long may come when another create has been begun elsewhere. That it
        # was accepted counts even then.
        counting = [
            (stored[task.id], outcome)
            for task, outcome in outcomes
            if stored[task.id].sends == task.sends or isinstance(outcome, Accepted)
        ]
        changes = [self._settled(task, outcome, now) for task, outcome in counting]
        answers = [
            _answered(change.after, outcome, now)
            for change, (_, outcome) in zip(changes, counting, strict=True)
        ]
        ends = [
            replace(end, at_once=not has_waited(change.before))
            for change, (end, _) in zip(changes, answers, strict=True)
            if end is not None
        ]
        happened = await self._publisher.write(tx, [*changes, *ends])
        await tasks.insert_callbacks(tx, [one for _, one in answers if one is not None])
        await self._lines.answered(tx, changes, now)
        await self._publisher.publish(tx, happened)
        await self._notices.wake(tx, Topic.SUBMISSION, self._wakeups.submission)
        return [None] * len(outcomes)

    async def _settle_interrupted(self, tx: Transaction) -> None:
        await self._settle_sends_of(tx, None)

    async def _settle_sends_of(self, tx: Transaction, dead: Sequence[ProcessId] | None) -> None:
        """Creates that were on their way when their process died: whether the provider has them cannot be told."""
        now = self._clock()
        outcome = Unknown("interrupted", "Klingel stopped while the create was on its way.")
        while page := await tasks.interrupted_sends(tx, dead, limit=500):
            await self._publisher.record(tx, [self._settled(task, outcome, now) for task in page])
        await self._notices.wake(tx, Topic.SUBMISSION, self._wakeups.submission)

    def _settled(self, stored: Task, outcome: CreateOutcome, now: datetime) -> Change:
        change = settled(
            stored,
            outcome,
            now,
            confirm_after=self._confirm_after,
            queue_max_age=self._queue_max_age,
        )
        _log_surprises(change, outcome)
        return change


def _log_surprises(change: Change, outcome: CreateOutcome) -> None:
    task = change.after
    if isinstance(outcome, Accepted) and outcome.provider_task_id not in {None, task.provider_task_id}:
        log.warning("task.provider_id_differs", task_id=task.id)
    if task.status is Status.UNCONFIRMED and task.next_send_at is None:
        log.warning("task.left_unconfirmed", task_id=task.id, sends=task.sends)


def _answered(
    task: Task, outcome: CreateOutcome, now: datetime
) -> tuple[Change | None, StoredCallback | None]:
    """The end of the task, where the answer to its create tells it as a callback would; and the answer, to be kept as one."""
    match outcome:
        case Accepted(report=Report() as report, answer=bytes() as answer):
            # It is about this task whatever ids it names: it came on the create's own connection.
            about = replace(report, provider_task_id=None, external_task_id=None)
            end = reported(task, about, now)
            assert end.verdict is not None
            if end.verdict is Verdict.CONFLICTING:
                log.warning("callback.set_aside", task_id=task.id, verdict=end.verdict, reason=end.reason)
            return end, _answer_as_callback(
                task, answer, end.verdict, end.reason or "it is the answer to the create", now
            )
        case Unknown(answer=bytes() as answer):
            reason = "it is the answer to the create, and names no task"
            return None, _answer_as_callback(task, answer, Verdict.UNREADABLE, reason, now)
        case _:
            return None, None


def _answer_as_callback(
    task: Task, body: bytes, verdict: Verdict, reason: str, now: datetime
) -> StoredCallback:
    """The body of a create's answer, to be kept beside the callbacks of its task."""
    return StoredCallback(
        id=new_callback_id(),
        task_id=task.id,
        provider=task.provider,
        received_at=now,
        verdict=verdict,
        reason=reason,
        body=body,
    )


def _may_be_sent(task: Task, now: datetime) -> bool:
    """As `due_to_send` has it: another process may have begun it in the meantime."""
    return task.sending_since is None and task.next_send_at is not None and task.next_send_at <= now


def _note_outcome(span: Span, outcome: CreateOutcome) -> None:
    span.note({"klingel.create.outcome": type(outcome).__name__.lower()})
    if not isinstance(outcome, Accepted):
        span.note({"error.type": outcome.code})
        span.fail(outcome.code)
