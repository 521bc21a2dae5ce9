"""Signing in with an API key, and out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.dashboard.doors import (
    STRANGERS_FORM,
    check_form,
    entered,
    local_path,
    read_form,
    refusal,
    text_of,
)
from service.dashboard.rendering import guarded, render
from service.dashboard.sessions import Session, Sessions
from service.dashboard.state import State
from service.domain.errors import Forbidden, KlingelError, Unauthenticated
from service.doors.recognition import recognise
from service.doors.statuses import status_of
from service.notices import Notices, Topic
from storage import sessions as ended_sessions
from storage.database import Transaction

NO_COOKIE: Final = (
    "Your browser sent no cookie with this form, so nobody can be signed in. Allow cookies for this address; if "
    "Klingel's public address begins with https, come by that one."
)


async def show(request: Request[State]) -> Response:
    if await entered(request) is not None:
        return guarded(RedirectResponse(local_path(request.query_params.get("next")), status_code=303))
    return _form(request, next=local_path(request.query_params.get("next")))


async def sign_in(request: Request[State]) -> Response:
    """The key is looked at once, and kept nowhere."""
    state = request.state
    next = "/"
    try:
        async with read_form(request, limit=STRANGERS_FORM) as form:
            next = local_path(text_of(form, "next"))
            session = state["sessions"].read(request)
            if session is None:
                raise Forbidden(NO_COOKIE)
            check_form(request, session, form)
            given = text_of(form, "key")
        if not given:
            raise Unauthenticated("Enter an API key.")
        key = await recognise(
            given,
            request,
            database=state["database"],
            batcher=state["batcher"],
            guesses=state["key_guesses"],
            known=state["known_keys"],
        )
    except KlingelError as error:
        return _form(request, next=next, error=error)
    response = RedirectResponse(next, status_code=303)
    state["sessions"].begin(response, key.id)
    return guarded(response)


async def sign_out(request: Request[State]) -> Response:
    """Also who is signed in no longer may say so; a form of somebody else's may not."""
    session = request.state["sessions"].read(request)
    response = RedirectResponse("/sign-in", status_code=303)
    if session is not None:
        try:
            async with read_form(request, limit=STRANGERS_FORM) as form:
                check_form(request, session, form)
            if session.key_id is not None:
                state = request.state
                await state["batcher"].run(_end, (session, state["sessions"], state["notices"]))
        except KlingelError as error:
            return guarded(refusal(request, await entered(request), error))
        request.state["sessions"].forget(response)
    return guarded(response)


async def _end(tx: Transaction, ended: Sequence[tuple[Session, Sessions, Notices]]) -> list[None]:
    """Who has a copy of the cookie has nothing, nor anything more of what goes on."""
    for session, sessions, notices in ended:
        await ended_sessions.end(tx, session.nonce, ends_at=datetime.fromtimestamp(session.ends, UTC))
        tx.on_commit(partial(sessions.end, session.nonce))
        await notices.post(tx, Topic.SESSIONS, [session.nonce])
    return [None] * len(ended)


def _form(request: Request[State], *, next: str, error: KlingelError | None = None) -> Response:
    """A visitor has a cookie too: the token in the form belongs to it."""
    sessions = request.state["sessions"]
    blank = Response()
    session = sessions.read(request)
    if session is None:
        session = sessions.begin(blank, None)
    status = 200 if error is None else status_of(error)
    response = render(
        request, "sign_in.html", session=session, key=None, status=status, next=next, error=error
    )
    for name, value in blank.raw_headers:
        if name == b"set-cookie":
            response.raw_headers.append((name, value))
    if error is not None and "retry_after_s" in error.members:
        response.headers["retry-after"] = str(error.members["retry_after_s"])
    return guarded(response)
