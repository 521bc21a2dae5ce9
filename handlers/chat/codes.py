"""A platform's own codes in its answers, judged as what becomes of the delivery."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from handlers.sinks import exchange
from service.domain.deliveries import AttemptOutcome, Reply
from service.domain.values import replace
from service.network.connections import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What a platform's own codes mean; they come under status 200 too. Zero is success; after an unknown code the
    delivery is tried again.
    """

    platform: str  # for people
    code_name: str  # the answer's field that holds it
    gone: frozenset[int]
    for_good: frozenset[int]
    too_fast: frozenset[int]
    pause: timedelta  # after a code of `too_fast`, where the answer does not say how long
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
