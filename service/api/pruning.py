"""`/v1/prune`: forgetting, on an admin's order."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate_admin
from service.api.state import State


async def prune(request: Request[State]) -> Response:
    """How many rows of each kind were forgotten."""
    await authenticate_admin(request)
    return JSONResponse(await request.state["retention"].prune())
