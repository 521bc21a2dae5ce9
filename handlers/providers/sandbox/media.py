"""The pictures, films and sounds that the stand-in makes of its inputs."""

import colorsys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, sin, sqrt, tau
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from handlers.providers.sandbox.pictures import Link, Picture, Source, opened
from handlers.providers.sandbox.products import Kind

Size = tuple[int, int]
Colour = tuple[int, int, int]

PICTURE_FORMAT: Final = "png"
FILM_FORMAT: Final = "mp4"
# The second one, where there are two, holds the same.
FORMATS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.IMAGE: (PICTURE_FORMAT,),
    Kind.VIDEO: (FILM_FORMAT,),
    Kind.AUDIO: ("mp3", "wav"),
}
SOUND_CODECS: Final[Mapping[str, str]] = {"mp3": "libmp3lame", "wav": "pcm_s16le"}
SAMPLES_PER_SECOND: Final = 22_050
LONGEST_NOTE_S: Final = 0.5
SHORTEST_FILM_S: Final = 5
PICTURE_LONG_SIDE: Final = 1024
FILM_SHORT_SIDE: Final = 360
FRAMES_PER_SECOND: Final = 10
CROSSFADE_FRAMES: Final = 7
ZOOM: Final = 1.25
"""How much larger than the frame a shot is: the room a pan has."""

PAPER: Final[Colour] = (18, 20, 27)
INK: Final[Colour] = (238, 240, 245)
FAINT: Final[Colour] = (150, 157, 173)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that an output is made of; its file's name says what becomes of it. A `Link` left in it is drawn as a
    labelled tile.
    """

    sources: tuple[Source, ...]
    scene: Source | None = None
    style: Source | None = None
    prompt: str
    aspect_ratio: str
    index: int = 0
    duration_s: float | None = None

    @property
    def size(self) -> int:
        """Bytes held in memory, about."""
        pictures = [*self.sources, self.scene, self.style]
        return 1024 + sum(len(picture.jpeg) for picture in pictures if isinstance(picture, Picture))

    def make(self, path: Path) -> int:
        """Writes the file and returns its size; `path` appears only when it is whole."""
        draft = path.with_name(f".{path.name}")
        format = path.suffix.removeprefix(".")
        if format == PICTURE_FORMAT:
            collage(self).save(draft, PICTURE_FORMAT, compress_level=1)
        elif format == FILM_FORMAT:
            film(self, draft, duration_s=self.duration_s or SHORTEST_FILM_S)
        else:
            sound(self, draft, format=format, duration_s=self.duration_s or SHORTEST_FILM_S)
        size = draft.stat().st_size
        draft.replace(path)
        return size


def collage(recipe: Recipe) -> Image.Image:
    """The inputs as a tidy grid over the scene, the prompt below; each index turns the grid by one input. Without
    inputs, a landscape for each index.
    """
    size = _picture_size(recipe.aspect_ratio)
    width, height = size
    unit = min(size) // 40
    canvas = _backdrop(recipe, size)
    caption_height = _write_caption(canvas, recipe.prompt or "(no prompt)", unit=unit, index=recipe.index)
    if not recipe.sources:
        return canvas
    turn = recipe.index % len(recipe.sources)
    sources = recipe.sources[turn:] + recipe.sources[:turn]
    area = (unit * 2, unit * 2, width - unit * 2, height - caption_height - unit)
    for source, box in zip(sources, _grid(len(sources), area, gap=unit), strict=True):
        _paste_tile(canvas, source, box, radius=unit)
    return canvas


def film(recipe: Recipe, path: Path, *, duration_s: float) -> None:
    """MP4, H.264 wherever PyAV has an encoder, the index at its front.

    Each input in turn, panned and zoomed slowly, with crossfades.
    """
    import av  # noqa: PLC0415 - 16 MB and a tenth of a second, for films and sounds alone

    size = _film_size(recipe.aspect_ratio)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format=FILM_FORMAT, options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            codec, rate=FRAMES_PER_SECOND, options={"preset": "superfast", "crf": "26"}
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for image in _frames(recipe, size, count=round(duration_s * FRAMES_PER_SECOND)):
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # PyAV 18 leaves it bare
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def sound(recipe: Recipe, path: Path, *, format: str, duration_s: float) -> None:
    """A little tune of the prompt's own."""
    import av  # noqa: PLC0415 - as for a film

    count = round(duration_s * SAMPLES_PER_SECOND)
    notes = [220 * 2 ** (step % 25 / 12) for step in sha256(recipe.prompt.encode()).digest()]
    length = round(LONGEST_NOTE_S * SAMPLES_PER_SECOND)
    samples = array(
        "h",
        (
            round(
                9000
                * (1 - place % length / length)
                * sin(tau * notes[place // length % len(notes)] * place / SAMPLES_PER_SECOND)
            )
            for place in range(count)
        ),
    )
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(SOUND_CODECS[format], rate=SAMPLES_PER_SECOND)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame(format="s16", layout="mono", samples=count)
        frame.sample_rate = SAMPLES_PER_SECOND
        frame.planes[0].update(samples.tobytes())
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=SAMPLES_PER_SECOND, frame_size=1152
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def _frames(recipe: Recipe, size: Size, *, count: int) -> Iterator[Image.Image]:
    roomy = (round(size[0] * ZOOM), round(size[1] * ZOOM))
    shots = [_cover(source, roomy) for source in recipe.sources]
    if not shots:
        shots = [_landscape(recipe.prompt, roomy)]
    if recipe.scene is not None:
        shots.insert(0, _cover(recipe.scene, roomy))
    caption = _film_caption(recipe.prompt, size)
    length = count / len(shots)
    for number in range(count):
        place = min(int(number / length), len(shots) - 1)
        into = number - place * length
        frame = _framed(shots[place], size, share=into / length, direction=place)
        if place and into < CROSSFADE_FRAMES:
            before = _framed(shots[place - 1], size, share=1 + into / length, direction=place - 1)
            frame = Image.blend(before, frame, (into + 1) / (CROSSFADE_FRAMES + 1))
        frame.paste(caption, (0, size[1] - caption.height), caption)
        yield frame


def _framed(shot: Image.Image, size: Size, *, share: float, direction: int) -> Image.Image:
    """The part of the shot seen after `share` of its time; odd directions zoom out, even ones in."""
    share = min(share, 1.3) / 1.3
    zoomed = share if direction % 2 == 0 else 1 - share
    width = shot.width - (shot.width - size[0]) * zoomed
    height = shot.height - (shot.height - size[1]) * zoomed
    left = (shot.width - width) * (share if direction % 4 < 2 else 1 - share)
    top = (shot.height - height) * (1 - share if direction % 4 < 2 else share)
    return shot.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def _film_caption(prompt: str, size: Size) -> Image.Image:
    unit = min(size) // 24
    font = ImageFont.load_default(unit)
    lines = _wrapped(prompt, font, width=size[0] - 2 * unit, most=2)
    band = Image.new("RGBA", (size[0], round(unit * (1 + 1.35 * len(lines)))), (*PAPER, 150))
    draw = ImageDraw.Draw(band)
    for place, line in enumerate(lines):
        draw.text((unit, unit * (0.5 + 1.35 * place)), line, font=font, fill=INK)
    return band


def _picture_size(aspect_ratio: str) -> Size:
    across, down = _ratio(aspect_ratio)
    scale = PICTURE_LONG_SIDE / max(across, down)
    return round(across * scale), round(down * scale)


def _film_size(aspect_ratio: str) -> Size:
    """Even both ways, as yuv420p needs."""
    across, down = _ratio(aspect_ratio)
    scale = FILM_SHORT_SIDE / min(across, down)
    return round(across * scale / 2) * 2, round(down * scale / 2) * 2


def _ratio(text: str) -> tuple[int, int]:
    across, _, down = text.partition(":")
    return int(across), int(down)


def _backdrop(recipe: Recipe, size: Size) -> Image.Image:
    """The scene, blurred; without one a slow gradient in the style's colour, or one of the prompt's own."""
    if not recipe.sources:
        return _landscape(f"{recipe.prompt} {recipe.index}", size)
    if recipe.scene is not None:
        blurred = _cover(recipe.scene, size).filter(ImageFilter.GaussianBlur(min(size) / 60))
        return ImageEnhance.Brightness(blurred).enhance(0.6)
    if recipe.style is not None:
        colour = _cover(recipe.style, (1, 1)).getpixel((0, 0))
        assert isinstance(colour, tuple)
        tint = (int(colour[0]), int(colour[1]), int(colour[2]))
    else:
        tint = _hue(recipe.prompt, brightness=0.45)
    slope = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, PAPER), Image.new("RGB", size, tint), slope)


def _write_caption(canvas: Image.Image, prompt: str, *, unit: int, index: int) -> int:
    """Returns its height, the margin included."""
    font = ImageFont.load_default(unit * 1.6)
    small = ImageFont.load_default(unit)
    margin = unit * 2
    lines = _wrapped(prompt, font, width=canvas.width - 2 * margin, most=3)
    height = round(unit * (2.2 * len(lines) + 4))
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rectangle((0, canvas.height - height, canvas.width, canvas.height), fill=(*PAPER, 200))
    top = canvas.height - height + unit * 0.8
    for place, line in enumerate(lines):
        draw.text((margin, top + place * unit * 2.2), line, font=font, fill=INK)
    draw.text((margin, canvas.height - unit * 2), f"sandbox picture {index + 1}", font=small, fill=FAINT)
    return height


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, width: float, most: int
) -> list[str]:
    """At most `most` lines; what is left over is cut with an ellipsis. Words too long for a line are broken."""
    lines = [""]
    for character in " ".join(text.split()):
        if font.getlength(lines[-1] + character) <= width:
            lines[-1] += character
            continue
        head, space, tail = lines[-1].rpartition(" ")
        if character == " ":
            head, space, tail = lines[-1], " ", ""
        elif not space:
            head, tail = lines[-1], ""
        lines[-1:] = [head, tail + character.strip()]
        if len(lines) > most:
            return [*lines[: most - 1], lines[most - 1].rstrip(" .") + "..."]
    return lines


def _grid(count: int, area: tuple[int, int, int, int], *, gap: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) that fill the area in rows of equal height; a short last row is wider."""
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    columns = min(count, max(1, round(sqrt(count * width / max(height, 1)))))
    rows = ceil(count / columns)
    boxes = []
    for row in range(rows):
        across = columns if row < rows - 1 else count - columns * (rows - 1)
        cell_width, cell_height = (width + gap) / across, (height + gap) / rows
        boxes += [
            (
                round(left + column * cell_width),
                round(top + row * cell_height),
                round(left + (column + 1) * cell_width - gap),
                round(top + (row + 1) * cell_height - gap),
            )
            for column in range(across)
        ]
    return boxes


def _paste_tile(canvas: Image.Image, source: Source, box: tuple[int, int, int, int], *, radius: int) -> None:
    size = (max(box[2] - box[0], 1), max(box[3] - box[1], 1))
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, fill=255)
    canvas.paste(_cover(source, size), box[:2], mask)


def _cover(source: Source, size: Size) -> Image.Image:
    if isinstance(source, Link):
        return _placeholder(source.url, size)
    return ImageOps.fit(opened(source), size, Image.Resampling.BILINEAR)


def _placeholder(url: str, size: Size) -> Image.Image:
    """A drawn landscape in a colour of its own, with the URL's host and path on it."""
    width = size[0]
    tile = _landscape(url, size)
    draw = ImageDraw.Draw(tile)
    parts = urlsplit(url)
    letter = max(min(size) / 18, 8)
    font = ImageFont.load_default(letter)
    lines = [
        *_wrapped(parts.hostname or "", font, width=width * 0.84, most=1),
        *_wrapped(parts.path, font, width=width * 0.84, most=2),
    ]
    for place, line in enumerate(lines):
        draw.text((width * 0.08, letter * (1.5 + 1.35 * place)), line, font=font, fill=INK)
    return tile


def _landscape(name: str, size: Size) -> Image.Image:
    width, height = size
    tile = Image.new("RGB", size, _hue(name, brightness=0.55))
    draw = ImageDraw.Draw(tile)
    sun = min(size) / 8
    draw.ellipse(
        (width * 0.7 - sun, height * 0.25 - sun, width * 0.7 + sun, height * 0.25 + sun),
        fill=_hue(name, brightness=0.72),
    )
    for peak, foot, brightness in ((0.35, 0.75, 0.42), (0.72, 0.55, 0.33)):
        crest = (width * peak, height * (0.35 if peak < 0.5 else 0.48))
        spread = width * foot
        base = (crest[0] - spread, height), (crest[0] + spread, height)
        draw.polygon((base[0], crest, base[1]), fill=_hue(name, brightness=brightness))
    return tile


def _hue(text: str, *, brightness: float) -> Colour:
    turn = sha256(text.encode()).digest()[0] / 256
    red, green, blue = colorsys.hsv_to_rgb(turn, 0.5, brightness)
    return round(red * 255), round(green * 255), round(blue * 255)
