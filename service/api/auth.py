"""Who asks: API keys as bearer tokens."""

import math
from collections.abc import Sequence

import structlog
from starlette.requests import Request

from service.api.state import State
from service.domain.errors import Forbidden, KlingelError, TooManyFailures, Unauthenticated
from service.domain.ids import KeyId
from service.domain.secrets import hash_api_key
from storage import keys
from storage.database import Transaction
from storage.keys import ApiKey, KeyRole

log = structlog.get_logger()


async def authenticate(request: Request[State]) -> ApiKey:
    """
    Raises:
        Unauthenticated: no key, an unknown one, or a revoked one.
        TooManyFailures: as well, and too many before it from this address.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthenticated("Send an API key: Authorization: Bearer <key>.")
    # Looked up before anything is held against its address, which others may share: a right key works at any time.
    async with request.state["database"].reading() as reader:
        key = await keys.by_hash(reader, hash_api_key(given.strip()))
    if key is None or key.revoked_at is not None:
        raise _failed(request)
    structlog.contextvars.bind_contextvars(account_id=key.account_id, key_id=key.id)
    if key.sealed is not None:
        await _mark_used(request, key)
    return key


def _failed(request: Request[State]) -> Unauthenticated | TooManyFailures:
    guesses = request.state["key_guesses"]
    if wait := math.ceil(guesses.wait(request)):
        return TooManyFailures(
            f"Too many wrong API keys from your address. Wait {wait} seconds.", retry_after_s=wait
        )
    guesses.failed(request)
    return Unauthenticated("This API key is not known, or was revoked.")


async def _mark_used(request: Request[State], key: ApiKey) -> None:
    """The first key has reached somebody: it is not told again."""
    try:
        await request.state["batcher"].run(_forget, key.id)
    except KlingelError as error:
        # It is then told once more at the next start, which is no reason to turn its holder away.
        log.warning("key.use_not_recorded", key_id=key.id, reason=error.detail)


async def _forget(tx: Transaction, used: Sequence[KeyId]) -> list[None]:
    for key_id in used:
        await keys.mark_used(tx, key_id)
    return [None] * len(used)


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
