"""JSON as Kling and its gateways write it: bytes to objects, and scalars that come as text or as number."""

import json
import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NoReturn

import msgspec

from service.domain.tasks import Unreadable

JSONObject = Mapping[str, object]

MAX_DEPTH: Final = 64
MAX_LAYERS: Final = 6  # an envelope in a gateway's wrapper in an envelope makes four
MAX_ID_LENGTH: Final = 512

# Kling counts in milliseconds, some gateways in seconds; as milliseconds, smaller numbers lie before 1973.
SMALLEST_MILLISECONDS: Final = 100_000_000_000
LATEST_SECONDS: Final = datetime(2200, 1, 1, tzinfo=UTC).timestamp()


def read_object(body: bytes) -> JSONObject:
    """
    Raises:
        Unreadable: not UTF-8, not JSON (NaN and Infinity are not), not an object, nested over 64 levels, or a
            name occurs twice with different values.
    """
    document = _read_quickly(body)
    if document is None:
        document = _read(body)
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:  # else it cannot be
        _check_depth(document)
    return document


def _read_quickly(body: bytes) -> JSONObject | None:
    """What is an object and says each name once, as nearly all do; None for whatever needs a closer look.

    In 4 us, where the standard library's decoder takes 11 with a look at each object.
    """
    if b"\\" in body:  # without it no text has a quotation mark in it, and each `":` ends a name
        return None
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    # Of a name that came twice one is left: there are fewer than in the text.
    names = body.translate(None, b" \t\r\n").count(b'":')
    return (
        document
        if isinstance(document, dict) and msgspec.json.encode(document).count(b'":') == names
        else None
    )


def _read(body: bytes) -> JSONObject:
    try:
        document = _DECODER.decode(body.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    except RecursionError:
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except Unreadable:
        raise
    except ValueError:
        raise Unreadable("a number in it is too long") from None
    if not isinstance(document, dict):
        raise Unreadable("it is not a JSON object")
    return document


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[name] != value for name, value in pairs):
        raise Unreadable("a name occurs twice in it, with different values")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unambiguous, parse_constant=_refuse_constant)


def _check_depth(document: object) -> None:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise Unreadable(f"it is nested deeper than {MAX_DEPTH} levels")


def _children(node: object) -> list[object]:
    match node:
        case dict():
            return [value for value in node.values() if isinstance(value, (dict, list))]
        case list():
            return [value for value in node if isinstance(value, (dict, list))]
        case _:
            return []


def layers(document: JSONObject) -> tuple[JSONObject, ...]:
    """The document, then what is in its `data`, then what is in that one's; a list of one counts as the one.

    A callback is one layer, a query's answer two, a query's answer in a gateway's wrapper three or four.
    """
    found = [document]
    while len(found) < MAX_LAYERS and (inner := _only_object(found[-1].get("data"))) is not None:
        found.append(inner)
    return tuple(found)


def _only_object(value: object) -> JSONObject | None:
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    return only if isinstance(only, dict) else None


def text(value: object) -> str | None:
    """Trimmed, and fit to be stored: no NUL (PostgreSQL has none), no lone surrogates. None when empty."""
    if not isinstance(value, str):
        return None
    if not value.isascii():
        value = value.encode(errors="replace").decode()
    return value.replace("\0", "").strip() or None


def identifier(value: object) -> str | None:
    """An id, which Kling writes as text and some gateways as a number."""
    if type(value) is int and 0 < value < 10**40:
        return str(value)
    found = text(value)
    return found if found is not None and len(found) <= MAX_ID_LENGTH else None


def number(value: object) -> float | None:
    """A finite number, also from its text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def moment(value: object) -> datetime | None:
    """From Unix milliseconds, as number or text."""
    found = number(value)
    if found is None or found <= 0:
        return None
    seconds = found / 1000 if found >= SMALLEST_MILLISECONDS else found
    return datetime.fromtimestamp(seconds, UTC) if seconds < LATEST_SECONDS else None
