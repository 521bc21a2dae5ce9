"""What happens from now on, to whoever looks at a page: the API's own stream, while the session that opened it goes on."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.dashboard.doors import entered
from service.dashboard.inside import scope_of
from service.dashboard.rendering import GUARDS
from service.dashboard.sessions import Session
from service.dashboard.state import State


async def stream(request: Request[State]) -> Response:
    """Not resumed: a page that was away reads itself anew."""
    session = request.state["sessions"].read(request)
    return _signed_out() if session is None else _Live(request, session)


def _signed_out() -> Response:
    return Response("Sign in.\n", status_code=401, media_type="text/plain", headers=dict(GUARDS))


class _Live(Response):
    """The API's answer, as it comes."""

    def __init__(self, request: Request[State], session: Session) -> None:
        super().__init__()
        self._request = request
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request
        with request.state["sessions"].watching(self._session) as ended:
            # From here on nobody signs out without its being heard, so it is looked at now whether somebody has.
            visit = await entered(request)
            if visit is None:
                await _signed_out()(scope, receive, send)
                return
            inner = scope_of(request, visit.key, "GET", "/v1/events", headers={"accept": "text/event-stream"})
            await request.app.router(inner, _until(ended, receive), send)


def _until(ended: asyncio.Event, receive: Receive) -> Receive:
    """Once the session has ended its reader counts as gone."""

    async def received() -> Message:
        receiving = asyncio.ensure_future(receive())
        ending = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait((receiving, ending), return_when=asyncio.FIRST_COMPLETED)
            return {"type": "http.disconnect"} if ended.is_set() else await receiving
        finally:
            receiving.cancel()
            ending.cancel()

    return received
