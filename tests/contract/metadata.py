"""Metadata of every shape, in a task from before it had an index, and whether the task is found by it."""

from typing import Any, Final

from service.domain.ids import AccountId
from storage import tasks
from storage.columns import json_text
from storage.database import Database
from storage.tasks import TaskFilter

BEFORE: Final = 15  # the version that had no index
_LONG: Final = "x" * 150
GIVEN: Final[dict[str, Any]] = {
    "text": "Zoë", "true": True, "false": False, "null": None, "whole": 7, "large": 10**24, "share": 0.1 + 0.2,
    "far": 1e20, "list": [1, "a"], "": "", "a.b'c": "%", 'a"b': "c", _LONG: _LONG, "long": "x" * 3000, "nul": "a\0b",
    "no nul": "\\u0000",
}  # fmt: skip
ACCOUNT: Final = "insert into accounts values ('acc_1', 'a', 0)"
TASK: Final = (
    "insert into tasks (id, account_id, type, provider, status, input, external_task_id, metadata, created_at,"
    " updated_at, deadline_at) values ('task_1', 'acc_1', 't', 'p', 'queued', '{}', 'x', $1, 0, 0, 0)"
)


async def check_found_by_each(database: Database) -> None:
    async with database.reading() as reader:
        for key, value in GIVEN.items():
            text = value if isinstance(value, str) else json_text(value)
            found = await tasks.page(
                reader, AccountId("acc_1"), TaskFilter(metadata={key: text}), before_id=None, limit=2
            )
            assert [task.id for task in found] == ["task_1"], key
