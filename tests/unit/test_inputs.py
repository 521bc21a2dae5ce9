"""`service.domain.inputs`: what a submit may hold, and how every fault in it is said at once."""

import base64
import hashlib
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from service.domain.faults import InvalidFields
from service.domain.inputs import (
    MAX_URL,
    PicturesInside,
    referenced_files,
    validate,
    with_files,
)
from service.domain.task_types.images import MultiImageToImage
from service.domain.task_types.videos import MultiImageToVideo

MODELS = [MultiImageToImage, MultiImageToVideo]
URL = "https://example.com/cat.png"


def png(width: int = 300, height: int = 300, shade: int = 0) -> bytes:
    file = BytesIO()
    Image.new("L", (width, height), shade).save(file, "PNG")
    return file.getvalue()


def base64_png(width: int = 300, height: int = 300, shade: int = 0) -> str:
    return base64.b64encode(png(width, height, shade)).decode()


CAT, HAT = base64_png(shade=1), base64_png(shade=2)
CAT_DIGEST = hashlib.sha256(png(shade=1)).hexdigest()
CAT_REFERENCE = f"file:sha256:{CAT_DIGEST}"


def subjects(*images: object) -> list[dict[str, object]]:
    return [{"subject_image": image} for image in images]


def pictures(*images: object) -> list[dict[str, object]]:
    return [{"image": image} for image in images]


def points(count: int) -> list[dict[str, int]]:
    return [{"x": index, "y": 0} for index in range(count)]


def to_image(**fields: object) -> dict[str, Any]:
    return {"subject_image_list": subjects(URL, URL)} | fields


def to_video(**fields: object) -> dict[str, Any]:
    return {"image_list": pictures(URL, URL), "prompt": "The cat bows"} | fields


def faults(model: type[BaseModel], raw: object) -> dict[str, str]:
    with pytest.raises(InvalidFields) as raised:
        validate(model, raw)
    found = {fault.pointer: fault.detail for fault in raised.value.faults}
    assert len(found) == len(raised.value.faults)
    return found


def image_faults(**fields: object) -> dict[str, str]:
    return faults(MultiImageToImage, to_image(**fields))


def video_faults(**fields: object) -> dict[str, str]:
    return faults(MultiImageToVideo, to_video(**fields))


def accepted(raw: dict[str, Any]) -> Mapping[str, Any]:
    return validate(MultiImageToImage if "subject_image_list" in raw else MultiImageToVideo, raw).fields


def test_defaults_are_filled_in_and_absent_fields_left_out() -> None:
    assert accepted(to_image(prompt=None, style_image=None)) == {
        "subject_image_list": subjects(URL, URL),
        "model_name": "kling-v2",
        "n": 1,
        "aspect_ratio": "16:9",
    }
    assert accepted(to_video(cfg_scale=None, static_mask=None, dynamic_masks=None)) == {
        "image_list": pictures(URL, URL),
        "model_name": "kling-v1-6",
        "prompt": "The cat bows",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "16:9",
    }


def test_every_field_of_an_image_task_is_kept() -> None:
    raw = {
        "subject_image_list": subjects(URL, URL, URL),
        "model_name": "kling-v2-1",
        "prompt": "Ein Hut, 帽子, 🎩\n",
        "scene_image": "http://example.com/b?c=d#e",
        "style_image": URL,
        "n": 3,
        "aspect_ratio": "21:9",
    }
    assert accepted(raw) == raw


def test_every_field_of_a_video_task_is_kept() -> None:
    raw = {
        "image_list": pictures(URL, URL),
        "model_name": "kling-v9",
        "prompt": "p",
        "negative_prompt": "",
        "mode": "pro",
        "duration": "10",
        "aspect_ratio": "1:1",
        "cfg_scale": 0.5,
        "static_mask": URL,
        "dynamic_masks": [{"mask": URL, "trajectories": points(2)}],
    }
    assert accepted(raw) == raw


@pytest.mark.parametrize("spelling", ["scene_image", "scence_image"])
def test_either_spelling_of_the_scene_is_stored_as_one(spelling: str) -> None:
    fields = accepted(to_image(**{spelling: CAT}))
    assert fields["scene_image"] == CAT_REFERENCE
    assert "scence_image" not in fields


def test_both_spellings_of_the_scene_are_a_fault_beside_the_others() -> None:
    assert image_faults(scene_image=URL, scence_image=URL, n=0) == {
        "#/input/n": '"n" must be at least 1.',
        "#/input/scence_image": '"scence_image" is another spelling of "scene_image": give one of them.',
    }


def test_a_spelling_that_is_null_is_not_given() -> None:
    assert accepted(to_image(scene_image=None, scence_image=URL))["scene_image"] == URL
    assert accepted(to_image(scene_image=URL, scence_image=None))["scene_image"] == URL


@pytest.mark.parametrize("spelling", ["scene_image", "scence_image"])
def test_a_fault_is_at_the_spelling_that_the_caller_used(spelling: str) -> None:
    assert list(image_faults(**{spelling: "?"})) == [f"#/input/{spelling}"]


@pytest.mark.parametrize(
    "raw",
    [
        to_image(subject_image_list=subjects(*[URL] * 2)),
        to_image(subject_image_list=subjects(*[URL] * 4)),
        to_image(prompt=""),
        to_image(prompt="é" * 2500),
        to_image(model_name="m"),
        to_image(model_name="m" * 64),
        to_image(n=1),
        to_image(n=9),
        *[to_image(aspect_ratio=r) for r in ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")],
        to_image(style_image="https://example.com/" + "a" * (MAX_URL - 20)),
        to_video(image_list=pictures(*[URL] * 4)),
        to_video(prompt="p"),
        to_video(prompt="🎩" * 500),
        to_video(negative_prompt="n" * 200),
        *[to_video(aspect_ratio=ratio) for ratio in ("16:9", "9:16", "1:1")],
        to_video(cfg_scale=0),
        to_video(cfg_scale=1),
        to_video(dynamic_masks=[]),
        to_video(dynamic_masks=[{"mask": URL, "trajectories": points(77)}] * 6),
        to_video(dynamic_masks=[{"mask": URL, "trajectories": [{"x": 0, "y": 10**6}] * 2}]),
    ],
)
def test_what_lies_on_the_edge_is_taken(raw: dict[str, Any]) -> None:
    fields = accepted(raw)
    assert {name: fields[name] for name in raw} == raw


LISTS_2_TO_4 = "This list must have 2 to 4 entries; it has {}."


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"subject_image_list": subjects(URL)}, "subject_image_list", LISTS_2_TO_4.format(1)),
        ({"subject_image_list": []}, "subject_image_list", LISTS_2_TO_4.format(0)),
        ({"subject_image_list": subjects(*[URL] * 5)}, "subject_image_list", LISTS_2_TO_4.format(5)),
        ({"subject_image_list": {}}, "subject_image_list", '"subject_image_list" must be a list.'),
        ({"subject_image_list": None}, "subject_image_list", '"subject_image_list" must be a list.'),
        (
            {"subject_image_list": [URL, *subjects(URL)]},
            "subject_image_list/0",
            "This entry must be an object.",
        ),
        (
            {"subject_image_list": [{}, *subjects(URL)]},
            "subject_image_list/0/subject_image",
            '"subject_image" is required.',
        ),
        (
            {"subject_image_list": [{"subject_image": URL, "image": URL}, *subjects(URL)]},
            "subject_image_list/0/image",
            '"image" is not a field that is known here.',
        ),
        ({"prompt": "p" * 2501}, "prompt", '"prompt" must have at most 2500 characters.'),
        ({"prompt": 5}, "prompt", '"prompt" must be text.'),
        ({"prompt": "a\0b"}, "prompt", '"prompt" must not have a NUL character in it.'),
        ({"prompt": "a\ud800b"}, "prompt", '"prompt" must not have half a surrogate pair in it.'),
        ({"prompt": CAT_REFERENCE}, "prompt", '"prompt" must not begin with file:sha256:.'),
        ({"model_name": ""}, "model_name", '"model_name" must not be blank.'),
        ({"model_name": " \u00a0"}, "model_name", '"model_name" must not be blank.'),
        ({"model_name": "m" * 65}, "model_name", '"model_name" must have at most 64 characters.'),
        ({"model_name": None}, "model_name", '"model_name" must be text.'),
        ({"model_name": CAT_REFERENCE[:64]}, "model_name", '"model_name" must not begin with file:sha256:.'),
        ({"n": 0}, "n", '"n" must be at least 1.'),
        ({"n": 10}, "n", '"n" must be at most 9.'),
        ({"n": 10**5000}, "n", '"n" must be at most 9.'),
        ({"n": "1"}, "n", '"n" must be a whole number.'),
        ({"n": 1.5}, "n", '"n" must be a whole number.'),
        ({"n": True}, "n", '"n" must be a whole number.'),
        ({"n": None}, "n", '"n" must be a whole number.'),
        ({"style_image": ["x"]}, "style_image", '"style_image" must be text.'),
        ({"model": "kling-v2"}, "model", '"model" is not a field that is known here.'),
        ({"image_list": []}, "image_list", '"image_list" is not a field that is known here.'),
        ({"x" * 70: 1}, "x" * 70, f'"{"x" * 64}…" is not a field that is known here.'),
    ],
)
def test_what_an_image_task_refuses(fields: dict[str, Any], pointer: str, detail: str) -> None:
    assert image_faults(**fields) == {f"#/input/{pointer}": detail}


POINT = {"x": 1, "y": 1}


def moving(*trajectory: object) -> dict[str, Any]:
    return {"dynamic_masks": [{"mask": URL, "trajectories": list(trajectory)}]}


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"image_list": pictures(URL)}, "image_list", LISTS_2_TO_4.format(1)),
        ({"image_list": pictures(*[URL] * 5)}, "image_list", LISTS_2_TO_4.format(5)),
        ({"prompt": ""}, "prompt", '"prompt" must not be blank.'),
        ({"prompt": "\n \u3000"}, "prompt", '"prompt" must not be blank.'),
        ({"prompt": None}, "prompt", '"prompt" must be text.'),
        ({"prompt": "p" * 501}, "prompt", '"prompt" must have at most 500 characters.'),
        (
            {"negative_prompt": "p" * 201},
            "negative_prompt",
            '"negative_prompt" must have at most 200 characters.',
        ),
        ({"mode": "Std"}, "mode", "\"mode\" must be 'std' or 'pro'."),
        ({"mode": None}, "mode", "\"mode\" must be 'std' or 'pro'."),
        ({"duration": "6"}, "duration", "\"duration\" must be '5' or '10'."),
        ({"duration": 6}, "duration", "\"duration\" must be '5' or '10'."),
        ({"duration": 5.0}, "duration", "\"duration\" must be '5' or '10'."),
        ({"duration": " 5"}, "duration", "\"duration\" must be '5' or '10'."),
        ({"duration": 10**5000}, "duration", "\"duration\" must be '5' or '10'."),
        ({"aspect_ratio": "4:3"}, "aspect_ratio", "\"aspect_ratio\" must be '16:9', '9:16' or '1:1'."),
        ({"aspect_ratio": {}}, "aspect_ratio", "\"aspect_ratio\" must be '16:9', '9:16' or '1:1'."),
        ({"cfg_scale": -0.01}, "cfg_scale", '"cfg_scale" must be at least 0.'),
        ({"cfg_scale": 1.01}, "cfg_scale", '"cfg_scale" must be at most 1.'),
        ({"cfg_scale": float("nan")}, "cfg_scale", '"cfg_scale" must be a finite number.'),
        ({"cfg_scale": float("inf")}, "cfg_scale", '"cfg_scale" must be a finite number.'),
        ({"cfg_scale": 10**400}, "cfg_scale", '"cfg_scale" must be a number.'),
        ({"cfg_scale": "0.5"}, "cfg_scale", '"cfg_scale" must be a number.'),
        ({"cfg_scale": True}, "cfg_scale", '"cfg_scale" must be a number.'),
        (
            {"dynamic_masks": [{"mask": URL, "trajectories": points(2)}] * 7},
            "dynamic_masks",
            "This list must have 0 to 6 entries; it has 7.",
        ),
        (
            moving(POINT),
            "dynamic_masks/0/trajectories",
            "This list must have 2 to 77 entries; it has 1.",
        ),
        (
            moving(*points(78)),
            "dynamic_masks/0/trajectories",
            "This list must have 2 to 77 entries; it has 78.",
        ),
        (moving(POINT, {"x": -1, "y": 0}), "dynamic_masks/0/trajectories/1/x", '"x" must be at least 0.'),
        (
            moving(POINT, {"x": 0, "y": True}),
            "dynamic_masks/0/trajectories/1/y",
            '"y" must be a whole number.',
        ),
        (
            moving(POINT, {"x": 0, "y": 0.5}),
            "dynamic_masks/0/trajectories/1/y",
            '"y" must be a whole number.',
        ),
        (
            moving(POINT, {"x": 0, "y": "0"}),
            "dynamic_masks/0/trajectories/1/y",
            '"y" must be a whole number.',
        ),
        (moving(POINT, {"x": 0}), "dynamic_masks/0/trajectories/1/y", '"y" is required.'),
        (
            moving(POINT, {"x": 0, "y": 0, "z": 0}),
            "dynamic_masks/0/trajectories/1/z",
            '"z" is not a field that is known here.',
        ),
    ],
)
def test_what_a_video_task_refuses(fields: dict[str, Any], pointer: str, detail: str) -> None:
    assert video_faults(**fields) == {f"#/input/{pointer}": detail}


@pytest.mark.parametrize(("given_as", "stored_as"), [(5, "5"), (10, "10"), ("5", "5"), ("10", "10")])
def test_a_duration_may_be_a_number_and_is_stored_as_text(given_as: object, stored_as: str) -> None:
    assert accepted(to_video(duration=given_as))["duration"] == stored_as


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("raw", [None, [], "text", 3, True])
def test_an_input_that_is_no_object_is_one_fault(model: type[BaseModel], raw: object) -> None:
    assert faults(model, raw) == {"#/input": "This must be an object."}


def test_an_empty_input_lacks_what_is_required() -> None:
    assert list(faults(MultiImageToImage, {})) == ["#/input/subject_image_list"]
    assert list(faults(MultiImageToVideo, {})) == ["#/input/image_list", "#/input/prompt"]


def test_every_fault_is_listed_at_once() -> None:
    """A list of the wrong length hides no fault of its entries, and no fault hides the comparison of masks."""
    found = faults(
        MultiImageToVideo,
        {
            "image_list": pictures(base64_png(200, 300)),
            "mode": "fast",
            "duration": 7,
            "cfg_scale": 2,
            "static_mask": base64_png(300, 300),
            "dynamic_masks": [
                {"mask": base64_png(300, 400), "trajectories": [{"x": -1, "y": -1}]},
                {"mask": URL, "trajectories": points(2), "speed": 1},
            ],
            "prompts": "?",
        },
    )
    assert set(found) == {
        "#/input/image_list",
        "#/input/image_list/0/image",
        "#/input/prompt",
        "#/input/mode",
        "#/input/duration",
        "#/input/cfg_scale",
        "#/input/dynamic_masks/0/mask",
        "#/input/dynamic_masks/0/trajectories",
        "#/input/dynamic_masks/0/trajectories/0/x",
        "#/input/dynamic_masks/0/trajectories/0/y",
        "#/input/dynamic_masks/1/speed",
        "#/input/prompts",
    }


def test_each_bad_picture_is_named_even_when_it_is_the_same_one() -> None:
    assert set(image_faults(subject_image_list=subjects("QQ==", CAT, "QQ=="), style_image="QQ==")) == {
        "#/input/subject_image_list/0/subject_image",
        "#/input/subject_image_list/2/subject_image",
        "#/input/style_image",
    }


def test_the_pictures_of_an_input_share_one_budget_of_pixels() -> None:
    """25 megapixels each, 100 together: the fifth is refused, at its place, and without being decoded."""
    large = [base64_png(5000, 5000, shade=shade) for shade in range(5)]
    assert image_faults(subject_image_list=subjects(*large[:4]), style_image=large[4]) == {
        "#/input/style_image": "With this picture, those sent as Base64 have more than 100 megapixels together; "
        "send it smaller or as a URL."
    }


def test_the_same_picture_twice_uses_the_budget_once() -> None:
    large = base64_png(5000, 5000)
    assert accepted(to_image(subject_image_list=subjects(*[large] * 4), scene_image=large, style_image=large))


@pytest.mark.parametrize("text", [CAT, "QQ==", "not a picture", ""])
def test_nothing_is_decoded_where_that_is_not_wanted(text: str) -> None:
    with pytest.raises(PicturesInside):
        validate(MultiImageToImage, to_image(style_image=text), decoding=False)


def test_an_input_without_base64_is_read_in_full_without_decoding() -> None:
    assert validate(MultiImageToVideo, to_video(), decoding=False) == validate(MultiImageToVideo, to_video())
    with pytest.raises(InvalidFields):
        validate(MultiImageToVideo, to_video(n=1), decoding=False)


def test_pictures_beyond_the_limit_of_a_list_are_not_looked_at() -> None:
    assert list(image_faults(subject_image_list=subjects(URL, URL, URL, "?", "?"))) == [
        "#/input/subject_image_list/3/subject_image",
        "#/input/subject_image_list",
    ]


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("a/b~c", "a~1b~0c"),
        ("~1", "~01"),
        ("", ""),
        ("50% ü", "50%25%20%C3%BC"),
        ('"<>\\^`{|}#', "%22%3C%3E%5C%5E%60%7B%7C%7D%23"),
        ("!$&'()*+,;=:@?-._", "!$&'()*+,;=:@?-._"),
        ("\ud800", "?"),
    ],
)
def test_pointers_are_escaped_and_percent_encoded(name: str, pointer: str) -> None:
    """RFC 6901 sections 3 and 6. What UTF-8 cannot hold is replaced, and hides no other fault."""
    found = image_faults(**{name: 1, "n": 0})
    assert list(found) == ["#/input/n", f"#/input/{pointer}"]
    json.dumps(found, ensure_ascii=False).encode()


def test_pointers_begin_where_the_caller_says() -> None:
    with pytest.raises(InvalidFields) as raised:
        validate(MultiImageToImage, to_image(n=0), pointer="#/follow_ups/0/submit/input")
    assert [fault.pointer for fault in raised.value.faults] == ["#/follow_ups/0/submit/input/n"]
    assert str(raised.value) == '"n" must be at least 1.'


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://EXAMPLE.COM/a.png",
        "https://example.com:8443/a%20b.png?x=@y",
        "https://[2001:db8::1]/a.png",
        "https://bücher.example/ä.png",
    ],
)
def test_a_url_goes_through_untouched(url: str) -> None:
    assert validate(MultiImageToImage, to_image(style_image=url)).fields["style_image"] == url
    assert validate(MultiImageToImage, to_image(style_image=url)).files == {}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/" + "a" * (MAX_URL - 19), "4097 characters; at most 4096"),
        ("https://", "no valid host"),
        ("https:///a.png", "no valid host"),
        ("https:example.com", "no valid host"),
        ("https://:80/", "no valid host"),
        ("https://example.com:99999/", "no valid host"),
        ("https://example.com:0/", "no valid host"),
        ("https://example.com:port/", "no valid host"),
        ("https://[example]/", "no valid host"),
        ("https://user@example.com/", "user name or password"),
        ("https://user:pass@example.com/", "user name or password"),
        ("https://@example.com/", "user name or password"),
        (" https://example.com/", "no spaces"),
        ("https://example.com/a b.png", "no spaces"),
        ("https://example.com/\n", "no spaces"),
        ("https://example.com/\t", "no spaces"),
        ("https://exa\u00admple.com/", "no spaces"),
        ("https://example.com/\u2028", "no spaces"),
        ("https://example.com/\0", "no spaces"),
        ("https://example.com/\ud800", "no spaces"),
        ("https://example.com\\@example.org/", "no spaces"),
        ("", "The text is empty"),
        ("ftp://example.com/a.png", "must be an http(s) URL or Base64"),
        ("file:///etc/passwd", "must be an http(s) URL or Base64"),
        ("example.com/a.png", "must be an http(s) URL or Base64"),
        ("data:text/html;base64,QQ==", "must be an http(s) URL or Base64"),
        (CAT_REFERENCE, "must be an http(s) URL or Base64"),
        ("data:image/png;base64," + CAT_REFERENCE, "must be an http(s) URL or Base64"),
        (CAT[:-1], "the end is missing"),
        ("\ud800", "must be an http(s) URL or Base64"),
    ],
)
def test_what_is_neither_a_good_url_nor_base64_is_refused(url: str, reason: str) -> None:
    assert reason in image_faults(style_image=url)["#/input/style_image"]


def test_a_refused_picture_is_not_echoed() -> None:
    text = base64.b64encode(b"GIF89a" + bytes(3000)).decode()
    detail = image_faults(style_image=text)["#/input/style_image"]
    assert detail == "The picture is neither a JPEG nor a PNG."


def test_a_base64_picture_becomes_a_reference_and_a_file() -> None:
    validated = validate(
        MultiImageToImage,
        to_image(
            subject_image_list=subjects(CAT, f"data:image/png;base64,{CAT}", URL), style_image=f"\n{CAT}\n"
        ),
    )
    assert validated.fields["subject_image_list"] == subjects(CAT_REFERENCE, CAT_REFERENCE, URL)
    assert validated.fields["style_image"] == CAT_REFERENCE
    assert validated.files == {CAT_DIGEST: png(shade=1)}


@pytest.mark.parametrize("model", MODELS)
def test_the_fields_are_json(model: type[BaseModel]) -> None:
    raw = to_image(style_image=CAT) if model is MultiImageToImage else to_video(static_mask=CAT, cfg_scale=1)
    fields = validate(model, raw).fields
    assert json.loads(json.dumps(fields)) == fields


def mask(image: str) -> dict[str, Any]:
    return {"mask": image, "trajectories": points(2)}


def test_masks_of_one_resolution_are_taken() -> None:
    fields = accepted(to_video(static_mask=CAT, dynamic_masks=[mask(HAT), mask(URL), mask(CAT)]))
    assert fields["static_mask"] == CAT_REFERENCE
    assert fields["dynamic_masks"][2]["mask"] == CAT_REFERENCE


def test_masks_need_not_have_the_resolution_of_the_pictures() -> None:
    assert accepted(to_video(image_list=pictures(base64_png(600, 600), URL), static_mask=CAT))


def test_each_mask_of_another_resolution_is_a_fault() -> None:
    other = base64_png(300, 301)
    detail = "This mask has 300 x 301 px and the first one 300 x 300 px; all masks must have the same."
    assert video_faults(static_mask=CAT, dynamic_masks=[mask(HAT), mask(other), mask(URL), mask(other)]) == {
        "#/input/dynamic_masks/1/mask": detail,
        "#/input/dynamic_masks/3/mask": detail,
    }


def test_dynamic_masks_are_compared_without_a_static_one() -> None:
    assert list(video_faults(static_mask=URL, dynamic_masks=[mask(CAT), mask(base64_png(301, 300))])) == [
        "#/input/dynamic_masks/1/mask"
    ]


def test_a_mask_that_is_no_good_picture_is_not_compared() -> None:
    found = video_faults(static_mask=base64_png(299, 300), dynamic_masks=[mask(CAT), mask(HAT)])
    assert list(found) == ["#/input/static_mask"]
    assert "at least 300 px" in found["#/input/static_mask"]


def test_references_become_base64_again_wherever_they_are() -> None:
    fields = {"a": CAT_REFERENCE, "b": [{"c": [CAT_REFERENCE, URL]}, 1, None], "d": f"see {CAT_REFERENCE}"}
    assert referenced_files(fields) == {CAT_DIGEST}
    assert with_files(fields, {CAT_DIGEST: png(shade=1)}.__getitem__) == {
        "a": CAT,
        "b": [{"c": [CAT, URL]}, 1, None],
        "d": f"see {CAT_REFERENCE}",
    }


def test_what_only_looks_like_a_reference_is_left_alone() -> None:
    fields = {"a": "file:sha256:abc", "b": CAT_REFERENCE + "\n", "c": CAT_REFERENCE.upper()}
    assert referenced_files(fields) == set()
    assert with_files(fields, {}.__getitem__) == fields


@pytest.mark.parametrize("model", MODELS)
def test_the_schema_states_the_limits_and_its_examples_are_valid(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["examples"]
    for example in schema["examples"]:
        validate(model, example)
    pictures_field = schema["properties"][schema["required"][0]]
    assert (pictures_field["minItems"], pictures_field["maxItems"]) == (2, 4)


images = st.sampled_from([URL, CAT, HAT, f"data:image/png;base64,{CAT}", "http://example.org/?q=1"])
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
image_inputs = st.fixed_dictionaries(
    {
        "subject_image_list": st.lists(
            images.map(lambda image: {"subject_image": image}), min_size=2, max_size=4
        )
    },
    optional={
        "prompt": text,
        "scene_image": images,
        "style_image": images | st.none(),
        "n": st.integers(1, 9),
    },
)
video_inputs = st.fixed_dictionaries(
    {
        "image_list": st.lists(images.map(lambda image: {"image": image}), min_size=2, max_size=4),
        "prompt": text.filter(str.strip),
    },
    optional={
        "negative_prompt": text,
        "duration": st.sampled_from(["5", "10"]),
        "cfg_scale": st.floats(0, 1),
        "static_mask": images,
        "dynamic_masks": st.lists(images.map(mask), max_size=6),
    },
)
valid_inputs = st.tuples(st.just(MultiImageToImage), image_inputs) | st.tuples(
    st.just(MultiImageToVideo), video_inputs
)


@given(valid_inputs)
def test_a_valid_input_survives_the_way_to_storage_and_back(
    case: tuple[type[BaseModel], dict[str, Any]],
) -> None:
    model, raw = case
    validated = validate(model, raw)
    assert referenced_files(validated.fields) == set(validated.files)
    restored = with_files(json.loads(json.dumps(validated.fields)), validated.files.__getitem__)
    said = {name: value for name, value in raw.items() if value is not None}
    assert {name: restored[name] for name in said} == json.loads(
        json.dumps(said).replace("data:image/png;base64,", "")
    )
    assert validate(model, restored) == validated


any_text = st.text(st.characters(exclude_categories=()), max_size=20)
names = any_text | st.sampled_from(
    sorted(
        {*MultiImageToImage.model_fields, *MultiImageToVideo.model_fields, "image", "subject_image", "mask"}
    )
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | images
    | st.sampled_from(
        ["https://", "data:image/png;base64,AAAA", CAT[:100], CAT_REFERENCE, base64_png(300, 400)]
    )
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5),
    max_leaves=15,
)


def check(model: type[BaseModel], raw: object) -> None:
    try:
        validated = validate(model, raw)
    except InvalidFields as refusal:
        assert refusal.faults  # noqa: PT017
        for fault in refusal.faults:
            assert fault.pointer.startswith("#/input")
            assert fault.pointer.isascii()
            assert fault.detail.encode()
            assert len(fault.detail) < 300
    else:
        json.dumps(validated.fields, allow_nan=False)


@given(st.sampled_from(MODELS), json_values)
def test_whatever_comes_is_accepted_or_refused_with_faults(model: type[BaseModel], raw: object) -> None:
    check(model, raw)


@given(valid_inputs, st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_valid_input_with_something_else_in_it_is_accepted_or_refused_with_faults(
    case: tuple[type[BaseModel], dict[str, Any]], data: st.DataObject
) -> None:
    model, raw = case
    raw = json.loads(json.dumps(raw))
    place: Any = raw
    while True:
        key = data.draw(
            st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1)
        )
        inner = place[key]
        if not inner or not isinstance(inner, dict | list) or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(json_values)
    check(model, raw)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("text", ["a\0b", CAT_REFERENCE, "A cat", "A file:sha256:"])
@pytest.mark.parametrize("name", ["prompt", "model_name"])
def test_the_schema_says_which_texts_are_refused(model: type[BaseModel], name: str, text: str) -> None:
    schema = model.model_json_schema()["properties"][name]
    described = jsonschema.Draft202012Validator(schema).is_valid(text[:64])
    [example, *_] = model.model_json_schema()["examples"]
    try:
        validate(model, {**example, name: text[:64]})
        taken = True
    except InvalidFields:
        taken = False
    assert described == taken == text.startswith("A ")
