"""Endpoints."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.endpoints import Endpoint, SealedSecret
from service.domain.explanations import Standing
from service.domain.ids import AccountId, EndpointId, TaskId
from storage.columns import Row, from_json_text, json_text, milliseconds, moment
from storage.database import Reader, Transaction


def endpoint_of(row: Row) -> Endpoint:
    return Endpoint(
        id=row["id"],
        account_id=row["account_id"],
        task_id=row["task_id"],
        kind=row["kind"],
        config=from_json_text(row["config"]),
        credentials=row["credentials"],
        types=tuple(from_json_text(row["types"])),
        filter=row["filter"],
        description=row["description"],
        rate_per_minute=row["rate_per_minute"],
        enabled=bool(row["enabled"]),
        disabled_reason=row["disabled_reason"],
        secrets=tuple(SealedSecret(sealed, moment(end)) for sealed, end in from_json_text(row["secrets"])),
        failures=row["failures"],
        failing_since=moment(row["failing_since"]),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )


def _secrets(endpoint: Endpoint) -> str:
    return json_text([[secret.sealed, milliseconds(secret.expires_at)] for secret in endpoint.secrets])


async def insert(tx: Transaction, endpoints: Sequence[Endpoint]) -> None:
    await _insert(tx, "insert_endpoint", endpoints)


async def ensure(tx: Transaction, endpoints: Sequence[Endpoint]) -> None:
    """Those of which there is none of the same id yet; the others stay as they are."""
    await _insert(tx, "ensure_endpoint", endpoints)


async def _insert(tx: Transaction, statement: str, endpoints: Sequence[Endpoint]) -> None:
    await tx.run_many(
        statement,
        [
            {
                "id": endpoint.id,
                "account_id": endpoint.account_id,
                "task_id": endpoint.task_id,
                "kind": endpoint.kind,
                "config": json_text(endpoint.config),
                "credentials": endpoint.credentials,
                "types": json_text(list(endpoint.types)),
                "filter": endpoint.filter,
                "description": endpoint.description,
                "rate_per_minute": endpoint.rate_per_minute,
                "enabled": int(endpoint.enabled),
                "disabled_reason": endpoint.disabled_reason,
                "secrets": _secrets(endpoint),
                "created_at": milliseconds(endpoint.created_at),
                "updated_at": milliseconds(endpoint.updated_at),
            }
            for endpoint in endpoints
        ],
    )


async def get(reader: Reader, endpoint_id: str, *, account_id: AccountId) -> Endpoint | None:
    row = await reader.one("get_endpoint", id=endpoint_id, account_id=account_id)
    return None if row is None else endpoint_of(row)


async def page(reader: Reader, account_id: AccountId, *, before_id: str | None, limit: int) -> list[Endpoint]:
    """The account's own, newest first; those bound to a task are not among them."""
    rows = await reader.all("list_endpoints", account_id=account_id, before_id=before_id, limit=limit)
    return [endpoint_of(row) for row in rows]


async def count(reader: Reader, accounts: Iterable[AccountId]) -> Counter[AccountId]:
    """How many each account has of its own; deleted ones, and those bound to a task, do not count."""
    rows = await reader.all("count_endpoints", accounts=json_text(sorted(set(accounts))))
    return Counter({row["account_id"]: row["number"] for row in rows})


async def of(reader: Reader, accounts: Iterable[AccountId], tasks: Iterable[TaskId]) -> list[Endpoint]:
    """All to which events of these accounts and tasks may go, enabled or not."""
    rows = await reader.all(
        "endpoints_of", accounts=json_text(sorted(set(accounts))), tasks=json_text(sorted(set(tasks)))
    )
    return [endpoint_of(row) for row in rows]


async def by_id(reader: Reader, ids: Iterable[EndpointId]) -> dict[EndpointId, Endpoint]:
    rows = await reader.all("endpoints_by_id", ids=json_text(sorted(set(ids))))
    return {row["id"]: endpoint_of(row) for row in rows}


async def standing(
    reader: Reader,
    account_id: AccountId,
    *,
    task_id: TaskId | None,
    at: datetime,
    after_id: str,
    limit: int,
) -> list[Standing]:
    """Those to which an event of that moment could have gone, oldest first."""
    rows = await reader.all(
        "endpoints_at",
        account_id=account_id,
        task_id=task_id,
        at=milliseconds(at),
        after_id=after_id,
        limit=limit,
    )
    return [_standing(row) for row in rows]


async def standing_of(
    reader: Reader, endpoint_id: str, *, account_id: AccountId, at: datetime
) -> Standing | None:
    """As `standing`, of one endpoint, whatever task it is bound to."""
    row = await reader.one("endpoint_at", id=endpoint_id, account_id=account_id, at=milliseconds(at))
    return None if row is None else _standing(row)


def _standing(row: Row) -> Standing:
    return Standing(endpoint_of(row), moment(row["subscribed_at"]), moment(row["deleted_at"]))


async def save(tx: Transaction, endpoint: Endpoint) -> None:
    await tx.run(
        "save_endpoint",
        id=endpoint.id,
        config=json_text(endpoint.config),
        credentials=endpoint.credentials,
        types=json_text(list(endpoint.types)),
        filter=endpoint.filter,
        description=endpoint.description,
        rate_per_minute=endpoint.rate_per_minute,
        enabled=int(endpoint.enabled),
        disabled_reason=endpoint.disabled_reason,
        secrets=_secrets(endpoint),
        failures=endpoint.failures,
        failing_since=milliseconds(endpoint.failing_since),
        updated_at=milliseconds(endpoint.updated_at),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What attempts have shown of an endpoint. A reason disables it."""

    id: EndpointId
    failures: int
    failing_since: datetime | None
    disabled_reason: str | None = None


async def save_health(tx: Transaction, healths: Sequence[Health], *, now: datetime) -> None:
    await tx.run_many(
        "save_endpoint_health",
        [
            {
                "id": health.id,
                "failures": health.failures,
                "failing_since": milliseconds(health.failing_since),
                "disabled_reason": health.disabled_reason,
                "updated_at": milliseconds(now),
            }
            for health in healths
        ],
    )


async def forget_failures(tx: Transaction, ids: Iterable[EndpointId], *, now: datetime) -> None:
    """All that was attempted there lately was delivered."""
    await tx.run_many(
        "forget_endpoint_failures", [{"id": id, "updated_at": milliseconds(now)} for id in sorted(ids)]
    )


async def delete(tx: Transaction, endpoint_id: EndpointId, *, now: datetime) -> None:
    await tx.run("delete_endpoint", id=endpoint_id, now=milliseconds(now))
