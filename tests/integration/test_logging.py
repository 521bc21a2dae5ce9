"""The log: one wide line for each request and each attempt, and nothing in it that must not be read."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.observability.logs import configure_logs, flush_logs
from service.settings import LogFormat
from tests.integration.klingel import (
    ADMIN_KEY,
    IMAGE_INPUT,
    Klingel,
    Receiver,
    base64_png,
    callback,
    refused,
    running_klingel,
    succeed,
)

Lines = Callable[..., list[dict[str, Any]]]
WEBHOOK_SECRET = "whsec_c2VjcmV0LW9mLXRoZS1wcm92aWRlci0zMi1ieXRlcw=="
PROMPT = "a prompt that is nobody's business"


@pytest.fixture(params=[LogFormat.JSON, LogFormat.CONSOLE])
def text(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """All that was logged since the last look, in either format."""
    configure_logs(request.param)

    def since() -> str:
        flush_logs()
        return capsys.readouterr().err

    yield since
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """The lines of these names that were logged since the last look."""
    configure_logs(LogFormat.JSON)

    def since(*names: str) -> list[dict[str, Any]]:
        flush_logs()
        logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return [line for line in logged if not names or line["event"] in names]

    yield since
    structlog.reset_defaults()


# One line for each


async def test_a_request_is_one_line_under_the_id_that_its_answer_carries(
    lines: Lines, klingel: Klingel
) -> None:
    """docs/style, logs: what a person who is asked for help needs, bound once at the edge."""
    response = await klingel.http.get("/v1/tasks", params={"limit": 1})
    [line] = lines("request.answered")
    assert line.pop("duration_ms") >= 0
    assert line.pop("timestamp").endswith("Z")
    [key] = klingel.rows("select id, account_id from api_keys")
    assert line == {
        "event": "request.answered",
        "level": "info",
        "request_id": response.headers["x-request-id"],
        "method": "GET",
        "path": "/v1/tasks",
        "status": 200,
        "sent_bytes": len(response.content),
        "account_id": key["account_id"],
        "key_id": key["id"],
    }


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123.DEF:4", True), ("two words", False), ("x" * 129, False), ("a\u00fc", False)]
)
async def test_a_request_id_of_the_callers_is_kept_where_it_can_be(
    lines: Lines, klingel: Klingel, given: str, kept: bool
) -> None:
    """So that one id leads through both logs; one that could forge a line is replaced."""
    headers = [(b"x-request-id", given.encode("latin-1"))]
    response = await klingel.http.get("/healthz", headers=headers)
    [line] = lines("request.answered")
    assert response.headers["x-request-id"] == line["request_id"]
    assert (line["request_id"] == given) == kept


async def test_an_attempt_is_one_line_that_answers_the_support_question(
    lines: Lines, klingel: Klingel
) -> None:
    """docs/style, from Outpost: which event went where, for the how manyth time, how it ended, and what comes next."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(503, 200)
    task = await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=6)
    await klingel.until_deliveries("delivered")
    first, second = lines("delivery.attempted")
    assert first.pop("duration_ms") >= 0
    assert first.pop("next_attempt_at").startswith("2026-11-22")
    del first["timestamp"]
    assert first == {
        "event": "delivery.attempted",
        "level": "info",
        "delivery_id": delivery["id"],
        "event_id": delivery["event_id"],
        "event_type": "task.submitted",
        "task_id": task["id"],
        "endpoint_id": endpoint["id"],
        "kind": "webhook",
        "attempt": 1,
        "outcome": "retry",
        "status_code": 503,
        "reason": "answered",
    }
    assert (second["attempt"], second["outcome"], second["status_code"]) == (2, "delivered", 200)


async def test_a_line_of_a_request_is_not_bound_to_another_request(lines: Lines, klingel: Klingel) -> None:
    """Many at once: each has its own id, task and account."""
    task = await klingel.submit()
    lines()
    async with klingel.client(None) as nobody:
        await asyncio.gather(
            *(klingel.call_back(callback(task, "processing")) for _ in range(5)),
            *(nobody.get("/healthz") for _ in range(5)),
        )
    answered = lines("request.answered")
    assert len({line["request_id"] for line in answered}) == 10
    for line in answered:
        assert (line.get("task_id") == task["id"]) == line["path"].startswith("/callbacks/")
        assert "account_id" not in line


async def test_what_must_be_looked_at_is_a_warning(lines: Lines, klingel: Klingel) -> None:
    """docs/style, logs: `warning` = we will cope, but look; and nothing here is an error."""
    endpoint = await klingel.endpoint(types=["task.succeeded"])
    klingel.receiver.answers(410)
    task = await klingel.submit()
    for body in (succeed(task), callback(task, "failed"), succeed({**task, "external_task_id": "x"})):
        await klingel.call_back(body)
    await klingel.until_deliveries("dead", endpoint_id=endpoint["id"])
    late = await klingel.submit(deadline_s=1)
    klingel.clock.advance(seconds=1)

    async def overdue() -> bool:
        return (await klingel.task(late["id"]))["overdue_at"] is not None

    await klingel.until(overdue)
    logged = lines()
    assert {line["event"] for line in logged if line["level"] == "warning"} == {
        "callback.set_aside",
        "endpoint.disabled",
        "task.overdue",
    }
    assert {line["level"] for line in logged} == {"info", "warning"}


# When Klingel itself is wrong


async def test_a_mistake_of_ours_is_a_500_whose_id_leads_to_the_traceback(
    lines: Lines, klingel: Klingel
) -> None:
    """The client is told nothing of it, but the id under which it is logged."""
    task = await klingel.submit()
    await klingel.tamper("update tasks set metadata = '{broken'")
    response = await klingel.http.get(f"/v1/tasks/{task['id']}")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    [line] = lines("request.broke")
    assert line["level"] == "error"
    assert line["request_id"] == response.headers["x-request-id"]
    assert "ValueError" in json.dumps(line["exception"])


async def test_a_client_that_hangs_up_is_no_mistake_of_ours(lines: Lines, klingel: Klingel) -> None:
    """`error` = someone must act, and nobody must: not in the middle of its body, nor of a stream."""
    messages = iter(
        [{"type": "http.request", "body": b'{"ta', "more_body": True}, {"type": "http.disconnect"}]
    )
    sent: list[Any] = []
    await klingel.submit()
    lines()

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": klingel.callback_path(),
        "raw_path": klingel.callback_path().encode(),
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("klingel.test", 80),
    }
    await klingel.app(scope, receive, send)
    assert [line["event"] for line in lines() if line["level"] == "error"] == []
    assert klingel.rows("select * from callbacks") == []


# What is not in it


async def test_a_whole_story_leaves_no_secret_and_no_prompt_in_the_log(
    text: Callable[[], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 6; docs/style: secrets, signatures and payloads are never logged, whatever goes wrong."""
    caplog.set_level(logging.WARNING)
    secrets: list[str] = [
        ADMIN_KEY,
        "provider-key",
        "a-secret-for-tests-0123456789",
        PROMPT,
        WEBHOOK_SECRET[6:],
    ]
    picture = base64_png(3)
    secrets.append(picture[:60])
    async with (
        running_klingel(tmp_path, provider_webhook_secret="") as klingel,
        Receiver().running() as second,
    ):
        endpoint = await klingel.endpoint(
            config={
                "url": klingel.receiver.url,
                "headers": {"x-token": "t0p-s3cret"},
                "basic_auth": {"username": "klingel", "password": "p4ssw0rd-s3cret"},
            },
            types=["*"],
        )
        secrets += ["s3cret", endpoint["secret"][6:]]
        key = (await klingel.http.post("/v1/keys", json={"name": "a key"})).json()["key"]
        secrets.append(key)
        given = {**IMAGE_INPUT, "prompt": PROMPT, "style_image": picture}
        task = await klingel.submit(
            input=given, callback_url=second.url, headers={"idempotency-key": "an-idempotency-key"}
        )
        secrets += [one["secret"][6:] for one in task["endpoints"]]
        klingel.receiver.answers(500, 503, 302)
        for body in (callback(task, "processing"), succeed(task), callback(task, "failed")):
            await klingel.call_back(body)
        path = klingel.callback_path()
        secrets.append(path.rpartition("/")[2])
        async with klingel.client("a-wrong-key-0123456789") as wrong:
            await wrong.get("/v1/tasks")
            await wrong.post(path[:-1], json={})
            await wrong.post(f"{path}/more", json={})
            await wrong.post(f"/prefix{path}", json={})
            await wrong.get(path)
            await wrong.post(path, content=b"x" * (1024 * 1024 + 1))
            await wrong.post(path, content=b'{"task_status": "' + PROMPT.encode())
        secrets.append("a-wrong-key-0123456789")
        # A provider that repeats what it was sent, an answer that cannot be read, and a fault of our own.
        url = klingel.kling.creates[0]["callback_url"]
        echo = refused(400, 1201, f"callback_url {url} with Bearer provider-key is not allowed")
        for answer in (echo, httpx.ReadTimeout(url), RuntimeError("broke"), httpx.Response(200, text=url)):
            klingel.kling.answers(answer)
            failing = await klingel.submit_async(input=given)
            await klingel.until_row(failing["id"], sends=1, sending_since=None)
            secrets.append(klingel.callback_path().rpartition("/")[2])
        await klingel.http.post("/v1/tasks", json={"type": "x", "input": {"prompt": PROMPT}})
        await klingel.http.post("/v1/tasks", content=PROMPT.encode())
        await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
        await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
        klingel.clock.advance(minutes=1)
        received = await klingel.receiver.until(8)
        secrets += [part[3:] for one in received for part in one.headers["webhook-signature"].split()]
        await klingel.tamper("update tasks set metadata = '{broken'")
        broken = await klingel.http.get(f"/v1/tasks/{task['id']}")
        assert broken.status_code == 500
        assert (await klingel.call_back(succeed(task), number=0)).status_code == 500
    logged = text()
    assert "request.answered" in logged
    assert "submission.provider_broke" in logged
    assert "request.broke" in logged
    everything = logged + caplog.text
    for secret in secrets:
        assert len(secret) > 5
        assert secret not in everything, everything[everything.index(secret) - 300 :][:400]


async def test_a_forged_callback_is_logged_without_its_signature(
    text: Callable[[], str], tmp_path: Path
) -> None:
    """What is set aside is evidence in the database; the log says only that it was."""
    async with running_klingel(tmp_path, provider_webhook_secret=WEBHOOK_SECRET) as klingel:
        task = await klingel.submit()
        headers = {
            "webhook-id": "1",
            "webhook-timestamp": str(int(klingel.clock().timestamp())),
            "webhook-signature": "v1,bm90LW91cnM=",
        }
        assert (await klingel.call_back(succeed(task))).status_code == 404
        async with klingel.client(None) as nobody:
            assert (await nobody.post(klingel.callback_path(), json={}, headers=headers)).status_code == 404
        token = klingel.callback_path().rpartition("/")[2]
    logged = text()
    assert "callback.set_aside" in logged
    for secret in (WEBHOOK_SECRET[6:], "bm90LW91cnM=", token):
        assert secret not in logged


@pytest.mark.parametrize("format", [None, *LogFormat])
def test_who_closes_standard_error_gets_no_log_and_a_running_klingel(
    monkeypatch: pytest.MonkeyPatch, format: LogFormat | None
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure_logs(format)
    structlog.get_logger().warning("nobody.reads_this")
    flush_logs()
    sys.stderr.close()
    structlog.reset_defaults()
