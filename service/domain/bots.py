"""Chat bots: by which a person in a chat submits tasks, and who may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from service.domain.ids import AccountId, BotId, CommandId, TaskId
from service.domain.times import rfc3339

BOTS_OF_AN_ACCOUNT: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who speaks, as the platform names them; its own ids, which no name can imitate."""

    workspace: str | None  # team, guild, tenant
    chat: str
    user: str
    name: str  # for people to read; proves nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Whom a bot obeys: everyone to whom all that is given here applies."""

    workspace: str | None = None
    chat: str | None = None
    user: str | None = None

    def includes(self, person: Person) -> bool:
        return all(
            wanted is None or wanted == is_
            for wanted, is_ in (
                (self.workspace, person.workspace),
                (self.chat, person.chat),
                (self.user, person.user),
            )
        )

    def view(self) -> dict[str, str]:
        named = {"workspace": self.workspace, "chat": self.chat, "user": self.user}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bot:
    id: BotId
    account_id: AccountId
    platform: str
    config: Mapping[str, Any]  # readable by anyone with a key of the account
    credentials: str | None  # the secret part, sealed
    allow: Sequence[Allowed]  # none: nobody
    open_tasks: int  # of one person at a time
    description: str | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def path(self) -> str:
        """Where its platform reaches it, at this Klingel."""
        return f"/chat/{self.platform}/{self.id}"

    def obeys(self, person: Person) -> bool:
        return any(allowed.includes(person) for allowed in self.allow)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "platform": self.platform,
            "config": dict(self.config),
            "allow": [allowed.view() for allowed in self.allow],
            "open_tasks": self.open_tasks,
            "description": self.description,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a person asked of a bot, kept until it became a task, or was told why not."""

    id: CommandId
    bot_id: BotId
    key: str  # the platform's own id of the request: the same again is the same command
    person: str  # the user's id
    asked: str  # sealed
    tries: int = 0
    next_try_at: datetime | None = None  # None once it is done
    task_id: TaskId | None = None
    created_at: datetime
