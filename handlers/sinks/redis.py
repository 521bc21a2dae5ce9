"""Redis and Valkey: the event as an entry of a stream."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from handlers.sinks.brokers import BrokerConfig, BrokerSink, Link, Template
from service.domain.errors import Fault
from service.network.sockets import Socket, Target


class RedisConfig(BrokerConfig):
    """`password` is kept sealed; readers see that it is there."""

    stream: Template = "klingel"
    max_length: Annotated[
        int | None, Field(ge=1, le=1_000_000_000, description="About how many entries the stream keeps.")
    ] = None


class RedisSink(BrokerSink[RedisConfig]):
    """Delivers to endpoints of kind `redis`."""

    model = RedisConfig
    library = "redis"
    extra = "redis"
    schemes: ClassVar = {"redis": (False, 6379), "rediss": (True, 6379)}

    def faults(self, config: RedisConfig, target: Target | None, pointer: str) -> list[Fault]:
        faults: list[Fault] = []
        if target is not None and not re.fullmatch(r"[0-9]{0,4}", target.path):
            faults.append(
                Fault("The URL cannot be used: its path is the number of a database.", f"{pointer}/url")
            )
        if config.username is not None and config.password is None:
            faults.append(Fault("A user name needs a password.", f"{pointer}/password"))
        return faults

    def name(self, config: RedisConfig) -> str:
        return config.stream

    async def connect(self, socket: Socket, target: Target, config: RedisConfig) -> Link:
        from handlers.sinks.links.redis import RedisLink  # noqa: PLC0415 - the library may not be there

        return await RedisLink.connected(
            socket,
            database=int(target.path or 0),
            username=config.username,
            password=config.password,
            max_length=config.max_length,
        )
