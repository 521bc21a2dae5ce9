"""A task in Kling's own words and shapes: for those who were written for Kling, and are answered by us.

Source: Kling, "Callback protocol" (legacy body), "Multi-Image to Image" and "Error Codes"; CometAPI, "Individual Queries".
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from service.domain.costs import BALANCE, UNITS, added, charge_of, plain
from service.domain.lifecycle import Status

NOTHING: Final = Decimal()

# What it never had, or refused, is told as what its client would do about it.
WORDS: Final[Mapping[str, str]] = {
    Status.QUEUED: "submitted",
    Status.UNCONFIRMED: "submitted",
    Status.SUBMITTED: "submitted",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "succeed",
    Status.FAILED: "failed",
    Status.REJECTED: "failed",
}

SERIES_GROUP: Final = "series"  # the group of pictures that belong together, in the legacy shape

# The HTTP status that goes with each of Kling's codes.
STATUS: Final[Mapping[int, int]] = {
    1000: 401,
    1001: 401,
    1002: 401,
    1003: 401,
    1004: 401,
    1100: 429,
    1101: 429,
    1102: 429,
    1103: 403,
    1200: 400,
    1201: 400,
    1202: 404,
    1203: 404,
    1300: 400,
    1301: 400,
    1302: 429,
    1303: 429,
    1304: 429,
    5000: 500,
    5001: 503,
    5002: 504,
}


def created(task: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a create.

    Args:
        task: as `Task.view` shows it.
    """
    return {
        "task_id": task["id"],
        "task_status": WORDS[Status.SUBMITTED],
        "task_info": _info(task),
        "created_at": _milliseconds(task["created_at"]),
        "updated_at": _milliseconds(task["created_at"]),
    }


def queried(task: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a query: as a callback, and with the pictures that bear a watermark.

    Args:
        task: as `Task.view` shows it; its moments may be milliseconds.
    """
    return _told(task, ("watermark_url",))


def callback(task: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a callback, flat."""
    return _told(task, ())


def _told(task: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        more: what is told of each output besides.
    """
    error = task["error"]
    return {
        "task_id": task["id"],
        "task_status": WORDS[task["status"]],
        "task_status_msg": "" if error is None else error["message"],
        "created_at": _milliseconds(task["created_at"]),
        "updated_at": _milliseconds(task["updated_at"]),
        "task_info": _info(task),
        "task_result": _result(task["outputs"], more),
        **_charged(task.get("cost")),  # an event of before there were costs has none
    }


def _charged(cost: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """What was taken, where that is known. The legacy shape has no currencies: it knows units and one balance."""
    if cost is None:
        return {}
    charges = [charge_of(charge) for charge in cost]
    balance = [charge for charge in charges if charge.unit == BALANCE]
    return {
        "final_unit_deduction": plain(added(charges).get(UNITS, NOTHING)),
        "final_balance_deduction": {
            "quota": plain(added(balance).get(BALANCE, NOTHING)),
            "list_price": plain(sum((charge.list_price or NOTHING for charge in balance), NOTHING)),
        },
    }


def _info(task: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's own id, where it gave one."""
    given = task["external_task_id"]
    return {} if given == task["id"] else {"external_task_id": given}


def _result(outputs: Sequence[Mapping[str, Any]], more: Sequence[str]) -> dict[str, Any]:
    """Where the provider keeps what was made; nothing before there is any."""
    if not outputs:
        return {}
    images = [
        {"index": output["index"], "url": output["url"], **_those(output, more)}
        for output in outputs
        if output["kind"] == "image" and "group" not in output
    ]
    series = [
        {"index": output["index"], "url": output["url"], **_those(output, more)}
        for output in outputs
        if output["kind"] == "image" and "group" in output
    ]
    videos = [
        {
            "id": output.get("id") or str(output["index"]),
            "url": output["url"],
            "duration": _seconds(output.get("duration_s")),
            **_those(output, more),
        }
        for output in outputs
        if output["kind"] == "video"
    ]
    audios = [
        {
            "id": output.get("id") or str(output["index"]),
            "url_mp3": output["url"],
            "url_wav": output.get("wav_url", ""),
            "duration_mp3": _seconds(output.get("duration_s")),
            "duration_wav": _seconds(output.get("duration_s")) if "wav_url" in output else "",
        }
        for output in outputs
        if output["kind"] == "audio"
    ]
    lists = (("images", images), ("series_images", series), ("videos", videos), ("audios", audios))
    named = {"result_type": SERIES_GROUP} if series else {}
    return named | {name: made for name, made in lists if made}


def _those(output: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: output[name] for name in names if name in output}


def _seconds(duration: float | None) -> str:
    """`5`, `5.041`: a text, as Kling has it."""
    return "" if duration is None else str(duration).removesuffix(".0")


def _milliseconds(moment: str | int) -> int:
    """Of an RFC 3339 time, since 1970."""
    return moment if isinstance(moment, int) else round(datetime.fromisoformat(moment).timestamp() * 1000)
