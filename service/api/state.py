"""What the doors need of the house; the composition root fills it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypedDict

from service.batching import Batcher
from service.delivery import Sink
from service.domain.bots import Bot
from service.domain.links import Links
from service.domain.secrets import PushKeys, Vault
from service.domain.times import Clock
from service.doors.guesses import Guesses
from service.doors.recognition import KnownKeys
from service.doors.sharing import Shares
from service.keeping import Keeper
from service.notices import Notices
from service.observability.metrics import Metrics
from service.observability.vitals import Vitals
from service.probing import Probes
from service.processes import Presence
from service.publication import Publisher
from service.retention import Retention
from service.sending import Provider
from service.settings import Settings
from service.streams import Streams
from service.submission import Submitter
from service.submits import SubmitReader
from service.wakeups import Wakeups
from storage.database import Database
from storage.glances import Glances


class BotDesk(Protocol):
    """Knows what a bot needs on each platform."""

    @property
    def platforms(self) -> Sequence[str]:
        """On which there can be bots."""

    def configure(
        self, platform: str, raw: object, *, pointer: str, before: Bot | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        """A bot's configuration: the readable part, and the secret part, sealed.

        Raises:
            InvalidFields: with every fault.
        """


class Part(Protocol):
    """Of Klingel, that works by itself."""

    @property
    def alive(self) -> bool:
        """Whether it runs and does its work."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """Until the block ends."""


class State(TypedDict):
    settings: Settings
    clock: Clock
    database: Database
    batcher: Batcher
    publisher: Publisher
    streams: Streams
    notices: Notices
    presence: Presence
    wakeups: Wakeups
    vault: Vault
    push_keys: PushKeys
    sinks: Mapping[str, Sink]
    bot_desk: BotDesk
    providers: Mapping[str, Provider]
    submits: SubmitReader
    submitter: Submitter
    dispatching: Mapping[str, Part]  # by the names of their checks; they run where this process dispatches
    retention: Retention  # one of them, which prunes also on order
    keeper: Keeper
    links: Links
    metrics: Metrics
    probes: Probes
    glances: Glances
    vitals: Vitals
    shares: Shares
    key_guesses: Guesses
    known_keys: KnownKeys
