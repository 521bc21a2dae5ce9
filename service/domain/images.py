"""Pictures sent as Base64: really decoded, so that a bad one is refused before a provider charges for it.

Source of the limits: Kling, "Multi-Image to Image" and "Multi-Image to Video", November 2026. The limits on pixels
and parts are our own; they bound what a hostile picture may cost.
"""

import binascii
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # 5 MB and some time of each start, for pictures alone
    from PIL.ImageFile import ImageFile

MAX_BYTES: Final = 10 * 1024 * 1024
MIN_SIDE: Final = 300  # px
MEGAPIXEL: Final = 1_000_000
MAX_PIXELS: Final = 25 * MEGAPIXEL  # decoded, at most 4 bytes each
MAX_PIXELS_TOGETHER: Final = 100 * MEGAPIXEL  # of all pictures of one input
MAX_PARTS: Final = 100  # tables and scans of a JPEG: some 25 in real ones, and each scan may cost 40 ms


class ImageFormat(StrEnum):
    JPEG = "jpeg"
    PNG = "png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """Width and height in px as stored, before any rotation that EXIF may ask for."""

    format: ImageFormat
    width: int
    height: int


class ImageFault(ValueError):
    """What is wrong with a picture and what is allowed, in sentences for a person."""


@dataclass(slots=True)
class PixelBudget:
    """What the pictures of one input may still cost to decode."""

    left: int = MAX_PIXELS_TOGETHER

    def spend(self, pixels: int) -> bool:
        """Whether that was still affordable; if not, nothing is spent."""
        if pixels > self.left:
            return False
        self.left -= pixels
        return True


_DATA_PREFIX = re.compile(r"\s*data:image/[^,]{1,200};base64,", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\f\v"
_STEP: Final = 256 * 1024  # characters, a multiple of 4: between two steps the other threads have their turn


def decode(text: str) -> bytes:
    """The bytes of a Base64 text, with or without `data:image/…;base64,` before it; line breaks do no harm.

    Raises:
        ImageFault: empty, or not Base64 by RFC 4648 section 4: a character outside the alphabet, or wrong padding.
    """
    fault = ImageFault("The text is not Base64: a character does not belong there, or the end is missing.")
    prefix = _DATA_PREFIX.match(text)
    start = 0 if prefix is None else prefix.end()
    characters, content = bytearray(), bytearray()
    try:
        for position in range(start, len(text), _STEP):
            characters += text[position : position + _STEP].encode("ascii").translate(None, _WHITESPACE)
        for position in range(0, len(characters), _STEP):
            quads = characters[position : position + _STEP]
            # CPython 3.11 takes "QQQQ=" even in strict mode.
            if len(quads) % 4 != 0 or quads.endswith(b"==="):
                raise fault
            if quads.endswith(b"=") and position + _STEP < len(characters):
                raise fault
            content += binascii.a2b_base64(quads, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise fault from None
    if not content:
        raise ImageFault("The text is empty.")
    return bytes(content)


def encode(content: bytes) -> str:
    """As plain Base64, no prefix, no line breaks."""
    step = _STEP // 4 * 3
    return "".join(
        binascii.b2a_base64(content[position : position + step], newline=False).decode()
        for position in range(0, len(content), step)
    )


_DAMAGED = "The picture is damaged or incomplete: it cannot be decoded."
_TOO_MANY = (
    f"With this picture, those sent as Base64 have more than {MAX_PIXELS_TOGETHER // MEGAPIXEL} megapixels together; "
    "send it smaller or as a URL."
)


def inspect(data: bytes, budget: PixelBudget | None = None) -> ImageFacts:
    """What the picture is, after decoding all its pixels.

    Args:
        budget: shared with the other pictures of an input; what is decoded is taken from it, good or bad.

    Raises:
        ImageFault: names everything wrong at once: neither JPEG nor PNG, over 10 MB, a side under 300 px, a ratio
            outside 1:2.5 to 2.5:1, over 25 megapixels, animated, damaged; or that it would exceed the budget.
    """
    budget = budget or PixelBudget()
    if data.startswith(_JPEG_SIGNATURE):
        kind = ImageFormat.JPEG
    elif data.startswith(_PNG_SIGNATURE):
        kind = ImageFormat.PNG
    else:
        raise ImageFault(" ".join([*_size_faults(len(data)), "The picture is neither a JPEG nor a PNG."]))
    faults = list(_size_faults(len(data)))
    try:
        bare, structural_faults = _bare_jpeg(data) if kind is ImageFormat.JPEG else _bare_png(data)
        faults.extend(structural_faults)
        with _open(bare, kind) as picture:
            width, height = picture.size
            worth_it = not faults and width * height <= MAX_PIXELS
            faults.extend(_dimension_faults(width, height))
            if worth_it and budget.spend(width * height):
                picture.load()
            elif worth_it:
                faults.append(_TOO_MANY)
    except Exception:  # noqa: BLE001 - Pillow raises whatever the bytes provoke
        faults.append(_DAMAGED)
    if faults:
        raise ImageFault(" ".join(dict.fromkeys(faults)))
    return ImageFacts(format=kind, width=width, height=height)


def _size_faults(size_bytes: int) -> Iterator[str]:
    if size_bytes > MAX_BYTES:
        yield f"The picture has {size_bytes} bytes; at most 10 MB ({MAX_BYTES} bytes) are allowed."


def _dimension_faults(width: int, height: int) -> Iterator[str]:
    size = f"The picture has {width} x {height} px"
    if min(width, height) < MIN_SIDE:
        yield f"{size}; each side must have at least {MIN_SIDE} px."
    if 2 * max(width, height) > 5 * min(width, height):
        yield f"{size}; its width to height must lie between 1:2.5 and 2.5:1."
    if width * height > MAX_PIXELS:
        yield f"{size}; at most {MAX_PIXELS // MEGAPIXEL} megapixels are allowed."


def _open(bare: bytes, kind: ImageFormat) -> "ImageFile":
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415

    # The plugins themselves, as `Image.open` may hand a JPEG with several pictures on to a third plugin, and warns
    # of large ones; a thread cannot silence warnings without silencing them for all.
    return JpegImageFile(BytesIO(bare)) if kind is ImageFormat.JPEG else PngImageFile(BytesIO(bare))


# Pillow gets the pixels without the metadata: 10 MB of crafted profiles, comments or EXIF cost it 20 s, and a broken
# comment would condemn a good picture.

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_SCAN = 0xDA
_LENGTH = 2  # bytes of a part's length field, which counts itself
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
# As libjpeg looks for the next marker; without those that have no length and may stand in a scan (ITU T.81, B.1.1).
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def _bare_jpeg(data: bytes) -> tuple[bytes, list[str]]:
    """The picture without metadata, up to its end or its first fault; and that fault."""
    parts: list[bytes] = []
    faults: list[str] = []
    marker = _MARKER.search(data, 2)
    while marker is not None and marker[0] != _JPEG_END:
        kind = marker[1][0]
        length = int.from_bytes(data[marker.end() : marker.end() + _LENGTH])
        if length < _LENGTH:
            faults.append(_DAMAGED)
            break
        end = marker.end() + length
        following = _MARKER.search(data, end)
        if kind == _SCAN:
            end = len(data) if following is None else following.start()
        if kind not in _METADATA:
            parts.append(data[marker.start() : end])
        if len(parts) > MAX_PARTS:
            faults.append(f"The picture is built of more than {MAX_PARTS} tables and scans.")
            break
        marker = following
    if marker is None:
        faults.append(_DAMAGED)
    return b"".join([_JPEG_SIGNATURE[:2], *parts, _JPEG_END]), faults


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_START = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")


def _bare_png(data: bytes) -> tuple[bytes, list[str]]:
    """The picture without metadata, up to its end or where it breaks off; and what is wrong with its chunks."""
    bodies = {b"IHDR": bytearray(), b"PLTE": bytearray(), b"IDAT": bytearray(), b"IEND": bytearray()}
    faults: list[str] = []
    kind, position = b"", len(_PNG_SIGNATURE)
    try:
        while kind != b"IEND":
            length, kind = _CHUNK_START.unpack_from(data, position)
            end = position + _CHUNK_START.size + length
            (checksum,) = _CHECKSUM.unpack_from(data, end)
            if kind in bodies:
                bodies[kind] += data[position + _CHUNK_START.size : end]
                if zlib.crc32(memoryview(data)[position + 4 : end]) != checksum:
                    faults.append(_DAMAGED)
            elif kind == b"acTL":
                faults.append("The picture is animated; only still pictures are allowed.")
            position = end + _CHECKSUM.size
    except struct.error:
        faults.append(_DAMAGED)
    bare = b"".join(_chunk(kind, body) for kind, body in bodies.items() if body or kind == b"IEND")
    return _PNG_SIGNATURE + bare, faults


def _chunk(kind: bytes, body: bytearray) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return _CHUNK_START.pack(len(body), kind) + body + _CHECKSUM.pack(checksum)
