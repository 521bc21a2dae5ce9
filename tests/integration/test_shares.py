"""What one account takes of what is everybody's: nobody else notices."""

import asyncio
from contextlib import AsyncExitStack

from storage.sqlite import SEARCHERS
from tests.integration.klingel import Klingel, callback

MANY_TASKS = """
insert into tasks (
    id, account_id, type, provider, status, input, external_task_id, metadata, created_at, updated_at, deadline_at
)
with recursive n (i) as (select 1 union all select i + 1 from n where i < {number})
select printf('task_%032x', i), (select id from accounts), 't', 'p', 'queued', '{{}}', i, '{{"a": "b"}}', 0, 0, 0
from n
"""


# Lists


async def test_a_filter_over_too_much_is_refused_in_a_moment(klingel: Klingel) -> None:
    """It took as long as it took, and so did everybody else's sign-in."""
    await klingel.tamper(MANY_TASKS.format(number=100_000))
    answer = await klingel.http.get("/v1/tasks", params={"metadata.a": "nowhere"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/search-too-wide")
    narrow = await klingel.http.get("/v1/tasks", params={"metadata.a": "b", "external_task_id": "77"})
    assert [task["external_task_id"] for task in narrow.json()["items"]] == ["77"]


async def test_lists_keep_nobody_from_signing_in(klingel: Klingel) -> None:
    task = await klingel.submit()
    async with AsyncExitStack() as lists, asyncio.timeout(10):
        for number in range(SEARCHERS):
            await lists.enter_async_context(klingel.state["database"].searching(f"acc_{number}"))
        listing = asyncio.create_task(klingel.http.get("/v1/tasks"))
        assert (await klingel.task(task["id"]))["status"] == "submitted"
        assert (await klingel.call_back(callback(task, "processing"))).status_code == 200
        assert not listing.done()
    assert (await listing).status_code == 200
