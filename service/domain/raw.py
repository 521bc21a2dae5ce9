"""A create in the provider's own words: for what is newer there than here, and has no type of its own yet."""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, to_json

from service.domain.faults import PREDICATE, SEVERAL, Finding
from service.domain.models import StrictModel

LONGEST_PATH: Final = 200
LARGEST_BODY: Final = 256 * 1024  # bytes as JSON: pictures are given by their URLs
DEEPEST_BODY: Final = 32
MOST_PLACES: Final = 9

# Nothing that a proxy or a server might read as something else: no host, no query, no escapes, no empty steps.
PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# Stands for a file in an input that was checked (`inputs.with_files`). Here it would name somebody else's.
REFERENCE: Final = re.compile(r"file:sha256:[0-9a-f]{64}")

OURS: Final = ("callback_url", "external_task_id")


def _checked_path(path: str) -> str:
    if not PATH.fullmatch(path):
        raise PydanticCustomError(
            PREDICATE,
            "must be a path such as /v1/videos/text2video: steps of letters, digits, '-', '_', '~' and '.', none of "
            "them beginning with '.', without a host, a query or escapes",
        )
    return path


def _checked_body(body: dict[str, Any]) -> dict[str, Any]:
    found = [*_findings(body)]
    if found:
        raise PydanticCustomError(SEVERAL, "has faults", {"findings": found})
    return body


def _findings(body: Mapping[str, Any]) -> Iterator[Finding]:
    options = body.get("options")
    for within, where in ((body, ()), (options if isinstance(options, dict) else {}, ("options",))):
        for name in OURS:
            if name in within:
                yield Finding((*where, name), f'"{name}" stands beside the input: Klingel puts its own here.')
    if len(to_json(body)) > LARGEST_BODY:
        yield Finding((), f"The body has at most {LARGEST_BODY} bytes as JSON; give pictures by their URLs.")
    level: Sequence[Any] = [body]
    for _ in range(DEEPEST_BODY):
        level = [member for container in level for member in _members(container)]
        if any(isinstance(member, str) and REFERENCE.fullmatch(member) for member in level):
            yield Finding((), "A text that begins with file:sha256: is Klingel's own, and nobody else's.")
            return
        if any(isinstance(member, float) and not isfinite(member) for member in level):
            yield Finding((), "A number in the body is too large for JSON.")
            return
    if any(isinstance(member, (dict, list)) for member in level):
        yield Finding((), f"The body has at most {DEEPEST_BODY} levels.")


def _members(value: object) -> Sequence[Any]:
    match value:
        case dict():
            return [*value.values()]
        case list():
            return value
        case _:
            return ()


class RawInput(StrictModel):
    """What is sent, and where to. Klingel adds the callback URL and the external task id, and checks nothing else."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"path": "/v1/videos/text2video", "body": {"prompt": "A paper boat", "mode": "pro"}}]
        },
    )

    path: Annotated[str, Field(max_length=LONGEST_PATH), AfterValidator(_checked_path)] = Field(
        description="below the provider's base URL, e.g. /v1/videos/text2video; at CometAPI, below /kling",
        examples=["/v1/videos/text2video"],
    )
    body: Annotated[dict[str, Any], AfterValidator(_checked_body)] = Field(
        description="sent as it is, and with callback_url and external_task_id in it",
    )
    standard: Literal["legacy", "new"] = Field(
        "legacy",
        description="where these two stand: at the top (legacy), or in `options` (new: the model is in the path)",
    )
    places: int = Field(
        1,
        ge=1,
        le=MOST_PLACES,
        description="of the provider's parallel places that it takes, as far as is known",
    )


def path_at(path: str, prefix: str) -> str:
    """Where a provider has a path whose own all begin with `prefix`: never outside of it."""
    return path if path == prefix or path.startswith(f"{prefix}/") else prefix + path
