"""The far side of push, played strictly on real sockets: what a real service would refuse is refused here."""

import asyncio
import base64
import ipaddress
import json
import re
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.domain.deliveries import Duty
from service.domain.endpoints import Endpoint
from service.domain.events import Event, EventType, endpoint_event, task_event
from service.domain.ids import AccountId, DeliveryId, EndpointId, TaskId
from service.domain.lifecycle import Status
from service.domain.secrets import Vault
from service.domain.tasks import Output, OutputKind, Task, TaskError
from service.network.dialler import Guard
from tests.servers import running_app

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATIENCE_S = 60
LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8")])
VAULT = Vault(["a-secret-for-tests-0123456789"])
ACCOUNT = AccountId("acc_1")
TASK = TaskId("task_019aa93ebcc07e1186a2f0c1d2e3f402")

Answer = tuple[int, Mapping[str, str], str]


class Service:
    """Something that is posted to; answers as it should, unless told otherwise."""

    def __init__(self) -> None:
        self.url = ""
        self.next_answers: list[Answer] = []
        self.gate: asyncio.Event | None = None  # while set up and unset, answers wait
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self._changed = asyncio.Condition()

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        self.next_answers.append(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with running_app(self._handle, largest_body=1024 * 1024) as self.url:
            yield

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._changed:
            self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
            self._changed.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        if self.next_answers:
            status, headers, text = self.next_answers.pop(0)
            return web.Response(status=status, headers=headers, text=text)
        return self.judge(request, body)

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        raise NotImplementedError

    async def until(self, number: int) -> None:
        """At least so many requests have come."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= number)


class FakeNtfy(Service):
    """An ntfy server: takes JSON at its root, and answers with the message as stored (ntfy, "Publishing")."""

    FIELDS: Mapping[str, type] = {
        "topic": str, "title": str, "message": str, "priority": int, "tags": list, "click": str, "attach": str,
        "filename": str, "actions": list, "icon": str, "markdown": bool, "delay": str, "email": str, "call": str,
    }  # fmt: skip

    def __init__(self, *, authorization: str | None = None) -> None:
        super().__init__()
        self.authorization = authorization
        self.published: list[dict[str, Any]] = []

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if (request.method, request.path) != ("POST", "/"):
            return _ntfy_error(404, 40401, "page not found")
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return _ntfy_error(403, 40301, "forbidden")
        message = json.loads(body)
        for name, value in message.items():
            if name not in self.FIELDS or type(value) is not self.FIELDS[name]:
                return _ntfy_error(400, 40024, f"invalid request: {name}")
        if not re.fullmatch(r"[-_A-Za-z0-9]{1,64}", message.get("topic", "")):
            return _ntfy_error(400, 40009, "invalid topic")
        if not 1 <= message.get("priority", 3) <= 5:
            return _ntfy_error(400, 40007, "invalid priority")
        if len(message.get("message", "").encode()) > 4096:
            return _ntfy_error(413, 41301, "too large")
        if len(message.get("actions", ())) > 3:
            return _ntfy_error(400, 40018, "too many actions")
        for action in message.get("actions", ()):
            if (
                action["action"] != "view"
                or not action["label"]
                or urlsplit(action["url"]).scheme not in {"http", "https"}
            ):
                return _ntfy_error(400, 40018, "invalid action")
        self.published.append(message)
        stored = {"id": f"m{len(self.published)}", "time": 1, "expires": 2, "event": "message"}
        return web.json_response(stored | {"topic": message["topic"], "message": message["message"]})


def _ntfy_error(status: int, code: int, error: str) -> web.Response:
    return web.json_response({"code": code, "http": status, "error": error}, status=status)


@dataclass
class Browser:
    """A subscribed browser: it alone can read what is pushed to it."""

    application_server_key: str
    private_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    auth: bytes = b"0123456789abcdef"

    def subscription(self, url: str) -> dict[str, Any]:
        """What `JSON.stringify(subscription)` gives a page."""
        keys = {"p256dh": _text(_point(self.private_key)), "auth": _text(self.auth)}
        return {"endpoint": url, "expirationTime": None, "keys": keys}

    def decrypt(self, body: bytes) -> bytes:
        """RFC 8188 and RFC 8291 by their letter, for one record."""
        salt, (record_size, id_length) = body[:16], struct.unpack("!LB", body[16:21])
        sender, cipher = body[21 : 21 + id_length], body[21 + id_length :]
        assert len(cipher) <= record_size, "more than one record"
        shared = self.private_key.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        )
        info = b"WebPush: info\0" + _point(self.private_key) + sender
        secret = _hkdf(shared, self.auth, info, 32)
        key = _hkdf(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _hkdf(secret, salt, b"Content-Encoding: nonce\0", 12)
        padded = AESGCM(key).decrypt(nonce, cipher, None).rstrip(b"\0")
        assert padded.endswith(b"\2"), "not the last record"
        return padded[:-1]


class FakePushService(Service):
    """A browser maker's push service (RFC 8030, RFC 8292). It cannot read what it carries; the browser can."""

    PATH = "/push/a-capability-that-nobody-guesses"

    def __init__(self, browser: Browser, *, now: datetime = NOW) -> None:
        super().__init__()
        self.browser = browser
        self.now = now
        self.pushed: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []

    @property
    def subscription(self) -> dict[str, Any]:
        return self.browser.subscription(self.url + self.PATH)

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        headers = request.headers
        if (request.method, request.path) != ("POST", self.PATH):
            return web.Response(status=404)
        if not re.fullmatch(r"\d{1,7}", headers.get("ttl", "")):
            return web.Response(status=400, text="no TTL")
        if headers.get("content-encoding") != "aes128gcm":
            return web.Response(status=415)
        if headers.get("urgency", "normal") not in {"very-low", "low", "normal", "high"}:
            return web.Response(status=400, text="urgency")
        if "topic" in headers and not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers["topic"]):
            return web.Response(status=400, text="topic")
        if len(body) > 4096:
            return web.Response(status=413)
        scheme = re.fullmatch(r"vapid t=([^,]+),\s*k=([A-Za-z0-9_-]{87})", headers.get("authorization", ""))
        if scheme is None or scheme[2] != self.browser.application_server_key:
            return web.Response(status=403, text="another key")
        try:
            claims = verified(scheme[1], scheme[2])
        except ValueError:
            return web.Response(status=403, text="signature")
        if claims["aud"] != self.url or not re.match("mailto:.+@|https://", claims.get("sub", "")):
            return web.Response(status=403, text="claims")
        if not self.now < datetime.fromtimestamp(claims["exp"], UTC) <= self.now + timedelta(hours=24):
            return web.Response(status=403, text="expiry")
        self.claims.append(claims)
        self.pushed.append(json.loads(self.browser.decrypt(body)))
        return web.Response(status=201, headers={"location": f"{self.url}/m/{len(self.pushed)}"})


def verified(token: str, public_key: str) -> dict[str, Any]:
    """The claims of an ES256 token (RFC 7515, RFC 7518 3.4); raises where it was signed by another key."""
    signed, _, signature = token.rpartition(".")
    header, payload = (json.loads(_data(part)) for part in signed.split("."))
    assert header["alg"] == "ES256"
    r, s = (int.from_bytes(half) for half in (_data(signature)[:32], _data(signature)[32:]))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _data(public_key))
    try:
        key.verify(encode_dss_signature(r, s), signed.encode(), ec.ECDSA(SHA256()))
    except Exception as error:
        raise ValueError("another key signed this") from error
    claims: dict[str, Any] = payload
    return claims


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# What is told


def video(url: str = "http://example.com/out.mp4", **more: Any) -> Output:
    return Output(kind=OutputKind.VIDEO, index=0, url=url, **more)


def picture(index: int = 0, **more: Any) -> Output:
    return Output(kind=OutputKind.IMAGE, index=index, url=f"http://example.com/{index}.png", **more)


def event_of(
    type: EventType = EventType.TASK_SUCCEEDED,
    *,
    outputs: Sequence[Output] = (),
    error: TaskError | None = None,
    makes: str = "video",
    external_task_id: str = "order-1042",
    task_id: TaskId = TASK,
    task_type: str | None = None,
) -> Event:
    task = Task(
        id=task_id,
        account_id=ACCOUNT,
        type=task_type or f"kling.multi-image-to-{makes}",
        provider="cometapi",
        status=Status.SUCCEEDED,
        input={},
        external_task_id=external_task_id,
        provider_external_id=external_task_id,
        outputs=outputs,
        error=error,
        sequence=3,
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW,
    )
    return task_event(type, task, None, NOW)


def endpoint_event_of(type: EventType, **data: Any) -> Event:
    return endpoint_event(type, ACCOUNT, data, NOW)


def endpoint_of(kind: str, configured: tuple[Mapping[str, Any], str | None]) -> Endpoint:
    config, credentials = configured
    return Endpoint(
        id=EndpointId("end_1"),
        account_id=ACCOUNT,
        task_id=None,
        kind=kind,
        config=config,
        credentials=credentials,
        created_at=NOW,
        updated_at=NOW,
    )


def duty_of(endpoint: Endpoint, event: Event | None = None, *, id: str = "dlv_1") -> Duty:
    return Duty(id=DeliveryId(id), event=event or event_of(), endpoint=endpoint, attempt=1, created_at=NOW)
