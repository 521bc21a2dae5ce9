"""The kinds of task, as data: a new kind is one row here and one input model in `inputs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from service.domain.inputs import MultiImageToImage, MultiImageToImageAnew, MultiImageToVideo
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
    input_model: type[BaseModel] | None = None  # for whom asks there, where that differs from the type's


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    name: str
    input_model: type[BaseModel]
    makes: OutputKind
    routes: Mapping[Layout, Sequence[Route]]  # the first is taken where nobody has asked for another

    def route(self, layout: Layout, path: str | None) -> Route:
        """The one that a caller has asked for by its path, where this layout has it."""
        routes = self.routes[layout]
        return next((route for route in routes if route.path == path), routes[0])


TASK_TYPES: Final[Mapping[str, TaskType]] = {
    row.name: row
    for row in (
        TaskType(
            name="kling.multi-image-to-image",
            input_model=MultiImageToImage,
            makes=OutputKind.IMAGE,
            routes={
                # CometAPI's older page keeps the misspelling that an early official page had.
                Layout.COMETAPI: (
                    Route("/kling/v1/images/generations", {"scene_image": "scence_image"}),
                    Route("/kling/v1/images/multi-image2image", input_model=MultiImageToImageAnew),
                ),
                Layout.OFFICIAL: (Route("/v1/images/multi-image2image"),),
            },
        ),
        TaskType(
            name="kling.multi-image-to-video",
            input_model=MultiImageToVideo,
            makes=OutputKind.VIDEO,
            routes={
                Layout.COMETAPI: (Route("/kling/v1/videos/multi-image2video"),),
                Layout.OFFICIAL: (Route("/v1/videos/multi-image2video"),),
            },
        ),
    )
}
