"""Who asks: API keys as bearer tokens."""

import math

import structlog
from starlette.requests import Request

from service.api.state import State
from service.domain.errors import Forbidden, TooManyFailures, Unauthenticated
from service.domain.secrets import hash_api_key
from storage import keys
from storage.keys import ApiKey, KeyRole


async def authenticate(request: Request[State]) -> ApiKey:
    """
    Raises:
        Unauthenticated: no key, an unknown one, or a revoked one.
        TooManyFailures: too many unknown ones from this address.
    """
    guesses = request.state["key_guesses"]
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthenticated("Send an API key: Authorization: Bearer <key>.")
    key_hash = hash_api_key(given.strip())
    if not guesses.is_worth_a_look(key_hash, request):
        wait = math.ceil(guesses.wait(request))
        raise TooManyFailures(
            f"Too many wrong API keys from your address. Wait {wait} seconds.", retry_after_s=wait
        )
    async with request.state["database"].reading() as reader:
        key = await keys.by_hash(reader, key_hash)
    if key is None or key.revoked_at is not None:
        guesses.failed(request)
        raise Unauthenticated("This API key is not known, or was revoked.")
    guesses.worked(key_hash)
    structlog.contextvars.bind_contextvars(account_id=key.account_id, key_id=key.id)
    return key


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
