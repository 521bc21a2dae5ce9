"""How processes name an endpoint to each other, in notices."""

from dataclasses import dataclass
from typing import Protocol

from service.domain.ids import EndpointId, LaneKey


class KnownEndpoint(Protocol):
    """An endpoint, or as much as a process knows of one that another process has named."""

    @property
    def id(self) -> EndpointId: ...

    @property
    def lane(self) -> LaneKey: ...

    @property
    def shares_lane(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """All that a name says of an endpoint."""

    id: EndpointId
    lane: LaneKey

    @property
    def shares_lane(self) -> bool:
        return str(self.lane) != str(self.id)


def endpoint_name(endpoint: KnownEndpoint) -> str:
    return f"{endpoint.id} {endpoint.lane}"


def named_endpoint(name: str) -> NamedEndpoint:
    """What `endpoint_name` has named."""
    id, lane = name.split(" ", 1)
    return NamedEndpoint(EndpointId(id), LaneKey(lane))
