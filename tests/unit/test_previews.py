"""Small pictures of what was made."""

import io
from collections.abc import Callable

import av
import pytest
from PIL import Image

from service import previews
from service.domain.media_types import GIF, JPEG, MP3, MP4, PNG, QUICKTIME, UNKNOWN, WEBM, WEBP, MediaType
from service.previews import LONG_SIDE, Previews, preview


def picture(format: str, size: tuple[int, int] = (1600, 900), mode: str = "RGB") -> io.BytesIO:
    file = io.BytesIO()
    Image.new(mode, size, 0 if mode == "RGBA" else 40).save(file, format)
    return file


def film(size: tuple[int, int] = (1280, 720), *, format: str = "mp4", codec: str = "mpeg4") -> io.BytesIO:
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for shade in (200, 10, 10):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (shade, shade, shade)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def opened(made: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(made))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(
    ("file", "type"),
    [
        (picture("PNG"), PNG),
        (picture("JPEG"), JPEG),
        (picture("WEBP"), WEBP),
        (picture("GIF"), GIF),
        (film(), MP4),
        (film(format="mov"), QUICKTIME),
        (film(format="webm", codec="libvpx"), WEBM),
    ],
)
def test_a_preview_is_a_small_jpeg_in_the_same_shape(file: io.BytesIO, type: MediaType) -> None:
    assert opened(preview(file, type)).size == (LONG_SIDE, LONG_SIDE * 9 // 16)


def test_a_poster_is_the_first_frame() -> None:
    brightness = opened(preview(film(), MP4)).convert("L").getpixel((300, 100))
    assert isinstance(brightness, int)
    assert 180 < brightness < 220


def test_what_can_be_seen_through_stands_on_white() -> None:
    assert opened(preview(picture("PNG", (64, 64), "RGBA"), PNG)).getpixel((5, 5)) == (255, 255, 255)


def test_a_small_picture_is_not_blown_up() -> None:
    assert opened(preview(picture("PNG", (64, 48)), PNG)).size == (64, 48)


def bomb() -> io.BytesIO:
    """A small PNG that would take 240 MB."""
    return picture("PNG", (10_000, 8_000), "1")


@pytest.mark.parametrize(
    ("file", "type"),
    [
        (lambda: io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(100)), PNG),
        (lambda: io.BytesIO(picture("PNG").getvalue()[:200]), PNG),
        (lambda: picture("GIF"), PNG),  # only what its bytes are called is decoded
        (lambda: io.BytesIO(film().getvalue()[:400]), MP4),
        (lambda: io.BytesIO(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), MP4),
        (lambda: picture("PNG"), UNKNOWN),
        (lambda: io.BytesIO(b"ID3"), MP3),
        (bomb, PNG),
    ],
)
async def test_where_none_can_be_made_there_is_none_and_nothing_breaks(
    file: Callable[[], io.BytesIO], type: MediaType
) -> None:
    assert await Previews().of(file(), type) is None


async def test_a_film_with_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "MOST_PIXELS", 1000)
    assert await Previews().of(film((64, 48)), MP4) is None
