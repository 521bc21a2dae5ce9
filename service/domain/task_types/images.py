"""Kinds of task that make pictures."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from service.domain.faults import Finding
from service.domain.inputs import (
    Count,
    Element,
    Image,
    InputModel,
    ModelName,
    NeededPrompt,
    Picture,
    Prompt,
    RuledModel,
    Watermark,
    given,
    length,
    whole,
)
from service.domain.task_types.paths import everywhere
from service.domain.task_types.row import (
    A_PLACE_EACH,
    Confidence,
    Fact,
    Layout,
    Places,
    Route,
    TaskType,
    Words,
)
from service.domain.tasks import OutputKind

GENERATION: Final = "Kling, “Image Generation”, September 2026"
MULTI_IMAGE: Final = "Kling, “Multi-Image to Image”, September 2026"
OLDER_MULTI_IMAGE: Final = "CometAPI, “Multi-Image to Image”, November 2026"
NEWER_MULTI_IMAGE: Final = "CometAPI, “Generate a Kling image from multiple images”, November 2026"
GATEWAY_GENERATION: Final = "CometAPI, “Image generation”, November 2026"
OMNI: Final = "Kling, “Omni Image Generation”, September 2026"
OUTPAINTING: Final = "Kling, “Outpainting”, September 2026"
TRY_ON: Final = "Kling, “Virtual Try-On”, February 2026"
RETIREMENT: Final = "public notes on Kling's notice for 15 September 2026"
CONCURRENCY: Final = "Kling, “Concurrency Rules”"

MOST_REFERENCES: Final = 10  # pictures and elements together

Ratio = Literal["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9"]
Number = Annotated[int, Field(ge=1, le=9, description="how many pictures to make"), BeforeValidator(whole)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Expansion = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]

_PLACES: Final = Fact("It takes as many parallel places as it makes pictures.", CONCURRENCY)


class ImageGeneration(RuledModel):
    """A picture from text, or from text and one picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "A lighthouse in a storm, oil on canvas", "aspect_ratio": "3:2", "n": 2},
                {
                    "model_name": "kling-v2-1",
                    "prompt": "The same cat as a watercolour",
                    "image": "https://example.com/cat.png",
                },
            ]
        }
    )

    prompt: NeededPrompt
    model_name: ModelName = "kling-v3"
    negative_prompt: Prompt | None = Field(None, description="not with `image`")
    image: Image | None = None
    image_reference: Literal["subject", "face"] | None = Field(
        None, description="what `image` shows: somebody's character, or one face"
    )
    image_fidelity: Share | None = Field(None, description="how closely to follow `image`")
    human_fidelity: Share | None = Field(None, description="how closely to follow the face in `image`")
    element_list: Annotated[list[Element], Count(0, MOST_REFERENCES)] | None = None
    resolution: Literal["1k", "2k"] | None = None
    n: Number = 1
    aspect_ratio: Ratio = "16:9"
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        if given(raw, "image") and given(raw, "negative_prompt"):
            yield Finding(("negative_prompt",), 'With "image" there is no "negative_prompt".')
        if given(raw, "image_reference") and not given(raw, "image"):
            yield Finding(("image",), '"image_reference" needs "image".')
        yield from too_many_references(
            raw, pictures=len(given(raw, "image")), most=MOST_REFERENCES, at="element_list"
        )


def too_many_references(
    raw: Mapping[Any, Any], *, pictures: int, most: int, at: str, because: str = ""
) -> Iterator[Finding]:
    """
    Args:
        at: the field that is blamed.
    """
    number = pictures + length(raw.get("element_list"))
    if number > most:
        yield Finding(
            (at,), f"Pictures and elements are at most {most} together{because}; there are {number}."
        )


class Subject(InputModel):
    subject_image: Image


class MultiImageToImage(RuledModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "subject_image_list": [
                        {"subject_image": "https://example.com/cat.png"},
                        {"subject_image": "https://example.com/hat.png"},
                    ],
                    "scene_image": "https://example.com/beach.jpg",
                    "prompt": "The cat wears the hat on the beach",
                }
            ]
        }
    )

    subject_image_list: Annotated[list[Subject], Count(2, 4)]
    model_name: ModelName = "kling-v2"
    prompt: Prompt | None = None
    scene_image: Image | None = None
    scence_image: Image | None = Field(
        None,
        serialization_alias="scene_image",
        description="`scene_image`, as CometAPI's older page spells it",
    )
    style_image: Image | None = None
    n: Number = 1
    aspect_ratio: Ratio = "16:9"

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        if raw.get("scene_image") is not None and raw.get("scence_image") is not None:
            yield Finding(
                ("scence_image",), '"scence_image" is another spelling of "scene_image": give one of them.'
            )


class MultiImageToImageAnew(MultiImageToImage):
    """As CometAPI's newer page and Kling's own have it: one picture is enough."""

    subject_image_list: Annotated[list[Subject], Count(1, 4)]


class OmniImage(RuledModel):
    """A picture, or a series of them, from text in which pictures and elements are named."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "The cat of <<<image_1>>> wears the hat of <<<image_2>>>",
                    "image_list": [
                        {"image": "https://example.com/cat.png"},
                        {"image": "https://example.com/hat.png"},
                    ],
                    "aspect_ratio": "1:1",
                },
                {
                    "model_name": "kling-v3-omni",
                    "prompt": "Four seasons in the garden of <<<image_1>>>",
                    "image_list": [{"image": "https://example.com/garden.png"}],
                    "result_type": "series",
                    "series_amount": 4,
                },
            ]
        }
    )

    prompt: NeededPrompt
    model_name: ModelName = "kling-image-o1"
    image_list: Annotated[list[Picture], Count(0, MOST_REFERENCES)] | None = None
    element_list: Annotated[list[Element], Count(0, MOST_REFERENCES)] | None = None
    resolution: Literal["1k", "2k", "4k"] | None = None
    result_type: Literal["single", "series"] | None = None
    n: Number = 1
    series_amount: Annotated[int, Field(ge=2, le=9), BeforeValidator(whole)] | Literal["auto"] | None = Field(
        None, description="how many pictures a series has"
    )
    aspect_ratio: Ratio | Literal["auto"] = "auto"
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from too_many_references(
            raw, pictures=length(raw.get("image_list")), most=MOST_REFERENCES, at="image_list"
        )


def _places_of_series(input: Mapping[str, Any]) -> int:
    """How many `auto` will be, only the provider knows: at most nine."""
    if input.get("result_type") != "series":
        return A_PLACE_EACH(input)
    amount = input.get("series_amount", 4)
    return amount if isinstance(amount, int) else 9


PLACES_OF_SERIES: Final = Places("one for each picture (`n`, `series_amount`)", _places_of_series)


class Outpainting(RuledModel):
    """What lies beyond the edges of a picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image": "https://example.com/dog.png",
                    "up_expansion_ratio": 0.1,
                    "down_expansion_ratio": 0.1,
                    "left_expansion_ratio": 0.5,
                    "right_expansion_ratio": 0.5,
                    "prompt": "A wide meadow",
                    "n": 2,
                }
            ]
        }
    )

    image: Image
    up_expansion_ratio: Expansion = Field(description="of the picture's height")
    down_expansion_ratio: Expansion = Field(description="of the picture's height")
    left_expansion_ratio: Expansion = Field(description="of the picture's width")
    right_expansion_ratio: Expansion = Field(description="of the picture's width")
    prompt: Prompt | None = None
    n: Number = 1
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        up, down, left, right = (
            float(value)
            if isinstance(value := raw.get(f"{side}_expansion_ratio"), (int, float)) and 0 <= value <= 2
            else 0.0
            for side in ("up", "down", "left", "right")
        )
        area = (1 + up + down) * (1 + left + right)
        if area > LARGEST_EXPANSION + 0.001:  # Kling's own sample is rounded
            yield Finding(
                (),
                f"The new picture would have {area:.2f} times the old one's area; at most 3 times are allowed.",
            )


LARGEST_EXPANSION: Final = 3


class VirtualTryOn(InputModel):
    """Somebody in other clothes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "human_image": "https://example.com/ada.png",
                    "cloth_image": "https://example.com/coat.png",
                }
            ]
        }
    )

    human_image: Image
    cloth_image: Image
    model_name: ModelName = "kolors-virtual-try-on-v1-5"


ROWS: Final = (
    TaskType(
        name="kling.multi-image-to-image",
        summary="A picture from several pictures",
        input_model=MultiImageToImage,
        makes=OutputKind.IMAGE,
        places=A_PLACE_EACH,
        routes={
            # CometAPI's older page keeps the misspelling that an early official page had.
            Layout.COMETAPI: (
                Route(
                    path="/kling/v1/images/generations",
                    source=OLDER_MULTI_IMAGE,
                    confidence=Confidence.GATEWAY,
                    renames={"scene_image": "scence_image"},
                    told_by="subject_image_list",
                ),
                Route(
                    path="/kling/v1/images/multi-image2image",
                    source=NEWER_MULTI_IMAGE,
                    confidence=Confidence.GATEWAY,
                    input_model=MultiImageToImageAnew,
                ),
            ),
            Layout.OFFICIAL: (
                Route(path="/v1/images/multi-image2image", source=MULTI_IMAGE, confidence=Confidence.KLING),
            ),
        },
        models=("kling-v2", "kling-v2-1"),
        retired_models=("kling-v2",),
        facts=(
            Fact("Two to four pictures.", OLDER_MULTI_IMAGE, Confidence.GATEWAY),
            Fact("One to four pictures.", MULTI_IMAGE),
            Fact("kling-v2-1 is the only model.", MULTI_IMAGE),
            Fact("kling-v2-1 is advised.", NEWER_MULTI_IMAGE, Confidence.GATEWAY),
            Fact(
                "kling-v2 is the only model, and taken where none is named.",
                OLDER_MULTI_IMAGE,
                Confidence.GATEWAY,
            ),
            Fact("kling-v2 ended on 15 September 2026.", RETIREMENT, Confidence.SEEN),
            Fact(
                "CometAPI's older path takes kling-v2-1 too, though its page does not name it.",
                OLDER_MULTI_IMAGE,
                Confidence.GUESSED,
            ),
            Fact(
                "CometAPI's older path is also that of the image generation; the list of subjects tells them apart.",
                OLDER_MULTI_IMAGE,
                Confidence.GUESSED,
            ),
            _PLACES,
        ),
        words=Words(
            word="image",
            fewest=2,
            most=4,
            pictures=lambda pictures: {"subject_image_list": [{"subject_image": one} for one in pictures]},
        ),
    ),
    TaskType(
        name="kling.image-generation",
        summary="A picture from text, or from text and one picture",
        input_model=ImageGeneration,
        makes=OutputKind.IMAGE,
        places=A_PLACE_EACH,
        routes=everywhere("/v1/images/generations", source=GENERATION, gateway=GATEWAY_GENERATION),
        models=("kling-v1", "kling-v1-5", "kling-v2", "kling-v2-new", "kling-v2-1", "kling-v3"),
        retired_models=("kling-v1", "kling-v1-5", "kling-v2", "kling-v2-new"),
        facts=(
            Fact(
                "CometAPI takes a prompt of at most 500 characters.", GATEWAY_GENERATION, Confidence.GATEWAY
            ),
            Fact("CometAPI has no 21:9.", GATEWAY_GENERATION, Confidence.GATEWAY),
            Fact("The fidelities are for kling-v2-1 alone.", GENERATION),
            Fact("A field called model counts as none, which once meant the model kling-v1.", GENERATION),
            _PLACES,
        ),
        words=Words(
            word="image",
            fewest=0,
            most=1,
            pictures=lambda pictures: {"image": pictures[0]} if pictures else {},
        ),
    ),
    TaskType(
        name="kling.omni-image",
        summary="A picture or a series from text that names pictures and elements",
        input_model=OmniImage,
        makes=OutputKind.IMAGE,
        places=PLACES_OF_SERIES,
        routes=everywhere("/v1/images/omni-image", source=OMNI, listed=False),
        models=("kling-image-o1", "kling-v3-omni"),
        facts=(
            Fact("The prompt names pictures as <<<image_1>>> and elements as <<<element_1>>>.", OMNI),
            Fact("A series comes as series_images, single pictures as images.", OMNI),
            Fact("In a series, n means nothing; in single pictures, series_amount means nothing.", OMNI),
            _PLACES,
        ),
    ),
    TaskType(
        name="kling.outpainting",
        summary="What lies beyond the edges of a picture",
        input_model=Outpainting,
        makes=OutputKind.IMAGE,
        places=A_PLACE_EACH,
        routes=everywhere("/v1/images/editing/expand", source=OUTPAINTING),
        facts=(
            Fact("The new picture has at most three times the old one's area.", OUTPAINTING),
            _PLACES,
        ),
    ),
    TaskType(
        name="kling.virtual-try-on",
        summary="Somebody in other clothes",
        input_model=VirtualTryOn,
        makes=OutputKind.IMAGE,
        shares_places=False,
        routes=everywhere("/v1/images/kolors-virtual-try-on", source=TRY_ON),
        models=("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"),
        facts=(
            Fact("Only v1-5 takes a top and a bottom in one picture of clothes.", TRY_ON),
            Fact(
                "Version 3.0 has come, and the parameters of v1 and v1-5 lead to it.",
                "Kling, “API Updates”, 15 September 2026",
            ),
            Fact("A try-on takes one parallel place, of a pack of its own.", CONCURRENCY),
        ),
        retired=Fact(
            "The API is said to have ended on 15 September 2026; Kling's own updates say that its models live on.",
            RETIREMENT,
            Confidence.SEEN,
        ),
    ),
)
