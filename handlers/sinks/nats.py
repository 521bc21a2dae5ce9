"""NATS: the event on a subject, kept by JetStream."""

import re
from typing import ClassVar, Final

from handlers.sinks.brokers import (
    BrokerConfig,
    BrokerSink,
    Link,
    SecretText,
    Template,
    filled,
    pair_faults,
    path_faults,
)
from service.domain.errors import Fault
from service.network.sockets import Socket, Target

_SUBJECT: Final = re.compile(r"[^\s.*>$\x00-\x20\x7f][^\s.*>\x00-\x20\x7f]*(?:\.[^\s.*>\x00-\x20\x7f]+)*")


class NatsConfig(BrokerConfig):
    """`password` and `token` are kept sealed; readers see that they are there."""

    subject: Template = "klingel.{type}"
    token: SecretText | None = None


class NatsSink(BrokerSink[NatsConfig]):
    """Delivers to endpoints of kind `nats`."""

    model = NatsConfig
    library = "nats"
    extra = "nats"
    schemes: ClassVar = {"nats": (False, 4222), "tls": (True, 4222)}
    secret_fields = ("password", "token")
    tls_from_start = False  # the server speaks first, then both turn to TLS

    def faults(self, config: NatsConfig, target: Target | None, pointer: str) -> list[Fault]:
        faults = path_faults(target, pointer) + pair_faults(config, pointer)
        if config.token is not None and config.username is not None:
            faults.append(Fault("Give a token, or a user name with its password.", f"{pointer}/token"))
        if not _SUBJECT.fullmatch(filled(config.subject, type="t", task_id="t")):
            faults.append(
                Fault(
                    "A subject is words between single dots, without spaces, * and >, and does not begin with $.",
                    f"{pointer}/subject",
                )
            )
        return faults

    def name(self, config: NatsConfig) -> str:
        return config.subject

    async def connect(self, socket: Socket, target: Target, config: NatsConfig) -> Link:
        from handlers.sinks.links.nats import NatsLink  # noqa: PLC0415 - the library may not be there

        return await NatsLink.connected(
            socket, tls=target.tls, username=config.username, password=config.password, token=config.token
        )
