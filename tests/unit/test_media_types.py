"""What a file is, by its first bytes."""

import io
import struct

import pytest
from PIL import Image

from service.domain.media_types import HEAD, UNKNOWN, is_page, media_type


def picture(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(file, format)
    return file.getvalue()


def iso(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\2\0" + b"isom" + b"iso2"


EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08"


@pytest.mark.parametrize(
    ("head", "name", "extension"),
    [
        (picture("JPEG"), "image/jpeg", "jpg"),
        (picture("PNG"), "image/png", "png"),
        (picture("WEBP"), "image/webp", "webp"),
        (picture("GIF"), "image/gif", "gif"),
        (iso(b"isom"), "video/mp4", "mp4"),
        (iso(b"mp42"), "video/mp4", "mp4"),
        (iso(b"qt  "), "video/quicktime", "mov"),
        (iso(b"M4A "), "audio/mp4", "m4a"),
        (EBML + b"\x42\x82\x84webm\x42\x87\x81\x04", "video/webm", "webm"),
        (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg", "mp3"),
        (b"\xff\xfb\x90\x64" + bytes(100), "audio/mpeg", "mp3"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav", "wav"),
        (b"\xff\xf1\x50\x80", "audio/aac", "aac"),
    ],
)
def test_what_is_known_is_told_by_its_bytes(head: bytes, name: str, extension: str) -> None:
    found = media_type(head[:HEAD])
    assert (found.name, found.extension) == (name, extension)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG",
        b"RIFF\0\0\0\0AVI LIST",
        iso(b"avif"),
        iso(b"heic"),
        EBML + b"\x42\x82\x88matroska",
        b"\xff\xfb\xf0\x64",  # a bit rate that does not exist
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7",
        b"#!/bin/sh",
    ],
)
def test_anything_else_is_just_bytes(head: bytes) -> None:
    """So that no browser runs it: what is served with this type is saved, not shown."""
    assert media_type(head) is UNKNOWN


@pytest.mark.parametrize(
    ("head", "page"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", True),
        (b"\xef\xbb\xbf\n <HTML lang=en>", True),
        (b'{"code": 404, "message": "expired"}', True),
        (b"[]", True),
        (b"<svg/>", False),
        (picture("PNG"), False),
        (iso(b"isom"), False),
        (b"{not json", False),
    ],
)
def test_a_page_that_stands_for_a_file_is_noticed(head: bytes, page: bool) -> None:
    assert is_page(head) is page
