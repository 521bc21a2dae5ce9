"""What outgoing webhooks are compared with: aiohttp's client, sending bytes that are ready. `… FILE NUMBER AT_A_TIME`.

The file has one request a line, as JSON: its URL, headers and body. They are sent in turn. Prints deliveries a second, and
microseconds of processor time for each.
"""

import asyncio
import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import aiohttp
import uvloop


async def main(path: Path, number: int, at_a_time: int) -> None:
    requests = map(json.loads, path.read_text().splitlines())  # noqa: ASYNC240 - nothing else goes on yet
    ready = [(one["url"], one["headers"], one["body"].encode()) for one in requests]
    waiting = iter(islice(cycle(ready), number))

    async def work(session: aiohttp.ClientSession) -> None:
        for url, headers, body in waiting:
            async with session.post(url, headers=headers, data=body) as answer:
                await answer.read()
                assert answer.status == 200

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began, ran = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work(session) for _ in range(at_a_time)))
        took, each = time.perf_counter() - began, (time.process_time() - ran) / number
    print(json.dumps({"a_second": number / took, "each_us": each * 1e6}))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
