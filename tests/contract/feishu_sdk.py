"""Feishu's own SDK as a receiver, in a process of its own: it imports thousands of modules, though not all that it has."""

import base64
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

# The package imports every API of Feishu's; what receives events needs the events' modules alone.
found = importlib.util.find_spec("lark_oapi")
assert found is not None
assert found.origin is not None
folder = Path(found.origin).parent
for name, path in (("lark_oapi", folder), ("lark_oapi.api", folder / "api")):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(path)]

from lark_oapi.core.enum import LogLevel  # noqa: E402 - after that
from lark_oapi.core.json import JSON  # noqa: E402
from lark_oapi.core.model import RawRequest  # noqa: E402
from lark_oapi.event.dispatcher_handler import EventDispatcherHandler  # noqa: E402

encrypt_key, token, *_ = sys.argv[1:]
heard: list[object] = []


def press(event: object) -> object:
    heard.append(event)
    return {}


receiver = (
    EventDispatcherHandler.builder(encrypt_key, token, LogLevel.CRITICAL)
    .register_p2_im_message_receive_v1(heard.append)
    .register_p2_card_action_trigger(press)
    .build()
)
for line in sys.stdin:
    given = json.loads(line)
    request = RawRequest()
    request.uri, request.body = "/", base64.b64decode(given["body"])
    request.headers = {name.title(): value for name, value in given["headers"].items()}
    heard.clear()
    answer = receiver.do(request)
    event = json.loads(JSON.marshal(heard[0]))["event"] if heard else None
    said = (answer.content or b"").decode()
    sys.stdout.write(json.dumps({"status": answer.status_code, "event": event, "said": said}) + "\n")
