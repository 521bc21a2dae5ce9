"""The kinds of task, as data: a new kind is one row here and one input model in `inputs`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from service.domain.inputs import MultiImageToImage, MultiImageToVideo
from service.domain.tasks import OutputKind


class Layout(StrEnum):
    """Whose paths and field names a provider speaks."""

    COMETAPI = "cometapi"
    OFFICIAL = "official"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a layout takes this kind of task, and the input fields that it spells differently."""

    path: str
    renames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    name: str
    input_model: type[BaseModel]
    makes: OutputKind
    routes: Mapping[Layout, Route]


TASK_TYPES: Final[Mapping[str, TaskType]] = {
    row.name: row
    for row in (
        TaskType(
            name="kling.multi-image-to-image",
            input_model=MultiImageToImage,
            makes=OutputKind.IMAGE,
            routes={
                # CometAPI's older page keeps the misspelling that an early official page had.
                Layout.COMETAPI: Route("/kling/v1/images/generations", {"scene_image": "scence_image"}),
                Layout.OFFICIAL: Route("/v1/images/multi-image2image"),
            },
        ),
        TaskType(
            name="kling.multi-image-to-video",
            input_model=MultiImageToVideo,
            makes=OutputKind.VIDEO,
            routes={
                Layout.COMETAPI: Route("/kling/v1/videos/multi-image2video"),
                Layout.OFFICIAL: Route("/v1/videos/multi-image2video"),
            },
        ),
    )
}
