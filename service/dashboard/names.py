"""What endpoints are called on pages."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.domain.endpoints import Endpoint
from service.domain.ids import EndpointId

ARCHIVE: str = "kept copies"


def name_of(endpoint: Endpoint) -> str:
    return endpoint.description or (
        endpoint.kind if endpoint.host == endpoint.kind else f"{endpoint.kind} · {endpoint.host}"
    )


@dataclass(frozen=True, slots=True)
class EndpointNames:
    """Those of the endpoints that deliveries on a page went to.

    Args:
        archive: nobody's to look at, but its deliveries may be dead letters too.
    """

    there: Mapping[EndpointId, Endpoint]
    archive: EndpointId

    def __call__(self, id: EndpointId) -> str:
        if id == self.archive:
            return ARCHIVE
        endpoint = self.there.get(id)
        return "a deleted endpoint" if endpoint is None else name_of(endpoint)

    def is_shown(self, id: EndpointId) -> bool:
        """Whether it has a page."""
        return id != self.archive and id in self.there

    def takes(self, id: EndpointId) -> bool:
        """Whether something can be replayed to it."""
        return id in self.there and self.there[id].enabled
