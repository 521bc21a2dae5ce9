"""One contract for all kinds of brokers, with the real servers on the other side."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.sinks.brokers import Brokers, BrokerSink, LinkPool, open_brokers
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.events import Event
from service.domain.traces import Trace
from service.domain.values import replace
from service.network.dialler import Guard
from service.network.sockets import open_sockets
from tests.contract.broker_parties import (
    LOOPBACK,
    NOW,
    SINKS,
    VAULT,
    Line,
    an_endpoint,
    an_event,
    certificate,
    duty,
    over_tls,
    tells_the_password,
)
from tests.contract.broker_servers import LARGEST, SERVERS, Received, RedisServer, Server


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.kind)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server: Server = request.param(tmp_path_factory.mktemp(request.param.kind))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def server(running: Server, anyio_backend: str) -> AsyncIterator[Server]:
    await running.prepare()
    yield running
    await running.forget()


@pytest.fixture
async def brokers(anyio_backend: str) -> AsyncIterator[Brokers]:
    async with open_brokers(LOOPBACK) as opened:
        yield opened


@pytest.fixture
def sink(running: Server, brokers: Brokers) -> BrokerSink:
    return SINKS[running.kind](brokers, VAULT)


async def send(sink: BrokerSink, server: Server, event: Event, **config: object) -> Reply:
    endpoint = an_endpoint(sink, server.kind, server.config(**config))
    return await sink.send(duty(endpoint, event), now=NOW)


async def got(server: Server, event: Event) -> list[Received]:
    return [one for one in await server.received() if one.id == event.id]


def endings(*replies: Reply) -> list[AttemptOutcome | None]:
    return [reply.ending for reply in replies]


async def test_the_trace_of_a_task_goes_on_with_its_message(server: Server, sink: BrokerSink) -> None:
    event, trace = an_event(), Trace(f"00-{'a' * 32}-{'b' * 16}-01", "congo=t61rcWkgMzE")
    told = duty(an_endpoint(sink, server.kind, server.config()), event)
    await sink.send(replace(told, trace=trace), now=NOW)
    [received] = await got(server, event)
    assert received.attributes["traceparent"] == trace.parent
    assert received.attributes["tracestate"] == trace.state
    assert received.body == event.body


async def test_an_event_is_delivered_once_the_broker_has_it(server: Server, sink: BrokerSink) -> None:
    event = an_event()
    reply = await send(sink, server, event)
    assert reply.ending is AttemptOutcome.DELIVERED, reply
    [received] = await got(server, event)
    assert received.name == server.name.format(type="task.succeeded")
    assert received.body == event.body
    assert received.attributes | {"datacontenttype": "application/json"} == {
        "specversion": "1.0",
        "id": event.id,
        "source": "/klingel",
        "type": "task.succeeded",
        "time": "2026-11-22T10:00:00.000Z",
        "datacontenttype": "application/json",
        "subject": event.task_id,
        "sequence": "3",
    }


async def test_a_name_may_hold_the_task(server: Server, sink: BrokerSink) -> None:
    event = an_event()
    name = server.name.replace("{type}", "{task_id}")
    await send(sink, server, event, **{server.name_field: name})
    [received] = await got(server, event)
    assert received.name == name.format(task_id=event.task_id)


async def test_each_delivery_of_an_event_arrives(server: Server, sink: BrokerSink) -> None:
    """Of several endpoints with one broker, and of a person's replay: none is a repetition of another."""
    event, config = an_event(), server.config()
    here, beside = (an_endpoint(sink, server.kind, config) for _ in range(2))
    replies = [await sink.send(duty(endpoint, event), now=NOW) for endpoint in (here, beside, here)]
    assert endings(*replies) == [AttemptOutcome.DELIVERED] * 3
    assert [received.body for received in await got(server, event)] == [event.body] * 3


async def test_what_the_broker_refuses_for_now_is_tried_again(server: Server, sink: BrokerSink) -> None:
    event = an_event()
    reply = await send(sink, server, event, **{server.name_field: server.refused_name})
    assert reply.ending is AttemptOutcome.RETRY
    assert reply.status_code is None
    assert await got(server, event) == []


async def test_what_the_broker_can_never_take_is_a_dead_letter_at_once(
    server: Server, sink: BrokerSink
) -> None:
    if isinstance(server, RedisServer):
        await server.put_text("klingel:text")
        reply = await send(sink, server, an_event(), stream="klingel:text")
        assert "not a stream" in reply.reason
    else:
        reply = await send(sink, server, an_event(body=b'"' + b"x" * LARGEST + b'"'))
    assert reply.ending is AttemptOutcome.DEAD, reply


async def test_after_a_refusal_the_next_event_is_delivered(server: Server, sink: BrokerSink) -> None:
    await send(sink, server, an_event(), **{server.name_field: server.refused_name})
    assert endings(await send(sink, server, an_event())) == [AttemptOutcome.DELIVERED]


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong"}, {"username": "nobody"}, {"username": None, "password": None}]
)
async def test_wrong_credentials_are_told_and_tried_again(
    server: Server, sink: BrokerSink, wrong: dict[str, str | None]
) -> None:
    config = {name: value for name, value in server.config(**wrong).items() if value is not None}
    endpoint = an_endpoint(sink, server.kind, config)
    reply = await sink.send(duty(endpoint, an_event()), now=NOW)
    assert reply.ending is AttemptOutcome.RETRY
    assert "credentials" in reply.reason


async def test_no_secret_is_told_by_what_is_stored_shown_answered_or_logged(
    server: Server, sink: BrokerSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = an_endpoint(sink, server.kind, server.config())
    replies = [
        await sink.send(duty(endpoint, an_event()), now=NOW),
        await send(sink, server, an_event(), username="somebody"),
        await send(sink, server, an_event(), **{server.name_field: server.refused_name}),
    ]
    assert endings(*replies) == [AttemptOutcome.DELIVERED, AttemptOutcome.RETRY, AttemptOutcome.RETRY]
    assert not tells_the_password(endpoint, endpoint.view(), *replies, caplog.text)


async def test_a_connection_is_kept_and_used_again(server: Server) -> None:
    async with Line(server.port).running() as line, open_brokers(LOOPBACK) as brokers:
        sink = SINKS[server.kind](brokers, VAULT)
        endpoint = an_endpoint(
            sink, server.kind, server.config(url=f"{server.scheme}://127.0.0.1:{line.port}")
        )
        events = [an_event() for _ in range(4)]
        replies = [await sink.send(duty(endpoint, event), now=NOW) for event in events]
        assert endings(*replies) == [AttemptOutcome.DELIVERED] * 4
        assert line.dialled == 1
        together = await asyncio.gather(*(sink.send(duty(endpoint, an_event()), now=NOW) for _ in range(4)))
        assert endings(*together) == [AttemptOutcome.DELIVERED] * 4
        assert line.dialled <= 4
        # Not with other credentials, though.
        other = an_endpoint(
            sink, server.kind, {**server.config(), "url": endpoint.config["url"], "password": "wrong"}
        )
        assert endings(await sink.send(duty(other, an_event()), now=NOW)) == [AttemptOutcome.RETRY]


async def test_connections_end_when_they_are_idle_and_when_klingel_stops(server: Server) -> None:
    async with Line(server.port).running() as line, open_sockets(LOOPBACK) as sockets:
        url = f"{server.scheme}://127.0.0.1:{line.port}"
        async with LinkPool(idle=timedelta(milliseconds=1)).running() as links:
            sink = SINKS[server.kind](Brokers(sockets, links), VAULT)
            assert endings(await send(sink, server, an_event(), url=url)) == [AttemptOutcome.DELIVERED]
            await line.until_all_are_closed()
        async with LinkPool().running() as links:
            sink = SINKS[server.kind](Brokers(sockets, links), VAULT)
            assert endings(await send(sink, server, an_event(), url=url)) == [AttemptOutcome.DELIVERED]
            assert line.open == 1
        await line.until_all_are_closed()


async def test_no_more_connections_are_kept_than_may_be(server: Server) -> None:
    async with Line(server.port).running() as line, open_sockets(LOOPBACK) as sockets:
        url = f"{server.scheme}://127.0.0.1:{line.port}"
        async with LinkPool(kept=2).running() as links:
            sink = SINKS[server.kind](Brokers(sockets, links), VAULT)
            for _ in range(5):  # each an endpoint of its own
                assert endings(await send(sink, server, an_event(), url=url)) == [AttemptOutcome.DELIVERED]
            await line.until_open(2)
            assert line.dialled == 5


async def test_a_broker_that_hangs_is_cut_off_and_the_next_event_arrives(
    server: Server, sink: BrokerSink
) -> None:
    endpoint = an_endpoint(sink, server.kind, server.config())
    assert endings(await sink.send(duty(endpoint, an_event()), now=NOW)) == [AttemptOutcome.DELIVERED]
    server.pause()
    try:
        for _ in range(2):  # on the connection that is kept, and on a new one
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await sink.send(duty(endpoint, an_event()), now=NOW)
    finally:
        server.go_on()
    event = an_event()
    assert endings(await sink.send(duty(endpoint, event), now=NOW)) == [AttemptOutcome.DELIVERED]
    assert len(await got(server, event)) == 1


async def test_a_broker_may_be_restarted_between_two_events(server: Server, sink: BrokerSink) -> None:
    endpoint = an_endpoint(sink, server.kind, server.config())
    first, lost, second = an_event(), an_event(), an_event()
    assert endings(await sink.send(duty(endpoint, first), now=NOW)) == [AttemptOutcome.DELIVERED]
    await server.forget()
    server.stop()
    reply = await sink.send(duty(endpoint, lost), now=NOW)
    assert (reply.ending, reply.reason) == (None, "could not connect: Connection refused")
    server.start()
    await server.prepare()
    assert endings(await sink.send(duty(endpoint, second), now=NOW)) == [AttemptOutcome.DELIVERED]
    assert len(await got(server, second)) == 1


async def test_where_the_guard_is_closed_no_broker_on_this_machine_is_dialled(server: Server) -> None:
    async with Line(server.port).running() as line, open_brokers(Guard()) as brokers:
        sink = SINKS[server.kind](brokers, VAULT)
        reply = await send(sink, server, an_event(), url=f"{server.scheme}://localhost:{line.port}")
        assert reply.reason.startswith("not dialled: localhost is not allowed")
        assert line.dialled == 0


@pytest.mark.parametrize(
    ("named", "trusted", "outcome"),
    [
        ("localhost", True, (AttemptOutcome.DELIVERED, True)),
        ("other.example", True, (None, False)),
        ("localhost", False, (None, False)),
    ],
)
async def test_tls_checks_the_name_although_an_address_is_dialled(
    server: Server, tmp_path: Path, named: str, *, trusted: bool, outcome: tuple[AttemptOutcome | None, bool]
) -> None:
    files = tmp_path / "tls"
    serving, trusting = certificate(files, named)
    context = trusting if trusted else ssl.create_default_context()
    async with (
        over_tls(server, serving, files) as (secure, url),
        open_brokers(LOOPBACK, context=context) as brokers,
    ):
        sink = SINKS[server.kind](brokers, VAULT)
        event = an_event()
        reply = await send(sink, server, event, url=url)
        assert (reply.ending, bool(await got(secure, event))) == outcome, reply
        assert reply.ending or reply.reason == "its TLS certificate is not valid"
