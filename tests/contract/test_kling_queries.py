"""The one read of a refresh (Kling "Query Task", CometAPI "Individual Queries")."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

from handlers.providers.kling import KlingProvider
from service.domain.costs import Charge
from service.domain.errors import (
    KlingelError,
    NotFound,
    PaymentRequired,
    ProviderMisconfigured,
    ProviderRefused,
    ProviderUnavailable,
)
from service.domain.ids import AccountId, TaskId
from service.domain.lifecycle import Signal, Status
from service.domain.task_types import Layout
from service.domain.tasks import Output, OutputKind, Report, Task, TaskError

NOW = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)
KEY = "sk-0123456789abcdef0123456789abcdef"

SUCCEEDED = {
    "task_id": "880000000000000001",
    "task_status": "succeed",
    "task_status_msg": "",
    "task_info": {"external_task_id": "job-42"},
    "task_result": {"images": [{"index": 0, "url": "https://cdn.example.com/0.png", "watermark_url": ""}]},
    "watermark_info": {"enabled": False},
    "final_unit_deduction": "16",
    "final_balance_deduction": {"quota": "0", "list_price": "0"},
    "created_at": 1790000000000,
    "updated_at": 1790000060000,
}
OUTPUT = Output(
    kind=OutputKind.IMAGE,
    index=0,
    url="https://cdn.example.com/0.png",
    expires_at=datetime(2026, 10, 21, 14, 14, 20, tzinfo=UTC),
)
SUCCESS = Report(
    signal=Signal.COMPLETED,
    provider_task_id="880000000000000001",
    external_task_id="job-42",
    outputs=(OUTPUT,),
    cost=(Charge(amount=Decimal(16), unit="units"),),
)


def task(provider_task_id: str | None = "880000000000000001", external_task_id: str = "job-42") -> Task:
    return Task(
        id=TaskId("task_01"),
        account_id=AccountId("acc_01"),
        type="kling.multi-image-to-image",
        provider="cometapi",
        status=Status.SUBMITTED,
        input={},
        external_task_id="the-callers-own",
        provider_external_id=external_task_id,
        provider_task_id=provider_task_id,
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW,
    )


class FarSide:
    """Answers every request with one answer, and keeps them."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []
        self.calls: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def read(self, asked: Task | None = None, layout: Layout = Layout.COMETAPI) -> Report:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self), follow_redirects=True) as client:
            provider = KlingProvider(
                name="cometapi",
                client=client,
                base_url="https://api.cometapi.com",
                layout=layout,
                authorization=lambda: f"Bearer {KEY}",
                on_call=lambda kind, outcome: self.calls.append((kind, outcome)),
            )
            return await provider.read(asked or task())


def answer(status: int, body: Mapping[str, object]) -> httpx.Response:
    return httpx.Response(status, json=body)


async def test_a_refresh_is_one_get_by_the_providers_id() -> None:
    far_side = FarSide(answer(200, {"code": 0, "message": "SUCCEED", "request_id": "q-1", "data": SUCCEEDED}))
    assert await far_side.read() == SUCCESS
    [request] = far_side.requests
    assert request.method == "GET"
    assert str(request.url) == "https://api.cometapi.com/kling/v1/images/generations/880000000000000001"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert far_side.calls == [("status_query", "ok")]


@pytest.mark.parametrize(
    ("external_task_id", "segment"),
    [("job-42", b"job-42"), ("a/b?c#d", b"a%2Fb%3Fc%23d"), ("任务 1", b"%E4%BB%BB%E5%8A%A1%201")],
)
async def test_before_the_providers_id_is_known_the_external_one_is_asked_for(
    external_task_id: str, segment: bytes
) -> None:
    far_side = FarSide(answer(200, {"code": 0, "data": SUCCEEDED}))
    await far_side.read(task(None, external_task_id), Layout.OFFICIAL)
    assert far_side.requests[0].url.raw_path == b"/v1/images/multi-image2image/" + segment


WRAPPER = {"action": "generate", "status": "SUCCESS", "progress": "100%"}


@pytest.mark.parametrize(
    "body",
    [
        {"code": 0, "data": SUCCEEDED},
        {"code": 0, "data": [SUCCEEDED]},
        {"code": "success", "data": WRAPPER | {"data": SUCCEEDED}},
        {"code": "success", "data": WRAPPER | {"data": {"code": 0, "message": "SUCCEED", "data": SUCCEEDED}}},
    ],
)
async def test_a_query_is_read_in_every_shape(body: Mapping[str, object]) -> None:
    assert await FarSide(answer(200, body)).read() == SUCCESS


@pytest.mark.parametrize("result", [{}, None])
async def test_a_task_still_running_has_no_result_yet(result: object) -> None:
    body = {"code": 0, "data": {"task_id": "1", "task_status": "processing", "task_result": result}}
    assert await FarSide(answer(200, body)).read() == Report(
        signal=Signal.STARTED, provider_task_id="1", external_task_id=None
    )


async def test_a_failed_task_has_its_own_reason_not_the_envelopes() -> None:
    body = {
        "code": 0,
        "message": "SUCCEED",
        "data": {"task_id": "1", "task_status": "failed", "task_status_msg": "Image pixel is invalid"},
    }
    report = await FarSide(answer(200, body)).read()
    assert report.error == TaskError("provider_failed", "Image pixel is invalid")


NOT_FOUND = [
    answer(400, {"code": 1201, "message": "Task not found by id/external id"}),
    answer(404, {"code": 1203, "message": "The task does not exist"}),
    answer(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
    answer(404, {"error": {"message": "task not found", "type": "comet_api_error", "code": ""}}),
    answer(200, {"code": 0, "data": []}),
]


@pytest.mark.parametrize("said", NOT_FOUND)
async def test_a_task_that_the_provider_does_not_know_is_not_found(said: httpx.Response) -> None:
    far_side = FarSide(said)
    with pytest.raises(NotFound):
        await far_side.read()
    assert far_side.calls == [("status_query", "failed")]
    assert len(far_side.requests) == 1


@pytest.mark.parametrize(
    ("said", "error", "code"),
    [
        (answer(401, {"code": 1002, "message": "api key not found"}), ProviderMisconfigured, "1002"),
        (answer(401, {"code": 1004, "message": "expired"}), ProviderMisconfigured, "1004"),
        (answer(429, {"code": 1101, "message": "arrears"}), PaymentRequired, "1101"),
        (answer(400, {"code": 1200, "message": "invalid"}), ProviderRefused, "1200"),
        (answer(429, {"code": 1302, "message": "too fast"}), ProviderUnavailable, "1302"),
        (answer(500, {"code": 5000, "message": "internal"}), ProviderUnavailable, "5000"),
        (answer(200, {"code": 5000, "message": "internal"}), ProviderUnavailable, "5000"),
        (httpx.Response(404, html="<!doctype html>"), ProviderMisconfigured, "http_404"),
        (httpx.Response(301, headers={"location": "/x"}), ProviderMisconfigured, "http_301"),
        (httpx.Response(502), ProviderUnavailable, "http_502"),
        (httpx.Response(200, text="{"), ProviderUnavailable, "unreadable_answer"),
        (answer(200, {"code": 0, "data": None}), ProviderUnavailable, "unreadable_answer"),
        (
            answer(200, {"code": 0, "data": {"task_status": "dreaming"}}),
            ProviderUnavailable,
            "unreadable_answer",
        ),
        (httpx.ConnectError("refused"), ProviderUnavailable, "connect_failed"),
        (httpx.ReadTimeout(""), ProviderUnavailable, "timeout"),
        (httpx.RemoteProtocolError("gone"), ProviderUnavailable, "connection_lost"),
    ],
)
async def test_what_is_no_report_is_an_error_that_says_whose_business_it_is(
    said: httpx.Response | Exception, error: type[KlingelError], code: str
) -> None:
    far_side = FarSide(said)
    with pytest.raises(KlingelError) as raised:
        await far_side.read()
    assert type(raised.value) is error
    assert raised.value.members == {"provider_code": code}
    assert far_side.calls == [("status_query", "failed")]
    assert len(far_side.requests) == 1


async def test_an_error_does_not_show_the_key() -> None:
    far_side = FarSide(answer(401, {"code": 1002, "message": f"unknown key {KEY}"}))
    with pytest.raises(ProviderMisconfigured, match=r"unknown key \[redacted\]"):
        await far_side.read()
