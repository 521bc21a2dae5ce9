"""The processes that share a database, and the lanes that each of them holds."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from service.domain.ids import LaneKey, ProcessId
from storage.columns import json_text
from storage.database import Transaction


async def add(tx: Transaction, id: ProcessId, *, roles: Iterable[str], lasts: timedelta) -> None:
    """It counts as alive for so long, by the database's clock."""
    await tx.run("add_process", id=id, roles=",".join(sorted(roles)), lasts_ms=_ms(lasts))


async def renew(tx: Transaction, id: ProcessId, *, lasts: timedelta) -> bool:
    """For so long again; false if it was counted as dead, and others have what it had."""
    return await tx.run("renew_process", id=id, lasts_ms=_ms(lasts)) > 0


async def dead(tx: Transaction) -> list[ProcessId]:
    """Those whose time has run out, and that no other process is reaping."""
    return [row["id"] for row in await tx.all("dead_processes")]


async def forget(tx: Transaction, id: ProcessId) -> None:
    await tx.run("forget_process", id=id)


async def stand_by(tx: Transaction, id: ProcessId) -> bool:
    """Whether it counts as alive. If so, nobody finds it dead before the end of this transaction."""
    return await tx.value("stand_by_process", id=id) is not None


async def take_lanes(tx: Transaction, lanes: Iterable[LaneKey], *, by: ProcessId) -> set[LaneKey]:
    """Those of them that this process holds now: which it held, or nobody did."""
    wanted = json_text(sorted(lanes))
    await tx.run("take_lanes", lanes=wanted, process_id=by)
    return {row["lane"] for row in await tx.all("held_lanes", lanes=wanted, process_id=by)}


async def give_up_lanes(tx: Transaction, lanes: Iterable[LaneKey], *, by: ProcessId) -> None:
    await tx.run("give_up_lanes", lanes=json_text(sorted(lanes)), process_id=by)


async def release_lanes_of(tx: Transaction, processes: Sequence[ProcessId]) -> None:
    """No process holds them any more."""
    await tx.run("release_lanes_of", processes=json_text(list(processes)))


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
