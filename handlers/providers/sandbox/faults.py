"""What can be made to go wrong on purpose, and how it is asked for."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from starlette.responses import HTMLResponse, RedirectResponse, Response

from handlers.providers.sandbox.answers import Code, Envelope, gateway_error


class Fault(StrEnum):
    """The word after `sandbox:` in a prompt."""

    SLOW = "slow"
    FAIL = "fail"

    DUPLICATE = "duplicate"
    REORDER = "reorder"
    EARLY = "early"
    NEVER = "never"
    CONTRADICT = "contradict"
    OTHER_TASK = "other-task"
    EMPTY = "empty"

    WRAPPED = "wrapped"
    NESTED = "nested"
    NEW = "new"

    TOO_FAST = "1302"
    TOO_MANY_TASKS = "1303"
    MAINTENANCE = "5001"
    INTERNAL = "5000"
    IN_ARREARS = "arrears"
    GATEWAY_BUSY = "429"
    GATEWAY_TIMEOUT = "504"
    HTML = "html"
    REDIRECT = "redirect"

    INTERNAL_AFTER_ACCEPTING = "5000-after-accepting"
    CUT_AFTER = "cut-after"
    HANG = "hang"
    NO_REQUEST_ID = "no-request-id"


REFUSALS: Final[Mapping[Fault, Callable[[], Response]]] = {
    Fault.TOO_FAST: lambda: Envelope(Code.TOO_FAST, "too many requests, try again later"),
    Fault.TOO_MANY_TASKS: lambda: Envelope(Code.TOO_MANY_TASKS, "parallel task over resource pack limit"),
    Fault.MAINTENANCE: lambda: Envelope(Code.MAINTENANCE, "service unavailable for maintenance"),
    Fault.INTERNAL: lambda: Envelope(Code.INTERNAL, "internal error"),
    Fault.IN_ARREARS: lambda: Envelope(Code.IN_ARREARS, "account in arrears"),
    Fault.GATEWAY_BUSY: lambda: gateway_error(429, "upstream is saturated, try again later"),
    Fault.GATEWAY_TIMEOUT: lambda: gateway_error(504, "upstream did not answer in time"),
    Fault.HTML: lambda: HTMLResponse("<!doctype html><title>Sign in</title><h1>Sign in to continue</h1>"),
    Fault.REDIRECT: lambda: RedirectResponse("/elsewhere", status_code=301),
}
"""Nothing is created; each call makes a new answer."""

_WORD: Final = re.compile(r"\bsandbox:([a-z0-9]+(?:-[a-z0-9]+)*)(?:\*([0-9]{1,6}))?", re.IGNORECASE)
_KNOWN: Final = frozenset(Fault)
_REMEMBERED: Final = 20_000


def faults_in(prompt: str) -> dict[Fault, int | None]:
    """Fault to how many creates it hits, None for all of them; in the prompt's order. Unknown words count as prose."""
    found: dict[Fault, int | None] = {}
    for word, count in _WORD.findall(prompt):
        if word.lower() in _KNOWN:
            found[Fault(word.lower())] = int(count) if count else None
    return found


class Draws:
    """Counts down the faults that were asked for a number of times, per subject."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, Fault], int] = {}

    def refusal(self, asked: Mapping[Fault, int | None], *, subject: str) -> Fault | None:
        """The first refusing fault that is not used up; one use of it is spent."""
        for fault in asked:
            if fault in REFUSALS and self._spend(fault, asked[fault], subject):
                return fault
        return None

    def accepted(self, asked: Mapping[Fault, int | None], *, subject: str) -> frozenset[Fault]:
        """The faults of a task that was accepted; one use of each is spent."""
        return frozenset(
            fault
            for fault, count in asked.items()
            if fault not in REFUSALS and self._spend(fault, count, subject)
        )

    def _spend(self, fault: Fault, count: int | None, subject: str) -> bool:
        if count is None:
            return True
        used = self._used.pop((subject, fault), 0)
        self._used[subject, fault] = used + 1
        if len(self._used) > _REMEMBERED:
            del self._used[next(iter(self._used))]
        return used < count
