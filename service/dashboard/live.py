"""What happens from now on, to whoever looks at a page: the API's own stream, for the session that is signed in."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dashboard.doors import entered
from service.dashboard.inside import scope_of
from service.dashboard.rendering import GUARDS
from service.dashboard.state import State


class _PassedOn(Response):
    """The API's answer, as it comes."""

    def __init__(self, request: Request[State], inner: Scope) -> None:
        super().__init__()
        self._router = request.app.router
        self._inner = inner

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(self._inner, receive, send)


async def stream(request: Request[State]) -> Response:
    """Not resumed: a page that was away reads itself anew."""
    visit = await entered(request)
    if visit is None:
        return Response("Sign in.\n", status_code=401, media_type="text/plain", headers=dict(GUARDS))
    inner = scope_of(request, visit.key, "GET", "/v1/events", headers={"accept": "text/event-stream"})
    return _PassedOn(request, inner)
