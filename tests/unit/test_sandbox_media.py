from io import BytesIO
from pathlib import Path

import anyio
import av
import pytest
from PIL import Image

from handlers.providers.sandbox.files import Files
from handlers.providers.sandbox.media import Recipe
from handlers.providers.sandbox.pictures import Link, Picture, Source, from_bytes
from handlers.providers.sandbox.products import IMAGE_RATIOS


def picture(colour: str, size: tuple[int, int] = (600, 400)) -> Picture:
    content = BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return from_bytes(content.getvalue())


RED = picture("#d02020")
LINK = Link(url="https://cdn.example.com/people/anna.png?signature=1")


def recipe(*sources: Source, **fields: object) -> Recipe:
    given: dict[str, object] = {"prompt": "a cat on a red chair", "aspect_ratio": "16:9", **fields}
    return Recipe(sources=sources or (RED, LINK), **given)


def ratio(text: str) -> float:
    across, down = text.split(":")
    return int(across) / int(down)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("aspect_ratio", IMAGE_RATIOS)
def test_pictures_have_the_asked_ratio(tmp_path: Path, aspect_ratio: str) -> None:
    path = tmp_path / "a.png"
    size = recipe(aspect_ratio=aspect_ratio).make(path)
    assert path.stat().st_size == size
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width / image.height == pytest.approx(ratio(aspect_ratio), rel=0.01)


def test_the_inputs_are_seen_in_the_picture_and_turn_with_its_index(tmp_path: Path) -> None:
    seen = []
    for index in range(2):
        recipe(index=index).make(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            seen.append([image.getpixel((image.width * part // 4, image.height // 4)) for part in (1, 3)])
    red, other = (208, 32, 32), seen[0][1]
    for pixel, expected in zip(seen[0] + seen[1], [red, other, other, red], strict=True):
        assert pixel == pytest.approx(expected, abs=40)


@pytest.mark.parametrize(
    ("count", "prompt"), [(1, ""), (2, "x" * 2500), (3, "红伞下的两个朋友 🌂"), (4, "many words " * 200)]
)
def test_any_number_of_inputs_and_any_prompt_can_be_drawn(tmp_path: Path, count: int, prompt: str) -> None:
    extras = {"scene": RED, "style": LINK} if count % 2 else {"style": RED}
    assert recipe(*[LINK] * count, prompt=prompt, **extras).make(tmp_path / "a.png") > 0


def test_without_inputs_there_is_a_picture_of_its_own_for_each_index(tmp_path: Path) -> None:
    drawn = []
    for index in range(2):
        Recipe(sources=(), prompt="a cat", aspect_ratio="1:1", index=index).make(tmp_path / "a.png")
        drawn.append((tmp_path / "a.png").read_bytes())
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("aspect_ratio", "duration_s"), [("16:9", 5), ("9:16", 5), ("1:1", 10)])
def test_films_can_be_played_to_the_end(tmp_path: Path, aspect_ratio: str, duration_s: int) -> None:
    path = tmp_path / "a.mp4"
    recipe(aspect_ratio=aspect_ratio, duration_s=duration_s).make(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.width, frame.height) for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert container.duration == duration_s * av.time_base
        assert len(frames) == duration_s * 10
        assert frames[0][0] / frames[0][1] == pytest.approx(ratio(aspect_ratio), rel=0.01)


def test_a_film_can_start_before_it_has_been_fetched_whole(tmp_path: Path) -> None:
    recipe(duration_s=5).make(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("format", ["mp3", "wav"])
def test_sounds_can_be_heard_to_the_end(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format}"
    Recipe(sources=(), prompt="rain", aspect_ratio="1:1", duration_s=3.5).make(path)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        seconds = sum(frame.samples for frame in frames) / frames[0].sample_rate
    assert seconds == pytest.approx(3.5, abs=0.1)
    assert any(any(bytes(frame.planes[0])) for frame in frames)  # not silence


def test_a_film_of_words_alone_has_something_to_show(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    Recipe(sources=(), prompt="a cat", aspect_ratio="1:1", duration_s=3).make(path)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 30


async def test_an_output_is_made_once_however_many_ask(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.add("a.png", recipe())
    found = []

    async def ask() -> None:
        path = await files.find("a.png")
        assert path is not None
        found.append(path.stat().st_mtime_ns)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    assert len(found) == 5
    assert len(set(found)) == 1


async def test_the_oldest_outputs_go_when_there_are_too_many(tmp_path: Path) -> None:
    files = Files(tmp_path, most_files=2)
    for name in ("a.png", "b.png"):
        files.add(name, recipe())
    assert await files.find("a.png") == tmp_path / "a.png"
    files.add("c.png", recipe())
    assert await files.find("a.png") is None
    assert await files.find("b.png") == tmp_path / "b.png"
    assert names(tmp_path) == ["b.png"]


async def test_the_oldest_outputs_go_when_they_take_too_much_room(tmp_path: Path) -> None:
    files = Files(tmp_path, most_bytes=1)
    files.add("a.png", recipe())
    files.add("b.png", recipe())
    assert await files.find("a.png") is None
    assert await files.find("b.png") is not None
