"""ntfy: a push notification with picture and link, by any ntfy server."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic_core import from_json, to_json

from handlers.messages import Message, Mood, Urgency, cut, cut_bytes, message_of
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
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.models import StrictModel
from service.domain.secrets import Vault
from service.domain.values import replace
from service.network.connections import Answer
from service.network.dialler import Dialler, Refused

SECRETS: Final = ("token", "basic_auth")
# ntfy, "Publishing": a longer message is turned into a file; three actions at most.
LONGEST_TEXT_BYTES: Final = 4096
LONGEST_TITLE: Final = 250
MOST_ACTIONS: Final = 3
PRIORITIES: Final[Mapping[Urgency, int]] = {Urgency.LOW: 2, Urgency.NORMAL: 3, Urgency.HIGH: 4}
TAGS: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "hourglass_flowing_sand",
    Mood.GOOD: "white_check_mark",
    Mood.BAD: "x",
    Mood.WARNING: "warning",
    Mood.NOTE: "bell",
}


class NtfyConfig(StrictModel):
    """`token` and the password are kept sealed. On a public server the topic's name is all that protects it."""

    server: Annotated[str, Field(max_length=2048)] = "https://ntfy.sh"
    topic: Annotated[str, Field(pattern=r"^[-_A-Za-z0-9]{1,64}$")]
    token: Annotated[str, Field(max_length=255, pattern=r"^[\x21-\x7e]+$")] | None = None
    basic_auth: BasicAuth | None = None


class NtfySink:
    """Delivers to endpoints of kind `ntfy`."""

    def __init__(self, dialler: Dialler, vault: Vault) -> None:
        self._dialler = dialler
        self._vault = vault

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        faults: list[Fault] = []
        if before is not None and isinstance(raw, dict):
            raw, faults = self._changed(raw, before, pointer)
        fields = raw if isinstance(raw, dict) else {}
        if fields.get("token") == MASK:
            faults.append(Fault(MASKED, f"{pointer}/token"))
            raw = {**fields, "token": None}
        config: NtfyConfig | None = None
        with collecting(faults):
            config = accept(NtfyConfig, raw, pointer=pointer)
        faults += self._server_faults(fields.get("server"), f"{pointer}/server")
        faults += basic_auth_faults(fields.get("basic_auth"), f"{pointer}/basic_auth")
        if fields.get("token") is not None and fields.get("basic_auth") is not None:
            faults.append(Fault("Give a token or Basic auth, not both.", f"{pointer}/basic_auth"))
        if faults or config is None:
            raise InvalidFields(faults)
        public: dict[str, Any] = {"server": config.server, "topic": config.topic}
        credentials: dict[str, Any] = {}
        if config.token is not None:
            credentials["token"], public["token"] = config.token, MASK
        if config.basic_auth is not None:
            credentials["basic_auth"] = config.basic_auth.model_dump()
            public["basic_auth"] = config.basic_auth.shown()
        return public, seal(self._vault, credentials)

    def _changed(
        self, raw: Mapping[str, Any], before: Endpoint, pointer: str
    ) -> tuple[dict[str, Any], list[Fault]]:
        """The whole configuration, as it is to be; a stored secret is not sent to another server than it was given for."""
        kept = unseal(self._vault, before)
        given = dict(raw)
        if given.get("token") == MASK:
            given["token"] = kept.get("token", MASK)
        if "basic_auth" in given:
            given["basic_auth"] = unmasked_basic_auth(given["basic_auth"], kept.get("basic_auth"))
        if any(given.get(name) is not None for name in SECRETS):  # one takes the other's place
            kept = {name: secret for name, secret in kept.items() if name in given}
        merged = {"server": before.config["server"], "topic": before.config["topic"]} | kept | given
        carried = [name for name in SECRETS if merged.get(name) is not None and merged[name] != raw.get(name)]
        return merged, moved_faults(merged["server"], before.config["server"], carried, pointer)

    def _server_faults(self, server: object, pointer: str) -> list[Fault]:
        if not isinstance(server, str):
            return []
        try:
            url = self._dialler.check(server)
        except Refused as error:
            return [Fault(f"The server cannot be used: {error}.", pointer)]
        if url.raw_query_string or url.raw_fragment or url.raw_path != "/":
            return [Fault("Give the server's address alone; the topic has a field of its own.", pointer)]
        return []

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        config, secrets = duty.endpoint.config, unseal(self._vault, duty.endpoint)
        headers = {"content-type": "application/json"}
        token, basic = secrets.get("token"), secrets.get("basic_auth")
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        elif basic is not None:
            headers["authorization"] = basic_authorization(**basic)
        hidden = [token or "", headers.get("authorization", ""), (basic or {}).get("password", "")]
        reply, answer = await exchange.post(
            self._dialler,
            config["server"].rstrip("/") + "/",
            body=to_json({"topic": config["topic"], **_content(message_of(duty.event))}),
            headers=headers,
            now=now,
            hidden=hidden,
        )
        return reply if answer is None else _judged(reply, answer)


def _content(message: Message) -> dict[str, Any]:
    """The JSON form of a publish (ntfy, "Publishing": "Publish as JSON"), but the topic."""
    content: dict[str, Any] = {
        "title": cut(message.title, LONGEST_TITLE),
        "message": cut_bytes(message.body, LONGEST_TEXT_BYTES),
        "priority": PRIORITIES[message.urgency],
        "tags": [TAGS[message.mood]],
    }
    if message.link is not None:
        content["click"] = content["attach"] = message.link
        content["actions"] = [
            {"action": "view", "label": f"Open {made.label.lower()}", "url": made.url, "clear": True}
            for made in message.made[:MOST_ACTIONS]
        ]
    return content


def _judged(reply: Reply, answer: Answer) -> Reply:
    if exchange.refuses_for_good(answer.status):
        return replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good")
    if 200 <= answer.status < 300 and not _is_published(answer.body):
        # A portal, or another service at this address: it would swallow everything.
        return replace(reply, ending=AttemptOutcome.RETRY, reason="answered, but not as ntfy does")
    return reply


def _is_published(body: bytes) -> bool:
    """It answers with the message as it stored it."""
    try:
        stored = from_json(body)
    except ValueError:
        return False
    return isinstance(stored, dict) and stored.get("event") == "message" and bool(stored.get("id"))
