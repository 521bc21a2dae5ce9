"""Kinds of task that make sounds."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from service.domain.faults import NOT_BLANK, Finding
from service.domain.inputs import Film, InputModel, Plain, ProviderId, RuledModel, exactly_one
from service.domain.task_types.paths import everywhere
from service.domain.task_types.row import Fact, TaskType
from service.domain.tasks import OutputKind

TEXT: Final = "Kling, “Text to Audio”, February 2026"
VIDEO: Final = "Kling, “Video to Audio”, February 2026"

ShortText = Annotated[str, Field(max_length=200), Plain()]


class TextToAudio(InputModel):
    """A sound from text."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "Rain on a tin roof, thunder far away", "duration": 5.5}]}
    )

    prompt: Annotated[str, Field(max_length=200, pattern=NOT_BLANK), Plain()]
    duration: Annotated[
        float,
        Field(ge=3, le=10, allow_inf_nan=False, description="seconds, to one decimal"),
    ]


class VideoToAudio(RuledModel):
    """Sounds and music for a film."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "video_url": "https://example.com/boat.mp4",
                    "sound_effect_prompt": "Waves and gulls",
                    "bgm_prompt": "A calm piano",
                }
            ]
        }
    )

    video_id: ProviderId | None = Field(None, description="of a film that Kling made; or `video_url`")
    video_url: Film | None = None
    sound_effect_prompt: ShortText | None = None
    bgm_prompt: ShortText | None = Field(None, description="what music to make")
    asmr_mode: bool | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from exactly_one(raw, "video_id", "video_url")


ROWS: Final = (
    TaskType(
        name="kling.text-to-audio",
        summary="A sound from text",
        input_model=TextToAudio,
        makes=OutputKind.AUDIO,
        routes=everywhere("/v1/audio/text-to-audio", source=TEXT, gateway="CometAPI, “Individual Queries”"),
        facts=(
            Fact("3.0 to 10.0 s.", TEXT),
            Fact("A sound comes as MP3 and as WAV; Klingel's output is the MP3.", TEXT),
        ),
    ),
    TaskType(
        name="kling.video-to-audio",
        summary="Sounds and music for a film",
        input_model=VideoToAudio,
        makes=OutputKind.AUDIO,
        also_makes=(OutputKind.VIDEO,),
        names_parent=True,
        routes=everywhere("/v1/audio/video-to-audio", source=VIDEO, gateway="CometAPI, “Individual Queries”"),
        facts=(
            Fact("The film has 3 to 20 s and at most 100 MB; one of Kling's is at most 30 days old.", VIDEO),
            Fact("The film comes back with the sound in it, beside the sound.", VIDEO),
        ),
    ),
)
