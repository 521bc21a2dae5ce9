"""The way to providers: httpx's pool of connections."""

import asyncio

import httpx

from service.loading import Later


class LateTransport(httpx.AsyncBaseTransport):
    """Made with the first request: what it imports, and to read whom TLS trusts, takes 0.1 s."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._pool = Later(self._made)

    async def _made(self) -> httpx.AsyncHTTPTransport:
        return await asyncio.to_thread(httpx.AsyncHTTPTransport, limits=self._limits, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await (await self._pool()).handle_async_request(request)

    async def aclose(self) -> None:
        if self._pool.is_loaded:
            await (await self._pool()).aclose()
