"""What people ask of an endpoint, read whole, every fault told at once: which events go where."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol, runtime_checkable

from pydantic import Field

from service.delivery import Sink
from service.domain.endpoints import ALL_TASK_EVENTS, MOST_A_MINUTE, EndpointDraft, is_pattern
from service.domain.errors import Fault
from service.domain.events import EventType
from service.domain.expressions import InvalidExpression, check
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.models import NotNull, StrictModel
from service.domain.secrets import Vault, new_endpoint_secret
from service.domain.signatures import InvalidSecret, check_secret

MOST_TYPES: Final = 50  # patterns of one endpoint; what comes after them is not looked at

Types = Annotated[list[str], Field(min_length=1, max_length=MOST_TYPES)]
Rate = Annotated[
    int, Field(ge=1, le=MOST_A_MINUTE, description="attempts that begin within a minute, at most")
]


@runtime_checkable
class Choosy(Sink, Protocol):
    """A kind of endpoint whose configuration must fit the events that it gets."""

    def subscription(self, types: Sequence[str] | None) -> Sequence[str]:
        """What it listens to, given the patterns that were asked for, if any were."""

    def misfits(self, config: object, *, types: Sequence[str], pointer: str) -> Sequence[Fault]:
        """Why it cannot do with these events what it is configured for.

        Args:
            config: as given, or as shown; what is wrong in it whatever the event is told by `configure`.
            types: the patterns that were asked for.
            pointer: where the endpoint stands in the request.
        """


class EndpointBody(StrictModel):
    """What a person says of an endpoint; `config` is for its kind to read."""

    kind: str = "webhook"
    config: Any = None
    types: Types = Field(list(ALL_TASK_EVENTS))
    filter: Annotated[str, Field(max_length=1000)] | None = None
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    rate_per_minute: Rate | None = None
    enabled: bool = True
    secret: str | None = Field(None, description="whsec_…; made when left out")


class EndpointPatch(StrictModel):
    config: Any = None
    types: Annotated[Types | None, NotNull()] = None
    filter: Annotated[str, Field(max_length=1000)] | None = None
    description: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    rate_per_minute: Rate | None = None
    enabled: Annotated[bool | None, NotNull()] = None


def read_endpoint(
    raw: object, *, sinks: Mapping[str, Sink], vault: Vault, pointer: str = "#"
) -> tuple[EndpointDraft, str]:
    """A checked endpoint and its signing secret, which is shown this once.

    Raises:
        InvalidFields: with every fault.
    """
    faults: list[Fault] = []
    body: EndpointBody | None = None
    with collecting(faults):
        body = accept(EndpointBody, raw, pointer=pointer)
    fields = raw if isinstance(raw, dict) else {}
    faults += subscription_faults(fields.get("types"), fields.get("filter"), pointer)
    types: Sequence[str] = ALL_TASK_EVENTS if body is None else body.types
    config: Mapping[str, Any] = {}
    credentials: str | None = None
    kind = fields.get("kind", "webhook")
    sink = sinks.get(kind) if isinstance(kind, str) else None
    if sink is not None:
        with collecting(faults):
            config, credentials = sink.configure(fields.get("config"), pointer=f"{pointer}/config")
        if isinstance(sink, Choosy):
            types = sink.subscription(texts(fields.get("types")))
            faults += sink.misfits(fields.get("config"), types=types, pointer=pointer)
    elif isinstance(kind, str):
        faults.append(
            Fault(f"There is no kind {kind!r}. There are: {', '.join(sorted(sinks))}.", f"{pointer}/kind")
        )
    secret = fields.get("secret")
    if isinstance(secret, str):
        try:
            check_secret(secret)
        except InvalidSecret as error:
            faults.append(Fault(f"{error}.", f"{pointer}/secret"))
    if faults or body is None:
        raise InvalidFields(faults)
    secret = body.secret or new_endpoint_secret()
    draft = EndpointDraft(
        kind=body.kind,
        config=config,
        credentials=credentials,
        secret=vault.seal(secret),
        types=tuple(types),
        filter=body.filter,
        description=body.description,
        rate_per_minute=body.rate_per_minute,
        enabled=body.enabled,
    )
    return draft, secret


def usual_types(sink: Sink | None) -> Sequence[str]:
    """What an endpoint of this kind listens to where nobody says otherwise."""
    return sink.subscription(None) if isinstance(sink, Choosy) else ALL_TASK_EVENTS


def bound_faults(raw: object, pointer: str) -> list[Fault]:
    """What an endpoint that is bound to a task does not take, though others do."""
    if not isinstance(raw, dict) or raw.get("rate_per_minute") is None:
        return []
    detail = "It gets the events of one task, which are few, and takes no rate: endpoints of the account do."
    return [Fault(detail, f"{pointer}/rate_per_minute")]


def texts(listed: object) -> list[str] | None:
    """Those that can be read."""
    if not isinstance(listed, list):
        return None
    return [each for each in listed[:MOST_TYPES] if isinstance(each, str)]


def subscription_faults(types: object, filter: object, pointer: str) -> list[Fault]:
    faults: list[Fault] = []
    if isinstance(types, list):
        faults += [
            Fault(
                f"{pattern!r} selects no event. There are: *, task.*, {', '.join(EventType)}.",
                f"{pointer}/types/{index}",
            )
            for index, pattern in enumerate(types[:MOST_TYPES])
            if isinstance(pattern, str) and not is_pattern(pattern)
        ]
    if isinstance(filter, str):
        try:
            check(filter)
        except InvalidExpression as error:
            faults.append(Fault(f"Not a JMESPath expression: {error}", f"{pointer}/filter"))
    return faults
