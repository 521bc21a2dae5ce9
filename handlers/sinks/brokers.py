"""What the sinks for message brokers share: how they are configured, the connections they keep, how an attempt ends."""

import asyncio
import re
import ssl
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, TypeVar, cast

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from handlers.sinks.credentials import MASK, MASKED, moved_faults, seal, unseal
from handlers.sinks.formats import CLOUDEVENTS_SOURCE
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault
from service.domain.events import Event
from service.domain.faults import SENTENCE, InvalidFields, accept_by_rules, collecting
from service.domain.ids import DeliveryId, EventId
from service.domain.models import StrictModel
from service.domain.secrets import Vault
from service.domain.times import rfc3339
from service.domain.values import replace
from service.network.dialler import Guard, Refused
from service.network.sockets import Socket, Sockets, Target, Unreachable, check_target, open_sockets

IDLE: Final = timedelta(seconds=60)  # after which a connection is closed
KEPT: Final = 256  # idle connections of all endpoints together
FAREWELL_S: Final = 2.0  # for a polite end
EXCERPT_LIMIT: Final = 500
CONTENT_TYPE: Final = "application/json"
NO_TASK: Final = "none"  # stands for {task_id} in an event that is about no task

PLACEHOLDERS: Final = ("type", "task_id")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")

ONE_LINE: Final = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=ONE_LINE)]
SecretText = Annotated[str, Field(min_length=1, max_length=4096, pattern=ONE_LINE)]


def _checked_template(template: str) -> str:
    faults: list[str] = []
    given = dict.fromkeys(_PLACEHOLDER.findall(template))
    if unknown := [name for name in given if name not in PLACEHOLDERS]:
        faults.append(f"There is no {_listed(unknown)}. There are: {_listed(PLACEHOLDERS)}.")
    if "{" in (left := _PLACEHOLDER.sub("", template)) or "}" in left:
        faults.append("A brace stands alone.")
    if faults:
        raise PydanticCustomError(SENTENCE, "{told}", {"told": " ".join(faults)})
    return template


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


Template = Annotated[
    str,
    Field(min_length=1, max_length=255, pattern=ONE_LINE, description="May hold {type} and {task_id}."),
    AfterValidator(_checked_template),
]


def filled(template: str, *, type: str, task_id: str | None) -> str:
    """The template with an event's values, in which no character means anything to a broker."""
    values = {"type": type, "task_id": task_id or NO_TASK}
    return _PLACEHOLDER.sub(lambda found: re.sub(r"[^A-Za-z0-9._-]", "_", values[found[1]]), template)


class BrokerConfig(StrictModel):
    url: Annotated[str, Field(max_length=4096)]
    username: Name | None = None
    password: SecretText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event as a broker gets it."""

    id: EventId
    delivery_id: DeliveryId  # the same for every attempt, another for every other endpoint and every replay
    name: str  # of the subject, topic, stream or routing key
    body: bytes
    attributes: Mapping[str, str]  # of the CloudEvent whose data the body is
    at: datetime


def cloudevents_attributes(event: Event) -> dict[str, str]:
    """CloudEvents 1.0.2, "Context Attributes", with the extension "sequence"."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": CLOUDEVENTS_SOURCE,
        "type": str(event.type),
        "time": rfc3339(event.at),
        "datacontenttype": CONTENT_TYPE,
    }
    if event.task_id is not None:
        attributes |= {"subject": event.task_id, "sequence": str(event.sequence)}
    return attributes


# What the libraries' parsers raise for bytes that nobody foresaw.
STRANGE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Undelivered(Exception):
    """The broker did not take it.

    Args:
        reason: in our words.
        excerpt: in the broker's, who has never been sent the credentials in the same breath.
        final: no later attempt can end otherwise.
    """

    def __init__(self, reason: str, *, excerpt: str = "", final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.excerpt = excerpt
        self.final = final


class Link(Protocol):
    """A connection to a broker that is ready for messages, one at a time."""

    @property
    def usable(self) -> bool:
        """Whether it can be used once more, as far as it can be known without using it."""

    async def publish(self, message: Message) -> str:
        """Gives, in words, what the broker acknowledged.

        Raises:
            Undelivered: it did not.
            OSError, EOFError: the connection broke.
        """

    async def close(self) -> None:
        """Politely."""

    def abort(self) -> None:
        """At once."""


class LinkPool:
    """The connections that are kept between attempts. Each is used by one attempt at a time."""

    def __init__(self, *, idle: timedelta = IDLE, kept: int = KEPT) -> None:
        self._idle_for = idle
        self._kept = kept
        self._idle: defaultdict[Hashable, list[tuple[Link, asyncio.TimerHandle]]] = defaultdict(list)
        self._farewells: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["LinkPool"]:
        try:
            yield self
        finally:
            self._closed = True
            for key in list(self._idle):
                while (link := self._take(key)) is not None:
                    self._part(link)
            if self._farewells:
                await asyncio.wait(self._farewells)

    @asynccontextmanager
    async def borrowed(self, key: Hashable, connect: Callable[[], Awaitable[Link]]) -> AsyncIterator[Link]:
        """One that is kept under this key, or a new one. It is kept if the block ends well."""
        link = self._take_usable(key) or await connect()
        try:
            yield link
        except BaseException:  # also an attempt that is cut off: what comes next would be the answer to it
            link.abort()
            self._part(link)
            raise
        self._keep(key, link)

    def _keep(self, key: Hashable, link: Link) -> None:
        if self._closed or not link.usable:
            self._part(link)
            return
        if sum(map(len, self._idle.values())) >= self._kept:
            oldest = next(iter(self._idle))
            if (other := self._take(oldest, newest=False)) is not None:
                self._part(other)
        timer = asyncio.get_running_loop().call_later(self._idle_for.total_seconds(), self._expire, key, link)
        self._idle[key].append((link, timer))

    def _expire(self, key: Hashable, link: Link) -> None:
        self._idle[key] = [entry for entry in self._idle[key] if entry[0] is not link]
        if not self._idle[key]:
            del self._idle[key]
        self._part(link)

    def _take_usable(self, key: Hashable) -> Link | None:
        while (link := self._take(key)) is not None:
            if link.usable:
                return link
            link.abort()
            self._part(link)
        return None

    def _take(self, key: Hashable, *, newest: bool = True) -> Link | None:
        if key not in self._idle:
            return None
        link, timer = self._idle[key].pop(-1 if newest else 0)
        timer.cancel()
        if not self._idle[key]:
            del self._idle[key]
        return link

    def _part(self, link: Link) -> None:
        farewell = asyncio.get_running_loop().create_task(_farewell(link), name="broker.farewell")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)


async def _farewell(link: Link) -> None:
    try:
        async with asyncio.timeout(FAREWELL_S):
            await link.close()
    except (OSError, EOFError, Undelivered):  # it takes no polite end; a TimeoutError too
        pass
    finally:
        link.abort()


@dataclass(frozen=True, slots=True)
class Brokers:
    """The way to brokers: what all sinks for them share while Klingel runs."""

    sockets: Sockets
    links: LinkPool


@asynccontextmanager
async def open_brokers(guard: Guard, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Brokers]:
    """
    Args:
        context: whom TLS trusts; the system's authorities when left out.
    """
    async with open_sockets(guard, context=context) as sockets, LinkPool().running() as links:
        yield Brokers(sockets, links)


Config = TypeVar("Config", bound=BrokerConfig)


class BrokerSink(ABC, Generic[Config]):
    """Delivers to endpoints of one kind of broker. A kind says what is its own about it."""

    model: ClassVar[type[BrokerConfig]]
    library: ClassVar[str]  # that must be there to be imported
    extra: ClassVar[str]  # of this project, that brings it
    schemes: ClassVar[Mapping[str, tuple[bool, int]]]  # whether it means TLS, and the usual port
    secret_fields: ClassVar[Sequence[str]] = ("password",)
    tls_from_start: ClassVar[bool] = True  # of a connection, where the scheme means TLS

    def __init__(self, brokers: Brokers, vault: Vault) -> None:
        self._sockets = brokers.sockets
        self._links = brokers.links
        self._vault = vault

    @abstractmethod
    def faults(self, config: Config, target: Target | None, pointer: str) -> list[Fault]:
        """What is wrong although each field alone is right."""

    @abstractmethod
    def name(self, config: Config) -> str:
        """The template of where the event goes."""

    @abstractmethod
    async def connect(self, socket: Socket, target: Target, config: Config) -> Link:
        """From an open connection to one that takes messages.

        Raises:
            Undelivered: the broker does not want us.
            OSError, EOFError: the connection broke.
        """

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        if find_spec(self.library) is None:
            raise InvalidFields(
                [
                    Fault(
                        f"This Klingel lacks what it needs for that: pip install 'klingel[{self.extra}]' (in a clone: '.[{self.extra}]')",
                        pointer,
                    )
                ]
            )
        moved: list[Fault] = []
        if before is not None and isinstance(raw, dict):
            given = raw
            secrets = unseal(self._vault, before)
            kept = {**before.config, **secrets}
            raw = kept | {
                name: kept.get(name, value) if self._masked(name, raw) else value
                for name, value in raw.items()
            }
            raw = {name: value for name, value in raw.items() if value is not None}  # null takes a field away
            carried = [name for name in secrets if name in raw and raw[name] != given.get(name)]
            moved = moved_faults(raw.get("url"), before.config["url"], carried, pointer)
        fields = raw if isinstance(raw, dict) else {}
        masked = [Fault(MASKED, f"{pointer}/{name}") for name in fields if self._masked(name, fields)]
        faults: list[Fault] = []
        target: Target | None = None
        if isinstance(url := fields.get("url"), str):
            try:
                target = check_target(url, self.schemes)
                self._sockets.check(target)
            except Refused as error:
                faults.append(Fault(f"The URL cannot be used: {error}.", f"{pointer}/url"))
        config: Config | None = None
        with collecting(faults):
            config = accept_by_rules(
                cast("type[Config]", self.model),
                raw,
                lambda config: self.faults(config, target, pointer),
                pointer=pointer,
                known=[*moved, *masked],
            )
        if faults or config is None:
            raise InvalidFields(faults)
        shown = config.model_dump(exclude_none=True)
        secrets = {name: shown[name] for name in self.secret_fields if name in shown}
        return shown | dict.fromkeys(secrets, MASK), seal(self._vault, secrets)

    def _masked(self, name: str, fields: Mapping[str, Any]) -> bool:
        return name in self.secret_fields and fields[name] == MASK

    async def send(self, duty: Duty, *, now: datetime) -> Reply:  # noqa: ARG002 - as every sink
        endpoint, event = duty.endpoint, duty.event
        secrets = unseal(self._vault, endpoint)
        # Checked when it was configured.
        config: Config = self.model.model_construct(**{**endpoint.config, **secrets})  # type: ignore[assignment]
        message = Message(
            id=event.id,
            delivery_id=duty.id,
            name=filled(self.name(config), type=event.type, task_id=event.task_id),
            body=event.body,
            # Also CloudEvents' extension "distributed tracing".
            attributes=cloudevents_attributes(event) | ({} if duty.trace is None else duty.trace.headers()),
            at=event.at,
        )
        key = (endpoint.id, config.url, config.username, endpoint.credentials)
        try:
            async with self._links.borrowed(key, lambda: self._open(config)) as link:
                acknowledged = await link.publish(message)
            reply = Reply(status_code=None, reason=acknowledged, ending=AttemptOutcome.DELIVERED)
        except Undelivered as error:
            ending = AttemptOutcome.DEAD if error.final else AttemptOutcome.RETRY
            reply = Reply(status_code=None, reason=error.reason, excerpt=error.excerpt, ending=ending)
        except Refused as error:
            reply = Reply(status_code=None, reason=f"not dialled: {error}")
        except (OSError, EOFError) as error:
            reply = Reply(status_code=None, reason=_why(error))
        return replace(
            reply,
            reason=_presentable(reply.reason, secrets.values()),
            excerpt=_presentable(reply.excerpt, secrets.values()),
        )

    async def _open(self, config: Config) -> Link:
        target = check_target(config.url, self.schemes)
        socket = await self._sockets.open(target, tls=target.tls and self.tls_from_start)
        try:
            return await self.connect(socket, target, config)
        except BaseException:
            socket.abort()
            raise


def pair_faults(config: BrokerConfig, pointer: str) -> list[Fault]:
    """Where a user name and a password go together."""
    if config.username is not None and config.password is None:
        return [Fault("A user name needs a password.", f"{pointer}/password")]
    if config.username is None and config.password is not None:
        return [Fault("A password needs a user name.", f"{pointer}/username")]
    return []


def path_faults(target: Target | None, pointer: str) -> list[Fault]:
    """Where a URL has no path."""
    if target is not None and target.path:
        return [Fault("The URL cannot be used: it has no path.", f"{pointer}/url")]
    return []


def _why(error: OSError | EOFError) -> str:
    match error:
        case Unreachable():
            return str(error)
        case ssl.SSLCertVerificationError():
            return "its TLS certificate is not valid"
        case ssl.SSLError():
            return "the TLS handshake failed"
        case ConnectionAbortedError() if error.args:
            return f"the connection was cut: {error.args[-1]}"
        case _:
            return "the connection broke"


def _presentable(text: str, secrets: Any) -> str:
    """Of what others said: no secret, nothing that a terminal or PostgreSQL takes amiss, not too much."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text[:EXCERPT_LIMIT])
