"""Where the legacy standard's kinds of task are sold: at Kling under a path, and at CometAPI under the same one below `/kling`."""

from collections.abc import Mapping, Sequence
from typing import Final

from service.domain.task_types.row import Confidence, Layout, Route

GATEWAY_ROOT: Final = "/kling"
LISTED: Final = "CometAPI, list of operations in “Native API Reference”"
NOT_LISTED: Final = "CometAPI lists no such operation; its other paths are Kling's below /kling"


def everywhere(
    path: str, *, source: str, gateway: str = LISTED, listed: bool = True
) -> Mapping[Layout, Sequence[Route]]:
    """
    Args:
        path: Kling's own.
        source: Kling's page.
        gateway: CometAPI's page.
        listed: CometAPI's pages name the path.
    """
    confidence = Confidence.GATEWAY if listed else Confidence.GUESSED
    return {
        Layout.COMETAPI: (
            Route(path=GATEWAY_ROOT + path, source=gateway if listed else NOT_LISTED, confidence=confidence),
        ),
        Layout.OFFICIAL: (Route(path=path, source=source, confidence=Confidence.KLING),),
    }
