"""Who shows an API key, at the doors for programs and for people alike."""

import math
from collections.abc import Sequence
from typing import Any, Final

import structlog
from starlette.requests import HTTPConnection

from service.batching import Batcher
from service.bodies import caller_known
from service.domain.errors import KlingelError, TooManyFailures, Unauthenticated
from service.domain.ids import KeyId
from service.domain.secrets import hash_api_key
from service.guesses import Guesses
from storage import keys
from storage.database import Database, Transaction
from storage.keys import ApiKey

# In the scope of a request from inside of Klingel: the key of the person who is signed in. No client can set it.
SIGNED_IN: Final = "klingel.signed_in"

log = structlog.get_logger()


async def recognise(
    given: str,
    connection: HTTPConnection[Any],
    *,
    database: Database,
    batcher: Batcher,
    guesses: Guesses,
) -> ApiKey:
    """
    Args:
        given: the key itself.
        connection: by which it came.

    Raises:
        Unauthenticated: an unknown key, or a revoked one.
        TooManyFailures: as well, and too many before it from this address.
    """
    # Looked up before anything is held against its address, which others may share: a right key works at any time.
    async with database.reading() as reader:
        key = await keys.by_hash(reader, hash_api_key(given))
    if key is None or key.revoked_at is not None:
        raise _failed(connection, guesses)
    caller_known(connection)
    if key.sealed is not None:
        await _mark_used(key, batcher)
    return key


def _failed(connection: HTTPConnection[Any], guesses: Guesses) -> Unauthenticated | TooManyFailures:
    if wait := math.ceil(guesses.wait(connection)):
        return TooManyFailures(
            f"Too many wrong API keys from your address. Wait {wait} seconds.", retry_after_s=wait
        )
    guesses.failed(connection)
    return Unauthenticated("This API key is not known, or was revoked.")


async def _mark_used(key: ApiKey, batcher: Batcher) -> None:
    """The first key has reached somebody: it is not told again."""
    try:
        await batcher.run(_forget, key.id)
    except KlingelError as error:
        # It is then told once more at the next start, which is no reason to turn its holder away.
        log.warning("key.use_not_recorded", key_id=key.id, reason=error.detail)


async def _forget(tx: Transaction, used: Sequence[KeyId]) -> list[None]:
    for key_id in used:
        await keys.mark_used(tx, key_id)
    return [None] * len(used)
