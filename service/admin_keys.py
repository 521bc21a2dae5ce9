"""The key that lets the operator in: the one that the settings name, or the first one of all."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from service.domain.errors import ConfigurationError
from service.domain.ids import new_key_id
from service.domain.secrets import Vault, hash_api_key, new_api_key
from service.domain.times import Clock
from service.notices import Notices, Topic
from storage import keys
from storage.database import Database, Transaction
from storage.keys import ApiKey, KeyOrigin, KeyRole

FIRST_ACCOUNT: Final = "default"


async def check_named_key(database: Database, named: str) -> None:
    """
    Raises:
        ConfigurationError: as `ensure_admin_key`.
    """
    async with database.reading() as reader:
        _check(await keys.by_hash(reader, hash_api_key(named)))


async def ensure_admin_key(
    database: Database,
    *,
    named: str | None,
    vault: Vault,
    notices: Notices,
    clock: Clock,
    tell: Callable[[str], None],
) -> None:
    """Somebody can get in after this.

    Args:
        named: the key that the settings name. It works whatever became of it before; the one that they named until now
            works no longer, nor does a first key that nobody has used.
        tell: called with the first key of all, made where there is none, at each start until it is used: neither a
            crash nor a terminal that nobody read loses it.

    Raises:
        ConfigurationError: the settings name a key that is a member's.
    """
    async with database.transaction() as tx:
        await tx.hold("accounts", [FIRST_ACCOUNT])  # several processes may start for the first time
        if named is not None:
            await _take_over(tx, named, notices, clock())
            return
        secret = await _unused(tx, vault, notices, clock())
        if secret is None:
            if await keys.any_admin(tx):
                return
            secret = new_api_key()
            await _insert(tx, secret, KeyOrigin.FIRST, clock(), sealed=vault.seal(secret))
        tx.on_commit(lambda: tell(secret))


async def _take_over(tx: Transaction, secret: str, notices: Notices, now: datetime) -> None:
    stored = await keys.by_hash(tx, hash_api_key(secret))
    _check(stored)
    if stored is None:
        await _insert(tx, secret, KeyOrigin.SETTING, now)
    else:
        await keys.take_over(tx, hash=hash_api_key(secret))
    for key_id in await keys.superseded(tx, hash=hash_api_key(secret)):
        await _revoke(tx, key_id, notices, now)


def _check(stored: ApiKey | None) -> None:
    if stored is not None and stored.role is not KeyRole.ADMIN:
        raise ConfigurationError(
            f"KLINGEL_API_KEY is the key {stored.id}, which is a member's. Name an admin's, or one that is new."
        )


async def _revoke(tx: Transaction, key_id: str, notices: Notices, now: datetime) -> None:
    """Other processes that run already end its streams. This one has none yet."""
    await keys.revoke(tx, key_id, now=now)
    await notices.post(tx, Topic.KEYS, [key_id])


async def _unused(tx: Transaction, vault: Vault, notices: Notices, now: datetime) -> str | None:
    """The first key, while nobody has used it."""
    key = await keys.unused(tx)
    if key is None or key.sealed is None:
        return None
    try:
        return vault.open(key.sealed)
    except ConfigurationError:
        # Sealed under a secret that is gone. Nobody can be told it any more, so another takes its place.
        await _revoke(tx, key.id, notices, now)
        return None


async def _insert(
    tx: Transaction, secret: str, origin: KeyOrigin, now: datetime, *, sealed: str | None = None
) -> None:
    key = ApiKey(
        id=new_key_id(),
        account_id=await keys.account(tx, FIRST_ACCOUNT, now=now),
        account_name=FIRST_ACCOUNT,
        name="admin",
        role=KeyRole.ADMIN,
        hint=secret[-4:],
        created_at=now,
        origin=origin,
        sealed=sealed,
    )
    await keys.insert(tx, key, hash=hash_api_key(secret))
