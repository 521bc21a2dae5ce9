"""What stands between Klingel and a broker, or in its place: lines that can be watched and cut, and strangers."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handlers.sinks.amqp import AmqpSink
from handlers.sinks.brokers import BrokerSink
from handlers.sinks.mqtt import MqttSink
from handlers.sinks.nats import NatsSink
from handlers.sinks.redis import RedisSink
from service.domain.deliveries import Duty
from service.domain.endpoints import Endpoint, EndpointDraft
from service.domain.events import Event, EventType
from service.domain.ids import AccountId, new_delivery_id, new_event_id, new_task_id
from service.domain.secrets import Vault
from service.network.dialler import Guard
from tests.contract.broker_servers import PASSWORD, NatsServer, Server
from tests.servers import start_server

LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PATIENCE_S = 30
VAULT = Vault(["a secret of this test alone"])
SINKS: dict[str, type[BrokerSink]] = {
    "nats": NatsSink,
    "mqtt": MqttSink,
    "redis": RedisSink,
    "amqp": AmqpSink,
}


def an_event(*, body: bytes = b'{"data":{"said":"\xc3\xa4"}}') -> Event:
    return Event(
        id=new_event_id(),
        type=EventType.TASK_SUCCEEDED,
        account_id=AccountId("acc_1"),
        task_id=new_task_id(),
        sequence=3,
        at=NOW,
        body=body,
    )


def an_endpoint(sink: BrokerSink, kind: str, config: object) -> Endpoint:
    public, credentials = sink.configure(config, pointer="#/config")
    draft = EndpointDraft(kind=kind, config=public, credentials=credentials, secret="-")
    return draft.made(AccountId("acc_1"), NOW)


def duty(endpoint: Endpoint, event: Event) -> Duty:
    return Duty(id=new_delivery_id(), event=event, endpoint=endpoint, attempt=1, created_at=NOW)


@dataclass
class Line:
    """Passes on what comes to another port; counts connections, and knows when they end."""

    to_port: int
    context: ssl.SSLContext | None = None  # TLS towards whoever dials it
    port: int = 0
    dialled: int = 0
    open: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Line"]:
        server = await start_server(self._pass_on, "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await server.close()
            await self.until_all_are_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        self.open += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.to_port)
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            async with self._changed:
                self.open -= 1
                self._changed.notify_all()

    async def until_all_are_closed(self) -> None:
        await self.until_open(0)

    async def until_open(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self.open == number)


@asynccontextmanager
async def over_tls(server: Server, context: ssl.SSLContext, files: Path) -> AsyncIterator[tuple[Server, str]]:
    """The broker, and its URL as localhost, behind TLS. NATS begins without, so it must do that itself."""
    if isinstance(server, NatsServer):
        secure = NatsServer(files.with_suffix(""), tls=(files.with_suffix(".pem"), files.with_suffix(".key")))
        secure.folder.mkdir(exist_ok=True)
        secure.start()
        try:
            await secure.prepare()
            yield secure, f"tls://localhost:{secure.port}"
        finally:
            secure.stop()
        return
    async with Line(server.port, context).running() as line:
        yield server, f"{server.scheme}s://localhost:{line.port}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stranger:
    """Listens where a broker should be, and does what it likes."""

    serve: Serve
    port: int = 0
    dialled: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)  # a connection was made
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a connection was closed from the other side

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stranger"]:
        server = await start_server(self._handle, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        self.began.set()
        try:
            await self.serve(reader, writer)
            while await reader.read(65536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.set()
            writer.close()


def certificate(files: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for a host, and a client's that trusts it.

    Args:
        files: without their endings, which are .pem and .key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = files.with_suffix(".pem"), files.with_suffix(".key")
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=public)


def tells_the_password(*texts: object) -> bool:
    return any(PASSWORD in str(text) or repr(PASSWORD)[1:-1] in str(text) for text in texts)
