"""What a file is, read from its first bytes: what a server calls it proves nothing."""

import re
from dataclasses import dataclass
from typing import Final

HEAD: Final = 512  # bytes that are enough to tell


@dataclass(frozen=True, slots=True)
class MediaType:
    name: str  # as in Content-Type
    extension: str

    @property
    def is_image(self) -> bool:
        return self.name.startswith("image/")


JPEG: Final = MediaType("image/jpeg", "jpg")
PNG: Final = MediaType("image/png", "png")
WEBP: Final = MediaType("image/webp", "webp")
GIF: Final = MediaType("image/gif", "gif")
MP4: Final = MediaType("video/mp4", "mp4")
QUICKTIME: Final = MediaType("video/quicktime", "mov")
WEBM: Final = MediaType("video/webm", "webm")
MP3: Final = MediaType("audio/mpeg", "mp3")
M4A: Final = MediaType("audio/mp4", "m4a")
WAV: Final = MediaType("audio/wav", "wav")
AAC: Final = MediaType("audio/aac", "aac")
UNKNOWN: Final = MediaType("application/octet-stream", "bin")
MEDIA_TYPES: Final = (JPEG, PNG, WEBP, GIF, MP4, QUICKTIME, WEBM, MP3, M4A, WAV, AAC, UNKNOWN)

_PICTURE_BRANDS: Final = frozenset({b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1"})
_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype\s+html|<html|<head|<body|[{\[]\s*[\"\]}\[{])", re.IGNORECASE
)


def media_type(head: bytes) -> MediaType:
    """
    Args:
        head: the first `HEAD` bytes, or all where there are fewer.

    Source: WHATWG, "MIME Sniffing", sections 6.1 and 6.2; ISO/IEC 14496-12, 4.3, for `ftyp`; RFC 8794 and the
    WebM Container Guidelines for EBML; ISO/IEC 11172-3, 2.4.2.3, for MPEG audio; ISO/IEC 13818-7, 6.2, for ADTS.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF"):
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _iso_media(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"\x42\x82\x84webm" in head[:64] else UNKNOWN
    if head.startswith(b"ID3") or _is_mpeg_audio(head):
        return MP3
    if _is_adts(head):
        return AAC
    return UNKNOWN


def _iso_media(brand: bytes) -> MediaType:
    if brand in _PICTURE_BRANDS:
        return UNKNOWN
    return {b"qt  ": QUICKTIME, b"M4A ": M4A, b"M4B ": M4A}.get(brand, MP4)


def _is_mpeg_audio(head: bytes) -> bool:
    """A frame of layer III, with a bit rate and a sampling rate that exist."""
    if len(head) < 4 or head[0] != 0xFF:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sampling = head[2] >> 4, head[2] >> 2 & 3
    return head[1] >> 5 == 7 and version != 1 and layer == 1 and bit_rate not in {0, 15} and sampling != 3


def _is_adts(head: bytes) -> bool:
    """A frame of AAC in ADTS: layer 0, with a sampling rate that exists."""
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


def is_page(head: bytes) -> bool:
    """HTML or JSON: what servers say instead of sending a file, also under status 200."""
    return _PAGE.match(head) is not None
