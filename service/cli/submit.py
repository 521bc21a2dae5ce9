"""`klingel submit`: flags and files become the input of a task."""

import base64
import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

from cyclopts import Parameter

from service.cli.client import SUBMIT_TIMEOUT, AnswerLost, Refused, View
from service.cli.numbers import Whole
from service.cli.session import Exit, Given, Json, UsageError, pairs
from service.cli.watch import conclude, follow
from service.domain.errors import PaymentRequired, ProviderMisconfigured, ProviderRefused
from service.domain.lifecycle import TERMINAL, Status

REJECTIONS: Final = {kind.code for kind in (ProviderRefused, PaymentRequired, ProviderMisconfigured)}


@Parameter(name="*", group="Input")
@dataclass(frozen=True, slots=True, kw_only=True)
class InputFlags:
    """What becomes the task's input. Images are files, which are sent along, or http(s) URLs.

    What has no flag of its own is `--set NAME=VALUE`; `klingel types TYPE` names all fields.
    """

    image: Annotated[
        tuple[str, ...],
        Parameter(metavar="FILE|URL", help="An input image; give it as often as the type takes."),
    ] = ()
    prompt: str | None = None
    negative_prompt: str | None = None
    model: Annotated[str | None, Parameter(help="As the provider names it, e.g. `kling-v1-6`.")] = None
    mode: Annotated[str | None, Parameter(help="Video: `std` or `pro`.")] = None
    duration: Annotated[str | None, Parameter(help="Seconds, e.g. `5` or `10`.")] = None
    aspect_ratio: Annotated[str | None, Parameter(help="E.g. `16:9`.")] = None
    cfg_scale: Annotated[float | None, Parameter(help="Video: closeness to the prompt, 0 to 1.")] = None
    n: Annotated[Whole | None, Parameter(help="Image: how many to make.")] = None
    scene_image: Annotated[
        str | None, Parameter(metavar="FILE|URL", help="Image: a picture of the scene.")
    ] = None
    style_image: Annotated[
        str | None, Parameter(metavar="FILE|URL", help="Image: a picture in the style.")
    ] = None
    static_mask: Annotated[
        str | None, Parameter(metavar="FILE|URL", help="Video: a mask of what stays still.")
    ] = None
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            metavar="NAME=VALUE",
            help="Any other field, those of an object within as `settings.duration=5`; JSON where it is no text.",
        ),
    ] = ()
    input: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            metavar="FILE.json|-",
            help="The input as a JSON object, from a file or stdin; flags win over its fields.",
        ),
    ] = None


def submit(
    *,
    type_: Annotated[
        str, Parameter(name="--type", help="`image`, `video`, or a full type name: see `klingel types`.")
    ],
    flags: InputFlags = InputFlags(),
    external_task_id: Annotated[str | None, Parameter(help="Your own id of it, unique.")] = None,
    metadata: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE", help="Kept with the task.")] = (),
    provider: Annotated[
        str | None, Parameter(help="Which account there. [default: the one that is meant for the type]")
    ] = None,
    callback_url: Annotated[str | None, Parameter(help="Receives this task's events.")] = None,
    follow_up: Annotated[
        tuple[str, ...],
        Parameter(metavar="FILE.json", help="What to submit after it, as one entry of `follow_ups`."),
    ] = (),
    deadline: Annotated[float | None, Parameter(help="Seconds until it counts as overdue.")] = None,
    idempotency_key: Annotated[
        str | None, Parameter(help="Makes a repeated submit count once. [default: a random one]")
    ] = None,
    async_: Annotated[
        bool, Parameter(name="--async", help="Do not wait until the provider has the task.")
    ] = False,
    watch: Annotated[bool, Parameter(help="Follow it to the end and print its outputs' URLs.")] = False,
    json: Json = False,
    session: Given,
) -> Exit:
    """Submit a task.

    Prints the task's id; with `--watch`, the URLs of its outputs once it has ended.
    """
    type_, input_, retired = read_input(type_, flags)
    if retired is not None:
        session.note(retired)
    fields = {
        "type": type_,
        "input": input_,
        "external_task_id": external_task_id,
        "metadata": pairs("--metadata", metadata),
        "provider": provider,
        "callback_url": callback_url,
        "follow_ups": read_follow_ups(follow_up),
        "deadline_s": deadline,
    }
    key = idempotency_key or str(uuid4())
    headers = {"Idempotency-Key": key}
    if async_ or watch:
        headers["Prefer"] = "respond-async"
    try:
        task = session.api.post("tasks", body=_given(fields), headers=headers, timeout=SUBMIT_TIMEOUT)
    except AnswerLost as lost:
        message = (
            f"{lost}\nThe task may have been taken. To be sure, submit again with --idempotency-key {key}"
        )
        raise AnswerLost(message) from None
    except Refused as refused:
        if refused.code not in REJECTIONS:
            raise
        session.show_refusal(refused)
        return Exit.TASK_FAILED
    if watch:
        session.note(f"{task['id']} {task['status']}")
        return conclude(session, follow(session, task), json=json)
    if json:
        session.say_json(task)
    else:
        session.say(task["id"])
        session.note(f"{task['status']}; follow it with: klingel watch {task['id']}")
    return Exit.TASK_FAILED if task["status"] in TERMINAL - {Status.SUCCEEDED} else Exit.OK


def read_input(type_: str, flags: InputFlags) -> tuple[str, dict[str, Any], str | None]:
    """The full name of the type, the input, and what is to be said of either's retirement.

    Raises:
        UsageError: names every file that cannot be used.
    """
    # With the rows of all types comes pydantic, which takes longer to load than most commands take.
    from service.cli.fields import meant, of_images, place, put, retirement  # noqa: PLC0415

    faults: list[str] = []
    raw = _read_object(flags.input, faults)
    images = [read for image in flags.image if (read := _read_image(image, faults)) is not None]
    row = meant(type_, raw, len(images))
    fields = {
        "prompt": flags.prompt,
        "negative_prompt": flags.negative_prompt,
        "model_name": flags.model,
        "mode": flags.mode,
        "duration": flags.duration,
        "aspect_ratio": flags.aspect_ratio,
        "cfg_scale": flags.cfg_scale,
        "n": flags.n,
        "scene_image": _read_image(flags.scene_image, faults),
        "style_image": _read_image(flags.style_image, faults),
        "static_mask": _read_image(flags.static_mask, faults),
    }
    schema = {} if row is None else row.input_model.model_json_schema()
    whole = raw | of_images(row, images, faults)
    for name, value in _given(fields).items():
        place(whole, name, value, schema, faults)
    for name, value in pairs("--set", flags.set_).items():
        put(whole, name, value, schema, faults)
    if faults:
        raise UsageError("\n".join(faults))
    return type_ if row is None else row.name, whole, retirement(row, whole)


def read_follow_ups(files: Sequence[str]) -> list[dict[str, Any]]:
    """
    Raises:
        UsageError: names every file that cannot be used.
    """
    faults: list[str] = []
    follow_ups = [_read_object(file, faults) for file in files]
    if faults:
        raise UsageError("\n".join(faults))
    return follow_ups


def _given(fields: View) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _read_image(value: str | None, faults: list[str]) -> str | None:
    """A URL as it is, a file as Base64."""
    if value is None or value.lower().startswith(("http://", "https://")):
        return value
    content = _read_file(value, faults)
    if content == b"":
        faults.append(f"{value}: the file is empty")
    return base64.b64encode(content or b"").decode()


def _read_object(source: str | None, faults: list[str]) -> dict[str, Any]:
    if source is None:
        return {}
    source, content = (
        ("stdin", sys.stdin.buffer.read()) if source == "-" else (source, _read_file(source, faults))
    )
    if content is None:
        return {}
    try:
        value = jsonlib.loads(content)
    except ValueError as error:
        faults.append(f"{source}: not JSON: {error}")
        return {}
    if not isinstance(value, dict):
        faults.append(f"{source}: not a JSON object")
        return {}
    return value


def _read_file(name: str, faults: list[str]) -> bytes | None:
    try:
        return Path(name).expanduser().read_bytes()
    except OSError as error:
        faults.append(f"{name}: {error.strerror}")
    except ValueError as error:  # a null character
        faults.append(f"{name!r}: {error}")
    return None
