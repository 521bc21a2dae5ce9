"""Moments: aware UTC datetimes inside, RFC 3339 with milliseconds outside."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@lru_cache(maxsize=4096)  # what happens now is told several times in one event, and in the next one again
def rfc3339(moment: datetime) -> str:
    """`2026-11-22T05:30:00.123Z`: always UTC, always three digits, so that strings sort as moments do."""
    # It ends in `+00:00`. `strftime` takes four times as long, and an event has six moments.
    return moment.astimezone(UTC).isoformat("T", "milliseconds")[:-6] + "Z"


def optional_rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
