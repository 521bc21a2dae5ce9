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

# Of no event: one that resumes after it has had none, and begins with the oldest that is kept.
BEFORE_EVERY_EVENT: Final = EventId(f"evt_{'0' * 32}")


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


def is_task_id(text: str) -> bool:
    return re.fullmatch(r"task_[0-9a-f]{32}", text) is not None


def is_command_id(text: str) -> bool:
    return re.fullmatch(r"cmd_[0-9a-f]{32}", text) is not None


def first_id(prefix: str, moment: datetime) -> str:
    """Sorts before every id with this prefix that is made at or after a moment, and after all made before it."""
    milliseconds = max(int(moment.timestamp() * 1000), 0)
    return f"{prefix}_{milliseconds:012x}{'0' * 20}"
