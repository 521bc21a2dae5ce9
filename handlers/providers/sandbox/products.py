"""What is sold under which path.

The kinds for which the gateway's page and Kling's own print different limits are told here page by page: CometAPI,
"Multi-Image to Image", "Image generation" and "Multi-Image to Video"; Kling, "Text to Image / Image to Image" and
"Image to Video" (legacy). That one path of CometAPI's tells its two bodies apart by the list is our guess. All others
are as the catalogue has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from service.domain.task_types import TASK_TYPES, Standard, TaskType


class Kind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One create path's fields and limits.

    `name` is the path without its prefix: a task made under `/kling/v1/…` is found under `/v1/…` too.
    `models` is None where the page names no closed set. A limit of None means the field is unknown there, and so
    ignored. Without a `list_field` it takes one picture or none. `without_list` is what a body orders that has no such
    list, where one path serves both.
    """

    name: str
    kind: Kind
    list_field: str | None = None
    item_field: str = ""
    fewest: int = 0
    most: int = 4
    without_list: "Product | None" = None
    models: frozenset[str] | None
    default_model: str
    prompt_required: bool = False
    prompt_limit: int = 2500
    negative_limit: int | None = 2500
    ratios: tuple[str, ...]
    motion_brush: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (self.kind,)

    @property
    def is_new(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Ware:
    """As `Product`, of a kind that the catalogue describes.

    `name` is the path without its prefix.
    """

    name: str
    model: type[BaseModel]
    type: TaskType
    is_new: bool  # of the new standard: the model in the path, `options` in the body

    @property
    def kind(self) -> Kind:
        return self.kinds[0]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of all that it makes."""
        assert self.type.makes is not None
        return tuple(Kind(each) for each in (self.type.makes, *self.type.also_makes))


IMAGE_RATIOS: Final = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")
VIDEO_RATIOS: Final = ("16:9", "9:16", "1:1")
IMAGE_MODELS: Final = frozenset({"kling-v2", "kling-v2-1"})
GENERATION_MODELS: Final = frozenset(
    {"kling-v1", "kling-v1-5", "kling-v2", "kling-v2-new", "kling-v2-1", "kling-v3"}
)
GENERATIONS: Final = "images/generations"

_OFFICIAL_GENERATIONS: Final = Product(
    name=GENERATIONS,
    kind=Kind.IMAGE,
    models=GENERATION_MODELS,
    default_model="kling-v3",
    prompt_required=True,
    ratios=IMAGE_RATIOS,
)
# That the gateway's page has shorter prompts and no 21:9 is left out: the catalogue lets them through, and what it lets
# through can be tried here.
_GATEWAY_GENERATIONS: Final = replace(_OFFICIAL_GENERATIONS, default_model="kling-v1")
_OLDER_IMAGES: Final = Product(
    name=GENERATIONS,
    without_list=_GATEWAY_GENERATIONS,
    kind=Kind.IMAGE,
    list_field="subject_image_list",
    item_field="subject_image",
    fewest=2,
    models=IMAGE_MODELS,
    default_model="kling-v2",
    negative_limit=None,
    ratios=IMAGE_RATIOS,
)
_IMAGES: Final = Product(
    name="images/multi-image2image",
    kind=Kind.IMAGE,
    list_field="subject_image_list",
    item_field="subject_image",
    fewest=1,
    models=IMAGE_MODELS,
    default_model="kling-v2-1",
    ratios=IMAGE_RATIOS,
)
_OFFICIAL_VIDEO: Final = Product(
    name="videos/multi-image2video",
    kind=Kind.VIDEO,
    list_field="image_list",
    item_field="image",
    fewest=1,
    models=frozenset({"kling-v1-6"}),
    default_model="kling-v1-6",
    prompt_required=True,
    ratios=VIDEO_RATIOS,
)
_GATEWAY_VIDEO: Final = Product(
    name="videos/multi-image2video",
    kind=Kind.VIDEO,
    list_field="image_list",
    item_field="image",
    fewest=2,
    models=None,
    default_model="kling-v1-6",
    prompt_required=True,
    prompt_limit=500,
    negative_limit=200,
    ratios=VIDEO_RATIOS,
    motion_brush=True,
)

_BY_PAGE: Final[Mapping[str, Product]] = {
    "/kling/v1/images/generations": _OLDER_IMAGES,
    "/kling/v1/images/multi-image2image": _IMAGES,
    "/kling/v1/videos/multi-image2video": _GATEWAY_VIDEO,
    "/v1/images/generations": _OFFICIAL_GENERATIONS,
    "/v1/images/multi-image2image": _IMAGES,
    "/v1/videos/multi-image2video": _OFFICIAL_VIDEO,
}


def _wares() -> dict[str, Ware]:
    return {
        route.path: Ware(
            route.path.removeprefix("/kling").removeprefix("/v1").removeprefix("/"),
            route.input_model or type.input_model,
            type,
            route.standard is Standard.NEW,
        )
        for type in TASK_TYPES.values()
        for routes in type.routes.values()
        for route in routes
        if not route.given_by_caller and route.path not in _BY_PAGE
    }


PRODUCTS: Final[Mapping[str, Product | Ware]] = {**_BY_PAGE, **_wares()}
