"""A provider's callback becomes transition, event and deliveries."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope

from service.batching import Batcher
from service.domain.errors import TooLarge
from service.domain.ids import CallbackId, TaskId, new_callback_id
from service.domain.lifecycle import Verdict
from service.domain.secrets import CallbackTokens
from service.domain.tasks import Report, Task, Unreadable
from service.domain.times import Clock
from service.domain.traces import Trace
from service.domain.transitions import Change, reported
from service.domain.values import Struct
from service.doors.bodies import read_message
from service.doors.guesses import TOKENS, Guesses
from service.observability.logs import NOTES
from service.observability.metrics import Metrics
from service.observability.tracing import UNTRACED, SpanKind, Tracing, trace_of
from service.probing import Probes
from service.publication import Publisher
from storage import tasks
from storage.database import Transaction
from storage.tasks import StoredCallback

LARGEST_CALLBACK: Final = 1024 * 1024
OK: Final = PlainTextResponse("ok\n")
SET_ASIDE: Final = frozenset({Verdict.CONFLICTING, Verdict.MISMATCHED, Verdict.FORGED})

log = structlog.get_logger()


class Received(Struct, frozen=True, kw_only=True):
    """A callback whose URL is ours: what its body says, or why it says nothing."""

    id: CallbackId
    task_id: TaskId
    provider: str
    at: datetime
    body: bytes
    report: Report | None
    verdict: Verdict | None = None  # already given: unreadable, forged
    reason: str | None = None


class Taken(Struct, frozen=True):
    """What became of a callback, and the trace of its task."""

    verdict: Verdict
    trace: Trace | None


class CallbackReader(Protocol):
    """Reads the callbacks of one provider."""

    @property
    def name(self) -> str: ...

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> bool:
        """Whether a callback's signature is this provider's; True where it does not sign. Headers' names in lower case."""

    def parse(self, body: bytes) -> Report:
        """
        Raises:
            Unreadable: not a callback of this provider.
        """


class CallbackReceiver:
    """`POST /callbacks/{provider}/{task_id}/{token}`: 200 once it is on disk, 404 for all that is not ours."""

    def __init__(
        self,
        *,
        reader_of: Callable[[str], CallbackReader],
        tokens: CallbackTokens,
        batcher: Batcher,
        publisher: Publisher,
        metrics: Metrics,
        probes: Probes,
        clock: Clock,
        tracing: Tracing = UNTRACED,
    ) -> None:
        """
        Args:
            reader_of: by a provider's name, also of one that is not configured any more: its tasks may still run.
        """
        self._tracing = tracing
        self._reader_of = reader_of
        self._tokens = tokens
        self._batcher = batcher
        self._publisher = publisher
        self._metrics = metrics
        self._probes = probes
        self._clock = clock
        self._guesses = Guesses(burst=TOKENS)

    async def receive(self, scope: Scope, receive: Receive) -> Response:
        """Takes plain ASGI: Starlette's `Request` would cost as much time as reading the callback does."""
        path = scope["path_params"]
        if not self._tokens.verify(path["token"], path["provider"], path["task_id"]):
            return self.turn_away(HTTPConnection(scope))
        notes = scope.setdefault(NOTES, {})
        notes["task_id"] = path["task_id"]
        began_ns = time.time_ns()
        headers = Headers(scope=scope)
        try:
            body = await read_message(headers, receive, limit=LARGEST_CALLBACK)
        except TooLarge:
            self._metrics.callback_received("too_large")
            log.warning("callback.too_large", task_id=path["task_id"])
            return PlainTextResponse("A callback has at most 1 MiB.\n", status_code=413)
        if self._probes.arrived(path["task_id"], body):
            return OK
        received = self._read(self._reader_of(path["provider"]), path["task_id"], headers, body)
        taken = await self._batcher.run(self.apply, received)
        if taken is None:
            if await self._probes.passed_on(received.task_id, body):
                return OK
            self._metrics.callback_received("not_found")
            return not_here()
        verdict = taken.verdict
        if self._tracing is not UNTRACED:
            self._tell(received, taken, began_ns, trace_of(headers))
        self._metrics.callback_received(verdict)
        notes["verdict"] = str(verdict)
        match verdict:
            case Verdict.UNREADABLE:
                return PlainTextResponse(f"This is not a callback: {received.reason}\n", status_code=400)
            case Verdict.FORGED:
                return not_here()
            case _:
                return OK

    def _tell(self, received: Received, taken: Taken, began_ns: int, given: Trace | None) -> None:
        """Records the span of a callback: after the commit, for its trace is that of the stored task.

        Args:
            given: the provider's own trace, which the span links to.
        """
        with self._tracing.span(
            "callback",
            SpanKind.SERVER,
            parent=taken.trace,
            attributes={
                "klingel.task.id": received.task_id,
                "klingel.callback.id": received.id,
                "klingel.provider": received.provider,
                "klingel.callback.verdict": taken.verdict,
            },
            began_ns=began_ns,
            link=given,
        ) as span:
            if taken.verdict in SET_ASIDE:
                span.fail(taken.verdict)

    def turn_away(self, request: HTTPConnection[Any]) -> Response:
        """Answers a URL that is not ours. Wrong URLs alone are limited: a genuine one works from any address at any time."""
        self._metrics.callback_received("not_found")
        if wait := math.ceil(self._guesses.wait(request)):
            return PlainTextResponse(
                "Too many wrong callback URLs\n", status_code=429, headers={"retry-after": str(wait)}
            )
        self._guesses.failed(request)
        return not_here()

    def _read(self, reader: CallbackReader, task_id: str, headers: Headers, body: bytes) -> Received:
        now = self._clock()
        report, verdict, reason = None, None, None
        if not reader.verify(headers, body, now=now):
            verdict, reason = Verdict.FORGED, "the provider's signature is missing or does not verify"
        else:
            try:
                report = reader.parse(body)
            except Unreadable as error:
                verdict, reason = Verdict.UNREADABLE, str(error)
        return Received(
            id=new_callback_id(),
            task_id=TaskId(task_id),
            provider=reader.name,
            at=now,
            body=body,
            report=report,
            verdict=verdict,
            reason=reason,
        )

    async def apply(self, tx: Transaction, batch: Sequence[Received]) -> list[Taken | None]:
        """One result for each callback; None where there is no such task. Several about one task count in their order."""
        known, affected = await self._publisher.affected(tx, {received.task_id for received in batch})
        results: list[Taken | None] = []
        evidence: list[StoredCallback] = []
        changes: list[Change] = []
        for received in batch:
            task = known.get(received.task_id)
            if task is None:
                results.append(None)
                continue
            verdict, reason = received.verdict, received.reason
            if received.report is not None:
                change = reported(task, received.report, received.at)
                verdict, reason = change.verdict, change.reason
                if change.after is not change.before:
                    known[task.id] = change.after
                    changes.append(change)
            assert verdict is not None
            if verdict in SET_ASIDE:
                log.warning("callback.set_aside", task_id=task.id, verdict=verdict, reason=reason)
            results.append(Taken(verdict, task.trace))
            evidence.append(_evidence(received, task, verdict, reason))
        await tasks.insert_callbacks(tx, evidence)
        await self._publisher.record(tx, changes, known=affected)
        return results


def _evidence(received: Received, task: Task, verdict: Verdict, reason: str | None) -> StoredCallback:
    return StoredCallback(
        id=received.id,
        task_id=task.id,
        provider=received.provider,
        received_at=received.at,
        verdict=verdict,
        reason=reason,
        body=received.body,
    )


def not_here() -> Response:
    """The same answer to everything unknown or forged."""
    return PlainTextResponse("Not found\n", status_code=404)
