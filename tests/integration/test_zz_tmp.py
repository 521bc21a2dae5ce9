import asyncio, pytest
from collections import defaultdict
from tests.integration.klingel import *
@pytest.mark.parametrize("n", range(4))
async def test_x(klingel, n):
    gate = klingel.receiver.gate = asyncio.Event()
    await klingel.endpoint()
    N=300
    tasks = await asyncio.gather(*(klingel.submit() for _ in range(N)))
    num={c["external_task_id"]: i for i,c in enumerate(klingel.kling.creates)}
    gate.set()
    await asyncio.gather(*(klingel.call_back(succeed(t), number=num[t["id"]]) for t in reversed(tasks)))
    r = await klingel.receiver.until(2*N)
    seen=defaultdict(list)
    for x in r: seen[x.event["data"]["task"]["id"]].append(x.event["sequence"])
    print("BAD", sum(v!=[1,2] for v in seen.values()))
