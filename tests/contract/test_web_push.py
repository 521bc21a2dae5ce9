"""Endpoints of kind `web_push`, against a push service that verifies and a browser that decrypts."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from handlers.sinks.web_push import WebPushSink
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.endpoints import Endpoint
from service.domain.errors import ConfigurationError
from service.domain.events import Event, EventType
from service.domain.faults import InvalidFields
from service.domain.secrets import PushKeys, Vault
from service.domain.tasks import TaskError
from service.network.dialler import Dialler, Guard, open_dialler
from tests.contract.push_services import (
    LOOPBACK,
    NOW,
    VAULT,
    Browser,
    FakePushService,
    duty_of,
    endpoint_of,
    event_of,
    picture,
    video,
)

MASK = "••••"
SECRET = "a-secret-for-tests-0123456789"
KEYS = PushKeys([SECRET])
URL = "https://klingel.example.com"


@pytest.fixture
async def dialler(anyio_backend: str) -> AsyncIterator[Dialler]:
    async with open_dialler(LOOPBACK) as dialler:
        yield dialler


@pytest.fixture
def sink(dialler: Dialler) -> WebPushSink:
    return WebPushSink(dialler, VAULT, KEYS, reachable_url=URL)


@pytest.fixture
async def service(anyio_backend: str) -> AsyncIterator[FakePushService]:
    service = FakePushService(Browser(KEYS.public))
    async with service.running():
        yield service


def configured(sink: WebPushSink, service: FakePushService, **config: Any) -> Endpoint:
    raw = {"subscription": service.subscription, **config}
    return endpoint_of("web_push", sink.configure(raw, pointer="#"))


async def pushed(sink: WebPushSink, service: FakePushService, event: Event) -> dict[str, Any]:
    reply = await sink.send(duty_of(configured(sink, service), event), now=NOW)
    assert (reply.status_code, outcome(reply)) == (201, AttemptOutcome.DELIVERED), reply
    return service.pushed[-1]


def outcome(reply: Reply) -> AttemptOutcome:
    return result(reply, attempt=1, now=NOW).outcome


def headers(service: FakePushService) -> dict[str, str]:
    return dict(service.requests[-1][0])


def test_the_browser_here_reads_the_example_of_the_standard() -> None:
    """RFC 8291, appendix A: so that what it reads from us is read as any browser would."""
    private = int.from_bytes(base64.urlsafe_b64decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94="))
    browser = Browser(
        "",
        private_key=ec.derive_private_key(private, ec.SECP256R1()),
        auth=base64.urlsafe_b64decode("BTBZMqHH6r4Tts7J_aSIgg=="),
    )
    body = (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK"
        "6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert browser.decrypt(base64.urlsafe_b64decode(body)) == b"When I grow up, I want to be a watermelon"


async def test_the_browser_gets_what_its_worker_needs_to_show(
    sink: WebPushSink, service: FakePushService
) -> None:
    event = event_of(outputs=[picture()], makes="image")
    assert await pushed(sink, service, event) == {
        "title": "Picture ready",
        "body": "order-1042 · kling.multi-image-to-image",
        "url": picture().url,
        "image": picture().url,
        "tag": event.task_id,
        "type": "task.succeeded",
        "event_id": event.id,
        "sequence": 3,
    }
    assert (headers(service)["ttl"], headers(service)["urgency"]) == ("86400", "normal")
    assert b"order-1042" not in service.requests[-1][1]


async def test_the_push_service_learns_who_sends_and_for_how_long(
    sink: WebPushSink, service: FakePushService
) -> None:
    """RFC 8292, 2; that the signature is ours the fake has verified."""
    await pushed(sink, service, event_of())
    assert service.claims == [
        {"aud": service.url, "exp": int((NOW + timedelta(hours=12)).timestamp()), "sub": URL}
    ]


async def test_without_an_https_address_the_contact_is_a_mail_address(
    dialler: Dialler, service: FakePushService
) -> None:
    """`sub` must be https or mailto; Mozilla's service takes no token without one."""
    await pushed(
        WebPushSink(dialler, VAULT, KEYS, reachable_url="http://127.0.0.1:8000"), service, event_of()
    )
    assert service.claims[0]["sub"] == "mailto:klingel@localhost"


async def test_how_long_it_waits_can_be_chosen(sink: WebPushSink, service: FakePushService) -> None:
    await sink.send(duty_of(configured(sink, service, ttl_s=60)), now=NOW)
    assert headers(service)["ttl"] == "60"


async def test_a_failure_is_urgent_and_progress_is_not(sink: WebPushSink, service: FakePushService) -> None:
    for type, urgency in ((EventType.TASK_FAILED, "high"), (EventType.TASK_PROCESSING, "low")):
        await pushed(sink, service, event_of(type))
        assert headers(service)["urgency"] == urgency


async def test_of_what_waits_only_the_last_progress_and_the_result_are_kept(
    sink: WebPushSink, service: FakePushService
) -> None:
    """RFC 8030, 5.4. A late retry of an earlier event has another topic than the result: it replaces it never."""
    topics: dict[EventType, str] = {}
    for type in (EventType.TASK_SUBMITTED, EventType.TASK_PROCESSING, EventType.TASK_SUCCEEDED):
        await pushed(sink, service, event_of(type))
        topics[type] = headers(service)["topic"]
    assert topics[EventType.TASK_SUBMITTED] == topics[EventType.TASK_PROCESSING]
    assert topics[EventType.TASK_SUCCEEDED] != topics[EventType.TASK_PROCESSING]
    await pushed(sink, service, event_of(task_id=event_of().task_id.replace("402", "403")))  # type: ignore[union-attr, arg-type]
    assert headers(service)["topic"] not in topics.values()


async def test_a_long_text_is_cut_before_a_link(sink: WebPushSink, service: FakePushService) -> None:
    """At most 4096 bytes, encrypted: the fake refuses more."""
    long = "http://example.com/" + "é" * 1500 + ".mp4"
    error = TaskError("1301", "\\ü" * 4000)
    told = await pushed(
        sink, service, event_of(outputs=[video(long)], error=error, external_task_id="ü" * 500)
    )
    assert told["url"] == long
    assert told["body"].endswith("…")
    assert len(service.requests[-1][1]) > 3500


async def test_a_link_that_fits_nowhere_is_left_out(sink: WebPushSink, service: FakePushService) -> None:
    told = await pushed(sink, service, event_of(outputs=[video("http://example.com/" + "x" * 5000)]))
    assert "url" not in told
    assert told["title"] == "Video ready"


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_ended_ends_the_endpoint(
    sink: WebPushSink, service: FakePushService, status: int
) -> None:
    """RFC 8030, 7.3."""
    service.answers(status)
    reply = await sink.send(duty_of(configured(sink, service)), now=NOW)
    assert (outcome(reply), reply.reason) == (AttemptOutcome.GONE, "the subscription has ended")


@pytest.mark.parametrize("status", [400, 401, 403, 413])
async def test_what_is_refused_for_good_is_not_tried_again(
    sink: WebPushSink, service: FakePushService, status: int
) -> None:
    service.answers(status)
    assert outcome(await sink.send(duty_of(configured(sink, service)), now=NOW)) is AttemptOutcome.DEAD


@pytest.mark.parametrize("status", [429, 500, 502, 503, 307])
async def test_what_is_refused_for_now_is_tried_again(
    sink: WebPushSink, service: FakePushService, status: int
) -> None:
    service.answers(status, location=service.url)
    assert outcome(await sink.send(duty_of(configured(sink, service)), now=NOW)) is AttemptOutcome.RETRY
    assert len(service.requests) == 1


async def test_retry_after_is_obeyed(sink: WebPushSink, service: FakePushService) -> None:
    service.answers(429, retry_after="90")
    reply = await sink.send(duty_of(configured(sink, service)), now=NOW)
    assert result(reply, attempt=1, now=NOW, jitter=0).next_attempt_at == NOW + timedelta(seconds=90)


async def test_the_deadline_cuts_it_off(sink: WebPushSink, service: FakePushService) -> None:
    service.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await sink.send(duty_of(configured(sink, service)), now=NOW)
    service.gate.set()


async def test_a_private_address_is_not_dialled(service: FakePushService, anyio_backend: str) -> None:
    """Subscriptions come from browsers: their URLs are anybody's."""
    async with open_dialler(Guard()) as dialler:
        sink = WebPushSink(dialler, VAULT, KEYS, reachable_url=URL)
        with pytest.raises(InvalidFields) as caught:
            configured(sink, service)
    assert [fault.pointer for fault in caught.value.faults] == ["#/subscription/endpoint"]


# Keys


def test_each_secret_has_its_key_pair_and_the_newest_is_given_out() -> None:
    both = PushKeys(["another-secret-0123456789", SECRET])
    assert KEYS.public == PushKeys([SECRET]).public
    assert both.public == PushKeys(["another-secret-0123456789"]).public
    assert both.private(KEYS.public) == KEYS.private(KEYS.public) is not None
    assert KEYS.private(both.public) is None


async def test_a_subscription_outlives_the_rotation_of_klingels_secret(
    dialler: Dialler, sink: WebPushSink, service: FakePushService
) -> None:
    """A browser is bound to the key that it subscribed under: the endpoint keeps that key."""
    before = configured(sink, service)
    rotated = WebPushSink(
        dialler, Vault(["a-new-secret-0123456789", SECRET]), PushKeys(["a-new-secret-0123456789"]),
        reachable_url=URL,
    )  # fmt: skip
    assert (await rotated.send(duty_of(before), now=NOW)).status_code == 201
    resealed = endpoint_of("web_push", rotated.configure({}, pointer="#", before=before))
    assert resealed.config == before.config
    alone = WebPushSink(
        dialler, Vault(["a-new-secret-0123456789"]), PushKeys(["a-new-secret-0123456789"]), reachable_url=URL
    )
    assert (await alone.send(duty_of(resealed), now=NOW)).status_code == 201
    with pytest.raises(ConfigurationError):
        await alone.send(duty_of(before), now=NOW)


async def test_a_page_that_subscribed_just_before_a_rotation_names_its_key(
    dialler: Dialler, service: FakePushService
) -> None:
    rotated = WebPushSink(dialler, VAULT, PushKeys(["a-new-secret-0123456789", SECRET]), reachable_url=URL)
    endpoint = configured(rotated, service, public_key=KEYS.public)
    assert (await rotated.send(duty_of(endpoint), now=NOW)).status_code == 201
    with pytest.raises(InvalidFields) as caught:
        configured(rotated, service, public_key="B" + "A" * 86)
    assert [fault.pointer for fault in caught.value.faults] == ["#/public_key"]


# Configuration


async def test_a_subscription_is_sealed_and_masked(sink: WebPushSink, service: FakePushService) -> None:
    endpoint = configured(sink, service)
    assert endpoint.config == {
        "subscription": {
            "endpoint": f"{service.url}/{MASK}",
            "keys": {"p256dh": MASK, "auth": MASK},
        },
        "public_key": KEYS.public,
        "ttl_s": 86_400,
    }
    assert endpoint.credentials is not None
    kept = json.loads(VAULT.open(endpoint.credentials))
    assert kept["subscription"]["endpoint"] == service.subscription["endpoint"]
    assert kept["private_key"] not in repr(endpoint)


async def test_a_configuration_as_it_was_read_can_be_sent_back(
    sink: WebPushSink, service: FakePushService
) -> None:
    before = configured(sink, service)
    changed = endpoint_of(
        "web_push", sink.configure(dict(before.config) | {"ttl_s": 5}, pointer="#", before=before)
    )
    assert changed.config == dict(before.config) | {"ttl_s": 5}
    assert (await sink.send(duty_of(changed), now=NOW)).status_code == 201


async def test_a_new_subscription_takes_the_old_ones_place(
    sink: WebPushSink, service: FakePushService
) -> None:
    before = configured(sink, service)
    service.browser = Browser(KEYS.public, auth=b"fedcba9876543210")
    changed = sink.configure({"subscription": service.subscription}, pointer="#", before=before)
    assert (await sink.send(duty_of(endpoint_of("web_push", changed)), now=NOW)).status_code == 201


async def test_all_faults_are_told_at_once(sink: WebPushSink) -> None:
    raw = {
        "subscription": {
            "endpoint": "ftp://example.com",
            "keys": {"p256dh": "B" + "A" * 86, "auth": "short", "more": "x"},
        },
        "public_key": 7,
        "ttl_s": -1,
        "colour": "red",
    }
    with pytest.raises(InvalidFields) as caught:
        sink.configure(raw, pointer="#/config")
    assert {fault.pointer for fault in caught.value.faults} == {
        "#/config/subscription/endpoint",
        "#/config/subscription/keys/p256dh",
        "#/config/subscription/keys/auth",
        "#/config/subscription/keys/more",
        "#/config/public_key",
        "#/config/ttl_s",
        "#/config/colour",
    }


async def test_a_key_that_is_not_klingels_is_told_with_other_faults(
    sink: WebPushSink, service: FakePushService
) -> None:
    with pytest.raises(InvalidFields) as caught:
        configured(sink, service, public_key="nope", ttl_s=-1)
    assert sorted(fault.pointer for fault in caught.value.faults) == ["#/public_key", "#/ttl_s"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ttl_s": -1}, ["#/ttl_s"]),
        ({"public_key": KEYS.public, "ttl_s": -1}, ["#/ttl_s"]),
        ({"public_key": []}, ["#/public_key"]),
    ],
)
async def test_the_key_of_a_former_secret_is_no_fault_of_a_change(
    dialler: Dialler, sink: WebPushSink, service: FakePushService, change: dict[str, Any], told: list[str]
) -> None:
    before = configured(sink, service)
    new = "a-new-secret-0123456789"
    rotated = WebPushSink(dialler, Vault([new, SECRET]), PushKeys([new]), reachable_url=URL)
    with pytest.raises(InvalidFields) as caught:
        rotated.configure(change, pointer="#", before=before)
    assert [fault.pointer for fault in caught.value.faults] == told


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"subscription": None},
        {"subscription": {"endpoint": "https://example.com/a"}},
        {"subscription": {"endpoint": f"https://example.com/{MASK}", "keys": {"p256dh": MASK, "auth": MASK}}},
        {"subscription": {"endpoint": "https://example.com/a", "keys": {"p256dh": "é" * 87, "auth": "é"}}},
    ],
)
async def test_what_is_no_subscription_is_refused(sink: WebPushSink, raw: object) -> None:
    with pytest.raises(InvalidFields):
        sink.configure(raw, pointer="#")


async def test_a_service_that_repeats_what_it_was_sent_gives_no_secret_away(
    sink: WebPushSink, service: FakePushService
) -> None:
    service.answers(403, f"POST {service.PATH}")
    reply = await sink.send(duty_of(configured(sink, service)), now=NOW)
    assert service.PATH not in repr(reply)
