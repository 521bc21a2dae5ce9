"""The drop-in API's part of the description: Kling's shapes, and an operation for each of its paths."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api import dropin
from service.api.description.operations import IDEMPOTENT, JSON, Answer, Operation, Tag, shows
from service.api.description.schemas import _schema as model_schema
from service.api.dropin import (
    DOORS,
    LARGEST_EXTRAS,
    PAGE_NUMBERS,
    PAGE_SIZES,
    USUAL_SIZE,
    Addressed,
    Door,
    Sold,
)
from service.domain.kling_shapes import STATUS
from service.submits import DEEPEST_METADATA

Milliseconds = Annotated[int, Field(description="since 1970")]


class KlingTaskInfo(TypedDict):
    external_task_id: NotRequired[Annotated[str, Field(description="the caller's own, where it gave one")]]


class KlingImage(TypedDict):
    index: int
    url: str
    watermark_url: NotRequired[str]


class KlingVideo(TypedDict):
    id: str
    url: str
    duration: Annotated[str, Field(description="seconds")]
    watermark_url: NotRequired[str]


class KlingAudio(TypedDict):
    id: str
    url_mp3: str
    url_wav: str
    duration_mp3: Annotated[str, Field(description="seconds")]
    duration_wav: Annotated[str, Field(description="seconds")]


class KlingResult(TypedDict):
    """Nothing before the task has succeeded. The URLs are the provider's."""

    images: NotRequired[list[KlingImage]]
    result_type: NotRequired[Literal["series"]]
    series_images: NotRequired[list[KlingImage]]
    videos: NotRequired[list[KlingVideo]]
    audios: NotRequired[list[KlingAudio]]


class KlingCreatedTask(TypedDict):
    task_id: Annotated[str, Field(description="Klingel's own")]
    task_status: Literal["submitted"]
    task_info: KlingTaskInfo
    created_at: Milliseconds
    updated_at: Milliseconds


class KlingTask(TypedDict):
    task_id: Annotated[str, Field(description="Klingel's own")]
    task_status: Literal["submitted", "processing", "succeed", "failed"]
    task_status_msg: Annotated[str, Field(description="why it failed")]
    task_info: KlingTaskInfo
    task_result: KlingResult
    created_at: Milliseconds
    updated_at: Milliseconds


class _Envelope(TypedDict):
    message: str
    request_id: str


class KlingCreated(_Envelope):
    code: Literal[0]
    data: KlingCreatedTask


class KlingQueried(_Envelope):
    code: Literal[0]
    data: KlingTask


class KlingListed(_Envelope):
    code: Literal[0]
    data: list[KlingTask]


class KlingRefusal(_Envelope):
    """Kling's error: also what Klingel itself turns down."""

    code: int


BLANK: Final = {"enum": ["", None]}
NAME: Final = {"id": {"type": "string"}}
BY_ANYBODY: Final = (1001, 1002, 1302, 5001)  # no key, a wrong one, too many wrong ones, no storage
WAITED_FOR: Final = (1302, 1303, 5000)  # of the provider's; Klingel brings the task in all the same


def _refusals(*codes: int, more: Mapping[int, Iterable[int]] | None = None) -> dict[int, Answer]:
    """By status; `more` are codes under a status that is not their own."""
    by_status: defaultdict[int, list[int]] = defaultdict(list)
    for code in sorted({*codes, *BY_ANYBODY}):
        by_status[STATUS[code]].append(code)
    for status, others in (more or {}).items():
        by_status[status] += others
    return {status: _refusal(status, by_status[status]) for status in by_status}


def _refusal(status: int, codes: list[int]) -> Answer:
    narrowed = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": f"#/components/schemas/{KlingRefusal.__name__}"}, narrowed]}
    headers = {401: {"WWW-Authenticate": "`Bearer`"}, 503: {"Retry-After": "seconds"}}
    return Answer(f"{HTTPStatus(status).phrase}.", {JSON: schema}, headers.get(status, {}))


def _query(name: str, allowed: range, usual: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": allowed.start, "maximum": allowed.stop - 1, "default": usual}
    return {"name": name, "in": "query", "schema": schema}


def _id(verb: str, door: Door) -> str:
    """`createAtMultiImage2image`."""
    parts = _name(door).replace("/", "-").split("-")
    return f"{verb}At{''.join(part.capitalize() for part in parts)}"


def _name(door: Door) -> str:
    """The path without what all of them, or all of a kind, begin with: `/kling/v1/videos/`."""
    return door.path.split("/", 4)[-1]


def body_name(door: Door) -> str:
    return f"KlingBody.{_name(door).replace('/', '.')}"


def _operations(door: Door) -> Iterator[tuple[str, Operation]]:
    """By method and path, as the routes are."""
    refused_by_provider = [code for code in STATUS if code not in WAITED_FOR]
    yield (
        f"POST {door.path}",
        Operation(
            id=_id("create", door),
            summary="Submit a task as at CometAPI",
            description=dropin.Door.create.__doc__ or "",
            tag=Tag.DROP_IN,
            parameters=IDEMPOTENT,
            body=body_name(door),
            answers={
                200: shows(KlingCreated, "It is stored, and goes to the provider."),
                **_refusals(*refused_by_provider, more={413: [1200]}),
            },
        ),
    )
    yield (
        f"GET {door.path}",
        Operation(
            id=_id("list", door),
            summary="List tasks as at CometAPI",
            description=dropin.Door.page.__doc__ or "",
            tag=Tag.DROP_IN,
            parameters=(_query("pageNum", PAGE_NUMBERS, 1), _query("pageSize", PAGE_SIZES, USUAL_SIZE)),
            answers={200: shows(KlingListed), **_refusals(1201)},
        ),
    )
    yield (
        f"GET {door.path}/{{id}}",
        Operation(
            id=_id("query", door),
            summary="Query a task as at CometAPI",
            description=dropin.Door.query.__doc__ or "",
            tag=Tag.DROP_IN,
            path=NAME,
            # 1202: a slash in a parameter leads to no route.
            answers={200: shows(KlingQueried), **_refusals(1202, 1203)},
        ),
    )


OPERATIONS: Final[Mapping[str, Operation]] = dict(each for door in DOORS for each in _operations(door))


def body_schemas() -> dict[str, Any]:
    """One component for each path: its model's fields, which may be blank where they may be absent, and any others."""
    return {body_name(door): _body(door) for door in DOORS}


def _body(door: Door) -> dict[str, Any]:
    """Of a path where two kinds of task are sold: the one or the other, told apart by a field."""
    bodies = [_body_of(one) for one in door.sold]
    if len(bodies) == 1:
        return bodies[0]
    telling = [one.told_by for one in door.sold if one.told_by is not None]
    for one, body in zip(door.sold, bodies, strict=True):
        body["properties"] |= {name: BLANK for name in telling if name != one.told_by}
    return {"anyOf": bodies}


def _body_of(sold: Sold) -> dict[str, Any]:
    body = model_schema(sold.input_model)
    required = body.get("required", [])
    properties = body["properties"] | model_schema(Addressed)["properties"]
    body["properties"] = {
        name: each if name in required else {"anyOf": [_without_default(each), BLANK]}
        for name, each in properties.items()
    }
    body["additionalProperties"] = True
    body["description"] = (
        "Fields that are not described here go to the provider as they are: "
        f"at most {LARGEST_EXTRAS} bytes as JSON, {DEEPEST_METADATA} levels."
    )
    return body


def _without_default(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's defaults hold."""
    return {name: each for name, each in schema.items() if name != "default"}
