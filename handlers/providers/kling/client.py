"""One account at Kling: sends its creates; asks for a status only when told to."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import httpx
from anyio.to_thread import run_sync

from handlers.providers.kling.answers import Reply, http_date, read_answer
from handlers.providers.kling.outcomes import (
    EXPIRED,
    NOT_YET_VALID,
    create_outcome,
    fault,
    read_error,
    status_report,
)
from handlers.providers.kling.redaction import hider, redactor
from handlers.providers.kling.requests import create_request, query_path
from service.domain.creates import Accepted, CreateOutcome, Deferred, Order, Refused, Unknown
from service.domain.errors import ConfigurationError, ProviderRefused
from service.domain.long_texts import dump_large, holds_long_texts
from service.domain.task_types import TASK_TYPES, Layout, NotSold, Route
from service.domain.tasks import Refusal, Report, Task

MAX_ANSWER_BYTES: Final = 1024 * 1024
PIECE_BYTES: Final = 256 * 1024

OUTCOME_WORDS: Final[Mapping[type[CreateOutcome], str]] = {
    Accepted: "accepted",
    Refused: "refused",
    Deferred: "deferred",
    Unknown: "unknown",
}


class KlingProvider:
    """
    Args:
        client: pooled and shared; its redirects and time-outs are overruled here.
        authorization: gives the header's value, anew for each request.
        correct: as `Authorization.correct`.
        timeout: of one request from the wait for a connection to the answer's last byte.
        on_call: called once for each request sent: `create` with `accepted`, `refused`, `deferred` or `unknown`;
            `status_query` with `ok` or `failed`.
        skew_pause: before a token that is not valid yet is shown a second time.

    Raises:
        ConfigurationError: the base URL is no HTTP URL.
    """

    def __init__(
        self,
        *,
        name: str,
        client: httpx.AsyncClient,
        base_url: str,
        layout: Layout,
        authorization: Callable[[], str],
        correct: Callable[[datetime, str], bool] = lambda _theirs, _refused: False,
        on_call: Callable[[str, str], None],
        timeout: timedelta = timedelta(seconds=60),
        skew_pause: timedelta = timedelta(seconds=5),
    ) -> None:
        self.name = name
        self._client = client
        self._base_url = _checked(base_url)
        self._layout = layout
        self._authorization = authorization
        self._correct = correct
        self._timeout = timeout
        self._skew_pause = skew_pause
        self._on_call = on_call

    async def create(self, order: Order) -> CreateOutcome:
        """Sends one create, and a second one only after 1003 or 1004, which refuse the token before the task.

        1201 means "exists already" as well as other things, in words that may change. To a create sent again it is
        taken as the former: were it the latter, the task would be overdue, and told so; the other way round a paid
        result would be lost.
        """
        try:
            route = TASK_TYPES[order.type].route(self._layout, order.path)
        except (KeyError, NotSold):
            told = f"{self.name} does not take {order.type}."
            return Refused(Refusal.REQUEST, "type_not_sold", told)
        outcome = await self._create_once(order, route)
        match outcome:
            case Refused(Refusal.REQUEST, "1201", message) if order.is_resend:
                return Refused(Refusal.EXISTS, "1201", message)
            case _:
                return outcome

    async def _create_once(self, order: Order, route: Route) -> CreateOutcome:
        authorization = self._authorization()
        outcome, theirs = await self._create(order, route, authorization)
        if not isinstance(outcome, Refused) or outcome.code not in {NOT_YET_VALID, EXPIRED}:
            return outcome
        corrected = theirs is not None and self._correct(theirs, authorization)
        if outcome.code == NOT_YET_VALID and not corrected:
            await asyncio.sleep(self._skew_pause.total_seconds())
        else:
            authorization = self._authorization()
        again, _ = await self._create(order, route, authorization)
        return again

    async def read(self, task: Task) -> Report:
        """One GET, by the provider's id, else by the external id; a second one only where the first was refused for its
        token's times.

        Raises:
            NotFound: the provider has no such task.
            ProviderRefused: or one of its kinds, for what another try would not change.
            ProviderUnavailable: for what it may change.
        """
        outcome = "failed"
        try:
            report = await self._status(task)
            outcome = "ok"
        finally:
            self._on_call("status_query", outcome)
        return report

    async def _create(
        self, order: Order, route: Route, authorization: str
    ) -> tuple[CreateOutcome, datetime | None]:
        """How it ended, and when that was by the provider's clock, where it says so."""
        theirs: datetime | None = None
        request = create_request(route, order)
        redact = redactor(authorization=authorization, callback_url=order.callback_url)
        hide = hider(authorization=authorization, callback_url=order.callback_url)
        word = "unknown"
        try:
            # A task's pictures are Base64 here: written at once, they would hold up everybody for half a second.
            large = holds_long_texts(request.fields)
            content = (
                await run_sync(dump_large, request.fields) if large else json.dumps(request.fields).encode()
            )
            reply = await self._exchange("POST", request.path, authorization, content)
            theirs = http_date(reply.headers.get("date", ""))
            outcome = create_outcome(reply, redact, hide)
            word = OUTCOME_WORDS[type(outcome)]
        except (httpx.HTTPError, OSError) as error:
            outcome = fault(error, redact)
            word = OUTCOME_WORDS[type(outcome)]
        finally:
            self._on_call("create", word)
        return outcome, theirs

    async def _status(self, task: Task) -> Report:
        try:
            route = TASK_TYPES[task.type].route(self._layout, task.path)
        except (KeyError, NotSold):
            raise ProviderRefused(
                f"{self.name} knows no {task.type}.", provider_code="type_not_sold"
            ) from None
        path = query_path(route, task)
        authorization, reply = await self._asked(path)
        if self._tells_the_time(reply, authorization):
            self._on_call("status_query", "failed")
            authorization, reply = await self._asked(path)
        return status_report(reply, redactor(authorization=authorization))

    async def _asked(self, path: str) -> tuple[str, Reply]:
        """By what, and the answer."""
        authorization = self._authorization()
        try:
            return authorization, await self._exchange("GET", path, authorization)
        except (httpx.HTTPError, OSError) as error:
            raise read_error(fault(error, redactor(authorization=authorization))) from error

    def _tells_the_time(self, reply: Reply, authorization: str) -> bool:
        """Whether its token was refused for its times, and the next one heeds what time it is there."""
        theirs = http_date(reply.headers.get("date", ""))
        is_refused = read_answer(reply).kling_code in {NOT_YET_VALID, EXPIRED}
        return is_refused and theirs is not None and self._correct(theirs, authorization)

    async def _exchange(
        self, method: str, path: str, authorization: str, content: bytes | None = None
    ) -> Reply:
        """
        Raises:
            httpx.HTTPError, OSError: there is no whole answer. Time-outs of the pool and of connecting (for TCP
                and again for TLS) add up to less than the whole, so when the whole runs out, the request was sent.
        """
        whole = self._timeout.total_seconds()
        headers = {
            "Authorization": authorization,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if content is not None:
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(content))
        async with (
            asyncio.timeout(whole),
            self._client.stream(
                method,
                self._base_url + path,
                content=_in_pieces(content)
                if content is not None and len(content) > PIECE_BYTES
                else content,
                headers=headers,
                timeout=httpx.Timeout(whole, pool=whole / 4, connect=whole / 4),
                follow_redirects=False,
            ) as response,
        ):
            return Reply(
                status=response.status_code, headers=response.headers, body=await _capped_body(response)
            )


async def _in_pieces(content: bytes) -> AsyncIterator[bytes]:
    """What is sent in one piece is encrypted in one step."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


async def _capped_body(response: httpx.Response) -> bytes:
    """Empty when over the limit: half a document tells as little as none."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return b""
    return bytes(body)


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"KLINGEL_PROVIDER_URL is not a URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError("KLINGEL_PROVIDER_URL must be an http:// or https:// URL with a host.")
    return base_url.rstrip("/")
