"""In which form a webhook tells an event: bytes and the headers that go with them, the same at each attempt."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from service.domain.events import Event
from service.domain.lifecycle import Status

Message = tuple[bytes, Mapping[str, str]]

CLOUDEVENTS_SOURCE: Final = "/klingel"

# Kling's own words. What it never had, or refused, is told as what its client would do about it.
KLING_WORDS: Final[Mapping[str, str]] = {
    Status.QUEUED: "submitted",
    Status.UNCONFIRMED: "submitted",
    Status.SUBMITTED: "submitted",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "succeed",
    Status.FAILED: "failed",
    Status.REJECTED: "failed",
}


def standard(event: Event) -> Message:
    """The event's own bytes (Standard Webhooks 1.0.0)."""
    return event.body, {"content-type": "application/json"}


def cloudevents(event: Event) -> Message:
    """CloudEvents 1.0.2 in HTTP binary mode: attributes as `ce-*` headers, the event's `data` as body."""
    content = event.content()
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": content["id"],
        "ce-source": CLOUDEVENTS_SOURCE,
        "ce-type": content["type"],
        "ce-time": content["timestamp"],
    }
    if event.task_id is not None:
        headers |= {"ce-subject": event.task_id, "ce-sequence": str(event.sequence)}
    return to_json(content["data"]), headers


def kling(event: Event) -> Message:
    """The provider's own callback, flat (Kling, "Callback protocol", legacy body), with our task id in it.

    An event that is about no task, a test, is told as Kling's console tells its own: a task that was submitted.
    """
    content = event.content()
    task = content["data"].get("task") or {
        "id": content["id"],
        "status": Status.SUBMITTED,
        "external_task_id": content["id"],
        "outputs": [],
        "error": None,
        "created_at": content["timestamp"],
        "updated_at": content["timestamp"],
    }
    return to_json(kling_task(task)), {"content-type": "application/json; charset=utf-8"}


def kling_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task of ours, as every reader sees it, in the provider's words."""
    error = task["error"]
    return {
        "task_id": task["id"],
        "task_status": KLING_WORDS[task["status"]],
        "task_status_msg": "" if error is None else error["message"],
        "created_at": _milliseconds(task["created_at"]),
        "updated_at": _milliseconds(task["updated_at"]),
        "task_info": {"external_task_id": task["external_task_id"]},
        "task_result": _result(task["outputs"]),
    }


def _result(outputs: list[Mapping[str, Any]]) -> dict[str, Any]:
    images = [
        {"index": output["index"], "url": output["url"]} for output in outputs if output["kind"] == "image"
    ]
    videos = [
        {
            "id": output.get("id") or str(output["index"]),
            "url": output["url"],
            "duration": str(output.get("duration_s", "")),
        }
        for output in outputs
        if output["kind"] == "video"
    ]
    return {name: made for name, made in (("images", images), ("videos", videos)) if made}


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


FORMATS: Final[Mapping[str, Callable[[Event], Message]]] = {
    "standard": standard,
    "cloudevents": cloudevents,
    "kling": kling,
}
