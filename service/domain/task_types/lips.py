"""Kinds of task that make somebody speak."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from service.domain.faults import NOT_BLANK, Finding
from service.domain.inputs import (
    Count,
    Film,
    Image,
    InputModel,
    Plain,
    Prompt,
    ProviderId,
    RuledModel,
    Sound,
    Watermark,
    exactly_one,
    given,
    whole,
)
from service.domain.task_types.paths import everywhere
from service.domain.task_types.row import Confidence, Fact, TaskType
from service.domain.tasks import OutputKind

LIP_SYNC: Final = "Kling, “Lip Sync”, February 2026"
OLDER_LIP_SYNC: Final = "Comfy Router, “videos-lip-sync”, 2026, after Kling's older page"
AVATAR: Final = "Kling, “Avatar”, February 2026"

SHORTEST_SOUND_MS: Final = 2000
MOST_FACES: Final = 10  # ours: Kling names no limit

Milliseconds = Annotated[int, Field(ge=0, description="ms"), BeforeValidator(whole)]
Volume = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]


class Face(RuledModel):
    """Whose mouth moves to which sound, and when."""

    face_id: ProviderId
    audio_id: ProviderId | None = Field(None, description="of a sound that Kling made; or `sound_file`")
    sound_file: Sound | None = None
    sound_start_time: Milliseconds
    sound_end_time: Milliseconds
    sound_insert_time: Milliseconds
    sound_volume: Volume | None = None
    original_audio_volume: Volume | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from exactly_one(raw, "audio_id", "sound_file")
        start, end = raw.get("sound_start_time"), raw.get("sound_end_time")
        if (
            isinstance(start, (int, float))
            and isinstance(end, (int, float))
            and end < start + SHORTEST_SOUND_MS
        ):
            yield Finding(
                ("sound_end_time",), f"What is left of the sound must have at least {SHORTEST_SOUND_MS} ms."
            )


class AdvancedLipSync(InputModel):
    """Faces in a film speak."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "session_id": "847570360458960960",
                    "face_choose": [
                        {
                            "face_id": "0",
                            "sound_file": "https://example.com/voice.mp3",
                            "sound_start_time": 0,
                            "sound_end_time": 4000,
                            "sound_insert_time": 500,
                        }
                    ],
                }
            ]
        }
    )

    session_id: ProviderId = Field(description="from Kling's look for faces, which lasts 24 hours")
    face_choose: Annotated[list[Face], Count(1, MOST_FACES)]
    watermark_info: Watermark | None = None


class LipSyncInput(RuledModel):
    """A film, and what is said in it."""

    mode: Literal["text2video", "audio2video"]
    video_id: ProviderId | None = Field(None, description="of a film that Kling made; or `video_url`")
    video_url: Film | None = None
    text: Annotated[str, Field(max_length=120, pattern=NOT_BLANK), Plain()] | None = None
    voice_id: ProviderId | None = None
    voice_language: Literal["zh", "en"] | None = None
    voice_speed: Annotated[float, Field(ge=0.8, le=2, allow_inf_nan=False)] | None = None
    audio_type: Literal["file", "url"] | None = None
    audio_file: Sound | None = None
    audio_url: Sound | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from exactly_one(raw, "video_id", "video_url")
        needed: tuple[str, ...] = ()
        if raw.get("mode") == "text2video":
            needed = ("text", "voice_id")
        elif raw.get("mode") == "audio2video":
            needed = ("audio_type", "audio_file" if raw.get("audio_type") == "file" else "audio_url")
        for name in needed:
            if not given(raw, name):
                yield Finding((name,), f'In the mode {raw["mode"]} "{name}" is required.')


class LipSync(InputModel):
    """Somebody in a film speaks a text, or to a sound."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input": {
                        "mode": "text2video",
                        "video_id": "881203390284693505",
                        "text": "Welcome aboard",
                        "voice_id": "genshin_vindi2",
                        "voice_language": "en",
                    }
                },
                {
                    "input": {
                        "mode": "audio2video",
                        "video_url": "https://example.com/captain.mp4",
                        "audio_type": "url",
                        "audio_url": "https://example.com/voice.mp3",
                    }
                },
            ]
        }
    )

    input: LipSyncInput


class Avatar(RuledModel):
    """Somebody in a picture speaks."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image": "https://example.com/ada.png",
                    "sound_file": "https://example.com/voice.mp3",
                    "prompt": "She smiles into the camera",
                    "mode": "std",
                }
            ]
        }
    )

    image: Image
    audio_id: ProviderId | None = Field(None, description="of a sound that Kling made; or `sound_file`")
    sound_file: Sound | None = None
    prompt: Prompt | None = None
    mode: Literal["std", "pro"] = "std"
    watermark_info: Watermark | None = None

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        yield from exactly_one(raw, "audio_id", "sound_file")


ROWS: Final = (
    TaskType(
        name="kling.advanced-lip-sync",
        summary="Faces in a film speak",
        input_model=AdvancedLipSync,
        makes=OutputKind.VIDEO,
        names_parent=True,
        routes=everywhere("/v1/videos/advanced-lip-sync", source=LIP_SYNC),
        facts=(
            Fact(
                "session_id and face_id come from identify-face, which answers at once: ask it directly.",
                LIP_SYNC,
            ),
            Fact("A sound has 2 to 60 s and at most 5 MB, and is at most 30 days old.", LIP_SYNC),
            Fact("At least 2 s of the sound must lie where the face can be seen.", LIP_SYNC),
            Fact("The answer names the film as parent_video.", LIP_SYNC),
        ),
    ),
    TaskType(
        name="kling.lip-sync",
        summary="Somebody in a film speaks a text, or to a sound (older)",
        input_model=LipSync,
        makes=OutputKind.VIDEO,
        names_parent=True,
        routes=everywhere(
            "/v1/videos/lip-sync", source=OLDER_LIP_SYNC, gateway="CometAPI, “Individual Queries”"
        ),
        facts=(
            Fact("A text has at most 120 characters.", OLDER_LIP_SYNC, Confidence.SEEN),
            Fact("A film has 2 to 10 s and at most 100 MB.", OLDER_LIP_SYNC, Confidence.SEEN),
            Fact("A sound has at most 5 MB.", OLDER_LIP_SYNC, Confidence.SEEN),
        ),
    ),
    TaskType(
        name="kling.avatar",
        summary="Somebody in a picture speaks",
        input_model=Avatar,
        makes=OutputKind.VIDEO,
        routes=everywhere("/v1/videos/avatar/image2video", source=AVATAR),
        facts=(
            Fact("A sound has 2 to 300 s and at most 5 MB.", AVATAR),
            Fact("audio_id and sound_file exclude one another, and one is needed.", AVATAR),
        ),
    ),
)
