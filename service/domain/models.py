"""What pydantic's models of ours have in common."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Built when something is first read by it: there are a hundred, of which most are never needed by most. To build
    all of them takes a sixth of a start, and 5 MB.
    """

    model_config = ConfigDict(defer_build=True)


class StrictModel(Model):
    """Takes what it says, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")
