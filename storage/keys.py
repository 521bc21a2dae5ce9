"""Accounts and their API keys. A key itself is never stored, only its hash."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.domain.ids import AccountId, KeyId, new_account_id
from service.domain.times import optional_rfc3339, rfc3339
from storage.columns import Row, milliseconds, moment
from storage.database import Reader, Transaction


class KeyRole(StrEnum):
    ADMIN = "admin"  # also makes and revokes keys
    MEMBER = "member"


class KeyOrigin(StrEnum):
    MADE = "made"  # on `/v1/keys`
    SETTING = "setting"  # named by the settings
    FIRST = "first"  # made because there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    id: KeyId
    account_id: AccountId
    account_name: str
    name: str
    role: KeyRole
    hint: str  # its last four characters, to tell it from others
    created_at: datetime
    revoked_at: datetime | None = None
    origin: KeyOrigin = KeyOrigin.MADE
    sealed: str | None = field(default=None, repr=False)  # the first key itself, until it is used

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "account": self.account_name,
            "role": self.role,
            "hint": self.hint,
            "created_at": rfc3339(self.created_at),
            "revoked_at": optional_rfc3339(self.revoked_at),
        }


def _key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        account_id=row["account_id"],
        account_name=row["account_name"],
        name=row["name"],
        role=KeyRole(row["role"]),
        hint=row["hint"],
        created_at=moment(row["created_at"]),
        revoked_at=moment(row["revoked_at"]),
        origin=KeyOrigin(row["origin"]),
        sealed=row["sealed"],
    )


async def first_account(reader: Reader) -> AccountId | None:
    """The operator's own: the one that was made first."""
    found: AccountId | None = await reader.value("first_account")
    return found


async def account(tx: Transaction, name: str, *, now: datetime) -> AccountId:
    """The account of this name, made if there is none."""
    row = await tx.one("account_by_name", name=name)
    if row is not None:
        found: AccountId = row["id"]
        return found
    id = new_account_id()
    await tx.run("insert_account", id=id, name=name, created_at=milliseconds(now))
    return id


async def find_account(reader: Reader, name: str) -> AccountId | None:
    row = await reader.one("account_by_name", name=name)
    return None if row is None else row["id"]


async def insert(tx: Transaction, key: ApiKey, *, hash: str) -> None:
    await tx.run(
        "insert_key",
        id=key.id,
        account_id=key.account_id,
        name=key.name,
        role=key.role,
        hash=hash,
        hint=key.hint,
        created_at=milliseconds(key.created_at),
        origin=key.origin,
        sealed=key.sealed,
    )


async def by_hash(reader: Reader, hash: str) -> ApiKey | None:
    """Also a revoked one: the caller tells."""
    row = await reader.one("key_by_hash", hash=hash)
    return None if row is None else _key(row)


async def take_over(tx: Transaction, *, hash: str) -> None:
    """It is the settings' from now on, and good, whatever it was before."""
    await tx.run("take_over_key", hash=hash)


async def superseded(tx: Transaction, *, hash: str) -> list[str]:
    """What the settings named before this one, and a first key that nobody has used."""
    return [row["id"] for row in await tx.all("superseded_keys", hash=hash)]


async def unused(reader: Reader) -> ApiKey | None:
    """The first key, while nobody has used it."""
    row = await reader.one("unused_key")
    return None if row is None else _key(row)


async def mark_used(tx: Transaction, key_id: str) -> None:
    """From now on nobody can be told the key."""
    await tx.run("mark_key_used", id=key_id)


async def any_admin(reader: Reader) -> bool:
    return bool(await reader.value("count_admin_keys"))


async def get(reader: Reader, key_id: str) -> ApiKey | None:
    row = await reader.one("get_key", id=key_id)
    return None if row is None else _key(row)


async def page(reader: Reader, *, before_id: str | None, limit: int) -> list[ApiKey]:
    """Of all accounts, newest first."""
    return [_key(row) for row in await reader.all("list_keys", before_id=before_id, limit=limit)]


async def revoke(tx: Transaction, key_id: str, *, now: datetime) -> None:
    await tx.run("revoke_key", id=key_id, now=milliseconds(now))
