"""Sessions of the dashboard that were ended before their time. One that goes on is in its cookie alone."""

from datetime import datetime

from storage.columns import milliseconds
from storage.database import Reader, Transaction


async def end(tx: Transaction, nonce: str, *, ends_at: datetime) -> None:
    """For good, also when it is said twice.

    Args:
        ends_at: when it would have ended by itself, and may be forgotten.
    """
    await tx.run("end_session", nonce=nonce, ends_at=milliseconds(ends_at))


async def has_ended(reader: Reader, nonce: str) -> bool:
    return bool(await reader.value("has_session_ended", nonce=nonce))
