"""`service.domain.long_texts`: JSON whose long texts no parser sees says the same as any other."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.errors import TooLarge
from service.domain.long_texts import LONG, dump_large, holds_long_texts, read_large

# Of an example with a long text, should it have to be told.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

LIMIT = 1024 * 1024
LONG_TEXT = "QUJD" * (LONG // 4 + 1)
SHORT_TEXTS = st.text() | st.sampled_from(["\\", '"', '\\\\"', "a/b", "\n", "é", "\ud800"])
LONG_TEXTS = st.builds(lambda start, end: start + LONG_TEXT + end, SHORT_TEXTS, SHORT_TEXTS)
VALUES = st.recursive(
    SHORT_TEXTS | LONG_TEXTS | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SHORT_TEXTS, inner, max_size=4),
    max_leaves=8,
)


def read(body: bytes, *, limit: int = LIMIT) -> Any:
    return read_large(body, json.loads, limit=limit)


@given(VALUES, st.booleans())
@example([LONG_TEXT + "\\"], True)
@example({LONG_TEXT: LONG_TEXT}, True)
def test_what_is_read_is_what_was_written(value: Any, in_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=in_ascii).encode(errors="surrogatepass")
    assert read(body) == json.loads(body.decode(errors="surrogatepass"))


@given(VALUES)
@example(LONG_TEXT + "\x7f")
def test_what_is_dumped_is_what_json_would_be(value: Any) -> None:
    assert dump_large(value) == json.dumps(value).encode()


@pytest.mark.parametrize("value", [LONG_TEXT, [1, {"a": LONG_TEXT}], {"image_list": [{"image": LONG_TEXT}]}])
def test_long_texts_are_found_wherever_they_are(value: Any) -> None:
    assert holds_long_texts(value)
    assert not holds_long_texts(json.loads(json.dumps(value).replace(LONG_TEXT, "short")))


def test_only_what_is_left_without_the_long_texts_is_limited() -> None:
    body = json.dumps({"pictures": [LONG_TEXT] * 20, "prompt": "a cat"}).encode()
    assert len(body) > LIMIT
    assert read(body)["pictures"] == [LONG_TEXT] * 20
    parsed: list[bytes] = []
    read_large(body, lambda rest: parsed.append(rest) or json.loads(rest), limit=LIMIT)
    assert len(parsed[0]) < 2000


def test_slashes_and_line_breaks_may_be_escaped() -> None:
    """As PHP writes slashes, and others break the lines of Base64."""
    text = ("ab/+" * 19 + "\n") * 2000
    body = json.dumps({"image": text}).replace("/", "\\/").encode()
    assert read(body, limit=1000) == {"image": text}


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * LIMIT + b"1]",
        b"[" + b'"",' * LIMIT + b"1]",
        b'["' + b'\\"' * 2 * LIMIT + b'"]',
        b'["' + b"\\\\" * 2 * LIMIT + b'"]',
        b'["' + (b"\\" * (LIMIT + 1) + b'"') * 3,
        b'["' + b"\\u0041" * LIMIT + b'"]',
        b'["' + "é".encode() * LIMIT + b'"]',
        b'["' + b"\x01" * 2 * LIMIT + b'"]',
        b'["' + b"a" * 2 * LIMIT,
        b" " * 2 * LIMIT,
    ],
    ids=["lists", "texts", "quotes", "backslashes", "runs", "escapes", "unicode", "control", "open", "blank"],
)
def test_a_body_that_is_large_for_other_reasons_is_never_parsed(body: bytes) -> None:
    def parse(_rest: bytes) -> None:
        raise AssertionError("parsed")

    with pytest.raises(TooLarge, match="more than 1 MiB besides its Base64 pictures") as raised:
        read_large(body, parse, limit=LIMIT)
    assert raised.value.members == {"limit_bytes": LIMIT}
