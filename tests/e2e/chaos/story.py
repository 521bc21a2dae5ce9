"""Kill, start, compare: what the clients were told with what the provider billed and the receivers got."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.chaos.fleet import DISPATCHERS, WEBS, Fleet, running_server
from tests.e2e.chaos.world import (
    ENDPOINTS,
    OF_NO_REQUEST,
    OF_ONE_PROCESS,
    SETTLE_S,
    Moment,
    World,
    everything,
)

TERMINAL = {"succeeded", "failed", "rejected"}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What one run has shown. Every one of `faults` must be 0."""

    seed: int
    kills: Counter[Moment]
    load: dict[str, int]
    faults: dict[str, int]

    @property
    def clean(self) -> bool:
        return not any(self.faults.values())


async def run(folder: Path, *, kills: int, seed: int, submits: int = 6) -> Findings:
    """One process, on a SQLite file.

    Args:
        folder: for Klingel's data, and its log.
        submits: new ones in each life.
    """
    world = World(folder, random.Random(seed))
    return await tell(world, OF_ONE_PROCESS, kills=kills, seed=seed, submits=submits)


async def run_fleet(
    folder: Path,
    *,
    kills: int,
    seed: int,
    submits: int = 6,
    moments: Sequence[Moment] = tuple(Moment),
    webs: int = WEBS,
    dispatchers: int = DISPATCHERS,
) -> Findings:
    """Many processes on a PostgreSQL of their own, whose server is among what is killed."""
    with running_server() as server:
        fleet = Fleet(folder, random.Random(seed), server, webs=webs, dispatchers=dispatchers)
        return await tell(fleet, moments, kills=kills, seed=seed, submits=submits)


async def tell(world: World, moments: Sequence[Moment], *, kills: int, seed: int, submits: int) -> Findings:
    """At each of these moments in turn."""
    async with world.running():
        await world.start()
        await world.subscribe()
        for number in range(kills):
            await _one_life(world, moments[number % len(moments)], submits)
            await world.start()
        return await _compare(world, seed)


async def _one_life(world: World, moment: Moment, submits: int) -> None:
    """Load, and death in it: at the armed moment, or at the latest when the load has been through."""
    world.moment = moment
    if moment not in OF_NO_REQUEST:
        world.trigger.arm(moment, world.random.choice([0, 0, 0.001, 0.003, 0.01]))
        # Not always the first chance: some things are only under way later.
        loading = asyncio.create_task(world.submit_some(submits))
        await world.until(lambda: _true(world.trigger.pulled.is_set()), 5)
    else:
        loading = asyncio.create_task(world.submit_some(submits))
        await asyncio.sleep(world.random.uniform(0, 0.5))
        world.kill()
    await asyncio.sleep(0.02)
    world.trigger.disarm()
    world.kill()
    world.kills[moment] += 1
    await world.death()
    await loading


async def _true(value: bool) -> bool:
    return value


async def _compare(world: World, seed: int) -> Findings:
    async with world.client() as client:

        async def answered() -> bool:
            if world.unanswered:
                await world.submit_some(0)
            return not world.unanswered

        async def settled() -> bool:
            tasks = await everything(client, "/v1/tasks")
            pending = await everything(client, "/v1/deliveries", status="pending")
            return not pending and all(task["status"] in TERMINAL for task in tasks)

        await world.until(answered, SETTLE_S)
        await world.until(settled, SETTLE_S)
        tasks = await everything(client, "/v1/tasks")
        events = await everything(client, "/v1/events")
        details = {task["id"]: (await client.get(f"/v1/tasks/{task['id']}")).json() for task in tasks}
        evidence = {
            task["id"]: await everything(client, f"/v1/tasks/{task['id']}/callbacks") for task in tasks
        }
        metrics = await world.metrics()
    log = world.sandbox._journal.shown()
    return _findings(world, seed, tasks, events, details, evidence, log, metrics)


def _findings(
    world: World,
    seed: int,
    tasks: list[dict[str, Any]],
    events: list[dict[str, Any]],
    details: dict[str, dict[str, Any]],
    evidence: dict[str, list[dict[str, Any]]],
    log: dict[str, Any],
    metrics: str,
) -> Findings:
    by_external = {task["external_task_id"]: task for task in tasks}
    billed = Counter(creation["external_task_id"] for creation in log["created"])
    acknowledged = Counter(
        attempt["external_task_id"]
        for attempt in log["callbacks"]
        if attempt["http_status"] is not None and 200 <= attempt["http_status"] < 300
    )
    of_task: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        of_task[event["data"]["task"]["id"]].append(event)
    wrong_sequences = sum(
        sorted(event["sequence"] for event in of_task[task["id"]])
        != list(range(1, len(of_task[task["id"]]) + 1))
        for task in tasks
    )
    wrong_transitions = sum(
        len(details[task["id"]]["transitions"])
        != sum(event["data"].get("transition") is not None for event in of_task[task["id"]])
        for task in tasks
    )
    known = {event["id"] for event in events}
    wanted = {event["id"] for event in events if event["type"].startswith("task.")}
    queries = sum(call["kind"] == "query" for call in log["calls"])
    faults = {
        "acknowledged submits lost": sum(
            details.get(task_id, {}).get("external_task_id") != external_id
            for external_id, task_id in world.acknowledged.items()
        ),
        "submits never acknowledged": len(world.unanswered),
        "tasks billed twice": sum(number > 1 for number in billed.values()),
        "tasks billed that Klingel does not know": len(billed.keys() - by_external.keys()),
        "tasks stored twice": len(tasks) - len(by_external),
        "tasks not ended": sum(task["status"] not in TERMINAL for task in tasks),
        "paid results lost": sum(
            by_external[external_id]["status"] != "succeeded"
            for external_id in billed
            if external_id in by_external
        ),
        "acknowledged callbacks lost": sum(
            max(number - len(evidence[by_external[external_id]["id"]]), 0)
            for external_id, number in acknowledged.items()
            if external_id in by_external
        ),
        "tasks with gaps or repeats in their events' sequence": wrong_sequences,
        "tasks whose transitions and events differ": wrong_transitions,
        "events that did not reach an endpoint": sum(
            event_id not in world.webhooks[str(number)] for number in range(ENDPOINTS) for event_id in wanted
        ),
        "webhooks of events that do not exist": len(world.bodies.keys() - known),
        "events told with different bytes": world.changed_bodies,
        "status queries sent to the provider": queries
        + sum(
            float(line.split()[-1]) > 0
            for line in metrics.splitlines()
            if line.startswith("klingel_provider_status_queries_total")
        ),
    }
    creates = sum(call["kind"] == "create" for call in log["calls"])
    received = sum(number for endpoint in world.webhooks.values() for number in endpoint.values())
    load = {
        "submits acknowledged": len(world.acknowledged),
        "creates received by the provider": creates,
        "tasks billed": len(billed),
        "callbacks acknowledged": sum(acknowledged.values()),
        "events": len(events),
        "webhooks received": received,
        "of these repeats, under the same id": received
        - sum(len(endpoint) for endpoint in world.webhooks.values()),
    }
    return Findings(seed=seed, kills=world.kills, load=load, faults=faults)
