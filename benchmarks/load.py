"""Callbacks as fast as they are taken, all the way to signed webhooks, beside a bare POST in the same minutes.

A real Klingel process gets tasks through its API; then 64 connections post their callbacks, three for each task. Every
callback is a durable transition with an event and a webhook. The baseline is a Starlette route under the same server that
reads its body and answers 200. Rounds alternate, so that the machine's noise falls on both. Load generator, receiver and
provider share the two cores with Klingel: the ratio says more than the rates.
"""

import argparse
import asyncio
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks.figures import keep
from tests.e2e.chaos.world import World, everything

ROUNDS = 3
TASKS_A_ROUND = 400
CONNECTIONS = 64
BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def take(request):
    await request.body()
    return PlainTextResponse("ok")

app = Starlette(routes=[Route("/", take, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False)
"""


async def post_all(requests: Sequence[tuple[str, bytes]]) -> float:
    """Requests a second, 64 at a time; each must be answered 200."""
    waiting = iter(requests)

    async def client(session: aiohttp.ClientSession) -> None:
        for url, body in waiting:
            async with session.post(url, data=body, headers={"content-type": "application/json"}) as answer:
                assert answer.status == 200, await answer.text()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(CONNECTIONS)))
        return len(requests) / (time.perf_counter() - started)


async def new_tasks(world: World, number: int) -> list[tuple[str, dict[str, Any]]]:
    """Callback URLs and tasks, submitted and accepted; the provider itself stays silent."""
    body = {
        "type": "kling.multi-image-to-image",
        "input": {
            "prompt": "sandbox:never",
            "subject_image_list": [{"subject_image": "https://example.com/a.png"}] * 2,
        },
    }
    async with world.client() as client:
        gate = asyncio.Semaphore(16)

        async def submit() -> dict[str, Any]:
            async with gate:
                answer = await client.post("/v1/tasks", json=body)
                assert answer.status_code == 201, answer.text
                task: dict[str, Any] = answer.json()
                return task

        tasks = await asyncio.gather(*(submit() for _ in range(number)))
    urls = {task.external_task_id: task.order.callback_url for task in world.sandbox._ledger._tasks.values()}
    return [(str(urls[task["external_task_id"]]), task) for task in tasks]


def callbacks(tasks: Sequence[tuple[str, dict[str, Any]]], word: str) -> list[tuple[str, bytes]]:
    return [
        (
            url,
            json.dumps(
                {
                    "task_id": task["provider_task_id"],
                    "task_status": word,
                    "task_info": {"external_task_id": task["external_task_id"]},
                    "task_result": {"images": [{"index": 0, "url": "https://example.com/out.png"}]},
                }
            ).encode(),
        )
        for url, task in tasks
    ]


async def measure(folder: Path) -> str:
    taken: list[float] = []
    delivered: list[float] = []
    bare: list[float] = []
    async with World(folder, random.Random(1)).running() as world:
        await world.start(KLINGEL_LOG="json")
        async with world.client() as client:
            url = f"http://127.0.0.1:{world.world_port}/hook/0"
            await client.post("/v1/endpoints", json={"config": {"url": url}})
        plain = subprocess.Popen([sys.executable, "-c", BARE, str(world.port + 1)])  # noqa: ASYNC220
        try:
            for number in range(ROUNDS + 1):
                tasks = await new_tasks(world, TASKS_A_ROUND)
                before = len(world.webhooks["0"])
                started = time.perf_counter()
                rates = [
                    await post_all(callbacks(tasks, word)) for word in ("processing", "succeed", "succeed")
                ]

                async def arrived(expected: int = before + 2 * TASKS_A_ROUND) -> bool:
                    return len(world.webhooks["0"]) >= expected

                assert await world.until(arrived, 60)
                took = time.perf_counter() - started
                plain_body = [
                    (f"http://127.0.0.1:{world.port + 1}/", body) for _, body in callbacks(tasks, "succeed")
                ]
                plain_rate = await post_all(list(chain(plain_body, plain_body, plain_body)))
                if number:  # the first round warms up
                    taken.append(median(rates[:2]))
                    delivered.append(2 * TASKS_A_ROUND / took)
                    bare.append(plain_rate)
        finally:
            plain.kill()
            plain.wait()
        async with world.client() as client:
            stored = await everything(client, "/v1/tasks")
        assert all(task["status"] == "succeeded" for task in stored)
        assert set(world.webhooks["0"].values()) == {1}
    rows = [
        ("callbacks taken: durable, each a transition with event and delivery", taken),
        ("webhooks signed, sent, answered, recorded while callbacks come in", delivered),
    ]
    return "\n".join(
        [
            (
                f"Klingel {version('klingel')}, Python {platform.python_version()}, {CONNECTIONS} connections, {ROUNDS} rounds "
                f"of {TASKS_A_ROUND} tasks; all parties on the same two cores; `make bench-load`."
            ),
            "",
            "| what | a second, median | ratio to a bare POST | spread of the ratio |",
            "| --- | ---: | ---: | ---: |",
            *(_row(name, values, bare) for name, values in rows),
            "",
            f"{len(stored)} tasks, all succeeded; every webhook came once.",
        ]
    )


def _row(name: str, values: Sequence[float], bare: Sequence[float]) -> str:
    ratios = sorted(value / plain for value, plain in zip(values, bare, strict=True))
    return f"| {name} | {median(values):.0f} | {median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="klingel-bench-") as folder:
        shown = asyncio.run(measure(Path(folder)))
    sys.stdout.write(shown + "\n")
    if given.write:
        keep("load", shown)


if __name__ == "__main__":
    main()
