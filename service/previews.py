"""Small pictures of what was made: a thumbnail of a picture, the first frame of a film. None is better than a wait."""

import io
from typing import IO, TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from service.domain.media_types import GIF, JPEG, MP4, PNG, QUICKTIME, WEBM, WEBP, MediaType

if TYPE_CHECKING:  # loaded with the first output
    from PIL.Image import Image

LONG_SIDE: Final = 640
QUALITY: Final = 82
MOST_PIXELS: Final = 40_000_000  # of a picture or a frame: 8K has 33 million
MOST_PACKETS: Final = 200  # read of a film until its first frame has come
DEADLINE_S: Final = 20
PREVIEW_TYPE: Final = JPEG

# Only these decoders, whatever the bytes say: others read lists of further files, and open them.
_PICTURES: Final = {JPEG: ("JPEG",), PNG: ("PNG",), WEBP: ("WEBP",), GIF: ("GIF",)}
_FILMS: Final = {MP4: "mp4", QUICKTIME: "mp4", WEBM: "webm"}

log = structlog.get_logger()


class _TooLarge(Exception):
    """More pixels than are decoded here."""


class Previews:
    """One at a time, beside the event loop: what a hostile file can cost is a thread and `MOST_PIXELS`."""

    def __init__(self) -> None:
        self._maker = anyio.CapacityLimiter(1)

    async def of(self, file: IO[bytes], type: MediaType) -> bytes | None:
        """A JPEG, or None where none can be made, whatever the reason."""
        if type not in _PICTURES and type not in _FILMS:
            return None
        made: bytes | None = None
        with anyio.move_on_after(DEADLINE_S) as scope:
            try:
                made = await anyio.to_thread.run_sync(
                    preview, file, type, limiter=self._maker, abandon_on_cancel=True
                )
            except Exception as error:  # noqa: BLE001 - decoders raise whatever they like; the output is kept either way
                log.info(
                    "preview.not_made", type=type.name, error=f"{error.__class__.__name__}: {error}"[:300]
                )
        if scope.cancelled_caught:
            log.warning("preview.too_slow", type=type.name)
        return made


def preview(file: IO[bytes], type: MediaType) -> bytes:
    """Blocking."""
    file.seek(0)
    picture = _picture(file, _PICTURES[type]) if type in _PICTURES else _first_frame(file, _FILMS[type])
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    written = io.BytesIO()
    _opaque(picture).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def _picture(file: IO[bytes], formats: tuple[str, ...]) -> "Image":
    from PIL import Image, ImageOps  # noqa: PLC0415

    opened = Image.open(file, formats=formats)
    _check_size(opened.size)
    opened.draft("RGB", (LONG_SIDE, LONG_SIDE))  # a JPEG is decoded no larger than needed
    return ImageOps.exif_transpose(opened)


def _first_frame(file: IO[bytes], format: str) -> "Image":
    import av  # noqa: PLC0415 - 16 MB and a tenth of a second, for films alone

    with av.open(file, "r", format=format) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        _check_size((stream.codec_context.width, stream.codec_context.height))
        for number, packet in enumerate(container.demux(stream)):
            for frame in packet.decode():
                _check_size((frame.width, frame.height))
                return frame.to_image()  # type: ignore[no-untyped-call, no-any-return]  # PyAV leaves it bare
            if number >= MOST_PACKETS:
                break
    raise ValueError("no frame among its first packets")


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise _TooLarge(f"{size[0]} by {size[1]} pixels")


def _opaque(picture: "Image") -> "Image":
    """On white, where it can be seen through."""
    from PIL import Image  # noqa: PLC0415

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    whole = picture.convert("RGBA")
    paper = Image.new("RGB", whole.size, "white")
    paper.paste(whole, mask=whole.getchannel("A"))
    return paper
