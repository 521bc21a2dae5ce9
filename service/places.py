"""Where deliveries go to, as processes tell each other of it."""

from dataclasses import dataclass
from typing import Protocol

from service.domain.ids import EndpointId, LaneKey


class Place(Protocol):
    """Where deliveries go to: an endpoint, or what is known of one."""

    @property
    def id(self) -> EndpointId: ...

    @property
    def lane(self) -> LaneKey: ...

    @property
    def shares_lane(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """All that one process tells another of an endpoint."""

    id: EndpointId
    lane: LaneKey

    @property
    def shares_lane(self) -> bool:
        return str(self.lane) != str(self.id)


def place_name(place: Place) -> str:
    return f"{place.id} {place.lane}"


def named_place(name: str) -> NamedPlace:
    """What `place_name` has named."""
    id, lane = name.split(" ", 1)
    return NamedPlace(EndpointId(id), LaneKey(lane))
