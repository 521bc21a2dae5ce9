"""`/v1/endpoints`: where events go, what is told of them, and when they are switched off."""

import asyncio
import base64
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook

from service.domain.endpoints import ENDPOINTS_OF_AN_ACCOUNT
from service.domain.secrets import Vault
from service.lane import BREAKS_AFTER, CONCURRENCY
from storage.columns import moment
from tests.integration.klingel import (
    IMAGE_INPUT,
    Klingel,
    Received,
    Receiver,
    Turnstile,
    callback,
    pointers,
    refused,
    running_klingel,
    succeed,
)
from tests.servers import running_app

MASK = "••••"


def signed_by(klingel: Klingel, received: Received, secret: str) -> bool:
    """The library insists on the present time, and ours stands still: only the signature is compared."""
    sent_at = klingel.clock().fromtimestamp(
        int(received.headers["webhook-timestamp"]), klingel.clock().tzinfo
    )
    expected = Webhook(secret).sign(received.headers["webhook-id"], sent_at, received.body.decode())
    return expected in received.headers["webhook-signature"].split()


def verified_by(received: Received, public_key: str) -> bool:
    """Whether one of its `v1a` signatures is."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    for version, _, signature in (one.partition(",") for one in headers["webhook-signature"].split()):
        if version == "v1a":
            with suppress(InvalidSignature):
                key.verify(base64.b64decode(signature), signed)
                return True
    return False


async def show(klingel: Klingel, endpoint_id: str) -> dict[str, Any]:
    response = await klingel.http.get(f"/v1/endpoints/{endpoint_id}")
    assert response.status_code == 200, response.text
    endpoint: dict[str, Any] = response.json()
    return endpoint


async def patch(klingel: Klingel, endpoint_id: str, **changes: Any) -> dict[str, Any]:
    response = await klingel.http.patch(f"/v1/endpoints/{endpoint_id}", json=changes)
    assert response.status_code == 200, response.text
    endpoint: dict[str, Any] = response.json()
    return endpoint


async def send_test(klingel: Klingel, endpoint_id: str) -> dict[str, Any]:
    response = await klingel.http.post(f"/v1/endpoints/{endpoint_id}/test")
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


# Create, list, show, change, delete


async def test_a_new_endpoint_shows_its_secret_once(klingel: Klingel) -> None:
    """`whsec_` and 32 random bytes, in the answer to the create and nowhere after."""
    response = await klingel.http.post("/v1/endpoints", json={"config": {"url": klingel.receiver.url}})
    assert response.status_code == 201
    endpoint = response.json()
    assert response.headers["location"] == f"/v1/endpoints/{endpoint['id']}"
    secret = endpoint.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert endpoint == {
        "id": endpoint["id"],
        "task_id": None,
        "kind": "webhook",
        "config": {"url": klingel.receiver.url, "format": "standard"},
        "types": ["task.*"],
        "filter": None,
        "description": None,
        "rate_per_minute": None,
        "enabled": True,
        "disabled_reason": None,
        "failures": 0,
        "failing_since": None,
        "created_at": "2026-11-22T12:00:00.000Z",
        "updated_at": "2026-11-22T12:00:00.000Z",
    }
    assert await show(klingel, endpoint["id"]) == endpoint
    listed = await klingel.http.get("/v1/endpoints")
    assert listed.json() == {"items": [endpoint], "next_cursor": None}
    assert secret not in listed.text


async def test_endpoints_are_listed_page_by_page_newest_first(klingel: Klingel) -> None:
    """`limit` and `cursor`, `items` and `next_cursor`."""
    made = [(await klingel.endpoint(description=str(n)))["id"] for n in range(5)]
    listed: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await klingel.http.get("/v1/endpoints", params=query)).json()
        listed += [endpoint["id"] for endpoint in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == made[::-1]


async def test_a_change_names_only_what_it_changes(klingel: Klingel) -> None:
    """RFC 5789; `filter`, `description` and `rate_per_minute` may be taken away with null."""
    endpoint = await klingel.endpoint(types=["*"], filter="data.task", description="mine", rate_per_minute=20)
    del endpoint["secret"]
    klingel.clock.advance(seconds=1)
    changed = await patch(klingel, endpoint["id"], description=None)
    assert changed == endpoint | {"description": None, "updated_at": "2026-11-22T12:00:01.000Z"}
    changed = await patch(
        klingel,
        endpoint["id"],
        filter=None,
        rate_per_minute=None,
        types=["task.failed"],
        config={"url": klingel.receiver.url + "/b"},
    )
    assert (changed["filter"], changed["rate_per_minute"], changed["types"]) == (None, None, ["task.failed"])
    assert changed["config"] == {"url": klingel.receiver.url + "/b", "format": "standard"}
    assert await show(klingel, endpoint["id"]) == changed


async def test_a_deleted_endpoint_is_gone_and_gets_nothing_more(klingel: Klingel) -> None:
    """What still waits for it becomes dead letters: nothing vanishes silently (promise 5)."""
    endpoint = await klingel.endpoint()
    klingel.receiver.always = 500
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    path = f"/v1/endpoints/{endpoint['id']}"
    assert (await klingel.http.delete(path)).status_code == 204
    for again in (klingel.http.get(path), klingel.http.delete(path), klingel.http.patch(path, json={})):
        assert (await again).status_code == 404
    [delivery] = await klingel.deliveries()
    assert (delivery["status"], delivery["reason"]) == ("dead", "the endpoint was deleted")
    replay = await klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay")
    assert (replay.status_code, replay.json()["type"]) == (409, "/problems/endpoint-disabled")
    klingel.clock.advance(days=1)
    await klingel.submit()
    assert len(await klingel.deliveries()) == 1
    assert len(klingel.receiver.received) == 1


@pytest.mark.parametrize("whose", ["the account's", "the task's"])
async def test_for_an_endpoint_that_is_deleted_no_delivery_is_made(klingel: Klingel, whose: str) -> None:
    """Not even one that would be a dead letter at once."""
    wanted: dict[str, Any] = {
        "config": {"url": klingel.receiver.url},
        "types": ["task.succeeded", "budget.*"],
    }
    if whose == "the account's":
        endpoint, task = await klingel.endpoint(**wanted), await klingel.submit()
    else:
        task = await klingel.submit(endpoints=[wanted])
        [endpoint] = task["endpoints"]
    assert (await klingel.http.delete(f"/v1/endpoints/{endpoint['id']}")).status_code == 204
    await klingel.call_back(succeed(task))
    assert (await klingel.http.put("/v1/budgets", json={"limit": "0"})).status_code == 200
    refused = await klingel.http.post(
        "/v1/tasks", json={"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)}
    )
    assert refused.status_code == 402
    happened = (await klingel.http.get("/v1/events")).json()["items"]
    assert [event["type"] for event in happened[:2]] == ["budget.exceeded", "task.succeeded"]
    assert await klingel.deliveries() == []


# Faults


async def test_all_faults_of_an_endpoint_are_told_at_once(klingel: Klingel) -> None:
    """The body's own, and those of its kind's configuration."""
    body = {
        "kind": "webhook",
        "config": {
            "url": "http://user:password@example.com/",
            "headers": {
                "Host": "example.com",
                "Webhook-Signature": "v1,mine",
                "x y": "1",
                "x-line": "a\r\nb",
                "x-number": 7,
            },
            "basic_auth": {"username": "a:b"},
            "format": "yaml",
            "colour": "red",
        },
        "types": ["task.*", "task.cancelled", 7],
        "filter": "data.task[?",
        "description": "x" * 501,
        "rate_per_minute": 0,
        "enabled": "yes",
        "secret": "hunter2",
        "priority": 1,
    }
    response = await klingel.http.post("/v1/endpoints", json=body)
    assert response.status_code == 422
    assert sorted(pointers(response)) == sorted(
        [
            "#/config/url",
            "#/config/headers/Host",
            "#/config/headers/Webhook-Signature",
            "#/config/headers/x%20y",
            "#/config/headers/x-line",
            "#/config/headers/x-number",
            "#/config/basic_auth/username",
            "#/config/basic_auth/password",
            "#/config/format",
            "#/config/colour",
            "#/types/1",
            "#/types/2",
            "#/filter",
            "#/description",
            "#/rate_per_minute",
            "#/enabled",
            "#/secret",
            "#/priority",
        ]
    )
    assert klingel.rows("select * from endpoints") == []
    endpoint = await klingel.endpoint()
    del body["kind"], body["secret"]
    response = await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json=body)
    assert response.status_code == 422
    told = {"#/config/url", "#/types/1", "#/filter", "#/rate_per_minute", "#/enabled", "#/priority"}
    assert told <= set(pointers(response))


@pytest.mark.parametrize(
    ("rate", "why"),
    [
        (0, "must be at least 1"),
        (-20, "must be at least 1"),
        (60_001, "must be at most 60000"),
        (10**30, "must be at most 60000"),
        (0.5, "must be a whole number"),
        ("20", "must be a whole number"),
        (True, "must be a whole number"),
    ],
)
async def test_a_rate_is_a_whole_number_of_attempts_a_minute(
    klingel: Klingel, rate: object, why: str
) -> None:
    endpoint = await klingel.endpoint(rate_per_minute=60_000)
    body = {"config": {"url": klingel.receiver.url}, "rate_per_minute": rate}
    path = f"/v1/endpoints/{endpoint['id']}"
    for response in (
        await klingel.http.post("/v1/endpoints", json=body),
        await klingel.http.patch(path, json=body),
    ):
        assert (response.status_code, pointers(response)) == (422, ["#/rate_per_minute"])
        assert response.json()["errors"][0]["detail"] == f'"rate_per_minute" {why}.'
    assert (await show(klingel, endpoint["id"]))["rate_per_minute"] == 60_000


async def test_a_change_to_null_is_refused_where_nothing_can_be_taken_away(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint(
        types=["task.failed"], filter="data", description="a", rate_per_minute=1
    )
    path = f"/v1/endpoints/{endpoint['id']}"
    refused = await klingel.http.patch(path, json={"types": None, "enabled": None})
    assert (refused.status_code, sorted(pointers(refused))) == (422, ["#/enabled", "#/types"])
    removable = dict.fromkeys(("filter", "description", "rate_per_minute"))
    changed = await patch(klingel, endpoint["id"], **removable)
    assert {name: changed[name] for name in removable} == removable
    assert (changed["types"], changed["enabled"]) == (["task.failed"], True)


async def test_an_endpoint_of_one_task_takes_no_rate(klingel: Klingel) -> None:
    """Those at one host share a lane; neither when it is made, nor later, nor in what follows the task."""
    bound = {"config": {"url": klingel.receiver.url}, "rate_per_minute": 20}
    submit = {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT), "endpoints": [bound]}
    follow_up = {"on": "task.failed", "submit": submit}
    response = await klingel.http.post(
        "/v1/tasks", json={**submit, "follow_ups": [follow_up], "callback_url": "ftp://example.com"}
    )
    assert sorted(pointers(response)) == [
        "#/callback_url",
        "#/endpoints/0/rate_per_minute",
        "#/follow_ups/0/submit/endpoints/0/rate_per_minute",
    ]
    detail = "It gets the events of one task, which are few, and takes no rate: endpoints of the account do."
    assert [fault["detail"] for fault in response.json()["errors"]].count(detail) == 2
    task = await klingel.submit(endpoints=[bound | {"rate_per_minute": None}])
    path = f"/v1/endpoints/{task['endpoints'][0]['id']}"
    response = await klingel.http.patch(path, json={"rate_per_minute": 20, "filter": "data["})
    assert sorted(pointers(response)) == ["#/filter", "#/rate_per_minute"]
    assert (await klingel.http.patch(path, json={"rate_per_minute": None})).is_success


HOOK = "https://hooks.slack.com/services/T0/B0/x"
DISCORD_HOOK = f"https://discord.com/api/webhooks/1100000000000000005/{'x' * 68}"


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        ("teams", {"webhook_url": "ftp://x", "updates": "nope"}, "updates webhook_url"),
        ("teams", {"webhook_url": 5, "colour": "red"}, "colour webhook_url"),
        ("teams", {"colour": "red"}, "colour webhook_url"),
        ("teams", {"webhook_url": MASK, "updates": "nope"}, "updates webhook_url"),
        (
            "dingtalk",
            {"webhook_url": "ftp://x", "server": "ftp://x", "secret": "short"},
            "secret server webhook_url",
        ),
        (
            "wecom",
            {"webhook_url": "ftp://x", "server": 5, "pictures": "drawn"},
            "pictures server webhook_url",
        ),
        (
            "slack",
            {"bot_token": "xoxb-1", "channel": "C123", "server": "ftp://x", "thread_ts": "z"},
            "server thread_ts",
        ),
        (
            "slack",
            {
                "webhook_url": HOOK,
                "channel": "C123",
                "thread_ts": "1.2",
                "updates": "edited",
                "colour": "red",
            },
            "channel colour thread_ts updates",
        ),
        ("slack", {"bot_token": "none", "channel": "C123"}, "bot_token"),
        (
            "discord",
            {"webhook_url": "no", "server": "ftp://x", "thread_id": "1"},
            "server thread_id webhook_url",
        ),
        ("discord", {"webhook_url": DISCORD_HOOK, "server": 5}, "server"),
        ("telegram", {"token": "bad", "chat_id": "12345", "server": "ftp://x"}, "server token"),
        ("feishu", {"app_id": "x", "server": "ftp://x"}, "app_id app_secret chat_id server"),
        (
            "feishu",
            {"webhook_url": "ftp://x", "server": "ftp://x", "chat_id": "oc_1", "secret": ""},
            "chat_id secret server webhook_url",
        ),
        ("mattermost", {"webhook_url": "ftp://x", "server": 5}, "server webhook_url"),
        ("mattermost", {"server": "ftp://x", "bot_token": ""}, "bot_token channel_id server"),
    ],
)
async def test_a_chat_s_addresses_are_judged_though_other_fields_are_wrong(
    klingel: Klingel, kind: str, config: dict[str, Any], told: str
) -> None:
    """Each field once: also one that is told already, and what would lack only that."""
    response = await klingel.http.post("/v1/endpoints", json={"kind": kind, "config": config})
    assert response.status_code == 422
    assert sorted(pointers(response)) == [f"#/config/{name}" for name in told.split()]


async def test_of_a_chat_s_configuration_with_too_many_names_nothing_else_is_told(klingel: Klingel) -> None:
    config = {"webhook_url": 5, **{f"f{n}": 0 for n in range(100)}}
    response = await klingel.http.post("/v1/endpoints", json={"kind": "teams", "config": config})
    assert (response.status_code, pointers(response)) == (422, ["#/config"])


PRIVATE = [
    "http://127.0.0.1:8080/hook",
    "http://10.1.2.3/hook",
    "https://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/hook",
    "http://[::ffff:10.0.0.1]/hook",
    "http://[fd00::1]/hook",
    "http://0.0.0.0/hook",
]


async def test_a_literal_private_address_is_refused_where_it_is_not_allowed(tmp_path: Path) -> None:
    """Promise 6, guarded outgoing connections: said at once where it can be, and the way to open it with it."""
    async with running_klingel(tmp_path, allow_networks="") as klingel:
        for url in PRIVATE:
            response = await klingel.http.post("/v1/endpoints", json={"config": {"url": url}})
            assert (response.status_code, pointers(response)) == (422, ["#/config/url"]), url
            assert "KLINGEL_ALLOW_NETWORKS" in response.json()["errors"][0]["detail"]
            submit = await klingel.http.post(
                "/v1/tasks",
                json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT, "callback_url": url},
            )
            assert (submit.status_code, pointers(submit)) == (422, ["#/callback_url"]), url


async def test_a_name_that_leads_to_a_private_address_is_never_dialled(tmp_path: Path) -> None:
    """A name is judged when it is dialled, by where it leads then."""
    async with running_klingel(tmp_path, allow_networks="") as klingel:
        endpoint = await klingel.endpoint(
            config={"url": klingel.receiver.url.replace("127.0.0.1", "localhost")}
        )
        test = await send_test(klingel, endpoint["id"])
        [attempt] = await klingel.until_attempts(test["delivery"]["id"], 1)
        assert attempt["status_code"] is None
        assert "localhost is not allowed" in attempt["reason"]
        assert "127.0.0.1" not in attempt["reason"]
        assert klingel.receiver.received == []


async def test_an_odd_spelling_of_an_address_is_refused_at_once(klingel: Klingel) -> None:
    """Also where the address itself is allowed."""
    for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1"):
        url = klingel.receiver.url.replace("127.0.0.1", host)
        response = await klingel.http.post("/v1/endpoints", json={"config": {"url": url}})
        assert (response.status_code, pointers(response)) == (422, ["#/config/url"]), url


# Who gets what


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"types": ["wrong"] * 90_000}, 51),
        ({"config": {"url": "https://example.com", "headers": {f"h {n}": 1 for n in range(60_000)}}}, 21),
        ({"config": {f"f{n}": 0 for n in range(70_000)}}, 1),
        ({f"f{n}": 0 for n in range(70_000)}, 1),
    ],
    ids=["types", "headers", "unknown fields inside", "unknown fields"],
)
async def test_a_megabyte_of_faults_is_told_by_the_first_of_them(
    klingel: Klingel, fields: dict[str, Any], told: int
) -> None:
    """To find and tell each of them would take seconds, for which everybody else would wait."""
    body = {"config": {"url": klingel.receiver.url}, **fields}
    response = await klingel.http.post("/v1/endpoints", json=body)
    assert response.status_code == 422
    assert len(response.json()["errors"]) == told


async def test_types_choose_by_name_and_by_family(klingel: Klingel) -> None:
    story = ["task.submitted", "task.processing", "task.succeeded"]
    wanted = {
        ("task.*",): story,
        ("*",): story,
        ("task.succeeded",): ["task.succeeded"],
        ("task.failed", "task.processing"): ["task.processing"],
        ("output.*", "endpoint.*"): [],
    }
    endpoints = {types: await klingel.endpoint(types=list(types)) for types in wanted}
    task = await klingel.submit()
    for body in (callback(task, "processing"), succeed(task)):
        await klingel.call_back(body)
    for types, endpoint in endpoints.items():
        deliveries = await klingel.deliveries(endpoint_id=endpoint["id"])
        assert [delivery["event_type"] for delivery in deliveries] == wanted[types]


async def test_a_filter_chooses_by_what_the_event_says(klingel: Klingel) -> None:
    """JMESPath over the whole event; one that breaks over an event lets it pass, rather than lose it."""
    by_metadata = await klingel.endpoint(filter="data.task.metadata.customer == 'acme'")
    by_outputs = await klingel.endpoint(filter="length(data.task.outputs) > `0`")
    breaking = await klingel.endpoint(filter="sort_by(data.task.metadata.list, &name)")
    for customer in ("acme", "other"):
        task = await klingel.submit(metadata={"customer": customer, "list": [{"name": 1}, {"name": "x"}]})
        await klingel.call_back(succeed(task))

    async def got(endpoint: dict[str, Any]) -> list[str]:
        return [one["event_type"] for one in await klingel.deliveries(endpoint_id=endpoint["id"])]

    assert await got(by_metadata) == ["task.submitted", "task.succeeded"]
    assert await got(by_outputs) == ["task.succeeded"] * 2
    assert await got(breaking) == ["task.submitted", "task.succeeded"] * 2


async def test_a_disabled_endpoint_gets_nothing_until_it_is_enabled(klingel: Klingel) -> None:
    """It is asked for when an event happens, not when it is delivered."""
    endpoint = await klingel.endpoint(enabled=False)
    assert endpoint["disabled_reason"] == "switched off"
    await klingel.submit()
    assert await klingel.deliveries() == []
    enabled = await patch(klingel, endpoint["id"], enabled=True)
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    await klingel.submit()
    assert len(await klingel.deliveries()) == 1


async def test_switching_off_turns_what_waits_into_dead_letters(klingel: Klingel) -> None:
    """Promise 5: seen, and replayed once it is on again."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(500)
    await klingel.submit()
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    await patch(klingel, endpoint["id"], enabled=False)
    [delivery] = await klingel.deliveries(status="dead")
    assert delivery["reason"] == "the endpoint was switched off"
    replay = {"since": "2026-11-22T00:00:00Z"}
    response = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/replay", json=replay)
    assert (response.status_code, response.json()["type"]) == (409, "/problems/endpoint-disabled")
    await patch(klingel, endpoint["id"], enabled=True)
    response = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/replay", json=replay)
    assert (response.status_code, response.json()) == (202, {"replayed": 1})
    await klingel.until_deliveries("dead", "delivered")


async def test_a_replay_ends_where_its_endpoint_is_switched_off(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.replays.PAGE", 2)
    endpoint = await klingel.endpoint(types=["task.submitted"])
    klingel.receiver.answers(*[500] * 5)
    for _ in range(5):
        await klingel.submit()
    for delivery in await klingel.until_deliveries(*["pending"] * 5):
        await klingel.until_attempts(delivery["id"], 1)
    await patch(klingel, endpoint["id"], enabled=False)
    await patch(klingel, endpoint["id"], enabled=True)
    path = f"/v1/endpoints/{endpoint['id']}"
    replay = {"since": "2026-11-22T00:00:00Z"}
    async with klingel.writes_held() as are_waiting:
        replayed = asyncio.create_task(klingel.http.post(f"{path}/replay", json=replay))
        await are_waiting("make_page", 1)
        switched_off = asyncio.create_task(klingel.http.patch(path, json={"enabled": False}))
        await are_waiting("_edit", 1)
    assert (await switched_off).is_success
    assert (await replayed).json() == {"replayed": 2}

    async def none_waits() -> bool:
        return {delivery["status"] for delivery in await klingel.deliveries()} <= {"delivered", "dead"}

    await klingel.until(none_waits)
    assert len(await klingel.deliveries()) == 7


async def test_a_test_that_a_deletion_has_overtaken_reaches_nobody(klingel: Klingel) -> None:
    path = f"/v1/endpoints/{(await klingel.endpoint())['id']}"
    async with klingel.writes_held() as are_waiting:
        deleted = [asyncio.create_task(klingel.http.delete(path)) for _ in range(2)]
        await are_waiting("_delete", 2)
        tested = asyncio.create_task(klingel.http.post(f"{path}/test"))
        await are_waiting("send", 1)
    assert [(await answer).status_code for answer in deleted] == [204, 204]
    assert (await tested).status_code == 404
    assert klingel.receiver.received == []


async def test_what_its_former_place_answers_does_not_switch_it_off_at_its_new_one(klingel: Klingel) -> None:
    """A receiver that has moved answers 410 to what was on its way there when its endpoint was told. It gets that too."""
    klingel.receiver.always = 410
    klingel.receiver.gate = asyncio.Event()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    for _ in range(CONCURRENCY + 2):
        await klingel.submit()
    await klingel.receiver.until(CONCURRENCY)
    async with Receiver().running() as new:
        await patch(klingel, endpoint["id"], config={"url": new.url})
        klingel.receiver.gate.set()
        await new.until(CONCURRENCY + 2)
        await klingel.until_deliveries(*["delivered"] * (CONCURRENCY + 2))
    stored = (await klingel.http.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert (stored["enabled"], stored["disabled_reason"]) == (True, None)


async def test_what_is_in_line_for_its_new_place_goes_there_when_its_former_one_says_410(
    klingel: Klingel,
) -> None:
    klingel.receiver.always = 410
    klingel.receiver.gate = asyncio.Event()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    for _ in range(CONCURRENCY + 2):
        await klingel.submit()
    await klingel.receiver.until(CONCURRENCY)
    lanes = klingel.state["dispatching"]["deliverer"]._lanes
    async with Receiver().running() as new:
        await patch(klingel, endpoint["id"], config={"url": new.url})

        async def is_in_line() -> bool:
            return [duty.endpoint.config["url"] for duty in lanes.waiting()] == [new.url] * 2

        await klingel.until(is_in_line)
        klingel.receiver.gate.set()
        await klingel.until_deliveries(*["delivered"] * (CONCURRENCY + 2))
        assert len({one.headers["webhook-id"] for one in new.received}) == CONCURRENCY + 2


async def test_what_was_dropped_stays_so_when_its_former_place_answers_late(klingel: Klingel) -> None:
    """Switched off, moved and switched on again while an attempt hangs: only a replay brings it back."""
    klingel.receiver.always = 410
    klingel.receiver.gate = asyncio.Event()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    await klingel.submit()
    await klingel.receiver.until(1)
    async with Receiver().running() as new:
        await patch(klingel, endpoint["id"], enabled=False)
        await patch(klingel, endpoint["id"], config={"url": new.url}, enabled=True)
        klingel.receiver.gate.set()
        [dropped] = await klingel.until_deliveries("dead")
        await klingel.until_attempts(dropped["id"], 1)
        await klingel.submit()
        await new.until(1)
        await klingel.until_deliveries("dead", "delivered")
        assert len(new.received) == 1


@pytest.mark.parametrize("how", ["switched off", "deleted", "gone"])
async def test_what_is_already_in_line_for_it_is_not_sent_either(klingel: Klingel, how: str) -> None:
    """An endpoint that says 410, or whose owner switches it off, means all that was not begun, also what is held in
    memory: dead letters without an attempt."""
    gate = klingel.receiver.gate = asyncio.Event()
    endpoint = await klingel.endpoint()
    if how == "gone":
        klingel.receiver.always = 410
    for _ in range(12):
        await klingel.submit()
    await klingel.receiver.until(8)
    if how == "switched off":
        await patch(klingel, endpoint["id"], enabled=False)
    elif how == "deleted":
        assert (await klingel.http.delete(f"/v1/endpoints/{endpoint['id']}")).status_code == 204
    gate.set()
    begun, in_line = (await klingel.deliveries())[:8], (await klingel.deliveries())[8:]
    for delivery in begun:
        await klingel.until_attempts(delivery["id"], 1)
    async with Receiver().running() as second:
        other = await klingel.endpoint(config={"url": second.url})
        await send_test(klingel, other["id"])
        await second.until(1)  # and so would have been the four
    assert len(klingel.receiver.received) == 8
    for delivery in in_line:
        shown = (await klingel.http.get(f"/v1/deliveries/{delivery['id']}")).json()
        assert (shown["status"], shown["attempts"]) == ("dead", [])


async def test_tests_in_line_for_one_that_is_off_and_says_410_are_dead_letters_at_once(
    klingel: Klingel,
) -> None:
    """They are sent neither then, nor when nobody looks any more."""
    endpoint = await klingel.endpoint(types=["task.submitted"])
    gate = klingel.receiver.gate = asyncio.Event()
    klingel.receiver.always = 410
    for _ in range(CONCURRENCY):
        await klingel.submit()
    await klingel.receiver.until(CONCURRENCY)
    await patch(klingel, endpoint["id"], enabled=False)
    for _ in range(2):
        await send_test(klingel, endpoint["id"])
    gate.set()
    await klingel.until_deliveries(*["dead"] * (CONCURRENCY + 2))
    assert len(klingel.receiver.received) == CONCURRENCY
    told = klingel.rows("select 1 from events where type = 'endpoint.disabled'")
    assert told == []  # its owner has switched it off


# The test event


async def test_a_test_goes_the_real_way_to_this_endpoint_alone(klingel: Klingel) -> None:
    """Signed, logged, retried and shown like any other; whatever the endpoint has subscribed to."""
    endpoint = await klingel.endpoint(types=["task.failed"], filter="data.task")
    await klingel.endpoint(types=["*"])
    klingel.receiver.answers(500, 200)
    test = await send_test(klingel, endpoint["id"])
    delivery_id = test["delivery"]["id"]
    await klingel.until_attempts(delivery_id, 1)
    klingel.clock.advance(seconds=6)
    first, second = await klingel.receiver.until(2)
    assert first.body == second.body
    assert first.event["type"] == "endpoint.test"
    assert first.event["sequence"] is None
    assert first.event["data"]["endpoint"]["id"] == endpoint["id"]
    assert "secret" not in first.event["data"]["endpoint"]
    assert signed_by(klingel, first, endpoint["secret"])
    await klingel.until_deliveries("delivered")
    [event] = (await klingel.http.get("/v1/events")).json()["items"]
    assert event["id"] == test["event_id"]


# Secrets


async def test_during_a_rotation_both_secrets_sign_for_24_hours(klingel: Klingel) -> None:
    """Standard Webhooks, "Secret rotation": the receiver changes over when it likes to."""
    endpoint = await klingel.endpoint()
    rotated = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
    assert rotated.status_code == 200
    assert rotated.json()["former_secrets_end_at"] == "2026-11-23T12:00:00.000Z"
    new, old = rotated.json()["secret"], endpoint["secret"]
    assert new != old
    for number, advance in enumerate(({}, {"hours": 24, "seconds": -1}), 1):
        klingel.clock.advance(**advance)
        await send_test(klingel, endpoint["id"])
        received = (await klingel.receiver.until(number))[-1]
        assert signed_by(klingel, received, new)
        assert signed_by(klingel, received, old)
        assert len(received.headers["webhook-signature"].split()) == 2
    klingel.clock.advance(seconds=1)
    await send_test(klingel, endpoint["id"])
    received = (await klingel.receiver.until(3))[-1]
    assert signed_by(klingel, received, new)
    assert not signed_by(klingel, received, old)


async def test_another_rotation_gives_a_former_secret_no_more_time(klingel: Klingel) -> None:
    """It may be the leaked one."""
    endpoint = await klingel.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}/rotate-secret"
    second = (await klingel.http.post(path)).json()["secret"]
    klingel.clock.advance(hours=23)
    third = (await klingel.http.post(path)).json()["secret"]
    klingel.clock.advance(hours=2)
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    secrets = (endpoint["secret"], second, third)
    assert [signed_by(klingel, received, secret) for secret in secrets] == [False, True, True]


async def test_two_rotations_at_once_give_two_secrets_that_both_sign(klingel: Klingel) -> None:
    """Each caller was shown a secret, and will verify with it."""
    endpoint = await klingel.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}/rotate-secret"
    answers = await asyncio.gather(*(klingel.http.post(path) for _ in range(3)))
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    for secret in (endpoint["secret"], *(answer.json()["secret"] for answer in answers)):
        assert signed_by(klingel, received, secret)


async def test_of_former_secrets_the_latest_four_sign(klingel: Klingel) -> None:
    """A leaked one can be replaced at any time; each that signs is stored, and makes a message longer."""
    endpoint = await klingel.endpoint()
    secrets = [endpoint["secret"]]
    for _ in range(6):
        rotated = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
        secrets.append(rotated.json()["secret"])
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    assert len(received.headers["webhook-signature"].split()) == 5
    assert [signed_by(klingel, received, secret) for secret in secrets] == [False] * 2 + [True] * 5


async def test_a_secret_of_ones_own_signs(klingel: Klingel) -> None:
    """For a receiver that has one already."""
    secret = "whsec_" + base64.b64encode(b"x" * 24).decode()
    endpoint = await klingel.endpoint(secret=secret)
    assert endpoint["secret"] == secret
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    assert signed_by(klingel, received, secret)


# Public keys


@pytest.mark.parametrize("form", ["standard", "cloudevents", "kling"])
async def test_the_public_key_that_an_endpoint_shows_verifies_what_is_sent_there(
    klingel: Klingel, form: str
) -> None:
    """Standard Webhooks, "Signature scheme": `v1a`, beside the `v1` that the secret verifies."""
    config = {"url": klingel.receiver.url, "format": form, "signature": "v1a"}
    endpoint = await klingel.endpoint(config=config)
    assert endpoint["config"] == config
    await klingel.submit()
    [received] = await klingel.receiver.until(1)
    assert verified_by(received, endpoint["public_key"])
    assert signed_by(klingel, received, endpoint["secret"])
    assert len(received.headers["webhook-signature"].split()) == 2
    forged = Received(received.headers, received.body + b" ", received.path)
    assert not verified_by(forged, endpoint["public_key"])


async def test_a_public_key_is_shown_wherever_its_endpoint_is_read(klingel: Klingel) -> None:
    plain = await klingel.endpoint()
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"})
    key = endpoint["public_key"]
    assert len(base64.b64decode(key.removeprefix("whpk_"), validate=True)) == 32
    assert (await show(klingel, endpoint["id"]))["public_key"] == key
    assert (await patch(klingel, endpoint["id"], description="mine"))["public_key"] == key
    listed = (await klingel.http.get("/v1/endpoints")).json()["items"]
    assert [one.get("public_key") for one in listed] == [key, None]
    for answer in (plain, await show(klingel, plain["id"]), await patch(klingel, plain["id"], filter=None)):
        assert "public_key" not in answer


async def test_an_endpoint_of_one_task_shows_its_public_key_to_who_reads_it(klingel: Klingel) -> None:
    bound = {"config": {"url": klingel.receiver.url, "signature": "v1a"}}
    task = await klingel.submit(endpoints=[bound])
    [received] = await klingel.receiver.until(1)
    [endpoint] = task["endpoints"]
    assert verified_by(received, (await show(klingel, endpoint["id"]))["public_key"])


async def test_no_endpoint_s_public_key_verifies_what_others_are_sent(klingel: Klingel) -> None:
    """Else whoever registers somebody's URL could have genuine events of their own sent there."""
    config = {"url": klingel.receiver.url, "signature": "v1a"}
    mine, second = await klingel.endpoint(config=config), await klingel.endpoint(config=config)
    async with klingel.another_account() as other:
        theirs = (await other.post("/v1/endpoints", json={"config": config})).json()
        assert (await other.post(f"/v1/endpoints/{theirs['id']}/test")).status_code == 202
        [received] = await klingel.receiver.until(1)
    assert verified_by(received, theirs["public_key"])
    for endpoint in (mine, second):
        assert not verified_by(received, endpoint["public_key"])


async def test_during_a_rotation_both_public_keys_verify_for_24_hours(klingel: Klingel) -> None:
    """The key rotates with the secret that it is made of."""
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"})
    rotated = (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")).json()
    old, new = endpoint["public_key"], rotated["public_key"]
    assert old != new
    assert (await show(klingel, endpoint["id"]))["public_key"] == new
    for number, advance in enumerate(({}, {"hours": 24, "seconds": -1}), 1):
        klingel.clock.advance(**advance)
        await send_test(klingel, endpoint["id"])
        received = (await klingel.receiver.until(number))[-1]
        assert verified_by(received, new)
        assert verified_by(received, old)
        assert signed_by(klingel, received, endpoint["secret"])
        assert signed_by(klingel, received, rotated["secret"])
        assert len(received.headers["webhook-signature"].split()) == 4
    klingel.clock.advance(seconds=1)
    await send_test(klingel, endpoint["id"])
    received = (await klingel.receiver.until(3))[-1]
    assert verified_by(received, new)
    assert not verified_by(received, old)


async def test_of_rotations_at_once_each_answer_names_the_public_key_of_its_own_secret(
    klingel: Klingel,
) -> None:
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"})
    path = f"/v1/endpoints/{endpoint['id']}/rotate-secret"
    answers = [answer.json() for answer in await asyncio.gather(*(klingel.http.post(path) for _ in range(3)))]
    for answer in answers:
        again = await klingel.endpoint(config=endpoint["config"], secret=answer["secret"])
        assert again["public_key"] == answer["public_key"]
    assert len({answer["public_key"] for answer in answers}) == 3


async def test_v1a_can_be_switched_on_and_off_and_stays_when_other_things_change(klingel: Klingel) -> None:
    """The key is made of the secret, so that it is the same one each time."""
    endpoint = await klingel.endpoint()
    before = endpoint["config"]
    public = (await patch(klingel, endpoint["id"], config={"signature": "v1a"}))["public_key"]
    changed = await patch(klingel, endpoint["id"], config={"format": "cloudevents"})
    assert changed["config"] == before | {"format": "cloudevents", "signature": "v1a"}
    assert changed["public_key"] == public
    await send_test(klingel, endpoint["id"])
    assert verified_by((await klingel.receiver.until(1))[-1], public)
    off = await patch(klingel, endpoint["id"], config={"signature": "v1", "format": "standard"})
    assert (off["config"], "public_key" in off) == (before, False)
    await send_test(klingel, endpoint["id"])
    received = (await klingel.receiver.until(2))[-1]
    assert signed_by(klingel, received, endpoint["secret"])
    assert len(received.headers["webhook-signature"].split()) == 1
    again = await patch(klingel, endpoint["id"], config={"signature": "v1a"})
    assert again["public_key"] == public


async def test_a_signature_of_another_version_or_a_public_key_of_ones_own_is_refused(
    klingel: Klingel,
) -> None:
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"})
    path, key = f"/v1/endpoints/{endpoint['id']}", endpoint["public_key"]
    for config, pointer in (({"signature": "v2"}, "signature"), ({"public_key": key}, "public_key")):
        refusals = [
            await klingel.http.patch(path, json={"config": config}),
            await klingel.http.post(
                "/v1/endpoints", json={"config": {"url": klingel.receiver.url, **config}}
            ),
        ]
        for refusal in refusals:
            assert (refusal.status_code, pointers(refusal)) == (422, [f"#/config/{pointer}"])
    for refusal in (
        await klingel.http.patch(path, json={"public_key": key}),
        await klingel.http.post("/v1/endpoints", json={"config": endpoint["config"], "public_key": key}),
    ):
        assert (refusal.status_code, pointers(refusal)) == (422, ["#/public_key"])


async def test_an_endpoint_whose_secret_cannot_be_opened_is_listed_without_its_public_key(
    tmp_path: Path,
) -> None:
    """`KLINGEL_SECRET` was changed without listing the former one: all else of it can be seen."""
    async with running_klingel(tmp_path, secret="the-first-secret-0123456789") as klingel:
        endpoint = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"})
    async with running_klingel(tmp_path, secret="the-second-secret-0123456789") as klingel:
        [listed] = (await klingel.http.get("/v1/endpoints")).json()["items"]
        del endpoint["secret"], endpoint["public_key"]
        assert listed == endpoint
        rotated = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
        assert (await show(klingel, endpoint["id"]))["public_key"] == rotated.json()["public_key"]


# Credentials


async def test_headers_and_basic_auth_are_sent_but_never_shown_nor_stored_readably(klingel: Klingel) -> None:
    """Promise 6: encrypted at rest; readers see that they are there."""
    config = {
        "url": klingel.receiver.url,
        "headers": {"X-Token": "t0p-s3cret", "x-other": "0th3r-s3cret"},
        "basic_auth": {"username": "klingel", "password": "p4ssw0rd-s3cret"},
    }
    endpoint = await klingel.endpoint(config=config)
    masked = {
        "url": klingel.receiver.url,
        "format": "standard",
        "headers": {"X-Token": MASK, "x-other": MASK},
        "basic_auth": {"username": "klingel", "password": MASK},
    }
    assert endpoint["config"] == (await show(klingel, endpoint["id"]))["config"] == masked
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    basic = base64.b64encode(b"klingel:p4ssw0rd-s3cret").decode()
    assert received.headers["x-token"] == "t0p-s3cret"
    assert received.headers["x-other"] == "0th3r-s3cret"
    assert received.headers["authorization"] == f"Basic {basic}"
    assert b"s3cret" not in received.body
    bound = {"config": config, "secret": "whsec_" + base64.b64encode(b"s3cret-of-a-bound-endpoint").decode()}
    await klingel.submit(endpoints=[bound], headers={"idempotency-key": "k"})
    await klingel.until_deliveries("delivered", "delivered", "delivered")
    stored = b"".join(path.read_bytes() for path in klingel.folder.glob("klingel.db*"))
    for secret in (endpoint["secret"], bound["secret"]):
        assert secret.removeprefix("whsec_").encode() not in stored
    for secret in (b"s3cret", b"provider-key", b"an-admin-key-for-tests"):
        assert secret not in stored


@pytest.mark.parametrize(
    "config",
    [
        {
            "headers": {"x-token": 't0p/"s3cret"', "x-shop": "abc"},
            "basic_auth": {"username": "me", "password": "pässwörd-s3cret"},
        },
        {"headers": {"Authorization": "Bearer t0ken-s3cret"}},
    ],
)
@pytest.mark.parametrize("slash", ["/", r"\/"])  # as some write it in JSON
@pytest.mark.parametrize("ascii", [False, True])
async def test_a_receiver_that_answers_with_what_it_was_sent_makes_no_stored_value_readable(
    klingel: Klingel, config: dict[str, Any], slash: str, ascii: bool
) -> None:
    async def echo(request: web.Request) -> web.Response:
        scheme, _, credential = request.headers["authorization"].partition(" ")
        told = {**request.headers, "scheme": scheme, "credential": credential}
        if scheme == "Basic":
            told["decoded"] = base64.b64decode(credential).decode()
        return web.Response(status=400, text=json.dumps(told, ensure_ascii=ascii).replace("/", slash))

    async with running_app(echo) as url:
        endpoint = await klingel.endpoint(config={"url": url, **config})
        test = await send_test(klingel, endpoint["id"])
        [attempt] = await klingel.until_attempts(test["delivery"]["id"], 1)
    excerpt = attempt["response_excerpt"]
    assert MASK in excerpt
    assert "s3cret" not in excerpt
    whole = base64.b64encode("me:pässwörd-s3cret".encode()).decode()
    assert whole.replace("/", slash) not in excerpt
    if "x-shop" in config["headers"]:
        assert '"x-shop": "abc"' in excerpt  # too short to be told from any other word


async def test_a_configuration_that_was_read_can_be_sent_back(klingel: Klingel) -> None:
    """A client that shows it in a form and saves it must not turn a password into dots."""
    config = {
        "url": klingel.receiver.url,
        "headers": {"X-Token": "t0p-s3cret"},
        "basic_auth": {"username": "klingel", "password": "p4ssw0rd"},
    }
    endpoint = await klingel.endpoint(config=config)
    shown = (await show(klingel, endpoint["id"]))["config"]
    changed = await patch(
        klingel, endpoint["id"], config=shown | {"headers": {**shown["headers"], "x-new": "n3w"}}
    )
    assert changed["config"] == shown | {"headers": {"X-Token": MASK, "x-new": MASK}}
    await send_test(klingel, endpoint["id"])
    [received] = await klingel.receiver.until(1)
    assert (received.headers["x-token"], received.headers["x-new"]) == ("t0p-s3cret", "n3w")
    assert received.headers["authorization"] == "Basic " + base64.b64encode(b"klingel:p4ssw0rd").decode()
    for config in ({"headers": {"x-unknown": MASK}}, {"basic_auth": {"username": "else", "password": MASK}}):
        response = await klingel.http.patch(f"/v1/endpoints/{endpoint['id']}", json={"config": config})
        assert response.status_code == 422
    response = await klingel.http.post(
        "/v1/endpoints", json={"config": {"url": klingel.receiver.url, "headers": {"x-token": MASK}}}
    )
    assert (response.status_code, pointers(response)) == (422, ["#/config/headers/x-token"])


async def test_an_authorization_header_and_basic_auth_exclude_each_other(klingel: Klingel) -> None:
    """Both would be sent, and which one counts is anybody's guess."""
    config = {
        "url": klingel.receiver.url,
        "headers": {"Authorization": "Bearer x"},
        "basic_auth": {"username": "klingel", "password": "p4ss"},
    }
    response = await klingel.http.post("/v1/endpoints", json={"config": config})
    assert (response.status_code, pointers(response)) == (422, ["#/config/basic_auth"])


async def test_of_two_changes_at_once_neither_brings_the_others_credentials_back(klingel: Klingel) -> None:
    """Each is made out of what was there before both."""
    config = {"url": klingel.receiver.url, "headers": {"x-old": "leaked"}}
    endpoint = await klingel.endpoint(config=config, types=["task.submitted"])
    path = f"/v1/endpoints/{endpoint['id']}"
    changes = [{"headers": {"x-new": "secret"}}, {"format": "cloudevents"}]
    answers = await klingel.edit_at_once(*(klingel.http.patch(path, json={"config": one}) for one in changes))
    [done, refused] = sorted(answers, key=lambda answer: answer.status_code)
    assert (done.status_code, refused.status_code) == (200, 409)
    assert refused.json()["type"] == "/problems/changed-meanwhile"
    assert (await klingel.http.get(path)).json()["config"] == done.json()["config"]
    for change in changes:
        assert (await klingel.http.patch(path, json={"config": change})).status_code == 200
    await klingel.submit()
    [received] = await klingel.receiver.until(1)
    assert (received.headers.get("x-old"), received.headers["x-new"]) == (None, "secret")
    assert received.headers["ce-type"] == "task.submitted"


async def test_changes_of_different_things_at_once_both_count(klingel: Klingel) -> None:
    endpoint = await klingel.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}"
    changes = [{"description": "mine"}, {"config": {"format": "cloudevents"}}, {"filter": "`true`"}]
    answers = await klingel.edit_at_once(*(klingel.http.patch(path, json=change) for change in changes))
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    after = (await klingel.http.get(path)).json()
    assert (after["description"], after["filter"], after["config"]["format"]) == (
        "mine",
        "`true`",
        "cloudevents",
    )


async def test_an_endpoint_of_a_kind_that_is_no_more_can_be_switched_off_but_not_configured(
    klingel: Klingel,
) -> None:
    """An extra was taken out of the installation."""
    endpoint = await klingel.endpoint()
    await klingel.tamper("update endpoints set kind = 'gone'")
    path = f"/v1/endpoints/{endpoint['id']}"
    refused = await klingel.http.patch(path, json={"config": {"url": klingel.receiver.url}})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")
    assert "gone" in refused.json()["detail"]
    assert (await klingel.http.patch(path, json={"enabled": False})).json()["enabled"] is False


async def test_credentials_stay_where_they_were_given_for(klingel: Klingel) -> None:
    """Whoever holds a key once could have stored secrets sent to a host of their own."""
    config = {
        "url": "https://example.com/hook",
        "headers": {"x-api-key": "secret", "x-other": "too"},
        "basic_auth": {"username": "me", "password": "pass"},
    }
    endpoint = await klingel.endpoint(config=config)
    path = f"/v1/endpoints/{endpoint['id']}"

    async def change(**config: Any) -> httpx.Response:
        return await klingel.http.patch(path, json={"config": config})

    for elsewhere in (
        "https://evil.example/hook",
        "http://example.com/hook",
        "https://example.com:8443/hook",
    ):
        refused = await change(url=elsewhere)
        assert refused.status_code == 422
        assert pointers(refused) == [
            "#/config/headers/x-api-key",
            "#/config/headers/x-other",
            "#/config/basic_auth",
        ]
        masked = await change(**{**endpoint["config"], "url": elsewhere})
        assert pointers(masked) == pointers(refused)
    partly = await change(
        url="https://evil.example/hook", headers={"x-api-key": "another", "x-other": MASK}, basic_auth=None
    )
    assert pointers(partly) == ["#/config/headers/x-other"]
    assert (await klingel.http.get(path)).json()["config"] == endpoint["config"]
    for same in ("https://EXAMPLE.com:443/other?a=b", "https://example.com/"):
        assert (await change(url=same)).status_code == 200
    moved = await change(url="https://new.example/hook", headers={"x-api-key": "another"}, basic_auth=None)
    assert moved.status_code == 200
    assert moved.json()["config"] == {
        "url": "https://new.example/hook",
        "format": "standard",
        "headers": {"x-api-key": MASK},
    }


async def test_credentials_can_be_changed_and_taken_away(klingel: Klingel) -> None:
    """What a change does not name stays as it is."""
    config = {"headers": {"x-token": "t0p"}, "basic_auth": {"username": "klingel", "password": "p4ss"}}
    endpoint = await klingel.endpoint(config={"url": klingel.receiver.url} | config)
    changed = await patch(klingel, endpoint["id"], config={"basic_auth": None})
    assert changed["config"] == {
        "url": klingel.receiver.url,
        "format": "standard",
        "headers": {"x-token": MASK},
    }
    await send_test(klingel, endpoint["id"])
    await klingel.receiver.until(1)
    await patch(klingel, endpoint["id"], config={"headers": {}})
    await send_test(klingel, endpoint["id"])
    first, second = await klingel.receiver.until(2)
    assert ("authorization" in first.headers, first.headers["x-token"]) == (False, "t0p")
    assert "x-token" not in second.headers
    [row] = klingel.rows("select credentials from endpoints")
    assert row["credentials"] is None


# Bound to one task


async def test_endpoints_of_a_submit_get_that_tasks_events_alone(klingel: Klingel) -> None:
    """From `callback_url` and `endpoints`; their secrets are in the 201, and they are not listed."""
    async with Receiver().running() as second:
        task = await klingel.submit(
            callback_url=klingel.receiver.url,
            endpoints=[
                {"config": {"url": second.url}, "types": ["task.succeeded"], "description": "when it is done"}
            ],
        )
        shown = {endpoint["id"]: endpoint for endpoint in task["endpoints"]}
        assert len(shown) == 2
        assert "endpoints" not in await klingel.task(task["id"])
        assert (await klingel.http.get("/v1/endpoints")).json()["items"] == []
        other = await klingel.submit()
        await klingel.call_back(succeed(other))
        await klingel.call_back(succeed(task), number=0)
        first = await klingel.receiver.until(2)
        assert [one.event["type"] for one in first] == ["task.submitted", "task.succeeded"]
        [only] = await second.until(1)
        assert only.event["data"]["task"]["id"] == task["id"]
        for received in (*first, only):
            [secret] = {
                one["secret"] for one in shown.values() if signed_by(klingel, received, one["secret"])
            }
            assert secret
        for endpoint_id in shown:
            assert (await show(klingel, endpoint_id))["task_id"] == task["id"]
        deliveries = await klingel.until_deliveries(*["delivered"] * 3)
        assert {delivery["task_id"] for delivery in deliveries} == {task["id"]}


async def test_a_replay_of_everything_to_a_bound_endpoint_stays_with_its_task(klingel: Klingel) -> None:
    """One bound to a task gets only that task's events, also when they are replayed."""
    task = await klingel.submit(callback_url=klingel.receiver.url)
    await klingel.submit()
    [endpoint] = task["endpoints"]
    response = await klingel.http.post(
        f"/v1/endpoints/{endpoint['id']}/replay", json={"since": "2026-11-22T00:00:00Z", "only": "all"}
    )
    assert response.json() == {"replayed": 1}
    await klingel.until_deliveries("delivered", "delivered")
    assert {one.event["data"]["task"]["id"] for one in klingel.receiver.received} == {task["id"]}


async def test_a_refused_task_still_tells_its_endpoints(klingel: Klingel) -> None:
    """They are there before the create goes out, so that no event is too early for them."""
    klingel.kling.answers(refused(400, 1301))
    response = await klingel.http.post(
        "/v1/tasks",
        json={
            "type": "kling.multi-image-to-image",
            "input": IMAGE_INPUT,
            "callback_url": klingel.receiver.url,
        },
    )
    assert response.status_code == 422
    [received] = await klingel.receiver.until(1)
    assert received.event["type"] == "task.rejected"


# Replays


async def test_a_replay_of_failures_sends_each_dead_letter_once_more(klingel: Klingel) -> None:
    """`only: failed`, since a moment; one that was replayed is not replayed again."""
    endpoint = await klingel.endpoint(types=["task.submitted"])
    path = f"/v1/endpoints/{endpoint['id']}/replay"
    klingel.receiver.answers(410)
    await klingel.submit()
    await klingel.until_deliveries("dead")
    await patch(klingel, endpoint["id"], enabled=True)
    klingel.clock.advance(hours=1)
    klingel.receiver.answers(410)
    await klingel.submit()
    [late, early] = (await klingel.until_deliveries("dead", "dead"))[::-1]
    await patch(klingel, endpoint["id"], enabled=True)
    response = await klingel.http.post(path, json={"since": "2026-11-22T12:30:00Z"})
    assert (response.status_code, response.json()) == (202, {"replayed": 1})
    [*_, again] = await klingel.until_deliveries("dead", "dead", "delivered")
    assert (again["replay_of"], again["event_id"]) == (late["id"], late["event_id"])
    response = await klingel.http.post(path, json={"since": "2026-11-22T13:00:00+01:00", "only": "failed"})
    assert response.json() == {"replayed": 1}
    [*_, again] = await klingel.until_deliveries("dead", "dead", "delivered", "delivered")
    assert again["replay_of"] == early["id"]
    ids = [one.headers["webhook-id"] for one in klingel.receiver.received]
    assert ids == [early["event_id"], late["event_id"], late["event_id"], early["event_id"]]


async def test_a_replay_of_all_sends_the_log_also_of_before_the_endpoint_was_there(klingel: Klingel) -> None:
    """`only: all`; what the endpoint has not subscribed to, and others' tests, stay out."""
    tasks = [await klingel.submit() for _ in range(3)]
    for number, task in enumerate(tasks):
        await klingel.call_back(succeed(task), number=number)
    elsewhere = await klingel.endpoint(types=["endpoint.*"])
    await send_test(klingel, elsewhere["id"])
    await klingel.receiver.until(1)
    endpoint = await klingel.endpoint(types=["task.succeeded", "endpoint.*"])
    path = f"/v1/endpoints/{endpoint['id']}/replay"
    for times in (1, 2):
        response = await klingel.http.post(path, json={"since": "2026-11-22T00:00:00Z", "only": "all"})
        assert response.json() == {"replayed": 3}
        await klingel.until_deliveries(*["delivered"] * 3 * times, endpoint_id=endpoint["id"])
    sent = [one.headers["webhook-id"] for one in klingel.receiver.received[1:]]
    events = [event["id"] for task in tasks for event in (await klingel.events(task["id"]))[1:]]
    assert sorted(sent) == sorted(events * 2)
    response = await klingel.http.post(path, json={"since": "2026-11-22T12:00:00.001Z", "only": "all"})
    assert response.json() == {"replayed": 0}


async def test_a_replay_of_all_tells_a_task_in_its_order(klingel: Klingel) -> None:
    """Also where the endpoint had the first of it, and was off during the rest."""
    endpoint = await klingel.endpoint()
    task = await klingel.submit()
    await klingel.receiver.until(1)
    await patch(klingel, endpoint["id"], enabled=False)
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    await patch(klingel, endpoint["id"], enabled=True)
    response = await klingel.http.post(
        f"/v1/endpoints/{endpoint['id']}/replay", json={"since": "2026-11-22T00:00:00Z", "only": "all"}
    )
    assert response.json() == {"replayed": 3}
    told = [one.event["type"] for one in await klingel.receiver.until(4)]
    assert told[1:] == ["task.submitted", "task.processing", "task.succeeded"]


@pytest.mark.sqlite_alone
async def test_a_replay_that_is_begun_anew_goes_back_no_further_than_it_was_asked_to(
    klingel: Klingel,
) -> None:
    """What shares its commit cannot be written, so all of it is undone, and done one by one."""
    await klingel.submit()
    klingel.clock.advance(hours=2)
    await klingel.submit()
    endpoint = await klingel.endpoint(types=["task.submitted"])
    await klingel.tamper(
        "create trigger fault before insert on tasks when new.external_task_id = 'bad' "
        "begin select raise(abort, 'a fault of ours'); end"
    )
    async with klingel.writes_held() as are_waiting:
        replayed = asyncio.create_task(
            klingel.http.post(
                f"/v1/endpoints/{endpoint['id']}/replay",
                json={"since": "2026-11-22T13:00:00Z", "only": "all"},
            )
        )
        await are_waiting("make_page", 1)
        bad = asyncio.create_task(
            klingel.http.post(
                "/v1/tasks",
                json={
                    "type": "kling.multi-image-to-image",
                    "input": dict(IMAGE_INPUT),
                    "external_task_id": "bad",
                },
            )
        )
        await are_waiting("_store", 1)
    assert (await bad).status_code == 500
    assert (await replayed).json() == {"replayed": 1}


async def test_a_replay_of_more_than_a_page_is_whole(klingel: Klingel) -> None:
    """Each page is a commit of its own."""
    await asyncio.gather(*(klingel.submit() for _ in range(205)))

    async def all_happened() -> bool:
        return len(klingel.rows("select id from events")) == 205

    await klingel.until(all_happened)
    endpoint = await klingel.endpoint()
    response = await klingel.http.post(
        f"/v1/endpoints/{endpoint['id']}/replay", json={"since": "2026-11-22T00:00:00Z", "only": "all"}
    )
    assert response.json() == {"replayed": 205}
    received = await klingel.receiver.until(205)
    assert len({one.headers["webhook-id"] for one in received}) == 205


async def test_a_replay_of_all_ends_with_what_had_happened_when_it_began(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens between two pages of it goes out once, by itself."""
    monkeypatch.setattr("service.replays.PAGE", 2)
    tasks = [await klingel.submit() for _ in range(2)]
    endpoint = await klingel.endpoint()
    path = f"/v1/endpoints/{endpoint['id']}/replay"
    replay = {"since": "2026-11-22T00:00:00Z", "only": "all"}
    async with klingel.writes_held() as are_waiting:
        replayed = asyncio.create_task(klingel.http.post(path, json=replay))
        await are_waiting("make_page", 1)
        called_back = asyncio.create_task(klingel.call_back(succeed(tasks[1])))
        await are_waiting("apply", 1)
    assert (await called_back).status_code == 200
    assert (await replayed).json() == {"replayed": 2}
    await klingel.until_deliveries(*["delivered"] * 3)
    told = [one.event["type"] for one in klingel.receiver.received]
    assert sorted(told) == ["task.submitted", "task.submitted", "task.succeeded"]


async def test_a_replay_with_faults_is_refused(klingel: Klingel) -> None:
    """RFC 3339 with an offset, and nothing that is not known."""
    endpoint = await klingel.endpoint()
    for body, pointer in (
        ({}, "#/since"),
        ({"since": "yesterday"}, "#/since"),
        ({"since": "2026-11-22T00:00:00"}, "#/since"),
        ({"since": 7, "only": "some"}, "#/only"),
        ({"since": "2026-11-22T00:00:00Z", "until": "2026-11-23T00:00:00Z"}, "#/until"),
    ):
        response = await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/replay", json=body)
        assert response.status_code == 422, body
        assert pointer in pointers(response), body


# Disabled by what attempts have shown


async def test_100_failures_in_a_row_over_a_day_disable_it_and_the_others_are_told(klingel: Klingel) -> None:
    """Both at once: a hundred in a minute are an outage, and two over a day are quiet nights."""
    async with Receiver().running() as other:
        watching = await klingel.endpoint(config={"url": other.url}, types=["endpoint.disabled"])
        failing = await klingel.endpoint(types=["*"])
        klingel.receiver.always = 500
        for _ in range(99):
            test = await send_test(klingel, failing["id"])
            await klingel.until_attempts(test["delivery"]["id"], 1)
        assert (await show(klingel, failing["id"]))["failures"] == 99
        assert (await show(klingel, failing["id"]))["failing_since"] == "2026-11-22T12:00:00.000Z"
        klingel.clock.advance(hours=23)  # retries are due, and go out one at a time

        async def failed_again() -> dict[str, Any] | None:
            shown = await show(klingel, failing["id"])
            return shown if shown["failures"] >= 100 else None

        assert (await klingel.until(failed_again))["enabled"]
        klingel.clock.advance(hours=1, minutes=1)
        [told] = await other.until(1)
        assert told.event["type"] == "endpoint.disabled"
        assert told.event["data"]["endpoint"]["id"] == failing["id"]
        assert told.event["data"]["endpoint"]["enabled"] is False
        shown = await show(klingel, failing["id"])
        assert not shown["enabled"]
        assert "attempts in a row failed" in shown["disabled_reason"]
        dead = await klingel.until_deliveries(*["dead"] * 99, endpoint_id=failing["id"], limit="200")
        assert {delivery["event_type"] for delivery in dead} == {"endpoint.test"}
        [only] = await klingel.until_deliveries("delivered", endpoint_id=watching["id"])
        assert only["event_id"] == told.event["id"]
        enabled = await patch(klingel, failing["id"], enabled=True)
        assert (enabled["failures"], enabled["failing_since"], enabled["disabled_reason"]) == (0, None, None)


async def test_tests_of_one_that_failures_have_switched_off_are_tried_again(klingel: Klingel) -> None:
    """By a test its owner finds out whether its place is well again, and one answer of 503 does not say that it is not."""
    endpoint = await klingel.endpoint()
    two_days_ago = 1795176000000
    await klingel.tamper(
        f"update endpoints set failures = 100, failing_since = {two_days_ago},"
        " enabled = 0, disabled_reason = 'it has failed for long'"
    )
    klingel.receiver.answers(503, 503, 200, 200)
    for _ in range(2):
        test = await send_test(klingel, endpoint["id"])
        await klingel.until_attempts(test["delivery"]["id"], 1)
    await klingel.until_deliveries("pending", "pending")
    shown = await show(klingel, endpoint["id"])
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "it has failed for long")
    klingel.clock.advance(seconds=7)
    await klingel.until_deliveries("delivered", "delivered")


async def test_what_its_former_place_failed_does_not_count_at_its_new_one(klingel: Klingel) -> None:
    """One failure more there would have switched it off."""
    endpoint = await klingel.endpoint(types=["endpoint.test"])
    klingel.receiver.always = 500
    for _ in range(BREAKS_AFTER):
        test = await send_test(klingel, endpoint["id"])
        await klingel.until_attempts(test["delivery"]["id"], 1)
    await patch(klingel, endpoint["id"], description="fails")
    assert (await show(klingel, endpoint["id"]))["failures"] == BREAKS_AFTER
    async with Receiver().running() as new:
        moved = await patch(klingel, endpoint["id"], config={"url": new.url}, types=["task.submitted"])
        assert (moved["failures"], moved["failing_since"]) == (0, None)
        await klingel.submit()
        await new.until(1)  # and it does not rest there: the clock stands still


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (
            "webhook",
            {
                "url": "https://example.com/hook",
                "headers": {"x-one": "1", "x-two": "2"},
                "basic_auth": {"username": "me", "password": "s3cret"},
            },
        ),
        ("ntfy", {"server": "https://example.com", "topic": "shop", "token": "tk_secret"}),
        ("mqtt", {"url": "mqtts://example.com", "topic": "shop", "username": "me", "password": "s3cret"}),
        ("mattermost", {"webhook_url": "https://example.com/hooks/abc"}),
        (
            "task",
            {
                "submit": {
                    "type": "kling.multi-image-to-image",
                    "input": dict(IMAGE_INPUT),
                    "endpoints": [{"config": {"url": "https://example.com", "headers": {"x-one": "1"}}}],
                }
            },
        ),
    ],
)
async def test_a_config_that_is_sent_back_as_it_was_read_is_no_change(
    klingel: Klingel, kind: str, config: dict[str, Any]
) -> None:
    """Else whatever was saved without a change would look well again, and nobody would ever switch it off."""
    types = ["task.succeeded"]
    endpoint = await klingel.endpoint(kind=kind, config=config, types=types, enabled=False)
    await klingel.tamper("update endpoints set failures = 7, failing_since = 1795348800000")
    [before] = klingel.rows("select credentials, failures, failing_since from endpoints")
    assert before["credentials"] is not None
    shown = (await show(klingel, endpoint["id"]))["config"]
    for sent in (shown, {}, _in_another_order(shown)):
        await patch(klingel, endpoint["id"], config=sent)
        assert klingel.rows("select credentials, failures, failing_since from endpoints") == [before]


def _in_another_order(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _in_another_order(value) if isinstance(value, dict) else value
        for name, value in reversed(config.items())
    }


async def test_a_secret_that_is_changed_in_a_config_is_a_change_though_it_reads_the_same(
    klingel: Klingel,
) -> None:
    config = {"url": klingel.receiver.url, "headers": {"x-token": "wrong"}}
    endpoint = await klingel.endpoint(config=config)
    klingel.receiver.answers(401)
    test = await send_test(klingel, endpoint["id"])
    await klingel.until_attempts(test["delivery"]["id"], 1)
    assert (await show(klingel, endpoint["id"]))["failures"] == 1
    changed = await patch(klingel, endpoint["id"], config={"headers": {"x-token": "right"}})
    assert (changed["config"], changed["failures"]) == (endpoint["config"], 0)
    await send_test(klingel, endpoint["id"])
    assert (await klingel.receiver.until(2))[-1].headers["x-token"] == "right"


async def test_what_was_sealed_under_a_former_secret_is_sealed_anew_with_the_config(tmp_path: Path) -> None:
    """Then the former KLINGEL_SECRET can go."""
    first, second = "the-first-secret-0123456789", "the-second-secret-0123456789"
    async with running_klingel(tmp_path, secret=first) as klingel:
        config = {"url": klingel.receiver.url, "headers": {"x-token": "t0p"}}
        endpoint = await klingel.endpoint(config=config)
    async with running_klingel(tmp_path, secret=f"{second},{first}") as klingel:
        await patch(klingel, endpoint["id"], config={})
        [row] = klingel.rows("select credentials from endpoints")
    assert json.loads(Vault([second]).open(row["credentials"])) == {"headers": {"x-token": "t0p"}}


async def test_one_success_wipes_the_record_of_failures(klingel: Klingel) -> None:
    """In a row means in a row."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(500, 500, 200)
    for number in range(1, 4):
        test = await send_test(klingel, endpoint["id"])
        await klingel.until_attempts(test["delivery"]["id"], 1)
        shown = await show(klingel, endpoint["id"])
        assert shown["failures"] == number % 3


async def test_of_what_ends_together_a_failure_after_a_success_counts_as_the_first(klingel: Klingel) -> None:
    """Both are recorded in one commit."""
    endpoint = await klingel.endpoint()
    klingel.receiver.answers(500)
    test = await send_test(klingel, endpoint["id"])
    await klingel.until_attempts(test["delivery"]["id"], 1)
    klingel.clock.advance(seconds=2)  # its retry is not due
    turnstile = klingel.receiver.gate = Turnstile()
    klingel.receiver.answers(200, 500)
    for _ in range(2):
        test = await send_test(klingel, endpoint["id"])
    await klingel.receiver.until(3)
    async with klingel.writes_held() as are_waiting:
        for number in (1, 2):
            turnstile.let(1)
            await are_waiting("_record", number)

    async def fails_since_now() -> bool:
        [row] = klingel.rows("select failures, failing_since from endpoints where id = ?", endpoint["id"])
        return (row["failures"], moment(row["failing_since"])) == (1, klingel.clock.now)

    await klingel.until(fails_since_now)


async def test_an_account_has_room_for_so_many_endpoints_and_deleted_or_bound_ones_do_not_count(
    klingel: Klingel,
) -> None:
    """Each event is held against each of them."""
    made = await asyncio.gather(*(klingel.endpoint() for _ in range(ENDPOINTS_OF_AN_ACCOUNT)))
    await klingel.submit(callback_url=klingel.receiver.url)
    refusal = await klingel.http.post("/v1/endpoints", json={"config": {"url": klingel.receiver.url}})
    assert refusal.status_code == 409
    assert refusal.json()["type"] == "/problems/too-many-endpoints"
    assert refusal.json()["limit"] == ENDPOINTS_OF_AN_ACCOUNT
    async with klingel.another_account() as other:
        theirs = await other.post("/v1/endpoints", json={"config": {"url": klingel.receiver.url}})
        assert theirs.status_code == 201
    assert (await klingel.http.delete(f"/v1/endpoints/{made[7]['id']}")).status_code == 204
    await klingel.endpoint()


async def test_of_many_that_are_made_at_once_only_so_many_fit(klingel: Klingel) -> None:
    responses = await asyncio.gather(
        *(
            klingel.http.post("/v1/endpoints", json={"config": {"url": klingel.receiver.url}})
            for _ in range(ENDPOINTS_OF_AN_ACCOUNT + 5)
        )
    )
    assert Counter(response.status_code for response in responses) == {201: ENDPOINTS_OF_AN_ACCOUNT, 409: 5}
