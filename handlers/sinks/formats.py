"""In which form a webhook tells an event: bytes and the headers that go with them, the same at each attempt; or that the
form has no words for it.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pydantic_core import to_json

from service.domain import kling_shapes
from service.domain.events import Event, EventType
from service.domain.lifecycle import Status

Message = tuple[bytes, Mapping[str, str]]

CLOUDEVENTS_SOURCE: Final = "/klingel"


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


def kling(event: Event) -> Message | None:
    """The provider's own callback, flat (Kling, "Callback protocol", legacy body), with our task id in it. It tells of
    tasks, and of nothing else.

    A test is told as Kling's console tells its own: a task that was submitted.
    """
    content = event.content()
    if event.type == EventType.ENDPOINT_TEST:
        task = {
            "id": content["id"],
            "status": Status.SUBMITTED,
            "external_task_id": content["id"],
            "outputs": [],
            "error": None,
            "created_at": content["timestamp"],
            "updated_at": content["timestamp"],
        }
    elif event.task_id is None:
        return None
    else:
        task = content["data"]["task"]
    return to_json(kling_shapes.callback(task)), {"content-type": "application/json; charset=utf-8"}


FORMATS: Final[Mapping[str, Callable[[Event], Message | None]]] = {
    "standard": standard,
    "cloudevents": cloudevents,
    "kling": kling,
}
