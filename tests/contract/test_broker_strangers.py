"""What listens where a broker should be: silent, loud, or after the credentials."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.sinks.brokers import Brokers, open_brokers
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.values import replace
from tests.contract.broker_parties import (
    LOOPBACK,
    NOW,
    SINKS,
    VAULT,
    Serve,
    Stranger,
    an_endpoint,
    an_event,
    duty,
    tells_the_password,
)
from tests.contract.broker_servers import PASSWORD, USER, NatsServer

SCHEMES = {"nats": "nats", "mqtt": "mqtt", "redis": "redis", "amqp": "amqp"}
INFO = {"server_id": "S", "version": "2.15.0", "max_payload": 1048576, "headers": True, "auth_required": True}
CONNACK = b"\x20\x03\x00\x00\x00"

kinds = pytest.mark.parametrize("kind", SINKS)


@pytest.fixture
async def brokers(anyio_backend: str) -> AsyncIterator[Brokers]:
    async with open_brokers(LOOPBACK) as opened:
        yield opened


async def send(brokers: Brokers, kind: str, port: int, *, scheme: str | None = None) -> Reply:
    sink = SINKS[kind](brokers, VAULT)
    config = {
        "url": f"{scheme or SCHEMES[kind]}://127.0.0.1:{port}",
        "username": USER,
        "password": PASSWORD,
    }
    return await sink.send(duty(an_endpoint(sink, kind, config), an_event()), now=NOW)


def says(*parts: bytes) -> Serve:
    """Says so at once, whatever comes, and waits."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return serve


async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@kinds
async def test_silence_is_cut_off_and_leaves_no_connection(kind: str, brokers: Brokers) -> None:
    async with Stranger(says()).running() as stranger:
        sending = asyncio.create_task(send(brokers, kind, stranger.port))
        await stranger.began.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sending
        async with asyncio.timeout(60):
            await stranger.ended.wait()


@kinds
@pytest.mark.parametrize(
    "serve",
    [
        hangs_up,
        says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        says(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        says(b"\x00" * 65536),
        says(b"\xff" * 65536),
        says(*[b"x" * 65536] * 40),
        says(b"$" + b"9" * 30 + b"\r\n"),
        says(b"*1\r\n" * 20000),
        says(b"INFO {\r\n"),
        says(b"INFO []\r\n"),
        says(b"AMQP\x00\x01\x00\x00"),
    ],
    ids=[
        "hangs up",
        "http",
        "ssh",
        "zeros",
        "ones",
        "flood",
        "huge",
        "deep",
        "half json",
        "other json",
        "other amqp",
    ],
)
async def test_what_is_no_broker_is_told_and_tried_again(
    kind: str, serve: Serve, brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Stranger(serve).running() as stranger:
        try:
            async with asyncio.timeout(0.5):
                reply = await send(brokers, kind, stranger.port)
        except TimeoutError:  # some of it may be the beginning of something
            return
        assert reply.ending in {None, AttemptOutcome.RETRY}
        assert reply.reason
        assert not tells_the_password(reply, caplog.text)


@kinds
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(greeting=st.binary(min_size=1, max_size=200))
async def test_no_bytes_at_all_break_a_sink(kind: str, greeting: bytes) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETINGS[kind] + greeting)
        writer.close()

    async with open_brokers(LOOPBACK) as brokers, Stranger(serve).running() as stranger:
        reply = await send(brokers, kind, stranger.port)
        assert reply.ending in {None, AttemptOutcome.RETRY}, reply


GREETINGS = {
    "nats": b"INFO " + json.dumps(INFO).encode() + b"\r\nPONG\r\n",
    "mqtt": CONNACK,
    "redis": b"+OK\r\n",
    "amqp": b"",
}


async def test_redis_words_about_a_command_it_lacks_are_not_repeated(brokers: Brokers) -> None:
    """They are the command's own words: for AUTH the password."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(PASSWORD.encode())
        words = f"'{USER}' '{PASSWORD}' "
        writer.write(f"-ERR unknown command 'AUTH', with args beginning with: {words}\r\n".encode())

    async with Stranger(serve).running() as stranger:
        reply = await send(brokers, "redis", stranger.port)
    assert reply.ending is AttemptOutcome.RETRY
    assert not tells_the_password(reply)


async def test_a_broker_that_tells_the_password_is_not_quoted_with_it(brokers: Brokers) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(PASSWORD.encode())
        writer.write(b"+OK\r\n")
        await reader.readuntil(b"XADD")
        writer.write(f"-ERR I know that it is {PASSWORD}\r\n".encode())

    async with Stranger(serve).running() as stranger:
        reply = await send(brokers, "redis", stranger.port)
    assert reply.excerpt == "I know that it is ••••" or reply.excerpt.endswith("I know that it is ••••")


async def test_a_move_to_another_node_is_not_followed(brokers: Brokers) -> None:
    async with Stranger(says()).running() as elsewhere:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(PASSWORD.encode())
            writer.write(b"+OK\r\n")
            await reader.readuntil(b"XADD")
            writer.write(f"-MOVED 866 127.0.0.1:{elsewhere.port}\r\n".encode())

        async with Stranger(serve).running() as stranger:
            reply = await send(brokers, "redis", stranger.port)
        assert (reply.ending, elsewhere.dialled) == (AttemptOutcome.RETRY, 0)
        assert "another node" in reply.reason


async def test_nats_servers_that_a_server_names_are_not_dialled(brokers: Brokers) -> None:
    async with Stranger(says()).running() as elsewhere:
        gossip = INFO | {"connect_urls": [f"127.0.0.1:{elsewhere.port}", f"localhost:{elsewhere.port}"]}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"INFO " + json.dumps(gossip).encode() + b"\r\n")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\nINFO " + json.dumps(gossip).encode() + b"\r\n")
            await reader.readuntil(b"HPUB")
            writer.close()

        async with Stranger(serve).running() as stranger:
            reply = await send(brokers, "nats", stranger.port)
            again = await send(brokers, "nats", stranger.port)
        assert [reply.reason, again.reason] == ["the connection broke"] * 2
        assert (stranger.dialled, elsewhere.dialled) == (2, 0)


async def test_nats_credentials_are_not_sent_in_the_clear_where_tls_was_asked_for(brokers: Brokers) -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
        heard.extend(await reader.read())

    async with Stranger(serve).running() as stranger:
        reply = await send(brokers, "nats", stranger.port, scheme="tls")
        async with asyncio.timeout(60):
            await stranger.ended.wait()
    assert (reply.ending, reply.reason) == (AttemptOutcome.RETRY, "it offers no TLS")
    assert not heard


async def test_nothing_that_came_in_the_clear_counts_as_come_over_tls(brokers: Brokers) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(INFO | {"tls_required": True}).encode() + b"\r\n+OK\r\nPONG\r\n")

    async with Stranger(serve).running() as stranger:
        reply = await send(brokers, "nats", stranger.port, scheme="tls")
    assert "before TLS" in reply.reason


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (0x00, AttemptOutcome.DELIVERED),
        (0x10, AttemptOutcome.DELIVERED),  # nobody is subscribed
        (0x80, AttemptOutcome.RETRY),
        (0x87, AttemptOutcome.RETRY),  # not authorized
        (0x90, AttemptOutcome.DEAD),  # topic name invalid
        (0x97, AttemptOutcome.RETRY),  # quota exceeded
        (0x99, AttemptOutcome.DEAD),  # payload format invalid
    ],
)
async def test_what_mqtt_says_about_a_message_is_heard(
    code: int, ending: AttemptOutcome, brokers: Brokers
) -> None:
    """MQTT 5.0, 3.4.2.1: a PUBACK with 0x80 or more is a refusal."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        await reader.readuntil(b'{"data"')
        writer.write(bytes([0x40, 0x04, 0x00, 0x01, code, 0x00]))

    async with Stranger(serve).running() as stranger:
        reply = await send(brokers, "mqtt", stranger.port)
    assert reply.ending is ending


async def test_a_message_larger_than_a_nats_stream_takes_is_a_dead_letter(
    tmp_path: Path, brokers: Brokers
) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with await server._admin() as client:
            await client.jetstream().add_stream(name="SMALL", subjects=["klingel.>"], max_msg_size=10)
        reply = await send(brokers, "nats", server.port)
        assert (reply.ending, reply.reason) == (AttemptOutcome.DEAD, "the stream refused the message")
    finally:
        server.stop()


async def test_a_delivery_that_is_attempted_twice_is_kept_once_by_nats(
    tmp_path: Path, brokers: Brokers
) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        await server.prepare()
        sink = SINKS["nats"](brokers, VAULT)
        told = duty(an_endpoint(sink, "nats", server.config()), an_event())
        replies = [await sink.send(replace(told, attempt=attempt), now=NOW) for attempt in (1, 2)]
        assert [reply.ending for reply in replies] == [AttemptOutcome.DELIVERED] * 2
        assert len(await server.received()) == 1
    finally:
        server.stop()


async def test_nats_without_a_stream_for_the_subject_delivers_nothing(
    tmp_path: Path, brokers: Brokers
) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        reply = await send(brokers, "nats", server.port)
        assert (reply.ending, reply.reason) == (
            AttemptOutcome.RETRY,
            "no JetStream stream keeps the subject klingel.task.succeeded",
        )
    finally:
        server.stop()
