"""What the pages need of the house; the composition root fills it."""

from collections.abc import Mapping
from typing import TypedDict

from service.batching import Batcher
from service.dashboard.sessions import Sessions
from service.delivery import Sink
from service.domain.links import Links
from service.domain.secrets import PushKeys, Vault
from service.domain.times import Clock
from service.doors.guesses import Guesses
from service.doors.recognition import KnownKeys
from service.doors.sharing import Shares
from service.notices import Notices
from service.sending import Provider
from service.settings import Settings
from storage.database import Database


class State(TypedDict):
    settings: Settings
    clock: Clock
    database: Database
    batcher: Batcher
    vault: Vault
    push_keys: PushKeys
    sinks: Mapping[str, Sink]
    providers: Mapping[str, Provider]
    links: Links
    key_guesses: Guesses
    known_keys: KnownKeys
    shares: Shares
    sessions: Sessions
    notices: Notices
