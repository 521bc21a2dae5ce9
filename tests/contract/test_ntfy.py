"""Endpoints of kind `ntfy`, against a server that refuses what ntfy refuses."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from handlers.sinks.ntfy import NtfySink
from service.domain.deliveries import AttemptOutcome, result
from service.domain.events import Event, EventType
from service.domain.faults import InvalidFields
from service.domain.tasks import TaskError
from service.network.dialler import Guard, open_dialler
from tests.contract.push_services import (
    LOOPBACK,
    NOW,
    VAULT,
    FakeNtfy,
    duty_of,
    endpoint_event_of,
    endpoint_of,
    event_of,
    picture,
    video,
)
from tests.ports import free_port

MASK = "••••"
TOKEN = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"


@pytest.fixture
async def sink(anyio_backend: str) -> AsyncIterator[NtfySink]:
    async with open_dialler(LOOPBACK) as dialler:
        yield NtfySink(dialler, VAULT)


@pytest.fixture
async def ntfy(anyio_backend: str) -> AsyncIterator[FakeNtfy]:
    service = FakeNtfy()
    async with service.running():
        yield service


async def published(sink: NtfySink, ntfy: FakeNtfy, event: Event) -> dict[str, Any]:
    endpoint = endpoint_of("ntfy", sink.configure({"server": ntfy.url, "topic": "shop"}, pointer="#"))
    reply = await sink.send(duty_of(endpoint, event), now=NOW)
    assert result(reply, attempt=1, now=NOW).outcome is AttemptOutcome.DELIVERED, reply
    return ntfy.published[-1]


async def outcome(sink: NtfySink, server: str, **config: Any) -> tuple[AttemptOutcome, timedelta | None]:
    endpoint = endpoint_of("ntfy", sink.configure({"server": server, "topic": "shop", **config}, pointer="#"))
    reply = await sink.send(duty_of(endpoint), now=NOW)
    found = result(reply, attempt=1, now=NOW, jitter=0)
    return found.outcome, None if found.next_attempt_at is None else found.next_attempt_at - NOW


async def test_a_finished_video_is_a_notification_with_a_link(sink: NtfySink, ntfy: FakeNtfy) -> None:
    """ntfy, "Publish as JSON": a POST to the root, not to the topic."""
    made = video(duration_s=5.1, expires_at=NOW + timedelta(days=30))
    assert await published(sink, ntfy, event_of(outputs=[made])) == {
        "topic": "shop",
        "title": "Video ready",
        "message": "5.1 s, the provider keeps it until 2026-12-22 12:00 UTC\n"
        "order-1042 · kling.multi-image-to-video",
        "priority": 3,
        "tags": ["white_check_mark"],
        "click": made.url,
        "attach": made.url,
        "actions": [{"action": "view", "label": "Open video", "url": made.url, "clear": True}],
    }


async def test_of_many_pictures_the_first_is_shown_and_three_can_be_opened(
    sink: NtfySink, ntfy: FakeNtfy
) -> None:
    told = await published(sink, ntfy, event_of(outputs=[picture(n) for n in range(5)], makes="image"))
    assert told["title"] == "5 pictures ready"
    assert told["attach"] == "http://example.com/0.png"
    assert [action["label"] for action in told["actions"]] == [
        "Open picture 1",
        "Open picture 2",
        "Open picture 3",
    ]


async def test_klingels_own_copy_is_linked_where_there_is_one(sink: NtfySink, ntfy: FakeNtfy) -> None:
    told = await published(
        sink, ntfy, event_of(outputs=[video(stored_url="http://klingel.example.com/v1/files/a.mp4")])
    )
    assert told["click"] == "http://klingel.example.com/v1/files/a.mp4"


async def test_a_failure_says_why_and_is_urgent(sink: NtfySink, ntfy: FakeNtfy) -> None:
    error = TaskError("1301", "The prompt\nwas \x1b[31mrefused\u202e")
    told = await published(sink, ntfy, event_of(EventType.TASK_FAILED, error=error))
    assert (told["title"], told["priority"], told["tags"]) == ("Video failed", 4, ["x"])
    assert told["message"].splitlines()[0] == "The prompt was [31mrefused (1301)"
    assert "click" not in told


async def test_progress_is_quiet(sink: NtfySink, ntfy: FakeNtfy) -> None:
    told = await published(sink, ntfy, event_of(EventType.TASK_PROCESSING))
    assert (told["title"], told["priority"]) == ("Video in the making", 2)


async def test_a_disabled_endpoint_is_told(sink: NtfySink, ntfy: FakeNtfy) -> None:
    about = {
        "id": "end_2",
        "kind": "webhook",
        "description": "the shop",
        "disabled_reason": "it answered 410 Gone",
    }
    told = await published(sink, ntfy, endpoint_event_of(EventType.ENDPOINT_DISABLED, endpoint=about))
    assert told["message"] == "webhook the shop: it answered 410 Gone"


async def test_a_text_without_end_is_cut_to_what_ntfy_takes(sink: NtfySink, ntfy: FakeNtfy) -> None:
    """Above 4096 bytes ntfy makes a file of it; the fake refuses it."""
    error = TaskError("1301", "ü" * 9000)
    told = await published(
        sink, ntfy, event_of(EventType.TASK_FAILED, error=error, external_task_id="é" * 5000)
    )
    assert "…" in told["message"]


@pytest.mark.parametrize(
    ("config", "authorization"),
    [
        ({"token": TOKEN}, f"Bearer {TOKEN}"),
        (
            {"basic_auth": {"username": "phil", "password": "pässword"}},
            "Basic " + base64.b64encode("phil:pässword".encode()).decode(),
        ),
    ],
)
async def test_a_protected_topic_takes_a_token_or_a_password(
    sink: NtfySink, ntfy: FakeNtfy, config: dict[str, Any], authorization: str
) -> None:
    ntfy.authorization = authorization
    assert await outcome(sink, ntfy.url, **config) == (AttemptOutcome.DELIVERED, None)
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.DEAD, None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
async def test_what_is_refused_for_good_is_not_tried_again(
    sink: NtfySink, ntfy: FakeNtfy, status: int
) -> None:
    ntfy.answers(status, '{"error": "no"}')
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.DEAD, None)


@pytest.mark.parametrize("status", [408, 429, 500, 503, 507])
async def test_what_is_refused_for_now_is_tried_again(sink: NtfySink, ntfy: FakeNtfy, status: int) -> None:
    ntfy.answers(status)
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.RETRY, timedelta(seconds=5))


async def test_retry_after_is_obeyed(sink: NtfySink, ntfy: FakeNtfy) -> None:
    ntfy.answers(429, retry_after="120")
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.RETRY, timedelta(seconds=120))


@pytest.mark.parametrize("body", ["", "<html>Log in</html>", "[]", '{"event": "open"}', '{"success": true}'])
async def test_a_200_that_is_not_ntfys_is_no_success(sink: NtfySink, ntfy: FakeNtfy, body: str) -> None:
    """A portal, or another service at this address, would swallow everything."""
    ntfy.answers(200, body)
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.RETRY, timedelta(seconds=5))


async def test_a_redirect_is_not_followed(sink: NtfySink, ntfy: FakeNtfy) -> None:
    ntfy.answers(307, location=ntfy.url)
    assert await outcome(sink, ntfy.url) == (AttemptOutcome.RETRY, timedelta(seconds=5))
    assert len(ntfy.requests) == 1


async def test_the_deadline_cuts_it_off(sink: NtfySink, ntfy: FakeNtfy) -> None:
    """The sink holds on to nothing: whoever sets the deadline can end it."""
    ntfy.gate = asyncio.Event()
    endpoint = endpoint_of("ntfy", sink.configure({"server": ntfy.url, "topic": "shop"}, pointer="#"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await sink.send(duty_of(endpoint), now=NOW)
    ntfy.gate.set()


async def test_a_dead_server_is_told_in_words(sink: NtfySink) -> None:
    server = f"http://127.0.0.1:{free_port()}"
    endpoint = endpoint_of("ntfy", sink.configure({"server": server, "topic": "shop"}, pointer="#"))
    reply = await sink.send(duty_of(endpoint), now=NOW)
    assert (reply.status_code, reply.reason.startswith("could not connect")) == (None, True)


async def test_a_private_server_is_not_dialled(ntfy: FakeNtfy, anyio_backend: str) -> None:
    async with open_dialler(Guard()) as dialler:
        with pytest.raises(InvalidFields):
            NtfySink(dialler, VAULT).configure({"server": ntfy.url, "topic": "a"}, pointer="#")
        named = ntfy.url.replace("127.0.0.1", "localhost")
        sink = NtfySink(dialler, VAULT)
        endpoint = endpoint_of("ntfy", sink.configure({"server": named, "topic": "a"}, pointer="#"))
        reply = await sink.send(duty_of(endpoint), now=NOW)
    assert reply.reason.startswith("not dialled")
    assert ntfy.requests == []


# Configuration


async def test_all_faults_are_told_at_once(sink: NtfySink) -> None:
    raw = {
        "server": "https://ntfy.sh/topic",
        "topic": "a/b",
        "token": MASK,
        "basic_auth": {"username": "a:b", "password": MASK},
        "colour": "red",
    }
    with pytest.raises(InvalidFields) as caught:
        sink.configure(raw, pointer="#/config")
    assert {fault.pointer for fault in caught.value.faults} == {
        "#/config/server",
        "#/config/topic",
        "#/config/token",
        "#/config/basic_auth",
        "#/config/basic_auth/username",
        "#/config/basic_auth/password",
        "#/config/colour",
    }


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"topic": 7}, {"topic": "a", "server": 7}, {"topic": "a", "server": "x"}]
)
async def test_what_is_no_configuration_is_refused(sink: NtfySink, raw: object) -> None:
    with pytest.raises(InvalidFields):
        sink.configure(raw, pointer="#")


async def test_the_public_server_is_meant_where_none_is_named(sink: NtfySink) -> None:
    assert sink.configure({"topic": "shop"}, pointer="#") == (
        {"server": "https://ntfy.sh", "topic": "shop"},
        None,
    )


async def test_secrets_are_sealed_and_masked(sink: NtfySink) -> None:
    public, sealed = sink.configure({"topic": "shop", "token": TOKEN}, pointer="#")
    assert public == {"server": "https://ntfy.sh", "topic": "shop", "token": MASK}
    assert sealed is not None
    assert TOKEN not in sealed
    assert json.loads(VAULT.open(sealed)) == {"token": TOKEN}


async def test_a_configuration_as_it_was_read_can_be_sent_back(sink: NtfySink) -> None:
    for secret in ({"token": TOKEN}, {"basic_auth": {"username": "phil", "password": "p"}}):
        before = endpoint_of("ntfy", sink.configure({"topic": "shop", **secret}, pointer="#"))
        public, sealed = sink.configure(dict(before.config) | {"topic": "b"}, pointer="#", before=before)
        assert sealed is not None
        assert (public["topic"], json.loads(VAULT.open(sealed))) == ("b", secret)
        assert sink.configure({}, pointer="#", before=before)[0] == before.config


async def test_one_kind_of_credentials_takes_the_others_place_and_null_takes_them_away(
    sink: NtfySink,
) -> None:
    before = endpoint_of("ntfy", sink.configure({"topic": "shop", "token": TOKEN}, pointer="#"))
    basic = {"basic_auth": {"username": "phil", "password": "p"}}
    _, sealed = sink.configure(basic, pointer="#", before=before)
    assert sealed is not None
    assert json.loads(VAULT.open(sealed)) == basic
    assert sink.configure({"token": None}, pointer="#", before=before)[1] is None


async def test_stored_credentials_are_not_carried_to_another_server(sink: NtfySink) -> None:
    """Whoever may change an endpoint may not read its secret, and could have it sent to himself."""
    before = endpoint_of("ntfy", sink.configure({"topic": "shop", "token": TOKEN}, pointer="#"))
    elsewhere = {"server": "https://ntfy.example.com"}
    for raw in (elsewhere, elsewhere | {"token": MASK}):
        with pytest.raises(InvalidFields) as caught:
            sink.configure(raw, pointer="#", before=before)
        assert [fault.pointer for fault in caught.value.faults] == ["#/token"]
    for token in ("tk_another", None):
        assert sink.configure(elsewhere | {"token": token}, pointer="#", before=before)[0]["server"]


async def test_a_server_that_repeats_what_it_was_sent_gives_no_secret_away(
    sink: NtfySink, ntfy: FakeNtfy
) -> None:
    ntfy.answers(401, f"You sent: Bearer {TOKEN}")
    endpoint = endpoint_of(
        "ntfy", sink.configure({"server": ntfy.url, "topic": "shop", "token": TOKEN}, pointer="#")
    )
    reply = await sink.send(duty_of(endpoint), now=NOW)
    assert TOKEN not in repr(reply)
    assert reply.excerpt == f"You sent: {MASK}"
