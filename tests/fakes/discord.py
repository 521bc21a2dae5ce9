"""The far side of Discord, played strictly on real sockets: what Discord would refuse is refused here."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from nacl.signing import SigningKey

from service.domain.times import utc_now
from tests.contract.push_services import Service

APPLICATION = "1100000000000000001"
GUILD = "1100000000000000002"
CHANNEL = "1100000000000000003"
USER = "1100000000000000004"
WEBHOOK = "1100000000000000005"
WEBHOOK_TOKEN = "w3bh00k_" + "x" * 60
BOT_TOKEN = "MTEwMDAwMDAwMDAwMDAwMDAwMQ.GbT0k3.n-a-bot-token-for-tests"
USER_AGENT = re.compile(r"DiscordBot \(https?://[^\s,]+, [0-9.]+\)")
LIFE = timedelta(minutes=15)
IDS = re.compile(r"[0-9]{15,21}")
PATHS = {
    "webhook": re.compile(r"/api/v10/webhooks/(?P<id>[0-9]+)/(?P<token>[^/]+)(?:/messages/(?P<message>[^/]+))?"),
    "channel": re.compile(r"/api/v10/channels/(?P<channel>[0-9]+)/messages(?:/(?P<message>[0-9]+))?"),
    "me": re.compile(r"/api/v10/applications/@me"),
    "commands": re.compile(r"/api/v10/applications/(?P<id>[0-9]+)(?:/guilds/(?P<guild>[0-9]+))?/commands"),
    "file": re.compile(r"/attachments/(?P<name>[a-z0-9]+\.(?:png|jpg))"),
}  # fmt: skip


class Refusal(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message}


@dataclass
class Posted:
    id: str
    place: str  # `webhook`, `answer`, `channel`
    content: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def embed(self) -> dict[str, Any]:
        return self.content["embeds"][0]

    @property
    def buttons(self) -> dict[str, str]:
        rows = self.content.get("components", [])
        return {button["label"]: button["custom_id"] for row in rows for button in row["components"]}


@dataclass
class Command:
    """An interaction, as its token is known here."""

    id: str
    token: str
    begun_at: datetime
    is_deferred: bool = False
    original: Posted | None = None


class FakeDiscord(Service):
    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__()
        self.clock = clock
        self.key = SigningKey.generate()
        self.posted: dict[str, Posted] = {}
        self.commands: dict[str, Command] = {}
        self.registered: dict[str | None, list[dict[str, Any]]] = {}  # by guild
        self.endpoint: str | None = None
        self.files: dict[str, bytes] = {}
        self.bad_hosts: set[str] = set()  # of pictures whose addresses are found fault with
        self.headers: dict[str, str] = {}  # of answers
        self._last = 1100000000000001000

    @property
    def public_key(self) -> str:
        return self.key.verify_key.encode().hex()

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/api/webhooks/{WEBHOOK}/{WEBHOOK_TOKEN}"

    def new_id(self) -> str:
        self._last += 1
        return str(self._last)

    # What is sent by it

    def signed(self, payload: Mapping[str, Any], *, at: int | None = None) -> tuple[dict[str, str], bytes]:
        """By PyNaCl, as Discord's own example verifies it."""
        body = json.dumps(payload).encode()
        sent_at = str(int(self.clock().timestamp()) if at is None else at)
        signature = self.key.sign(sent_at.encode() + body).signature.hex()
        return {
            "content-type": "application/json",
            "x-signature-ed25519": signature,
            "x-signature-timestamp": sent_at,
        }, body

    def command(
        self, word: str, *, user: str = USER, in_guild: bool = True, **options: Any
    ) -> dict[str, Any]:
        """`/kling word`; options that are names of files are attached."""
        given: list[dict[str, Any]] = []
        attachments: dict[str, Any] = {}
        for name, value in options.items():
            if name.startswith("picture"):
                id = self.new_id()
                attachments[id] = {
                    "id": id,
                    "filename": value,
                    "size": len(self.files.get(value, b"")),
                    "url": f"{self.url}/attachments/{value}?ex=1&is=2&hm=3",
                    "proxy_url": f"{self.url}/attachments/{value}",
                    "content_type": "image/png",
                    "ephemeral": True,
                }
                given.append({"name": name, "type": 11, "value": id})
            else:
                kind = {str: 3, int: 4, bool: 5, float: 10}[type(value)]
                given.append({"name": name, "type": kind, "value": value})
        data = {
            "id": self.new_id(),
            "name": "kling",
            "type": 1,
            "options": [{"name": word, "type": 1, "options": given}],
            "resolved": {"attachments": attachments},
        }
        return self._interaction(2, data, user, in_guild=in_guild)

    def press(self, message: Posted, label: str, *, user: str = USER) -> dict[str, Any]:
        data = {"component_type": 2, "custom_id": message.buttons[label]}
        return {**self._interaction(3, data, user), "message": {"id": message.id, "channel_id": CHANNEL}}

    def _interaction(
        self, type: int, data: dict[str, Any], user: str, *, in_guild: bool = True
    ) -> dict[str, Any]:
        person = {"id": user, "username": "ada", "global_name": "Ada", "discriminator": "0"}
        command = Command(self.new_id(), f"interaction-token-{self.new_id()}", self.clock())
        self.commands[command.token] = command
        where = (
            {"guild_id": GUILD, "member": {"user": person, "permissions": "0"}}
            if in_guild
            else {"user": person}
        )
        return {
            "id": command.id,
            "application_id": APPLICATION,
            "type": type,
            "token": command.token,
            "version": 1,
            "locale": "en-GB",
            "attachment_size_limit": 10485760,
            "channel_id": CHANNEL,
            "channel": {"id": CHANNEL, "type": 0},
            "data": data,
            **where,
        }

    def answered(self, interaction: Mapping[str, Any], answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the person sees alone; None where the answer is deferred."""
        command = self.commands[interaction["token"]]
        match answer["type"]:
            case 4:
                self._judge_message(answer["data"], {"flags"}, place="answer")
                assert answer["data"]["flags"] & 64, "everybody reads it"
                return answer["data"]
            case 5:
                assert set(answer.get("data", {})) <= {"flags"}
                command.is_deferred = True
                return None
            case type:
                raise AssertionError(f"an answer of type {type}")

    # What it is told

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        matches = {name: pattern.fullmatch(request.path) for name, pattern in PATHS.items()}
        found = next(((name, match) for name, match in matches.items() if match is not None), None)
        if found is None:
            return web.json_response({"message": "404: Not Found", "code": 0}, status=404)
        name, match = found
        if name == "file":
            return web.Response(body=self.files[match["name"]], content_type="image/png")
        try:
            answer = getattr(self, f"_{name}")(request, match, _content(request, body))
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status, headers=self.headers)
        status = 204 if answer is None else 200
        return web.json_response(answer, status=status, headers=self.headers)

    def _webhook(self, request: web.Request, match: re.Match[str], content: Any) -> Any:
        is_own = match["id"] == WEBHOOK
        if is_own and match["token"] != WEBHOOK_TOKEN:
            raise Refusal(401, 50027, "Invalid Webhook Token")
        command = self.commands.get(match["token"])
        if not is_own and (match["id"] != APPLICATION or command is None):
            raise Refusal(404, 10015, "Unknown Webhook")
        if command is not None and self.clock() - command.begun_at >= LIFE:
            raise Refusal(401, 50027, "Invalid Webhook Token")
        place = "webhook" if is_own else "answer"
        known = {"thread_id", "wait", "with_components"}
        if set(request.query) - known:
            raise Refusal(400, 50035, "Invalid Form Body")
        if request.method == "POST" and match["message"] is None:
            self._judge_message(content, {"flags"}, place=place)
            if request.query.get("wait") != "true":
                return None
            return self._shown(self._post(place, content))
        if request.method != "PATCH" or match["message"] is None:
            raise Refusal(405, 0, "405: Method Not Allowed")
        self._judge_message(content, {"flags"}, place=place)
        if match["message"] == "@original":
            if command is None or not command.is_deferred:
                raise Refusal(404, 10008, "Unknown Message")
            if command.original is None:
                command.original = self._post(place, content)
                return self._shown(command.original)
            return self._edit(command.original.id, content)
        return self._edit(match["message"], content)

    def _channel(self, request: web.Request, match: re.Match[str], content: Any) -> Any:
        if request.headers.get("authorization") != f"Bot {BOT_TOKEN}":
            raise Refusal(401, 0, "401: Unauthorized")
        if match["channel"] != CHANNEL:
            raise Refusal(404, 10003, "Unknown Channel")
        self._judge_message(content, {"flags", "message_reference"}, place="channel")
        if request.method == "POST" and match["message"] is None:
            return self._shown(self._post("channel", content))
        if request.method == "PATCH" and match["message"] is not None:
            return self._edit(match["message"], content)
        raise Refusal(405, 0, "405: Method Not Allowed")

    def _me(self, request: web.Request, match: re.Match[str], content: Any) -> Any:
        if request.headers.get("authorization") != f"Bot {BOT_TOKEN}":
            raise Refusal(401, 0, "401: Unauthorized")
        if request.method == "PATCH":
            [self.endpoint] = [content["interactions_endpoint_url"]]
        return {"id": APPLICATION, "verify_key": self.public_key, "interactions_endpoint_url": self.endpoint}

    def _commands(self, request: web.Request, match: re.Match[str], content: Any) -> Any:
        if request.headers.get("authorization") != f"Bot {BOT_TOKEN}":
            raise Refusal(401, 0, "401: Unauthorized")
        if request.method != "PUT" or match["id"] != APPLICATION:
            raise Refusal(403, 50001, "Missing Access")
        for command in content:
            _judge_command(command)
        self.registered[match["guild"]] = content
        return [{**command, "id": self.new_id()} for command in content]

    def _judge_message(self, content: Any, more: set[str], *, place: str) -> None:
        fields = {"content", "embeds", "components", "allowed_mentions", *more}
        text, embeds = content.get("content") or "", content.get("embeds") or []
        rows = content.get("components") or []
        if set(content) - fields or len(text) > 2000 or len(embeds) > 10 or len(rows) > 5:
            raise Refusal(400, 50035, "Invalid Form Body")
        if not text and not embeds:
            raise Refusal(400, 50006, "Cannot send an empty message")
        if content.get("allowed_mentions") != {"parse": []}:
            raise AssertionError("somebody may be called")
        size = 0
        for embed in embeds:
            size += self._judge_embed(embed)
        if size > 6000:
            raise Refusal(400, 50035, "Embed size exceeds maximum size of 6000")
        for row in rows:
            if row["type"] != 1 or not 1 <= len(row["components"]) <= 5:
                raise Refusal(400, 50035, "Invalid Form Body")
            for button in row["components"]:
                if place == "webhook":  # of a channel: nobody would be asked
                    raise Refusal(400, 50035, "Invalid Form Body")
                if (
                    set(button) != {"type", "style", "label", "custom_id"}
                    or button["type"] != 2
                    or not 1 <= button["style"] <= 4
                    or not 1 <= len(button["label"]) <= 80
                    or not 1 <= len(button["custom_id"]) <= 100
                ):
                    raise Refusal(400, 50035, "Invalid Form Body")

    def _judge_embed(self, embed: Mapping[str, Any]) -> int:
        if set(embed) - {"title", "description", "url", "color", "image", "footer"}:
            raise Refusal(400, 50035, "Invalid Form Body")
        for url in (embed.get("url"), embed.get("image", {}).get("url")):
            if url is not None and (
                urlsplit(url).scheme not in {"http", "https"}
                or len(url) > 2048
                or urlsplit(url).hostname in self.bad_hosts
            ):
                raise Refusal(400, 50035, "Not a well formed URL.")
        if not 0 <= embed.get("color", 0) <= 0xFFFFFF:
            raise Refusal(400, 50035, "Invalid Form Body")
        limits = {"title": 256, "description": 4096}
        texts = {name: embed.get(name, "") for name in limits}
        if any(len(texts[name]) > most for name, most in limits.items()):
            raise Refusal(400, 50035, "Must be fewer in length.")
        return sum(map(len, texts.values())) + len(embed.get("footer", {}).get("text", ""))

    def _post(self, place: str, content: dict[str, Any]) -> Posted:
        message = Posted(self.new_id(), place, content, [content])
        self.posted[message.id] = message
        return message

    def _edit(self, id: str, content: dict[str, Any]) -> Any:
        message = self.posted.get(id)
        if message is None:
            raise Refusal(404, 10008, "Unknown Message")
        message.content = {**message.content, **content}
        message.history.append(message.content)
        return self._shown(message)

    def delete(self, message: Posted) -> None:
        del self.posted[message.id]
        for command in self.commands.values():
            if command.original is message:
                command.is_deferred = False

    def _shown(self, message: Posted) -> dict[str, Any]:
        return {"id": message.id, "channel_id": CHANNEL, "type": 0, **message.content}

    async def deliver(
        self, interaction: Mapping[str, Any], *, url: str | None = None
    ) -> Mapping[str, Any] | None:
        """To where it was told that the application listens."""
        headers, body = self.signed(interaction)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(url or self.endpoint or "", data=body, headers=headers) as response,
        ):
            assert response.status == 200, await response.text()
            assert response.content_type == "application/json"
            return self.answered(interaction, await response.json())

    async def check(self, url: str) -> list[int]:
        """What Discord does when the address is saved: a ping, and one that somebody else signed."""
        headers, body = self.signed(
            {"id": self.new_id(), "application_id": APPLICATION, "type": 1, "version": 1}
        )
        forged = {**headers, "x-signature-ed25519": SigningKey.generate().sign(b"other").signature.hex()}
        statuses = []
        async with aiohttp.ClientSession() as session:
            for sent in (headers, forged):
                async with session.post(url, data=body, headers=sent) as response:
                    statuses.append(response.status)
                    if sent is headers:
                        assert await response.json() == {"type": 1}
        return statuses


def _content(request: web.Request, body: bytes) -> Any:
    if not USER_AGENT.fullmatch(request.headers.get("user-agent", "")):
        raise Refusal(403, 40333, "internal network error")
    if request.method != "GET" and request.content_type != "application/json":
        raise Refusal(400, 50109, "The request body contains invalid JSON.")
    return json.loads(body) if body else None


def _judge_command(command: Mapping[str, Any]) -> None:
    """Discord, "Application Commands": names, descriptions, and required options first."""
    if not re.fullmatch(r"[-_'a-z0-9]{1,32}", command["name"]):
        raise Refusal(400, 50035, "Invalid name")
    if not 1 <= len(command["description"]) <= 100 or len(command.get("options", ())) > 25:
        raise Refusal(400, 50035, "Invalid description")
    required = [bool(option.get("required")) for option in command.get("options", ())]
    if required != sorted(required, reverse=True):
        raise Refusal(400, 50035, "Required options must be placed before non-required options")
    for option in command.get("options", ()):
        if len(option.get("choices", ())) > 25 or option["type"] not in {1, 3, 4, 5, 10, 11}:
            raise Refusal(400, 50035, "Invalid option")
        _judge_command(option)
