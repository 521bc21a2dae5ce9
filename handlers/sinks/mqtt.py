"""MQTT 5: the event on a topic, acknowledged at QoS 1."""

import re
from typing import ClassVar, Final

from handlers.sinks.brokers import BrokerConfig, BrokerSink, Link, Template, filled, path_faults
from service.domain.errors import Fault
from service.network.sockets import Socket, Target

_TOPIC: Final = re.compile(r"[^$+#][^+#]*")


class MqttConfig(BrokerConfig):
    """`password` is kept sealed; readers see that it is there."""

    topic: Template = "klingel/{type}"
    retain: bool = False


class MqttSink(BrokerSink[MqttConfig]):
    """Delivers to endpoints of kind `mqtt`."""

    model = MqttConfig
    library = "mqtt5"
    extra = "mqtt"
    schemes: ClassVar = {"mqtt": (False, 1883), "mqtts": (True, 8883)}

    def faults(self, config: MqttConfig, target: Target | None, pointer: str) -> list[Fault]:
        faults = path_faults(target, pointer)
        if not _TOPIC.fullmatch(filled(config.topic, type="t", task_id="t")):
            faults.append(Fault("A topic has no + and no #, and does not begin with $.", f"{pointer}/topic"))
        return faults

    def name(self, config: MqttConfig) -> str:
        return config.topic

    async def connect(self, socket: Socket, target: Target, config: MqttConfig) -> Link:  # noqa: ARG002
        from handlers.sinks.links.mqtt import MqttLink  # noqa: PLC0415 - the library may not be there

        return await MqttLink.connected(
            socket, username=config.username, password=config.password, retain=config.retain
        )
