"""What pydantic's models of ours have in common."""

from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from service.domain.faults import PREDICATE

MOST_NAMES: Final = 100  # in one object; no model has as many fields


class Model(BaseModel):
    """Built when something is first read by it: there are a hundred, of which most are never needed by most. To build
    all of them takes a sixth of a start, and 5 MB.
    """

    model_config = ConfigDict(defer_build=True)


class StrictModel(Model):
    """Takes what it says, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_names(cls, raw: object) -> object:
        """Each name that is not known is a fault: to tell a megabyte of them takes a second, in which nothing else runs."""
        if isinstance(raw, dict) and len(raw) > MOST_NAMES:
            raise PydanticCustomError(
                PREDICATE,
                "must have at most {most} fields; it has {count}",
                {"most": MOST_NAMES, "count": len(raw)},
            )
        return raw


class NotNull:
    """Of a field of a change, `Annotated[T | None, NotNull()] = None`: None is what was not named, and null is refused."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        named, _ = get_args(source)
        return handler(named)
