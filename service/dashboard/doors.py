"""How every page is entered: who is signed in, whose form it is, and what is said when something is in the way."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import structlog
from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.bodies import read_body
from service.dashboard.rendering import guarded, render
from service.dashboard.sessions import Session
from service.dashboard.state import State
from service.domain.errors import Forbidden, InvalidRequest, KlingelError
from service.domain.ids import AccountId
from service.statuses import status_of
from storage import keys
from storage.keys import ApiKey, KeyRole

SIGN_IN: Final = "/sign-in"
LARGEST_FORM: Final = 48 * 1024 * 1024  # as Base64 it becomes what the API takes at most
LARGEST_PART: Final = 11 * 1024 * 1024
MOST_FIELDS: Final = 200
MOST_FILES: Final = 20
LONGEST_PATH: Final = 2048


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who is signed in, at a page."""

    key: ApiKey
    session: Session

    @property
    def account_id(self) -> AccountId:
        return self.key.account_id

    @property
    def is_admin(self) -> bool:
        return self.key.role is KeyRole.ADMIN

    def render(
        self, request: Request[State], template: str, *, status: int = 200, **context: object
    ) -> Response:
        return render(request, template, session=self.session, key=self.key, status=status, **context)


Show = Callable[[Request[State], Visit], Awaitable[Response]]
Do = Callable[[Request[State], Visit, FormData], Awaitable[Response]]
Handler = Callable[[Request[State]], Awaitable[Response]]


def page(show: Show) -> Handler:
    """For who is signed in; others are asked to, and come back here."""

    async def handle(request: Request[State]) -> Response:
        visit = await entered(request)
        if visit is None:
            return guarded(_to_sign_in(request))
        try:
            return guarded(await show(request, visit))
        except KlingelError as error:
            return guarded(refusal(request, visit, error))

    return handle


def action(do: Do) -> Handler:
    """For a form that this session was shown."""

    async def handle(request: Request[State]) -> Response:
        visit = await entered(request)
        if visit is None:
            return guarded(RedirectResponse(SIGN_IN, status_code=303))
        try:
            async with read_form(request) as form:
                check_form(request, visit.session, form)
                return guarded(await do(request, visit, form))
        except KlingelError as error:
            return guarded(refusal(request, visit, error))

    return handle


def admins(show: Show) -> Show:
    async def shown(request: Request[State], visit: Visit) -> Response:
        if not visit.is_admin:
            raise Forbidden("This needs an admin key.")
        return await show(request, visit)

    return shown


async def entered(request: Request[State]) -> Visit | None:
    """None for nobody. A revoked key ends every session that it began."""
    session = request.state["sessions"].read(request)
    if session is None or session.key_id is None:
        return None
    async with request.state["database"].reading() as reader:
        key = await keys.get(reader, session.key_id)
    if key is None or key.revoked_at is not None:
        return None
    structlog.contextvars.bind_contextvars(account_id=key.account_id, key_id=key.id)
    return Visit(key, session)


def _to_sign_in(request: Request[State]) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link on somebody else's page brings no cookie of ours. Asked again from here, the browser sends it.
        return render(request, "again.html", session=Session("", None), key=None, here=here)
    return RedirectResponse(f"{SIGN_IN}?next={quote(here, safe='')}", status_code=303)


@asynccontextmanager
async def read_form(request: Request[State]) -> AsyncIterator[FormData]:
    """Its files are there until the block ends.

    Raises:
        TooLarge: more than a submit may be.
        InvalidRequest: no form.
    """
    form = await _parsed(request, await read_body(request, limit=LARGEST_FORM))
    try:
        yield form
    finally:
        await form.close()


async def _parsed(request: Request[State], body: bytes) -> FormData:
    """
    Raises:
        InvalidRequest: no form.
    """

    async def stream() -> Any:
        yield body
        yield b""

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            parser = MultiPartParser(
                request.headers,
                stream(),
                max_files=MOST_FILES,
                max_fields=MOST_FIELDS,
                max_part_size=LARGEST_PART,
            )
            parser.spool_max_size = LARGEST_FORM  # it is in memory already, and needs no disk
            return await parser.parse()
        if kind == "application/x-www-form-urlencoded":
            return await FormParser(request.headers, stream()).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidRequest(f"The form cannot be read: {error}") from None
    raise InvalidRequest("This takes a form.")


def check_form(request: Request[State], session: Session, form: FormData) -> None:
    """
    Raises:
        Forbidden: it was sent by another page, or by one of a session that has ended.
    """
    token = form.get("form_token")
    if not isinstance(token, str) or not request.state["sessions"].is_form_of(session, token):
        raise Forbidden(
            "This form is not of your session, or of one that has ended. Load the page again and send it again."
        )


def refusal(request: Request[State], visit: Visit | None, error: KlingelError) -> Response:
    structlog.contextvars.bind_contextvars(problem=error.code)
    session = Session("", None) if visit is None else visit.session
    return render(
        request,
        "refusal.html",
        session=session,
        key=None if visit is None else visit.key,
        status=status_of(error),
        error=error,
    )


def text_of(form: FormData, name: str) -> str:
    """Empty for what is not there, and for a file."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def back_to(path: str, *, done: str | None = None) -> Response:
    """So that loading the page again does nothing twice."""
    joint = "&" if "?" in path else "?"
    return RedirectResponse(path if done is None else f"{path}{joint}done={done}", status_code=303)


def local_path(path: str | None) -> str:
    """A page of ours, never another host's: to a browser a second slash, or a backslash, begins one."""
    usable = (
        path is not None
        and len(path) <= LONGEST_PATH
        and path.startswith("/")
        and not path.startswith(("//", "/\\"))
        and path.isprintable()
        and "\\" not in path
    )
    return path if usable and path is not None else "/"
