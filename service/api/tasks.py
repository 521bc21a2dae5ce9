"""`/v1/tasks`: submit, list, show, refresh."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from service.api.answers import Json
from service.api.auth import authenticate
from service.api.pages import Query
from service.api.problems import problem_of
from service.api.state import State
from service.api.submitting import LARGEST_SUBMIT, WAITING, answered, read_once
from service.domain import errors
from service.domain.endpoints import Endpoint
from service.domain.errors import NotFound, ProviderUnavailable, TaskNotRefreshable
from service.domain.ids import AccountId, TaskId, id_pattern
from service.domain.lifecycle import Status
from service.domain.tasks import Child, Refusal, Task, Transition
from service.doors.bodies import read_body
from service.doors.sharing import room_for_body
from service.observability.tracing import trace_of
from service.refreshing import refresh as refresh_task
from storage import endpoints, tasks
from storage.database import Reader
from storage.tasks import TaskFilter

MOST_CHILDREN: Final = 100  # shown with a task

_PROBLEMS: Final = {
    Refusal.REQUEST: errors.ProviderRefused,
    Refusal.EXISTS: errors.ProviderRefused,
    Refusal.PAYMENT: errors.PaymentRequired,
    Refusal.ACCOUNT: errors.ProviderMisconfigured,
}


async def submit(request: Request[State]) -> Response:
    """201 once the provider has it, 202 while that is open, a problem when it refuses."""
    key = await authenticate(request)
    state = request.state
    with room_for_body(state["shares"].bodies, key.account_id) as grown:
        body = await read_body(request, limit=LARGEST_SUBMIT, grown=grown)
        once = await read_once(request, body)
        draft = await state["submits"].read(body, account_id=key.account_id)
        trace = trace_of(request.headers)
        stored = await state["submitter"].submit(key.account_id, draft, once=once, trace=trace)
        del body, draft  # each as large as all its pictures, and the provider's answer may be long in coming

    at_once = _responds_async(request)

    async def answer(task: Task) -> Response:
        if task is stored.new:  # on disk a moment ago: a look would find nothing more
            return _answer(request, task, _Besides(), stored.endpoints, at_once=at_once)
        async with state["database"].reading() as reader:
            besides = await _besides(reader, task)
            bound = await endpoints.of(reader, [], [task.id])
        return _answer(request, task, besides, bound, at_once=at_once)

    return await answered(
        request,
        stored,
        once,
        patience=0.0 if at_once else state["settings"].submit_wait,
        answer=answer,
        repeat=_repeated,
    )


def _responds_async(request: Request[State]) -> bool:
    return any(
        part.strip().lower() == "respond-async"
        for value in request.headers.getlist("prefer")
        for part in value.split(",")
    )


def _answer(
    request: Request[State], task: Task, besides: "_Besides", bound: Sequence[Endpoint], *, at_once: bool
) -> Response:
    """
    Args:
        bound: the task's own endpoints.
        at_once: it is answered 202 however quick the provider may have been (RFC 7240, 4.1).
    """
    headers = {"location": f"/v1/tasks/{task.id}"}
    if at_once:
        headers["preference-applied"] = "respond-async"
    if task.status is Status.REJECTED and task.error is not None and not at_once:
        kind = errors.ProviderRefused if task.error.refusal is None else _PROBLEMS[task.error.refusal]
        refusal = problem_of(
            kind(
                f"The provider refused the task: {task.error.message}",
                provider_code=task.error.code,
                task=task.view(),
            )
        )
        refusal.headers.update(headers)
        return refusal
    view = _whole(request, task, besides)
    vault = request.state["vault"]
    if bound:
        view["endpoints"] = [
            {"id": endpoint.id, "kind": endpoint.kind, "secret": vault.open(endpoint.secrets[0].sealed)}
            for endpoint in bound
        ]
    return Json(view, status_code=202 if at_once or task.status in WAITING else 201, headers=headers)


def _repeated(task_id: TaskId, status: int, body: str) -> Response:
    media_type = "application/json" if status < 400 else "application/problem+json"
    headers = {"location": f"/v1/tasks/{task_id}"}
    return Response(body, status_code=status, media_type=media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class _Besides:
    """What only a look at one task shows."""

    transitions: Sequence[Transition] = ()
    children: Sequence[Child] = ()


async def _besides(reader: Reader, task: Task) -> _Besides:
    return _Besides(
        await tasks.transitions(reader, task.id), await tasks.children(reader, task, limit=MOST_CHILDREN)
    )


def _whole(request: Request[State], task: Task, besides: _Besides) -> dict[str, Any]:
    """The task as everyone sees it, and more."""
    view = request.state["links"].shown(task).view()
    if task.status in WAITING and task.provider not in request.state["providers"]:
        view["waits_for"] = f"the provider account {task.provider!r}, which Klingel does not have now"
    return view | {
        "input": {**task.extras, **task.input},
        "transitions": [transition.view() for transition in besides.transitions],
        "children": [child.view() for child in besides.children],
    }


async def index(request: Request[State]) -> Response:
    key = await authenticate(request)
    query = Query(
        request,
        known=("status", "type", "external_task_id", "created_after", "created_before"),
        families=("metadata.",),
    )
    page = query.page(id_pattern("task"))
    wanted = TaskFilter(
        status=query.choice("status", list(Status)),
        type=query.word("type"),
        external_task_id=query.text("external_task_id"),
        created_after=query.moment("created_after"),
        created_before=query.moment("created_before"),
        metadata=query.family("metadata."),
    )
    query.check()
    async with request.state["database"].searching(key.account_id) as reader:
        found = await tasks.page(reader, key.account_id, wanted, before_id=page.cursor, limit=page.limit + 1)
    links = request.state["links"]
    return page.respond(found, views=[links.shown(task).view() for task in found])


async def show(request: Request[State]) -> Response:
    key = await authenticate(request)
    async with request.state["database"].reading() as reader:
        task = await _found(reader, request, key.account_id)
        return Json(_whole(request, task, await _besides(reader, task)))


async def callbacks(request: Request[State]) -> Response:
    """The evidence, in the order in which it came: callbacks, and answers to creates that say more than `submitted`."""
    key = await authenticate(request)
    query = Query(request, known=())
    page = query.page(id_pattern("cbk"))
    query.check()
    async with request.state["database"].reading() as reader:
        task = await _found(reader, request, key.account_id)
        found = await tasks.callbacks(reader, task.id, after_id=page.cursor, limit=page.limit + 1)
    return page.respond(found, views=[callback.view() for callback in found])


async def refresh(request: Request[State]) -> Response:
    """The one status query that exists, on a person's order: for a callback that was lost for good."""
    key = await authenticate(request)
    state = request.state
    async with state["database"].reading() as reader:
        task = await _found(reader, request, key.account_id)
    if task.status.is_terminal and not task.lacks_outputs:
        raise TaskNotRefreshable(f"The task is {task.status} already; there is nothing to ask for.")
    if task.status is Status.QUEUED:
        raise TaskNotRefreshable("The task is queued: the provider does not have it yet.")
    provider = state["providers"].get(task.provider)
    if provider is None:
        raise ProviderUnavailable(f"This Klingel has no provider {task.provider!r} now.")
    verdict = await refresh_task(
        task, provider, batcher=state["batcher"], publisher=state["publisher"], clock=state["clock"]
    )
    async with state["database"].reading() as reader:
        task = await _found(reader, request, key.account_id)
        return Json(_whole(request, task, await _besides(reader, task)) | {"refresh": verdict})


async def _found(reader: Reader, request: Request[State], account_id: AccountId) -> Task:
    """
    Raises:
        NotFound: none, or another account's.
    """
    task_id = request.path_params["id"]
    task = await tasks.get(reader, task_id, account_id=account_id)
    if task is None:
        raise NotFound(f"There is no task {task_id}.")
    return task
