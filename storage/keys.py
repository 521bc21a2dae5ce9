"""Accounts and their API keys. A key itself is never stored, only its hash."""

from dataclasses import dataclass
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
    )


async def by_hash(reader: Reader, hash: str) -> ApiKey | None:
    """Also a revoked one: the caller tells."""
    row = await reader.one("key_by_hash", hash=hash)
    return None if row is None else _key(row)


async def restore(tx: Transaction, *, hash: str) -> None:
    await tx.run("restore_key", hash=hash)


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
