"""Who shows an API key, at the doors for programs and for people alike."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from starlette.requests import HTTPConnection

from service.batching import Batcher
from service.domain.errors import KlingelError, TooManyFailures, Unauthenticated
from service.domain.ids import KeyId
from service.domain.secrets import hash_api_key
from service.doors.bodies import caller_known
from service.doors.guesses import Guesses
from storage import keys
from storage.database import Database, Transaction
from storage.keys import ApiKey

# In the scope of a request from inside of Klingel: the key of the person who is signed in. No client can set it.
SIGNED_IN: Final = "klingel.signed_in"

KNOWN_S: Final = 1.0  # for which a key is good without being looked up
MOST_KNOWN: Final = 1024

log = structlog.get_logger()


class KnownKeys:
    """Keys that were found good a moment ago: who asks again and again is not looked up each time.

    A revocation is told to `forget`, in this process with its commit and in others by a notice. Where that does not
    get through, a key is good for `KNOWN_S` more.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            monotonic: seconds that only grow.
        """
        self._monotonic = monotonic
        self._known: dict[str, tuple[ApiKey, float]] = {}  # by hash, with their ends
        self.forgotten = 0  # times

    def get(self, hashed: str) -> ApiKey | None:
        key, end = self._known.get(hashed, (None, 0.0))
        return key if self._monotonic() < end else None

    def remember(self, hashed: str, key: ApiKey, *, forgotten: int) -> None:
        """
        Args:
            forgotten: times, when the key was about to be looked up: it may have been revoked since.
        """
        if forgotten != self.forgotten:
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[hashed] = (key, self._monotonic() + KNOWN_S)

    def forget(self) -> None:
        """Some key is good no longer. That is so rare that all are looked up anew."""
        self._known.clear()
        self.forgotten += 1


async def recognise(
    given: str,
    connection: HTTPConnection[Any],
    *,
    database: Database,
    batcher: Batcher,
    guesses: Guesses,
    known: KnownKeys,
) -> ApiKey:
    """
    Args:
        given: the key itself.
        connection: by which it came.

    Raises:
        Unauthenticated: an unknown key, or a revoked one.
        TooManyFailures: as well, and too many before it from this address.
    """
    hashed = hash_api_key(given)
    if (key := known.get(hashed)) is not None:
        caller_known(connection)
        return key
    forgotten = known.forgotten
    # Looked up before anything is held against its address, which others may share: a right key works at any time.
    async with database.reading() as reader:
        key = await keys.by_hash(reader, hashed)
    if key is None or key.revoked_at is not None:
        raise _failed(connection, guesses)
    caller_known(connection)
    if key.sealed is not None:
        await _mark_used(key, batcher)
    else:
        known.remember(hashed, key, forgotten=forgotten)
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
