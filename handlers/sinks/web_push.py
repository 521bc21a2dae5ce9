"""Web Push: an encrypted notification to a browser that has subscribed."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import http_ece  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import jwt  # type: ignore[import-untyped]
from pydantic import Field
from pydantic_core import to_json
from yarl import URL

from handlers.messages import cut_bytes, message_of
from handlers.sinks import exchange
from handlers.sinks.credentials import MASK, MASKED, seal, unseal
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault
from service.domain.events import Event
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.models import StrictModel
from service.domain.secrets import PushKeys, Vault
from service.domain.values import replace
from service.network.dialler import Dialler, Refused

# A push service need not take more than 4096 bytes (RFC 8030, 7.2); the encryption adds 86 + 17 (RFC 8291, 4).
LONGEST_PAYLOAD: Final = 4096 - 86 - 17
TOKEN_LIFE: Final = timedelta(hours=12)  # at most 24 (RFC 8292, 2)
DAY_S: Final = 86_400
POINT_BYTES: Final = 65
AUTH_BYTES: Final = 16
GONE: Final = frozenset({404, 410})  # RFC 8030, 7.3: the subscription has ended


class SubscriptionKeys(StrictModel):
    p256dh: Annotated[str, Field(max_length=200)]
    auth: Annotated[str, Field(max_length=100)]


class PushSubscription(StrictModel):
    """As a browser gives it: `JSON.stringify(subscription)`."""

    endpoint: Annotated[str, Field(max_length=4096)]
    keys: SubscriptionKeys
    # Not needed: a subscription that has expired answers 404 or 410.
    expiration_time: Annotated[float | None, Field(alias="expirationTime")] = None


class WebPushConfig(StrictModel):
    """`subscription` is kept sealed; readers see its host only."""

    subscription: PushSubscription
    public_key: Annotated[
        str | None, Field(description="under which the browser subscribed; the present one when left out")
    ] = None
    ttl_s: Annotated[
        int, Field(ge=0, le=28 * DAY_S, description="how long it waits for a browser that is off")
    ] = DAY_S


class WebPushSink:
    """Delivers to endpoints of kind `web_push`.

    Args:
        reachable_url: Klingel's own; push services are told whom to complain to.
    """

    def __init__(self, dialler: Dialler, vault: Vault, keys: PushKeys, *, reachable_url: str) -> None:
        self._dialler = dialler
        self._vault = vault
        self._keys = keys
        self._contact = _contact(reachable_url)

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        kept: dict[str, Any] | None = None
        if before is not None and isinstance(raw, dict):
            shown = before.config
            raw = {"ttl_s": shown["ttl_s"]} | raw
            if raw.get("subscription", shown["subscription"]) == shown["subscription"]:
                kept = unseal(self._vault, before)
                raw |= {"subscription": kept["subscription"]}
                raw.setdefault("public_key", shown["public_key"])
        faults: list[Fault] = []
        config: WebPushConfig | None = None
        with collecting(faults):
            config = accept(WebPushConfig, raw, pointer=pointer)
        fields = raw if isinstance(raw, dict) else {}
        subscription, given = fields.get("subscription"), fields.get("public_key")
        if isinstance(subscription, dict):
            faults += self._subscription_faults(subscription, f"{pointer}/subscription")
        public = (given if isinstance(given, str) else None) or self._keys.public
        if kept is not None and before is not None:
            private = kept["private_key"] if public == before.config["public_key"] else None
        else:
            private = self._keys.private(public)
        place = f"{pointer}/public_key"
        if private is None and place not in {fault.pointer for fault in faults}:
            detail = "No subscription was made under this key of Klingel's: unsubscribe, and subscribe anew."
            faults.append(Fault(detail, place))
        if faults or config is None:
            raise InvalidFields(faults)
        endpoint, keys = config.subscription.endpoint, config.subscription.keys.model_dump()
        return {
            "subscription": {
                "endpoint": f"{URL(endpoint).origin()}/{MASK}",  # who knows the rest may push
                "keys": dict.fromkeys(keys, MASK),
            },
            "public_key": public,
            "ttl_s": config.ttl_s,
        }, seal(self._vault, {"subscription": {"endpoint": endpoint, "keys": keys}, "private_key": private})

    def _subscription_faults(self, subscription: Mapping[str, Any], pointer: str) -> list[Fault]:
        faults: list[Fault] = []
        endpoint, keys = subscription.get("endpoint"), subscription.get("keys")
        if isinstance(endpoint, str):
            if endpoint.endswith(MASK):
                faults.append(Fault(MASKED, f"{pointer}/endpoint"))
            else:
                try:
                    self._dialler.check(endpoint)
                except Refused as error:
                    faults.append(Fault(f"The endpoint cannot be used: {error}.", f"{pointer}/endpoint"))
        if isinstance(keys, dict):
            for name, is_key in (("p256dh", _is_point), ("auth", _is_auth)):
                value = keys.get(name)
                if value == MASK:
                    faults.append(Fault(MASKED, f"{pointer}/keys/{name}"))
                elif isinstance(value, str) and not is_key(value):
                    detail = "This is not what a browser gives: a point on P-256 and 16 bytes, in base64url."
                    faults.append(Fault(detail, f"{pointer}/keys/{name}"))
        return faults

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        secrets = unseal(self._vault, duty.endpoint)
        subscription = secrets["subscription"]
        message = message_of(duty.event)
        token = jwt.sign(
            {
                "aud": str(URL(subscription["endpoint"]).origin()),
                "exp": int((now + TOKEN_LIFE).timestamp()),
                "sub": self._contact,
            },
            _private_key(secrets["private_key"]),
        )
        headers = {
            "authorization": f"vapid t={token},k={duty.endpoint.config['public_key']}",
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(duty.endpoint.config["ttl_s"]),
            "urgency": message.urgency,
        }
        if message.task_id is not None:
            headers["topic"] = _topic(message.task_id, is_final=message.is_final)
        reply, answer = await exchange.post(
            self._dialler,
            subscription["endpoint"],
            body=_encrypted(payload(duty.event), subscription["keys"]),
            headers=headers,
            now=now,
            hidden=[token, urlsplit(subscription["endpoint"]).path],
        )
        return reply if answer is None else _judged(reply, answer.status)


def payload(event: Event) -> bytes:
    """What the page's service worker gets, as JSON: cut until it fits."""
    message = message_of(event)
    told: dict[str, Any] = {
        "title": message.title,
        "body": message.body,
        "url": message.link,
        "image": message.picture,
        "tag": message.task_id or event.id,
        "type": event.type,
        "event_id": event.id,
        "sequence": event.sequence,
    }
    told = {name: value for name, value in told.items() if value is not None}
    for name in ("body", "image", "url"):  # the link goes last: it is what somebody would tap
        excess = len(to_json(told)) - LONGEST_PAYLOAD
        if excess > 0 and name == "body":
            told["body"] = cut_bytes(told["body"], max(len(told["body"].encode()) - excess, 0))
        elif excess > 0:
            told.pop(name, None)
    return to_json(told)


def _topic(task_id: str, *, is_final: bool) -> str:
    """A browser that was off gets a task's last progress and its result, not all that was between (RFC 8030, 5.4).

    Two topics, as a retry of an earlier event may come after the result and must not take its place.
    """
    digest = hashlib.sha256(f"{task_id} {'final' if is_final else 'progress'}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def _encrypted(plain: bytes, keys: Mapping[str, str]) -> bytes:
    """One record, under a key of its own (RFC 8291, 2)."""
    body: bytes = http_ece.encrypt(
        plain,
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=_bytes(keys["p256dh"]),
        auth_secret=_bytes(keys["auth"]),
        version="aes128gcm",
    )
    return body


def _judged(reply: Reply, status: int) -> Reply:
    if status in GONE:
        return replace(reply, ending=AttemptOutcome.GONE, reason="the subscription has ended")
    if exchange.refuses_for_good(status):
        return replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good")
    return reply


def _contact(reachable_url: str) -> str:
    """`sub` (RFC 8292, 2.1). Mozilla's service refuses a token without one, Apple's one that is at localhost."""
    parts = urlsplit(reachable_url)
    return reachable_url if parts.scheme == "https" else "mailto:klingel@localhost"


def _private_key(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(_bytes(text)), ec.SECP256R1())


def _bytes(text: str) -> bytes:
    bare = text.rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)


def _is_point(text: str) -> bool:
    try:
        point = _bytes(text)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (ValueError, binascii.Error):
        return False
    return len(point) == POINT_BYTES


def _is_auth(text: str) -> bool:
    try:
        return len(_bytes(text)) == AUTH_BYTES
    except (ValueError, binascii.Error):
        return False
