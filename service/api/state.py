"""What the doors need of the house; the composition root fills it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from service.batching import Batcher
from service.deadlines import Deadlines
from service.delivery import Deliverer, Sink
from service.domain.bots import Bot
from service.domain.links import Links
from service.domain.secrets import PushKeys, Vault
from service.domain.times import Clock
from service.doors.guesses import Guesses
from service.doors.recognition import KnownKeys
from service.doors.sharing import Shares
from service.expiry import Expiry
from service.keeping import Keeper
from service.notices import Notices
from service.observability.metrics import Metrics
from service.observability.vitals import Vitals
from service.probing import Probes
from service.processes import Presence
from service.publication import Publisher
from service.retention import Retention
from service.sending import Provider, TaskSender
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
    sender: TaskSender  # sends only where this process dispatches
    deliverer: Deliverer | None  # None where it does not
    deadlines: Deadlines | None
    expiry: Expiry | None
    retention: Retention  # forgets by itself only where this process dispatches
    keeper: Keeper
    links: Links
    metrics: Metrics
    probes: Probes
    glances: Glances
    vitals: Vitals
    shares: Shares
    key_guesses: Guesses
    known_keys: KnownKeys
