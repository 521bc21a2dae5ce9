"""What is the same at every door that takes submits: waiting for the provider's word, and saying the same twice."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from service.api.state import State
from service.domain.errors import ConfigurationError, Fault, StorageUnavailable, Unprocessable
from service.domain.ids import TaskId
from service.domain.lifecycle import Status
from service.domain.tasks import Task
from service.doors.bodies import SMALL_BODY
from service.streams import NoEvent, Streams
from service.submission import Once, Stored
from storage import tasks
from storage.database import Database
from storage.tasks import IdempotencyKey

LARGEST_SUBMIT: Final = 64 * 1024 * 1024
IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
WAITING: Final = frozenset({Status.QUEUED, Status.UNCONFIRMED})


async def read_once(request: Request[Any], body: bytes, *, door: str = "") -> Once | None:
    """What the caller's Idempotency-Key stands for.

    Args:
        door: parts submits whose bodies are alike and mean different things.

    Raises:
        Unprocessable: the key has faults.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise Unprocessable(
            "The Idempotency-Key has faults.",
            faults=[Fault("1 to 255 visible ASCII characters, no spaces.", "#/headers/Idempotency-Key")],
        )

    def hashed() -> str:
        digest = hashlib.sha256(door.encode())
        digest.update(body)
        return digest.hexdigest()

    return Once(key, hashed() if len(body) <= SMALL_BODY else await run_sync(hashed))


async def answered(
    request: Request[State],
    stored: Stored,
    once: Once | None,
    *,
    patience: float,
    answer: Callable[[Task], Awaitable[Response]],
    repeat: Callable[[TaskId, int, str], Response],
) -> Response:
    """The answer to a submit that is on disk; under an Idempotency-Key, the first one that anybody got.

    Args:
        patience: seconds to wait for the provider's word.
        answer: to a task as it then is.
        repeat: an answer that was remembered: its task, its status, its body.
    """
    state = request.state

    def again(earlier: IdempotencyKey | None) -> Response | None:
        """None where nobody was answered yet, or what was answered is sealed under a KLINGEL_SECRET that is gone."""
        if earlier is None or earlier.answer_status is None or earlier.answer_body is None:
            return None
        try:
            body = state["vault"].open(earlier.answer_body)
        except ConfigurationError:
            return None
        response = repeat(earlier.task_id, earlier.answer_status, body)
        response.headers["idempotent-replayed"] = "true"
        return response

    if (repeated := again(stored.earlier)) is not None:
        return repeated
    try:
        task = await _decided(state["database"], state["streams"], stored, patience)
        response = await answer(task)
    except StorageUnavailable:
        if stored.new is None:
            raise
        # It is stored, and may be paid for: who is told that it is not submits it once more.
        task = stored.new
        response = await answer(task)
    if once is None:
        return response
    made = IdempotencyKey(
        account_id=task.account_id,
        key=once.key,
        body_hash=once.body_hash,
        task_id=task.id,
        created_at=task.created_at,
        answer_status=response.status_code,
        # Sealed, for it may show a secret.
        answer_body=state["vault"].seal(bytes(response.body).decode()),
    )
    try:
        remembered = await state["submitter"].remember_answer(made)
    except StorageUnavailable:  # who asks again is told how the task is by then
        return response
    # Another caller under this key may have been answered in the meantime.
    if remembered.answer_body != made.answer_body and (repeated := again(remembered)) is not None:
        return repeated
    if stored.earlier is not None:
        response.headers["idempotent-replayed"] = "true"
    return response


async def _decided(database: Database, streams: Streams, stored: Stored, patience: float) -> Task:
    """The task once it is neither queued nor unconfirmed, or as it is when patience (seconds) ends. With none, a new one
    is as it was stored.
    """
    task_id = stored.task_id
    task = stored.new or await _reread(database, task_id)
    if task.status not in WAITING or not patience:
        return task
    async with streams.listen(task.account_id, task_id=task_id) as listener:
        task = await _reread(database, task_id)
        try:
            async with asyncio.timeout(patience):
                while task.status in WAITING and await listener.next() is not NoEvent.END:
                    task = await _reread(database, task_id)
        except TimeoutError:
            task = await _reread(database, task_id)
    return task


async def _reread(database: Database, task_id: TaskId) -> Task:
    async with database.reading() as reader:
        return (await tasks.get_many(reader, [task_id]))[task_id]
