"""What each kind of task takes, and how a caller's JSON becomes it.

A Base64 picture is checked, then replaced by a reference to its bytes: a task's row stays small, and one picture is
kept once. Source of fields and limits: CometAPI, "Multi-Image to Image" (the older page) and "Multi-Image to Video",
November 2026; for masks Kling, "Image to Video" (legacy).
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.domain.faults import PREDICATE, SENTENCE, Finding, Location, accept, all_at_once
from service.domain.images import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_PIXELS_TOGETHER,
    MEGAPIXEL,
    MIN_SIDE,
    ImageFacts,
    ImageFault,
    PixelBudget,
    decode,
    encode,
    inspect,
)

MAX_URL: Final = 4096  # characters

_REFERENCE_START = "file:sha256:"
_REFERENCE = re.compile(_REFERENCE_START + r"([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class ValidatedInput:
    """An input in its one canonical form.

    `fields` is ready for JSON: defaults filled in, absent fields left out, each Base64 picture replaced by
    `file:sha256:` and the lower-case hex digest of its bytes. `files` holds those bytes by that digest.
    """

    fields: Mapping[str, Any]
    files: Mapping[str, bytes]


class PicturesInside(Exception):
    """The input has pictures as Base64, and was to be read without decoding any."""


def validate(
    model: type[BaseModel], raw: object, *, pointer: str = "#/input", decoding: bool = True
) -> ValidatedInput:
    """Decodes pictures, which may take seconds: on the event loop only with `decoding=False`.

    Args:
        raw: as parsed from JSON.
        pointer: where `raw` stands in the request; those of the faults begin with it.

    Raises:
        InvalidFields: lists every fault, each at the field as the caller spelled it.
        PicturesInside: something is to be decoded, and that was not wanted.
    """
    gallery = _Gallery(decoding=decoding)
    accepted = accept(model, raw, pointer=pointer, context=gallery)
    return ValidatedInput(accepted.model_dump(mode="json", by_alias=True, exclude_none=True), gallery.files)


def with_files(fields: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
    """The fields as a provider wants them: every reference is plain Base64 again.

    Args:
        fields: from `ValidatedInput`. Text that never passed `validate` could name somebody else's file.
        read: the bytes by their hex SHA-256.
    """

    def refill(value: Any) -> Any:
        match value:
            case str() if reference := _REFERENCE.fullmatch(value):
                return encode(read(reference[1]))
            case Mapping():
                return {name: refill(member) for name, member in value.items()}
            case list():
                return [refill(entry) for entry in value]
            case _:
                return value

    return {name: refill(value) for name, value in fields.items()}


def referenced_files(fields: Mapping[str, Any]) -> set[str]:
    """The hex SHA-256 of each file that the fields refer to."""
    digests: set[str] = set()

    def note(digest: str) -> bytes:
        digests.add(digest)
        return b""

    with_files(fields, note)
    return digests


@dataclass(slots=True)
class _Gallery:
    """The Base64 pictures of one input; each text is decoded once, however often it occurs."""

    decoding: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    _budget: PixelBudget = field(default_factory=PixelBudget)
    _facts: dict[str, ImageFacts] = field(default_factory=dict)
    _seen: dict[str, str | ImageFault] = field(default_factory=dict)

    def keep(self, text: str) -> str:
        """The reference that stands for this text.

        Raises:
            ImageFault: not Base64, or not a picture that a provider takes.
            PicturesInside: nothing is to be decoded.
        """
        if not self.decoding:
            raise PicturesInside
        if text not in self._seen:
            try:
                self._seen[text] = self._digest(text)
            except ImageFault as fault:
                self._seen[text] = fault
        seen = self._seen[text]
        if isinstance(seen, ImageFault):
            raise ImageFault(str(seen))
        return _REFERENCE_START + seen

    def facts(self, text: object) -> ImageFacts | None:
        """None for whatever `keep` has not accepted."""
        seen = self._seen.get(text) if isinstance(text, str) else None
        return self._facts[seen] if isinstance(seen, str) else None

    def _digest(self, text: str) -> str:
        try:
            content = decode(text)
        except ImageFault as fault:
            raise ImageFault(f"A picture must be an http(s) URL or Base64. {fault}") from None
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._facts:
            self._facts[digest] = inspect(content, self._budget)
            self.files[digest] = content
        return digest


@dataclass(frozen=True, slots=True)
class _Count:
    """How many entries a list has. Those over the limit are not looked at, so that they cost nothing."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"minItems": self.least, "maxItems": self.most}

    def _check(self, value: object, handler: ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, list):
            return handler(value)
        return all_at_once(lambda: handler(value[: self.most]), lambda: self._findings(len(value)))

    def _findings(self, count: int) -> Iterator[Finding]:
        if not self.least <= count <= self.most:
            yield Finding((), f"This list must have {self.least} to {self.most} entries; it has {count}.")


def _image(text: str, info: ValidationInfo) -> str:
    try:
        if re.match(r"\s*https?:", text, re.IGNORECASE):
            _check_url(text)
            return text
        gallery = info.context if isinstance(info.context, _Gallery) else _Gallery()
        return gallery.keep(text)
    except ImageFault as fault:
        raise PydanticCustomError(SENTENCE, "{sentence}", {"sentence": str(fault)}) from None


def _check_url(url: str) -> None:
    """
    Raises:
        ImageFault: too long, not absolute, with a user name or password, or with characters no URL has.
    """
    if len(url) > MAX_URL:
        raise ImageFault(f"The URL has {len(url)} characters; at most {MAX_URL} are allowed.")
    if " " in url or "\\" in url or not url.isprintable():
        raise ImageFault("A URL has no spaces, line breaks, control characters or backslashes in it.")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that hold no IPv6 address, a port that is no number up to 65535
        usable = False
    else:
        if "@" in parts.netloc:
            raise ImageFault("The URL must not carry a user name or password.")
    if not usable:
        raise ImageFault("The URL has no valid host and port; write it like https://example.com/picture.png.")


def _plain(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError(PREDICATE, "must not have a NUL character in it")
    if text.startswith(_REFERENCE_START):
        raise PydanticCustomError(PREDICATE, "must not begin with " + _REFERENCE_START)
    return text


Image = Annotated[
    str,
    AfterValidator(_image),
    Field(
        description=(
            f"http(s) URL or Base64 of a JPEG or PNG: at most {MAX_BYTES // 2**20} MB, at least {MIN_SIDE} px a side, "
            f"1:2.5 to 2.5:1; as Base64 also at most {MAX_PIXELS // MEGAPIXEL} megapixels each and "
            f"{MAX_PIXELS_TOGETHER // MEGAPIXEL} megapixels together"
        ),
        examples=["https://example.com/cat.png"],
    ),
]
ModelName = Annotated[str, Field(max_length=64, pattern=r"\S"), AfterValidator(_plain)]
"""Any name: providers add and retire models faster than this list could follow."""


def whole(value: object) -> object:
    """JSON has one kind of number: `3.0` is as whole as `3`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Object(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _readable_names(cls, raw: object) -> object:
        """A name with half a surrogate pair would hide every other fault of its object."""
        if not isinstance(raw, dict):
            return raw
        return {str(name).encode(errors="replace").decode(): member for name, member in raw.items()}


class Subject(_Object):
    subject_image: Image


class MultiImageToImage(_Object):
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

    subject_image_list: Annotated[list[Subject], _Count(2, 4)]
    model_name: ModelName = "kling-v2"
    prompt: Annotated[str, Field(max_length=2500), AfterValidator(_plain)] | None = None
    scene_image: Image | None = None
    scence_image: Image | None = Field(
        None,
        serialization_alias="scene_image",
        description="`scene_image`, as CometAPI's older page spells it",
    )
    style_image: Image | None = None
    n: Annotated[int, Field(ge=1, le=9, description="how many pictures to make"), BeforeValidator(whole)] = 1
    aspect_ratio: Literal["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9"] = "16:9"

    @model_validator(mode="wrap")
    @classmethod
    def _spelled_once(cls, raw: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return all_at_once(lambda: handler(raw), lambda: _double_spellings(raw))


def _double_spellings(raw: object) -> Iterator[Finding]:
    if isinstance(raw, dict) and raw.get("scene_image") is not None and raw.get("scence_image") is not None:
        yield Finding(
            ("scence_image",), '"scence_image" is another spelling of "scene_image": give one of them.'
        )


class MultiImageToImageAnew(MultiImageToImage):
    """As CometAPI's newer page and Kling's own have it: one picture is enough."""

    subject_image_list: Annotated[list[Subject], _Count(1, 4)]


class Picture(_Object):
    image: Image


class Point(_Object):
    """In px from the bottom left corner of the input picture."""

    x: Annotated[int, Field(ge=0), BeforeValidator(whole)]
    y: Annotated[int, Field(ge=0), BeforeValidator(whole)]


class DynamicMask(_Object):
    mask: Image
    trajectories: Annotated[
        list[Point], _Count(2, 77), Field(description="where the painted area moves, in order")
    ]


def _seconds_as_text(value: object) -> object:
    return str(value) if type(value) is int and value in {5, 10} else value


class MultiImageToVideo(_Object):
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

    image_list: Annotated[list[Picture], _Count(2, 4)]
    model_name: ModelName = "kling-v1-6"
    prompt: Annotated[str, Field(max_length=500, pattern=r"\S"), AfterValidator(_plain)]
    negative_prompt: Annotated[str, Field(max_length=200), AfterValidator(_plain)] | None = None
    mode: Literal["std", "pro"] = "std"
    duration: Annotated[
        Literal["5", "10"],
        BeforeValidator(_seconds_as_text, json_schema_input_type=Literal["5", "10", 5, 10]),
        Field(description="seconds"),
    ] = "5"
    aspect_ratio: Literal["16:9", "9:16", "1:1"] = "16:9"
    cfg_scale: (
        Annotated[
            float,
            Field(ge=0, le=1, allow_inf_nan=False, description="how closely the video follows the prompt"),
        ]
        | None
    ) = None
    static_mask: Image | None = Field(
        None, description="what is painted here stays still; form as for pictures"
    )
    dynamic_masks: Annotated[list[DynamicMask], _Count(0, 6)] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _masks_match(
        cls, raw: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        return all_at_once(lambda: handler(raw), lambda: _unequal_masks(raw, info.context))


def _unequal_masks(raw: object, gallery: object) -> Iterator[Finding]:
    """Compares those sent as Base64; the others are for the provider to fetch."""
    if not isinstance(gallery, _Gallery):
        return
    first: ImageFacts | None = None
    for location, text in _masks(raw):
        facts = gallery.facts(text)
        if facts is None:
            continue
        first = first or facts
        if (facts.width, facts.height) != (first.width, first.height):
            yield Finding(
                location,
                f"This mask has {facts.width} x {facts.height} px and the first one "
                f"{first.width} x {first.height} px; all masks must have the same.",
            )


def _masks(raw: object) -> Iterator[tuple[Location, object]]:
    if not isinstance(raw, dict):
        return
    yield ("static_mask",), raw.get("static_mask")
    dynamic = raw.get("dynamic_masks")
    for index, entry in enumerate(dynamic if isinstance(dynamic, list) else []):
        if isinstance(entry, dict):
            yield ("dynamic_masks", index, "mask"), entry.get("mask")
