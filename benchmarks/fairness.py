"""Five healthy endpoints alone, then beside five hostile ones: the ratio of their delivery latencies.

A latency runs from an event's own timestamp (its commit) to the arrival of its first byte at a healthy receiver.
Rounds alternate within the same minutes, so that the machine's noise falls on both.
"""

import argparse
import asyncio
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from benchmarks.figures import keep
from tests.e2e.chaos.world import World

HEALTHY = 5
ROUNDS = 4
TASKS_A_ROUND = 80
PAUSE_S = 0.1  # between submits: an open loop, well below what the shared cores can carry

# In a process of their own, so that their floods cost the healthy receivers nothing but Klingel's own time.
HOSTILE = """
import asyncio, json
from tests.integration.hostile import hostile_receivers

async def main():
    async with hostile_receivers() as urls:
        print(json.dumps(urls), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Timed(World):
    """Notes when each webhook of a healthy endpoint comes in."""

    def __init__(self, folder: Path, randomness: random.Random) -> None:
        super().__init__(folder, randomness)
        self.latencies_ms: list[float] = []

    async def on_webhook(self, request: Request) -> Response:
        arrived = time.time()
        response = await super().on_webhook(request)
        sent = self.bodies[request.headers["webhook-id"]]["timestamp"]
        self.latencies_ms.append((arrived - datetime.fromisoformat(sent).timestamp()) * 1000)
        return response

    def memory_mib(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def load(world: Timed) -> list[float]:
    """One round: submits at a steady pace, and the latencies of all that follows."""
    world.latencies_ms.clear()
    expected = TASKS_A_ROUND * 3 * HEALTHY
    async with world.client() as client:

        async def submit() -> None:
            answer = await client.post(
                "/v1/tasks",
                headers={"prefer": "respond-async"},
                json={
                    "type": "kling.multi-image-to-image",
                    "input": {"subject_image_list": [{"subject_image": "https://example.com/a.png"}] * 2},
                },
            )
            assert answer.status_code == 202, answer.text

        submits = []
        for _ in range(TASKS_A_ROUND):
            submits.append(asyncio.create_task(submit()))
            await asyncio.sleep(PAUSE_S)
        await asyncio.gather(*submits)

    async def arrived() -> bool:
        return len(world.latencies_ms) >= expected

    assert await world.until(arrived, 60), f"{len(world.latencies_ms)} of {expected}"
    return list(world.latencies_ms)


async def measure(folder: Path) -> str:
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    async with Timed(folder, random.Random(1)).running() as world, hostile_process() as urls:
        await world.start()
        async with world.client() as client:
            for number in range(HEALTHY):
                url = f"http://127.0.0.1:{world.world_port}/hook/{number}"
                assert (await client.post("/v1/endpoints", json={"config": {"url": url}})).status_code == 201
            hostile: list[str] = []
            for url in urls.values():
                answer = await client.post("/v1/endpoints", json={"config": {"url": url}, "enabled": False})
                hostile.append(answer.json()["id"])
            await load(world)  # warm
            before = world.memory_mib()
            for _ in range(ROUNDS):
                alone.append(await load(world))
                await _switch(client, hostile, on=True)
                beside.append(await load(world))
                await _switch(client, hostile, on=False)
            after = world.memory_mib()
    return _table(alone, beside, before, after)


@asynccontextmanager
async def hostile_process() -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOSTILE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert process.stdout is not None
    try:
        urls: dict[str, str] = json.loads(await process.stdout.readline())
        yield urls
    finally:
        process.kill()
        await process.wait()


async def _switch(client: Any, endpoints: Sequence[str], *, on: bool) -> None:
    for endpoint_id in endpoints:
        answer = await client.patch(f"/v1/endpoints/{endpoint_id}", json={"enabled": on})
        assert answer.status_code == 200, answer.text


def _table(alone: list[list[float]], beside: list[list[float]], before: float, after: float) -> str:
    def p95(values: list[float]) -> float:
        return quantiles(values, n=20)[-1]

    rows = [
        ("median", median(map(median, alone)), median(map(median, beside))),
        ("95th percentile", median(map(p95, alone)), median(map(p95, beside))),
    ]
    spread = sorted(median(b) / median(a) for a, b in zip(alone, beside, strict=True))
    return "\n".join(
        [
            (
                f"Klingel {version('klingel')}, Python {platform.python_version()}; {ROUNDS} rounds of each in turn, "
                f"{TASKS_A_ROUND} tasks a round, 3 events a task; `make bench-fairness`."
            ),
            "",
            "| latency, commit to healthy receiver | alone, ms | beside five hostile ones, ms | ratio |",
            "| --- | ---: | ---: | ---: |",
            *(f"| {name} | {a:.1f} | {b:.1f} | {b / a:.2f} |" for name, a, b in rows),
            "",
            (
                f"Ratios of the rounds' medians: {spread[0]:.2f} to {spread[-1]:.2f}. "
                f"Resident memory: {before:.0f} MiB before, {after:.0f} MiB after."
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="klingel-bench-") as folder:
        shown = asyncio.run(measure(Path(folder)))
    sys.stdout.write(shown + "\n")
    if given.write:
        keep("fairness", shown)


if __name__ == "__main__":
    main()
