"""Errors become problems (RFC 9457), here and nowhere else."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from service.api import envelopes
from service.domain.errors import Fault, KlingelError, Unprocessable
from service.doors.statuses import status_of
from service.observability.logs import note

MEDIA_TYPE: Final = "application/problem+json"

log = structlog.get_logger()


def problem(
    status: int,
    detail: str,
    *,
    type: str = "about:blank",
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    **members: object,
) -> JSONResponse:
    content: dict[str, Any] = {
        "type": type,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    if faults:
        content["errors"] = [{"detail": fault.detail, "pointer": fault.pointer} for fault in faults]
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def problem_of(error: KlingelError) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="klingel"'
    if status == 503:
        headers["retry-after"] = "2"
    if status == 429:
        headers["retry-after"] = str(error.members["retry_after_s"])
    faults = error.faults if isinstance(error, Unprocessable) else ()
    return problem(
        status, error.detail, type=f"/problems/{error.code}", faults=faults, headers=headers, **error.members
    )


async def on_klingel_error(request: Request[Any], error: Exception) -> Response:
    assert isinstance(error, KlingelError)
    note(problem=error.code)
    return envelopes.refusal(request, error) if envelopes.are_spoken(request) else problem_of(error)


async def on_http_exception(request: Request[Any], error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    told, headers = error.detail, error.headers
    match error.status_code:
        case 404:
            told = f"There is nothing at {path}."
        case 405:
            told = f"{request.method} is not possible at {path}."
            headers = {"allow": ", ".join(_allowed(request))}
    if envelopes.are_spoken(request):
        return envelopes.no_such_method(error.status_code, told, headers)
    return problem(error.status_code, told, headers=headers)


def _allowed(request: Request[Any]) -> Sequence[str]:
    """The methods of all routes to this path; Starlette itself names those of the first one only."""
    here = (
        route.methods or ()
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    return sorted({method for methods in here for method in methods})


async def on_unexpected(request: Request[Any], error: Exception) -> Response:
    """Tells the client nothing of it: the traceback is in the log, under the request's id."""
    log.error("request.broke", exc_info=error)
    told = "Klingel made a mistake. It is logged; nothing was stored half."
    if envelopes.are_spoken(request):
        return envelopes.envelope(envelopes.INTERNAL, told)
    return problem(500, told)


async def on_hung_up(request: Request[Any], error: Exception) -> Response:
    """The client left in the middle of its own request: nobody reads this but our log (nginx's number for it)."""
    return Response(status_code=499)


EXCEPTION_HANDLERS: Final[Mapping[Any, Any]] = {
    KlingelError: on_klingel_error,
    HTTPException: on_http_exception,
    ClientDisconnect: on_hung_up,
    Exception: on_unexpected,
}
