"""What a person asks of a bot by a command: it is kept, sealed, in the command's row until a task was made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import from_json, to_json

from handlers.chat.grammar import Ask
from handlers.chat.platform import MOST_PICTURES, Address, Album, Press, Pressed, Said
from service.domain.bots import Command, Person
from service.domain.secrets import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A task to be made: of words and pictures, or of another task, under whose message a button was pressed."""

    person: Person
    address: Address
    type: str | None = None  # None for a button
    prompt: str = ""
    options: Mapping[str, Any]
    urls: Sequence[str] = ()
    pictures: Sequence[Mapping[str, Any]] = ()  # as `Said.pictures`
    album: Album | None = None
    press: Press | None = None  # None for words
    task_id: str | None = None  # whose button it is

    @classmethod
    def of_words(cls, said: Said, ask: Ask) -> "Wish":
        return cls(
            person=said.person,
            address=said.address,
            type=ask.type,
            prompt=ask.prompt,
            options=ask.options,
            urls=ask.urls[:MOST_PICTURES],
            pictures=said.pictures[:MOST_PICTURES],
            album=said.album,
        )

    @classmethod
    def of_button(cls, pressed: Pressed) -> "Wish":
        return cls(
            person=pressed.person,
            address=pressed.address,
            options={},
            press=pressed.press,
            task_id=pressed.task_id,
        )


def sealed_wish(wish: Wish, vault: Vault) -> str:
    """As a command's row keeps it."""
    return vault.seal(to_json(asdict(wish)).decode())


def opened_wish(command: Command, vault: Vault) -> Wish:
    """
    Raises:
        ConfigurationError: it was sealed under another KLINGEL_SECRET.
    """
    kept = from_json(vault.open(command.asked))
    return Wish(
        **kept
        | {
            "person": Person(**kept["person"]),
            "press": None if kept["press"] is None else Press(kept["press"]),
            "album": None if kept.get("album") is None else Album(**kept["album"]),
        }
    )
