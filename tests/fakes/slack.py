"""Slack, played strictly on a real socket: what it refuses is refused here, and its own SDK reads the blocks."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

from aiohttp import web
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from slack_sdk.signature import SignatureVerifier

from tests.contract.push_services import NOW, Service

TOKEN = "xoxb-a-token-for-tests"
SIGNING_SECRET = "a-signing-secret-for-tests"
TEAM, USER, BOT, BOT_ID = "T024BE7LD", "U2147483697", "U0BOT00001", "B0BOT00001"
CHANNEL, ELSEWHERE, DIRECT = "C2147483705", "C00000000X", "D024BE91L0"
SIGN_IN = "<!DOCTYPE html><html><head><title>Sign in | Slack</title></head></html>"

Json = dict[str, Any]


@dataclass
class Message:
    """In a channel, with all that it was."""

    channel: str
    history: list[Json]
    thread_ts: str | None = None

    @property
    def shown(self) -> Json:
        return self.history[-1]


@dataclass
class File:
    content: bytes
    info: Json = field(default_factory=dict)


class FakeSlack(Service):
    """A workspace with one app in it, a member of `members`."""

    POSTING = frozenset({"channel", "thread_ts", "text", "blocks", "unfurl_links", "unfurl_media"})
    ALLOWED: Mapping[str, frozenset[str]] = {
        "chat.postMessage": POSTING,
        "chat.update": frozenset({"channel", "ts", "text", "blocks"}),
        "chat.postEphemeral": frozenset({"channel", "user", "thread_ts", "text", "blocks"}),
    }

    def __init__(self, *, now: datetime = NOW) -> None:
        super().__init__()
        self.now = now
        self.members = {CHANNEL, DIRECT}
        self.messages: dict[str, Message] = {}  # by `ts`
        self.whispers: list[Json] = []  # what one person alone sees
        self.responses: defaultdict[str, list[Json]] = defaultdict(list)  # by the path of a response_url
        self.hooked: list[Json] = []
        self.hook_refuses: tuple[int, str] | None = None
        self.no_pictures = False  # whether pictures cannot be fetched from where they are said to be
        self.files: dict[str, File] = {}
        self.calls: list[str] = []
        self._given: dict[str, datetime] = {}  # when each response_url was

    # What a person does

    def command(self, text: str, *, trigger_id: str = "13345224609.738474920.8088", **more: str) -> bytes:
        return urlencode(
            {
                "token": "deprecated", "team_id": TEAM, "team_domain": "example",
                "channel_id": CHANNEL, "channel_name": "test", "user_id": USER, "user_name": "Steve",
                "command": "/klingel", "text": text, "api_app_id": "A123456", "is_enterprise_install": "false",
                "response_url": self.response_url(), "trigger_id": trigger_id, **more,
            }
        ).encode()  # fmt: skip

    def response_url(self) -> str:
        path = f"/commands/{TEAM}/{len(self._given) + 1}/a-capability-that-nobody-guesses"
        self._given[path] = self.now
        return self.url + path

    def mention(self, text: str, *, event_id: str = "Ev0PV52K21", **event: Any) -> bytes:
        said = {
            "type": "app_mention",
            "user": USER,
            "text": text,
            "ts": "1515449522.000016",
            "channel": CHANNEL,
        }
        return self.event({**said, "team": TEAM, "event_ts": "1515449522.000016", **event}, event_id=event_id)

    def event(self, event: Json, *, event_id: str = "Ev0PV52K21") -> bytes:
        return json.dumps(
            {
                "token": "deprecated", "team_id": TEAM, "api_app_id": "A0MDYCDME",
                "event": event, "type": "event_callback", "event_id": event_id, "event_time": 1515449522,
                "authorizations": [{"enterprise_id": None, "team_id": TEAM, "user_id": BOT, "is_bot": True}],
            }
        ).encode()  # fmt: skip

    def press(self, message: Message, ts: str, label: str, *, user: str = USER, **more: Any) -> bytes:
        """A button of a message, as it is shown."""
        [button] = [one for one in buttons(message.shown) if one["text"]["text"] == label]
        action = {"type": "button", "block_id": "x", "action_ts": "1548426417.840180"}
        action |= {name: button[name] for name in ("action_id", "text", "value", "url") if name in button}
        under = {"type": "message", "user": BOT, "bot_id": BOT_ID, "ts": ts, "text": message.shown["text"]}
        if message.thread_ts is not None:
            under["thread_ts"] = message.thread_ts
        payload = {
            "type": "block_actions", "team": {"id": TEAM, "domain": "example"}, "api_app_id": "A02",
            "user": {"id": user, "username": "steve", "name": "steve", "team_id": TEAM},
            "channel": {"id": message.channel, "name": "test"}, "message": under,
            "response_url": self.response_url(), "trigger_id": "1.2.3", "actions": [action], **more,
        }  # fmt: skip
        return urlencode({"payload": json.dumps(payload)}).encode()

    def file(self, content: bytes, *, id: str = "F0S43P1CZ", name: str = "cat.png", **info: Any) -> Json:
        """As it is attached to what somebody says."""
        path = f"/files-pri/{TEAM}-{id}/{name}"
        shown = {"id": id, "name": name, "mimetype": "image/png", "user": USER, "size": len(content)}
        shown |= {"is_public": False, "channels": [], "groups": [], "ims": [], "url_private": self.url + path}
        self.files[path] = File(content, shown | info)
        return shown | info

    # What the app does

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        path = request.path
        if request.method == "GET" and path in self.files:
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return web.Response(text=SIGN_IN, content_type="text/html")
            return web.Response(body=self.files[path].content, content_type="image/png")
        if request.method != "POST":
            return web.Response(status=404, text=SIGN_IN, content_type="text/html")
        if path.startswith("/api/"):
            method = path.removeprefix("/api/")
            self.calls.append(method)
            answer = self._call(method, request, body)
            return web.json_response(
                {"ok": isinstance(answer, dict)} | (answer if isinstance(answer, dict) else {"error": answer})
            )
        if path in self._given:
            return self._respond(path, request, body)
        if path == "/services/T1/B1/secret":
            return self._hook(request, body)
        return web.Response(status=404, text="no_team")

    def _call(self, method: str, request: web.Request, body: bytes) -> Json | str:
        """Its answer, or the error's name."""
        if request.headers.get("authorization") is None:
            return "not_authed"
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return "invalid_auth"
        if method == "files.info":
            return self._info(request, body)
        if method not in self.ALLOWED:
            return "unknown_method"
        if request.headers["content-type"] != "application/json; charset=utf-8":
            return "invalid_arguments"
        given = json.loads(body)
        if given.keys() - self.ALLOWED[method]:
            return "invalid_arguments"
        if (error := self._fault(given)) is not None:
            return error
        if given["channel"] not in {CHANNEL, ELSEWHERE, DIRECT}:
            return "channel_not_found"
        if given["channel"] not in self.members:
            return "not_in_channel"
        if method == "chat.update":
            told = self.messages.get(given["ts"])
            if told is None or told.channel != given["channel"]:
                return "message_not_found"
            told.history.append(given)
            return {"channel": told.channel, "ts": given["ts"], "text": given["text"]}
        if method == "chat.postEphemeral":
            self.whispers.append(given)
            return {"message_ts": "1502210682.580145"}
        ts = f"1503435956.{len(self.messages) + 1:06d}"
        self.messages[ts] = Message(given["channel"], [given], given.get("thread_ts"))
        return {"channel": given["channel"], "ts": ts, "message": {"bot_id": BOT_ID, "text": given["text"]}}

    def _info(self, request: web.Request, body: bytes) -> Json | str:
        """It takes no JSON."""
        if request.headers["content-type"] != "application/x-www-form-urlencoded":
            return "invalid_arguments"
        [id] = parse_qs(body.decode())["file"]
        found = [file.info for file in self.files.values() if file.info["id"] == id]
        return {"file": found[0]} if found else "file_not_found"

    def _respond(self, path: str, request: web.Request, body: bytes) -> web.Response:
        if self.now - self._given[path] > timedelta(minutes=30):
            return web.Response(status=404, text="expired_url")
        if len(self.responses[path]) >= 5:
            return web.Response(status=404, text="used_url")
        given = self._hooked(request, body, {"response_type", "replace_original"})
        if isinstance(given, str) or given.get("replace_original") is not False:
            return web.Response(status=400, text=given if isinstance(given, str) else "invalid_payload")
        if given["response_type"] not in {"in_channel", "ephemeral"}:
            return web.Response(status=400, text="invalid_payload")
        self.responses[path].append(given)
        return web.Response(text="ok")

    def _hook(self, request: web.Request, body: bytes) -> web.Response:
        if self.hook_refuses is not None:
            return web.Response(status=self.hook_refuses[0], text=self.hook_refuses[1])
        given = self._hooked(request, body, set())
        if isinstance(given, str):
            return web.Response(status=400, text=given)
        self.hooked.append(given)
        return web.Response(text="ok")

    def _hooked(self, request: web.Request, body: bytes, more: set[str]) -> Json | str:
        if "authorization" in request.headers or not request.headers["content-type"].startswith(
            "application/json"
        ):
            return "invalid_payload"
        given: Json = json.loads(body)
        if given.keys() - {"text", "blocks"} - more:
            return "invalid_payload"
        return self._fault(given) or given

    def _fault(self, given: Json) -> str | None:
        text = given.get("text", "")
        if not text.strip():
            return "no_text"
        if len(text) > 4000:
            return "msg_too_long"
        if "<!" in text or "<@" in text:
            raise AssertionError(f"somebody is called: {text}")
        return None if self._takes(given.get("blocks", [])) else "invalid_blocks"

    def _takes(self, blocks: Sequence[Json]) -> bool:
        if len(blocks) > 50:
            return False
        try:
            for block in blocks:
                read = Block.parse(block)
                assert read is not None, block
                read.validate_json()
        except SlackObjectFormationError:
            return False
        actions = [button["action_id"] for button in buttons({"blocks": blocks})]
        if len(set(actions)) < len(actions) or any(len(text) > 3000 for text in markdown(blocks)):
            return False
        for text in markdown(blocks):
            if "<!" in text or "<@" in text:
                raise AssertionError(f"somebody is called: {text}")
        return not (self.no_pictures and any(block["type"] == "image" for block in blocks))


def signed(
    body: bytes, *, now: datetime = NOW, secret: str = SIGNING_SECRET, **headers: str
) -> dict[str, str]:
    """The headers of a request of Slack's, in lower case, by its own SDK's signature."""
    sent_at = str(int(now.timestamp()))
    signature = SignatureVerifier(secret).generate_signature(timestamp=sent_at, body=body)
    assert signature is not None
    is_json = body.startswith(b"{")
    return {
        "content-type": "application/json" if is_json else "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": sent_at,
        "x-slack-signature": signature,
        **headers,
    }


def buttons(content: Mapping[str, Any]) -> list[Json]:
    return [
        button for block in content["blocks"] if block["type"] == "actions" for button in block["elements"]
    ]


def markdown(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """All texts that are read as markup."""
    return [one["text"] for one in _objects(list(blocks)) if one.get("type") == "mrkdwn"]


def _objects(value: Any) -> Iterator[Json]:
    if isinstance(value, list):
        for one in value:
            yield from _objects(one)
    elif isinstance(value, dict):
        yield value
        yield from _objects(list(value.values()))
