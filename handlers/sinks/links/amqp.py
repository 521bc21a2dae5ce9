"""A connection to an AMQP 0-9-1 broker, as aiormq speaks it over one of ours."""

import asyncio
import logging
from typing import Any, Self

import aiormq
from aiormq.abc import AbstractChannel
from typing_extensions import override
from yarl import URL

from handlers.sinks.brokers import CONTENT_TYPE, STRANGE, Message, Undelivered
from service.network.sockets import Socket

# What goes wrong is told by the attempt's own line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class _Over(aiormq.TransportFactory):
    """Gives aiormq our connection instead of one that it would dial."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    @override
    async def create(self, url: URL, **_options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._socket.reader, self._socket.writer


class AmqpLink:
    def __init__(
        self, socket: Socket, connection: aiormq.Connection, channel: AbstractChannel, exchange: str
    ) -> None:
        self._socket = socket
        self._connection = connection
        self._channel = channel
        self._exchange = exchange

    @classmethod
    async def connected(
        cls,
        socket: Socket,
        *,
        virtual_host: str,
        username: str | None,
        password: str | None,
        exchange: str,
    ) -> Self:
        # A name that nobody looks up. Without a user name it is guest, as everywhere.
        url = URL.build(scheme="amqp", host="broker", user=username, password=password)
        connection = aiormq.Connection(url, transport_factory=_Over(socket))
        connection.vhost = virtual_host
        try:
            await connection.connect({"connection_name": "klingel"})
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except aiormq.ProbableAuthenticationError:
            raise Undelivered("it refuses the credentials") from None
        except aiormq.ConnectionNotAllowed:
            raise Undelivered("it refuses the virtual host") from None
        except aiormq.ConnectionClosed as error:
            raise Undelivered(f"it refuses the connection{_code(error)}") from None
        except aiormq.AMQPConnectionError:
            raise EOFError from None
        except (aiormq.AMQPError, *STRANGE):
            raise Undelivered("it does not speak AMQP 0-9-1, or not with us") from None
        return cls(socket, connection, channel, exchange)

    @property
    def usable(self) -> bool:
        return self._connection.is_opened and not self._channel.is_closed and self._socket.is_at_rest

    async def publish(self, message: Message) -> str:
        self._socket.begin()
        headers: dict[str, Any] = {f"cloudEvents_{name}": value for name, value in message.attributes.items()}
        del headers["cloudEvents_datacontenttype"]  # is a property
        try:
            await self._channel.basic_publish(
                message.body,
                exchange=self._exchange,
                routing_key=message.name,
                mandatory=True,
                properties=aiormq.spec.Basic.Properties(
                    app_id="klingel",
                    content_type=CONTENT_TYPE,
                    delivery_mode=2,  # survives a restart, in a queue that does
                    headers=headers,
                    message_id=message.id,
                    message_type=message.attributes["type"],
                    timestamp=message.at,
                ),
            )
        except aiormq.PublishError:
            raise Undelivered("no queue is bound for it") from None
        except aiormq.DeliveryError:
            raise Undelivered("the broker did not keep it") from None
        except aiormq.ChannelPreconditionFailed as error:
            raise Undelivered("it does not take this message", excerpt=_text(error), final=True) from None
        except aiormq.ChannelNotFoundEntity as error:
            raise Undelivered("there is no such exchange", excerpt=_text(error)) from None
        except aiormq.ChannelAccessRefused as error:
            raise Undelivered("this user may not publish there", excerpt=_text(error)) from None
        except aiormq.ChannelClosed as error:
            raise Undelivered("it closed the channel", excerpt=_text(error)) from None
        except (aiormq.AMQPConnectionError, aiormq.ChannelInvalidStateError):
            raise EOFError from None
        except (aiormq.AMQPError, *STRANGE) as error:
            raise Undelivered(f"its answer is not AMQP's: {type(error).__name__}") from None
        return f"confirmed for the routing key {message.name}"

    async def close(self) -> None:
        try:
            await self._connection.close()
        except aiormq.AMQPError:  # it is closed, that is all that was asked
            return

    def abort(self) -> None:
        self._socket.abort()


def _code(error: Exception) -> str:
    return f" ({error.args[0]})" if error.args and isinstance(error.args[0], int) else ""


def _text(error: Exception) -> str:
    return " ".join(str(part) for part in error.args)
