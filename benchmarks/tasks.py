"""Tasks that the provider has accepted, in bulk, and the callbacks that move them on."""

import json
from dataclasses import dataclass
from typing import Any, Final

import uuid_utils

from benchmarks.processes import SECRET, Klingel, Outside, until
from benchmarks.stores import copy, opened
from benchmarks.wrk import post
from service.domain.secrets import CallbackTokens

BLOCK: Final = (
    512  # tasks whose first callbacks go out before their second ones: many more than are on their way
)
SUBMIT: Final[dict[str, Any]] = {
    "type": "kling.multi-image-to-image",
    "input": {
        "prompt": "A cat and a hat, as a poster",
        "subject_image_list": [
            {"subject_image": f"https://example.com/{name}.png"} for name in ("cat", "hat")
        ],
    },
}
OUTPUT: Final = {"images": [{"index": 0, "url": "https://cdn.example.com/outputs/0123456789abcdef.png"}]}


@dataclass(frozen=True, slots=True)
class Made:
    """A task as the provider knows it."""

    id: str
    external_id: str
    provider_id: str


class Tasks:
    """Makes more tasks like one that was submitted through the API."""

    def __init__(self, klingel: Klingel, outside: Outside) -> None:
        self._klingel = klingel
        self._template = klingel.call("POST", "/v1/tasks", **SUBMIT)["id"]
        until(
            lambda: klingel.call("GET", f"/v1/tasks/{self._template}")["status"] == "submitted", "acceptance"
        )
        callback_url: str = outside.created()["callback_url"]
        self._provider = callback_url.split("/callbacks/")[1].split("/", maxsplit=1)[0]
        self._tokens = CallbackTokens([SECRET])

    def make(self, number: int) -> list[Made]:
        new = [uuid_utils.uuid7().hex for _ in range(number)]
        with opened(self._klingel.database) as store:
            copy(
                store,
                "tasks",
                self._template,
                new,
                id="'task_' || listed.value",
                external_task_id="'order-' || listed.value",
                provider_external_id="'task_' || listed.value",
                provider_task_id="'theirs-' || listed.value",
            )
        return [Made(f"task_{one}", f"task_{one}", f"theirs-{one}") for one in new]

    def body(self, task: Made | None = None, word: str = "succeed") -> bytes:
        """Of a callback; of some task."""
        task = task or self.make(1)[0]
        document = {
            "task_id": task.provider_id,
            "task_status": word,
            "task_status_msg": "",
            "task_info": {"external_task_id": task.external_id},
            "created_at": 1_790_000_000_000,
            "updated_at": 1_790_000_060_000,
            "task_result": OUTPUT if word == "succeed" else {},
        }
        return json.dumps(document).encode()

    def callback(self, task: Made, word: str, *, port: int | None = None) -> bytes:
        """As the provider sends it, over the wire; to another process than the first, where one is given."""
        token = self._tokens.sign(self._provider, task.id)
        path = f"/callbacks/{self._provider}/{task.id}/{token}"
        return post(port or self._klingel.port, path, self.body(task, word))

    def callbacks(self, number: int, *, port: int | None = None) -> list[bytes]:
        """Each of them moves a task that nothing else moves: to `processing`, then to `succeeded`."""
        tasks = self.make(-(-number // 2))
        return [
            self.callback(task, word, port=port)
            for start in range(0, len(tasks), BLOCK)
            for word in ("processing", "succeed")
            for task in tasks[start : start + BLOCK]
        ]


def stored(klingel: Klingel, table: str) -> int:
    """Rows of a table."""
    with opened(klingel.database) as store:
        number: int = store.one(f"select count(*) from {table}")
        return number


def advanced(klingel: Klingel) -> tuple[int, int]:
    """Callbacks that moved a task, and all others."""
    with opened(klingel.database) as store:
        moved: int = store.one("select count(*) from callbacks where verdict = 'advanced'")
        every: int = store.one("select count(*) from callbacks")
        return moved, every - moved
