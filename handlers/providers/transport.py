"""The way to providers, opened when there is something to say to one."""

import asyncio

import httpx

from service.loading import Later


class LateTransport(httpx.AsyncBaseTransport):
    """Made with the first request: what it imports, and to read whom TLS trusts, takes 0.1 s."""

    def __init__(self) -> None:
        self._transport = Later(self._made)

    async def _made(self) -> httpx.AsyncBaseTransport:
        return await asyncio.to_thread(_transport)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await (await self._transport()).handle_async_request(request)

    async def aclose(self) -> None:
        if self._transport.is_loaded:
            await (await self._transport()).aclose()


def _transport() -> httpx.AsyncBaseTransport:
    from handlers.providers.connections import Transport  # noqa: PLC0415 - only for who has something to say

    return Transport()
