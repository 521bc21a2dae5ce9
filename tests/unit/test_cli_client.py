"""`service.cli.client`: finding the server, and streams that survive a cut."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.cli.client import RECONNECTS, AnswerLost, Api, Refused, Server, Unreachable, View, find_server
from service.domain.errors import ConfigurationError

HERE = Server("http://klingel.test/base", "kl_secret")
Step = httpx.Response | Exception


class Wire:
    """The far side: one answer per request, in order."""

    def __init__(self, *steps: Step) -> None:
        self._steps = iter(steps)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self.api = Api(HERE, transport=httpx.MockTransport(self._answer), sleep=self.slept.append)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step


class Cut(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, body: str) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body.encode()
        raise httpx.ReadError("cut")


def frame(number: int) -> str:
    event = {"id": f"evt_{number}", "type": "task.processing"}
    return f"id: evt_{number}\nevent: task.processing\ndata: {json.dumps(event)}\n\n"


def streaming(body: str, *, cut: bool = False) -> httpx.Response:
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=headers, stream=Cut(body) if cut else httpx.ByteStream(body.encode()))


def first(count: int, events: Iterator[View]) -> list[str]:
    return [next(events)["id"] for _ in range(count)]


def test_the_environment_says_where_and_as_whom(tmp_path: Path) -> None:
    environ = {"KLINGEL_URL": "https://klingel.test/", "KLINGEL_API_KEY": " kl_1\n"}
    assert find_server(environ, tmp_path / ".env") == Server("https://klingel.test", "kl_1")
    assert find_server({"KLINGEL_API_KEY": "kl_1"}, tmp_path / ".env").url == "http://127.0.0.1:8000"


def test_dotenv_is_read_without_a_key_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KLINGEL_API_KEY=kl_file\nKLINGEL_URL=http://file.test\n")
    assert find_server({"KLINGEL_API_KEY": ""}, tmp_path / ".env") == Server("http://file.test", "kl_file")
    assert find_server({"KLINGEL_URL": "http://own.test"}, tmp_path / ".env").url == "http://own.test"


def test_no_folder_s_dotenv_sends_the_environment_s_key_elsewhere(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KLINGEL_URL=http://evil.test\n")
    assert find_server({"KLINGEL_API_KEY": "kl_1"}, tmp_path / ".env").url == "http://127.0.0.1:8000"


def test_a_dotenv_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("KLINGEL_API_KEY=schlüssel\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8"):
        find_server({}, tmp_path / ".env")


def test_every_faulty_setting_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)KLINGEL_URL.*localhost:8000.*KLINGEL_API_KEY"):
        find_server({"KLINGEL_URL": "localhost:8000"}, tmp_path / ".env")
    for url in ("http://x:99999", "http://[x"):
        with pytest.raises(ConfigurationError, match="KLINGEL_URL is not"):
            find_server({"KLINGEL_URL": url, "KLINGEL_API_KEY": "kl_1"}, tmp_path / ".env")
    with pytest.raises(ConfigurationError, match="characters"):
        find_server({"KLINGEL_API_KEY": "schlüssel"}, tmp_path / ".env")


def test_the_key_is_not_in_the_repr() -> None:
    assert "kl_secret" not in repr(HERE)


def test_a_request_carries_the_key_and_quotes_what_the_person_typed() -> None:
    wire = Wire(httpx.Response(200, json={}))
    wire.api.get("tasks", "../keys?x#y", "callbacks", query=[("limit", 3), ("cursor", None)])
    (request,) = wire.requests
    assert str(request.url) == "http://klingel.test/base/v1/tasks/..%2Fkeys%3Fx%23y/callbacks?limit=3"
    assert request.headers["Authorization"] == "Bearer kl_secret"


def test_pages_follow_the_cursor_and_keep_the_filters() -> None:
    wire = Wire(
        httpx.Response(200, json={"items": [1], "next_cursor": "c1"}),
        httpx.Response(200, json={"items": [2], "next_cursor": None}),
    )
    pages = list(wire.api.pages("tasks", query=[("status", "failed"), ("cursor", None)]))
    assert [page["items"] for page in pages] == [[1], [2]]
    assert [str(request.url.query, "ascii") for request in wire.requests] == [
        "status=failed",
        "status=failed&cursor=c1",
    ]


def test_a_problem_keeps_its_code() -> None:
    problem = {"type": "/problems/task-not-found", "title": "Not found", "detail": "No such task"}
    with pytest.raises(Refused) as refused:
        Wire(httpx.Response(404, json=problem)).api.get("tasks", "x")
    assert (refused.value.status, refused.value.code, refused.value.problem) == (
        404,
        "task-not-found",
        problem,
    )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, html="<h1>Bad gateway</h1>"),
        httpx.Response(404, json=["not", "ours"]),
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(301, headers={"Location": "https://klingel.test/"}),
    ],
)
def test_an_answer_that_is_not_klingel_s_is_called_that(answer: httpx.Response) -> None:
    with pytest.raises(Refused) as refused:
        Wire(answer).api.get("tasks")
    assert "KLINGEL_URL" in refused.value.problem["detail"]
    assert answer.headers.get("Location", "") in refused.value.problem["detail"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ConnectTimeout("slow"), Unreachable),
        (httpx.ReadTimeout(""), AnswerLost),
        (httpx.RemoteProtocolError("closed"), AnswerLost),
    ],
)
def test_a_lost_answer_is_told_from_a_server_never_reached(
    error: httpx.RequestError, kind: type[Exception]
) -> None:
    with pytest.raises(Unreachable) as raised:
        Wire(error).api.post("tasks", body={})
    assert type(raised.value) is kind
    assert "http://klingel.test/base" in str(raised.value)


def test_a_cut_stream_goes_on_after_the_last_whole_event() -> None:
    half = frame(2).removesuffix("\n\n")
    wire = Wire(streaming(frame(1) + half, cut=True), streaming(frame(2) + frame(3)))
    assert first(3, wire.api.stream("events")) == ["evt_1", "evt_2", "evt_3"]
    assert [request.headers.get("Last-Event-ID") for request in wire.requests] == [None, "evt_1"]
    assert {request.headers["Accept"] for request in wire.requests} == {"text/event-stream"}


def test_a_stream_cut_before_its_first_event_goes_on_where_it_began() -> None:
    wire = Wire(streaming("id: evt_0\n\n", cut=True), streaming(frame(1)))
    assert first(1, wire.api.stream("events")) == ["evt_1"]
    assert [request.headers.get("Last-Event-ID") for request in wire.requests] == [None, "evt_0"]


def test_pings_are_no_events() -> None:
    wire = Wire(streaming(": ping\n\n" + frame(1) + ": ping\n\n: ping\n\n" + frame(2)))
    assert first(2, wire.api.stream("events")) == ["evt_1", "evt_2"]


def test_a_stream_that_ends_is_taken_up_again() -> None:
    wire = Wire(streaming(frame(1)), streaming(""), streaming(frame(2)))
    assert first(2, wire.api.stream("events", since="evt_0")) == ["evt_1", "evt_2"]
    assert [request.headers["Last-Event-ID"] for request in wire.requests] == ["evt_0", "evt_1", "evt_1"]
    assert wire.slept == [1, 1]


def test_a_server_that_restarts_is_waited_for() -> None:
    wire = Wire(
        streaming(frame(1), cut=True),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"title": "Starting", "detail": ""}),
        httpx.ReadTimeout("slow"),
        streaming(frame(2)),
        streaming(frame(3)),
    )
    assert first(3, wire.api.stream("events")) == ["evt_1", "evt_2", "evt_3"]
    assert wire.slept == [1, 2, 4, 8, 1]  # from the start again once it was back


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (lambda: httpx.ConnectError("refused"), Unreachable),
        (lambda: httpx.Response(503, json={"title": "Gone", "detail": ""}), Refused),
    ],
)
def test_a_server_that_stays_away_ends_the_stream(last: Callable[[], Step], kind: type[Exception]) -> None:
    wire = Wire(streaming(frame(1)), *(last() for _ in RECONNECTS))
    events = wire.api.stream("events")
    next(events)
    with pytest.raises(kind):
        next(events)
    assert wire.slept == list(RECONNECTS)


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([httpx.ConnectError("refused")], Unreachable),
        ([httpx.Response(503, json={"title": "Starting", "detail": ""})], Refused),
        ([streaming(frame(1)), httpx.Response(401, json={"title": "No", "detail": ""})], Refused),
        ([httpx.Response(200, json={"items": []})], Refused),
    ],
)
def test_a_stream_gives_up_at_once_on_a_first_failure_or_a_lasting_one(
    steps: list[Step], kind: type[Exception]
) -> None:
    wire = Wire(*steps)
    with pytest.raises(kind):
        list(wire.api.stream("events"))
    assert len(wire.requests) == len(steps)
