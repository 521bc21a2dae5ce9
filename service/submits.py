"""What people ask of a task, read whole, every fault told at once."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from math import isfinite
from typing import Annotated, Any, Final, Protocol

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from service.bodies import SMALL_BODY, parse_json, parse_large_json
from service.delivery import Sink
from service.domain.endpoints import EndpointDraft
from service.domain.errors import Fault, Unprocessable
from service.domain.faults import InvalidFields, accept
from service.domain.inputs import PicturesInside, ValidatedInput, validate
from service.domain.secrets import Vault
from service.domain.task_types import TASK_TYPES
from service.submission import Draft
from service.subscriptions import read_endpoint

LARGEST_METADATA: Final = 16 * 1024
DEEPEST_METADATA: Final = 32  # levels; an event holds it deeper still, and parsers end at 200
LONGEST_DEADLINE_S: Final = 30 * 24 * 3600
READERS: Final = (
    2  # bodies with pictures, or large ones, read at the same time: each may take 250 MB and seconds
)


# Visible ASCII, but not dots alone: it becomes a part of paths, where these lead elsewhere.
ExternalTaskId = Annotated[
    str, Field(max_length=64, pattern=r"^[\x21-\x7e]*[\x21-\x2d\x2f-\x7e][\x21-\x7e]*$")
]


class SubmitBody(BaseModel):
    """`input` is for the task type to read, `endpoints` for their kinds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    type: str
    input: dict[str, Any]
    external_task_id: ExternalTaskId | None = None
    metadata: dict[str, Any] = {}
    callback_url: str | None = None
    endpoints: Annotated[list[Any], Field(max_length=10)] = []
    deadline_s: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE_S, allow_inf_nan=False)] | None = None


class Reading(Protocol):
    """Makes a draft of a body's JSON, as `read_submit` does."""

    def __call__(
        self, raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool
    ) -> Draft: ...


class SubmitReader:
    """Reads most submits at once. Large ones, and those with pictures to be decoded, take turns in threads of their
    own, so that nobody else waits for them.
    """

    def __init__(self, *, sinks: Mapping[str, Sink], vault: Vault) -> None:
        self._sinks = sinks
        self._vault = vault
        self._turns = CapacityLimiter(READERS)

    async def read(self, body: bytes, *, by: Reading | None = None) -> Draft:
        """
        Args:
            by: what makes a draft of the JSON, where that is not `/v1`'s.

        Raises:
            InvalidRequest: not JSON.
            TooLarge: too much of it is not pictures.
            Unprocessable: with every fault.
        """
        reading = by or read_submit
        if len(body) <= SMALL_BODY:
            raw = parse_json(body)
            try:
                return reading(raw, sinks=self._sinks, vault=self._vault, decoding=False)
            except PicturesInside:
                pass  # few bytes, but they may be many pixels
        return await run_sync(self._read_slowly, reading, body, limiter=self._turns)

    def _read_slowly(self, reading: Reading, body: bytes) -> Draft:
        return reading(parse_large_json(body), sinks=self._sinks, vault=self._vault, decoding=True)


def read_submit(raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool = True) -> Draft:
    """Decodes pictures, which may take seconds: on the event loop only with `decoding=False`.

    Raises:
        Unprocessable: with every fault.
        PicturesInside: something is to be decoded, and that was not wanted.
    """
    faults: list[Fault] = []
    body: SubmitBody | None = None
    try:
        body = accept(SubmitBody, raw)
    except InvalidFields as error:
        faults += error.faults
    fields = raw if isinstance(raw, dict) else {}
    name = fields.get("type")
    task_type = TASK_TYPES.get(name) if isinstance(name, str) else None
    accepted: ValidatedInput | None = None
    if task_type is not None and isinstance(fields.get("input"), dict):
        try:
            accepted = validate(task_type.input_model, fields["input"], decoding=decoding)
        except InvalidFields as error:
            faults += error.faults
    elif task_type is None and isinstance(name, str):
        faults.append(Fault(f"There is no type {name!r}. There are: {', '.join(TASK_TYPES)}.", "#/type"))
    faults += storable_faults("metadata", fields.get("metadata"), largest=LARGEST_METADATA)
    drafts, endpoint_faults = _read_endpoints(fields, sinks, vault)
    faults += endpoint_faults
    if faults or body is None or task_type is None or accepted is None:
        raise Unprocessable("The task has faults; nothing was sent.", faults=faults)
    return Draft(
        type=task_type,
        input=accepted,
        external_task_id=body.external_task_id,
        metadata=body.metadata,
        deadline=None if body.deadline_s is None else timedelta(seconds=body.deadline_s),
        endpoints=drafts,
    )


def storable_faults(name: str, value: object, *, largest: int) -> list[Fault]:
    """What would keep somebody's object from being stored, and told again in every answer and event.

    Args:
        name: the field that it is.
        largest: bytes as JSON.
    """
    if not isinstance(value, dict):
        return []
    faults: list[str] = []
    if len(to_json(value)) > largest:
        faults.append(f"{name} has at most {largest} bytes as JSON.")
    level: list[Any] = [value]
    for _ in range(DEEPEST_METADATA):
        level = [member for container in level for member in _members(container)]
        if any(isinstance(member, float) and not isfinite(member) for member in level):
            faults.append(f"{name} holds a number that is too large for JSON.")
            break
    if any(isinstance(member, (dict, list)) for member in level):
        faults.append(f"{name} has at most {DEEPEST_METADATA} levels.")
    return [Fault(detail, f"#/{name}") for detail in faults]


def _members(value: object) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _read_endpoints(
    fields: Mapping[str, Any], sinks: Mapping[str, Sink], vault: Vault
) -> tuple[list[EndpointDraft], list[Fault]]:
    drafts: list[EndpointDraft] = []
    faults: list[Fault] = []
    listed = fields.get("endpoints")
    for index, raw in enumerate(listed[:10] if isinstance(listed, list) else []):
        try:
            draft, _ = read_endpoint(raw, sinks=sinks, vault=vault, pointer=f"#/endpoints/{index}")
            drafts.append(draft)
        except InvalidFields as error:
            faults += error.faults
    url = fields.get("callback_url")
    if isinstance(url, str):
        try:
            draft, _ = read_endpoint({"kind": "webhook", "config": {"url": url}}, sinks=sinks, vault=vault)
            drafts.append(draft)
        except InvalidFields as error:
            faults += [Fault(fault.detail, "#/callback_url") for fault in error.faults]
    return drafts, faults
