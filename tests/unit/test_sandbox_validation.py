import base64
import contextlib
import json
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handlers.providers.sandbox.answers import Code, RequestError
from handlers.providers.sandbox.pictures import KEPT_SIDE, Link, Picture, PictureError, from_bytes, opened
from handlers.providers.sandbox.products import PRODUCTS
from handlers.providers.sandbox.validation import Order, read_order

IMAGES = "/kling/v1/images/multi-image2image"
OLDER_IMAGES = "/kling/v1/images/generations"
VIDEOS = "/kling/v1/videos/multi-image2video"
OFFICIAL_GENERATIONS = "/v1/images/generations"
OFFICIAL_VIDEOS = "/v1/videos/multi-image2video"
URL = "https://cdn.example.com/a.png"


def encoded(size: tuple[int, int] = (300, 300), form: str = "PNG", mode: str = "RGB") -> str:
    content = BytesIO()
    Image.new(mode, size).save(content, form)
    return base64.b64encode(content.getvalue()).decode()


def images(count: int = 2, /, **fields: object) -> dict[str, object]:
    return {"subject_image_list": [{"subject_image": URL}] * count, **fields}


def videos(count: int = 2, /, **fields: object) -> dict[str, object]:
    return {"image_list": [{"image": URL}] * count, "prompt": "a cat", **fields}


def points(count: int) -> list[dict[str, int]]:
    return [{"x": place, "y": place} for place in range(count)]


def read(path: str, body: object) -> Order:
    return read_order(json.dumps(body).encode(), PRODUCTS[path])


def refusal(path: str, body: object) -> tuple[Code, str]:
    with pytest.raises(RequestError) as refused:
        read(path, body)
    return refused.value.code, refused.value.message


def test_the_smallest_orders_get_the_documented_defaults() -> None:
    order = read(OLDER_IMAGES, images())
    assert (order.model, order.n, order.aspect_ratio, order.prompt) == ("kling-v2", 1, "16:9", "")
    assert order.sources == (Link(url=URL), Link(url=URL))
    film = read(VIDEOS, videos())
    assert (film.model, film.mode, film.duration_s, film.aspect_ratio) == ("kling-v1-6", "std", 5, "16:9")


def test_null_and_empty_text_count_as_absent_and_unknown_fields_are_ignored() -> None:
    order = read(
        IMAGES,
        images(negative_prompt="", callback_url=None, aspect_ratio="", external_task_id="", colour=[1]),
    )
    assert (order.callback_url, order.external_task_id, order.aspect_ratio) == (None, None, "16:9")


def test_one_path_takes_pictures_by_list_by_one_picture_and_by_text() -> None:
    """CometAPI's older layout: the list tells them apart."""
    assert read(OLDER_IMAGES, images(prompt="a cat")).sources == (Link(url=URL),) * 2
    lone = read(OLDER_IMAGES, {"prompt": "a cat", "image": URL, "image_reference": "subject", "n": 3})
    assert (lone.sources, lone.model, lone.n, lone.product.name) == (
        (Link(url=URL),),
        "kling-v1",
        3,
        "images/generations",
    )
    assert read(OLDER_IMAGES, {"prompt": "a cat", "subject_image_list": None}).sources == ()
    assert read(OFFICIAL_GENERATIONS, {"prompt": "a cat"}).model == "kling-v3"


def test_a_list_means_nothing_on_the_official_path_for_one_picture() -> None:
    order = read(OFFICIAL_GENERATIONS, {"prompt": "a cat", **images(), "scene_image": 7})
    assert (order.sources, order.scene) == ((), None)


@pytest.mark.parametrize("spelling", ["scence_image", "scene_image"])
@pytest.mark.parametrize("path", [IMAGES, OLDER_IMAGES])
def test_both_spellings_of_the_scene_are_read(path: str, spelling: str) -> None:
    assert read(path, images(**{spelling: URL})).scene == Link(url=URL)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (OLDER_IMAGES, images(prompt="x" * 2500)),
        (OLDER_IMAGES, images(4, n=9, aspect_ratio="21:9", negative_prompt="x" * 9000)),
        (IMAGES, images(1, watermark_info={"enabled": True}, model_name="kling-v2-1")),
        (
            OFFICIAL_GENERATIONS,
            {"prompt": "x" * 2500, "aspect_ratio": "21:9", "resolution": "2k", "human_fidelity": 0.45},
        ),
        (
            VIDEOS,
            videos(4, prompt="x" * 500, negative_prompt="y" * 200, cfg_scale=0.5, model_name="kling-v9"),
        ),
        (VIDEOS, videos(duration="10", mode="pro", aspect_ratio="9:16")),
        (
            VIDEOS,
            videos(static_mask=encoded(), dynamic_masks=[{"mask": encoded(), "trajectories": points(2)}]),
        ),
        (VIDEOS, videos(dynamic_masks=[{"mask": URL, "trajectories": points(77)}] * 6)),
        (OFFICIAL_VIDEOS, videos(1, prompt="x" * 2500, cfg_scale="ignored here")),
        (IMAGES, images(style_image=encoded((750, 300), "JPEG"), callback_url="http://127.0.0.1:8000/x")),
    ],
)
def test_orders_at_the_documented_limits_are_accepted(path: str, body: dict[str, object]) -> None:
    read(path, body)


@pytest.mark.parametrize(
    ("path", "body", "code", "word"),
    [
        (IMAGES, [], Code.INVALID_PARAMETERS, "object"),
        (IMAGES, {}, Code.BAD_VALUE, "subject_image_list"),
        (OLDER_IMAGES, images(1), Code.BAD_VALUE, "subject_image_list"),
        (IMAGES, images(5), Code.BAD_VALUE, "subject_image_list"),
        (IMAGES, {"subject_image_list": URL}, Code.INVALID_PARAMETERS, "subject_image_list"),
        (IMAGES, {"subject_image_list": [URL]}, Code.INVALID_PARAMETERS, "subject_image_list"),
        (IMAGES, {"subject_image_list": [{"image": URL}]}, Code.BAD_VALUE, "subject_image_list[0]"),
        (
            IMAGES,
            {"subject_image_list": [{"subject_image": 5}]},
            Code.INVALID_PARAMETERS,
            "[0].subject_image",
        ),
        (IMAGES, images(prompt="x" * 2501), Code.BAD_VALUE, "prompt"),
        (IMAGES, images(prompt=["x"]), Code.INVALID_PARAMETERS, "prompt"),
        (IMAGES, images(prompt="\ud800"), Code.BAD_VALUE, "prompt"),
        (IMAGES, images(negative_prompt="x" * 2501), Code.BAD_VALUE, "negative_prompt"),
        (IMAGES, images(model_name="kling-v3"), Code.BAD_VALUE, "model_name"),
        (IMAGES, images(n=0), Code.BAD_VALUE, "n must"),
        (IMAGES, images(n=10), Code.BAD_VALUE, "n must"),
        (IMAGES, images(n=True), Code.INVALID_PARAMETERS, "n must"),
        (IMAGES, images(n="2"), Code.INVALID_PARAMETERS, "n must"),
        (IMAGES, images(aspect_ratio="5:4"), Code.BAD_VALUE, "aspect_ratio"),
        (IMAGES, images(callback_url="ftp://example.com"), Code.BAD_VALUE, "callback_url"),
        (IMAGES, images(callback_url="https://[::1"), Code.BAD_VALUE, "callback_url"),
        (IMAGES, images(watermark_info=[]), Code.INVALID_PARAMETERS, "watermark_info"),
        (IMAGES, images(external_task_id=7), Code.INVALID_PARAMETERS, "external_task_id"),
        (IMAGES, images(scene_image="data:image/png;base64," + encoded()), Code.BAD_VALUE, "data:"),
        (IMAGES, images(scene_image="not base64!"), Code.BAD_VALUE, "scene_image"),
        (IMAGES, images(style_image=encoded((299, 300))), Code.BAD_VALUE, "299x300"),
        (IMAGES, images(style_image=encoded((751, 300))), Code.BAD_VALUE, "ratio"),
        (IMAGES, images(style_image=encoded(form="GIF", mode="P")), Code.BAD_VALUE, "JPEG or PNG"),
        (IMAGES, images(style_image="A" * (14 * 1024 * 1024)), Code.BAD_VALUE, "10 MB"),
        (VIDEOS, {"image_list": [{"image": URL}] * 2}, Code.BAD_VALUE, "prompt is required"),
        (VIDEOS, videos(1), Code.BAD_VALUE, "image_list"),
        (VIDEOS, videos(prompt="x" * 501), Code.BAD_VALUE, "prompt"),
        (VIDEOS, videos(negative_prompt="x" * 201), Code.BAD_VALUE, "negative_prompt"),
        (VIDEOS, videos(mode="best"), Code.BAD_VALUE, "mode"),
        (VIDEOS, videos(duration="7"), Code.BAD_VALUE, "duration"),
        (VIDEOS, videos(duration=5), Code.INVALID_PARAMETERS, "duration"),
        (VIDEOS, videos(aspect_ratio="21:9"), Code.BAD_VALUE, "aspect_ratio"),
        (VIDEOS, videos(cfg_scale=1.01), Code.BAD_VALUE, "cfg_scale"),
        (VIDEOS, videos(cfg_scale="0.5"), Code.INVALID_PARAMETERS, "cfg_scale"),
        (VIDEOS, videos(dynamic_masks=[{"mask": URL, "trajectories": points(2)}] * 7), Code.BAD_VALUE, "6"),
        (VIDEOS, videos(dynamic_masks=[{"trajectories": points(2)}]), Code.BAD_VALUE, "mask"),
        (VIDEOS, videos(dynamic_masks=[{"mask": URL, "trajectories": points(1)}]), Code.BAD_VALUE, "2 to 77"),
        (
            VIDEOS,
            videos(dynamic_masks=[{"mask": URL, "trajectories": points(78)}]),
            Code.BAD_VALUE,
            "2 to 77",
        ),
        (
            VIDEOS,
            videos(dynamic_masks=[{"mask": URL, "trajectories": [{"x": 1.5, "y": 0}] * 2}]),
            Code.INVALID_PARAMETERS,
            "trajectories[0].x",
        ),
        (
            VIDEOS,
            videos(
                static_mask=encoded((300, 300)),
                dynamic_masks=[{"mask": encoded((300, 301)), "trajectories": points(2)}],
            ),
            Code.BAD_VALUE,
            "equal resolution",
        ),
        (OLDER_IMAGES, {}, Code.BAD_VALUE, "prompt is required"),
        (OLDER_IMAGES, images(0, prompt="a cat"), Code.BAD_VALUE, "subject_image_list"),
        (OLDER_IMAGES, {"prompt": "x" * 2501}, Code.BAD_VALUE, "prompt"),
        (OLDER_IMAGES, {"prompt": "a cat", "negative_prompt": "x" * 2501}, Code.BAD_VALUE, "negative_prompt"),
        (OLDER_IMAGES, {"prompt": "a cat", "aspect_ratio": "5:4"}, Code.BAD_VALUE, "aspect_ratio"),
        (OLDER_IMAGES, {"prompt": "a cat", "model_name": "kling-v9"}, Code.BAD_VALUE, "model_name"),
        (OLDER_IMAGES, {"prompt": "a cat", "image": "QQ=="}, Code.BAD_VALUE, "image: not a readable"),
        (OLDER_IMAGES, {"prompt": "a cat", "image_reference": "face"}, Code.BAD_VALUE, "needs an image"),
        (
            OLDER_IMAGES,
            {"prompt": "a cat", "image": URL, "image_reference": "hat"},
            Code.BAD_VALUE,
            "subject, face",
        ),
        (
            OLDER_IMAGES,
            {"prompt": "a cat", "image": URL, "negative_prompt": "a dog"},
            Code.BAD_VALUE,
            "negative_prompt",
        ),
        (OLDER_IMAGES, {"prompt": "a cat", "image_fidelity": 1.5}, Code.BAD_VALUE, "image_fidelity"),
        (OLDER_IMAGES, {"prompt": "a cat", "resolution": "4k"}, Code.BAD_VALUE, "resolution"),
        (
            OLDER_IMAGES,
            {"prompt": "a cat", "image": URL, "element_list": [{"element_id": 1}] * 10},
            Code.BAD_VALUE,
            "at most 10",
        ),
        (
            OLDER_IMAGES,
            {"prompt": "a cat", "element_list": [{"element_id": 1.5}]},
            Code.INVALID_PARAMETERS,
            "element_list[0].element_id",
        ),
        (OFFICIAL_GENERATIONS, images(), Code.BAD_VALUE, "prompt is required"),
        (OFFICIAL_VIDEOS, videos(model_name="kling-v2-6"), Code.BAD_VALUE, "model_name"),
        (OFFICIAL_VIDEOS, videos(prompt="x" * 2501), Code.BAD_VALUE, "prompt"),
    ],
)
def test_each_broken_rule_is_refused_by_name(path: str, body: object, code: Code, word: str) -> None:
    refused, message = refusal(path, body)
    assert refused is code
    assert word in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{", b"[" * 100_000])
def test_what_is_not_json_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        read_order(content, PRODUCTS[IMAGES])
    assert refused.value.code is Code.INVALID_PARAMETERS


def test_a_truncated_picture_is_refused_though_its_head_is_sound() -> None:
    whole = BytesIO()
    Image.effect_noise((400, 400), 90).save(whole, "PNG")
    with pytest.raises(PictureError):
        from_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_is_read_and_kept_small(mode: str) -> None:
    content = BytesIO()
    Image.new(mode, (1500, 900)).save(content, "JPEG" if mode == "CMYK" else "PNG")
    picture = from_bytes(content.getvalue())
    assert picture.size == (1500, 900)
    assert max(opened(picture).size) == KEPT_SIDE


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_pictures_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG"]))
    content = BytesIO()
    Image.radial_gradient("L").resize((300, 300)).save(content, form)
    damaged = bytearray(content.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PictureError):
        assert isinstance(from_bytes(bytes(damaged)), Picture)
