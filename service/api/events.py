"""`/v1/events` and `/v1/tasks/{id}/events`: the log, and the log as it grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Final

from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.auth import authenticate
from service.api.pages import Page, Query
from service.api.state import State
from service.domain.errors import NotFound, TooManyStreams
from service.domain.events import TERMINAL_EVENTS, Event, EventType
from service.domain.ids import AccountId, TaskId
from service.explaining import explain_event
from service.sharing import Full, Places
from service.streams import KeyRevoked, TooSlow
from storage import events, tasks
from storage.keys import ApiKey

HEARTBEAT_S = 15
TRY_AGAIN_S: Final = 30
ORDERS: Final = ("asc", "desc")


async def of_account(request: Request[State]) -> Response:
    """Newest first, or oldest first with `order=asc`; as a stream, what happens from now on."""
    key = await authenticate(request)
    if _wants_stream(request):
        after = await _resume_position(request, key.account_id)
        if after is None:
            async with request.state["database"].reading() as reader:
                after = await events.last_position(reader, key.account_id)
        return _stream(request, key, task_id=None, after_position=after)
    query = Query(request, known=("type", "order"))
    page = query.page(numeric_cursor=True)
    type = query.choice("type", list(EventType))
    order = query.choice("order", ORDERS)
    query.check()
    at = None if page.cursor is None else int(page.cursor)
    async with request.state["database"].searching(key.account_id) as reader:
        if order == "asc":
            found = await events.of_account(
                reader, key.account_id, after_position=at or 0, limit=page.limit + 1, type=type
            )
        else:
            found = await events.latest(
                reader, key.account_id, before_position=at, limit=page.limit + 1, type=type
            )
    return _listed(page, found)


async def of_task(request: Request[State]) -> Response:
    """Oldest first; as a stream, from the first event to the terminal one, after which it ends."""
    key = await authenticate(request)
    task_id = TaskId(request.path_params["id"])
    async with request.state["database"].reading() as reader:
        if await tasks.get(reader, task_id, account_id=key.account_id) is None:
            raise NotFound(f"There is no task {task_id}.")
    if _wants_stream(request):
        after = await _resume_position(request, key.account_id)
        return _stream(request, key, task_id=task_id, after_position=after or 0)
    query = Query(request, known=())
    page = query.page(numeric_cursor=True)
    query.check()
    at = 0 if page.cursor is None else int(page.cursor)
    async with request.state["database"].reading() as reader:
        found = await events.of_task(reader, task_id, after_position=at, limit=page.limit + 1)
    return _listed(page, found)


async def show(request: Request[State]) -> Response:
    """As it was told, byte for byte."""
    key = await authenticate(request)
    return Response((await _found(request, key)).body, media_type="application/json")


async def explain(request: Request[State]) -> Response:
    """For each endpoint that could have got it, whether it did, why, and what became of its newest delivery.

    Endpoints are those of the account and those bound to the event's task, the oldest first; also those that were
    deleted since. With `endpoint_id` it is that one alone, whatever task it is bound to.
    """
    key = await authenticate(request)
    query = Query(request, known=("endpoint_id",))
    page = query.page()
    endpoint_id = query.word("endpoint_id")
    query.check()
    event = await _found(request, key)
    found = await explain_event(
        request.state["database"],
        event,
        endpoint_id=endpoint_id,
        after_id=page.cursor,
        limit=page.limit + 1,
    )
    return page.respond(found, views=[explanation.view() for explanation in found])


async def _found(request: Request[State], key: ApiKey) -> Event:
    """
    Raises:
        NotFound: none, another account's, or no longer kept.
    """
    event_id = request.path_params["id"]
    async with request.state["database"].reading() as reader:
        event = await events.get(reader, event_id, account_id=key.account_id)
    if event is None:
        raise NotFound(f"There is no event {event_id}.")
    return event


def _listed(page: Page, found: list[Event]) -> Response:
    """The events' own bytes, not read and written again."""
    next_cursor = str(found[page.limit - 1].position) if len(found) > page.limit else None
    items = b",".join(event.body for event in found[: page.limit])
    body = b'{"items":[' + items + b'],"next_cursor":' + to_json(next_cursor) + b"}"
    return Response(body, media_type="application/json")


class _Stream(EventSourceResponse):
    """One of its account's; refused before anything of it is sent."""

    def __init__(
        self, content: AsyncIterator[ServerSentEvent], *, places: Places, account_id: AccountId
    ) -> None:
        super().__init__(content, ping=HEARTBEAT_S, headers={"x-accel-buffering": "no"})
        self._places = places
        self._account_id = account_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            TooManyStreams: the account has them all open.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._places.place(self._account_id))
            except Full:
                limit = self._places.of_one
                detail = f"The account has {limit} live streams open, and no more are taken. Close one first."
                raise TooManyStreams(detail, limit=limit, retry_after_s=TRY_AGAIN_S) from None
            await super().__call__(scope, receive, send)

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Klingel ends its streams by itself, whole. The library would look twice a second whether the server stops, and
        then break them off.
        """
        await asyncio.Event().wait()


def _wants_stream(request: Request[State]) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


async def _resume_position(request: Request[State], account_id: AccountId) -> int | None:
    """
    Raises:
        NotFound: the event to resume from is not in the log: what came after it may not be either.
    """
    last = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not last:
        return None
    async with request.state["database"].reading() as reader:
        position = await events.position(reader, last, account_id=account_id)
    if position is None:
        raise NotFound(
            "The event to resume from is not in the log (any longer). Read GET /v1/events and begin a new stream."
        )
    return position


def _stream(request: Request[State], key: ApiKey, *, task_id: TaskId | None, after_position: int) -> Response:
    state = request.state

    async def sent() -> AsyncIterator[ServerSentEvent]:
        if task_id is not None and after_position and await _has_ended(request, task_id, after_position):
            return
        followed = state["streams"].follow(
            state["database"],
            key.account_id,
            key_id=key.id,
            task_id=task_id,
            after_position=after_position,
        )
        async with aclosing(followed) as live:
            try:
                async for event in live:
                    yield ServerSentEvent(data=event.body.decode(), event=event.type, id=event.id)
                    if task_id is not None and event.type in TERMINAL_EVENTS:
                        return
            except TooSlow:
                yield _dropped(
                    "too-slow", "You read too slowly. Connect again with Last-Event-ID; nothing is lost."
                )
            except KeyRevoked:
                yield _dropped("key-revoked", "The API key of this stream was revoked.")

    return _Stream(sent(), places=state["shares"].streams, account_id=key.account_id)


def _dropped(reason: str, detail: str) -> ServerSentEvent:
    """The last event of a stream that ends before its reader wished."""
    return ServerSentEvent(
        data=to_json({"reason": reason, "detail": detail}).decode(), event="stream.dropped"
    )


async def _has_ended(request: Request[State], task_id: TaskId, after_position: int) -> bool:
    """Whether the terminal event is behind the reader, so that nothing would ever end its stream."""
    async with request.state["database"].reading() as reader:
        log = await events.of_task(reader, task_id, after_position=0, limit=200)
    return any(event.type in TERMINAL_EVENTS and event.position <= after_position for event in log)
