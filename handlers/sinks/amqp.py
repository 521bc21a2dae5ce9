"""AMQP 0-9-1 (RabbitMQ, LavinMQ): the event to an exchange, confirmed once a queue has it."""

from typing import Annotated, ClassVar

from pydantic import Field

from handlers.sinks.brokers import (
    ONE_LINE,
    BrokerConfig,
    BrokerSink,
    Link,
    Template,
    pair_faults,
)
from service.domain.errors import Fault
from service.network.sockets import Socket, Target


class AmqpConfig(BrokerConfig):
    """`password` is kept sealed; readers see that it is there. Without an exchange the key names the queue."""

    exchange: Annotated[str, Field(max_length=127, pattern=ONE_LINE)] = ""
    routing_key: Template = "klingel.{type}"


class AmqpSink(BrokerSink[AmqpConfig]):
    """Delivers to endpoints of kind `amqp`."""

    model = AmqpConfig
    library = "aiormq"
    extra = "amqp"
    schemes: ClassVar = {"amqp": (False, 5672), "amqps": (True, 5671)}

    def faults(self, config: AmqpConfig, target: Target | None, pointer: str) -> list[Fault]:  # noqa: ARG002
        faults = pair_faults(config, pointer)
        # As a short string it has 255 bytes; an id and a type take less than 128 of them.
        if len(config.routing_key.encode()) > 127:
            faults.append(Fault("A routing key has at most 127 bytes here.", f"{pointer}/routing_key"))
        if len(config.exchange.encode()) > 127:
            faults.append(Fault("The name of an exchange has at most 127 bytes.", f"{pointer}/exchange"))
        return faults

    def name(self, config: AmqpConfig) -> str:
        return config.routing_key

    async def connect(self, socket: Socket, target: Target, config: AmqpConfig) -> Link:
        from handlers.sinks.links.amqp import AmqpLink  # noqa: PLC0415 - the library may not be there

        return await AmqpLink.connected(
            socket,
            virtual_host=target.path or "/",
            username=config.username,
            password=config.password,
            exchange=config.exchange,
        )
