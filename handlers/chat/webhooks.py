"""Incoming webhooks of hosted platforms: an address at the platform that can be posted to by whoever has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field
from yarl import URL

from handlers.messages import Mood
from handlers.sinks import exchange
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.errors import Fault
from service.domain.values import replace
from service.network.connections import Answer
from service.network.dialler import Dialler, Refused

MARKS: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "⏳",
    Mood.GOOD: "✅",
    Mood.BAD: "❌",
    Mood.WARNING: "⚠️",
    Mood.NOTE: "🔔",
}

Address = Annotated[str, Field(max_length=2048)]


def server_faults(dialler: Dialler, server: str, *, pointer: str) -> list[Fault]:
    try:
        url = dialler.check(server)
    except Refused as error:
        return [Fault(f"The URL cannot be used: {error}.", pointer)]
    if url.raw_query_string or url.raw_fragment or url.raw_path != "/":
        return [Fault("Give the server's address alone.", pointer)]
    return []


def webhook_faults(
    dialler: Dialler,
    address: str,
    *,
    servers: Sequence[str],
    path: str,
    parameter: str | None = None,
    pointer: str,
) -> list[Fault]:
    """
    Args:
        servers: at one of which it must be.
        path: with which its own begins.
        parameter: of its query, that makes it this webhook and no other.
    """
    try:
        url = dialler.check(address)
    except Refused as error:
        return [Fault(f"The URL cannot be used: {error}.", pointer)]
    if url.origin() not in [URL(server).origin() for server in servers]:
        return [Fault(f"It must be at {' or '.join(servers)}; another server goes into `server`.", pointer)]
    named = url.query.get(parameter) if parameter is not None else url.path.removeprefix(path)
    if not url.path.startswith(path) or not named or url.raw_fragment:
        shown = path if parameter is None else f"{path}?{parameter}="
        return [Fault(f"Give the webhook's whole address: it has {shown} in it.", pointer)]
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What a platform's own codes mean, which come under status 200 too. Zero is well; what is not known is tried again."""

    platform: str  # for people
    code_name: str  # the answer's field that holds it
    gone: frozenset[int]
    for_good: frozenset[int]
    too_fast: frozenset[int]
    pause: timedelta  # after one of these, where the answer does not say how long
    reasons: Mapping[int, str] = field(default_factory=dict)

    def judge(self, reply: Reply, answer: Answer) -> Reply:
        code, status = self.of(answer), answer.status
        if code == 0 and status == 200:
            return replace(reply, ending=AttemptOutcome.DELIVERED)
        if code is None or code == 0:
            if exchange.refuses_for_good(status):
                return replace(reply, ending=AttemptOutcome.DEAD, reason="refused for good")
            if 200 <= status < 300:
                reason = f"answered, but not as {self.platform} does"
                return replace(reply, ending=AttemptOutcome.RETRY, reason=reason)
            return reply
        reason = self.reasons.get(code, f"{self.platform} refuses, with code {code}")
        if code in self.too_fast or status == 429:
            wait = reply.retry_after or self.pause
            return replace(reply, ending=AttemptOutcome.RETRY, reason=reason, retry_after=wait)
        ending = AttemptOutcome.RETRY
        if code in self.gone:
            ending = AttemptOutcome.GONE
        elif code in self.for_good:
            ending = AttemptOutcome.DEAD
        return replace(reply, ending=ending, reason=reason)

    def of(self, answer: Answer) -> int | None:
        code = exchange.json_object(answer.body).get(self.code_name)
        return code if type(code) is int else None
