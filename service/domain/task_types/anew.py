"""Kinds of task in Kling's new standard: the model in the path, materials in `contents`, the rest in `settings`.

What each model has besides is checked for those that are known here; of a newer one the provider decides.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from service.domain.faults import NOT_BLANK, Finding
from service.domain.inputs import (
    Count,
    Film,
    Image,
    InputModel,
    Plain,
    ProviderId,
    RuledModel,
    Watermark,
    whole,
)
from service.domain.task_types.row import Confidence, Fact, Layout, Route, Standard, TaskType
from service.domain.tasks import OutputKind

TEXT: Final = "Kling, “Text to Video” (3.0, 3.0 Turbo, 2.6, 2.5 Turbo), September 2026"
IMAGE: Final = "Kling, “Image to Video” (3.0, 3.0 Turbo, 2.6, 2.5 Turbo), September 2026"
OMNI: Final = "Kling, “Omni Video Generation” (3.0 Omni, O1), September 2026"
MOTION: Final = "Kling, “Motion Control” (3.0, 2.6), September 2026"
AUTHENTICATION: Final = "Kling, “Authentication”"

LONGEST_PROMPT: Final = 3072
SHORTER_PROMPT: Final = 2500
MOST_CONTENTS: Final = 20  # ours: more than all that the limits together let in

# What stands in a path: no slash, and no dots alone.
PathModel = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
LongPrompt = Annotated[str, Field(max_length=LONGEST_PROMPT, pattern=NOT_BLANK), Plain()]
Name = Annotated[str, Field(max_length=64, pattern=NOT_BLANK), Plain()]
Resolution = Literal["720p", "1080p", "4k"]
Seconds = Annotated[int, Field(ge=3, le=15, description="seconds"), BeforeValidator(whole)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What one model can do. None is what its page does not name."""

    contents: Sequence[str] = ("prompt",)
    resolutions: Sequence[str] = ("720p", "1080p")
    durations: Sequence[int] | None = None
    audio: Sequence[str] | None = None
    multi_shot: bool = False
    prompt: int = SHORTER_PROMPT


_SHORT: Final = (5, 10)
_LONG: Final = tuple(range(3, 16))
_FRAMES: Final = ("prompt", "first_frame", "last_frame")
_REFERENCES: Final = (*_FRAMES, "refer_image", "feature_video", "base_video", "element")


class Options(InputModel):
    """What is neither material nor setting; where callbacks go is Klingel's to say."""

    watermark_info: Watermark | None = None


class _Anew(RuledModel):
    """What all kinds of the new standard share."""

    abilities: ClassVar[Mapping[str, Abilities]]

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:  # noqa: ARG003
        name = raw.get("model_name", cls.model_fields["model_name"].default)
        able = cls.abilities.get(name) if isinstance(name, str) else None
        if able is not None:
            yield from _beyond(raw, name, able)
        yield from cls.own_findings(raw)

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any]) -> Iterator[Finding]:  # noqa: ARG003
        return iter(())


def _beyond(raw: Mapping[Any, Any], model: str, able: Abilities) -> Iterator[Finding]:
    """What this model cannot do."""
    settings = raw.get("settings")
    chosen: Mapping[Any, Any] = settings if isinstance(settings, dict) else {}
    lists: tuple[tuple[str, Sequence[object] | None], ...] = (
        ("resolution", able.resolutions),
        ("duration", able.durations),
        ("audio", able.audio),
    )
    for field, allowed in lists:
        value = chosen.get(field)
        if value is None or (allowed is not None and value in allowed):
            continue
        listed = "none" if allowed is None else ", ".join(map(str, allowed))
        yield Finding(("settings", field), f"{model} has {listed} here.")
    if chosen.get("multi_shot") is not None and not able.multi_shot:
        yield Finding(("settings", "multi_shot"), f"{model} has none here.")
    for place, item in enumerate(_contents(raw)):
        if _type(item) in _ALL_CONTENTS and _type(item) not in able.contents:
            yield Finding(("contents", place, "type"), f"{model} takes {', '.join(able.contents)}.")
        text = item.get("text")
        if isinstance(text, str) and len(text) > able.prompt:
            yield Finding(("contents", place, "text"), f"{model} takes at most {able.prompt} characters.")
    if isinstance(prompt := raw.get("prompt"), str) and len(prompt) > able.prompt:
        yield Finding(("prompt",), f"{model} takes at most {able.prompt} characters.")


def _contents(raw: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    contents = raw.get("contents")
    return [item if isinstance(item, dict) else {} for item in contents] if isinstance(contents, list) else []


def _type(item: Mapping[Any, Any]) -> str:
    """Nothing where it is no text."""
    type = item.get("type")
    return type if isinstance(type, str) else ""


def _counted(raw: Mapping[Any, Any], limits: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    """
    Args:
        limits: least and most of each type.
    """
    counts = Counter(map(_type, _contents(raw)))
    for type, (least, most) in limits.items():
        if counts[type] < least:
            yield Finding(("contents",), f"A {type} is missing.")
        if counts[type] > most:
            yield Finding(
                ("contents",), f"At most {most} of the type {type} are allowed; there are {counts[type]}."
            )


def _no_tail_alone(raw: Mapping[Any, Any]) -> Iterator[Finding]:
    types = [_type(item) for item in _contents(raw)]
    if "last_frame" in types and "first_frame" not in types:
        yield Finding(("contents", types.index("last_frame")), "A last frame needs a first frame.")


def _named_once(raw: Mapping[Any, Any]) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, item in enumerate(_contents(raw)):
        name = item.get("id")
        if isinstance(name, str) and name in seen:
            yield Finding(("contents", place, "id"), "Each id names one of the contents.")
        elif isinstance(name, str):
            seen.add(name)


class PromptContent(InputModel):
    type: Literal["prompt"]
    text: LongPrompt


class FrameContent(InputModel):
    type: Literal["first_frame", "last_frame"]
    url: Image


class NamedPicture(InputModel):
    type: Literal["first_frame", "last_frame", "refer_image"]
    url: Image
    id: Name | None = Field(None, description="what the prompt calls it by, as @name")


class NamedFilm(InputModel):
    type: Literal["feature_video", "base_video"]
    url: Film
    id: Name | None = Field(None, description="what the prompt calls it by, as @name")


class ElementContent(InputModel):
    type: Literal["element"]
    element_id: ProviderId
    id: Name = Field(description="what the prompt calls it by, as @name")


class VoiceContent(InputModel):
    type: Literal["voice"]
    voice_id: ProviderId
    id: Name = Field(description="what the prompt calls it by, as @name")


class FigureContent(InputModel):
    type: Literal["image"]
    url: Image


class MotionContent(InputModel):
    type: Literal["video"]
    url: Film


_ALL_CONTENTS: Final = frozenset({*_REFERENCES, "voice", "image", "video"})


class Settings(InputModel):
    """How the film shall be."""

    resolution: Resolution | None = None
    duration: Seconds | None = None
    audio: Literal["native", "off"] | None = None
    multi_shot: bool | None = Field(None, description="whether shots in the prompt become shots")


class TextSettings(Settings):
    """How the film shall be."""

    aspect_ratio: Literal["16:9", "9:16", "1:1"] | None = None


class OmniSettings(InputModel):
    """How the film shall be."""

    resolution: Resolution | None = None
    aspect_ratio: Literal["16:9", "9:16", "1:1"] | None = None
    duration: Seconds | None = None
    audio: Literal["native", "original", "off"] | None = None
    multi_shot: bool | None = Field(None, description="whether shots in the prompt become shots")


class MotionSettings(InputModel):
    """How the film shall be."""

    character_orientation: Literal["image", "video"] = Field(description="where the figure looks as it does")
    audio: Literal["original", "off"] | None = None
    resolution: Literal["720p", "1080p"] | None = None


class NewTextToVideo(_Anew):
    """A film from text, in the new standard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-3.0-turbo",
                    "prompt": "A golden retriever runs along a sunny beach",
                    "settings": {"resolution": "1080p", "aspect_ratio": "16:9", "duration": 5},
                },
                {
                    "model_name": "kling-3.0",
                    "prompt": "shot 1, 2, a harbour at dawn; shot 2, 4, a gull takes off;",
                    "settings": {"duration": 6, "audio": "native", "multi_shot": True},
                },
            ]
        }
    )
    abilities: ClassVar[Mapping[str, Abilities]] = {
        "kling-3.0-turbo": Abilities(durations=_LONG, prompt=LONGEST_PROMPT),
        "kling-3.0": Abilities(
            resolutions=("720p", "1080p", "4k"),
            durations=_LONG,
            audio=("native", "off"),
            multi_shot=True,
            prompt=LONGEST_PROMPT,
        ),
        "kling-2.6": Abilities(durations=_SHORT, audio=("native", "off")),
        "kling-2.5-turbo": Abilities(durations=_SHORT),
    }

    model_name: PathModel = "kling-3.0-turbo"
    prompt: LongPrompt = Field(description="shots as `shot 1, 3, what is seen; shot 2, 2, …`")
    settings: TextSettings | None = None
    options: Options | None = None

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any]) -> Iterator[Finding]:
        yield from _native_only_sharp(raw)


def _native_only_sharp(raw: Mapping[Any, Any]) -> Iterator[Finding]:
    settings = raw.get("settings")
    if (
        raw.get("model_name") == "kling-2.6"
        and isinstance(settings, dict)
        and settings.get("audio") == "native"
        and settings.get("resolution") != "1080p"
    ):
        yield Finding(("settings", "resolution"), "kling-2.6 makes sound with 1080p only.")


class NewImageToVideo(_Anew):
    """A film that begins with a picture, in the new standard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-3.0-turbo",
                    "contents": [
                        {"type": "prompt", "text": "The astronaut stands up and walks away"},
                        {"type": "first_frame", "url": "https://example.com/astronaut.png"},
                    ],
                    "settings": {"resolution": "720p", "duration": 5},
                },
                {
                    "model_name": "kling-3.0",
                    "contents": [
                        {"type": "prompt", "text": "@Ada waters the bud"},
                        {"type": "first_frame", "url": "https://example.com/bud.png"},
                        {"type": "last_frame", "url": "https://example.com/bloom.png"},
                        {"type": "element", "element_id": "829836802793406551", "id": "Ada"},
                    ],
                },
            ]
        }
    )
    abilities: ClassVar[Mapping[str, Abilities]] = {
        "kling-3.0-turbo": Abilities(contents=("prompt", "first_frame"), durations=_LONG),
        "kling-3.0": Abilities(
            contents=(*_FRAMES, "element"),
            resolutions=("720p", "1080p", "4k"),
            durations=_LONG,
            audio=("native", "off"),
            multi_shot=True,
            prompt=LONGEST_PROMPT,
        ),
        "kling-2.6": Abilities(contents=(*_FRAMES, "voice"), durations=_SHORT, audio=("native", "off")),
        "kling-2.5-turbo": Abilities(contents=_FRAMES, durations=_SHORT),
    }

    model_name: PathModel = "kling-3.0-turbo"
    contents: Annotated[
        list[
            Annotated[
                PromptContent | FrameContent | ElementContent | VoiceContent, Field(discriminator="type")
            ]
        ],
        Count(1, MOST_CONTENTS),
    ]
    settings: Settings | None = None
    options: Options | None = None

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any]) -> Iterator[Finding]:
        yield from _counted(
            raw,
            {
                "prompt": (0, 1),
                "first_frame": (1, 1),
                "last_frame": (0, 1),
                "element": (0, 3),
                "voice": (0, 2),
            },
        )
        yield from _named_once(raw)
        yield from _native_only_sharp(raw)


class NewOmniVideo(_Anew):
    """A film from text that names pictures, elements and a film, in the new standard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-3.0-omni",
                    "contents": [
                        {"type": "prompt", "text": "Give the girl in @film the crown of @crown"},
                        {"type": "refer_image", "url": "https://example.com/crown.png", "id": "crown"},
                        {"type": "base_video", "url": "https://example.com/girl.mp4", "id": "film"},
                    ],
                    "settings": {"resolution": "1080p", "audio": "original"},
                },
                {
                    "model_name": "kling-o1",
                    "contents": [{"type": "prompt", "text": "A paper boat on a river"}],
                    "settings": {"aspect_ratio": "1:1", "duration": 7},
                },
            ]
        }
    )
    abilities: ClassVar[Mapping[str, Abilities]] = {
        "kling-3.0-omni": Abilities(
            contents=_REFERENCES,
            resolutions=("720p", "1080p", "4k"),
            durations=_LONG,
            audio=("native", "original", "off"),
            multi_shot=True,
            prompt=LONGEST_PROMPT,
        ),
        "kling-o1": Abilities(contents=_REFERENCES, durations=tuple(range(3, 11)), audio=("original", "off")),
    }

    model_name: PathModel = "kling-3.0-omni"
    contents: Annotated[
        list[
            Annotated[PromptContent | NamedPicture | NamedFilm | ElementContent, Field(discriminator="type")]
        ],
        Count(1, MOST_CONTENTS),
    ]
    settings: OmniSettings | None = None
    options: Options | None = None

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any]) -> Iterator[Finding]:
        yield from _counted(raw, {"prompt": (0, 1), "first_frame": (0, 1), "last_frame": (0, 1)})
        yield from _no_tail_alone(raw)
        yield from _named_once(raw)
        types = [_type(item) for item in _contents(raw)]
        films = [type for type in types if type in {"feature_video", "base_video"}]
        references = sum(type in {"refer_image", "element"} for type in types)
        most = 4 if films else 7
        if len(films) > 1:
            yield Finding(("contents",), f"At most one film is allowed; there are {len(films)}.")
        if references > most:
            yield Finding(
                ("contents",),
                f"Pictures and elements to refer to are at most {most} together"
                f"{' beside a film' if films else ''}; there are {references}.",
            )
        if "base_video" in films and {"first_frame", "last_frame"} & set(types):
            yield Finding(("contents",), "A film that is edited has its own first and last frame.")
        settings = raw.get("settings")
        audio = settings.get("audio") if isinstance(settings, dict) else None
        if "base_video" in films and audio == "native":
            yield Finding(("settings", "audio"), "A film that is edited has its own sound, or none.")
        if "feature_video" in films and audio in {"native", "original"}:
            yield Finding(("settings", "audio"), "A film that takes after another one has no sound.")


class NewMotionControl(_Anew):
    """Somebody in a picture moves as somebody in a film, in the new standard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_name": "kling-3.0",
                    "contents": [
                        {"type": "prompt", "text": "On a beach"},
                        {"type": "image", "url": "https://example.com/ada.png"},
                        {"type": "video", "url": "https://example.com/dance.mp4"},
                    ],
                    "settings": {"character_orientation": "video", "resolution": "720p"},
                }
            ]
        }
    )
    abilities: ClassVar[Mapping[str, Abilities]] = {
        "kling-3.0": Abilities(contents=("prompt", "image", "video", "element"), audio=("original", "off")),
        "kling-2.6": Abilities(contents=("prompt", "image", "video"), audio=("original", "off")),
    }

    model_name: PathModel = "kling-3.0"
    contents: Annotated[
        list[
            Annotated[
                PromptContent | FigureContent | MotionContent | ElementContent, Field(discriminator="type")
            ]
        ],
        Count(2, MOST_CONTENTS),
    ]
    settings: MotionSettings
    options: Options | None = None

    @classmethod
    def own_findings(cls, raw: Mapping[Any, Any]) -> Iterator[Finding]:
        yield from _counted(raw, {"prompt": (0, 1), "image": (1, 1), "video": (1, 1), "element": (0, 1)})
        yield from _named_once(raw)


def _only_official(path: str, source: str) -> Mapping[Layout, Sequence[Route]]:
    route = Route(path=path, source=source, confidence=Confidence.KLING, standard=Standard.NEW)
    return {Layout.OFFICIAL: (route,)}


_KEYS: Final = Fact(
    "These paths take the static key alone, not a pair of access and secret key.", AUTHENTICATION
)
_PICTURES: Final = Fact(
    "A picture has at most 50 MB; Klingel takes 10 MB as Base64, and any size as a URL.", IMAGE
)
_GATEWAY: Final = Fact(
    "CometAPI lists no such operation.", "CometAPI, list of operations, November 2026", Confidence.GATEWAY
)

ROWS: Final = (
    TaskType(
        name="kling.new.text-to-video",
        summary="A film from text (new standard)",
        input_model=NewTextToVideo,
        makes=OutputKind.VIDEO,
        routes=_only_official("/text-to-video/{model}", TEXT),
        models=tuple(NewTextToVideo.abilities),
        facts=(
            Fact("A prompt has at most 3072 characters with 3.0 and 3.0 Turbo, else 2500.", TEXT),
            Fact(
                "Up to six shots; each has at least 1 s and 512 characters, together the film's length.", TEXT
            ),
            Fact("kling-2.6 makes sound with 1080p alone.", TEXT),
            _KEYS,
            _GATEWAY,
        ),
    ),
    TaskType(
        name="kling.new.image-to-video",
        summary="A film that begins with a picture (new standard)",
        input_model=NewImageToVideo,
        makes=OutputKind.VIDEO,
        routes=_only_official("/image-to-video/{model}", IMAGE),
        models=tuple(NewImageToVideo.abilities),
        facts=(
            Fact("A first frame is needed; kling-3.0-turbo has no last one.", IMAGE),
            Fact("Up to three elements with kling-3.0, up to two voices with kling-2.6.", IMAGE),
            _PICTURES,
            _KEYS,
            _GATEWAY,
        ),
    ),
    TaskType(
        name="kling.new.omni-video",
        summary="A film from text that names pictures, elements and a film (new standard)",
        input_model=NewOmniVideo,
        makes=OutputKind.VIDEO,
        routes=_only_official("/omni-video/{model}", OMNI),
        models=tuple(NewOmniVideo.abilities),
        facts=(
            Fact("Pictures and elements to refer to are at most 7 together, beside a film at most 4.", OMNI),
            Fact(
                "A film has 3 to 15.5 s with kling-3.0-omni, 3 to 10 s with kling-o1; at most 200 MB.", OMNI
            ),
            Fact("aspect_ratio is needed without a first frame or a film.", OMNI),
            _PICTURES,
            _KEYS,
            _GATEWAY,
        ),
    ),
    TaskType(
        name="kling.new.motion-control",
        summary="Somebody in a picture moves as somebody in a film (new standard)",
        input_model=NewMotionControl,
        makes=OutputKind.VIDEO,
        routes=_only_official("/motion-control/{model}", MOTION),
        models=tuple(NewMotionControl.abilities),
        facts=(
            Fact("The film has 3 to 30 s where the figure looks as in the film, else 3 to 10 s.", MOTION),
            Fact("The film has at most 100 MB, and 340 to 3850 px a side.", MOTION),
            Fact("One element at most, with kling-3.0.", MOTION),
            _PICTURES,
            _KEYS,
            _GATEWAY,
        ),
    ),
)
