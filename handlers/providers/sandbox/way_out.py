"""The way out of a sandbox that runs alone: through the guard that Klingel's own webhooks go through."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import httpx

from service.network.connections import NoAnswer
from service.network.dialler import Dialler, Guard, Refused, open_dialler

MOST_RESPONSE_BYTES: Final = 64 * 1024
_ITS_OWN: Final = frozenset({"host", "content-length", "connection"})


class CallbackRefused(httpx.ConnectError):
    """The guard does not let callbacks go there."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Dials what the guard lets pass. Open while its client is."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._stack = AsyncExitStack()
        self._dialler: Dialler | None = None

    async def __aenter__(self) -> Self:
        self._dialler = await self._stack.enter_async_context(open_dialler(self._guard))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._stack.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self._dialler is not None
        headers = {name: value for name, value in request.headers.items() if name not in _ITS_OWN}
        try:
            answer = await self._dialler.post(
                str(request.url), body=await request.aread(), headers=headers, read_limit=MOST_RESPONSE_BYTES
            )
        except Refused as refused:
            raise CallbackRefused(str(refused), request=request) from None
        except (NoAnswer, OSError) as error:
            raise httpx.ConnectError(type(error).__name__, request=request) from error
        return httpx.Response(answer.status, stream=httpx.ByteStream(answer.body))
