"""Who asks: API keys as bearer tokens."""

from starlette.requests import Request

from service.api.state import State
from service.domain.errors import Forbidden, Unauthenticated
from service.doors.recognition import SIGNED_IN, recognise
from service.observability.logs import note
from storage.keys import ApiKey, KeyRole


async def authenticate(request: Request[State]) -> ApiKey:
    """
    Raises:
        Unauthenticated: no key, an unknown one, or a revoked one.
        TooManyFailures: as well, and too many before it from this address.
    """
    key: ApiKey | None = request.scope.get(SIGNED_IN)
    if key is None:
        key = await _bearer(request)
    note(account_id=key.account_id, key_id=key.id)
    return key


async def _bearer(request: Request[State]) -> ApiKey:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthenticated("Send an API key: Authorization: Bearer <key>.")
    state = request.state
    return await recognise(
        given.strip(),
        request,
        database=state["database"],
        batcher=state["batcher"],
        guesses=state["key_guesses"],
        known=state["known_keys"],
    )


async def authenticate_admin(request: Request[State]) -> ApiKey:
    """
    Raises:
        Unauthenticated: as `authenticate`.
        Forbidden: a member's key.
    """
    key = await authenticate(request)
    if key.role is not KeyRole.ADMIN:
        raise Forbidden("This needs an admin key.")
    return key
