"""HTTP answers of Kling, and of gateways before it that answer in its place, read as far as they can be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from handlers.providers.kling.documents import JSONObject, layers, read_object, text
from service.domain.tasks import Unreadable
from service.domain.times import utc_now

SUCCESS_WORDS: Final = frozenset({"0", "200", "success", "succeed", "succeeded", "ok"})
KLING_CODE: Final = re.compile(r"[1-9]\d{3}", re.ASCII)
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)

# Bounds the search for words; far above what is shown, so that a message is redacted before it is cut to that.
LONGEST_MESSAGE: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer as received.

    Args:
        headers: names in any case that the mapping answers to in lower case.
        body: empty when it was over the limit.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply in so far as it could be read; Kling's own shape, a gateway's error object, or neither."""

    status: int
    is_page: bool
    layers: tuple[JSONObject, ...]  # none: not a JSON object
    has_error: bool  # it carries an error object, or a code that is no success
    kling_code: str | None
    gateway_code: str | None
    message: str | None
    location: str | None
    retry_after: timedelta | None

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300 and bool(self.layers) and not self.has_error


def read_answer(reply: Reply) -> Answer:
    found: tuple[JSONObject, ...] = ()
    try:
        found = layers(read_object(reply.body))
    except Unreadable:
        message = None if _is_page(reply) else text(reply.body.decode(errors="replace"))
    else:
        message = _message(found)
    codes = [code for code in _codes(found) if code.casefold() not in SUCCESS_WORDS]
    return Answer(
        status=reply.status,
        is_page=not found and _is_page(reply),
        layers=found,
        has_error=bool(codes) or any(layer.get("error") for layer in found[:1]),
        kling_code=next((code for code in codes if KLING_CODE.fullmatch(code)), None),
        gateway_code=next((code for code in codes if not KLING_CODE.fullmatch(code)), None),
        message=None if message is None else message[:LONGEST_MESSAGE],
        location=reply.headers.get("location"),
        retry_after=_retry_after(reply.headers),
    )


def _is_page(reply: Reply) -> bool:
    named = reply.headers.get("content-type", "").casefold().startswith("text/html")
    return named or reply.body.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))


def _codes(found: tuple[JSONObject, ...]) -> list[str]:
    """Every `code`, outermost first; then that of the error object, which only the outermost layer has."""
    values = [layer.get("code") for layer in found]
    match found:
        case [{"error": {"code": code}}, *_]:
            values.append(code)
        case _:
            pass
    codes = [str(value) if _is_small_integer(value) else text(value) for value in values]
    return [code for code in codes if code is not None]


def _is_small_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9


def _message(found: tuple[JSONObject, ...]) -> str | None:
    """The error object's message, else the innermost, which is nearest to Kling."""
    match found:
        case [{"error": {"message": message}}, *_] | [{"error": message}, *_] if text(message) is not None:
            return text(message)
        case _:
            messages = (
                text(layer.get(name)) for layer in reversed(found) for name in ("message", "msg", "detail")
            )
            return next((message for message in messages if message is not None), None)


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """RFC 9110 section 10.2.3, at most an hour. A date is taken relative to the answer's own, so skew is nothing."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        wait = timedelta(seconds=min(int(value[:10]), LONGEST_RETRY_AFTER.seconds))
    elif (until := http_date(value)) is not None:
        wait = until - (http_date(headers.get("date", "")) or utc_now())
    else:
        return None
    return min(max(wait, timedelta()), LONGEST_RETRY_AFTER)


def http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)
