"""`klingel listen`, against a server and a receiver that are played at the HTTP transport."""

import io
import json

import httpx
import pytest
from rich.console import Console
from standardwebhooks import Webhook

from service.cli import main
from service.cli.session import Session

EVENTS = [
    {
        "id": f"evt_{number}",
        "type": type,
        "timestamp": "2026-11-22T05:30:00.000Z",
        "sequence": number,
        "data": {"ü": 1},
    }
    for number, type in enumerate(["task.submitted", "task.succeeded"], 1)
]
SECRET = "whsec_" + "c2VjcmV0" * 4


def run(*tokens: str, answers: list[httpx.Response | Exception]) -> tuple[int, str, str, list[httpx.Request]]:
    """One run against a stream of two events that then ends for good."""
    sent: list[httpx.Request] = []
    connections = iter([True])

    def server(_request: httpx.Request) -> httpx.Response:
        if not next(connections, False):
            return httpx.Response(404, json={"title": "Not Found", "detail": "gone"})
        frames = (f"id: {one['id']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in EVENTS)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(frames))

    def receiver(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    out, err = io.StringIO(), io.StringIO()
    code = main(
        ["listen", *tokens],
        session=Session(
            environ={"KLINGEL_API_KEY": "kl_1", "KLINGEL_URL": "http://k.test"},
            out=Console(file=out, width=60, highlight=False),
            err=Console(file=err, width=60, highlight=False),
            transport=httpx.MockTransport(server),
            receiver_transport=httpx.MockTransport(receiver),
            sleep=lambda _: None,
        ),
    )
    return code, out.getvalue(), err.getvalue(), sent


def test_each_event_is_forwarded_with_a_signature_that_the_library_verifies() -> None:
    ok = [httpx.Response(204), httpx.Response(204)]
    _, out, err, sent = run(
        "--forward-to", "http://localhost:3000/hook", "--secret", SECRET, answers=list(ok)
    )
    for request, event in zip(sent, EVENTS, strict=True):
        assert Webhook(SECRET).verify(request.content, dict(request.headers)) == event
        assert request.headers["webhook-id"] == event["id"]
    assert "task.succeeded  evt_2  ->  204 No Content" in out
    assert SECRET not in out + err


def test_a_new_secret_is_printed_and_is_the_one_signed_with() -> None:
    answers: list[httpx.Response | Exception] = [httpx.Response(200), httpx.Response(200)]
    _, _, err, sent = run("--forward-to", "http://localhost:3000/", answers=answers)
    secret = err.partition("Signed with ")[2].split()[0]
    Webhook(secret).verify(sent[0].content, dict(sent[0].headers))


def test_what_the_receiver_refuses_is_shown_and_not_retried() -> None:
    answers: list[httpx.Response | Exception] = [httpx.Response(500), httpx.ConnectError("refused")]
    _, out, _, sent = run("--forward-to", "http://localhost:3000/", answers=answers)
    assert "500 Internal Server Error" in out
    assert "no answer: refused" in out
    assert len(sent) == 2


def test_one_type_may_be_asked_for() -> None:
    answers: list[httpx.Response | Exception] = [httpx.Response(200)]
    _, _, _, sent = run("--forward-to", "http://localhost:3000/", "--type", "task.succeeded", answers=answers)
    assert [request.headers["webhook-id"] for request in sent] == ["evt_2"]


@pytest.mark.parametrize(
    "tokens", [["--forward-to", "localhost:3000"], ["--forward-to", "http://a/", "--secret", "x"]]
)
def test_a_wrong_url_or_secret_is_a_usage_error(tokens: list[str]) -> None:
    code, _, err, _ = run(*tokens, answers=[])
    assert code == 2
    assert tokens[-1] in err or "secret" in err


def test_for_programs_each_answer_is_one_object_a_line() -> None:
    answers: list[httpx.Response | Exception] = [httpx.Response(204), httpx.ConnectError("refused")]
    code, out, _, _ = run("--forward-to", "http://localhost:3000/hook", "--json", answers=answers)
    *told, ended_by = [json.loads(line) for line in out.splitlines()]
    assert (code, ended_by) == (3, {"title": "Not Found", "detail": "gone"})
    assert [(one["event_id"], one["event_type"], one["status_code"]) for one in told] == [
        ("evt_1", "task.submitted", 204),
        ("evt_2", "task.succeeded", None),
    ]
    assert told[1]["result"] == "no answer: refused"
