"""Whether the public URL leads here: a callback URL that no task has, called through it from outside in."""

import asyncio
import hmac
import json
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import httpx

from service.batching import Batcher
from service.domain.ids import TaskId, new_task_id
from service.domain.secrets import CallbackTokens
from service.notices import Notices, Topic
from storage.database import Transaction

TIMEOUT_S: Final = 15.0
TOLD_WITHIN_S: Final = 3.0  # after the answer, where it came in at another process

_BODY: Final = re.compile(rb'\{"probe": "[\w-]{43}"\}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """How one call through the public URL went.

    Args:
        public_url: where callbacks are sent to.
        reached: whether the call arrived here, or at another process of this database, as it was sent.
        status_code: of the answer; None where there was none.
        problem: why it was not reached.
    """

    public_url: str
    reached: bool
    status_code: int | None
    duration_ms: int
    problem: str | None


@dataclass(slots=True)
class _Awaited:
    body: bytes
    came: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: bool = field(default=False)


class Probes:
    """One at a time. The URL is genuine, and good for nothing once the call has ended: there is no such task."""

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        tokens: CallbackTokens,
        provider: str,
        base_url: str,
        batcher: Batcher,
        notices: Notices,
    ) -> None:
        self._batcher = batcher
        self._notices = notices
        notices.on(Topic.PROBES, self._hear)
        self._client = client
        self._tokens = tokens
        self._provider = provider
        self._base_url = base_url
        self._turn = asyncio.Lock()
        self._awaited: dict[str, _Awaited] = {}

    def arrived(self, task_id: str, body: bytes) -> bool:
        """Whether a callback with a genuine token is a probe's. It is no task's then, and to be answered 200."""
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return False
        awaited.arrived = hmac.compare_digest(awaited.body, body)
        awaited.came.set()
        return True

    async def passed_on(self, task_id: str, body: bytes) -> bool:
        """Whether what came about a task that is none looks like a probe of another process, which is told then."""
        if not self._notices.has_others or _BODY.fullmatch(body) is None:
            return False
        await self._batcher.run(self._tell, f"{task_id} {body.decode()}")
        return True

    async def _tell(self, tx: Transaction, probes: Sequence[str]) -> list[None]:
        await self._notices.post(tx, Topic.PROBES, probes)
        return [None] * len(probes)

    def _hear(self, name: str) -> None:
        task_id, body = name.split(" ", 1)
        self.arrived(task_id, body.encode())

    async def run(self) -> Probed:
        async with self._turn:
            task_id = new_task_id()
            awaited = _Awaited(json.dumps({"probe": secrets.token_urlsafe(32)}).encode())
            self._awaited[task_id] = awaited
            started = time.monotonic()
            try:
                status_code, problem = await self._call(task_id, awaited)
            finally:
                del self._awaited[task_id]
            took = round((time.monotonic() - started) * 1000)
        return Probed(
            public_url=self._base_url,
            reached=problem is None,
            status_code=status_code,
            duration_ms=took,
            problem=problem,
        )

    async def _call(self, task_id: TaskId, awaited: _Awaited) -> tuple[int | None, str | None]:
        token = self._tokens.sign(self._provider, task_id)
        url = f"{self._base_url}/callbacks/{self._provider}/{task_id}/{token}"
        headers = {"content-type": "application/json; charset=utf-8"}
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.stream(
                    "POST", url, content=awaited.body, headers=headers, timeout=TIMEOUT_S
                ) as answer,
            ):
                pass  # the status is all that is wanted: whoever answers may send what it likes
        except TimeoutError:
            return None, f"no answer within {TIMEOUT_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, str(error) or type(error).__name__
        if answer.is_success and self._notices.has_others:
            with suppress(TimeoutError):
                async with asyncio.timeout(TOLD_WITHIN_S):
                    await awaited.came.wait()
        if answer.is_success and awaited.arrived:
            return answer.status_code, None
        if answer.is_redirect:
            return (
                answer.status_code,
                f"it is redirected to {_origin(url, answer)}, and a provider need not follow",
            )
        if awaited.arrived:
            return answer.status_code, f"it arrived, but {answer.status_code} was answered on the way back"
        return answer.status_code, f"something else answers there: {answer.status_code}"


def _origin(url: str, answer: httpx.Response) -> str:
    """Where a redirect leads, without the path: the token may stand in it."""
    try:
        to = httpx.URL(url).join(answer.headers.get("location", ""))
    except httpx.InvalidURL:
        return "nowhere"
    return f"{to.scheme}://{to.netloc.decode()}"
