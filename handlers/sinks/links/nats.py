"""A connection to NATS, as nats-py speaks it over one of ours."""

import asyncio
import logging
import ssl
from typing import Any, Final, Self
from urllib.parse import ParseResult

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.transport import Transport
from typing_extensions import override

from handlers.sinks.brokers import STRANGE, Message, Undelivered
from service.network.sockets import Socket

# Within its window a stream keeps one message of an id, whatever their subjects: the event's own would keep it from the
# second endpoint of a stream, and from whoever replays it.
MESSAGE_ID: Final = "Nats-Msg-Id"
NO_NATS: Final = "it does not speak NATS, or not with us"
MESSAGE_TOO_LARGE: Final = 10054  # JetStream's code: larger than the stream takes
# The attempt's deadline is our caller's, and shorter.
LONGEST_WAIT_S: Final = 60

# What goes wrong is told by the attempt's own line.
logging.getLogger("nats").setLevel(logging.CRITICAL)
# Our connection turns to TLS in its own way; without one given, nats-py reads the system's authorities each time.
_NOT_USED: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Over(Transport):
    """Our connection, as nats-py wants it: it dials nobody, and sends nothing in the clear that was to be secret."""

    def __init__(self, socket: Socket, *, tls: bool) -> None:
        self._socket = socket
        self._tls = tls
        self._read = 0

    @override
    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """It is."""

    @override
    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        if self._socket.reader.received != self._read:
            raise ConnectionAbortedError("more came before TLS than its greeting")
        await self._socket.secure_now()

    def write(self, payload: bytes) -> None:
        if self._tls and not self._socket.secure:
            raise Undelivered("it offers no TLS")
        self._socket.writer.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        self.write(b"".join(payload))

    @override
    async def read(self, buffer_size: int) -> bytes:
        return await self._socket.reader.read(buffer_size)

    async def readline(self) -> bytes:
        try:
            line = await self._socket.reader.readline()
        except ValueError:
            raise Undelivered(NO_NATS) from None
        self._read += len(line)
        return line

    async def drain(self) -> None:
        await self._socket.writer.drain()

    async def wait_closed(self) -> None:
        await self._socket.close()

    def close(self) -> None:
        self._socket.writer.close()

    def at_eof(self) -> bool:
        return self._socket.reader.at_eof()

    def __bool__(self) -> bool:
        return True


class NatsLink:
    """Servers that the server names are not dialled: there is one connection, and it never becomes another."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._client = Client()
        self._trouble: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connected(
        cls, socket: Socket, *, tls: bool, username: str | None, password: str | None, token: str | None
    ) -> Self:
        link = cls(socket)
        link._client._transport = _Over(socket, tls=tls)  # noqa: SLF001 - it has no other way to be given one
        options: dict[str, Any] = {"user": username, "password": password, "token": token}
        try:
            await link._client.connect(
                "nats://broker",  # a name that nobody looks up
                tls=_NOT_USED,
                allow_reconnect=False,
                connect_timeout=LONGEST_WAIT_S,
                error_cb=link._on_error,
                closed_cb=link._on_closed,
                name="klingel",
                **options,
            )
        except (nats.errors.Error, OSError, EOFError) as error:
            raise _refusal(error) from None
        except STRANGE:
            raise Undelivered(NO_NATS) from None
        return link

    @property
    def usable(self) -> bool:
        return self._client.is_connected and not self._trouble.done() and self._socket.is_at_rest

    async def publish(self, message: Message) -> str:
        self._socket.begin()
        headers = {f"ce-{name}": value for name, value in message.attributes.items()}
        sending = asyncio.create_task(
            self._client.jetstream().publish(
                message.name,
                message.body,
                timeout=LONGEST_WAIT_S,
                headers={MESSAGE_ID: message.delivery_id, **headers},
            )
        )
        try:
            either: set[asyncio.Future[Any]] = {sending, self._trouble}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                error = self._trouble.result()
                raise Undelivered("it refused the message", excerpt=str(error)) if error else EOFError
            acknowledged = sending.result()
        except nats.js.errors.NoStreamResponseError:
            raise Undelivered(f"no JetStream stream keeps the subject {message.name}") from None
        except nats.js.errors.APIError as error:
            raise Undelivered(
                "the stream refused the message",
                excerpt=str(error.description),
                final=error.err_code == MESSAGE_TOO_LARGE,
            ) from None
        except nats.errors.MaxPayloadError:
            raise Undelivered("the message is larger than the server takes", final=True) from None
        except (nats.errors.ConnectionClosedError, nats.errors.StaleConnectionError):
            raise EOFError from None
        except (nats.errors.Error, *STRANGE) as error:
            raise Undelivered(f"its answer is not JetStream's: {type(error).__name__}") from None
        finally:
            sending.cancel()
        again = ", where it was already" if acknowledged.duplicate else ""
        return f"kept as message {acknowledged.seq} of the stream {acknowledged.stream}{again}"

    async def close(self) -> None:
        await self._client.close()

    def abort(self) -> None:
        self._socket.abort()

    async def _on_error(self, error: Exception) -> None:
        if not self._trouble.done():
            broke = isinstance(error, OSError | nats.errors.StaleConnectionError)
            self._trouble.set_result(None if broke else error)

    async def _on_closed(self) -> None:
        if not self._trouble.done():
            self._trouble.set_result(None)


def _refusal(error: Exception) -> Exception:
    """Of a connection; what the server says there is not repeated, for it was just told the credentials."""
    match error:
        case nats.errors.AuthorizationError():
            return Undelivered("it refuses the credentials")
        case nats.errors.Error() if "authorization" in str(error).lower():
            return Undelivered("it refuses the credentials")
        case nats.errors.Error() if "maximum connections" in str(error).lower():
            return Undelivered("it has no room for another connection")
        case nats.errors.Error():
            return Undelivered(NO_NATS)
        case _:
            return error
