"""Real message brokers, each a process of its own on a port of its own, and how a consumer sees what they keep."""

import asyncio
import base64
import glob
import hashlib
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiormq
import mqtt5
import nats
import pytest
from redis.asyncio import Redis
from yarl import URL

from tests.e2e.processes import until
from tests.ports import free_port

USER = "klingel"
PASSWORD = "correct horse 'battery' staple"
LARGEST = 4096  # bytes of a message, where the broker takes a limit
PATIENCE_S = 180


@dataclass(frozen=True, slots=True)
class Received:
    """A message, as a consumer of this broker gets it."""

    name: str
    body: bytes
    attributes: Mapping[str, str]  # of the CloudEvent
    id: str  # by which it is told from others


def _states(group: int) -> Iterator[str]:
    """Of all threads of a group of processes, as Linux tells them."""
    # Not pathlib's, which minds that a process ends while its folder is read.
    for stat in map(Path, glob.iglob("/proc/[0-9]*/task/[0-9]*/stat")):  # noqa: PTH207
        try:
            state, _parent, its_group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state not in "ZX":
            yield state


def program(name: str, *places: str) -> str:
    """Where a broker's program is. Only where the project's own checks run must it be there."""
    found = next((place for place in places if Path(place).exists()), None) or shutil.which(
        name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    )
    if found is None:
        if "CI" in os.environ:
            pytest.fail(f"{name} is not installed, and .ci/run should have seen to it")
        pytest.skip(f"{name} is not installed")
    return found


class Server(ABC):
    """One broker. Its user may send to what begins with `klingel`, and nowhere else."""

    kind: ClassVar[str]
    scheme: ClassVar[str]
    name_field: ClassVar[str]  # of the configuration
    name: ClassVar[str]  # that the broker accepts
    refused_name: ClassVar[str]  # that it refuses
    too_large_is_final: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder)}

    def config(self, **changes: Any) -> dict[str, Any]:
        return {
            "url": f"{self.scheme}://127.0.0.1:{self.port}",
            "username": USER,
            "password": PASSWORD,
            self.name_field: self.name,
        } | changes

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self.command(),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        try:
            until(
                lambda: self._listens() or self._has_ended(),
                f"a listening {self.kind}",
                patience_s=PATIENCE_S,
            )
            assert not self._has_ended()
        except AssertionError:
            self.stop()
            pytest.fail(f"{self.kind} did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._until(lambda states: not states)  # what it started goes on for a moment
            self._process = None

    def pause(self) -> None:
        """Until every thread of it stands still: a signal takes a moment."""
        self._signal(signal.SIGSTOP)
        self._until(lambda states: states == {"T"})

    def _until(self, done: Callable[[set[str]], bool]) -> None:
        assert self._process is not None
        pid = self._process.pid
        until(
            lambda: done(set(_states(pid))),
            f"the state of {self.kind} that was asked for",
            patience_s=PATIENCE_S,
        )

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    async def prepare(self) -> None:  # noqa: B027 - there may be nothing to do
        """What consumers set up: streams, queues."""

    @abstractmethod
    async def received(self) -> list[Received]:
        """All that a consumer got so far."""

    async def forget(self) -> None:  # noqa: B027 - there may be nothing to do
        """What consumers hold open is let go."""


class NatsServer(Server):
    kind = "nats"
    scheme = "nats"
    name_field = "subject"
    name = "klingel.{type}"
    refused_name = "forbidden.{type}"

    def __init__(self, folder: Path, *, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(folder)
        self._tls = tls

    def command(self) -> list[str]:
        config = self.folder / "nats.conf"
        secure = ""
        if self._tls is not None:
            secure = f'tls {{ cert_file: "{self._tls[0]}", key_file: "{self._tls[1]}" }}'
        config.write_text(
            f"""
            listen: "127.0.0.1:{self.port}"
            max_payload: {LARGEST}
            {secure}
            jetstream {{ store_dir: "{self.folder}" }}
            authorization {{ users: [
                {{ user: "{USER}", password: "{PASSWORD}",
                   permissions: {{ publish: ["klingel.>", "unkept.>"], subscribe: "_INBOX.>" }} }},
                {{ user: "admin", password: "admin" }},
            ] }}
            """
        )
        beside = Path(sys.executable).with_name("nats-server")
        return [program("nats-server", str(beside)), "-c", str(config)]

    async def _admin(self) -> Any:
        trusted = None if self._tls is None else ssl.create_default_context(cafile=self._tls[0])
        if trusted is not None:
            trusted.check_hostname = False
        return await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            user="admin",
            password="admin",
            allow_reconnect=False,
            connect_timeout=PATIENCE_S,
            tls=trusted,
        )

    async def prepare(self) -> None:
        async with await self._admin() as client:
            await client.jetstream(timeout=PATIENCE_S).add_stream(name="EVENTS", subjects=["klingel.>"])

    async def received(self) -> list[Received]:
        async with await self._admin() as client:
            stream = client.jetstream(timeout=PATIENCE_S)
            last = (await stream.stream_info("EVENTS")).state.last_seq
            kept = [await stream.get_msg("EVENTS", seq) for seq in range(1, last + 1)]
        return [
            Received(
                one.subject,
                one.data,
                {
                    name.removeprefix("ce-"): value
                    for name, value in one.headers.items()
                    if name.startswith("ce-")
                },
                one.headers["ce-id"],
            )
            for one in kept
        ]


class MqttServer(Server):
    kind = "mqtt"
    scheme = "mqtt"
    name_field = "topic"
    name = "klingel/{type}"
    refused_name = "forbidden/{type}"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._got: list[Received] = []
        self._changed = asyncio.Condition()
        self._subscriber: asyncio.Task[None] | None = None

    def command(self) -> list[str]:
        salt = secrets.token_bytes(12)
        digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 101)
        (self.folder / "passwords").write_text(
            f"{USER}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
        )
        (self.folder / "access").write_text(f"user {USER}\ntopic readwrite klingel/#\n")
        (self.folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nmax_packet_size {LARGEST}\nuser root\n"
            f"password_file {self.folder}/passwords\nacl_file {self.folder}/access\n"
        )
        return [program("mosquitto"), "-c", str(self.folder / "mosquitto.conf")]

    async def prepare(self) -> None:
        """A subscriber that listens from now on."""
        await self.forget()
        self._changed = asyncio.Condition()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        connect = mqtt5.ConnectPacket("consumer", username=USER, password=PASSWORD.encode(), clean_start=True)
        writer.write(connect.write())
        assert (await _packet(reader)).reason_code == mqtt5.ConnAckReasonCode.SUCCESS
        writer.write(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("klingel/#")]).write())
        assert isinstance(await _packet(reader), mqtt5.SubAckPacket)
        self._subscriber = asyncio.create_task(self._listen(reader, writer))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                match await _packet(reader):
                    case mqtt5.PublishPacket() as one:
                        attributes = dict(one.user_properties) | {"datacontenttype": one.content_type or ""}
                        async with self._changed:
                            self._got.append(Received(one.topic, one.payload, attributes, attributes["id"]))
                            self._changed.notify_all()
                        if one.packet_id is not None:
                            writer.write(mqtt5.PubAckPacket(one.packet_id).write())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def received(self) -> list[Received]:
        """The broker hands out in the order in which it takes: after a message of our own, all before it have come."""
        assert self._subscriber is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        mark = secrets.token_hex(8)
        connect = mqtt5.ConnectPacket("", username=USER, password=PASSWORD.encode(), clean_start=True)
        publish = mqtt5.PublishPacket(
            "klingel/mark",
            mark.encode(),
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=1,
            user_properties=[("id", mark)],
        )
        writer.write(connect.write())
        await _packet(reader)
        writer.write(publish.write())
        await _packet(reader)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            async with self._changed:
                await self._changed.wait_for(lambda: any(one.id == mark for one in self._got))
        return [one for one in self._got if one.name != "klingel/mark"]

    async def forget(self) -> None:
        if self._subscriber is not None:
            self._subscriber.cancel()
            await asyncio.gather(self._subscriber, return_exceptions=True)
            self._subscriber = None


async def _packet(reader: asyncio.StreamReader) -> Any:
    head = await reader.readexactly(2)
    shift, length = 7, head[1] & 0x7F
    while head[-1] & 0x80:
        head += await reader.readexactly(1)
        length |= (head[-1] & 0x7F) << shift
        shift += 7
    packet, _ = mqtt5.read(memoryview(head + await reader.readexactly(length)))
    return packet


class RedisServer(Server):
    kind = "redis"
    scheme = "redis"
    name_field = "stream"
    name = "klingel:{type}"
    refused_name = "forbidden:{type}"
    too_large_is_final = False  # 512 MiB are the least that it can be told to refuse

    def command(self) -> list[str]:
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}\nappendonly yes\nappendfsync always\n"
            f"user default on >admin ~* &* +@all\nuser {USER} on #{digest} ~klingel* +xadd\n"
        )
        return [program("redis-server"), str(self.folder / "redis.conf")]

    async def put_text(self, key: str) -> None:
        async with Redis(port=self.port, password="admin") as client:
            await client.set(key, "text")

    async def received(self) -> list[Received]:
        found: list[tuple[bytes, str, dict[bytes, bytes]]] = []
        async with Redis(port=self.port, password="admin") as client:
            async for key in client.scan_iter("klingel:*", _type="stream"):
                found += [(id, key.decode(), fields) for id, fields in await client.xrange(key)]
        return [
            Received(
                name,
                fields.pop(b"data"),
                {field.decode(): value.decode() for field, value in fields.items()},
                fields[b"id"].decode(),
            )
            for _, name, fields in sorted(
                found, key=lambda entry: [int(part) for part in entry[0].split(b"-")]
            )
        ]


class AmqpServer(Server):
    kind = "amqp"
    scheme = "amqp"
    name_field = "routing_key"
    name = "klingel.{type}"
    refused_name = "unbound.{type}"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._names_port = free_port()
        self._distribution_port = free_port()
        self._names: subprocess.Popen[bytes] | None = None
        self._got: list[Received] = []

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"klingel{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 4",
        }

    def command(self) -> list[str]:
        (self.folder / "rabbitmq.conf").write_text(
            f"default_user = {USER}\ndefault_pass = {PASSWORD}\nmax_message_size = {LARGEST}\n"
            "loopback_users = none\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        # The names' server that Erlang nodes look each other up with would else outlive the tests.
        return [program("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")]

    def start(self) -> None:
        self.command()  # skips where there is no broker
        self._names = subprocess.Popen(
            [program("epmd"), "-port", str(self._names_port), "-address", "127.0.0.1"],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
        )
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None

    async def _channel(self) -> tuple[Any, Any]:
        url = URL.build(scheme="amqp", host="127.0.0.1", port=self.port, user=USER, password=PASSWORD)
        connection = await aiormq.connect(url)
        return connection, await connection.channel()

    async def prepare(self) -> None:
        connection, channel = await self._channel()
        await channel.exchange_declare(exchange="events", exchange_type="topic", durable=True)
        await channel.queue_declare("kept", durable=True)
        await channel.queue_bind("kept", "events", "klingel.#")
        await connection.close()

    def config(self, **changes: Any) -> dict[str, Any]:
        return super().config() | {"exchange": "events"} | changes

    async def received(self) -> list[Received]:
        connection, channel = await self._channel()
        while (one := await channel.basic_get("kept", no_ack=True)).delivery_tag is not None:
            properties = one.header.properties
            attributes = {
                name.removeprefix("cloudEvents_"): value for name, value in properties.headers.items()
            } | {"datacontenttype": properties.content_type}
            self._got.append(Received(one.routing_key, one.body, attributes, properties.message_id))
        await connection.close()
        return list(self._got)


SERVERS: list[type[Server]] = [NatsServer, MqttServer, RedisServer, AmqpServer]
