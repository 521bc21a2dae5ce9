"""What a chat platform must be able to do. Each platform is one file beside this one, with what is particular to it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from pydantic import BaseModel

from handlers.messages import Message
from service.domain.bots import Person
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.network.dialler import Dialler

# Pictures of one message that are read: one more than a task takes, so that too many are refused instead of cut off.
MOST_PICTURES: Final = 5

Address = Mapping[str, Any]  # where and how to answer, as JSON; only its platform looks into it
Grown = Callable[
    [int], None
]  # called with how many bytes of a picture have come; what it raises ends the fetching


def uncounted(size: int) -> None:
    """For a caller that counts no bytes."""


class Forged(Exception):
    """A request is not by this platform, or too old. The message is for the log alone."""


class NotFetched(Exception):
    """A picture that was attached cannot be had; the message is for who attached it."""

    def __init__(self, reason: str, *, may_come: bool = False, status: int | None = None) -> None:
        super().__init__(reason)
        self.may_come = may_come  # worth another try
        self.status = status  # of the answer, where there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """A request as it came: the bytes as they were signed."""

    method: str
    headers: Mapping[str, str]  # names in lower case
    query: Mapping[str, str]
    body: bytes

    def sent_at(self, header: str, *, within: timedelta, now: datetime) -> str:
        """The seconds since 1970 in this header, as they were signed.

        Raises:
            Forged: there are none, or they are further than `within` from now.
        """
        seconds = self.headers.get(header, "")
        if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 12):
            raise Forged("no timestamp")
        if abs(int(seconds) - now.timestamp()) > within.total_seconds():
            raise Forged("too old, or of another time")
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The HTTP answer to an inbound request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Pictures that belong together, but are told of one by one, in any order."""

    id: str  # the platform's
    place: int  # in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A command, as a person gave it."""

    key: str  # the platform's id of the request: the same again is the same command
    person: Person
    text: str  # what follows the bot's name or slash command
    pictures: Sequence[Mapping[str, Any]] = ()  # what `fetch` needs to have them, in their order
    album: Album | None = None  # which has more of them
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """More pictures of an album; the command that they belong to comes with another of them, before or after."""

    person: Person
    pictures: Sequence[Mapping[str, Any]]
    album: Album


class Press(StrEnum):
    """The buttons of a finished task."""

    AGAIN = "again"  # the same once more
    FILM = "film"  # a video of its pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A button under a task's message."""

    key: str
    person: Person
    press: Press
    task_id: str
    address: Address


# What an inbound request is: something to be done, or something that its answer settles (a check of the URL, a ping,
# what concerns nobody).
Heard = Said | Attached | Pressed | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    label: str
    press: Press
    task_id: str

    @property
    def id(self) -> str:
        """For platforms that give a button's own id back when it is pressed."""
        return f"{self.press}:{self.task_id}"


_BUTTON_ID: Final = re.compile(rf"(?P<press>{'|'.join(Press)}):(?P<task_id>task_[0-9a-f]{{32}})")


def read_button_id(id: str) -> tuple[Press, str] | None:
    """What a button does, and to which task; None for an id that is not one of ours."""
    read = _BUTTON_ID.fullmatch(id)
    return None if read is None else (Press(read["press"]), read["task_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a chat shows of a task. All of it is plain text: escape it for the markup that it goes into."""

    message: Message
    prompt: str | None = None
    asked_by: Person | None = None
    buttons: Sequence[Button] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a card goes: an endpoint of one's own (a webhook URL, a channel), or the place where a bot was asked."""

    config: Mapping[str, Any]  # of the endpoint, or of the bot
    secrets: Mapping[str, Any]  # opened
    address: Address | None = None  # where the bot was asked; None for an endpoint of one's own
    asked_at: datetime | None = None  # when that was; None for an endpoint of one's own
    url: str | None = None  # where the bot listens, for platforms that are told so with each button

    def asked_within(self, span: timedelta, now: datetime) -> bool:
        """Whether the bot was asked less than `span` ago: some platforms take an answer to a command for a while only."""
        return self.asked_at is not None and now - self.asked_at < span


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """How showing a card went, and by what the platform finds the message again, to edit it."""

    reply: Reply
    reference: Mapping[str, Any] | None = None


SAID_AT_THE_END: Final = Reply(
    status_code=None,
    reason="said when the task has ended",
    ending=AttemptOutcome.DELIVERED,
    exchanged=False,
)
END_WAS_TOLD: Final = Reply(
    status_code=None,
    reason="the task's end was told already",
    ending=AttemptOutcome.DELIVERED,
    exchanged=False,
)
ENDED_WITH: Final = "ended_with"  # of a reference: how many outputs were linked when the end was told


def remembering_end(reference: Mapping[str, Any], card: Card) -> Mapping[str, Any]:
    """The reference of a message that cannot be edited: with the end of its task, where this card tells it."""
    if not card.message.is_final:
        return reference
    return {**reference, ENDED_WITH: len(card.message.made)}


def repeats_end(reference: Mapping[str, Any], card: Card) -> bool:
    """Whether the end was told with as many outputs as this card links to.

    Each copy of an output that Klingel keeps brings a card of the end again, to be edited into the message. Where
    messages cannot be edited it would be one more message, which is news only with outputs that were missing before.
    """
    return card.message.is_final and len(card.message.made) <= reference.get(ENDED_WITH, -1)


class Voice(Protocol):
    """Speaks: every platform can."""

    def __init__(self, dialler: Dialler) -> None: ...

    name: str  # the endpoints' kind
    endpoint_model: type[BaseModel]  # the configuration of an endpoint of one's own, flat
    endpoint_secrets: frozenset[str]  # those of its fields that are sealed
    edits: bool  # whether messages can be changed once they are sent

    def faults(self, config: BaseModel, *, pointer: str) -> list[Fault]:
        """What the model cannot tell: a URL that is not this platform's, or that the guard refuses.

        Args:
            config: with empty text in place of each field that the model refuses.
        """

    async def post(self, to: Destination, card: Card, *, now: datetime) -> Spoken:
        """Raises nothing for what the other side can do."""

    async def edit(
        self, to: Destination, reference: Mapping[str, Any], card: Card, *, now: datetime
    ) -> Spoken:
        """Called only where `edits`, with a reference that it gave."""


@runtime_checkable
class EditsSomewhere(Protocol):
    """A voice that edits at some destinations only. At the others one message is sent, when the task has ended."""

    def can_edit(self, to: Destination) -> bool: ...


class Platform(Voice, Protocol):
    """Listens as well."""

    bot_model: type[BaseModel]
    bot_secrets: frozenset[str]

    def hear(
        self, request: Inbound, *, config: Mapping[str, Any], secrets: Mapping[str, Any], now: datetime
    ) -> Heard:
        """Verifies, then reads.

        Raises:
            Forged.
        """

    def answer(self, heard: Said | Pressed, text: str | None) -> Answer | None:
        """The HTTP answer: with words where they reach the person alone, None where it cannot carry any.

        Args:
            text: plain; None to say nothing yet, for the task's own message follows.
        """

    async def tell(self, to: Destination, text: str, *, now: datetime) -> Reply:
        """A line to where the command came from, after its answer."""

    async def fetch(
        self,
        picture: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        grown: Grown = uncounted,
    ) -> str:
        """An attached picture, as a URL that the provider can open, or as Base64.

        Raises:
            NotFetched.
        """
