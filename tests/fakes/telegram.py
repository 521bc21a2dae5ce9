"""The far side of Telegram's Bot API, played strictly on real sockets: what Telegram would refuse is refused here."""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from aiohttp import web

from tests.contract.push_services import Service

TOKEN = "7100000001:AAHk-a_bot_token_for_tests_0123456789"
USERNAME = "kling_test_bot"
BOT = 7100000001
PERSON = 5100000001
GROUP = -4100000001
SUPERGROUP = -1004100000001
NOW_S = 1795348800

PLACE = {"chat_id", "message_thread_id", "reply_parameters"}
STYLE = {"parse_mode", "reply_markup"}
METHODS: Mapping[str, set[str]] = {
    "getMe": set(),
    "setMyCommands": {"commands"},
    "setWebhook": {"url", "secret_token", "allowed_updates"},
    "sendMessage": {*PLACE, *STYLE, "text", "link_preview_options"},
    "sendPhoto": {*PLACE, *STYLE, "photo", "caption"},
    "sendVideo": {*PLACE, *STYLE, "video", "caption"},
    "editMessageText": {"chat_id", "message_id", *STYLE, "text", "link_preview_options"},
    "editMessageCaption": {"chat_id", "message_id", *STYLE, "caption"},
    "editMessageMedia": {"chat_id", "message_id", "reply_markup", "media"},
    "answerCallbackQuery": {"callback_query_id", "text", "show_alert"},
    "getFile": {"file_id"},
}
TAG = re.compile(r'</?(?:b|i|blockquote|a)>|<a href="[^"<>]+">')
ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#x27);")
LARGEST = {"photo": 5 * 1024 * 1024, "video": 20 * 1024 * 1024}  # by URL


class Refusal(Exception):
    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.body = {"ok": False, "error_code": code, "description": description}
        if parameters:
            self.body["parameters"] = parameters


@dataclass
class Shown:
    """A message of the bot's, as people see it."""

    id: int
    chat: int
    text: str = ""  # or a caption, without the markup
    html: str = ""
    media: tuple[str, str] | None = None  # kind and URL
    markup: Mapping[str, Any] = field(default_factory=dict)
    sent: Mapping[str, Any] = field(default_factory=dict)  # as it first came
    edits: int = 0

    @property
    def buttons(self) -> dict[str, str]:
        rows = self.markup.get("inline_keyboard", [])
        return {button["text"]: button["callback_data"] for row in rows for button in row}


class FakeTelegram(Service):
    def __init__(self) -> None:
        super().__init__()
        self.chats: dict[int, str] = {PERSON: "private", GROUP: "group", SUPERGROUP: "supergroup"}
        self.migrated: dict[int, int] = {}
        self.shown: dict[tuple[int, int], Shown] = {}
        self.files: dict[str, bytes] = {}
        self.media: dict[str, tuple[str, int]] = {}  # what is at a URL: its kind and size
        self.fetches_everything = False
        self.webhook: Mapping[str, Any] = {}
        self.commands: list[Any] = []
        self.notices: dict[str, str | None] = {}
        self.refusals: list[Refusal] = []
        self._last = 100

    def new_id(self) -> int:
        self._last += 1
        return self._last

    # What is sent by it

    def update(self, **what: Any) -> dict[str, Any]:
        return {"update_id": 900000000 + self.new_id(), **what}

    def message(
        self,
        text: str | None = None,
        *,
        chat: int = PERSON,
        person: int = PERSON,
        picture: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """
        Args:
            picture: the name of a file; the text is then its caption.
        """
        said: dict[str, Any] = {
            "message_id": self.new_id(),
            "date": NOW_S,
            "chat": {"id": chat, "type": self.chats[chat], "title": "A chat"},
            "from": {"id": person, "is_bot": False, "first_name": "Ada", "username": "ada"},
        }
        if picture is not None:
            size = len(self.files[picture])
            said["photo"] = [
                {"file_id": f"{name}:{picture}", "file_unique_id": f"{name}{picture}", "width": side,
                 "height": side, "file_size": size // part}
                for name, side, part in (("s", 90, 100), ("x", 1280, 1), ("m", 320, 10))
            ]  # fmt: skip
        if text is not None:
            said["text" if picture is None else "caption"] = text
        return said | more

    def press(self, shown: Shown, label: str, *, person: int = PERSON) -> dict[str, Any]:
        message = {**self.message("…", chat=shown.chat, person=BOT), "message_id": shown.id}
        query = {
            "id": str(self.new_id()),
            "from": {"id": person, "is_bot": False, "first_name": "Ada", "username": "ada"},
            "message": message,
            "chat_instance": "1",
            "data": shown.buttons[label],
        }
        return self.update(callback_query=query)

    async def deliver(self, update: Mapping[str, Any]) -> int:
        """To the webhook; what its answer asks for is done."""
        headers = {"x-telegram-bot-api-secret-token": self.webhook["secret_token"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.webhook["url"], json=update, headers=headers) as response,
        ):
            body = await response.read()
            if response.status == 200 and body:
                assert response.content_type == "application/json"
                call = json.loads(body)
                self.call(call.pop("method"), call)
            return response.status

    # What it is told

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if (file := re.fullmatch(rf"/file/bot{TOKEN}/(.+)", request.path)) is not None:
            return web.Response(body=self.files[file[1].partition("/")[2]])
        match = re.fullmatch(r"/bot([^/]+)/([A-Za-z]+)", request.path)
        if match is None or match[1] != TOKEN or match[2] not in METHODS:
            status = 401 if match is not None and match[2] in METHODS else 404
            text = "Unauthorized" if status == 401 else "Not Found"
            return web.json_response({"ok": False, "error_code": status, "description": text}, status=status)
        try:
            result = self.call(match[2], _content(request, body))
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.code)
        return web.json_response({"ok": True, "result": result})

    def call(self, method: str, content: dict[str, Any]) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        if unknown := set(content) - METHODS[method]:
            raise AssertionError(f"{method} has no {unknown}")
        return getattr(self, f"_{method}")(content)

    def _getMe(self, content: Mapping[str, Any]) -> Any:  # noqa: N802 - the method's name
        return {"id": BOT, "is_bot": True, "first_name": "Kling", "username": USERNAME}

    def _setMyCommands(self, content: Mapping[str, Any]) -> bool:  # noqa: N802
        for command in content["commands"]:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", command["command"]) or not command["description"]:
                raise Refusal(400, "Bad Request: BOT_COMMAND_INVALID")
        self.commands = content["commands"]
        return True

    def _setWebhook(self, content: Mapping[str, Any]) -> bool:  # noqa: N802
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", content.get("secret_token", "")):
            raise Refusal(400, "Bad Request: secret token contains illegal symbols")
        self.webhook = content
        return True

    def _getFile(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        size, _, name = content["file_id"].partition(":")
        if name not in self.files:
            raise Refusal(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        if len(self.files[name]) > 20 * 1024 * 1024:
            raise Refusal(400, "Bad Request: file is too big")
        return {"file_id": content["file_id"], "file_unique_id": name, "file_path": f"{size}/{name}"}

    def _answerCallbackQuery(self, content: Mapping[str, Any]) -> bool:  # noqa: N802
        if len(content.get("text", "")) > 200:
            raise Refusal(400, "Bad Request: MESSAGE_TOO_LONG")
        self.notices[content["callback_query_id"]] = content.get("text")
        return True

    def _sendMessage(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        shown = self._new(content)
        self._write(shown, content, "text", 4096)
        if not shown.text:
            raise Refusal(400, "Bad Request: message text is empty")
        return self._added(shown)

    def _sendPhoto(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        return self._send_media("photo", content)

    def _sendVideo(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        return self._send_media("video", content)

    def _send_media(self, kind: str, content: Mapping[str, Any]) -> Any:
        shown = self._new(content)
        self._fetch(kind, content[kind])
        shown.media = (kind, content[kind])
        self._write(shown, content, "caption", 1024)
        return self._added(shown)

    def _editMessageText(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        shown = self._found(content)
        if shown.media is not None:
            raise Refusal(400, "Bad Request: there is no text in the message to edit")
        before = (shown.html, shown.markup)
        self._write(shown, content, "text", 4096)
        return self._modified(shown, before == (shown.html, shown.markup))

    def _editMessageCaption(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        shown = self._found(content)
        if shown.media is None:
            raise Refusal(400, "Bad Request: there is no caption in the message to edit")
        before = (shown.html, shown.markup)
        self._write(shown, content, "caption", 1024)
        return self._modified(shown, before == (shown.html, shown.markup))

    def _editMessageMedia(self, content: Mapping[str, Any]) -> Any:  # noqa: N802
        shown = self._found(content)
        media = content["media"]
        if set(media) - {"type", "media", "caption", "parse_mode"}:
            raise AssertionError(media)
        self._fetch(media["type"], media["media"])
        shown.media = (media["type"], media["media"])
        self._write(shown, {**content, **media}, "caption", 1024)
        return self._modified(shown, False)

    def _chat(self, content: Mapping[str, Any]) -> int:
        chat = int(content["chat_id"])
        if (new := self.migrated.get(chat)) is not None:
            raise Refusal(
                400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=new
            )
        if chat not in self.chats:
            raise Refusal(400, "Bad Request: chat not found")
        return chat

    def _new(self, content: Mapping[str, Any]) -> Shown:
        chat = self._chat(content)
        reply = content.get("reply_parameters")
        if reply is not None and not reply.get("allow_sending_without_reply"):
            raise AssertionError("the message may have been deleted")
        if "message_thread_id" in content and self.chats[chat] != "supergroup":
            raise Refusal(400, "Bad Request: message thread not found")
        return Shown(self.new_id(), chat, sent=content)

    def _found(self, content: Mapping[str, Any]) -> Shown:
        shown = self.shown.get((self._chat(content), int(content["message_id"])))
        if shown is None:
            raise Refusal(400, "Bad Request: message to edit not found")
        return shown

    def _write(self, shown: Shown, content: Mapping[str, Any], name: str, most: int) -> None:
        text = content.get(name, "")
        shown.html = text
        shown.text = _visible(text) if content.get("parse_mode") == "HTML" else text
        if len(shown.text.encode("utf-16-le")) // 2 > most:
            what = "message" if name == "text" else "message caption"
            raise Refusal(400, f"Bad Request: {what} is too long")
        shown.markup = content.get("reply_markup", {})
        for row in shown.markup.get("inline_keyboard", []):
            for button in row:
                if set(button) != {"text", "callback_data"} or not button["text"]:
                    raise Refusal(400, "Bad Request: can't parse inline keyboard button")
                if not 1 <= len(button["callback_data"].encode()) <= 64:
                    raise Refusal(400, "Bad Request: BUTTON_DATA_INVALID")

    def _fetch(self, kind: str, url: str) -> None:
        if self.fetches_everything:
            return
        if urlsplit(url).scheme not in {"http", "https"}:
            raise Refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")
        what, size = self.media.get(url, ("", 0))
        if what != kind or size > LARGEST[kind]:
            raise Refusal(400, "Bad Request: failed to get HTTP URL content")

    def _added(self, shown: Shown) -> Any:
        self.shown[shown.chat, shown.id] = shown
        return self._json(shown)

    def _modified(self, shown: Shown, is_same: bool) -> Any:
        if is_same:
            raise Refusal(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are "
                "exactly the same as a current content and reply markup of the message",
            )
        shown.edits += 1
        return self._json(shown)

    def _json(self, shown: Shown) -> dict[str, Any]:
        message = {
            "message_id": shown.id,
            "date": NOW_S,
            "chat": {"id": shown.chat, "type": self.chats[shown.chat]},
            "from": {"id": BOT, "is_bot": True, "first_name": "Kling", "username": USERNAME},
        }
        if shown.media is None:
            return {**message, "text": shown.text}
        file = {"file_id": "sent", "file_unique_id": "sent", "width": 1, "height": 1}
        media = [file] if shown.media[0] == "photo" else {**file, "duration": 5}
        return {**message, shown.media[0]: media, "caption": shown.text}


def _content(request: web.Request, body: bytes) -> dict[str, Any]:
    """JSON, or a form whose larger fields are JSON, as the libraries send it."""
    if request.content_type == "application/json":
        content: dict[str, Any] = json.loads(body)
        return content
    if request.content_type == "application/x-www-form-urlencoded":
        return {name: _field(value) for name, value in parse_qsl(body.decode())}
    return {}


def _field(value: str) -> Any:
    return json.loads(value) if value[:1] in {"{", "["} or value in {"true", "false"} else value


def _visible(text: str) -> str:
    """
    Raises:
        Refusal: markup that Telegram does not know, or text that was not escaped.
    """
    bare = TAG.sub("", text)
    if re.search(r"[<>]", bare) or "&" in ENTITY.sub("", bare):
        raise Refusal(400, "Bad Request: can't parse entities: Unsupported start tag")
    for name in ("b", "i", "blockquote", "a"):
        if len(re.findall(rf"<{name}[ >]", text)) != text.count(f"</{name}>"):
            raise Refusal(400, "Bad Request: can't parse entities: Can't find end tag")
    return html.unescape(bare)
