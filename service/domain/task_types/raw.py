"""The kind of task that has no row of its own yet: path and body are the caller's."""

from typing import Final

from service.domain.raw import RawInput
from service.domain.task_types.paths import GATEWAY_ROOT
from service.domain.task_types.row import Confidence, Fact, Layout, Places, Route, TaskType

_OURS: Final = "Klingel"


_PLACES: Final = Places("as many as the input says (`places`)", lambda said: int(said.get("places", 1)))

ROWS: Final = (
    TaskType(
        name="kling.raw",
        summary="Anything that the provider takes: a path and a body of one's own",
        input_model=RawInput,
        makes=None,
        places=_PLACES,
        shares_places=False,
        routes={
            Layout.COMETAPI: (
                Route(path=GATEWAY_ROOT, source=_OURS, confidence=Confidence.GUESSED, given_by_caller=True),
            ),
            Layout.OFFICIAL: (
                Route(path="", source=_OURS, confidence=Confidence.GUESSED, given_by_caller=True),
            ),
            # It has the gateway's paths, and the official ones of the new standard.
            Layout.SANDBOX: (
                Route(
                    path=GATEWAY_ROOT,
                    anew="",
                    source=_OURS,
                    confidence=Confidence.GUESSED,
                    given_by_caller=True,
                ),
            ),
        },
        facts=(
            Fact(
                "Nothing in the body is checked. The callback URL and the external task id are put in where the "
                "standard wants them.",
                _OURS,
                Confidence.GUESSED,
            ),
        ),
    ),
)
