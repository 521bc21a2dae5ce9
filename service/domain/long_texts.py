"""JSON with a few long texts in it, pictures as Base64: read and written without holding up the event loop.

A parser is one step for the interpreter, in which nothing else runs, whatever thread it is in; and many small values
take many times the room of their JSON. So it never sees the long texts, and what is left of the body is limited.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.domain.errors import TooLarge

LONG: Final = 64 * 1024  # bytes or characters, without quotes

_SHORT: Final = 64
_QUOTE: Final = b'"'
_BACKSLASH: Final = b"\\"
_CONTROL_CHARACTERS: Final = [bytes([code]) for code in range(0x20)]
# What some encoders write in Base64: PHP's escapes each slash, others break lines.
_ESCAPES: Final = ((b"\\/", b"/"), (b"\\n", b"\n"), (b"\\r", b"\r"))


def read_large(body: bytes, parse: Callable[[bytes], Any], *, limit: int) -> Any:
    """
    Args:
        parse: sees the body with short texts in place of the long ones.

    Raises:
        TooLarge: what is left without the long texts has more bytes than the limit.
    """
    mark = secrets.token_hex(16)
    rest, texts = _taken_out(body, mark, limit=limit)
    return _put_back(parse(rest), {f"{mark}{place}": text for place, text in enumerate(texts)})


def holds_long_texts(value: Any) -> bool:
    """Whether `value`, all JSON, is worth a thread to be written."""
    match value:
        case str():
            return len(value) > LONG
        case Mapping():
            return any(map(holds_long_texts, value.values()))
        case list():
            return any(map(holds_long_texts, value))
        case _:
            return False


def dump_large(value: Any) -> bytes:
    """As `json.dumps`, in ASCII; not for the event loop."""
    mark = secrets.token_hex(16)
    texts: list[str] = []

    def marked(part: Any) -> Any:
        match part:
            case str() if len(part) > LONG and _is_plain(part):
                texts.append(part)
                return mark
            case Mapping():
                return {name: marked(member) for name, member in part.items()}
            case list():
                return [marked(entry) for entry in part]
            case _:
                return part

    first, *others = json.dumps(marked(value)).split(mark)
    return b"".join(
        [first.encode(), *(part.encode() for pair in zip(texts, others, strict=True) for part in pair)]
    )


def _is_plain(text: str) -> bool:
    # JSON lets DEL stand; `json.dumps` escapes it.
    return text.isascii() and "\x7f" not in text and _no_escape_needed(text.encode())


def _no_escape_needed(raw: bytes) -> bool:
    return not any(character in raw for character in (_QUOTE, _BACKSLASH, *_CONTROL_CHARACTERS))


def _taken_out(body: bytes, mark: str, *, limit: int) -> tuple[bytes, list[str]]:
    """The JSON with the mark and a number in place of each long text that can be read without a parser."""
    parts: list[bytes] = []
    texts: list[str] = []
    size = written = 0
    opening = body.find(_QUOTE)
    while opening >= 0 and size + opening - written <= limit:
        closing = _closing_quote(body, opening, limit=limit)
        if closing is None:
            break
        text = _plain_text(body[opening + 1 : closing]) if closing - opening > LONG else None
        if text is not None:
            part = body[written : opening + 1] + f"{mark}{len(texts)}".encode()
            parts.append(part)
            size += len(part)
            texts.append(text)
            written = closing
        opening = body.find(_QUOTE, closing + 1)
    if size + len(body) - written > limit:
        raise TooLarge(
            f"The body has more than {limit // (1024 * 1024)} MiB besides its Base64 pictures.",
            limit_bytes=limit,
        )
    return b"".join([*parts, body[written:]]), texts


def _closing_quote(body: bytes, opening: int, *, limit: int) -> int | None:
    """Where the text that begins at `opening` ends. None if nowhere, or if it has escaped quotes in it and is longer
    than the limit: no picture, then, and looking on would take long.
    """
    closing = body.find(_QUOTE, opening + 1)
    while closing >= 0:
        backslashes = _backslashes(body, opening + 1, closing, most=limit)
        if backslashes % 2 == 0 and backslashes < limit:
            return closing
        if closing - opening > limit:
            return None
        closing = body.find(_QUOTE, closing + 1)
    return None


def _backslashes(body: bytes, start: int, end: int, *, most: int) -> int:
    """How many stand right before `end`; mostly none, so a short look comes first."""
    number = 0
    for reach in (_SHORT, most):
        before = body[max(start, end - reach) : end]
        number = len(before) - len(before.rstrip(_BACKSLASH))
        if number < _SHORT:
            break
    return number


def _plain_text(raw: bytes) -> str | None:
    """None unless it is ASCII, without control characters or any escapes but those of Base64."""
    if not raw.isascii() or any(character in raw for character in _CONTROL_CHARACTERS):
        return None
    if _BACKSLASH in raw:
        for escape, character in _ESCAPES:
            raw = raw.replace(escape, character)
        if _BACKSLASH in raw:
            return None
    return raw.decode("ascii")


def _put_back(value: Any, texts: Mapping[str, str]) -> Any:
    match value:
        case str():
            return texts.get(value, value)
        case dict():
            return {texts.get(name, name): _put_back(member, texts) for name, member in value.items()}
        case list():
            return [_put_back(entry, texts) for entry in value]
        case _:
            return value
