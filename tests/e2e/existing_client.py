"""Somebody's program for CometAPI: creates a task, queries it until it ends, prints what came of it. Knows no Klingel.

In the environment, as such programs have it: `COMETAPI_BASE_URL`, `COMETAPI_KEY`; `POLL_S`, how long it waits between queries.
"""

import json
import os
import sys
import time

import httpx

path, body = sys.argv[1:]
client = httpx.Client(
    base_url=os.environ["COMETAPI_BASE_URL"],
    headers={"Authorization": f"Bearer {os.environ['COMETAPI_KEY']}"},
    trust_env=False,
)


def ask(method: str, url: str, **more: object) -> dict:
    response = client.request(method, url, **more)
    answer = response.json()
    if answer["code"] != 0:
        sys.exit(f"{response.status_code} {answer['code']} {answer['message']}")
    return answer["data"]


task = ask("POST", path, json=json.loads(body))
seen = [task["task_status"]]
while task["task_status"] not in {"succeed", "failed"}:
    time.sleep(float(os.environ["POLL_S"]))
    task = ask("GET", f"{path}/{task['task_id']}")
    seen.append(task["task_status"])
by_external_id = ask("GET", f"{path}/{task['task_info']['external_task_id']}")
newest = ask("GET", f"{path}?pageNum=1&pageSize=1")
print(json.dumps({"seen": seen, "task": task, "by_external_id": by_external_id, "newest": newest[0]}))  # noqa: T201 - its output
