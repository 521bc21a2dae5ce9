"""Push, from a provider's callback to a phone or a browser."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.push_services import Browser, FakeNtfy, FakePushService, Service
from tests.integration.klingel import Klingel, ManualClock, pointers, running_klingel, succeed

MASK = "••••"


@pytest.fixture
async def ntfy(anyio_backend: str) -> AsyncIterator[FakeNtfy]:
    service = FakeNtfy(authorization="Bearer tk_secret-token")
    async with service.running():
        yield service


@pytest.fixture
async def push(klingel: Klingel) -> AsyncIterator[FakePushService]:
    """What a page does: ask for the key, subscribe under it."""
    service = FakePushService(Browser(await public_key(klingel)))
    async with service.running():
        yield service


async def public_key(klingel: Klingel) -> str:
    response = await klingel.http.get("/v1/web-push/key")
    assert response.status_code == 200, response.text
    key: str = response.json()["public_key"]
    return key


async def subscribe(klingel: Klingel, push: FakePushService, **body: Any) -> dict[str, Any]:
    return await klingel.endpoint(kind="web_push", config={"subscription": push.subscription}, **body)


async def finished(klingel: Klingel, **submit: Any) -> dict[str, Any]:
    task = await klingel.submit(**submit)
    assert (await klingel.call_back(succeed(task))).status_code == 200
    return task


async def test_a_phone_rings_when_a_task_succeeds(klingel: Klingel, ntfy: FakeNtfy) -> None:
    """Its token is in no answer; the delivery is followed like any other."""
    config = {"server": ntfy.url, "topic": "shop", "token": "tk_secret-token"}
    endpoint = await klingel.endpoint(kind="ntfy", config=config, types=["task.succeeded"])
    assert endpoint["config"] == config | {"token": MASK}
    task = await finished(klingel, external_task_id="order-1042")
    [delivery] = await klingel.until_deliveries("delivered")
    [told] = ntfy.published
    assert (told["title"], told["topic"]) == ("Picture ready", "shop")
    assert told["click"] == (await klingel.task(task["id"]))["outputs"][0]["url"]
    assert "order-1042" in told["message"]
    [attempt] = await klingel.attempts(delivery["id"])
    assert (attempt["outcome"], attempt["status_code"]) == ("delivered", 200)
    for path in ("/v1/endpoints", f"/v1/endpoints/{endpoint['id']}", f"/v1/deliveries/{delivery['id']}"):
        assert "secret-token" not in (await klingel.http.get(path)).text
    assert not klingel.rows("select * from endpoints where credentials like '%secret-token%'")


async def test_a_phone_that_is_told_too_much_rings_later(klingel: Klingel, ntfy: FakeNtfy) -> None:
    config = {"server": ntfy.url, "topic": "shop", "token": "tk_secret-token"}
    await klingel.endpoint(kind="ntfy", config=config, types=["task.succeeded"])
    ntfy.answers(429, '{"code": 42901}', retry_after="60")
    await finished(klingel)
    [delivery] = await klingel.until_deliveries("pending")
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.advance(seconds=64)
    await klingel.until_deliveries("delivered")
    assert [one["outcome"] for one in await klingel.attempts(delivery["id"])] == ["retry", "delivered"]


async def test_a_wrong_token_is_a_dead_letter_that_can_be_replayed(klingel: Klingel, ntfy: FakeNtfy) -> None:
    config = {"server": ntfy.url, "topic": "shop", "token": "tk_wrong"}
    endpoint = await klingel.endpoint(kind="ntfy", config=config, types=["task.succeeded"])
    await finished(klingel)
    [dead] = await klingel.until_deliveries("dead")
    assert dead["reason"] == "refused for good"
    mended = await klingel.http.patch(
        f"/v1/endpoints/{endpoint['id']}", json={"config": {"token": "tk_secret-token"}}
    )
    assert mended.status_code == 200
    assert (await klingel.http.post(f"/v1/deliveries/{dead['id']}/replay")).status_code == 202
    await klingel.until_deliveries("dead", "delivered")
    assert len(ntfy.published) == 1


async def test_a_task_brings_its_own_phone(klingel: Klingel, ntfy: FakeNtfy) -> None:
    config = {"server": ntfy.url, "topic": "mine", "token": "tk_secret-token"}
    await finished(klingel, endpoints=[{"kind": "ntfy", "config": config, "types": ["task.succeeded"]}])
    await finished(klingel)
    await klingel.until_deliveries("delivered")
    assert [told["topic"] for told in ntfy.published] == ["mine"]


async def test_a_browser_rings_when_a_task_succeeds(klingel: Klingel, push: FakePushService) -> None:
    """The push service verifies who sends and cannot read what; the browser can."""
    endpoint = await subscribe(klingel, push, types=["task.succeeded"])
    task = await finished(klingel)
    await klingel.until_deliveries("delivered")
    [told] = push.pushed
    assert (told["title"], told["tag"], told["type"]) == ("Picture ready", task["id"], "task.succeeded")
    assert told["image"] == told["url"] == (await klingel.task(task["id"]))["outputs"][0]["url"]
    assert push.claims[0]["sub"] == "https://klingel.example.com"
    shown = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).text
    for secret in (push.PATH, *push.subscription["keys"].values()):
        assert secret not in shown


@pytest.mark.parametrize("status", [404, 410])
async def test_a_browser_that_unsubscribed_is_asked_no_more(
    klingel: Klingel, push: FakePushService, status: int
) -> None:
    endpoint = await subscribe(klingel, push, types=["task.succeeded"])
    push.answers(status)
    await finished(klingel)
    await klingel.until_deliveries("dead")
    shown = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert shown["enabled"] is False
    assert shown["disabled_reason"] == (
        "it answered 410 Gone" if status == 410 else "the subscription has ended"
    )
    await finished(klingel)
    assert len(push.requests) == 1


async def test_only_who_has_a_key_is_shown_the_push_key(klingel: Klingel) -> None:
    async with klingel.client(None) as nobody:
        assert (await nobody.get("/v1/web-push/key")).status_code == 401


async def test_a_browser_still_rings_after_klingels_secret_was_rotated(tmp_path: Path) -> None:
    """It is bound to the key that it subscribed under; other browsers subscribe under the new one."""
    clock, first, second = ManualClock(), "the-first-secret-0123456789", "the-second-secret-0123456789"
    async with running_klingel(tmp_path, clock=clock, secret=first) as klingel:
        push = FakePushService(Browser(await public_key(klingel)))
    async with push.running():
        async with running_klingel(tmp_path, clock=clock, secret=first) as klingel:
            assert await public_key(klingel) == push.browser.application_server_key
            await subscribe(klingel, push, types=["task.succeeded"])
        async with running_klingel(tmp_path, clock=clock, secret=f"{second},{first}") as klingel:
            assert await public_key(klingel) != push.browser.application_server_key
            await finished(klingel)
            await klingel.until_deliveries("delivered")
    assert len(push.pushed) == 1


async def test_a_subscription_that_nobody_can_open_any_more_can_be_given_anew(
    klingel: Klingel, push: FakePushService
) -> None:
    endpoint = await subscribe(klingel, push, types=["task.succeeded"])
    await klingel.tamper("update endpoints set credentials = 'sealed under a secret that is lost'")
    config = {"subscription": push.subscription}
    response = await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"config": config})
    assert response.status_code == 200, response.text
    await finished(klingel)
    await klingel.until_deliveries("delivered")
    assert len(push.pushed) == 1


async def test_what_is_no_push_endpoint_is_refused_with_all_its_faults(klingel: Klingel) -> None:
    body = {"kind": "web_push", "config": {"subscription": {"endpoint": "x", "keys": {}}, "ttl_s": "1"}}
    assert set(pointers(await klingel.http.post("/v1/endpoints", json=body))) == {
        "#/config/subscription/endpoint",
        "#/config/subscription/keys/p256dh",
        "#/config/subscription/keys/auth",
        "#/config/ttl_s",
    }


class Accepting(Service):
    def judge(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_long_tail_rings_by_apprise(klingel: Klingel) -> None:
    """Until Apprise is loaded, once after each start, it is said so; nobody else waits."""
    service = Accepting()
    async with service.running():
        config = {"urls": [service.url.replace("http", "json").replace("//", "//user:pass-word@")]}
        body = {"kind": "apprise", "config": config, "types": ["task.succeeded"]}
        response = await klingel.http.post("/v1/endpoints", json=body)
        if response.status_code == 503:
            assert response.headers["retry-after"]
            await klingel.state["sinks"]["apprise"].load()
            response = await klingel.http.post("/v1/endpoints", json=body)
        assert response.status_code == 201, response.text
        assert response.json()["config"] == {"urls": [f"json://{MASK}"]}
        await finished(klingel)
        [delivery] = await klingel.until_deliveries("delivered")
        assert b"Picture ready" in service.requests[0][1]
        told = (await klingel.http.get(f"/v1/deliveries/{delivery['id']}")).text
        assert "pass-word" not in told + response.text
