"""Takes submits in: each becomes a task, or leads to the task that an earlier one has become, or is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from service import spending
from service.batching import Batcher
from service.domain.endpoints import Endpoint, EndpointDraft
from service.domain.errors import (
    BudgetExceeded,
    Conflict,
    ExternalTaskIdTaken,
    IdempotencyKeyReused,
    KlingelError,
    Unprocessable,
)
from service.domain.faults import InvalidFields
from service.domain.follow_ups import MOST_DESCENDANTS
from service.domain.ids import AccountId, EndpointId, TaskId, new_task_id
from service.domain.inputs import ValidatedInput
from service.domain.lifecycle import Status
from service.domain.providers import ProviderAccounts
from service.domain.task_types import TaskType
from service.domain.tasks import Lineage, OutputKind, Task
from service.domain.times import Clock
from service.domain.traces import Trace
from service.domain.values import replace
from service.notices import Notices, Topic
from service.observability.tracing import UNTRACED, SpanKind, Tracing
from service.publication import Publisher
from service.wakeups import Wakeups
from storage import endpoints, tasks
from storage import keys as stored_keys
from storage.database import Database, Transaction
from storage.files import Files, kept
from storage.tasks import IdempotencyKey

KEY_LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What somebody asks for, checked: all that makes a task but its id and its moments."""

    type: TaskType
    input: ValidatedInput
    extras: Mapping[str, Any] = field(default_factory=dict)  # as `Task.extras`
    path: str | None = None  # as `Task.path`
    external_task_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provider: str | None = None  # which account there; else the one that is meant for its type
    deadline: timedelta | None = None  # else the type's
    endpoints: Sequence[EndpointDraft] = ()  # to be bound to it
    lineage: Lineage | None = None  # of a follow-up


@dataclass(frozen=True, slots=True)
class Once:
    """Makes a repeated submit count once: the caller's key, and a hash of what it was sent with."""

    key: str
    body_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submit:
    task: Task
    files: Sequence[str]  # hashes of the input files that it needs
    endpoints: Sequence[Endpoint]
    once: Once | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The task that a submit led to: its own, or the one that its idempotency key, or its follow-up, had led to
    before.

    Args:
        new: its own, as it was stored.
        endpoints: that are bound to that one.
    """

    task_id: TaskId
    earlier: IdempotencyKey | None = None
    new: Task | None = None
    endpoints: Sequence[Endpoint] = ()


class Submitter:
    """Writes new tasks down; `service.sending` sends them."""

    def __init__(
        self,
        *,
        database: Database,
        batcher: Batcher,
        publisher: Publisher,
        accounts: ProviderAccounts,
        deadlines: Mapping[OutputKind, timedelta],
        files: Files,
        notices: Notices,
        wakeups: Wakeups,
        clock: Clock,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._tracing = tracing
        self._database = database
        self._batcher = batcher
        self._publisher = publisher
        self._accounts = accounts
        self._deadlines = deadlines
        self._files = files
        self._notices = notices
        self._wakeups = wakeups
        self._clock = clock
        self._first_account: AccountId | None = None  # once it is known: it stays the first

    async def submit(
        self,
        account_id: AccountId,
        draft: Draft,
        *,
        once: Once | None = None,
        trace: Trace | None = None,
    ) -> Stored:
        """The task is on disk when this returns; its create goes out by itself.

        A follow-up makes at most one task of its parent, however often it is asked to, as long as either is kept.

        Args:
            trace: of whoever submits; all that is done about the task belongs to it.

        Raises:
            ExternalTaskIdTaken: another task of the account has it.
            Conflict: a follow-up, and its family has become too large.
            IdempotencyKeyReused: with another body, within 24 hours.
            BudgetExceeded: the account has spent what it may.
            Unprocessable: there is no such provider, or none that takes this type.
        """
        kind = SpanKind.SERVER if draft.lineage is None else SpanKind.INTERNAL
        attributes = {"klingel.task.type": draft.type.name, "klingel.account.id": account_id}
        with self._tracing.span(
            f"submit {draft.type.name}", kind, parent=trace, attributes=attributes
        ) as span:
            stored = await self._submit(account_id, draft, once, span.trace)
            span.note({"klingel.task.id": stored.task_id})
        return stored

    async def _submit(
        self, account_id: AccountId, draft: Draft, once: Once | None, trace: Trace | None
    ) -> Stored:
        now = self._clock()
        task_id = new_task_id()
        lineage = draft.lineage
        try:
            provider = self._accounts.choose(draft.type, draft.provider)
        except InvalidFields as error:
            raise Unprocessable("The task has faults; nothing was sent.", faults=error.faults) from None
        task = Task(
            id=task_id,
            account_id=account_id,
            type=draft.type.name,
            provider=provider,
            status=Status.QUEUED,
            input=draft.input.fields,
            external_task_id=draft.external_task_id or task_id,
            provider_external_id=task_id,
            extras=draft.extras,
            path=draft.path,
            metadata=draft.metadata,
            parent_id=None if lineage is None else lineage.parent_id,
            rule_id=None if lineage is None else lineage.rule_id,
            depth=0 if lineage is None else lineage.depth,
            places=draft.type.places(draft.input.fields),
            trace=trace,
            created_at=now,
            updated_at=now,
            deadline_at=now + (draft.deadline or self._deadlines[draft.type.deadline_as]),
            next_send_at=now,
        )
        bound = [endpoint.made(account_id, now, task_id=task_id) for endpoint in draft.endpoints]
        submit = _Submit(task=task, files=sorted(draft.input.files), endpoints=bound, once=once)
        if not draft.input.files:
            return await self._batcher.run(self._store, submit)
        async with kept(self._files, self._database, draft.input.files):
            return await self._batcher.run(self._store, submit)

    async def remember_answer(self, key: IdempotencyKey) -> IdempotencyKey:
        """What everybody under this key is told from now on: this answer, or one that was remembered before it."""
        return await self._batcher.run(self._remember, key)

    async def _store(self, tx: Transaction, submits: Sequence[_Submit]) -> list[Stored | KlingelError]:
        await tx.hold("account", {submit.task.account_id for submit in submits})
        now = self._clock()
        keys = await tasks.idempotency_keys(
            tx, [(s.task.account_id, s.once.key) for s in submits if s.once is not None]
        )
        # One that goes by its own id alone cannot have been there before.
        external_ids = await tasks.external_ids_taken(
            tx,
            [
                (s.task.account_id, s.task.external_task_id)
                for s in submits
                if s.task.external_task_id != s.task.id
            ],
        )
        followed = await tasks.followed(
            tx, [key for s in submits if (key := _follow_up_key(s.task)) is not None]
        )
        self._first_account = self._first_account or await stored_keys.first_account(tx)
        over_budget, happened = await spending.refusals(tx, {s.task.account_id for s in submits}, now)
        intake = _Intake(
            tx=tx,
            now=now,
            first_account=self._first_account,
            over_budget=over_budget,
            keys=keys,
            followed=followed,
            external_ids=external_ids,
        )
        results = [await intake.decide(submit) for submit in submits]
        await self._insert(tx, intake.new, now)
        await self._publisher.publish(tx, happened)
        if intake.new:
            await self._notices.wake(tx, Topic.SUBMISSION, self._wakeups.submission)
            first_deadline = min(submit.task.deadline_at for submit in intake.new)
            await self._notices.wake(tx, Topic.DEADLINES, self._wakeups.deadlines, at=first_deadline)
        return results

    @staticmethod
    async def _insert(tx: Transaction, new: Sequence[_Submit], now: datetime) -> None:
        await tasks.insert(tx, [submit.task for submit in new])
        await tasks.insert_files(tx, [(s.task.id, sha256) for s in new for sha256 in s.files])
        await endpoints.insert(tx, [endpoint for submit in new for endpoint in submit.endpoints])
        await tasks.insert_idempotency_keys(
            tx, [_idempotency_key(s.task, s.once, now) for s in new if s.once is not None]
        )

    @staticmethod
    async def _remember(tx: Transaction, keys: Sequence[IdempotencyKey]) -> list[IdempotencyKey]:
        await tasks.remember_answers(tx, keys)
        remembered = await tasks.idempotency_keys(tx, [(key.account_id, key.key) for key in keys])
        found = [remembered.get((key.account_id, key.key), key) for key in keys]
        # A key that has meanwhile come to its end may be another task's by now.
        return [
            one if one.task_id == key.task_id and one.answer_body is not None else key
            for one, key in zip(found, keys, strict=True)
        ]


@dataclass(slots=True, kw_only=True)
class _Intake:
    """Decides about the submits of one batch in their order: a task that is new counts for the submits after it."""

    tx: Transaction
    now: datetime
    first_account: AccountId | None
    over_budget: Mapping[AccountId, BudgetExceeded]
    keys: dict[tuple[AccountId, str], IdempotencyKey]
    followed: dict[tuple[TaskId, EndpointId], TaskId]  # what follow-ups have made already
    external_ids: dict[tuple[AccountId, str], TaskId]  # that are taken
    # Of each family, by the first task that its tasks descend from: how many follow-ups of this batch are in it.
    growth: Counter[TaskId] = field(default_factory=Counter)
    new: list[_Submit] = field(default_factory=list)

    async def decide(self, submit: _Submit) -> Stored | KlingelError:
        """The first that applies. A submit that has led to a task before leads there again, whatever has become of
        the account's budget since.
        """
        return (
            self._repeated(submit)
            or self._followed_up(submit.task)
            or self.over_budget.get(submit.task.account_id)
            or await self._too_many_descendants(submit.task)
            or await self._external_id_taken(submit.task)
            or self._admit(submit)
        )

    def _repeated(self, submit: _Submit) -> Stored | IdempotencyKeyReused | None:
        if submit.once is None:
            return None
        earlier = self.keys.get((submit.task.account_id, submit.once.key))
        if earlier is None or self.now - earlier.created_at >= KEY_LIFE:
            return None
        if earlier.body_hash == submit.once.body_hash:
            return Stored(earlier.task_id, earlier)
        return IdempotencyKeyReused(
            "This Idempotency-Key was used within the last 24 hours for another body. "
            "Send the same body again, or take a new key.",
            task_id=earlier.task_id,
        )

    def _followed_up(self, task: Task) -> Stored | None:
        key = _follow_up_key(task)
        return Stored(self.followed[key]) if key is not None and key in self.followed else None

    async def _too_many_descendants(self, task: Task) -> Conflict | None:
        if task.parent_id is None:
            return None
        first, number = await tasks.family(self.tx, task.parent_id, most=MOST_DESCENDANTS)
        self.growth[first] += 1
        if number + self.growth[first] <= MOST_DESCENDANTS:
            return None
        return Conflict(f"{MOST_DESCENDANTS} follow-ups descend from {first}: that is all.")

    async def _external_id_taken(self, task: Task) -> ExternalTaskIdTaken | None:
        holder = self.external_ids.get((task.account_id, task.external_task_id))
        if holder is None:
            return None
        # At Kling a create that was refused leaves its external id free, and programs that were written for Kling, which
        # call its paths, count on that.
        if task.path is not None and await tasks.let_go_of_external_id(self.tx, holder):
            return None
        return ExternalTaskIdTaken(
            f"A task with the external_task_id {task.external_task_id!r} exists already: {holder}.",
            task_id=holder,
        )

    def _admit(self, submit: _Submit) -> Stored:
        task = replace(
            submit.task, provider_external_id=_provider_external_id(submit.task, self.first_account)
        )
        self.external_ids[task.account_id, task.external_task_id] = task.id
        if (follow_up_key := _follow_up_key(task)) is not None:
            self.followed[follow_up_key] = task.id
        if submit.once is not None:
            self.keys[task.account_id, submit.once.key] = _idempotency_key(task, submit.once, self.now)
        self.new.append(replace(submit, task=task))
        return Stored(task.id, new=task, endpoints=submit.endpoints)


def _provider_external_id(task: Task, first_account: AccountId | None) -> str:
    """Under which external id a task goes to its provider, which Klingel's accounts all share.

    The first account is the operator's: its ids go there as they are. Another account's id could equal one of these,
    and to ask the provider for a task by that id would give the operator's: so other accounts' tasks go by Klingel's ids.
    """
    return task.external_task_id if task.account_id == first_account else task.id


def _follow_up_key(task: Task) -> tuple[TaskId, EndpointId] | None:
    """Of a follow-up, its parent and its rule, which make one task together; None for any other task."""
    return None if task.parent_id is None or task.rule_id is None else (task.parent_id, task.rule_id)


def _idempotency_key(task: Task, once: Once, now: datetime) -> IdempotencyKey:
    return IdempotencyKey(
        account_id=task.account_id, key=once.key, body_hash=once.body_hash, task_id=task.id, created_at=now
    )
