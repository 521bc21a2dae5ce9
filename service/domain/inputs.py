"""How a caller's JSON becomes a task's input, and what all kinds of input are built of.

A Base64 file is checked, then replaced by a reference to its bytes: a task's row stays small, and one file is kept
once.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self
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

from service.domain.errors import Fault
from service.domain.faults import (
    NOT_BLANK,
    PREDICATE,
    SENTENCE,
    Finding,
    InvalidFields,
    Location,
    accept,
    all_at_once,
)
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
from service.domain.media_types import AAC, HEAD, M4A, MP3, MP4, WAV, media_type
from service.domain.models import StrictModel

MAX_URL: Final = 4096  # characters
# What clients of Kling's send who mean nothing by an optional field.
BLANK: Final = (None, "")
MAX_SOUND_BYTES: Final = 5 * 1024 * 1024  # Kling, "Lip Sync" and "Avatar"

_REFERENCE_START = "file:sha256:"
_ADDRESS = re.compile(r"\s*https?:", re.IGNORECASE)
_REFERENCE = re.compile(_REFERENCE_START + r"([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class ValidatedInput:
    """An input in its one canonical form.

    `fields` is ready for JSON: defaults filled in, absent fields left out, each Base64 picture replaced by
    `file:sha256:` and the lower-case hex digest of its bytes. `files` holds those bytes by that digest. `unknown` is what
    `fields` holds besides those that are known here, object by object.
    """

    fields: Mapping[str, Any]
    files: Mapping[str, bytes]
    unknown: Sequence[Mapping[str, Any]] = ()


class PicturesInside(Exception):
    """The input has pictures as Base64, and was to be read without decoding any."""


def validate(
    model: type[BaseModel],
    raw: object,
    *,
    pointer: str = "#/input",
    decoding: bool = True,
    no_base64: str | None = None,
    passing_on: bool = False,
    by_rules: bool = True,
) -> ValidatedInput:
    """Decodes pictures, which may take seconds: on the event loop only with `decoding=False` or `no_base64`.

    Args:
        raw: as parsed from JSON.
        pointer: where `raw` stands in the request; those of the faults begin with it.
        no_base64: what is told of a file that is no URL, where none is taken: a fault like any other.
        passing_on: for somebody else to judge: fields that are not known here are no fault and stay where they are, and
            what is blank of those that are known is as good as absent.
        by_rules: those that several fields together must keep are kept.

    Raises:
        InvalidFields: lists every fault, each at the field as the caller spelled it.
        PicturesInside: something is to be decoded, and that was not wanted.
    """
    gallery = _Gallery(decoding=decoding, no_base64=no_base64, by_rules=by_rules, passing_on=passing_on)
    accepted = accept(model, raw, pointer=pointer, context=gallery, extra="allow" if passing_on else None)
    fields = accepted.model_dump(mode="json", by_alias=True, exclude_none=True)
    unknown = list(_put_back(accepted, fields)) if passing_on else []
    if referenced_files(
        {"unknown": unknown}
    ):  # somebody else's, perhaps: ours stand in fields that are known
        raise InvalidFields([Fault(f"No text that is sent on may begin with {_REFERENCE_START}", pointer)])
    return ValidatedInput(fields, gallery.files, unknown)


def _put_back(value: object, dumped: Any) -> Iterator[Mapping[str, Any]]:
    """What was let through, and is not in a dump, for that goes by what a model knows. Gives it, object by object."""
    match value:
        case BaseModel():
            for name, facts in type(value).model_fields.items():
                yield from _put_back(getattr(value, name), dumped.get(facts.serialization_alias or name))
            if unknown := {
                name: each for name, each in (value.model_extra or {}).items() if name not in dumped
            }:
                dumped.update(unknown)
                yield unknown
        case list():
            for entry, each in zip(value, dumped, strict=True):
                yield from _put_back(entry, each)


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
    """The Base64 files of one input; each picture is decoded once, however often it occurs."""

    decoding: bool = True
    no_base64: str | None = None
    by_rules: bool = True
    passing_on: bool = False
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
        self._check_wanted()
        if text not in self._seen:
            try:
                self._seen[text] = self._digest(text)
            except ImageFault as fault:
                self._seen[text] = fault
        seen = self._seen[text]
        if isinstance(seen, ImageFault):
            raise ImageFault(str(seen))
        return _REFERENCE_START + seen

    def keep_sound(self, text: str) -> str:
        """As `keep`, of a sound.

        Raises:
            ImageFault: not Base64, or not a sound that a provider takes.
            PicturesInside: nothing is to be decoded.
        """
        self._check_wanted()
        try:
            content = decode(text)
        except ImageFault as fault:
            raise ImageFault(f"A sound must be an http(s) URL or Base64. {fault}") from None
        _check_sound(content)
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return _REFERENCE_START + digest

    def _check_wanted(self) -> None:
        if self.no_base64 is not None:
            raise ImageFault(self.no_base64)
        if not self.decoding:
            raise PicturesInside

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
class Count:
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
        return all_at_once(lambda: handler(value[: self.most]), lambda: self._findings(len(value)), raw=value)

    def _findings(self, count: int) -> Iterator[Finding]:
        if not self.least <= count <= self.most:
            yield Finding((), f"This list must have {self.least} to {self.most} entries; it has {count}.")


def _image(text: str, info: ValidationInfo) -> str:
    return _file(text, _gallery(info).keep)


def _sound(text: str, info: ValidationInfo) -> str:
    return _file(text, _gallery(info).keep_sound)


def _gallery(info: ValidationInfo) -> "_Gallery":
    return info.context if isinstance(info.context, _Gallery) else _Gallery()


def _file(text: str, keep: Callable[[str], str]) -> str:
    try:
        if _ADDRESS.match(text):
            _check_url(text)
            return text
        return keep(text)
    except ImageFault as fault:
        raise PydanticCustomError(SENTENCE, "{sentence}", {"sentence": str(fault)}) from None


def _address(text: str) -> str:
    if not _ADDRESS.match(text):
        raise PydanticCustomError(PREDICATE, "must be an http(s) URL")
    return _file(text, str)


def _check_sound(content: bytes) -> None:
    """
    Raises:
        ImageFault: too large, or neither MP3, WAV, M4A nor AAC.
    """
    if len(content) > MAX_SOUND_BYTES:
        raise ImageFault(
            f"The sound has {len(content)} bytes; at most {MAX_SOUND_BYTES // 2**20} MB ({MAX_SOUND_BYTES} bytes) "
            "are allowed."
        )
    if media_type(content[:HEAD]) not in {MP3, WAV, M4A, MP4, AAC}:
        raise ImageFault("The sound is neither MP3, WAV, M4A nor AAC.")


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


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that nobody takes for a reference to a file, and that has no NUL, which not all that it passes can hold."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"not": {"pattern": rf"^{_REFERENCE_START}|\u0000"}}

    def _check(self, text: str) -> str:
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
Sound = Annotated[
    str,
    AfterValidator(_sound),
    Field(
        description=f"http(s) URL or Base64 of an MP3, WAV, M4A or AAC file: at most {MAX_SOUND_BYTES // 2**20} MB",
        examples=["https://example.com/voice.mp3"],
    ),
]
Film = Annotated[
    str,
    AfterValidator(_address),
    Field(description="http(s) URL of an MP4 or MOV file", examples=["https://example.com/dance.mp4"]),
]
ModelName = Annotated[str, Field(max_length=64, pattern=NOT_BLANK), Plain()]
"""Any name: providers add and retire models faster than this list could follow."""


Prompt = Annotated[str, Field(max_length=2500), Plain()]
NeededPrompt = Annotated[str, Field(max_length=2500, pattern=NOT_BLANK), Plain()]
ProviderId = Annotated[str, Field(max_length=128, pattern=NOT_BLANK), Plain()]
"""What the provider has named: a film, a sound, a session, a face."""


def whole(value: object) -> object:
    """JSON has one kind of number: `3.0` is as whole as `3`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _meant(model: type[BaseModel], raw: Mapping[Any, Any], info: ValidationInfo) -> Mapping[Any, Any]:
    if not _gallery(info).passing_on:
        return raw
    return {name: each for name, each in raw.items() if each not in BLANK or name not in model.model_fields}


class InputModel(StrictModel):
    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _readable_names(cls, raw: object, info: ValidationInfo) -> object:
        """A name with half a surrogate pair would hide every other fault of its object."""
        if not isinstance(raw, dict):
            return raw
        meant = _meant(cls, raw, info)
        return {str(name).encode(errors="replace").decode(): member for name, member in meant.items()}


class RuledModel(InputModel):
    """With rules that several fields together must keep."""

    @model_validator(mode="wrap")
    @classmethod
    def _all_faults(cls, raw: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        by_rules = _gallery(info).by_rules
        meant = _meant(cls, raw, info) if isinstance(raw, dict) else {}
        return all_at_once(
            lambda: handler(raw),
            lambda: cls.findings(meant, info.context) if isinstance(raw, dict) and by_rules else (),
            raw=raw,
        )

    @classmethod
    def findings(cls, raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
        """What is wrong with the fields together.

        Args:
            raw: not checked yet: anything may be in it.
            gallery: for `unequal_masks`.
        """
        raise NotImplementedError


def given(raw: Mapping[Any, Any], *names: str) -> list[str]:
    """Those of the fields that say something."""
    return [name for name in names if raw.get(name) not in (None, "", [], {})]


def length(value: object) -> int:
    """Of a list; what is none has nothing in it."""
    return len(value) if isinstance(value, list) else 0


def exactly_one(raw: Mapping[Any, Any], *names: str) -> Iterator[Finding]:
    """Of these fields one must be given, and no other."""
    found = given(raw, *names)
    listed = " or ".join(f'"{name}"' for name in names)
    if not found:
        yield Finding((names[0],), f"Give {listed}.")
    elif len(found) > 1:
        yield Finding((found[-1],), f"Give {listed}, not both.")


class Watermark(InputModel):
    """Whether a version with Kling's watermark is made besides."""

    enabled: bool


class Element(InputModel):
    """Something from the provider's library of elements."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"element_id": 829836802793406551}]})

    element_id: Annotated[int, Field(ge=1), BeforeValidator(whole)] | ProviderId


class Picture(InputModel):
    image: Image


class Point(InputModel):
    """In px from the bottom left corner of the input picture."""

    x: Annotated[int, Field(ge=0), BeforeValidator(whole)]
    y: Annotated[int, Field(ge=0), BeforeValidator(whole)]


class DynamicMask(InputModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "mask": "https://example.com/moving.png",
                    "trajectories": [{"x": 279, "y": 219}, {"x": 417, "y": 65}],
                }
            ]
        }
    )

    mask: Image
    trajectories: Annotated[
        list[Point], Count(2, 77), Field(description="where the painted area moves, in order")
    ]


def unequal_masks(raw: Mapping[Any, Any], gallery: object) -> Iterator[Finding]:
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


def _masks(raw: Mapping[Any, Any]) -> Iterator[tuple[Location, object]]:
    yield ("static_mask",), raw.get("static_mask")
    dynamic = raw.get("dynamic_masks")
    for index, entry in enumerate(dynamic if isinstance(dynamic, list) else []):
        if isinstance(entry, dict):
            yield ("dynamic_masks", index, "mask"), entry.get("mask")
