"""`/v1/events` and `/v1/tasks/{id}/events`: the log, and the log as it grows."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from functools import lru_cache, partial
from typing import Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.auth import authenticate
from service.api.pages import NUMERIC_CURSOR, Page, Query
from service.api.state import State
from service.domain.errors import NotFound, TooManyStreams
from service.domain.events import TERMINAL_EVENTS, Event, EventType
from service.domain.ids import AccountId, EventId, TaskId, id_of_place, id_pattern, place_of_id
from service.doors.sharing import Full, Places
from service.explaining import explain_event
from service.streams import KeyRevoked, TooSlow
from storage import events, tasks
from storage.keys import ApiKey

HEARTBEAT_S: Final = 15.0
HEARTBEAT: Final = (
    b": nothing new\r\n\r\n"  # a comment, so that nobody in between takes the connection for dead
)
STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
TRY_AGAIN_S: Final = 30
ORDERS: Final = ("asc", "desc")


async def of_account(request: Request[State]) -> Response:
    """Newest first, or oldest first with `order=asc`; as a stream, what happens from now on."""
    key = await authenticate(request)
    if _wants_stream(request):
        after = await _resume_position(request, key.account_id)
        if after is not None:
            return _stream(request, key, task_id=None, after_position=after)
        async with request.state["database"].reading() as reader:
            after = await events.last_position(reader, key.account_id)
        return _stream(request, key, task_id=None, after_position=after).beginning_after(id_of_place(after))
    query = Query(request, known=("type", "order"))
    page = query.page(NUMERIC_CURSOR)
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
    """Oldest first; as a stream, from the first event to the terminal one, after which it ends.

    The stream of a task that has ended tells what the log has left of it, be it without the terminal event.
    """
    key = await authenticate(request)
    task_id = TaskId(request.path_params["id"])
    async with request.state["database"].reading() as reader:
        task = await tasks.get(reader, task_id, account_id=key.account_id)
    if task is None:
        raise NotFound(f"There is no task {task_id}.")
    if _wants_stream(request):
        after = await _resume_position(request, key.account_id)
        # Of one that goes on nobody has the terminal event yet: it will be in the log when that is read, or be heard.
        has_ended = task.status.is_terminal
        return _stream(request, key, task_id=task_id, after_position=after or 0, has_ended=has_ended)
    query = Query(request, known=())
    page = query.page(NUMERIC_CURSOR)
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
    page = query.page(id_pattern("end"))  # what is listed is endpoints
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


class _Stream(Response):
    """One of its account's; refused before anything of it is sent.

    Args:
        frames: the stream's own bytes; let go when the reader has gone.
    """

    def __init__(self, frames: AsyncGenerator[bytes], *, places: Places, account_id: AccountId) -> None:
        super().__init__()
        self._frames = frames
        self._places = places
        self._account_id = account_id
        self._opening = b""

    def beginning_after(self, id: EventId) -> "_Stream":
        """Its reader is told so at once, to be able to resume before it has had any event.

        A block without data is no event to a reader, but sets its last event id (HTML, "Interpreting an event stream").
        """
        self._opening = b"id: %s\r\n\r\n" % id.encode()
        return self

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:  # noqa: ARG002 - all have the same
        self.raw_headers = STREAM_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            TooManyStreams: the account has them all open.
        """
        try:
            with self._places.place(self._account_id):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if scope["method"] != "HEAD":
                    await self._send_while_read(receive, send)
                await send({"type": "http.response.body"})
        except Full:
            limit = self._places.of_one
            detail = f"The account has {limit} live streams open, and no more are taken. Close one first."
            raise TooManyStreams(detail, limit=limit, retry_after_s=TRY_AGAIN_S) from None

    async def _send_while_read(self, receive: Receive, send: Send) -> None:
        """In the request's own task: one more for the sending would be an eighth of what a listener takes."""
        gone = asyncio.create_task(_until_gone(receive))
        try:
            async with asyncio.timeout(None) as reading:
                gone.add_done_callback(partial(_end, reading))
                async with aclosing(self._frames):
                    if self._opening:
                        await send({"type": "http.response.body", "body": self._opening, "more_body": True})
                    async for frame in self._frames:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
        except TimeoutError:
            if not reading.expired():
                raise
        finally:
            gone.cancel()


def _end(reading: asyncio.Timeout, _gone: "asyncio.Task[None]") -> None:
    with suppress(RuntimeError):  # it has ended meanwhile
        reading.reschedule(0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@lru_cache(maxsize=256)
def _frame(id: str, type: str, body: bytes) -> bytes:
    """As all listeners get it. `body` has no line break in it."""
    return b"id: %s\r\nevent: %s\r\ndata: %s\r\n\r\n" % (id.encode(), type.encode(), body)


def _wants_stream(request: Request[State]) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


async def _resume_position(request: Request[State], account_id: AccountId) -> int | None:
    """
    Raises:
        NotFound: the event to resume from is not in the log: what came after it may not be either. Or the log does not
            reach as far as the place to resume from, as after a restore: what happens next would stand before it.
    """
    last = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not last:
        return None
    position = place_of_id(last)
    async with request.state["database"].reading() as reader:
        if position is None:
            position = await events.position(reader, last, account_id=account_id)
        elif not await events.reach(reader, position):
            position = None
    if position is None:
        raise NotFound(
            "The event to resume from is not in the log (any longer). Read GET /v1/events and begin a new stream."
        )
    return position


def _stream(
    request: Request[State],
    key: ApiKey,
    *,
    task_id: TaskId | None,
    after_position: int,
    has_ended: bool = False,
) -> _Stream:
    # Of the request nothing is kept: there may be thousands of streams, and they may last for days.
    streams = request.state["streams"]
    account_id, key_id = key.account_id, key.id

    async def frames() -> AsyncGenerator[bytes]:
        followed = streams.follow(
            account_id,
            key_id=key_id,
            task_id=task_id,
            after_position=after_position,
            has_ended=has_ended,
            heartbeat_s=HEARTBEAT_S,
        )
        async with aclosing(followed) as live:
            try:
                async for event in live:
                    if event is None:
                        yield HEARTBEAT
                        continue
                    yield _frame(event.id, event.type, event.body)
                    if task_id is not None and event.type in TERMINAL_EVENTS:
                        return
            except TooSlow:
                yield _dropped(
                    "too-slow", "You read too slowly. Connect again with Last-Event-ID; nothing is lost."
                )
            except KeyRevoked:
                yield _dropped("key-revoked", "The API key of this stream was revoked.")

    return _Stream(frames(), places=request.state["shares"].streams, account_id=account_id)


def _dropped(reason: str, detail: str) -> bytes:
    """The last event of a stream that ends before its reader wished. Without an id: it is not resumed from."""
    return b"event: stream.dropped\r\ndata: %s\r\n\r\n" % to_json({"reason": reason, "detail": detail})
