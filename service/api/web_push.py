"""`/v1/web-push/key`: what a browser needs to subscribe."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.auth import authenticate
from service.api.state import State


async def key(request: Request[State]) -> Response:
    """For `pushManager.subscribe`, as `applicationServerKey`. It changes when KLINGEL_SECRET does; subscriptions made
    under a former key still deliver.
    """
    await authenticate(request)
    return JSONResponse({"public_key": request.state["push_keys"].public})
