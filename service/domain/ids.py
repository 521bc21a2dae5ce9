"""Ids that sort by the time they were made: a prefix that names the kind, then a UUIDv7 in hex."""

import re
from datetime import datetime
from typing import Final, NewType

import uuid_utils

AccountId = NewType("AccountId", str)
TaskId = NewType("TaskId", str)
EventId = NewType("EventId", str)
EndpointId = NewType("EndpointId", str)
DeliveryId = NewType("DeliveryId", str)
CallbackId = NewType("CallbackId", str)
KeyId = NewType("KeyId", str)
BotId = NewType("BotId", str)
CommandId = NewType("CommandId", str)
ProcessId = NewType("ProcessId", str)
LaneKey = NewType("LaneKey", str)  # of those who wait for each other when they are delivered to

_PLACE: Final = re.compile(r"evt_0{17}([0-9a-f]{15})")  # no UUIDv7 begins so


def _new(prefix: str) -> str:
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def new_account_id() -> AccountId:
    return AccountId(_new("acc"))


def new_task_id() -> TaskId:
    return TaskId(_new("task"))


def new_event_id() -> EventId:
    return EventId(_new("evt"))


def new_endpoint_id() -> EndpointId:
    return EndpointId(_new("end"))


def new_delivery_id() -> DeliveryId:
    return DeliveryId(_new("dlv"))


def new_callback_id() -> CallbackId:
    return CallbackId(_new("cbk"))


def new_key_id() -> KeyId:
    return KeyId(_new("key"))


def new_bot_id() -> BotId:
    return BotId(_new("bot"))


def new_command_id() -> CommandId:
    return CommandId(_new("cmd"))


def new_process_id() -> ProcessId:
    return ProcessId(_new("proc"))


def id_pattern(prefix: str) -> str:
    return rf"{prefix}_[0-9a-f]{{32}}"


def is_task_id(text: str) -> bool:
    return re.fullmatch(id_pattern("task"), text) is not None


def is_command_id(text: str) -> bool:
    return re.fullmatch(id_pattern("cmd"), text) is not None


def first_id(prefix: str, moment: datetime) -> str:
    """Sorts before every id with this prefix that is made at or after a moment, and after all made before it."""
    milliseconds = max(int(moment.timestamp() * 1000), 0)
    return f"{prefix}_{milliseconds:012x}{'0' * 20}"


def id_of_place(position: int) -> EventId:
    """Of no event, but of a place in the log: who resumes after it has had what is up to there, whether that is kept or not."""
    return EventId(f"evt_{position:032x}")


def place_of_id(id: str) -> int | None:
    """The position of which it is; None for an event's own id, and for what is none."""
    found = _PLACE.fullmatch(id)
    return None if found is None else int(found[1], 16)
