"""How every page is entered: who is signed in, whose form it is, and what is said when something is in the way."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final
from urllib.parse import parse_qsl, quote

from anyio.to_thread import run_sync
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.dashboard.rendering import guarded, render
from service.dashboard.sessions import Session
from service.dashboard.state import State
from service.domain.errors import Forbidden, InvalidRequest, KlingelError
from service.domain.ids import AccountId
from service.doors.bodies import SMALL_BODY, caller_known, read_body
from service.doors.sharing import room_for_body
from service.doors.statuses import status_of
from service.observability.logs import note
from storage import keys, sessions
from storage.keys import ApiKey, KeyRole

SIGN_IN: Final = "/sign-in"
STRANGERS_FORM: Final = 16 * 1024  # bytes of one that anybody may send
LARGEST_FORM: Final = SMALL_BODY  # of somebody who is signed in
LARGEST_UPLOAD: Final = 48 * 1024 * 1024  # of one with files: as Base64 it becomes what the API takes at most
LARGEST_FIELD: Final = 1024 * 1024  # beside its files
MOST_FIELDS: Final = 200  # and files
MOST_FILES: Final = 20
LONGEST_BOUNDARY: Final = 70  # RFC 2046, 5.1.1
LARGEST_HEAD: Final = 8 * 1024  # of a part
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
            async with read_form(request, limit=LARGEST_FORM) as form:
                check_form(request, visit.session, form)
                return guarded(await do(request, visit, form))
        except KlingelError as error:
            return guarded(refusal(request, visit, error))

    return handle


def upload(do: Do) -> Handler:
    """As `action`, for a form with files."""

    async def handle(request: Request[State]) -> Response:
        visit = await entered(request)
        if visit is None:
            return guarded(RedirectResponse(SIGN_IN, status_code=303))
        try:
            async with read_upload(request, visit) as form:
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
    """None for nobody. Signing out ends a session, and a revoked key every one that it began."""
    session = request.state["sessions"].read(request)
    if session is None or session.key_id is None:
        return None
    async with request.state["database"].reading() as reader:
        key = await keys.get(reader, session.key_id)
        has_ended = await sessions.has_ended(reader, session.nonce)
    if key is None or key.revoked_at is not None or has_ended:
        return None
    caller_known(request)
    note(account_id=key.account_id, key_id=key.id)
    return Visit(key, session)


def _to_sign_in(request: Request[State]) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link on somebody else's page brings no cookie of ours. Asked again from here, the browser sends it.
        return render(request, "again.html", session=Session("", None), key=None, here=here)
    return RedirectResponse(f"{SIGN_IN}?next={quote(here, safe='')}", status_code=303)


@asynccontextmanager
async def read_form(request: Request[State], *, limit: int) -> AsyncIterator[FormData]:
    """
    Args:
        limit: bytes; so few that it is parsed at once.

    Raises:
        TooLarge: it is more.
        InvalidRequest: no form.
    """
    body = await read_body(request, limit=limit)
    async with _closing(_parsed(request.headers, body)) as form:
        yield form


@asynccontextmanager
async def read_upload(request: Request[State], visit: Visit) -> AsyncIterator[FormData]:
    """Its files are there until the block ends, and count as what the account holds in memory.

    Raises:
        TooLarge: more than a submit may be.
        InvalidRequest: no form.
        Busy: there is no room for it now.
    """
    limit = LARGEST_UPLOAD if _kind(request.headers) == "multipart/form-data" else LARGEST_FORM
    with room_for_body(request.state["shares"].bodies, visit.account_id) as grown:
        body = await read_body(request, limit=limit, grown=grown)
        form = await run_sync(_parsed, request.headers, body)
        del body  # the form has it
        async with _closing(form):
            yield form


@asynccontextmanager
async def _closing(form: FormData) -> AsyncIterator[FormData]:
    try:
        yield form
    finally:
        await form.close()


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _parsed(headers: Headers, body: bytes) -> FormData:
    """
    Raises:
        InvalidRequest: no form.
    """
    kind = _kind(headers)
    try:
        if kind == "multipart/form-data":
            return _multipart(headers, body)
        if kind == "application/x-www-form-urlencoded":
            text = body.decode(errors="replace")
            return FormData([*parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)])
    except ValueError as error:
        raise InvalidRequest(f"The form cannot be read: {error}") from None
    raise InvalidRequest("This takes a form.")


def _multipart(headers: Headers, body: bytes) -> FormData:
    """All of it is in memory, so it is cut up at once: what takes time for each byte could take minutes.

    Raises:
        ValueError: with its fault.

    Source: RFC 7578, and RFC 2046, 5.1.1.
    """
    boundary = parse_options_header(headers["content-type"])[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= LONGEST_BOUNDARY:
        raise ValueError("it names no boundary.")
    # Before the first part there may be anything, or nothing, and then the line that ends it is not there either.
    delimiter = b"\r\n--" + boundary
    before, *parts = (b"\r\n" + body).split(delimiter, MOST_FIELDS + 2)
    if not parts:
        raise ValueError("its boundary is not in it.")
    del before
    items: list[tuple[str, str | UploadFile]] = []
    files = 0
    for part in parts:
        if part.startswith(b"--"):
            return FormData(items)
        name, item = _item(part)
        files += not isinstance(item, str)
        if len(items) == MOST_FIELDS or files > MOST_FILES:
            raise ValueError("it has too many parts.")
        items.append((name, item))
    raise ValueError("it has no end, or too many parts.")


def _item(part: bytes) -> tuple[str, str | UploadFile]:
    """A name, and a text or a file.

    Raises:
        ValueError: with its fault.
    """
    end = part.find(b"\r\n\r\n", 0, LARGEST_HEAD)
    if end < 0:
        raise ValueError("a part has no head, or too long a one.")
    disposition = next(
        (
            value
            for name, _, value in (line.partition(b":") for line in part[:end].split(b"\r\n"))
            if name.strip().lower() == b"content-disposition"
        ),
        b"",
    )
    options = parse_options_header(disposition)[1]
    if b"name" not in options:
        raise ValueError("a part has no name.")
    name = options[b"name"].decode(errors="replace")
    content = part[end + 4 :]
    if b"filename" in options:
        filename = options[b"filename"].decode(errors="replace")
        return name, UploadFile(BytesIO(content), size=len(content), filename=filename)
    if len(content) > LARGEST_FIELD:
        raise ValueError(f"{name[:100]} is longer than {LARGEST_FIELD} bytes.")
    return name, content.decode(errors="replace")


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
    note(problem=error.code)
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
