"""Klingel's HTTP API as the client commands use it."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from dotenv import dotenv_values
from httpx_sse import EventSource

from service import dotenv
from service.domain.errors import ConfigurationError
from service.domain.urls import is_http_url

View = Mapping[str, Any]  # one JSON object of an answer
Parameters = Iterable[tuple[str, str | int | None]]  # of a query; those that are None are not sent

TIMEOUT: Final = httpx.Timeout(60, connect=10)
# A submit may be held for as long as KLINGEL_SUBMIT_WAIT lets it: 600 s at most.
SUBMIT_TIMEOUT: Final = httpx.Timeout(60, connect=10, read=630)
# How long forgetting takes goes by how much there is to forget, and by nothing that is known here.
PRUNE_TIMEOUT: Final = httpx.Timeout(60, connect=10, read=None)
# A live stream says something at least every 15 s, if only a ping: a minute of silence is a dead connection.
STREAM_TIMEOUT: Final = httpx.Timeout(60, connect=10)
# Seconds before each reconnect in a row; after the last one the server counts as gone.
RECONNECTS: Final = (1, 2, 4, 8, 15, 30, 30, 30)


class ApiError(Exception):
    """A call of the API that did not go well."""


class Refused(ApiError):
    """The server said no: an RFC 9457 problem, or as much of one as can be made of another answer."""

    def __init__(self, status: int, problem: View) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """The last part of the problem's `type`; empty when it has none of its own."""
        return str(self.problem.get("type", "")).removeprefix("about:blank").rpartition("/")[2]


class Unreachable(ApiError):
    """No connection, or none that lasted until the answer."""


class AnswerLost(Unreachable):
    """The request went out. Whether the server acted on it cannot be told."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    key: str = field(repr=False)


def find_server(environ: Mapping[str, str], file: Path = dotenv.DOTENV) -> Server:
    """Where `KLINGEL_URL` and `KLINGEL_API_KEY` point.

    `file` is asked only when the environment has no key, so that no folder's file can lead a key of the
    environment to another server.

    Raises:
        ConfigurationError: no key, or an unusable one or URL; or the file cannot be read.
    """
    if not environ.get("KLINGEL_API_KEY"):
        with dotenv.reading(file):
            both = (*dotenv_values(file).items(), *environ.items())
        environ = {name: value for name, value in both if value}
    url = environ.get("KLINGEL_URL") or "http://127.0.0.1:8000"
    key = environ.get("KLINGEL_API_KEY", "").strip()
    faults = []
    if not is_http_url(url):
        faults.append(f"KLINGEL_URL is not an http(s) URL: {url}")
    if not key:
        faults.append(
            "KLINGEL_API_KEY is not set: the server prints an admin key at each start until it is used"
        )
    elif not (key.isascii() and key.isprintable()):
        faults.append("KLINGEL_API_KEY holds characters that no key has")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return Server(url.rstrip("/"), key)


class Api:
    """Paths are given in segments after `/v1`: `api.get("tasks", task_id, "callbacks")`.

    Every method raises `Refused` or `Unreachable`.
    """

    def __init__(
        self,
        server: Server,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server = server
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=f"{server.url}/v1/",
            headers={"Authorization": f"Bearer {server.key}", "Accept": "application/json"},
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def get(self, *segments: str, query: Parameters = ()) -> Any:
        return self._send("GET", segments, query=query)

    def post(
        self,
        *segments: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> Any:
        return self._send("POST", segments, body=body, headers=headers, timeout=timeout)

    def put(self, *segments: str, body: object) -> Any:
        return self._send("PUT", segments, body=body)

    def patch(self, *segments: str, body: object) -> Any:
        return self._send("PATCH", segments, body=body)

    def delete(self, *segments: str) -> Any:
        return self._send("DELETE", segments)

    def pages(self, *segments: str, query: Parameters = ()) -> Iterator[View]:
        """A list's pages, from the cursor in `query` to the last."""
        parameters = dict(query)
        while True:
            page = self.get(*segments, query=parameters.items())
            yield page
            if not page.get("next_cursor"):
                return
            parameters["cursor"] = page["next_cursor"]

    def stream(self, *segments: str, since: str | None = None) -> Iterator[View]:
        """A live stream's events, without end: it reconnects where it was cut, or ended.

        Args:
            since: id of the last event already known. Without one, what comes first is the server's choice.

        Raises:
            Refused: also for a server error on the first connection.
            Unreachable: on the first connection, or when no reconnect has succeeded.
        """
        failures, connected = 0, False
        while True:
            try:
                with self._connect(segments, since) as source:
                    failures, connected = 0, True
                    for event in source.iter_sse():
                        since = event.id or since
                        if event.event == "stream.dropped":
                            break  # we read too slowly: what was left out comes after the reconnect
                        if event.data:  # a ping after an event comes as one with no data
                            yield json.loads(event.data)
            except httpx.TransportError as error:
                if not connected or failures == len(RECONNECTS):
                    raise self._unreachable(error) from None
            except Refused as refused:
                temporary = refused.status >= 500 or refused.status == 429
                if not (connected and temporary) or failures == len(RECONNECTS):
                    raise
            self._sleep(RECONNECTS[failures])
            failures += 1

    @contextmanager
    def _connect(self, segments: tuple[str, ...], since: str | None) -> Iterator[EventSource]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if since is not None:
            headers["Last-Event-ID"] = since
        with self._client.stream("GET", _path(segments), headers=headers, timeout=STREAM_TIMEOUT) as response:
            if not response.is_success:
                response.read()
            _check(response)
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise Refused(response.status_code, _strange(response))
            yield EventSource(response)

    def _send(
        self,
        method: str,
        segments: tuple[str, ...],
        *,
        query: Parameters = (),
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> Any:
        try:
            response = self._client.request(
                method,
                _path(segments),
                params=[(name, value) for name, value in query if value is not None],
                json=body,
                headers=headers,
                timeout=timeout,
            )
        except httpx.RequestError as error:
            raise self._unreachable(error) from None
        _check(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise Refused(response.status_code, _strange(response)) from None

    def _unreachable(self, error: httpx.RequestError) -> Unreachable:
        kind = Unreachable if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else AnswerLost
        return kind(f"{self._server.url}: {str(error) or type(error).__name__}")


def _path(segments: tuple[str, ...]) -> str:
    return "/".join(quote(segment, safe="") for segment in segments)


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not {"title", "detail"} & problem.keys():
        problem = _strange(response)
    raise Refused(response.status_code, problem)


def _strange(response: httpx.Response) -> View:
    detail = "This is not an answer of Klingel's: does KLINGEL_URL point at it?"
    if location := response.headers.get("Location"):
        detail += f" It points on to {location}"
    return {"title": response.reason_phrase or "An answer", "detail": detail}
