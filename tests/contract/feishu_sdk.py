"""Feishu's own SDK as a receiver, in a process of its own: it imports ten thousand modules."""

import base64
import json
import sys

import lark_oapi

encrypt_key, token, *_ = sys.argv[1:]
heard: list[object] = []


def press(event: object) -> object:
    heard.append(event)
    return {}


receiver = (
    lark_oapi.EventDispatcherHandler.builder(encrypt_key, token, lark_oapi.LogLevel.CRITICAL)
    .register_p2_im_message_receive_v1(heard.append)
    .register_p2_card_action_trigger(press)
    .build()
)
for line in sys.stdin:
    given = json.loads(line)
    request = lark_oapi.RawRequest()
    request.uri, request.body = "/", base64.b64decode(given["body"])
    request.headers = {name.title(): value for name, value in given["headers"].items()}
    heard.clear()
    answer = receiver.do(request)
    event = json.loads(lark_oapi.JSON.marshal(heard[0]))["event"] if heard else None
    said = (answer.content or b"").decode()
    sys.stdout.write(json.dumps({"status": answer.status_code, "event": event, "said": said}) + "\n")
