"""What Kling says of a task, in a callback or in the answer to a create or a query, read into a `Report`.

Both of Kling's standards (legacy: `task_id`, `task_status`; new: `id`, `status`), bare or in layers of `data`. The
outermost task id counts, because a gateway that mints its own ids is asked by those; of everything else the
innermost counts, because that is Kling's own word.
"""

import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from handlers.providers.kling.costs import read_cost
from handlers.providers.kling.documents import (
    JSONObject,
    identifier,
    layers,
    moment,
    number,
    read_object,
    text,
)
from service.domain.kling_shapes import SERIES_GROUP
from service.domain.lifecycle import Signal
from service.domain.tasks import Output, OutputKind, Report, TaskError, Unreadable
from service.domain.values import replace

RETENTION: Final = timedelta(days=30)  # Kling's pages for both task types: media is cleared after 30 days
MAX_REASON_LENGTH: Final = 500
MAX_INDEX: Final = 9999

SIGNALS: Final[Mapping[str, Signal]] = {
    "submitted": Signal.SUBMITTED,
    "processing": Signal.STARTED,
    "succeed": Signal.COMPLETED,  # legacy standard
    "succeeded": Signal.COMPLETED,  # new standard
    "success": Signal.COMPLETED,  # the wrapper of new-api gateways
    "failed": Signal.FAILED,
    "failure": Signal.FAILED,  # the wrapper of new-api gateways
}

ENDS: Final = frozenset({"succeed", "succeeded", "failed"})  # in Kling's own words

SERIES: Final = "series_images"
RESULT_LISTS: Final[Mapping[str, OutputKind]] = {
    "images": OutputKind.IMAGE,
    SERIES: OutputKind.IMAGE,
    "videos": OutputKind.VIDEO,
    "audios": OutputKind.AUDIO,
}

OUTPUT_TYPES: Final[Mapping[str, OutputKind]] = {
    "image": OutputKind.IMAGE,
    "video": OutputKind.VIDEO,
    "audio": OutputKind.AUDIO,
    "voice": OutputKind.AUDIO,
}

URL_NAMES: Final = ("url", "url_mp3", "mp3_url", "url_wav", "wav_url")
WAV_NAMES: Final = ("url_wav", "wav_url")
DURATION_NAMES: Final = ("duration", "duration_mp3", "mp3_duration", "duration_wav", "wav_duration")
UPDATED_NAMES: Final = ("updated_at", "update_time")
EXTERNAL_ID_NAMES: Final = ("external_task_id", "external_id")

WEB_URL: Final = re.compile(r"https?://[^\s\x00-\x1f]+", re.IGNORECASE)

T = TypeVar("T")


def read_report(body: bytes) -> Report:
    """
    Raises:
        Unreadable: not a JSON object, or it carries no task status that we know.
    """
    return report_of(layers(read_object(body)))


def report_of(found: Sequence[JSONObject]) -> Report:
    """
    Args:
        found: outermost first, as `documents.layers` gives them.

    Raises:
        Unreadable: none of them carries a task status that we know.
    """
    signal = _signal(found)
    return Report(
        signal=signal,
        provider_task_id=task_id(found),
        external_task_id=_innermost(found, _external_task_id),
        outputs=_outputs(found) if signal is Signal.COMPLETED else (),
        error=TaskError("provider_failed", _reason(found)) if signal is Signal.FAILED else None,
        cost=read_cost(found) if signal in {Signal.COMPLETED, Signal.FAILED} else None,
    )


def final_report(found: Sequence[JSONObject]) -> Report | None:
    """What the answer to a create says of a task that ended at once; None where it says no such thing.

    Beside its outputs, or in Kling's own words beside its id, an end is the task's. Else a gateway may mean by it that
    the request has ended.
    """
    try:
        report = report_of(found)
    except Unreadable:
        return None
    if report.signal not in {Signal.COMPLETED, Signal.FAILED}:
        return None
    speaking = next(layer for layer in reversed(found) if _status_word(layer) is not None)
    is_own_word = (_status_word(speaking) or "").casefold() in ENDS and task_id([speaking]) is not None
    return report if report.outputs or is_own_word else None


def task_id(found: Sequence[JSONObject]) -> str | None:
    """The outermost `task_id`; else, in the new standard, the `id` that stands beside a status."""
    for layer in found:
        if (known := identifier(layer.get("task_id"))) is not None:
            return known
    for layer in found:
        if _status_word(layer) is not None and (known := identifier(layer.get("id"))) is not None:
            return known
    return None


def _innermost(found: Sequence[JSONObject], read: Callable[[JSONObject], T | None]) -> T | None:
    for layer in reversed(found):
        if (value := read(layer)) is not None:
            return value
    return None


def _first(source: JSONObject, names: Sequence[str], read: Callable[[object], T | None]) -> T | None:
    for name in names:
        if (said := source.get(name)) is not None and (value := read(said)) is not None:
            return value
    return None


def _status_word(layer: JSONObject) -> str | None:
    return _first(layer, ("task_status", "status"), text)


def _signal(found: Sequence[JSONObject]) -> Signal:
    word = _innermost(found, _status_word)
    if word is None:
        raise Unreadable("it carries no task status")
    try:
        return SIGNALS[word.casefold()]
    except KeyError:
        raise Unreadable(f"its task status {word[:40]!r} is none that we know") from None


def _external_task_id(layer: JSONObject) -> str | None:
    info = layer.get("task_info")
    if isinstance(info, dict) and (known := identifier(info.get("external_task_id"))) is not None:
        return known
    return _first(layer, EXTERNAL_ID_NAMES, identifier)


def _reason(found: Sequence[JSONObject]) -> str:
    """Never the envelope's `message`: that speaks of the query, and is SUCCEED for a failed task too."""
    reason = _innermost(found, lambda layer: _first(layer, ("task_status_msg", "fail_reason"), text))
    if reason is None:
        reason = _innermost(
            [layer for layer in found if _status_word(layer)], lambda layer: text(layer.get("message"))
        )
    return (reason or "The provider gave no reason.")[:MAX_REASON_LENGTH]


def _outputs(found: Sequence[JSONObject]) -> tuple[Output, ...]:
    updated_at = _innermost(found, lambda layer: _first(layer, UPDATED_NAMES, moment))
    expires_at = None if updated_at is None else updated_at + RETENTION
    outputs = _innermost(found, lambda layer: _outputs_in(layer, expires_at) or None) or []
    if len({output.index for output in outputs}) < len(outputs):
        outputs = [replace(output, index=index) for index, output in enumerate(outputs)]
    return tuple(outputs)


def _outputs_in(layer: JSONObject, expires_at: datetime | None) -> list[Output]:
    found: list[Output | None] = []
    result = layer.get("task_result")
    if isinstance(result, dict):
        for name in filter(result.__contains__, RESULT_LISTS):
            group = SERIES_GROUP if name == SERIES else None
            for position, item in enumerate(_items(result[name])):
                found.append(_output(RESULT_LISTS[name], item, position, expires_at, group=group))
    for position, item in enumerate(_items(layer.get("outputs"))):
        group = identifier(item.get("group_id"))
        found.append(_output(_kind(item), item, position, expires_at, group=group))
    return [output for output in found if output is not None]


def _items(value: object) -> list[JSONObject]:
    """The objects of a list; a bare URL counts as an object with nothing else."""
    if not isinstance(value, list):
        return []
    objects = [{"url": item} if isinstance(item, str) else item for item in value]
    return [item for item in objects if isinstance(item, dict)]


def _output(
    kind: OutputKind | None,
    item: JSONObject,
    position: int,
    expires_at: datetime | None,
    *,
    group: str | None,
) -> Output | None:
    url = _first(item, URL_NAMES, _web_url)
    if kind is None or url is None:
        return None
    wav_url = _first(item, WAV_NAMES, _web_url)
    duration = _first(item, DURATION_NAMES, number)
    return Output(
        kind=kind,
        index=_index(item.get("index"), position),
        url=url,
        id=identifier(item.get("id")),
        duration_s=duration if duration is not None and duration >= 0 else None,
        watermark_url=_web_url(item.get("watermark_url")),
        wav_url=wav_url if wav_url != url else None,
        group=group,
        expires_at=expires_at,
    )


def _kind(item: JSONObject) -> OutputKind | None:
    """By the type it names, else by the ending of its URL's path."""
    named = OUTPUT_TYPES.get((text(item.get("type")) or "").casefold())
    if named is not None:
        return named
    path = (_first(item, URL_NAMES, _web_url) or "").partition("?")[0]
    media_type = mimetypes.guess_type(path)[0] or ""
    return OUTPUT_TYPES.get(media_type.partition("/")[0])


def _web_url(value: object) -> str | None:
    url = text(value)
    return url if url is not None and WEB_URL.fullmatch(url) else None


def _index(value: object, position: int) -> int:
    index = number(value)
    return int(index) if index is not None and index.is_integer() and 0 <= index <= MAX_INDEX else position
