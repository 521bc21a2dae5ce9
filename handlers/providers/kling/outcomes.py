"""What an HTTP answer means, or the lack of one: for a create one of four outcomes, for a query a report.

All that decides stands in `FATES`: Kling's codes, statuses without one, and faults of the wire. A status alone
decides nothing where Kling gave a code: 429 is also an empty account, and 400 also a create that came twice.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Final

import httpx

from handlers.providers.kling.answers import Answer, Reply, read_answer
from handlers.providers.kling.redaction import Redact
from handlers.providers.kling.reports import final_report, report_of, task_id
from service.domain.creates import Accepted, CreateOutcome, Deferred, Refused, Unknown
from service.domain.errors import (
    KlingelError,
    NotFound,
    PaymentRequired,
    ProviderMisconfigured,
    ProviderRefused,
    ProviderUnavailable,
)
from service.domain.tasks import Refusal, Report, Unreadable
from service.domain.values import replace


class Fate(StrEnum):
    """What becomes of a create that was not plainly accepted."""

    REQUEST = "request"
    EXISTS = "exists"
    PAYMENT = "payment"
    ACCOUNT = "account"
    ADDRESS = "address"  # whoever answered is not the API: the operator's URL is wrong
    LATER = "later"  # certainly not accepted
    SLOT = "slot"  # certainly not accepted: too many parallel tasks
    UNKNOWN = "unknown"  # perhaps accepted, and billed


NOT_YET_VALID: Final = "1003"
EXPIRED: Final = "1004"

FATES: Final[Mapping[str, Fate]] = {
    # Kling "Error Codes" (2026)
    "1000": Fate.ACCOUNT,
    "1001": Fate.ACCOUNT,
    "1002": Fate.ACCOUNT,
    NOT_YET_VALID: Fate.ACCOUNT,
    EXPIRED: Fate.ACCOUNT,
    "1100": Fate.ACCOUNT,
    "1101": Fate.PAYMENT,
    "1102": Fate.PAYMENT,
    "1103": Fate.ACCOUNT,
    "1200": Fate.REQUEST,
    "1201": Fate.REQUEST,
    "1202": Fate.REQUEST,
    "1203": Fate.REQUEST,
    "1300": Fate.REQUEST,
    "1301": Fate.REQUEST,
    "1302": Fate.LATER,
    "1303": Fate.SLOT,
    "1304": Fate.ACCOUNT,
    "5000": Fate.UNKNOWN,
    "5001": Fate.LATER,
    "5002": Fate.UNKNOWN,
    # no code of Kling's: CometAPI "Handle error codes", proxies, and what 2xx answers can lack
    "http_401": Fate.ACCOUNT,
    "http_402": Fate.PAYMENT,
    "http_403": Fate.ACCOUNT,
    "http_404": Fate.ADDRESS,
    "http_405": Fate.ADDRESS,
    "http_407": Fate.ACCOUNT,
    "http_408": Fate.UNKNOWN,
    "http_413": Fate.REQUEST,
    "http_425": Fate.LATER,
    "http_429": Fate.LATER,
    "http_499": Fate.UNKNOWN,
    "no_task_id": Fate.UNKNOWN,
    "unreadable_answer": Fate.UNKNOWN,
    # no answer: the first four happen before a byte of the request is sent
    "connect_failed": Fate.LATER,
    "connect_timeout": Fate.LATER,
    "pool_timeout": Fate.LATER,
    "proxy_failed": Fate.LATER,
    "timeout": Fate.UNKNOWN,
    "connection_lost": Fate.UNKNOWN,
}

# By the hundreds of a status that `FATES` does not list; an HTML page comes from no API.
FAMILIES: Final[Mapping[int, Fate]] = {3: Fate.ADDRESS, 4: Fate.REQUEST}
PAGE_FAMILIES: Final[Mapping[int, Fate]] = {2: Fate.ADDRESS, 3: Fate.ADDRESS, 4: Fate.ADDRESS}

REFUSALS: Final[Mapping[Fate, Refusal]] = {
    Fate.REQUEST: Refusal.REQUEST,
    Fate.EXISTS: Refusal.EXISTS,
    Fate.PAYMENT: Refusal.PAYMENT,
    Fate.ACCOUNT: Refusal.ACCOUNT,
    Fate.ADDRESS: Refusal.ACCOUNT,
}

READ_ERRORS: Final[Mapping[Refusal, type[KlingelError]]] = {
    Refusal.REQUEST: ProviderRefused,
    Refusal.EXISTS: ProviderRefused,
    Refusal.PAYMENT: PaymentRequired,
    Refusal.ACCOUNT: ProviderMisconfigured,
}

FAULTS: Final[Mapping[type[BaseException], tuple[str, str]]] = {
    httpx.ConnectError: ("connect_failed", "The provider could not be reached"),
    httpx.ConnectTimeout: ("connect_timeout", "Connecting to the provider took too long"),
    httpx.PoolTimeout: ("pool_timeout", "No connection to the provider became free in time"),
    httpx.ProxyError: ("proxy_failed", "The proxy would not connect to the provider"),
    httpx.TimeoutException: ("timeout", "The provider did not answer in time"),
    TimeoutError: ("timeout", "The provider did not answer in time"),
    httpx.DecodingError: ("unreadable_answer", "The provider's answer could not be decompressed"),
    httpx.HTTPError: ("connection_lost", "The connection to the provider broke"),
    OSError: ("connection_lost", "The connection to the provider broke"),
}

# No page gives the exact words for a second use of an external_task_id, only "already exists" (live note, 2026).
EXISTS: Final = re.compile(
    r"""
    \b already \W+ (?: exist | been \W used | used | in \W use | taken | submitted )
    | \b external .? task .? id \b .* \b (?: exists | existed | duplicated? | repeated | unique | been \W used ) \b
    | \b (?: duplicated? | repeated | same | existing ) \W+ (?: \w+ \W+ )? external .? task .? id
    | 已 经? 存在
    | external .? task .? id .* 重复
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
EXISTS_NOT: Final = re.compile(
    r"(?: not | n['\u2019]t ) \s+ (?: \w+ \s+ )? exist | \b no \s+ (?: \w+ \s+ ){0,5} exist",
    re.IGNORECASE | re.VERBOSE,
)
TASK_NOT_FOUND: Final = re.compile(
    r"task.{0,40}\bnot[\s_]*(?:found|exist)|task_not_(?:found|exist)", re.IGNORECASE
)
UNPAID: Final = re.compile(
    r"""
    insufficient [\s_]+ (?: \w+ [\s_]+ )?? (?: quota | balance | credit | fund )
    | \b (?: quota | balance | credits? | funds ) \b .{0,40} \b (?: insufficient | enough | exhausted | used \s up | low | depleted | failed )
    | \b not \s enough \s+ (?: \w+ \s+ )? (?: quota | balance | credit )
    | \b (?: exceeded \s your \s current \s quota | out \s of \s credits? | arrears | top \W? up | recharge )
    | \b resource \s pack (?: age )? \s (?: is \s )? (?: exhausted | expired | depleted | used \s up )
    | 余额 | 额度 | 欠费
    """,
    re.IGNORECASE | re.VERBOSE,
)

# A new-api gateway answers 400 to whatever Kling refuses, and leaves only Kling's words (new-api, "relay/channel/task/kling").
# Whole phrases of Kling, "Error Codes" (2026), and its messages: each of their words also stands in faults of a field.
HIDDEN: Final[Mapping[Fate, re.Pattern[str]]] = {
    fate: re.compile(words, re.IGNORECASE | re.VERBOSE)
    for fate, words in {
        Fate.SLOT: r"""
            \b parallel \s tasks? \s over \s (?: the \s )? resource \s pack
            | \b concurrency \s (?: or \s QPS \s )? exceeds? \s (?: the \s )? (?: prepaid \s )? resource \s pack
        """,
        Fate.LATER: r"""
            \b too \s (?: many | frequent ) \s requests \b
            | \b requests? \s (?: (?: is | are ) \s )? too \s (?: fast | frequent | many )
            | (?: ^ | [.:;,] \s* | \b (?: api | request | platform | the ) \s ) rate \s limit \s (?: is \s | was \s )? (?: exceeded | reached )
            | \b (?: server | service | system ) \s (?: is \s )? temporarily \s unavailable
            | 请求 (?: 过于 | 太 | 过 ) (?: 频繁 | 快 )
        """,
        Fate.UNKNOWN: r"""
            \b internal \s (?: (?: server | service | system ) \s )? error \b
            | \b internal \s timeout \b
            | \b (?: request | server | service | system | upstream ) \s (?: has \s )? timed \s out \b
            | \b (?: server | service | system ) \s (?: is \s )? (?: too \s )? busy \b
            | (?: 系统 | 服务器? ) 繁忙 | 内部错误
        """,
    }.items()
}


def create_outcome(reply: Reply, redact: Redact, hide: Redact) -> CreateOutcome:
    """Accepted is only what says so and names a task.

    Args:
        hide: as `redact`, and leaves the whole length: for an answer that is worth keeping.
    """
    answer = read_answer(reply)
    known = task_id(answer.layers) if answer.succeeded else None
    outcome = _shortfall(answer, redact) if known is None else Accepted(known, _final_report(answer, redact))
    match outcome:
        case Accepted(report=Report()) | Unknown() if (
            answer.succeeded
        ):  # what was paid may stand nowhere else
            return replace(outcome, answer=hide(reply.body.decode()).encode())
        case _:
            return outcome


def fault(error: Exception, redact: Redact) -> Deferred | Refused | Unknown:
    """A create without an answer.

    Args:
        error: an `httpx.HTTPError` or an `OSError`.
    """
    code, sentence = next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    detail = str(error)
    return _outcome(FATES[code], code, redact(f"{sentence}: {detail}" if detail else f"{sentence}."))


def status_report(reply: Reply, redact: Redact) -> Report:
    """
    Raises:
        NotFound: the provider has no such task.
        ProviderRefused: or one of its kinds, for what another try would not change.
        ProviderUnavailable: for what it may change.
    """
    answer = read_answer(reply)
    if answer.succeeded:
        return _report(answer)
    outcome = _shortfall(answer, redact)
    if isinstance(outcome, Refused) and TASK_NOT_FOUND.search(f"{answer.gateway_code} {answer.message}"):
        raise NotFound("The provider knows no such task.", provider_code=outcome.code)
    raise read_error(outcome)


def read_error(outcome: Refused | Deferred | Unknown) -> KlingelError:
    kind = READ_ERRORS[outcome.kind] if isinstance(outcome, Refused) else ProviderUnavailable
    return kind(outcome.message, provider_code=outcome.code)


def _report(answer: Answer) -> Report:
    if answer.layers[-1].get("data") == []:
        raise NotFound("The provider knows no such task.")
    try:
        return report_of(answer.layers)
    except Unreadable as error:
        raise ProviderUnavailable(
            f"The provider's answer cannot be read: {error}.", provider_code="unreadable_answer"
        ) from None


def _final_report(answer: Answer, redact: Redact) -> Report | None:
    report = final_report(answer.layers)
    if report is None or report.error is None:
        return report
    return replace(report, error=replace(report.error, message=redact(report.error.message)))


def _shortfall(answer: Answer, redact: Redact) -> Refused | Deferred | Unknown:
    code = _code(answer)
    fate = _fate(answer, code)
    return _outcome(fate, code, redact(_explanation(answer, fate)), answer.retry_after)


def _code(answer: Answer) -> str:
    if answer.kling_code is not None:
        return answer.kling_code
    if answer.succeeded:
        return "no_task_id"
    if 200 <= answer.status < 300 and not answer.layers and not answer.is_page:
        return "unreadable_answer"
    return f"http_{answer.status}"


def _fate(answer: Answer, code: str) -> Fate:
    families = PAGE_FAMILIES if answer.is_page else FAMILIES
    fate = (
        FATES.get(code)
        or FATES.get(f"http_{answer.status}")
        or families.get(answer.status // 100, Fate.UNKNOWN)
    )
    return _reworded(answer, fate)


def _reworded(answer: Answer, fate: Fate) -> Fate:
    """What only the words tell: an existing task (1201 means other things too), a gateway's own reasons, and Kling's
    where the gateway hides its code.
    """
    message = answer.message or ""
    if answer.kling_code is None and answer.status >= 400:
        if answer.gateway_code == "invalid_request" and fate is Fate.UNKNOWN:
            fate = Fate.REQUEST
        if fate in {Fate.REQUEST, Fate.ACCOUNT, Fate.LATER} and UNPAID.search(
            f"{answer.gateway_code} {message}"
        ):
            return Fate.PAYMENT
        if fate is Fate.REQUEST and answer.gateway_code != "invalid_request":
            fate = next((meant for meant, words in HIDDEN.items() if words.search(message)), fate)
    may_exist = fate is Fate.REQUEST and answer.kling_code in {None, "1201"}
    return Fate.EXISTS if may_exist and EXISTS.search(message) and not EXISTS_NOT.search(message) else fate


def _explanation(answer: Answer, fate: Fate) -> str:
    status = f"HTTP {answer.status}"
    if fate is Fate.ADDRESS:
        page = " with an HTML page" if answer.is_page else ""
        target = f" to {answer.location}" if answer.location else ""
        said = f" ({answer.message})" if answer.message else ""
        return f"No Kling API is there, check KLINGEL_PROVIDER_URL: {status}{page}{target}{said}."
    return answer.message or f"The provider answered {status} and gave no reason."


def _outcome(
    fate: Fate, code: str, message: str, retry_after: timedelta | None = None
) -> Refused | Deferred | Unknown:
    match fate:
        case Fate.LATER | Fate.SLOT:
            return Deferred(code, message, needs_slot=fate is Fate.SLOT, retry_after=retry_after)
        case Fate.UNKNOWN:
            return Unknown(code, message)
        case _:
            return Refused(REFUSALS[fate], code, message)
