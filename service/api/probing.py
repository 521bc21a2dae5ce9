"""`/v1/probe`: whether a provider's callbacks would arrive, on an admin's order."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate_admin
from service.api.state import State


async def probe(request: Request[State]) -> Response:
    """Klingel calls itself through its public URL, at a callback URL that no task has, and says whether that came through.

    No provider is asked, and nothing is stored.
    """
    await authenticate_admin(request)
    return JSONResponse(asdict(await request.state["probes"].run()))
