"""Who asks: API keys as bearer tokens."""

import structlog
from starlette.requests import Request

from service.api.state import State
from service.domain.errors import Forbidden, Unauthenticated
from service.domain.secrets import hash_api_key
from storage import keys
from storage.keys import ApiKey, KeyRole


async def authenticate(request: Request[State]) -> ApiKey:
    """
    Raises:
        Unauthenticated: no key, an unknown one, or a revoked one.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthenticated("Send an API key: Authorization: Bearer <key>.")
    async with request.state["database"].reading() as reader:
        key = await keys.by_hash(reader, hash_api_key(given.strip()))
    if key is None or key.revoked_at is not None:
        raise Unauthenticated("This API key is not known, or was revoked.")
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
