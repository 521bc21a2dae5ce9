"""The stand-in put together: its routes, and what runs behind them."""

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from handlers.providers.sandbox import bodies
from handlers.providers.sandbox.accounts import account_of
from handlers.providers.sandbox.answers import Code, Cut, Envelope, RequestError
from handlers.providers.sandbox.callbacks import Courier, check_way
from handlers.providers.sandbox.faults import REFUSALS, Draws, Fault, faults_in
from handlers.providers.sandbox.files import Files
from handlers.providers.sandbox.journal import Call, CallKind, Journal
from handlers.providers.sandbox.lives import Fetch, Lives, pace
from handlers.providers.sandbox.products import PRODUCTS, Product, Ware
from handlers.providers.sandbox.settings import SandboxSettings, SettingsError, changed, shown
from handlers.providers.sandbox.tasks import Clock, Ledger, Task, utc_now
from handlers.providers.sandbox.validation import Order, read_order
from handlers.providers.transport import LateTransport

LARGEST_BODY: Final = 64 * 1024 * 1024
PAGE_NUMBERS: Final = range(1, 1001)
PAGE_SIZES: Final = range(1, 501)
MOST_ASKED: Final = 20
SMALL_BODY: Final = 64 * 1024
READERS: Final = 2  # large bodies read at once
MEDIA_TYPES: Final = {
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
}

Endpoint = Callable[[Request], Awaitable[Response]]
CallEndpoint = Callable[[Request, Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Works:
    """What exists only while the sandbox runs."""

    lives: Lives
    files: Files
    readers: anyio.CapacityLimiter


class Sandbox:
    """A stand-in Kling. `app` answers only inside `running()`, also when it is mounted in another app.

    Args:
        fetch: reads inputs given by URL, so that they appear in the outputs; without one they are drawn as labelled
            tiles, and the sandbox dials nothing but callback URLs.
        transport: the way out for callbacks; httpx's own by default, which goes wherever it is told to.
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        fetch: Fetch | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.settings = settings or SandboxSettings()
        self.app = Starlette(routes=self._routes(), exception_handlers={HTTPException: _on_http_exception})
        self.app.router.redirect_slashes = False
        self._fetch = fetch
        self._transport = transport
        self._clock = clock
        self._ledger = Ledger(clock)
        self._journal = Journal(clock)
        self._draws = Draws()
        self._running: _Works | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sandbox"]:
        """Tasks still under way at the end are abandoned."""
        async with AsyncExitStack() as stack:
            directory = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True)
            )
            client = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=self._transport or LateTransport(),
                    trust_env=False,
                    timeout=self.settings.callback_timeout.total_seconds(),
                )
            )
            files = Files(Path(directory))
            readers = anyio.CapacityLimiter(READERS)
            lives = Lives(
                ledger=self._ledger,
                courier=Courier(client, self._journal, self.settings, self._clock),
                files=files,
                fetch=self._fetch,
                readers=readers,
                clock=self._clock,
            )
            stack.push_async_callback(lives.stop)
            self._running = _Works(lives=lives, files=files, readers=readers)
            try:
                yield self
            finally:
                self._running = None

    def _routes(self) -> list[Route]:
        sold = [
            route
            for path, product in PRODUCTS.items()
            for route in (
                Route(path, self._create(product), methods=["POST"], max_body_size=LARGEST_BODY),
                *(
                    ()
                    if product.is_new
                    else (
                        Route(path, self._page(product), methods=["GET"]),
                        Route(f"{path}/{{name}}", self._query(product), methods=["GET"]),
                    )
                ),
            )
        ]
        return [
            *sold,
            Route("/tasks", self._logged(CallKind.QUERY, self._tasks_of_new_standard), methods=["GET"]),
            Route("/files/{name}", self._logged(CallKind.FILE, self._file), methods=["GET"]),
            Route("/log", self._guarded(self._show_log), methods=["GET"]),
            Route("/log", self._guarded(self._clear_log), methods=["DELETE"]),
            Route("/settings", self._guarded(self._show_settings), methods=["GET"]),
            Route("/settings", self._guarded(self._change_settings), methods=["PUT"]),
        ]

    @property
    def _works(self) -> _Works:
        if self._running is None:
            raise RuntimeError("the sandbox answers only inside running()")
        return self._running

    def _logged(self, kind: CallKind, answered: CallEndpoint) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            call = self._journal.received(request.method, request.url.path, kind)
            try:
                response = await answered(request, call)
            except RequestError as refused:
                response = Envelope(refused.code, refused.message)
            except ClientDisconnect:
                return Response(status_code=400)
            if not isinstance(response, Cut):
                call.status = response.status_code
            if isinstance(response, Envelope):
                call.code = response.code
            return response

        return endpoint

    def _guarded(self, answered: Endpoint) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                if self.settings.keys is not None:
                    self._account(request)
                return await answered(request)
            except RequestError as refused:
                return Envelope(refused.code, refused.message)

        return endpoint

    def _account(self, request: Request) -> str:
        return account_of(request.headers.get("authorization"), keys=self.settings.keys)

    def _create(self, product: Product | Ware) -> Endpoint:
        async def answered(request: Request, call: Call) -> Response:
            account = self._account(request)
            order = await self._read(await request.body(), product, request.path_params.get("model"))
            check_way(order.callback_url, origins=self.settings.callback_origins)
            call.external_task_id = order.external_task_id
            settings = self.settings
            asked = {**dict.fromkeys(sorted(settings.faults)), **faults_in(order.steering)}
            subject = f"{account} {order.external_task_id or order.prompt}"
            if refusal := self._draws.refusal(asked, subject=subject):
                return REFUSALS[refusal]()
            self._ledger.check(order, account=account, slots=settings.slots)
            faults = self._draws.accepted(asked, subject=subject)
            task = self._accept(order, account=account, faults=faults, files_url=self._files_url(request))
            call.task_id = task.task_id
            ended = self._works.lives.begin(task)
            if Fault.EARLY in faults:
                await ended.wait()
            return await self._acceptance(task, request)

        return self._logged(CallKind.CREATE, answered)

    async def _read(self, content: bytes, product: Product | Ware, model: str | None) -> Order:
        """Large ones take turns, so that few of them are in memory as pixels; the others do not wait for them."""
        turns = self._works.readers if len(content) > SMALL_BODY else None
        reading = partial(read_order, content, product, model=model)
        return await anyio.to_thread.run_sync(reading, limiter=turns)

    def _accept(self, order: Order, *, account: str, faults: frozenset[Fault], files_url: str) -> Task:
        task = self._ledger.accept(
            order,
            account=account,
            step=pace(self.settings.step, faults),
            faults=faults,
            files_url=files_url,
        )
        self._journal.accepted(task_id=task.task_id, external_task_id=task.external_task_id)
        return task

    async def _acceptance(self, task: Task, request: Request) -> Response:
        if Fault.HANG in task.faults:
            with anyio.move_on_after(self.settings.hang.total_seconds()):
                await request.receive()
        if Fault.CUT_AFTER in task.faults:
            return Cut()
        if Fault.INTERNAL_AFTER_ACCEPTING in task.faults:
            return Envelope(Code.INTERNAL, "internal error")
        return Envelope(data=bodies.created(task), named=Fault.NO_REQUEST_ID not in task.faults)

    def _query(self, product: Product | Ware) -> Endpoint:
        async def answered(request: Request, call: Call) -> Response:
            account = self._account(request)
            task = self._ledger.find(request.path_params["name"], account=account, product=product)
            call.task_id, call.external_task_id = task.task_id, task.external_task_id
            return Envelope(data=bodies.queried(task))

        return self._logged(CallKind.QUERY, answered)

    async def _tasks_of_new_standard(self, request: Request, call: Call) -> Response:
        """Several at once; of those that are not there nothing is said."""
        account = self._account(request)
        named = [request.query_params.get(name) for name in ("task_ids", "external_task_ids")]
        asked = [name for one in named if one for name in one.split(",")]
        if not asked or all(named) or len(asked) > MOST_ASKED:
            raise RequestError(
                Code.BAD_VALUE,
                f"either task_ids or external_task_ids is required, at most {MOST_ASKED} of them",
            )
        found = self._ledger.find_new(asked, account=account)
        if len(found) == 1:
            call.task_id, call.external_task_id = found[0].task_id, found[0].external_task_id
        return Envelope(data=[bodies.queried(task) for task in found])

    def _page(self, product: Product | Ware) -> Endpoint:
        async def answered(request: Request, _call: Call) -> Response:
            account = self._account(request)
            tasks = self._ledger.page(
                account=account,
                product=product,
                number=_whole(request, "pageNum", default=1, allowed=PAGE_NUMBERS),
                size=_whole(request, "pageSize", default=30, allowed=PAGE_SIZES),
            )
            return Envelope(data=[bodies.queried(task) for task in tasks])

        return self._logged(CallKind.LIST, answered)

    async def _file(self, request: Request, _call: Call) -> Response:
        path = await self._works.files.find(request.path_params["name"])
        if path is None:
            return PlainTextResponse("no such file, or no longer", status_code=404)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])

    def _files_url(self, request: Request) -> str:
        if self.settings.public_url is not None:
            return f"{self.settings.public_url}/files"
        root = request.scope.get("root_path", "")
        return f"{request.url.scheme}://{request.url.netloc}{root}/files"

    async def _show_log(self, _request: Request) -> Response:
        return JSONResponse(self._journal.shown())

    async def _clear_log(self, _request: Request) -> Response:
        self._journal.clear()
        return Response(status_code=204)

    async def _show_settings(self, _request: Request) -> Response:
        return JSONResponse(shown(self.settings))

    async def _change_settings(self, request: Request) -> Response:
        try:
            self.settings = changed(self.settings, json.loads(await request.body()))
        except SettingsError as refused:
            raise RequestError(Code.BAD_VALUE, str(refused)) from None
        except ValueError:
            raise RequestError(Code.INVALID_PARAMETERS, "request body is not valid JSON") from None
        return JSONResponse(shown(self.settings))


def create_sandbox(
    settings: SandboxSettings | None = None,
    *,
    fetch: Fetch | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """The sandbox as an app of its own, running from its start to its end."""
    sandbox = Sandbox(settings, fetch=fetch, transport=transport)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with sandbox.running():
            yield

    sandbox.app.router.lifespan_context = lifespan
    return sandbox.app


def _whole(request: Request, name: str, *, default: int, allowed: range) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) in allowed):
        raise RequestError(Code.BAD_VALUE, f"{name} must be from {allowed.start} to {allowed.stop - 1}")
    return int(text)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    """Kling answers an unknown path and a wrong method alike (Kling, "Error Codes")."""
    assert isinstance(error, HTTPException)
    if error.status_code in {404, 405}:
        return Envelope(Code.METHOD_NOT_ALLOWED, "no such method for this path")
    return PlainTextResponse(error.detail, status_code=error.status_code)
