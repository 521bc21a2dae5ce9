"""One submit, one paid task: against a provider that accepts and then errs, cuts, hangs, or says nothing."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.e2e.chaos.world import World, everything

# Words for the sandbox; how often a create may be sent; and where the task ends.
FAULTS = {
    "sandbox:5000-after-accepting*1": (
        {1},
        "succeeded",
    ),  # the callbacks come first: nothing needs sending again
    "sandbox:5000-after-accepting*1 sandbox:never": ({2}, "submitted"),  # "exists" answers the second
    "sandbox:cut-after*1 sandbox:never": ({2}, "submitted"),
    "sandbox:hang*1 sandbox:never": ({2}, "submitted"),  # slower than the time-out
    "sandbox:504*1": ({2}, "succeeded"),  # unknown, so it waits for a callback first
    "sandbox:5000*1": ({2}, "succeeded"),
    "sandbox:1302*1": ({2}, "succeeded"),
    "sandbox:5001*1": ({2}, "succeeded"),
    "sandbox:arrears": ({1}, "rejected"),  # 429, and yet never again
    "sandbox:html": ({1}, "rejected"),
    "sandbox:redirect": ({1}, "rejected"),
    "sandbox:no-request-id": ({1}, "succeeded"),
}


def body(words: str) -> dict[str, Any]:
    pictures = [{"subject_image": f"https://example.com/{name}.png"} for name in "ab"]
    return {"type": "kling.multi-image-to-image", "input": {"prompt": words, "subject_image_list": pictures}}


async def test_a_create_whose_answer_is_lost_is_never_billed_twice(tmp_path: Path) -> None:
    async with World(tmp_path, Random(1)).running() as world:
        # Long enough for an answer, and for the callbacks after one that was lost, on a machine that stands still now and then.
        await world.start(KLINGEL_PROVIDER_TIMEOUT="8", KLINGEL_CONFIRM_AFTER="4", KLINGEL_SUBMIT_WAIT="0")
        async with world.client() as client:
            answers = await asyncio.gather(*(client.post("/v1/tasks", json=body(words)) for words in FAULTS))
            ids = {words: answer.json()["id"] for words, answer in zip(FAULTS, answers, strict=True)}

            async def settled() -> bool:
                tasks = {task["id"]: task["status"] for task in await everything(client, "/v1/tasks")}
                return all(tasks[ids[words]] == status for words, (_, status) in FAULTS.items())

            assert await world.until(settled, 120)
            tasks = {task["id"]: task for task in await everything(client, "/v1/tasks")}
        log = world.sandbox._journal.shown()
        for words, (sends, _) in FAULTS.items():
            name = tasks[ids[words]]["external_task_id"]
            creates = [call for call in log["calls"] if call["external_task_id"] == name]
            billed = [creation for creation in log["created"] if creation["external_task_id"] == name]
            assert (words, len(creates)) in {(words, number) for number in sends}
            assert len(billed) <= 1
        assert not any(call["kind"] == "query" for call in log["calls"])


async def test_tasks_beyond_the_slots_wait_and_each_end_lets_the_next_one_go(tmp_path: Path) -> None:
    """The safety net is a minute away: only released slots can bring them all through in time."""
    async with World(tmp_path, Random(1)).running() as world:
        await world.start(KLINGEL_SUBMIT_WAIT="0")
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{world.world_port}", timeout=60, trust_env=False
        ) as sandbox:
            assert (await sandbox.put("/settings", json={"slots": 2})).status_code == 200
        async with world.client() as client:
            for number in range(8):
                assert (await client.post("/v1/tasks", json=body(f"picture {number}"))).status_code == 202

            async def all_done() -> bool:
                return all(task["status"] == "succeeded" for task in await everything(client, "/v1/tasks"))

            assert await world.until(all_done, 40)
