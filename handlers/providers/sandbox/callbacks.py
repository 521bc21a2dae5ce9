"""Callbacks on their way to their receivers. Source: Kling, "Callback protocol" pages."""

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import anyio
import httpx
from standardwebhooks import Webhook

from handlers.providers.sandbox.answers import Code, RequestError
from handlers.providers.sandbox.journal import Journal
from handlers.providers.sandbox.settings import SandboxSettings
from handlers.providers.sandbox.tasks import Clock

PARALLEL: Final = 64
MOST_RESPONSE_BYTES: Final = 64 * 1024
FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """`task_id` is the task it is sent for, whatever id its body carries."""

    task_id: str
    external_task_id: str | None
    url: str
    status_word: str
    body: bytes


def _origin(url: str) -> tuple[str, str, int | None]:
    """As the client sees it that dials it, which leaves a scheme's own port out.

    Raises:
        httpx.InvalidURL: it is none.
    """
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def check_way(url: str | None, *, origins: frozenset[str] | None) -> None:
    """
    Raises:
        RequestError: 1201, callbacks must go elsewhere.
    """
    if url is None or origins is None:
        return
    try:
        origin = _origin(url)
    except httpx.InvalidURL:
        raise RequestError(Code.BAD_VALUE, "callback_url is not a URL") from None
    if origin not in map(_origin, origins):
        raise RequestError(
            Code.BAD_VALUE,
            f"callback_url must lead to {' or '.join(sorted(origins))}: this sandbox calls nobody else",
        )


class Courier:
    """Posts callbacks, never following a redirect, and notes every attempt."""

    def __init__(
        self, client: httpx.AsyncClient, journal: Journal, settings: SandboxSettings, clock: Clock
    ) -> None:
        self._client = client
        self._journal = journal
        self._timeout_s = settings.callback_timeout.total_seconds()
        self._attempts = 1 + settings.callback_retries
        self._webhook = Webhook(settings.webhook_secret) if settings.webhook_secret else None
        self._clock = clock
        self._lanes = anyio.CapacityLimiter(PARALLEL)

    async def carry(self, callbacks: AsyncIterable[Callback]) -> None:
        """One after the other: a receiver sees one task's callbacks in the order they were put in."""
        async for callback in callbacks:
            await self._deliver(callback)

    async def _deliver(self, callback: Callback) -> None:
        message_id = uuid4().hex
        for attempt in range(self._attempts):
            if attempt:
                await anyio.sleep(min(FIRST_BACKOFF_S * 2 ** (attempt - 1), LONGEST_BACKOFF_S))
            if await self._attempt(callback, message_id):
                return

    async def _attempt(self, callback: Callback, message_id: str) -> bool:
        """Whether the receiver acknowledged."""
        http_status, error = None, None
        async with self._lanes:
            try:
                with anyio.fail_after(self._timeout_s):
                    http_status = await self._post(callback, message_id)
            except TimeoutError:
                error = "timeout"
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as failure:
                error = type(failure).__name__
        self._journal.attempted(
            task_id=callback.task_id,
            external_task_id=callback.external_task_id,
            url=callback.url,
            status_word=callback.status_word,
            http_status=http_status,
            error=error,
        )
        return http_status is not None and httpx.codes.is_success(http_status)

    async def _post(self, callback: Callback, message_id: str) -> int:
        headers = {
            "content-type": "application/json; charset=utf-8",
            **self._signature(callback.body, message_id),
        }
        async with self._client.stream(
            "POST", callback.url, content=callback.body, headers=headers, follow_redirects=False
        ) as response:
            received = 0
            async for chunk in response.aiter_raw():
                received += len(chunk)
                if received > MOST_RESPONSE_BYTES:
                    break
            return response.status_code

    def _signature(self, body: bytes, message_id: str) -> dict[str, str]:
        if self._webhook is None:
            return {}
        now = self._clock()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body.decode()),
        }
