"""The bots of groups in DingTalk, WeCom and Teams, played strictly on real sockets: they speak, and nothing else."""

import base64
import hashlib
import hmac
import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from tests.contract.push_services import NOW, Service

Json = dict[str, Any]

DINGTALK_TOKEN = "bde7f1c7d7a9c7e2f63a18a7b0d0b6b6c65c0f8f3f29f9a4ea72f3f2c2d5c9e1"
DINGTALK_SECRET = "SECc0d2c3a8b4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f"
WECOM_KEY = "693a91f6-7xxx-4bc4-97a0-0ec2sifa5aaa"
TEAMS_PATH = "/workflows/0f3e/triggers/manual/paths/invoke"
TEAMS_QUERY = (
    "api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=Zm9yZ2Vye%2BS1pcy1ub3QtcG9zc2libGU%3D"
)


class FakeDingtalk(Service):
    """open.dingtalk.com, "Custom robot access"."""

    def __init__(self, *, now: datetime = NOW) -> None:
        super().__init__()
        self.now = now
        self.secret: str | None = None
        self.keyword = ""
        self.said: list[Json] = []

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/robot/send?access_token={DINGTALK_TOKEN}"

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if (request.method, request.path) != ("POST", "/robot/send"):
            return web.Response(status=404)
        if not request.headers["content-type"].startswith("application/json"):
            return _errcode(43004, "invalid http header Content-Type")
        if request.query.getall("access_token") != [DINGTALK_TOKEN]:
            return _errcode(300001, "token is not exist")
        if self.secret is not None:
            [sent_at], [sign] = request.query.getall("timestamp", [""]), request.query.getall("sign", [""])
            told = f"{sent_at}\n{self.secret}".encode()
            expected = base64.b64encode(hmac.new(self.secret.encode(), told, "sha256").digest()).decode()
            if sign != expected or abs(int(sent_at) / 1000 - self.now.timestamp()) > 3600:
                return _errcode(310000, "sign not match")
        given = json.loads(body)
        kind = given["msgtype"]
        if given.keys() - {"msgtype", "at"} != {kind} or given["at"] != {"isAtAll": False}:
            return _errcode(40035, "param error")
        if self.keyword not in given[kind]["title"] + given[kind]["text"]:
            return _errcode(310000, "keywords not in content")
        if len(body) > 20000 or not given[kind]["title"].strip() or not given[kind]["text"].strip():
            return _errcode(40035, "param error")
        match kind:
            case "markdown":
                assert given[kind].keys() == {"title", "text"}
            case "actionCard" if "singleURL" in given[kind]:
                assert given[kind].keys() == {"title", "text", "singleTitle", "singleURL"}
            case "actionCard":
                assert given[kind].keys() == {"title", "text", "btnOrientation", "btns"}
                assert all(button.keys() == {"title", "actionURL"} for button in given[kind]["btns"])
            case _:
                return _errcode(400105, "unsupported msgtype")
        self.said.append(given[kind])
        return _errcode(0, "ok")


class FakeWecom(Service):
    """developer.work.weixin.qq.com, "Group bot configuration"."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Json] = []
        self.pictures: dict[str, bytes] = {}  # elsewhere on the web

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/cgi-bin/webhook/send?key={WECOM_KEY}"

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if request.method == "GET" and request.path in self.pictures:
            return web.Response(body=self.pictures[request.path], content_type="image/png")
        if (request.method, request.path) != ("POST", "/cgi-bin/webhook/send"):
            return web.Response(status=404)
        if request.query_string != f"key={WECOM_KEY}":
            return _errcode(93000, "invalid webhook url")
        given = json.loads(body)
        kind = given["msgtype"]
        if given.keys() != {"msgtype", kind}:
            return _errcode(40058, "invalid parameter")
        match kind:
            case "text":
                content = given[kind]["content"]
                assert not re.search(r"<@[^>]*>", content), "somebody is called"
                if given[kind].keys() != {"content"} or not 0 < len(content.encode()) <= 2048:
                    return _errcode(45002, "content size out of limit")
            case "news":
                articles = given[kind]["articles"]
                if not 1 <= len(articles) <= 8 or not all(map(_is_article, articles)):
                    return _errcode(40058, "invalid articles")
            case "image":
                content = base64.b64decode(given[kind]["base64"], validate=True)
                if len(content) > 2 * 1024 * 1024 or not content.startswith((b"\x89PNG", b"\xff\xd8")):
                    return _errcode(40009, "invalid image size")
                if given[kind]["md5"] != hashlib.md5(content).hexdigest():
                    return _errcode(301019, "media md5 not match")
            case _:
                return _errcode(40008, "invalid message type")
        self.said.append(given)
        return _errcode(0, "ok")


def _is_article(article: Json) -> bool:
    return (
        {"title", "description", "url"} <= article.keys() <= {"title", "description", "url", "picurl"}
        and 0 < len(article["title"].encode()) <= 128
        and len(article["description"].encode()) <= 512
        and all(
            urlsplit(article[name]).scheme in {"http", "https"}
            for name in ("url", "picurl")
            if name in article
        )
    )


class FakeTeams(Service):
    """A workflow with the trigger "When a Teams webhook request is received"."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Json] = []

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{TEAMS_PATH}?{TEAMS_QUERY}"

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if (request.method, request.path) != ("POST", TEAMS_PATH):
            return _error(404, "WorkflowNotFound")
        if list(request.query.items()) != parse_qsl(TEAMS_QUERY):
            return _error(401, "DirectApiAuthorizationRequired")
        if request.headers["content-type"] != "application/json; charset=utf-8":
            return _error(400, "TriggerInputSchemaMismatch")
        if len(body) > 28 * 1024:
            return _error(413, "RequestEntityTooLarge")
        given = json.loads(body)
        [attachment] = given["attachments"]
        assert given.keys() == {"type", "attachments"}
        assert (given["type"], attachment["contentType"]) == (
            "message",
            "application/vnd.microsoft.card.adaptive",
        )
        content = attachment["content"]
        assert (content["type"], content["version"]) == ("AdaptiveCard", "1.4")
        assert content.keys() == {"$schema", "type", "version", "msteams", "body", "actions"}
        for element in content["body"]:
            _check_element(element)
        for action in content["actions"]:
            assert action.keys() == {"type", "title", "url"}
            assert action["type"] == "Action.OpenUrl"
        assert len(content["actions"]) <= 6
        self.said.append(content)
        return web.Response(status=202)


def _check_element(element: Json) -> None:
    """Adaptive Cards 1.4. In text blocks Markdown is read, so nothing that others wrote may stand there."""
    match element["type"]:
        case "TextBlock":
            assert re.fullmatch(r"[A-Za-z0-9 ]+", element["text"]), element
            assert element["color"] in {"accent", "good", "attention", "warning", "default"}
        case "RichTextBlock":
            assert element.keys() == {"type", "inlines"}
            for run in element["inlines"]:
                assert run["type"] == "TextRun"
                assert run["text"].strip()
        case "Image":
            assert element.keys() <= {"type", "url", "altText", "selectAction"}
            assert element["altText"].strip()
        case type:
            raise AssertionError(type)


def _errcode(code: int, words: str) -> web.Response:
    return web.json_response({"errcode": code, "errmsg": words})


def _error(status: int, code: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": "…"}}, status=status)
