"""Input pictures: really decoded, checked as Kling, "Image to Video" says, and kept small."""

import base64
import binascii
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image, ImageOps

LARGEST_BYTES: Final = 10 * 1024 * 1024
SHORTEST_SIDE: Final = 300
WIDEST_RATIO: Final = 2.5
MOST_PIXELS: Final = 25_000_000
"""Ours, not Kling's: what one create may cost this process to decode."""

KEPT_SIDE: Final = 1024


class PictureError(Exception):
    """Why these bytes are not an acceptable picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`jpeg` is for drawing: upright, on white, no side over `KEPT_SIDE`. `size` is that of the input."""

    jpeg: bytes
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    url: str


Source = Picture | Link


def from_base64(text: str) -> Picture:
    if text.startswith("data:"):
        raise PictureError("Base64 must come without a data: prefix")
    if len(text) > LARGEST_BYTES * 4 // 3 + 4:
        raise PictureError("picture is over 10 MB")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PictureError("neither a URL nor valid Base64") from None
    return from_bytes(content)


def from_bytes(content: bytes) -> Picture:
    if len(content) > LARGEST_BYTES:
        raise PictureError("picture is over 10 MB")
    try:
        with Image.open(BytesIO(content), formats=("JPEG", "PNG")) as image:
            _check_size(*image.size)
            size = image.size
            image.draft("RGB", (KEPT_SIDE, KEPT_SIDE))
            image.load()
            return Picture(jpeg=_kept(image), size=size)
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        raise PictureError("not a readable JPEG or PNG picture") from None


def opened(picture: Picture) -> Image.Image:
    with Image.open(BytesIO(picture.jpeg)) as image:
        return image.convert("RGB")


def _check_size(width: int, height: int) -> None:
    if min(width, height) < SHORTEST_SIDE:
        raise PictureError(f"picture is {width}x{height}; each side needs {SHORTEST_SIDE} pixels")
    if max(width, height) > WIDEST_RATIO * min(width, height):
        raise PictureError(f"picture is {width}x{height}; its ratio must lie between 1:2.5 and 2.5:1")
    if width * height > MOST_PIXELS:
        raise PictureError(f"picture is {width}x{height}; the sandbox decodes {MOST_PIXELS} pixels at most")


def _kept(image: Image.Image) -> bytes:
    image.thumbnail((KEPT_SIDE, KEPT_SIDE), reducing_gap=2.0)
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    paper = Image.new("RGBA", upright.size, "white")
    paper.alpha_composite(upright)
    kept = BytesIO()
    paper.convert("RGB").save(kept, "JPEG", quality=85)
    return kept.getvalue()
