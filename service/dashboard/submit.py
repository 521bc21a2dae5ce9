"""A form for each type of task, made of its input model."""

import secrets
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from service.dashboard.commands import curl
from service.dashboard.doors import Visit, back_to, text_of
from service.dashboard.forms import Entered, Field, Widget, entered, fields_of, sorted_faults, values_of
from service.dashboard.inside import ask
from service.dashboard.state import State
from service.domain.errors import Fault, IdempotencyKeyReused, NotFound
from service.domain.task_types import TASK_TYPES, TaskType

SUBMITTED_BEFORE: Final = "What this form said before was submitted, as {}. To make another task of what it says now, submit it again."
# Beside the input; as in the API's own description of a submit.
MORE: Final = (
    Field(
        name="more.external_task_id",
        pointer="#/external_task_id",
        label="External id",
        widget=Widget.TEXT,
        longest=64,
        hint="Your own name for it, unique in your account.",
    ),
    Field(
        name="more.metadata",
        pointer="#/metadata",
        label="Metadata",
        widget=Widget.JSON,
        hint='A JSON object that comes back in every event, e.g. {"customer": "acme"}.',
    ),
    Field(
        name="more.callback_url",
        pointer="#/callback_url",
        label="Callback URL",
        widget=Widget.TEXT,
        hint="Gets this task's events, signed. To hear of all tasks, make an endpoint.",
    ),
    Field(
        name="more.deadline_s",
        pointer="#/deadline_s",
        label="Deadline (s)",
        widget=Widget.NUMBER,
        least=1,
        hint="Seconds after which it counts as overdue.",
    ),
    Field(
        name="more.follow_ups",
        pointer="#/follow_ups",
        label="Follow-ups",
        widget=Widget.JSON,
        hint='A JSON list, e.g. [{"on": "task.succeeded", "submit": {…}}].',
    ),
)


@cache
def _inputs(type: str) -> Sequence[Field]:
    return fields_of(TASK_TYPES[type].input_model, prefix="input", pointer="#/input")


async def choose(request: Request[State], visit: Visit) -> Response:
    """The first type; the others are one click away."""
    return _form(request, visit, next(iter(TASK_TYPES.values())))


async def show(request: Request[State], visit: Visit) -> Response:
    return _form(request, visit, _type(request))


def _type(request: Request[State]) -> TaskType:
    """
    Raises:
        NotFound: no such type.
    """
    name = request.path_params["type"]
    if name not in TASK_TYPES:
        raise NotFound(f"There is no type {name}.")
    return TASK_TYPES[name]


async def submit(request: Request[State], visit: Visit, form: FormData) -> Response:
    """As the API does it, without waiting for the provider: the task's page shows what becomes of it."""
    type = _type(request)
    given = await entered(_inputs(type.name), form)
    more = await entered(MORE, form)
    body: dict[str, Any] = {"type": type.name, "input": given.body, **more.body}
    faults = [*given.faults, *more.faults]
    command = _curl(request, body, given)
    # It stays the same submit until it is stored: whether it was is not known where the database was gone meanwhile.
    once = text_of(form, "once")
    once = once if once.isalnum() else _once()
    # Only what says so is paid for: the name of the button that was pressed may have been lost on the way.
    if text_of(form, "action") != "submit":
        return _form(request, visit, type, form=form, faults=faults, command=command, once=once)
    status, is_uncertain = 422, False
    if not faults:
        headers = {"prefer": "respond-async", "idempotency-key": once}
        answer = await ask(request, visit.key, "POST", "/v1/tasks", body=body, headers=headers)
        if answer.is_good:
            return back_to(f"/tasks/{answer.content['id']}", done="submitted")
        status = answer.status
        faults = [*answer.faults] or [Fault(answer.detail, "#")]
        is_uncertain = answer.is_uncertain
        if answer.tells(IdempotencyKeyReused):
            faults = [Fault(SUBMITTED_BEFORE.format(answer.content["task_id"]), "#")]
            once = _once()
    return _form(
        request,
        visit,
        type,
        form=form,
        faults=faults,
        command=command,
        status=status,
        is_uncertain=is_uncertain,
        once=once,
    )


def _once() -> str:
    """An idempotency key."""
    return secrets.token_hex(16)


def _curl(request: Request[State], body: dict[str, Any], given: Entered) -> str:
    return curl("POST", f"{request.state['settings'].reachable_url}/v1/tasks", body, given.files)


def _form(
    request: Request[State],
    visit: Visit,
    type: TaskType,
    *,
    form: FormData | None = None,
    faults: Sequence[Fault] = (),
    command: str | None = None,
    status: int = 200,
    is_uncertain: bool = False,
    once: str | None = None,
) -> Response:
    fields = _inputs(type.name)
    everything = [*fields, *MORE]
    return visit.render(
        request,
        "submit.html",
        status=status,
        type=type,
        types=list(TASK_TYPES.values()),
        fields=fields,
        more=MORE,
        values={} if form is None else values_of(everything, form),
        faults=sorted_faults(everything, faults),
        command=command,
        more_is_open=form is not None and any(text_of(form, each.name) for each in MORE),
        once=once or _once(),
        is_uncertain=is_uncertain,
        had_files=form is not None
        and any(not isinstance(value, str) and value.filename for value in form.values()),
    )
