"""CometAPI's own paths below `/kling`: its clients change their base URL and key, and nothing else."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.api import envelopes
from service.api.auth import authenticate
from service.api.state import State
from service.api.submitting import LARGEST_SUBMIT, answered, read_once
from service.delivery import Sink
from service.domain import kling_shapes
from service.domain.endpoints import EndpointDraft
from service.domain.errors import Fault, InvalidRequest, NotFound, Unprocessable
from service.domain.events import EventType
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.ids import TaskId
from service.domain.inputs import BLANK, ValidatedInput, validate
from service.domain.lifecycle import Status
from service.domain.models import StrictModel
from service.domain.secrets import Vault
from service.domain.task_types import TASK_TYPES, Layout, TaskType
from service.domain.tasks import Task
from service.doors.bodies import read_body
from service.doors.routing import Handler, Plain
from service.doors.sharing import room_for_body
from service.observability.tracing import trace_of
from service.submission import Draft
from service.submits import ExternalTaskId, storable_faults
from service.subscriptions import read_endpoint
from storage import tasks

LARGEST_EXTRAS: Final = 64 * 1024  # bytes as JSON of the fields that only the provider knows
# What takes longer is answered as `submitted`, and told by the task: clients wait for a create only so long, and 5 s
# is httpx's own time-out.
LONGEST_WAIT_S: Final = 4.0
PAGE_NUMBERS: Final = range(1, 1001)
PAGE_SIZES: Final = range(1, 501)
USUAL_SIZE: Final = 30

# What Kling calls back for. That Klingel waits, or waits too long, is nothing that its clients would know.
CALLED_BACK: Final = (
    EventType.TASK_SUBMITTED,
    EventType.TASK_PROCESSING,
    EventType.TASK_SUCCEEDED,
    EventType.TASK_OUTPUTS_ADDED,
    EventType.TASK_FAILED,
    EventType.TASK_REJECTED,
)


class Addressed(StrictModel):
    """What a body says besides the input."""

    callback_url: str | None = None
    external_task_id: ExternalTaskId | None = None


@dataclass(frozen=True, slots=True)
class Sold:
    """A kind of task that is sold under a path."""

    task_type: TaskType
    input_model: type[BaseModel]
    told_by: str | None  # the field that says that it is meant, where others are sold there too


@dataclass(frozen=True, slots=True)
class Door:
    """One of CometAPI's paths, and what a task asked for there is to us."""

    path: str
    sold: tuple[Sold, ...]
    types: tuple[str, ...]  # their names

    def meant(self, body: Mapping[str, Any]) -> Sold:
        """The fields decide: blank ones say nothing."""
        return next(
            (one for one in self.sold if one.told_by is not None and body.get(one.told_by) not in BLANK),
            self.sold[-1],
        )

    async def create(self, request: Request[State]) -> Response:
        """As CometAPI answers: `submitted`, or the refusal in the provider's own code and words."""
        key = await authenticate(request)
        state = request.state
        with room_for_body(state["shares"].bodies, key.account_id) as grown:
            body = await read_body(request, limit=LARGEST_SUBMIT, grown=grown)
            once = await read_once(request, body, door=self.path)
            reading = partial(read_create, door=self)
            draft = await state["submits"].read(body, account_id=key.account_id, by=reading)
            trace = trace_of(request.headers)
            stored = await state["submitter"].submit(key.account_id, draft, once=once, trace=trace)
            del body, draft  # each as large as all its pictures
        return await answered(
            request,
            stored,
            once,
            patience=min(state["settings"].submit_wait, LONGEST_WAIT_S),
            answer=_answer,
            repeat=_repeated,
        )

    async def query(self, request: Request[State]) -> Response:
        """By Klingel's id, the caller's `external_task_id`, or the provider's id. The provider is not asked."""
        key = await authenticate(request)
        name = request.path_params["id"]
        task = await request.state["glances"].find(name, account_id=key.account_id, types=self.types)
        if task is None:
            raise NotFound(f"Task not found by id or external id: {name}")
        return envelopes.success(kling_shapes.queried(task.view()))

    async def page(self, request: Request[State]) -> Response:
        """Newest first. The provider is not asked."""
        key = await authenticate(request)
        number, size = _whole_numbers(
            request, {"pageNum": (1, PAGE_NUMBERS), "pageSize": (USUAL_SIZE, PAGE_SIZES)}
        )
        async with request.state["database"].searching(key.account_id) as reader:
            found = await tasks.numbered_page(
                reader, key.account_id, types=self.types, skip=(number - 1) * size, limit=size
            )
        return envelopes.success([kling_shapes.queried(task.view()) for task in found])


def _doors() -> dict[str, Door]:
    sold: defaultdict[str, list[Sold]] = defaultdict(list)
    for task_type in TASK_TYPES.values():
        for route in task_type.routes.get(Layout.COMETAPI, ()):
            if not route.given_by_caller:
                sold[route.path].append(
                    Sold(task_type, route.input_model or task_type.input_model, route.told_by)
                )
    # What a field tells is looked for before what is meant without it.
    in_turn = {
        path: tuple(sorted(there, key=lambda one: one.told_by is None)) for path, there in sold.items()
    }
    return {
        path: Door(path, there, tuple(one.task_type.name for one in there)) for path, there in in_turn.items()
    }


DOORS: Final[tuple[Door, ...]] = tuple(_doors().values())


def routes() -> list[Route]:
    made: list[tuple[str, Handler, str]] = [
        each
        for door in DOORS
        for each in (
            (f"{door.path}/{{id}}", door.query, "GET"),  # first looked at, for it is asked most
            (door.path, door.create, "POST"),
            (door.path, door.page, "GET"),
        )
    ]
    # Looked at once nothing else takes the path. An `external_task_id` may have slashes in it, and a server gives it decoded:
    # `a%2Fb` looks like two parts.
    made += [(f"{door.path}/{{id:something}}", door.query, "GET") for door in DOORS]
    return [Route(path, Plain(handler), methods=[method]) for path, handler, method in made]


def read_create(raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool, door: Door) -> Draft:
    """A body of Kling's: fields of ours checked, all others left to the provider.

    Its clients send optional fields blank when they mean nothing by them, so these are as good as absent. What is
    absent stays so: the provider has defaults of its own.

    Raises:
        InvalidRequest: not an object.
        Unprocessable: with every fault.
        PicturesInside: something is to be decoded, and that was not wanted.
    """
    if not isinstance(raw, dict):
        raise InvalidRequest("The body must be a JSON object.")
    sold = door.meant(raw)
    given, extras, newer = _parted(raw, sold)
    faults: list[Fault] = []
    addressed: Addressed | None = None
    accepted: ValidatedInput | None = None
    with collecting(faults):
        addressed = accept(Addressed, {name: given.pop(name, None) for name in Addressed.model_fields})
    with collecting(faults):
        accepted = validate(
            sold.input_model, given, pointer="#", decoding=decoding, passing_on=True, by_rules=not newer
        )
    left_to_provider = {**extras, **newer}
    unknown = [left_to_provider, *(accepted.unknown if accepted is not None else ())]
    faults += [
        Fault(fault.detail, "#")
        for fault in storable_faults("What is not known here", *unknown, largest=LARGEST_EXTRAS)
    ]
    bound, endpoint_faults = _called_back(raw.get("callback_url"), sinks, vault)
    faults += endpoint_faults
    if faults or addressed is None or accepted is None:
        raise Unprocessable("The task has faults; nothing was sent.", faults=faults)
    return Draft(
        type=sold.task_type,
        input=ValidatedInput(_without_defaults(accepted.fields, given, sold.input_model), accepted.files),
        extras=left_to_provider,
        path=door.path,
        external_task_id=addressed.external_task_id,
        endpoints=bound,
    )


def _parted(
    raw: Mapping[str, Any], sold: Sold
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str | int]]:
    """What is checked here; and what is left to the provider: fields that are not known here, and words to choose from
    for a model that is not, to which our rules for several fields do not apply either.
    """
    ours = {*sold.input_model.model_fields, *Addressed.model_fields}
    given = {name: value for name, value in raw.items() if name in ours and value not in BLANK}
    extras = {name: value for name, value in raw.items() if name not in ours}
    newer: dict[str, str | int] = {}
    model = given.get("model_name")
    if isinstance(model, str) and sold.task_type.models and model not in sold.task_type.models:
        newer = {
            name: given.pop(name)
            for name, words in choices(sold.input_model).items()
            if _is_word(given.get(name), words) and given[name] not in words
        }
    return given, extras, newer


def _is_word(value: object, words: Iterable[str | int]) -> bool:
    """Of the same kind as one of them: 20 beside 5 and 10, and not beside "std" and "pro"."""
    return type(value) in {type(word) for word in words}


@cache
def choices(model: type[BaseModel]) -> Mapping[str, frozenset[str | int]]:
    """The words, some also as numbers, that each of those fields may have that have a choice of them."""
    return {
        name: frozenset(words)
        for name, schema in model.model_json_schema()["properties"].items()
        if (words := _enumerated(schema))
    }


def _enumerated(schema: Mapping[str, Any]) -> list[Any]:
    return [
        *schema.get("enum", ()),
        *(word for each in schema.get("anyOf", ()) for word in _enumerated(each)),
    ]


def _without_defaults(
    fields: Mapping[str, Any], given: Mapping[str, Any], model: type[BaseModel]
) -> Mapping[str, Any]:
    spelled = {
        model.model_fields[name].serialization_alias or name for name in given if name in model.model_fields
    }
    return {name: value for name, value in fields.items() if name in spelled}


def _called_back(
    url: object, sinks: Mapping[str, Sink], vault: Vault
) -> tuple[list[EndpointDraft], list[Fault]]:
    if not isinstance(url, str) or not url:
        return [], []
    wanted = {"kind": "webhook", "config": {"url": url, "format": "kling"}, "types": list(CALLED_BACK)}
    try:
        draft, _ = read_endpoint(wanted, sinks=sinks, vault=vault)
    except InvalidFields as error:
        return [], [Fault(fault.detail, "#/callback_url") for fault in error.faults]
    return [draft], []


async def _answer(task: Task) -> Response:
    if task.status is Status.REJECTED and task.error is not None:
        return envelopes.providers_refusal(task.error)
    return envelopes.success(kling_shapes.created(task.view()))


def _repeated(task_id: TaskId, status: int, body: str) -> Response:
    return Response(body, status_code=status, media_type=JSONResponse.media_type)


def _whole_numbers(request: Request[State], wanted: Mapping[str, tuple[int, range]]) -> list[int]:
    """
    Raises:
        Unprocessable: with every fault.
    """
    numbers: list[int] = []
    faults: list[Fault] = []
    for name, (usual, allowed) in wanted.items():
        texts = request.query_params.getlist(name) or [str(usual)]
        text = texts[-1]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
        numbers.append(number)
        if len(texts) > 1:
            faults.append(Fault("It is given more than once.", f"#/{name}"))
        elif number not in allowed:
            detail = f"It must be a whole number from {allowed.start} to {allowed.stop - 1}."
            faults.append(Fault(detail, f"#/{name}"))
    if faults:
        raise Unprocessable("The query parameters have faults.", faults=faults)
    return numbers
