"""What a create's body must be. Source: CometAPI, "Multi-Image to Image", "Image generation"; Kling, "Image to Video"; the first fault found is the one reported, as there.

JSON null and the empty string count as absent: the pages' own samples send `""` for fields that are not used.
Fields the page does not name are ignored.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from handlers.providers.sandbox.answers import Code, RequestError
from handlers.providers.sandbox.pictures import Link, Picture, PictureError, Source, from_base64, from_bytes
from handlers.providers.sandbox.products import Kind, Product, Ware
from service.domain.errors import TooLarge
from service.domain.faults import InvalidFields
from service.domain.inputs import validate
from service.domain.long_texts import read_large

LARGEST_JSON: Final = 1024 * 1024  # without the pictures in it
MOST_RESULTS: Final = 9
MOST_MASKS: Final = 6
TRAJECTORY_POINTS: Final = range(2, 78)
MOST_ELEMENTS: Final = 10
REFERENCES: Final = ("subject", "face")
RESOLUTIONS: Final = ("1k", "2k")
SCENE_SPELLINGS: Final = ("scence_image", "scene_image")
RATIOS: Final = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")
AUTOMATIC_SERIES: Final = 4
LONGEST_TEXT: Final = 4096
BESIDE: Final = ("callback_url", "external_task_id")
SAID: Final = frozenset({"prompt", "text", "sound_effect_prompt", "bgm_prompt", "effect_scene"})
SEEN: Final = frozenset(
    {"image", "images", "image_url", "image_tail", "human_image", "cloth_image", "subject_image"}
)
SEEN_TYPES: Final = frozenset({"first_frame", "last_frame", "refer_image", "image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A create that was found in order. `mode` and `duration_s` mean nothing for images, `n` nothing for videos."""

    product: Product | Ware
    model: str
    prompt: str
    sources: tuple[Source, ...]
    scene: Source | None = None
    style: Source | None = None
    n: int = 1
    aspect_ratio: str
    mode: str = "std"
    duration_s: float = 5
    watermark: bool = False
    is_series: bool = False
    echoed: Mapping[str, object] = field(default_factory=dict)  # stands in the results again
    steering: str = ""  # in which faults may be asked for
    callback_url: str | None = None
    external_task_id: str | None = None

    @property
    def slots(self) -> int:
        """How many of the parallel-task slots it takes while it runs (Kling, "Concurrency Rules")."""
        return self.n if self.product.kind is Kind.IMAGE else 1


def read_order(content: bytes, product: Product | Ware, *, model: str | None = None) -> Order:
    """Decodes the JSON and every Base64 picture in it: work for a thread.

    Args:
        model: from the path, where the standard has it there.

    Raises:
        RequestError: 1200 for a wrong form or type, 1201 for a missing or unacceptable value.
    """
    body = _object(content)
    if isinstance(product, Ware):
        return ware_order(body, product, model=model)
    fields = Fields(body)
    if product.without_list is not None and not fields.has(product.list_field or ""):
        product = product.without_list
    model = fields.text("model_name") or product.default_model
    if product.models is not None and model not in product.models:
        raise RequestError(Code.BAD_VALUE, f"model_name value '{model}' is invalid")
    prompt = fields.text("prompt", limit=product.prompt_limit)
    if product.prompt_required and not prompt:
        raise RequestError(Code.BAD_VALUE, "prompt is required")
    if product.negative_limit is not None:
        fields.text("negative_prompt", limit=product.negative_limit)
    if product.motion_brush:
        _check_motion_brush(fields)
    many = product.list_field is not None
    if not many:
        _check_generation(fields)
    return Order(
        product=product,
        model=model,
        prompt=prompt,
        sources=_sources(fields, product) if many else _source(fields),
        scene=_scene(fields) if many else None,
        style=fields.source("style_image") if many else None,
        n=fields.whole("n", default=1, allowed=range(1, MOST_RESULTS + 1)),
        aspect_ratio=fields.choice("aspect_ratio", product.ratios),
        mode=fields.choice("mode", ("std", "pro")),
        duration_s=int(fields.choice("duration", ("5", "10"))),
        watermark=fields.watermark(),
        steering=" ".join(_texts(body)),
        callback_url=fields.url("callback_url"),
        external_task_id=fields.text("external_task_id") or None,
    )


def ware_order(body: Mapping[str, object], ware: Ware, *, model: str | None) -> Order:
    """By the catalogue's own model of the input.

    Raises:
        RequestError: 1201 with the first fault, 1203 for a model that is not known.
    """
    options = body.get("options") if ware.is_new else None
    beside = Fields(options if isinstance(options, dict) else {} if ware.is_new else body)
    named = {**body, **({} if model is None else {"model_name": model})}
    if isinstance(options, dict):
        named["options"] = {name: value for name, value in options.items() if name not in BESIDE}
    known = {
        name: value
        for name, value in named.items()
        if name in ware.model.model_fields and value not in (None, "")
    }
    try:
        accepted = validate(ware.model, known, pointer="")
    except InvalidFields as refused:
        fault = refused.faults[0]
        raise RequestError(Code.BAD_VALUE, f"{fault.pointer.strip('/')}: {fault.detail}") from None
    fields = dict(accepted.fields)
    chosen = fields.get("model_name", "")
    if ware.type.models and chosen not in ware.type.models:
        code = Code.NO_SUCH_RESOURCE if ware.is_new else Code.BAD_VALUE
        raise RequestError(code, f"model_name value '{chosen}' is invalid")
    wanted = {**fields, **_inside(fields, "input"), **_inside(fields, "settings")}
    ratio = wanted.get("aspect_ratio")
    films = Kind.VIDEO in ware.kinds
    return Order(
        product=ware,
        model=chosen,
        prompt=" ".join(_said(fields)),
        sources=tuple(_pictures(fields, accepted.files)),
        n=ware.type.places(fields) if wanted.get("series_amount") != "auto" else AUTOMATIC_SERIES,
        aspect_ratio=ratio if ratio in RATIOS else RATIOS[0] if films else "1:1",
        mode="pro" if wanted.get("mode") == "pro" else "std",
        duration_s=float(wanted.get("duration", 5)),
        watermark=(
            _inside(wanted, "watermark_info") or _inside(_inside(fields, "options"), "watermark_info")
        ).get("enabled", False),
        is_series=wanted.get("result_type") == "series",
        echoed={name: fields[name] for name in ware.type.echoes if name in fields},
        steering=" ".join(_texts(body)),
        callback_url=beside.url("callback_url"),
        external_task_id=beside.text("external_task_id") or None,
    )


def _inside(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = fields.get(name)
    return inner if isinstance(inner, dict) else {}


def _said(value: object, name: str = "") -> Iterator[str]:
    """What people have written, for the picture's caption."""
    match value:
        case str() if name in SAID:
            yield value
        case dict():
            for each, member in value.items():
                yield from _said(member, each)
        case list():
            for entry in value:
                yield from _said(entry, name)


def _texts(value: object) -> Iterator[str]:
    """All texts but addresses and files."""
    match value:
        case str() if len(value) <= LONGEST_TEXT and not _is_url(value):
            yield value
        case dict():
            for member in value.values():
                yield from _texts(member)
        case list():
            for entry in value:
                yield from _texts(entry)


def _pictures(value: object, files: Mapping[str, bytes], name: str = "") -> Iterator[Source]:
    """What is to be seen: not masks, nor films or sounds."""
    match value:
        case str() if name in SEEN and _is_url(value):
            yield Link(url=value)
        case str() if name in SEEN:
            yield from_bytes(files[value.rpartition(":")[2]])
        case dict():
            shows = value.get("type") in SEEN_TYPES
            for each, member in value.items():
                yield from _pictures(member, files, "image" if each == "url" and shows else each)
        case list():
            for entry in value:
                yield from _pictures(entry, files, name)


class Fields:
    """Typed reading of one JSON object; `at` names the object in messages about it."""

    def __init__(self, values: Mapping[str, object], *, at: str = "") -> None:
        self._values = values
        self._at = at

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, *, limit: int | None = None) -> str:
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise RequestError(Code.INVALID_PARAMETERS, f"{self._at}{name} must be a string")
        if not _encodable(value):
            raise RequestError(Code.BAD_VALUE, f"{self._at}{name} is not valid Unicode")
        if limit is not None and len(value) > limit:
            raise RequestError(
                Code.BAD_VALUE, f"{self._at}{name} has {len(value)} characters, at most {limit} allowed"
            )
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """The first of the allowed is the default."""
        value = self.text(name) or allowed[0]
        if value not in allowed:
            raise RequestError(Code.BAD_VALUE, f"{self._at}{name} must be one of {', '.join(allowed)}")
        return value

    def whole(self, name: str, *, default: int, allowed: range) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        if not _is_whole(value):
            raise RequestError(Code.INVALID_PARAMETERS, f"{self._at}{name} must be an integer")
        if value not in allowed:
            raise RequestError(
                Code.BAD_VALUE, f"{self._at}{name} must be from {allowed.start} to {allowed.stop - 1}"
            )
        return value

    def coordinate(self, name: str) -> int:
        value = self._values.get(name)
        if not _is_whole(value):
            raise RequestError(Code.INVALID_PARAMETERS, f"{self._at}{name} must be an integer")
        return value

    def identifier(self, name: str) -> None:
        value = self._values.get(name)
        if not _is_whole(value) and not (isinstance(value, str) and value):
            raise RequestError(
                Code.INVALID_PARAMETERS, f"{self._at}{name} must be an integer, or that as a string"
            )

    def share(self, name: str) -> None:
        value = self._values.get(name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(Code.INVALID_PARAMETERS, f"{self._at}{name} must be a number")
        if not 0 <= value <= 1:
            raise RequestError(Code.BAD_VALUE, f"{self._at}{name} must be from 0 to 1")

    def objects(self, name: str) -> list["Fields"]:
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise RequestError(Code.INVALID_PARAMETERS, f"{self._at}{name} must be an array of objects")
        return [Fields(item, at=f"{self._at}{name}[{place}].") for place, item in enumerate(value)]

    def source(self, name: str) -> Source | None:
        value = self.text(name)
        if not value:
            return None
        if _is_url(value):
            return Link(url=value)
        try:
            return from_base64(value)
        except PictureError as refused:
            raise RequestError(Code.BAD_VALUE, f"{self._at}{name}: {refused}") from None

    def url(self, name: str) -> str | None:
        value = self.text(name)
        if value and not _is_url(value):
            raise RequestError(Code.BAD_VALUE, f"{self._at}{name} must be an http or https URL")
        return value or None

    def watermark(self) -> bool:
        value = self._values.get("watermark_info")
        if value is None:
            return False
        if not isinstance(value, dict) or not isinstance(value.get("enabled", False), bool):
            raise RequestError(Code.INVALID_PARAMETERS, 'watermark_info must be {"enabled": true or false}')
        return value.get("enabled", False) is True


def _object(content: bytes) -> Mapping[str, object]:
    try:
        if len(content) <= LARGEST_JSON:
            body = json.loads(content)
        else:
            body = read_large(content, json.loads, limit=LARGEST_JSON)
    except TooLarge as error:
        raise RequestError(Code.INVALID_PARAMETERS, error.detail) from None
    except (ValueError, RecursionError):
        raise RequestError(Code.INVALID_PARAMETERS, "request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise RequestError(Code.INVALID_PARAMETERS, "request body must be a JSON object")
    return body


def _source(fields: Fields) -> tuple[Source, ...]:
    source = fields.source("image")
    return () if source is None else (source,)


def _check_generation(fields: Fields) -> None:
    """What an order by text or with one picture may have besides (Kling, "Text to Image / Image to Image")."""
    for name in ("image_fidelity", "human_fidelity"):
        fields.share(name)
    if reference := fields.text("image_reference"):
        fields.choice("image_reference", REFERENCES)
        if not fields.text("image"):
            raise RequestError(Code.BAD_VALUE, f"image_reference {reference} needs an image")
    if fields.text("image") and fields.text("negative_prompt"):
        raise RequestError(Code.BAD_VALUE, "negative_prompt is not supported with an image")
    fields.choice("resolution", RESOLUTIONS)
    elements = fields.objects("element_list")
    for element in elements:
        element.identifier("element_id")
    if len(elements) + bool(fields.text("image")) > MOST_ELEMENTS:
        raise RequestError(Code.BAD_VALUE, f"element_list and image are at most {MOST_ELEMENTS} together")


def _sources(fields: Fields, product: Product) -> tuple[Source, ...]:
    assert product.list_field is not None
    items = fields.objects(product.list_field)
    if not product.fewest <= len(items) <= product.most:
        raise RequestError(
            Code.BAD_VALUE,
            f"{product.list_field} needs {product.fewest} to {product.most} pictures, not {len(items)}",
        )
    sources = []
    for place, item in enumerate(items):
        source = item.source(product.item_field)
        if source is None:
            raise RequestError(
                Code.BAD_VALUE, f"{product.list_field}[{place}].{product.item_field} is required"
            )
        sources.append(source)
    return tuple(sources)


def _scene(fields: Fields) -> Source | None:
    scenes = [fields.source(spelling) for spelling in SCENE_SPELLINGS]
    return next((scene for scene in scenes if scene is not None), None)


def _check_motion_brush(fields: Fields) -> None:
    fields.share("cfg_scale")
    masks = [fields.source("static_mask")]
    groups = fields.objects("dynamic_masks")
    if len(groups) > MOST_MASKS:
        raise RequestError(
            Code.BAD_VALUE, f"dynamic_masks has {len(groups)} groups, at most {MOST_MASKS} allowed"
        )
    for place, group in enumerate(groups):
        mask = group.source("mask")
        if mask is None:
            raise RequestError(Code.BAD_VALUE, f"dynamic_masks[{place}].mask is required")
        masks.append(mask)
        points = group.objects("trajectories")
        if len(points) not in TRAJECTORY_POINTS:
            raise RequestError(
                Code.BAD_VALUE,
                f"dynamic_masks[{place}].trajectories needs {TRAJECTORY_POINTS.start} to "
                f"{TRAJECTORY_POINTS.stop - 1} points",
            )
        for point in points:
            point.coordinate("x")
            point.coordinate("y")
    if len({mask.size for mask in masks if isinstance(mask, Picture)}) > 1:
        raise RequestError(
            Code.BAD_VALUE, "static_mask and every mask of dynamic_masks must have equal resolution"
        )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_url(value: str) -> bool:
    """Looks at the start first: a picture's Base64 may be megabytes long."""
    if not value[:8].lower().startswith(("http://", "https://")) or any(map(str.isspace, value)):
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname)
