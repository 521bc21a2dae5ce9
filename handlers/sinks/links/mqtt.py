"""A connection to an MQTT 5 broker: mqtt5 reads and writes the packets, one exchange at a time goes over ours."""

import struct
from typing import Final, Self

import mqtt5

from handlers.sinks.brokers import CONTENT_TYPE, IDLE, Message, Undelivered
from service.network.sockets import Socket

PACKET_ID: Final = 1  # there is one message on its way
LARGEST_ANSWER: Final = 64 * 1024
# The broker drops us if we are silent for one and a half of it; before that we have closed.
KEEP_ALIVE_S: Final = 2 * int(IDLE.total_seconds())
# mqtt5's codes have no hash.
FINAL: Final = (mqtt5.PubAckReasonCode.TOPIC_NAME_INVALID, mqtt5.PubAckReasonCode.PAYLOAD_FORMAT_INVALID)
FINAL_ENDS: Final = (
    mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE,
    mqtt5.DisconnectReasonCode.TOPIC_NAME_INVALID,
    mqtt5.DisconnectReasonCode.PAYLOAD_FORMAT_INVALID,
)
CREDENTIALS: Final = (
    mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
)


class MqttLink:
    def __init__(self, socket: Socket, *, retain: bool) -> None:
        self._socket = socket
        self._retain = retain
        self._largest: int | None = None

    @classmethod
    async def connected(
        cls, socket: Socket, *, username: str | None, password: str | None, retain: bool
    ) -> Self:
        link = cls(socket, retain=retain)
        await link._send(
            mqtt5.ConnectPacket(
                client_id="",  # the broker chooses one
                username=username,
                password=None if password is None else password.encode(),
                clean_start=True,
                keep_alive=KEEP_ALIVE_S,
                max_packet_size=LARGEST_ANSWER,
            ).write()
        )
        answer = await link._receive()
        if not isinstance(answer, mqtt5.ConnAckPacket):
            raise Undelivered("it does not speak MQTT 5")
        if answer.reason_code in CREDENTIALS:
            raise Undelivered("it refuses the credentials")
        if answer.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
            raise Undelivered(f"it refuses the connection: {_words(answer.reason_code.name)}")
        if answer.max_qos == mqtt5.QoS.AT_MOST_ONCE:
            raise Undelivered("it acknowledges no messages: its highest QoS is 0")
        if retain and not answer.retain_available:
            raise Undelivered("it retains no messages")
        link._largest = answer.max_packet_size
        socket.put_aside()
        return link

    @property
    def usable(self) -> bool:
        return self._socket.quiet

    async def publish(self, message: Message) -> str:
        self._socket.begin()
        packet = mqtt5.PublishPacket(
            message.name,
            message.body,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            retain=self._retain,
            packet_id=PACKET_ID,
            payload_format_indicator=1,
            content_type=CONTENT_TYPE,
            # Its content type has a place of its own (CloudEvents, "MQTT Protocol Binding", 3.1.1).
            user_properties=[entry for entry in message.attributes.items() if entry[0] != "datacontenttype"],
        ).write()
        if self._largest is not None and len(packet) > self._largest:
            raise Undelivered("the message is larger than the broker takes", final=True)
        await self._send(packet)
        while True:
            match await self._receive():
                case mqtt5.PubAckPacket(packet_id=id) as answer if id == PACKET_ID:
                    break
                case mqtt5.DisconnectPacket() as end:
                    raise Undelivered(
                        f"it ended the connection: {_words(end.reason_code.name)}",
                        excerpt=end.reason_str or "",
                        final=end.reason_code in FINAL_ENDS,
                    )
                case _:
                    raise Undelivered("its answer is not MQTT 5's")
        self._socket.put_aside()
        if answer.reason_code == mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS:
            return "acknowledged; nobody is subscribed"
        if answer.reason_code == mqtt5.PubAckReasonCode.SUCCESS:
            return "acknowledged"
        raise Undelivered(
            f"it refused the message: {_words(answer.reason_code.name)}",
            excerpt=answer.reason_str or "",
            final=answer.reason_code in FINAL,
        )

    async def close(self) -> None:
        if self._socket.open:
            self._socket.writer.write(mqtt5.DisconnectPacket().write())
        await self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    async def _send(self, packet: bytes) -> None:
        self._socket.writer.write(packet)
        await self._socket.writer.drain()

    async def _receive(self) -> object:
        """The next packet (MQTT 5.0, 2.1: a byte for its kind, then its length in up to four)."""
        reader = self._socket.reader
        head = await reader.readexactly(1)
        length = shift = 0
        for shift in (0, 7, 14, 21):
            byte = await reader.readexactly(1)
            head += byte
            length |= (byte[0] & 0x7F) << shift
            if not byte[0] & 0x80:
                break
        if head[-1] & 0x80 or length > LARGEST_ANSWER:
            raise Undelivered("it does not speak MQTT 5")
        packet = head + await reader.readexactly(length)
        try:
            read, _ = mqtt5.read(memoryview(packet))
        except (ValueError, IndexError, struct.error):
            raise Undelivered("it does not speak MQTT 5") from None
        return read


def _words(code: str) -> str:
    return code.lower().replace("_", " ")
