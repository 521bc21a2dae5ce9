"""Kinds of task that make films of text and pictures."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from service.domain.faults import NOT_BLANK, Finding
from service.domain.inputs import (
    Count,
    DynamicMask,
    Element,
    Film,
    Image,
    InputModel,
    ModelName,
    Picture,
    Plain,
    Prompt,
    ProviderId,
    RuledModel,
    Watermark,
    given,
    length,
    unequal_masks,
    whole,
)
from service.domain.task_types.images import RETIREMENT, too_many_references
from service.domain.task_types.paths import everywhere
from service.domain.task_types.row import Confidence, Fact, TaskType, Words
from service.domain.tasks import OutputKind

TEXT: Final = "Kling, “Text to Video” (legacy), February 2026"
IMAGE: Final = "Kling, “Image to Video” (legacy), February 2026"
MULTI_IMAGE: Final = "Kling, “Multi-Image to Video”, 2026"
GATEWAY_MULTI_IMAGE: Final = "CometAPI, “Multi-Image to Video”, November 2026"
OMNI: Final = "Kling, “Omni Video”, February 2026"
MOTION: Final = "Kling, “Motion Control”, February 2026"
UPDATES: Final = "Kling, “API Updates”, 2026"
ANOTHER_GATEWAY: Final = "Comfy Router, “kling-v3”, 2026"

SHOTS: Final = 6
MOST_REFERENCES: Final = 7  # pictures and elements together
MOST_BESIDE_FILM: Final = 4
DIRECTIONS: Final = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")


def seconds_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


def _five_or_ten_as_text(value: object) -> object:
    return str(value) if type(value) is int and value in {5, 10} else value


FiveOrTen = Annotated[
    Literal["5", "10"],
    BeforeValidator(_five_or_ten_as_text, json_schema_input_type=Literal["5", "10", 5, 10]),
    Field(description="seconds"),
]
Duration = Annotated[
    Literal["3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"],
    BeforeValidator(
        seconds_as_text,
        json_schema_input_type=Literal[
            "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        ],
    ),
    Field(description="seconds"),
]  # fmt: skip
Ratio = Literal["16:9", "9:16", "1:1"]
Closeness = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False, description="how closely the video follows the prompt"),
]
Turn = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]


class CameraMove(InputModel):
    """How far; one of the six."""

    horizontal: Turn | None = None
    vertical: Turn | None = None
    pan: Turn | None = None
    tilt: Turn | None = None
    roll: Turn | None = None
    zoom: Turn | None = None


class CameraControl(RuledModel):
    """How the camera moves: by one of the presets, or by one figure of one's own."""

    type: Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
    config: CameraMove | None = Field(None, description="with `simple`, and only there")

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        config = raw.get("config")
        if raw.get("type") != "simple":
            if config is not None:
                yield Finding(("config",), 'Only the type "simple" has a "config".')
            return
        moves = [name for name in DIRECTIONS if config.get(name)] if isinstance(config, dict) else []
        if len(moves) != 1:
            yield Finding(
                ("config",), f'The type "simple" needs one of {", ".join(DIRECTIONS)} other than 0.'
            )


class Voice(InputModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"voice_id": "829824295735410756"}]})

    voice_id: ProviderId


class Shot(InputModel):
    """One of a film's shots."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"index": 1, "prompt": "A harbour at dawn", "duration": "3"},
                {"index": 2, "prompt": "A gull takes off", "duration": "5"},
            ]
        }
    )

    index: Annotated[int, Field(ge=1, le=SHOTS), BeforeValidator(whole)]
    prompt: Annotated[str, Field(max_length=512, pattern=NOT_BLANK), Plain()]
    duration: Annotated[
        str,
        BeforeValidator(seconds_as_text, json_schema_input_type=str | int),
        Field(pattern=r"^([1-9]|1[0-5])$", description="seconds"),
    ]


def shot_findings(raw: Mapping[Any, Any]) -> Iterator[Finding]:
    """What several shots need; and a prompt, where these do not stand in for it."""
    cut_by_hand = raw.get("multi_shot") is True and raw.get("shot_type") == "customize"
    if raw.get("multi_shot") is True and not given(raw, "shot_type"):
        yield Finding(("shot_type",), '"multi_shot" needs "shot_type".')
    if not cut_by_hand:
        if raw.get("prompt") is None:
            yield Finding(("prompt",), '"prompt" is required.')
        return
    shots = raw.get("multi_prompt")
    if not isinstance(shots, list) or not shots:
        yield Finding(("multi_prompt",), 'Shots of one\'s own stand in "multi_prompt".')
        return
    lengths = [str(shot.get("duration")) if isinstance(shot, dict) else "" for shot in shots]
    whole_length = str(raw.get("duration") or 5)
    are_seconds = all(re.fullmatch(r"[0-9]{1,3}", each) for each in [*lengths, whole_length])
    if are_seconds and sum(map(int, lengths)) != int(whole_length):
        yield Finding(
            ("multi_prompt",),
            f"The shots have {sum(map(int, lengths))} seconds together, and the film has {whole_length}.",
        )


class _Filmed(RuledModel):
    """What text and a picture become a film by."""

    model_name: ModelName = "kling-v2-6"
    negative_prompt: Prompt | None = None
    sound: Literal["on", "off"] | None = Field(None, description="from kling-v2-6 on")
    voice_list: Annotated[list[Voice], Count(0, 2)] | None = Field(
        None, description="named in the prompt as <<<voice_1>>>; with `sound` on"
    )
    cfg_scale: Closeness | None = Field(None, description="not for kling-v2 and later")
    mode: Literal["std", "pro", "4k"] = "std"
    duration: Duration = "5"
    multi_shot: bool | None = Field(None, description="from kling-v3 on")
    shot_type: Literal["customize", "intelligence"] | None = None
    multi_prompt: Annotated[list[Shot], Count(0, SHOTS)] | None = Field(
        None, description="the shots, with `shot_type` customize"
    )
    camera_control: CameraControl | None = None
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
        if given(raw, "voice_list") and raw.get("sound") != "on":
            yield Finding(("sound",), '"voice_list" needs "sound" to be "on".')
        yield from cls.own_findings(raw, gallery)

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
        raise NotImplementedError


class TextToVideo(_Filmed):
    """A film from text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-v2-6",
                    "prompt": "A paper boat drifts down a rainy street",
                    "duration": "5",
                    "aspect_ratio": "9:16",
                    "sound": "on",
                },
                {
                    "model_name": "kling-v3",
                    "multi_shot": True,
                    "shot_type": "customize",
                    "multi_prompt": [
                        {"index": 1, "prompt": "A harbour at dawn", "duration": "3"},
                        {"index": 2, "prompt": "A gull takes off", "duration": "5"},
                    ],
                    "duration": "8",
                },
                {
                    "model_name": "kling-v1",
                    "prompt": "A canyon seen from above",
                    "camera_control": {"type": "simple", "config": {"zoom": 5}},
                },
            ]
        }
    )

    prompt: Annotated[str, Field(max_length=2500, pattern=NOT_BLANK), Plain()] | None = Field(
        None, description="needed, unless `multi_prompt` has the shots"
    )
    aspect_ratio: Ratio = "16:9"

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from shot_findings(raw)


class ImageToVideo(_Filmed):
    """A film that begins with a picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-v2-6",
                    "image": "https://example.com/astronaut.png",
                    "prompt": "The astronaut stands up and walks away",
                    "mode": "pro",
                },
                {
                    "model_name": "kling-v1",
                    "image": "https://example.com/astronaut.png",
                    "static_mask": "https://example.com/still.png",
                    "dynamic_masks": [
                        {
                            "mask": "https://example.com/moving.png",
                            "trajectories": [{"x": 279, "y": 219}, {"x": 417, "y": 65}],
                        }
                    ],
                    "cfg_scale": 0.5,
                },
                {
                    "model_name": "kling-v2-1",
                    "image": "https://example.com/bud.png",
                    "image_tail": "https://example.com/bloom.png",
                    "mode": "pro",
                },
            ]
        }
    )

    image: Image = Field(description="the first frame")
    image_tail: Image | None = Field(None, description="the last frame")
    prompt: Prompt | None = None
    element_list: Annotated[list[Element], Count(0, 3)] | None = Field(
        None, description="from kling-v3 on; not with `voice_list`"
    )
    static_mask: Image | None = Field(
        None, description="what is painted here stays still; form as for pictures"
    )
    dynamic_masks: Annotated[list[DynamicMask], Count(0, 6)] | None = None

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
        groups = [
            fields
            for group in (("image_tail",), ("static_mask", "dynamic_masks"), ("camera_control",))
            if (fields := given(raw, *group))
        ]
        if len(groups) > 1:
            yield Finding(
                (groups[-1][0],), "A last frame, masks and a moving camera exclude one another: give one."
            )
        if given(raw, "element_list") and given(raw, "voice_list"):
            yield Finding(("element_list",), 'With "voice_list" there is no "element_list".')
        yield from unequal_masks(raw, gallery)
        yield from shot_findings({"prompt": "", **raw} if raw.get("prompt") is None else raw)


class MultiImageToVideo(RuledModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_list": [
                        {"image": "https://example.com/cat.png"},
                        {"image": "https://example.com/hat.png"},
                    ],
                    "prompt": "The cat puts on the hat and bows",
                    "duration": "5",
                }
            ]
        }
    )

    image_list: Annotated[list[Picture], Count(2, 4)]
    model_name: ModelName = "kling-v1-6"
    prompt: Annotated[str, Field(max_length=500, pattern=NOT_BLANK), Plain()]
    negative_prompt: Annotated[str, Field(max_length=200), Plain()] | None = None
    mode: Literal["std", "pro"] = "std"
    duration: FiveOrTen = "5"
    aspect_ratio: Ratio = "16:9"
    cfg_scale: Closeness | None = None
    static_mask: Image | None = Field(
        None, description="what is painted here stays still; form as for pictures"
    )
    dynamic_masks: Annotated[list[DynamicMask], Count(0, 6)] | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
        yield from unequal_masks(raw, gallery)


class OmniPicture(InputModel):
    image_url: Image
    type: Literal["first_frame", "end_frame"] | None = None


class OmniFilm(InputModel):
    video_url: Film
    refer_type: Literal["feature", "base"] | None = Field(
        None, description="what the new film takes after, or what is edited"
    )
    keep_original_sound: Literal["yes", "no"] | None = None


class OmniVideo(RuledModel):
    """A film from text that names pictures, elements and a film."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "<<<image_1>>> strolls through Tokyo and meets <<<element_1>>>",
                    "image_list": [{"image_url": "https://example.com/ada.png"}],
                    "element_list": [{"element_id": 829836802793406551}],
                    "aspect_ratio": "1:1",
                    "duration": "7",
                },
                {
                    "prompt": "Give the girl in <<<video_1>>> the crown of <<<image_1>>>",
                    "image_list": [{"image_url": "https://example.com/crown.png"}],
                    "video_list": [
                        {
                            "video_url": "https://example.com/girl.mp4",
                            "refer_type": "base",
                            "keep_original_sound": "yes",
                        }
                    ],
                },
                {
                    "model_name": "kling-v3-omni",
                    "prompt": "The bud opens",
                    "image_list": [
                        {"image_url": "https://example.com/bud.png", "type": "first_frame"},
                        {"image_url": "https://example.com/bloom.png", "type": "end_frame"},
                    ],
                },
            ]
        }
    )

    prompt: Annotated[str, Field(max_length=2500, pattern=NOT_BLANK), Plain()] | None = Field(
        None, description="needed, unless `multi_prompt` has the shots"
    )
    model_name: ModelName = "kling-video-o1"
    image_list: Annotated[list[OmniPicture], Count(0, MOST_REFERENCES)] | None = None
    element_list: Annotated[list[Element], Count(0, MOST_REFERENCES)] | None = None
    video_list: Annotated[list[OmniFilm], Count(0, 1)] | None = None
    sound: Literal["on", "off"] | None = None
    mode: Literal["std", "pro", "4k"] = "pro"
    aspect_ratio: Ratio | None = Field(
        None, description="needed where neither a first frame nor a film to be edited gives it"
    )
    duration: Duration | None = Field(None, description="seconds; a film that is edited keeps its own")
    multi_shot: bool | None = None
    shot_type: Literal["customize", "intelligence"] | None = None
    multi_prompt: Annotated[list[Shot], Count(0, SHOTS)] | None = None
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from shot_findings(raw)
        pictures = raw.get("image_list")
        beside = length(raw.get("video_list")) > 0
        yield from too_many_references(
            raw,
            pictures=length(pictures),
            most=MOST_BESIDE_FILM if beside else MOST_REFERENCES,
            at="image_list",
            because=" beside a film" if beside else "",
        )
        types = [
            picture.get("type") if isinstance(picture, dict) else None
            for picture in (pictures if isinstance(pictures, list) else [])
        ]
        if "end_frame" in types and "first_frame" not in types:
            yield Finding(
                ("image_list", types.index("end_frame"), "type"), "A last frame needs a first frame."
            )
        if "end_frame" in types and len(types) > 2:
            yield Finding(("image_list",), "With more than two pictures none of them is the last frame.")


class MotionControl(InputModel):
    """Somebody in a picture moves as somebody in a film."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_url": "https://example.com/ada.png",
                    "video_url": "https://example.com/dance.mp4",
                    "character_orientation": "video",
                    "mode": "std",
                    "prompt": "On a beach",
                }
            ]
        }
    )

    image_url: Image
    video_url: Film
    character_orientation: Literal["image", "video"] = Field(description="where the figure looks as it does")
    mode: Literal["std", "pro"]
    model_name: ModelName = "kling-v2-6"
    prompt: Prompt | None = None
    keep_original_sound: Literal["yes", "no"] | None = None
    element_list: Annotated[list[Element], Count(0, 1)] | None = Field(None, description="from kling-v3 on")
    watermark_info: Watermark | None = None


_OLDER: Final = ("kling-v1", "kling-v1-6", "kling-v2-master", "kling-v2-1-master")
_NEWER: Final = ("kling-v2-5-turbo", "kling-v2-6", "kling-v3")
_FOUR_K: Final = Fact("The mode 4k is for kling-v3 and kling-v3-omni.", UPDATES)
_V3_FIELDS: Final = Fact(
    "Several shots, and durations other than 5 and 10, are for kling-v3 and kling-v3-omni.",
    ANOTHER_GATEWAY,
    Confidence.SEEN,
)

ROWS: Final = (
    TaskType(
        name="kling.multi-image-to-video",
        summary="A film from several pictures",
        input_model=MultiImageToVideo,
        makes=OutputKind.VIDEO,
        routes=everywhere("/v1/videos/multi-image2video", source=MULTI_IMAGE, gateway=GATEWAY_MULTI_IMAGE),
        models=("kling-v1-6",),
        retired_models=("kling-v1-6",),
        facts=(
            Fact(
                "Two to four pictures; Kling itself names no least.", GATEWAY_MULTI_IMAGE, Confidence.GATEWAY
            ),
            Fact("Kling itself takes prompts of up to 2500 characters.", MULTI_IMAGE),
            Fact("Masks and cfg_scale are not on Kling's own page.", GATEWAY_MULTI_IMAGE, Confidence.GATEWAY),
        ),
        retired=Fact(
            "Its only model ended on 15 September 2026: use an omni video, which takes several pictures too.",
            RETIREMENT,
            Confidence.SEEN,
        ),
        words=Words(
            word="video",
            fewest=2,
            most=4,
            pictures=lambda pictures: {"image_list": [{"image": one} for one in pictures]},
        ),
    ),
    TaskType(
        name="kling.text-to-video",
        summary="A film from text",
        input_model=TextToVideo,
        makes=OutputKind.VIDEO,
        routes=everywhere("/v1/videos/text2video", source=TEXT),
        models=(*_OLDER, *_NEWER),
        retired_models=_OLDER,
        facts=(
            Fact("Where no model is named, Kling takes kling-v1, which has ended.", TEXT),
            Fact("Sound is from kling-v2-6 on, cfg_scale up to kling-v1-6.", TEXT),
            _V3_FIELDS,
            _FOUR_K,
        ),
        words=Words(word="video", fewest=0, most=0, pictures=lambda _: {}),
    ),
    TaskType(
        name="kling.image-to-video",
        summary="A film that begins with a picture",
        input_model=ImageToVideo,
        makes=OutputKind.VIDEO,
        routes=everywhere(
            "/v1/videos/image2video", source=IMAGE, gateway="CometAPI, “Image to Video”, November 2026"
        ),
        models=(
            "kling-v1",
            "kling-v1-5",
            "kling-v1-6",
            "kling-v2-master",
            "kling-v2-1",
            "kling-v2-1-master",
            *_NEWER,
        ),
        retired_models=(
            "kling-v1",
            "kling-v1-5",
            "kling-v1-6",
            "kling-v2-master",
            "kling-v2-1",
            "kling-v2-1-master",
        ),
        facts=(
            Fact("A last frame, masks and camera control exclude one another.", IMAGE),
            Fact("A path has 2 to 77 points, in px from the bottom left corner of the picture.", IMAGE),
            Fact("All masks have the same number of pixels.", IMAGE),
            Fact("Masks are for kling-v1, and for kling-v1-5 in the mode pro, with 5 s.", IMAGE),
            _V3_FIELDS,
            _FOUR_K,
        ),
        words=Words(word="video", fewest=1, most=1, pictures=lambda pictures: {"image": pictures[0]}),
    ),
    TaskType(
        name="kling.omni-video",
        summary="A film from text that names pictures, elements and a film",
        input_model=OmniVideo,
        makes=OutputKind.VIDEO,
        routes=everywhere(
            "/v1/videos/omni-video", source=OMNI, gateway="CometAPI, “Omni Query” and list of operations"
        ),
        models=("kling-video-o1", "kling-v3-omni"),
        facts=(
            Fact(
                "CometAPI's page has kling-video-o1 alone.",
                "CometAPI, list of operations",
                Confidence.GATEWAY,
            ),
            Fact("Pictures and elements are at most 7 together, beside a film at most 4.", OMNI),
            Fact("A film has 3 to 10 s and at most 200 MB; one at most.", OMNI),
            Fact("aspect_ratio is needed without a first frame or a film to be edited.", OMNI),
            Fact("From text or a first frame alone, kling-video-o1 makes 5 or 10 s.", OMNI),
            _FOUR_K,
        ),
    ),
    TaskType(
        name="kling.motion-control",
        summary="Somebody in a picture moves as somebody in a film",
        input_model=MotionControl,
        makes=OutputKind.VIDEO,
        routes=everywhere("/v1/videos/motion-control", source=MOTION, listed=False),
        models=("kling-v2-6", "kling-v3"),
        facts=(
            Fact("The film has 3 to 30 s where the figure looks as in the film, else 3 to 10 s.", MOTION),
            Fact("The film has at most 100 MB, and 340 to 3850 px a side.", MOTION),
            Fact("Elements are for kling-v3.", "Kling, “Motion Control 3.0”, September 2026"),
        ),
    ),
)
