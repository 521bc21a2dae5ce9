"""Mattermost, played strictly on a real socket: what its server refuses is refused here."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from tests.contract.push_services import NOW, Service

COMMAND_TOKEN = "gr4u5hp1rjg1mxm9gcqo8x5c1e"
WEBHOOK_TOKEN = "xbiah3z1rbbhzjo7obbhnn8h4e"
BOT_TOKEN = "q4k8o7p5zjdpdnnm8ecqrxcbde"
TEAM, CHANNEL, ELSEWHERE = "ke9rfdkzi7fp3nzmh5hmpcuomc", "4xp9fdt77pncbef59f4k1qe83o", "x" * 26
USER, HOOK = "c3a4cqe3dfy6dgopqt8ai3hydh", "7w6ygs3x7jbpdfpmskmk7q1cda"
LONGEST_POST = 16383
ID = re.compile(r"[a-z0-9]{26}")

Json = dict[str, Any]


@dataclass
class Post:
    channel: str
    root: str
    history: list[Json]  # message and props, with all that they were

    @property
    def message(self) -> str:
        message: str = self.history[-1]["message"]
        return message

    @property
    def attachment(self) -> Json:
        """An empty one where there is none."""
        return next(iter(self.history[-1]["props"].get("attachments", [])), {})


class FakeMattermost(Service):
    """A server with one team, and a bot account that is a member of `CHANNEL`."""

    def __init__(self, *, now: datetime = NOW) -> None:
        super().__init__()
        self.now = now
        self.posts: dict[str, Post] = {}
        self.hooked: list[Json] = []
        self.responses: list[Json] = []  # at all response_urls
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self._given: dict[str, tuple[datetime, int]] = {}  # of each response_url: when, and how often used

    # What a person does

    def command(self, text: str, *, token: str = COMMAND_TOKEN, **more: str) -> bytes:
        path = f"/hooks/commands/{len(self._given) + 1:026d}"
        self._given[path] = (self.now, 0)
        fields = {
            "channel_id": CHANNEL, "channel_name": "town-square", "command": "/kling", "text": text,
            "response_url": self.url + path, "team_domain": "shop", "team_id": TEAM, "token": token,
            "trigger_id": f"trigger{len(self._given)}", "user_id": USER, "user_name": "ada",
        }  # fmt: skip
        return urlencode(fields | more).encode()

    def said(self, text: str, *, files: Mapping[str, bytes] | None = None, **more: str) -> bytes:
        """A post that begins with the trigger word of an outgoing webhook."""
        self.files |= files or {}
        post = self._add(CHANNEL, "", {"message": text, "props": {}})
        fields = {
            "token": WEBHOOK_TOKEN, "team_id": TEAM, "team_domain": "shop", "channel_id": CHANNEL,
            "channel_name": "town-square", "timestamp": "1790000000", "user_id": USER, "user_name": "ada",
            "post_id": post, "text": text, "trigger_word": "kling", "file_ids": ",".join(files or ()),
        }  # fmt: skip
        return urlencode(fields | more).encode()

    def press(self, post_id: str, label: str, **more: Any) -> tuple[str, bytes]:
        """Where the server tells of a button, and what."""
        [action] = [one for one in self.posts[post_id].attachment["actions"] if one["name"] == label]
        told = {
            "user_id": USER, "user_name": "ada", "channel_id": CHANNEL, "channel_name": "town-square",
            "team_id": TEAM, "team_domain": "shop", "post_id": post_id, "trigger_id": f"press{len(self.calls)}",
            "type": "button", "data_source": "", "context": action["integration"]["context"],
        }  # fmt: skip
        return action["integration"]["url"], json.dumps(told | more).encode()

    # What the bot does

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        path = request.path
        self.calls.append(f"{request.method} {path}")
        if path.startswith("/hooks/commands/"):
            return self._response(path, body)
        if path.startswith("/hooks/"):
            return self._hook(path.removeprefix("/hooks/"), body)
        if request.headers.get("authorization") != f"Bearer {BOT_TOKEN}":
            return _refusal(401, "api.context.session_expired.app_error")
        if (
            request.method == "GET"
            and (file := self.files.get(path.removeprefix("/api/v4/files/"))) is not None
        ):
            return web.Response(body=file, content_type="image/png")
        if (request.method, path) == ("POST", "/api/v4/posts"):
            return self._create(_read(request, body))
        if request.method == "PUT" and path.endswith("/patch"):
            return self._patch(path.split("/")[-2], _read(request, body))
        return _refusal(404, "api.context.404.app_error")

    def _create(self, post: Json) -> web.Response:
        if not post.keys() <= {"channel_id", "root_id", "message", "props", "file_ids"}:
            return _refusal(400, "api.context.invalid_body_param.app_error")
        if post["channel_id"] != CHANNEL:
            return _refusal(403, "api.context.permissions.app_error")
        root = post.get("root_id", "")
        if root and (root not in self.posts or self.posts[root].root):
            return _refusal(400, "api.post.create_post.root_id.app_error")
        if (refused := _refused(post)) is not None:
            return refused
        id = self._add(post["channel_id"], root, post)
        return web.json_response({"id": id, "channel_id": post["channel_id"]}, status=201)

    def _add(self, channel: str, root: str, shown: Json) -> str:
        id = f"post{len(self.posts) + 1:022d}"
        self.posts[id] = Post(channel, root, [{"message": shown["message"], "props": shown["props"]}])
        return id

    def _patch(self, id: str, change: Json) -> web.Response:
        if id not in self.posts:
            return _refusal(404, "store.sql_post.get.app_error")
        if not change.keys() <= {"message", "props", "file_ids", "is_pinned"}:
            return _refusal(400, "api.context.invalid_body_param.app_error")
        shown = self.posts[id].history[-1] | change
        if (refused := _refused(shown)) is not None:
            return refused
        self.posts[id].history.append(shown)
        return web.json_response({"id": id, "channel_id": self.posts[id].channel})

    def _hook(self, id: str, body: bytes) -> web.Response:
        if id != HOOK:
            return _refusal(400, "web.incoming_webhook.invalid.app_error")
        sent = json.loads(body)
        shown = {"message": sent.get("text", ""), "props": {"attachments": sent.get("attachments", [])}}
        if (refused := _refused(shown)) is not None:
            return refused
        self.hooked.append(sent)
        return web.Response(text="ok")

    def _response(self, path: str, body: bytes) -> web.Response:
        """Five times within half an hour."""
        if path not in self._given:
            return _refusal(404, "web.command_webhook.command.app_error")
        given, uses = self._given[path]
        if uses >= 5 or self.now - given > timedelta(minutes=30):
            return _refusal(400, "web.command_webhook.invalid.app_error")
        sent = json.loads(body)
        assert sent["response_type"] in {"ephemeral", "in_channel"}
        self._given[path] = (given, uses + 1)
        self.responses.append(sent)
        return web.Response(text="ok")


def _read(request: web.Request, body: bytes) -> Json:
    assert request.content_type == "application/json"
    read: Json = json.loads(body)
    return read


def _refused(post: Json) -> web.Response | None:
    attachments = post["props"].get("attachments", [])
    if not post["message"] and not attachments:
        return _refusal(400, "api.context.invalid_body_param.app_error")
    if len(post["message"]) > LONGEST_POST:
        return _refusal(400, "model.post.is_valid.message_length.app_error")
    for attachment in attachments:
        assert attachment["fallback"]
        assert len(attachment["text"]) <= LONGEST_POST
        assert re.fullmatch(r"#[0-9a-f]{6}", attachment["color"])
        for name in ("title_link", "image_url"):
            assert urlsplit(attachment.get(name, "https://x")).scheme in {"http", "https"}
        for action in attachment.get("actions", []):
            assert re.fullmatch(r"[A-Za-z0-9]+", action["id"])  # else its button leads nowhere
            assert action["name"]
            assert urlsplit(action["integration"]["url"]).netloc
    return None


def _refusal(status: int, id: str) -> web.Response:
    body = {"id": id, "message": "No.", "detailed_error": "", "request_id": "r", "status_code": status}
    return web.json_response(body, status=status)
