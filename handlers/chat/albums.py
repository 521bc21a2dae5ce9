"""Albums: a platform tells of their pictures one by one, in any order, and only one of these carries the command.

Every other picture is kept as a command that is done already: it is forgotten together with these.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic_core import from_json, to_json

from handlers.chat.platform import Album, Attached
from handlers.chat.wishes import Wish
from service.domain.bots import Command
from service.domain.ids import BotId, new_command_id
from service.domain.secrets import Vault
from service.domain.values import replace
from storage import bots
from storage.database import Reader

SETTLES: Final = timedelta(
    seconds=2
)  # after the latest of an album's pictures; then its command is worked on
LASTS: Final = timedelta(days=1)  # for so long after its pictures a command may ask for something of them
MOST_PARTS: Final = 10  # of an album are read: no task takes as many


def part_of_album(attached: Attached, bot_id: BotId, *, vault: Vault, now: datetime) -> Command:
    """The row that keeps a picture of an album until its command has come."""
    return Command(
        id=new_command_id(),
        bot_id=bot_id,
        key=f"{_key(attached.album)}{attached.album.place}",
        person=attached.person.user,
        asked=vault.seal(to_json(attached.pictures).decode()),
        created_at=now,
    )


async def parts_of_album(reader: Reader, album: Album, command: Command) -> list[Command]:
    """Those of its pictures that have come, but for the one that carries the command."""
    since = command.created_at - LASTS
    return await bots.commands_beginning(
        reader, command.bot_id, command.person, _key(album), since=since, limit=MOST_PARTS
    )


def settled_at(command: Command, parts: Sequence[Command]) -> datetime:
    """From when on no further picture is waited for."""
    return max((part.created_at for part in parts), default=command.created_at) + SETTLES


def with_parts(wish: Wish, parts: Sequence[Command], vault: Vault) -> Wish:
    """The wish with all pictures of its album that have come, in their order.

    Raises:
        ConfigurationError: they were sealed under another KLINGEL_SECRET.
    """
    if wish.album is None:
        return wish
    before = len(_key(wish.album))
    placed = {int(part.key[before:]): from_json(vault.open(part.asked)) for part in parts}
    placed[wish.album.place] = wish.pictures
    return replace(wish, pictures=[picture for _, pictures in sorted(placed.items()) for picture in pictures])


def _key(album: Album) -> str:
    """What the keys of its parts begin with; their places follow."""
    return f"album:{album.id}:"
