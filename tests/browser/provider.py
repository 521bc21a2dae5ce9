"""The provider, as it calls back about a task that its sandbox says nothing of."""

import httpx

from service.domain.secrets import CallbackTokens
from tests.browser.conftest import SECRET
from tests.e2e.parties import Klingel
from tests.e2e.processes import PATIENCE_S


def call_back(klingel: Klingel, task_id: str, status: str, message: str = "") -> None:
    task = klingel.task(task_id)
    token = CallbackTokens([SECRET]).sign("sandbox", task_id)
    body = {
        "task_id": task["provider_task_id"],
        "task_status": status,
        "task_status_msg": message,
        "created_at": 1790000000000,
        "updated_at": 1790000060000,
    }
    answer = httpx.post(
        f"{klingel.url}/callbacks/sandbox/{task_id}/{token}", json=body, timeout=PATIENCE_S, trust_env=False
    )
    assert answer.status_code == 200, answer.text
