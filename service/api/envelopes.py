"""Kling's envelope, in which the drop-in API answers: also its errors, so that its clients read them as they are used to."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from service.api.answers import Json
from service.domain import errors
from service.domain.errors import Fault, KlingelError, Unprocessable
from service.domain.kling_shapes import STATUS
from service.domain.tasks import Refusal, TaskError
from service.observability.logs import noted

ROOT: Final = "/kling/"

NO_AUTHORIZATION: Final = 1001
NO_SUCH_METHOD: Final = 1202
INTERNAL: Final = 5000

CODES: Final[Mapping[type[KlingelError], int]] = {
    errors.InvalidRequest: 1200,
    errors.Unauthenticated: 1002,
    errors.Forbidden: 1103,
    errors.NotFound: 1203,
    errors.Conflict: 1201,
    errors.TooLarge: 1200,
    errors.Unprocessable: 1201,
    errors.BudgetExceeded: 1101,
    errors.ProviderRefused: 1201,
    errors.TooManyFailures: 1302,
    errors.TooManyRequests: 1302,
    errors.Unavailable: 5001,
}

# For a refusal to which the provider gave no code of Kling's. None: the task had waited too long.
OF_REFUSAL: Final[Mapping[Refusal | None, int]] = {
    Refusal.REQUEST: 1201,
    Refusal.EXISTS: 1201,
    Refusal.PAYMENT: 1101,
    Refusal.ACCOUNT: 1103,
    None: 5002,
}


def are_spoken(request: Request[Any]) -> bool:
    """Whether whoever asks there expects them."""
    return request.url.path.startswith(ROOT)


def envelope(
    code: int,
    message: str,
    *,
    data: object = None,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Json:
    """
    Args:
        status: where it is not the one that goes with the code.
    """
    content = {"code": code, "message": message, "request_id": _request_id()}
    if data is not None:
        content["data"] = data
    response = Json(content, status_code=status or STATUS[code], headers=headers)
    if response.status_code == 401:
        response.headers["www-authenticate"] = 'Bearer realm="klingel"'
    return response


def success(data: object) -> Json:
    return envelope(0, "SUCCEED", data=data, status=200)


def refusal(request: Request[Any], error: KlingelError) -> Json:
    """What Klingel itself turns down."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    status = 413 if isinstance(error, errors.TooLarge) else STATUS[code]
    if isinstance(error, errors.Unauthenticated) and not request.headers.get("authorization"):
        code = NO_AUTHORIZATION
    headers = {}
    if status == 503:
        headers["retry-after"] = "2"
    if status == 429 and "retry_after_s" in error.members:  # no wait mends a budget that is spent
        headers["retry-after"] = str(error.members["retry_after_s"])
    return envelope(code, _told(error), status=status, headers=headers)


def providers_refusal(error: TaskError) -> Json:
    """In the provider's own code and words."""
    code = next((code for code in STATUS if str(code) == error.code), OF_REFUSAL[error.refusal])
    return envelope(code, error.message)


def no_such_method(status: int, message: str, headers: Mapping[str, str] | None) -> Json:
    """404 or 405, as HTTP has it; to Kling both are 1202."""
    return envelope(NO_SUCH_METHOD, message, status=status, headers=headers)


def _told(error: KlingelError) -> str:
    """Every fault with its place: `image_list/0/image: …`."""
    faults = error.faults if isinstance(error, Unprocessable) else ()
    return " ".join(map(_fault, faults)) or error.detail


def _fault(fault: Fault) -> str:
    place = fault.pointer.removeprefix("#").removeprefix("/")
    return f"{place}: {fault.detail}" if place else fault.detail


def _request_id() -> str:
    """The one that the answer carries as `X-Request-Id`."""
    return noted("request_id")
