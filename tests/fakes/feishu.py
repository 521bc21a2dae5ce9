"""Feishu, played strictly on a real socket: what it refuses is refused here, and its cards are read by their letter."""

import base64
import email
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.contract.push_services import NOW, Service

APP, APP_SECRET = "cli_9f1c2b7a8d3e500c", "dskLLdkasdjlasdKKlFKhs0DFyT8UxPC"
VERIFICATION, ENCRYPT = "rvaYgkND1GOiu5MM0E1rncYC6PLtF7JV", "kudryavka-kudryavka"
WEBHOOK_SECRET = "Z9UkNm2WvSx3oP1qRt5yBc"
TENANT, USER, STRANGER = "2ca1d211f64f6438", "ou_ada84af8d1d3a1", "ou_someone0else0"
GROUP, DIRECT, ELSEWHERE = "oc_5ad11d72b830411d72b836c20", "oc_d1rect0000000000000000000", "oc_elsewhere"
HOOK = "/open-apis/bot/v2/hook/a-capability-that-nobody-guesses"
EDITED_FOR = timedelta(days=14)

Json = dict[str, Any]


@dataclass
class Shown:
    """A card in a chat, with all that it was."""

    chat: str
    answers: str | None
    in_thread: bool
    sent_at: datetime
    history: list[Json]
    recalled: bool = False

    @property
    def card(self) -> Json:
        return self.history[-1]

    @property
    def words(self) -> str:
        return " | ".join(texts(self.card))


class FakeFeishu(Service):
    """A tenant with one app in it, whose bot is in `members`, and a group with a custom bot."""

    def __init__(self, *, now: datetime = NOW, encrypt_key: str | None = ENCRYPT) -> None:
        super().__init__()
        self.now = now
        self.encrypt_key = encrypt_key
        self.members = {GROUP, DIRECT}
        self.said: dict[str, str] = {}  # by whom it was said: the chat
        self.shown: dict[str, Shown] = {}
        self.uploaded: dict[str, bytes] = {}
        self.refused_keys: set[str] = set()
        self.files: dict[tuple[str, str], bytes] = {}  # by message and key
        self.pictures: dict[str, bytes] = {}  # elsewhere on the web
        self.hooked: list[Json] = []
        self.webhook_secret: str | None = None
        self.keyword = ""
        self.calls: list[str] = []
        self.given = 0  # tokens
        self.good_token: str | None = None
        self._sent: dict[str, str] = {}  # by uuid

    # What a person does

    def message(
        self,
        text: str,
        *,
        pictures: Mapping[str, bytes] | None = None,
        chat: str = GROUP,
        id: str = "om_x100b5f6a1c",
        sender: str = USER,
        event_id: str = "5e3702a84e847582be8db7fb73283c02",
        **more: Any,
    ) -> Json:
        """With pictures it is a post. In a group the bot is mentioned."""
        self.said[id] = chat
        is_group = chat != DIRECT
        if pictures is None:
            content: Json = {"text": f"@_user_1 {text}" if is_group else text}
        else:
            self.files |= {(id, key): picture for key, picture in pictures.items()}
            head = [{"tag": "at", "user_id": "@_user_1", "user_name": "Klingel"}] if is_group else []
            said = [*head, {"tag": "text", "text": f" {text}", "style": []}]
            shown = [[{"tag": "img", "image_key": key, "width": 300, "height": 300}] for key in pictures]
            content = {"title": "", "content": [said, *shown]}
        bot = {"open_id": "ou_the0bot", "union_id": "on_b", "user_id": ""}
        mention = {
            "key": "@_user_1",
            "id": bot,
            "name": "Klingel",
            "mentioned_type": "bot",
            "tenant_key": TENANT,
        }
        message = {
            "message_id": id, "create_time": "1609073151345", "chat_id": chat,
            "chat_type": "group" if is_group else "p2p", "message_type": "text" if pictures is None else "post",
            "content": json.dumps(content, ensure_ascii=False), "mentions": [mention] if is_group else [], **more,
        }  # fmt: skip
        who = {"open_id": sender, "union_id": "on_1", "user_id": "e33ggbyz"}
        by = {"sender_id": who, "sender_type": "user", "tenant_key": TENANT}
        return self.event("im.message.receive_v1", {"sender": by, "message": message}, event_id=event_id)

    def press(
        self, id: str, label: str, *, user: str = USER, event_id: str = "f7984f25108f8137722bb63cee927e66"
    ) -> Json:
        """A button of a card, as it is shown."""
        shown = self.shown[id]
        [button] = [one for one in buttons(shown.card) if one["text"]["content"] == label]
        [behavior] = button["behaviors"]
        assert behavior["type"] == "callback", behavior
        event = {
            "operator": {"tenant_key": TENANT, "open_id": user, "union_id": "on_1", "user_id": None},
            "token": "c-295ee57216a5dc9de90fefd0aadb4b1d7d", "action": {"value": behavior["value"], "tag": "button"},
            "host": "im_message", "context": {"open_message_id": id, "open_chat_id": shown.chat},
        }  # fmt: skip
        return self.event("card.action.trigger", event, event_id=event_id)

    def event(self, type: str, event: Json, *, event_id: str = "e1", token: str = VERIFICATION) -> Json:
        header = {
            "event_id": event_id, "event_type": type, "create_time": "1608725989000", "token": token,
            "app_id": APP, "tenant_key": TENANT,
        }  # fmt: skip
        return {"schema": "2.0", "header": header, "event": event}

    def sent(self, event: Json, *, now: datetime | None = None) -> tuple[dict[str, str], bytes]:
        """As it goes out: the headers, in lower case, and the bytes."""
        body = json.dumps(event, ensure_ascii=False).encode()
        headers = {"content-type": "application/json;charset=utf-8"}
        if self.encrypt_key is None:
            return headers, body
        body = json.dumps({"encrypt": encrypted(body, self.encrypt_key)}).encode()
        return headers | signed(body, self.encrypt_key, now=now or self.now), body

    # What the app does

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        path = request.path.removeprefix("/open-apis/")
        if request.method == "GET" and request.path in self.pictures:
            return web.Response(body=self.pictures[request.path], content_type="image/png")
        if request.path == HOOK:
            return self._hook(request, body)
        self.calls.append(f"{request.method} {path}")
        if path == "auth/v3/tenant_access_token/internal":
            return self._token(_json(request, body))
        if request.headers.get("authorization") != f"Bearer {self.good_token}" or self.good_token is None:
            return _answer(99991663, "Invalid access token for authorization", status=400)
        match request.method, path.split("/"):
            case "POST", ["im", "v1", "images"]:
                return self._upload(request, body)
            case "POST", ["im", "v1", "messages"] if request.query_string == "receive_id_type=chat_id":
                given = _json(request, body)
                return self._create(given, given.pop("receive_id"), None)
            case "POST", ["im", "v1", "messages", id, "reply"]:
                if id not in self.said and (id not in self.shown or self.shown[id].recalled):
                    return _answer(230011, "The message is recalled", status=400)
                chat = self.said.get(id) or self.shown[id].chat
                return self._create(_json(request, body), chat, id)
            case "PATCH", ["im", "v1", "messages", id]:
                return self._patch(id, _json(request, body))
            case "GET", ["im", "v1", "messages", id, "resources", key] if (
                request.query_string == "type=image"
            ):
                if (id, key) not in self.files:
                    return _answer(234003, "File not in msg.", status=400)
                return web.Response(body=self.files[id, key], content_type="application/octet-stream")
        return web.Response(status=404, text="404 page not found")

    def ends_token(self) -> None:
        self.good_token = None

    def _token(self, given: Json) -> web.Response:
        if given != {"app_id": APP, "app_secret": APP_SECRET}:
            return web.json_response({"code": 10014, "msg": "app secret invalid"})
        self.given += 1
        self.good_token = f"t-g1044ghJRUIJJ5ELPwzDWt{self.given}"
        return web.json_response(
            {"code": 0, "msg": "ok", "tenant_access_token": self.good_token, "expire": 7140}
        )

    def _upload(self, request: web.Request, body: bytes) -> web.Response:
        form = email.message_from_bytes(
            b"content-type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + body
        )
        parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        if parts.keys() != {"image_type", "image"} or parts["image_type"].get_payload() != "message":
            return _answer(234001, "Invalid request param.", status=400)
        assert parts["image"].get_filename()
        content = parts["image"].get_payload(decode=True)
        assert isinstance(content, bytes)
        if not content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF", b"GIF8")):
            return _answer(234011, "Can't regonnize the image format.", status=400)
        key = f"img_v3_{len(self.uploaded):04d}-41b5-9d5c"
        self.uploaded[key] = content
        return _answer(0, "success", {"image_key": key})

    def _create(self, given: Json, chat: str, answers: str | None) -> web.Response:
        in_thread = given.pop("reply_in_thread", False)
        uuid = given.pop("uuid", None)
        if chat not in self.members:
            return _answer(230002, "The bot can not be outside the group.", status=400)
        if given.keys() != {"msg_type", "content"} or given["msg_type"] != "interactive":
            return _answer(230001, "invalid request parameter", status=400)
        if (refused := self._refused(given["content"])) is not None:
            return refused
        if uuid is not None and uuid in self._sent:
            return _answer(0, "success", {"message_id": self._sent[uuid], "chat_id": chat})
        id = f"om_dc13264520392913993dd051dba2{len(self.shown):04d}"
        self.shown[id] = Shown(chat, answers, in_thread, self.now, [json.loads(given["content"])])
        if uuid is not None:
            assert len(uuid) <= 50
            self._sent[uuid] = id
        return _answer(0, "success", {"message_id": id, "chat_id": chat, "msg_type": "interactive"})

    def _patch(self, id: str, given: Json) -> web.Response:
        if given.keys() != {"content"} or id not in self.shown:
            return _answer(230001, "invalid request parameter", status=400)
        shown = self.shown[id]
        if shown.recalled:
            return _answer(230011, "The message is recalled.", status=400)
        if self.now - shown.sent_at > EDITED_FOR:
            return _answer(230031, "Message can only be modified within 14 days after sending.", status=400)
        if (refused := self._refused(given["content"])) is not None:
            return refused
        card = json.loads(given["content"])
        if not all(one.get("config", {}).get("update_multi") is True for one in (shown.card, card)):
            return _answer(230099, "not a shared card", status=400)
        shown.history.append(card)
        return _answer(0, "success", {})

    def _refused(self, content: object) -> web.Response | None:
        if not isinstance(content, str):
            return _answer(230001, "content is not a string in json format", status=400)
        if len(content.encode()) > 30 * 1024:
            return _answer(230025, "The length of the message content reaches its limit.", status=400)
        card = json.loads(content)
        if any(one["img_key"] not in self.uploaded.keys() - self.refused_keys for one in images(card)):
            return _answer(
                230099, "Failed to create card content, ErrCode: 11310; invalid image keys", status=400
            )
        check(card)
        return None

    def _hook(self, request: web.Request, body: bytes) -> web.Response:
        given = _json(request, body)
        if len(body) > 20 * 1024:
            return web.json_response({"code": 19036, "msg": "request body too large"})
        timestamp, sign = given.pop("timestamp", None), given.pop("sign", None)
        if self.webhook_secret is not None:
            age = self.now.timestamp() - int(timestamp or 0)
            if abs(age) > 3600 or sign != webhook_sign(timestamp, self.webhook_secret):
                return web.json_response(
                    {"code": 19021, "msg": "sign match fail or timestamp is not within one hour"}
                )
        if given.keys() != {"msg_type", "card"} or given["msg_type"] != "interactive":
            return web.json_response({"code": 9499, "msg": "Bad Request"})
        if any(one["img_key"] not in self.uploaded for one in images(given["card"])):
            return web.json_response({"code": 11246, "msg": "invalid image keys"})
        check(given["card"])
        assert not any(one["behaviors"][0]["type"] == "callback" for one in buttons(given["card"]))
        if self.keyword not in json.dumps(given["card"], ensure_ascii=False):
            return web.json_response({"code": 19024, "msg": "Key Words Not Found"})
        self.hooked.append(given["card"])
        return web.json_response(
            {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}
        )


def encrypted(content: bytes, key: str) -> str:
    vector, padding = b"0123456789abcdef", 16 - len(content) % 16
    aes = Cipher(algorithms.AES256(hashlib.sha256(key.encode()).digest()), modes.CBC(vector)).encryptor()
    return base64.b64encode(
        vector + aes.update(content + bytes([padding]) * padding) + aes.finalize()
    ).decode()


def signed(body: bytes, key: str, *, now: datetime = NOW, nonce: str = "1628671234") -> dict[str, str]:
    sent_at = str(int(now.timestamp()))
    signature = hashlib.sha256(f"{sent_at}{nonce}{key}".encode() + body).hexdigest()
    return {
        "x-lark-request-timestamp": sent_at,
        "x-lark-request-nonce": nonce,
        "x-lark-signature": signature,
    }


def webhook_sign(timestamp: str, secret: str) -> str:
    return base64.b64encode(hmac.new(f"{timestamp}\n{secret}".encode(), digestmod="sha256").digest()).decode()


def check(card: Json) -> None:
    """A card of schema 2.0 has what its pages list, and nothing else; whatever is said in it is plain text."""
    assert card["schema"] == "2.0"
    assert card.keys() <= {"schema", "config", "header", "body"}
    if "header" in card:
        assert card["header"]["template"] in {"blue", "green", "red", "orange", "grey"}
        assert card["header"]["title"]["tag"] == "plain_text"
        assert card["header"]["title"]["content"].strip()
    for element in _elements(card):
        match element["tag"]:
            case "div":
                assert element["text"].keys() <= {"tag", "content", "text_color"}
                assert element["text"]["tag"] == "plain_text"
                assert element["text"]["content"].strip()
            case "img":
                assert element.keys() == {"tag", "img_key", "alt"}
            case "button":
                assert element["text"]["content"].strip()
                [behavior] = element["behaviors"]
                assert behavior["type"] in {"open_url", "callback"}
                if behavior["type"] == "open_url":
                    assert behavior["default_url"].startswith("http")
            case "column_set":
                assert all(column["tag"] == "column" for column in element["columns"])
            case tag:
                raise AssertionError(tag)


def texts(card: Json) -> list[str]:
    head = [card["header"]["title"]["content"]] if "header" in card else []
    return head + [one["text"]["content"] for one in _elements(card) if one["tag"] == "div"]


def images(card: Json) -> list[Json]:
    return [one for one in _elements(card) if one["tag"] == "img"]


def buttons(card: Json) -> list[Json]:
    return [one for one in _elements(card) if one["tag"] == "button"]


def _elements(card: Json) -> list[Json]:
    found: list[Json] = []
    left: Sequence[Json] = card["body"]["elements"]
    while left:
        found += left
        left = [
            one for element in left for column in element.get("columns", ()) for one in column["elements"]
        ]
    return found


def _json(request: web.Request, body: bytes) -> Json:
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    given: Json = json.loads(body)
    return given


def _answer(code: int, msg: str, data: Json | None = None, *, status: int = 200) -> web.Response:
    return web.json_response({"code": code, "msg": msg, "data": data or {}}, status=status)
