"""`/openapi.json`: what this API is, for programs that read such things."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.api.state import State


def described_with(
    configs: Mapping[str, type[BaseModel]], bots: Mapping[str, type[BaseModel]]
) -> Callable[[Request[State]], Awaitable[Response]]:
    """
    Args:
        configs: how each kind of endpoint is configured; the kinds are the composition root's to know.
        bots: how a bot on each platform is.
    """

    @cache
    def document() -> bytes:
        from service.api.description.document import describe  # noqa: PLC0415 - 40 ms and 3 MB, for who reads it

        return to_json(describe(configs, bots))

    async def openapi(request: Request[State]) -> Response:
        return Response(await asyncio.to_thread(document), media_type="application/json")

    return openapi
