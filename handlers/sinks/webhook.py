"""Webhooks: the event's bytes, signed by Standard Webhooks, to a URL."""

import re
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from handlers.sinks import exchange
from handlers.sinks.credentials import (
    MASK,
    MASKED,
    BasicAuth,
    basic_auth_faults,
    basic_authorization,
    moved_faults,
    seal,
    unmasked_basic_auth,
    unseal,
)
from handlers.sinks.formats import FORMATS
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault
from service.domain.faults import PREDICATE, InvalidFields, accept, collecting, pointer_token
from service.domain.models import StrictModel
from service.domain.secrets import Vault
from service.domain.signatures import sign, sign_publicly
from service.network.dialler import Dialler, Refused

RESERVED_HEADERS: Final = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "accept-encoding", "user-agent",
        "traceparent", "tracestate",
    }
)  # fmt: skip
MOST_HEADERS: Final = 20
USER_AGENT: Final = "Klingel/0.1 (+webhooks; https://www.standardwebhooks.com)"


def _few_headers(raw: object) -> object:
    """Said before any of them is looked at."""
    if isinstance(raw, dict) and len(raw) > MOST_HEADERS:
        raise PydanticCustomError(PREDICATE, "must have at most {most} entries", {"most": MOST_HEADERS})
    return raw


class WebhookConfig(StrictModel):
    """`headers` and `basic_auth` are kept sealed; readers see their names only."""

    url: Annotated[str, Field(max_length=4096)]
    headers: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]],
        Field(max_length=MOST_HEADERS),
        BeforeValidator(_few_headers),
    ] = Field({})
    basic_auth: BasicAuth | None = None
    format: Literal["standard", "cloudevents", "kling"] = "standard"
    signature: Annotated[
        Literal["v1", "v1a"], Field(description="v1a adds one that the endpoint's public key verifies")
    ] = "v1"


class WebhookSink:
    """Delivers to endpoints of kind `webhook`."""

    def __init__(self, dialler: Dialler, vault: Vault) -> None:
        self._dialler = dialler
        self._vault = vault

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        faults: list[Fault] = []
        if before is not None and isinstance(raw, dict):
            kept, given = unseal(self._vault, before), raw
            shown = {
                name: before.config[name] for name in ("url", "format", "signature") if name in before.config
            }
            raw = shown | kept | _unmasked(raw, kept)
            faults += moved_faults(raw["url"], before.config["url"], _carried(raw, given), pointer)
        config: WebhookConfig | None = None
        with collecting(faults):
            config = accept(WebhookConfig, raw, pointer=pointer)
        fields = raw if isinstance(raw, dict) else {}
        if isinstance(fields.get("url"), str):
            try:
                self._dialler.check(fields["url"])
            except Refused as error:
                faults.append(Fault(f"The URL cannot be used: {error}.", f"{pointer}/url"))
        headers = fields.get("headers")
        faults += _header_faults(headers if isinstance(headers, dict) else {}, pointer)
        faults += _basic_auth_faults(fields, pointer)
        if faults or config is None:
            raise InvalidFields(faults)
        public: dict[str, Any] = {"url": config.url, "format": config.format}
        # The usual one is not named, as in configurations that are older than the choice.
        if config.signature != "v1":
            public["signature"] = config.signature
        credentials: dict[str, Any] = {}
        if config.headers:
            credentials["headers"] = config.headers
            public["headers"] = dict.fromkeys(config.headers, MASK)
        if config.basic_auth is not None:
            credentials["basic_auth"] = config.basic_auth.model_dump()
            public["basic_auth"] = config.basic_auth.shown()
        return public, seal(self._vault, credentials)

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        endpoint, event = duty.endpoint, duty.event
        message = FORMATS[endpoint.config["format"]](event)
        if message is None:
            return Reply(
                status_code=None,
                reason=f"not sent: the format {endpoint.config['format']} has no words for {event.type}",
                ending=AttemptOutcome.DELIVERED,
                exchanged=False,
            )
        body, own = message
        secrets = [self._vault.open(sealed) for sealed in endpoint.signing_secrets(now)]
        credentials = unseal(self._vault, endpoint)
        stored = _stored_headers(credentials)
        signer = sign_publicly if endpoint.signs_publicly else sign
        headers = {
            **stored,
            **own,
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer(body, message_id=event.id, sent_at=now, secrets=secrets),
            **({} if duty.trace is None else duty.trace.headers()),
        }
        reply, _ = await exchange.send(
            self._dialler,
            "POST",
            endpoint.config["url"],
            body=body,
            headers=headers,
            agent=USER_AGENT,
            now=now,
            hidden=_hidden(stored, credentials),
        )
        return reply


def _stored_headers(credentials: Mapping[str, Any]) -> dict[str, str]:
    headers = dict(credentials.get("headers", {}))
    if (basic := credentials.get("basic_auth")) is not None:
        headers["authorization"] = basic_authorization(**basic)
    return headers


def _hidden(headers: Mapping[str, str], credentials: Mapping[str, Any]) -> list[str]:
    """Receivers that are being set up often answer with what they were asked, whole or taken to pieces."""
    values = [value.strip() for value in headers.values()]
    tokens = [
        value.rpartition(" ")[2]  # what stands behind `Bearer` or `Basic`
        for name, value in headers.items()
        if name.lower() == "authorization"
    ]
    return [*values, *tokens, credentials.get("basic_auth", {}).get("password", "")]


def _header_faults(headers: Mapping[object, object], pointer: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, value in islice(headers.items(), MOST_HEADERS):
        lower = str(name).lower()
        where = f"{pointer}/headers/{pointer_token(str(name))}"
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", str(name)):
            faults.append(Fault("This is no name of a header.", where))
        elif lower in RESERVED_HEADERS or lower.startswith(("webhook-", "ce-")):
            faults.append(Fault(f"{name} is set by Klingel itself.", where))
        elif value == MASK:
            faults.append(Fault(MASKED, where))
        elif isinstance(value, str) and not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            faults.append(Fault("A header's value is one line of visible characters.", where))
    return faults


def _basic_auth_faults(fields: Mapping[str, Any], pointer: str) -> list[Fault]:
    headers, basic = fields.get("headers"), fields.get("basic_auth")
    if not isinstance(basic, dict):
        return []
    faults = basic_auth_faults(basic, f"{pointer}/basic_auth")
    if isinstance(headers, dict) and any(str(name).lower() == "authorization" for name in headers):
        faults.append(
            Fault("There is an Authorization header already: give one of them.", f"{pointer}/basic_auth")
        )
    return faults


def _carried(whole: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What of the whole configuration is secret, and was not given in the change itself."""
    headers, given_headers = whole.get("headers"), given.get("headers")
    known = given_headers if isinstance(given_headers, dict) else {}
    carried = [
        f"headers/{pointer_token(str(name))}"
        for name, value in (headers.items() if isinstance(headers, dict) else ())
        if value != known.get(name)
    ]
    basic = whole.get("basic_auth")
    return [*carried, "basic_auth"] if basic is not None and basic != given.get("basic_auth") else carried


def _unmasked(raw: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it was read, sent back: what is masked in it stays as it is stored."""
    unmasked = dict(raw)
    headers, stored = raw.get("headers"), kept.get("headers", {})
    if isinstance(headers, dict):
        unmasked["headers"] = {
            name: stored.get(name, value) if value == MASK else value for name, value in headers.items()
        }
    if "basic_auth" in raw:
        unmasked["basic_auth"] = unmasked_basic_auth(raw["basic_auth"], kept.get("basic_auth"))
    return unmasked
