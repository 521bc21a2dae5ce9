"""A connection to Redis, as redis-py speaks it over one of ours."""

from typing import Any, Final, Self

from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.maint_notifications import MaintNotificationsConfig

from handlers.sinks.brokers import STRANGE, Message, Undelivered
from service.network.sockets import Socket

NO_REDIS: Final = "it does not speak Redis' protocol"
NOT_A_STREAM: Final = "WRONGTYPE"
UNAUTHENTICATED: Final = "unauthenticated"  # said where NOAUTH would come too late


class _Over(AbstractConnection):
    """Dials nobody: neither at first, nor when the server says that it moves."""

    def __init__(self, socket: Socket, **options: Any) -> None:
        super().__init__(
            protocol=2,
            driver_info=None,  # a user may be allowed XADD and nothing else
            socket_timeout=None,  # the attempt's deadline is our caller's
            socket_connect_timeout=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **options,
        )
        self._socket: Socket | None = socket

    async def _connect(self) -> None:
        if self._socket is None:
            raise OSError("the connection is over")
        self._reader, self._writer = self._socket.reader, self._socket.writer
        self._socket = None

    def _host_error(self) -> str:
        return "the server"

    def repr_pieces(self) -> list[tuple[str, Any]]:
        return []


class RedisLink:
    def __init__(self, socket: Socket, connection: AbstractConnection, max_length: int | None) -> None:
        self._socket = socket
        self._connection = connection
        self._trim: tuple[str | int, ...] = () if max_length is None else ("MAXLEN", "~", max_length)

    @classmethod
    async def connected(
        cls,
        socket: Socket,
        *,
        database: int,
        username: str | None,
        password: str | None,
        max_length: int | None,
    ) -> Self:
        connection = _Over(socket, db=database, username=username, password=password)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except exceptions.RedisError as error:
            raise _refusal(error) from None
        except STRANGE:
            raise Undelivered(NO_REDIS) from None
        socket.put_aside()
        return cls(socket, connection, max_length)

    @property
    def usable(self) -> bool:
        return self._socket.quiet

    async def publish(self, message: Message) -> str:
        self._socket.begin()
        fields = [part for entry in message.attributes.items() for part in entry]
        try:
            await self._connection.send_command(
                "XADD", message.name, *self._trim, "*", *fields, "data", message.body, check_health=False
            )
            entry = await self._connection.read_response()
        except exceptions.ResponseError as error:
            raise _rejection(error) from None
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            if isinstance(error, exceptions.BusyLoadingError):
                raise Undelivered("it is still loading its data") from None
            raise EOFError from None
        except (exceptions.RedisError, *STRANGE) as error:
            raise Undelivered(f"its answer is not Redis': {type(error).__name__}") from None
        self._socket.put_aside()
        if not isinstance(entry, bytes):
            raise Undelivered("its answer is not the id of an entry")
        return f"kept as entry {entry.decode(errors='replace')} of the stream {message.name}"

    async def close(self) -> None:
        await self._connection.disconnect()

    def abort(self) -> None:
        self._socket.abort()


def _refusal(error: exceptions.RedisError) -> Exception:
    """Of a connection. What the server says is not repeated: Redis tells back the words of a command it lacks."""
    match error:
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return Undelivered("it refuses the credentials")
        case exceptions.BusyLoadingError():
            return Undelivered("it is still loading its data")
        case exceptions.ConnectionError() if "max number of clients" in str(error):
            return Undelivered("it has no room for another connection")
        case exceptions.InvalidResponse():
            return Undelivered(NO_REDIS)
        case exceptions.ConnectionError():
            return EOFError()
        case _:
            return Undelivered("it refuses the credentials or the database")


def _rejection(error: exceptions.ResponseError) -> Undelivered:
    match error:
        case exceptions.MovedError() | exceptions.AskError():
            return Undelivered("another node of the cluster has this stream; redirects are not followed")
        case exceptions.NoPermissionError():
            return Undelivered("this user may not add to it", excerpt=str(error))
        case exceptions.AuthenticationError():
            return Undelivered("it wants credentials")
        case _ if UNAUTHENTICATED in str(error):
            return Undelivered("it wants credentials")
        case _ if str(error).startswith(NOT_A_STREAM):
            return Undelivered("what it keeps under this name is not a stream", final=True)
        case _:
            return Undelivered("it refused the entry", excerpt=str(error))
