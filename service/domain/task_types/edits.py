"""Kinds of task that make films of films, and of templates."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from service.domain.faults import NOT_BLANK, Finding
from service.domain.inputs import (
    Count,
    Image,
    InputModel,
    ModelName,
    NeededPrompt,
    Picture,
    Plain,
    Prompt,
    ProviderId,
    RuledModel,
    Watermark,
    exactly_one,
    length,
)
from service.domain.task_types.images import RETIREMENT
from service.domain.task_types.paths import everywhere
from service.domain.task_types.row import Confidence, Fact, TaskType
from service.domain.task_types.videos import Closeness, FiveOrTen
from service.domain.tasks import OutputKind

EXTEND: Final = "Kling, “Video Extension”, February 2026"
EFFECTS: Final = "Kling, “Video Effects”, September 2026"
OLDER_EFFECTS: Final = "Kling, “Video Effects”, February 2026"
ELEMENTS: Final = "Kling, “Multi-element Video Reference Editing”, September 2026"

# How many pictures each way of editing takes.
EDITS: Final[Mapping[str, range]] = {"addition": range(1, 3), "swap": range(1, 2), "removal": range(1)}


class VideoExtend(InputModel):
    """What happens next in a film of Kling's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"video_id": "881203390284693505", "prompt": "The boat reaches the river"}]
        }
    )

    video_id: ProviderId = Field(description="of a film that Kling made of text or a picture, or extended")
    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    cfg_scale: Closeness | None = None
    watermark_info: Watermark | None = None


class EffectInput(RuledModel):
    """One picture, or two for effects with two people."""

    image: Image | None = None
    images: Annotated[list[Image], Count(2, 2)] | None = Field(None, description="left, right")
    duration: FiveOrTen | None = None
    model_name: ModelName | None = None
    mode: Literal["std", "pro"] | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from exactly_one(raw, "image", "images")


class Effects(InputModel):
    """A film by one of Kling's templates."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"effect_scene": "color_mixing", "input": {"image": "https://example.com/ada.png"}},
                {
                    "effect_scene": "hug_pro",
                    "input": {"images": ["https://example.com/ada.png", "https://example.com/bob.png"]},
                },
            ]
        }
    )

    effect_scene: Annotated[str, Field(max_length=64, pattern=NOT_BLANK), Plain()] = Field(
        description="the template, as Kling names it"
    )
    input: EffectInput
    watermark_info: Watermark | None = None


class MultiElements(RuledModel):
    """A film in which something was added, swapped or removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "session_id": "847570360458960960",
                    "edit_mode": "swap",
                    "image_list": [{"image": "https://example.com/fox.png"}],
                    "prompt": "swap the fox from <<<image_1>>> for the dog from <<<video_1>>>",
                },
                {
                    "session_id": "847570360458960960",
                    "edit_mode": "removal",
                    "prompt": "Delete the dog from <<<video_1>>>",
                },
            ]
        }
    )

    session_id: ProviderId = Field(description="from Kling's selection, which lasts 24 hours")
    edit_mode: Literal["addition", "swap", "removal"]
    prompt: NeededPrompt
    model_name: ModelName = "kling-v1-6"
    image_list: Annotated[list[Picture], Count(0, 2)] | None = None
    negative_prompt: Prompt | None = None
    mode: Literal["std", "pro"] = "std"
    duration: FiveOrTen = "5"
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        mode = raw.get("edit_mode")
        allowed = EDITS.get(mode) if isinstance(mode, str) else None
        number = length(raw.get("image_list"))
        if allowed is not None and number not in allowed:
            wanted = " or ".join(map(str, allowed))
            yield Finding(
                ("image_list",), f"The edit_mode {mode} takes {wanted} pictures; there are {number}."
            )


ROWS: Final = (
    TaskType(
        name="kling.video-extend",
        summary="What happens next in a film of Kling's",
        input_model=VideoExtend,
        makes=OutputKind.VIDEO,
        names_parent=True,
        routes=everywhere("/v1/videos/video-extend", source=EXTEND),
        facts=(
            Fact("Each time 4 to 5 s are added, up to 3 minutes in all; model and mode stay.", EXTEND),
            Fact("The film is at most 30 days old.", EXTEND),
            Fact("The answer names the film it extends as parent_video.", EXTEND),
        ),
        retired=Fact(
            "It goes by the older models, which ended on 15 September 2026: an omni video makes the next shot.",
            RETIREMENT,
            Confidence.SEEN,
        ),
    ),
    TaskType(
        name="kling.effects",
        summary="A film by one of Kling's templates",
        input_model=Effects,
        makes=OutputKind.VIDEO,
        routes=everywhere("/v1/videos/effects", source=EFFECTS),
        facts=(
            Fact("204 templates take one picture, 15 take two.", EFFECTS),
            Fact("duration, model_name and mode are on the older page alone.", OLDER_EFFECTS),
            Fact("119 templates ended on 15 September 2026.", RETIREMENT, Confidence.SEEN),
        ),
    ),
    TaskType(
        name="kling.multi-elements",
        summary="A film in which something was added, swapped or removed",
        input_model=MultiElements,
        makes=OutputKind.VIDEO,
        echoes=("session_id",),
        routes=everywhere("/v1/videos/multi-elements", source=ELEMENTS),
        models=("kling-v1-6",),
        retired_models=("kling-v1-6",),
        facts=(
            Fact("addition takes one or two pictures, swap one, removal none.", ELEMENTS),
            Fact("For 5 s the film has 2 to 5 s, for 10 s it has 7 to 10 s.", ELEMENTS),
            Fact(
                "The session comes from init-selection and its sisters, which are asked directly and at once: "
                "Klingel has no part in them.",
                ELEMENTS,
            ),
        ),
        retired=Fact(
            "Its only model ended on 15 September 2026: an omni video edits films too.",
            RETIREMENT,
            Confidence.SEEN,
        ),
    ),
)
