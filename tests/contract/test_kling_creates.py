"""A create at Kling, whatever the far side does. Bodies follow the provider's pages (Kling "Error Codes", CometAPI
"Handle error codes", November 2026); the table here repeats theirs and not the handler's."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.connections import Transport
from handlers.providers.kling import KlingProvider, authorization_for
from handlers.providers.kling.answers import Reply
from handlers.providers.kling.outcomes import FATES, FAULTS, create_outcome
from service.domain.costs import Charge
from service.domain.creates import Accepted, CreateOutcome, Deferred, Order, Refused, Unknown
from service.domain.errors import ConfigurationError
from service.domain.ids import TaskId
from service.domain.lifecycle import Signal
from service.domain.task_types import Layout
from service.domain.tasks import Refusal, TaskError
from service.domain.values import replace
from tests.servers import start_server

NOW = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)
KEY = "sk-0123456789abcdef0123456789abcdef"
TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV"
CALLBACK_URL = f"https://klingel.example.com/callbacks/cometapi/task_01/{TOKEN}"

ORDER = Order(
    task_id=TaskId("task_01"),
    type="kling.multi-image-to-image",
    input={
        "model_name": "kling-v2",
        "subject_image_list": [{"subject_image": "https://cdn.example.com/a.png"}],
        "scene_image": "https://cdn.example.com/beach.png",
        "prompt": "沙滩 – a beach",
    },
    external_task_id="job-42",
    callback_url=CALLBACK_URL,
)

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


@dataclass
class FarSide:
    """What answers in Kling's place: the last answer is repeated for ever."""

    answers: Sequence[httpx.Response | Exception]
    requests: list[httpx.Request] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(request.content) for request in self.requests]

    def provider(self, client: httpx.AsyncClient, **changes: Any) -> KlingProvider:
        arguments: dict[str, Any] = {
            "name": "cometapi",
            "client": client,
            "base_url": "https://api.cometapi.com/",
            "layout": Layout.COMETAPI,
            "authorization": authorization_for(KEY, lambda: NOW),
            "on_call": lambda kind, outcome: self.calls.append((kind, outcome)),
            "skew_pause": timedelta(),
        }
        return KlingProvider(**(arguments | changes))

    async def create(self, order: Order = ORDER, **changes: Any) -> CreateOutcome:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self), follow_redirects=True) as client:
            return await self.provider(client, **changes).create(order)


def kling(status: int, code: int | str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "request_id": "r-1"})


def gateway(status: int, message: str, code: str = "", **headers: str) -> httpx.Response:
    error = {
        "message": f"{message} (request id: 20261122)",
        "type": "comet_api_error",
        "param": "",
        "code": code,
    }
    return httpx.Response(status, json={"error": error}, headers=headers)


def page(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, html="<!DOCTYPE html><title>nginx</title>", headers=headers)


# --- what is sent


async def test_a_create_carries_the_input_the_callback_url_and_the_external_id() -> None:
    far_side = FarSide([httpx.Response(200, json={"code": 0, "data": {"task_id": "1"}})])
    await far_side.create()
    [request] = far_side.requests
    assert (request.method, str(request.url)) == (
        "POST",
        "https://api.cometapi.com/kling/v1/images/generations",
    )
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert far_side.bodies == [
        {
            "model_name": "kling-v2",
            "subject_image_list": [{"subject_image": "https://cdn.example.com/a.png"}],
            "scence_image": "https://cdn.example.com/beach.png",
            "prompt": "沙滩 – a beach",
            "callback_url": CALLBACK_URL,
            "external_task_id": "job-42",
        }
    ]


async def test_the_official_layout_has_its_own_path_and_spelling() -> None:
    far_side = FarSide([httpx.Response(200, json={"code": 0, "data": {"task_id": "1"}})])
    await far_side.create(layout=Layout.OFFICIAL, base_url="https://api-singapore.klingai.com")
    assert str(far_side.requests[0].url) == "https://api-singapore.klingai.com/v1/images/multi-image2image"
    assert "scene_image" in far_side.bodies[0]
    assert "scence_image" not in far_side.bodies[0]


async def test_an_input_cannot_replace_the_callback_url_or_the_external_id() -> None:
    far_side = FarSide([httpx.Response(200, json={"code": 0, "data": {"task_id": "1"}})])
    order = Order(
        task_id=ORDER.task_id,
        type="kling.multi-image-to-video",
        input={"callback_url": "https://evil.example.com", "external_task_id": "other", "prompt": "\ud800"},
        external_task_id="job-42",
        callback_url=CALLBACK_URL,
    )
    await far_side.create(order)
    assert far_side.bodies[0]["callback_url"] == CALLBACK_URL
    assert far_side.bodies[0]["external_task_id"] == "job-42"


@pytest.mark.parametrize(
    "url", ["api.cometapi.com", "ftp://api.cometapi.com", "https://", "https://[::1", ""]
)
async def test_a_base_url_that_is_no_http_url_is_said_at_once(url: str) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="KLINGEL_PROVIDER_URL"):
            FarSide([]).provider(client, base_url=url)


# --- accepted

TASK = {
    "task_id": "880000000000000001",
    "task_status": "submitted",
    "task_info": {"external_task_id": "job-42"},
    "created_at": 1790000000000,
    "updated_at": 1790000000000,
}
ENVELOPE = {
    "code": 0,
    "message": "SUCCEED",
    "request_id": "6f0c2f5e-77aa-4f2e-9d1b-1c5b0a8f1a11",
    "data": TASK,
}

ACCEPTED = {
    "as documented": ENVELOPE,
    "without request_id, as two CometAPI samples": {"code": 0, "message": "success", "data": TASK},
    "empty task_info": ENVELOPE | {"data": TASK | {"task_info": {}}},
    "null external id": ENVELOPE | {"data": TASK | {"task_info": {"external_task_id": None}}},
    "code as text": ENVELOPE | {"code": "0"},
    "code in words": ENVELOPE | {"code": "success"},
    "code as a status": ENVELOPE | {"code": 200},
    "no code": {"data": TASK},
    "null error": ENVELOPE | {"error": None},
    "numeric id": ENVELOPE | {"data": TASK | {"task_id": 880000000000000001}},
    "id only": {"code": 0, "data": {"task_id": "880000000000000001"}},
    "new standard": {
        "code": 0,
        "data": {"id": "880000000000000001", "status": "submitted", "external_id": "job-42"},
    },
    "new-api wrapper": {
        "code": "success",
        "data": {"action": "generate", "status": "SUBMITTED", "data": TASK},
    },
    "new-api wrapper around the envelope": {"code": "success", "data": {"id": 7, "data": ENVELOPE}},
    "flat": TASK,
    "data as a list": ENVELOPE | {"data": [TASK]},
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_a_success_that_names_a_task_is_accepted(body: object) -> None:
    far_side = FarSide([httpx.Response(200, json=body)])
    assert await far_side.create() == Accepted("880000000000000001")
    assert far_side.calls == [("create", "accepted")]


async def test_a_gateway_that_mints_its_own_ids_is_known_by_them() -> None:
    body = {"code": "success", "data": {"task_id": "task_own", "status": "SUBMITTED", "data": TASK}}
    assert await FarSide([httpx.Response(200, json=body)]).create() == Accepted("task_own")


async def test_json_sent_as_html_is_json_still() -> None:
    answer = httpx.Response(200, content=json.dumps(ENVELOPE), headers={"content-type": "text/html"})
    assert await FarSide([answer]).create() == Accepted("880000000000000001")


async def test_a_refusal_sent_as_html_is_a_refusal_still() -> None:
    answer = httpx.Response(400, content=b'{"message":"no prompt"}', headers={"content-type": "text/html"})
    assert await FarSide([answer]).create() == Refused(Refusal.REQUEST, "http_400", "no prompt")


# --- ended at once (Kling, "TTS": the answer to the create is that to a query of an ended task)

SOUND = {
    "task_id": "901",
    "task_status": "succeed",
    "task_result": {"audios": [{"id": "a1", "url": "https://cdn.example.com/a.mp3", "duration": "3.2"}]},
    "final_unit_deduction": "0.05",
    "created_at": 1790000000000,
    "updated_at": 1790000000000,
}
ELEMENT = {"task_id": "901", "task_status": "succeed", "task_result": {"elements": [{"element_id": 8}]}}


@pytest.mark.parametrize(
    ("body", "sounds"),
    [
        pytest.param(ENVELOPE | {"data": SOUND}, 1, id="in the envelope"),
        pytest.param(SOUND, 1, id="flat"),
        pytest.param({"code": "success", "data": {"status": "SUCCESS", "data": SOUND}}, 1, id="wrapped"),
        pytest.param({"code": 0, "data": SOUND | {"task_status": "success"}}, 1, id="a gateway's word"),
        pytest.param(ENVELOPE | {"data": ELEMENT}, 0, id="without a file"),
        pytest.param({"code": 0, "data": {"id": "901", "status": "succeeded"}}, 0, id="new standard"),
    ],
)
async def test_an_answer_that_brings_the_result_is_read_like_a_callback(body: Any, sounds: int) -> None:
    outcome = await FarSide([httpx.Response(200, json=body)]).create()
    assert isinstance(outcome, Accepted)
    assert outcome.provider_task_id == "901"
    assert outcome.report is not None
    assert outcome.report.signal is Signal.COMPLETED
    assert [each.url for each in outcome.report.outputs] == ["https://cdn.example.com/a.mp3"] * sounds
    assert outcome.report.cost == ((Charge(amount=Decimal("0.05"), unit="units"),) if sounds else None)
    assert outcome.answer is not None
    assert json.loads(outcome.answer) == body


async def test_an_answer_that_says_why_the_task_has_failed_is_read_like_a_callback() -> None:
    data = {"task_id": "901", "task_status": "failed", "task_status_msg": f"no such voice, {KEY}"}
    outcome = await FarSide([httpx.Response(200, json={"code": 0, "data": data})]).create()
    assert isinstance(outcome, Accepted)
    assert outcome.report is not None
    assert outcome.report.signal is Signal.FAILED
    assert outcome.report.error == TaskError("provider_failed", "no such voice, [redacted]")


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "code": 0, "data": {"task_id": "901"}},
        {"status": "succeed", "code": 0, "data": {"task_id": "901"}},
        {"status": "success", "task_id": "901"},
        {"status": "failure", "task_id": "901"},
        {"code": 0, "data": {"task_id": "901", "task_status": "processing"}},
        {"code": 0, "data": {"task_id": "901", "task_status": "a word of tomorrow"}},
        {"status": "success", "data": {"task_id": "901", "task_status": "submitted"}},
    ],
)
async def test_a_word_that_may_speak_of_the_request_ends_no_task(body: object) -> None:
    assert await FarSide([httpx.Response(200, json=body)]).create() == Accepted("901")


async def test_an_answer_that_succeeds_and_names_no_task_is_worth_keeping() -> None:
    body = {"code": 0, "data": {"element_id": 8, "element_name": "Mia"}}
    outcome = await FarSide([httpx.Response(200, json=body)]).create()
    assert isinstance(outcome, Unknown)
    assert outcome.answer is not None
    assert json.loads(outcome.answer) == body


async def test_an_answer_that_is_kept_is_whole_and_holds_neither_key_nor_token() -> None:
    data = SOUND | {"callback_url": CALLBACK_URL, "note": "x" * 4000 + KEY}
    outcome = await FarSide([httpx.Response(200, json={"code": 0, "data": data})]).create()
    assert isinstance(outcome, Accepted)
    assert outcome.answer is not None
    kept = json.loads(outcome.answer)["data"]
    assert kept == data | {"callback_url": "[redacted]", "note": "x" * 4000 + "[redacted]"}


# --- every row of both error tables

REQUEST, EXISTS = (Refused, Refusal.REQUEST), (Refused, Refusal.EXISTS)
PAYMENT, ACCOUNT = (Refused, Refusal.PAYMENT), (Refused, Refusal.ACCOUNT)
LATER, SLOT, UNKNOWN = (Deferred, False), (Deferred, True), (Unknown, None)

KLING_ROWS = [
    (401, 1000, "authentication failed", ACCOUNT),
    (401, 1001, "Authorization is empty", ACCOUNT),
    (401, 1002, "api key not found", ACCOUNT),
    (401, 1003, "token is not yet valid", ACCOUNT),
    (401, 1004, "token expired", ACCOUNT),
    (429, 1100, "account exception", ACCOUNT),
    (429, 1101, "account in arrears", PAYMENT),
    (429, 1102, "resource pack exhausted", PAYMENT),
    (403, 1103, "no permission for this model", ACCOUNT),
    (400, 1200, "invalid parameters", REQUEST),
    (400, 1201, "invalid value of mode", REQUEST),
    (404, 1202, "method not allowed", REQUEST),
    (404, 1203, "model does not exist", REQUEST),
    (400, 1300, "platform policy", REQUEST),
    (400, 1301, "content safety", REQUEST),
    (429, 1302, "too fast", LATER),
    (429, 1303, "parallel task over resource pack limit", SLOT),
    (429, 1304, "ip not in the allow-list", ACCOUNT),
    (500, 5000, "internal error", UNKNOWN),
    (503, 5001, "maintenance", LATER),
    (504, 5002, "internal timeout", UNKNOWN),
]

GATEWAY_ROWS = [
    (gateway(400, "invalid model name"), "http_400", REQUEST),
    (gateway(400, "external_task_id already exists"), "http_400", EXISTS),
    (gateway(409, "duplicate external_task_id"), "http_409", EXISTS),
    (gateway(400, "external_task_id does not exist"), "http_400", REQUEST),
    (gateway(401, "invalid token"), "http_401", ACCOUNT),
    (gateway(402, "pay first"), "http_402", PAYMENT),
    (gateway(403, "forbidden"), "http_403", ACCOUNT),
    (gateway(403, "pre-consume failed", code="insufficient_user_quota"), "http_403", PAYMENT),
    (gateway(401, "token quota is not enough"), "http_401", PAYMENT),
    (gateway(403, "用户额度不足"), "http_403", PAYMENT),
    (gateway(404, "Invalid URL (POST /kling/v1/nowhere)"), "http_404", ACCOUNT),
    (gateway(405, "method not allowed"), "http_405", ACCOUNT),
    (gateway(408, "upstream took too long"), "http_408", UNKNOWN),
    (gateway(413, "too large"), "http_413", REQUEST),
    (gateway(422, "unprocessable"), "http_422", REQUEST),
    (gateway(429, "rate limit reached"), "http_429", LATER),
    (gateway(429, "insufficient balance"), "http_429", PAYMENT),
    (gateway(429, "over the limit", code="1303"), "1303", SLOT),
    (gateway(500, "upstream failed"), "http_500", UNKNOWN),
    (gateway(500, "image_list is required", code="invalid_request"), "http_500", REQUEST),
    (gateway(500, "external_task_id exists", code="invalid_request"), "http_500", EXISTS),
    (gateway(500, "internal error: no image_list", code="invalid_request"), "http_500", REQUEST),
    (gateway(502, "bad gateway"), "http_502", UNKNOWN),
    (gateway(503, "no channel available"), "http_503", UNKNOWN),
    (gateway(504, "gateway timeout"), "http_504", UNKNOWN),
    (gateway(524, "a timeout occurred"), "http_524", UNKNOWN),
    (gateway(599, "whatever"), "http_599", UNKNOWN),
    (gateway(200, "an error under a 200"), "http_200", UNKNOWN),
    (kling(503, 5000, "a body that says otherwise"), "5000", UNKNOWN),
    (kling(200, 1303, "parallel task over resource pack limit"), "1303", SLOT),
    (kling(200, "1301", "content safety"), "1301", REQUEST),
    (kling(429, "1303", "parallel task over resource pack limit"), "1303", SLOT),
    (kling(400, 1999, "a code of tomorrow"), "1999", REQUEST),
    (kling(200, 1999, "a code of tomorrow"), "1999", UNKNOWN),
    (kling(500, 5999, "a code of tomorrow"), "5999", UNKNOWN),
    (kling(400, "fail_to_fetch_task", "new-api's own shape"), "http_400", REQUEST),
    (page(200), "http_200", ACCOUNT),
    (page(301, location="https://www.cometapi.com/"), "http_301", ACCOUNT),
    (page(400), "http_400", ACCOUNT),
    (page(403), "http_403", ACCOUNT),
    (page(404), "http_404", ACCOUNT),
    (page(429), "http_429", LATER),
    (page(500), "http_500", UNKNOWN),
    (page(502), "http_502", UNKNOWN),
    (page(503), "http_503", UNKNOWN),
    (page(524), "http_524", UNKNOWN),
    (httpx.Response(302, headers={"location": "/login"}), "http_302", ACCOUNT),
    (httpx.Response(307, headers={"location": "https://elsewhere.example.com/"}), "http_307", ACCOUNT),
    (httpx.Response(400, json={"error": "plain text"}), "http_400", REQUEST),
    (httpx.Response(418, text="teapot"), "http_418", REQUEST),
    (httpx.Response(499, json={"message": "client closed request"}), "http_499", UNKNOWN),
    (httpx.Response(503, text="upstream connect error"), "http_503", UNKNOWN),
    (httpx.Response(520), "http_520", UNKNOWN),
    (httpx.Response(204), "unreadable_answer", UNKNOWN),
    (httpx.Response(200), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, text='{"code":0,"data":{"task_'), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, text='{"code":0,"data":NaN}'), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, text='[{"code":0}]'), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, content=b"[" * 100_000), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, content=b"\xff\xfe\x00"), "unreadable_answer", UNKNOWN),
    (httpx.Response(200, json={"code": 0, "message": "SUCCEED", "data": {}}), "no_task_id", UNKNOWN),
    (httpx.Response(200, json={"code": 0, "data": None}), "no_task_id", UNKNOWN),
    (httpx.Response(200, json={"code": 0, "data": {"task_id": ""}}), "no_task_id", UNKNOWN),
    (httpx.Response(200, json={"code": 0, "data": {"task_id": True}}), "no_task_id", UNKNOWN),
    (httpx.Response(200, json={"code": 0, "data": {"task_id": "1" * 4096}}), "no_task_id", UNKNOWN),
    (httpx.Response(200, json={}), "no_task_id", UNKNOWN),
    (kling(400, "5000", "HTTP 400 changes nothing about 5000"), "5000", UNKNOWN),
]


def assert_outcome(outcome: CreateOutcome, expected: tuple[type, object], code: str) -> None:
    kind, detail = expected
    assert isinstance(outcome, kind)
    assert not isinstance(outcome, Accepted)
    assert outcome.code == code
    assert outcome.message
    match outcome:
        case Refused():
            assert outcome.kind is detail
        case Deferred():
            assert outcome.needs_slot is detail


@pytest.mark.parametrize(("status", "code", "message", "expected"), KLING_ROWS)
async def test_each_kling_code_has_its_outcome(
    status: int, code: int, message: str, expected: tuple[type, object]
) -> None:
    far_side = FarSide([kling(status, code, message)])
    outcome = await far_side.create()
    assert_outcome(outcome, expected, str(code))
    assert not isinstance(outcome, Accepted)
    assert outcome.message == message


def test_no_documented_code_is_forgotten() -> None:
    assert {str(code) for _, code, _, _ in KLING_ROWS} == {code for code in FATES if code.isdigit()}


@pytest.mark.parametrize(("answer", "code", "expected"), GATEWAY_ROWS)
async def test_what_is_no_kling_code_has_its_outcome_too(
    answer: httpx.Response, code: str, expected: tuple[type, object]
) -> None:
    assert_outcome(await FarSide([answer]).create(), expected, code)


@pytest.mark.parametrize(
    "message",
    [
        "external_task_id already exists",
        "External Task ID already exist",
        "external_task_id 'job-42' already exists",
        "external_task_id exists",
        "Duplicate external_task_id",
        "external_task_id is duplicated",
        "external_task_id has been used",
        "external_task_id must be unique",
        "The task already exists.",
        "ALREADY EXISTS",
        "external_task_id 已存在",
    ],
)
async def test_a_second_create_with_one_external_id_is_told_to_exist(message: str) -> None:
    assert_outcome(await FarSide([kling(400, 1201, message)]).create(), EXISTS, "1201")


@pytest.mark.parametrize(
    "message",
    [
        "external_task_id does not exist",
        "external_task_id doesn't exist",
        "external_task_id does not already exist",
        "no task with this external_task_id exists",
        "Task not found by id/external id",
        "external_task_id is too long",
        "model_name value invalid",
        "",
    ],
)
async def test_other_meanings_of_1201_are_not_taken_for_an_existing_task(message: str) -> None:
    assert_outcome(await FarSide([kling(400, 1201, message)]).create(), REQUEST, "1201")


async def test_only_1201_among_kling_codes_can_mean_an_existing_task() -> None:
    outcome = await FarSide([kling(400, 1301, "this external_task_id already exists")]).create()
    assert_outcome(outcome, REQUEST, "1301")


HIDDEN_ROWS = [
    ("parallel task over resource pack limit", SLOT),
    ("Concurrency or QPS exceeds the prepaid resource package limit", SLOT),
    ("Too many requests; rate limit exceeded", LATER),
    ("The API request is too fast, exceeding the platform rate limit", LATER),
    ("Requests are too frequent, please try again later", LATER),
    ("API rate limit reached. Please try again later.", LATER),
    ("Server temporarily unavailable, usually due to maintenance", LATER),
    ("请求过于频繁", LATER),
    ("Server internal error", UNKNOWN),
    ("internal error", UNKNOWN),
    ("Internal Server Error", UNKNOWN),
    ("Server internal timeout, usually due to a backlog", UNKNOWN),
    ("the request timed out", UNKNOWN),
    ("The system is busy, please try again later", UNKNOWN),
    ("系统繁忙", UNKNOWN),
    ("Account balance not enough", PAYMENT),
    ("Account in arrears", PAYMENT),
    ("Resource pack exhausted or expired", PAYMENT),
    ("external_task_id already exists", EXISTS),
]


@pytest.mark.parametrize(("message", "expected"), HIDDEN_ROWS)
async def test_a_gateway_that_hides_klings_code_is_understood_by_klings_words(
    message: str, expected: tuple[type, object]
) -> None:
    """new-api answers 400 to whatever Kling refuses: what may succeed later, or exists already, is not refused for good."""
    answer = httpx.Response(400, json={"code": "task_failed", "message": message, "data": None})
    assert_outcome(await FarSide([answer]).create(), expected, "http_400")
    assert_outcome(await FarSide([gateway(400, message)]).create(), expected, "http_400")


@pytest.mark.parametrize(
    "message",
    [
        "invalid timeout value",
        "timeout must be between 1 and 60",
        "request timeout is invalid",
        "internal is no value of mode",
        "frame rate limit exceeded",
        "the rate limit parameter is invalid",
        "camera_control.speed: too fast",
        "too many requested images: n is at most 9",
        "too many subject images",
        "resource pack id is invalid",
        "parallel is no value of mode",
        "image is temporarily unavailable",
        "voice is busy",
    ],
)
async def test_what_a_gateway_says_of_a_field_is_a_refusal_for_good(message: str) -> None:
    assert_outcome(await FarSide([gateway(400, message)]).create(), REQUEST, "http_400")


async def test_klings_own_code_counts_more_than_its_words() -> None:
    outcome = await FarSide([kling(400, 1201, "parallel task over resource pack limit")]).create()
    assert_outcome(outcome, REQUEST, "1201")


@pytest.mark.parametrize("answer", [page(200), page(301), page(404), gateway(404, "Invalid URL (POST /x)")])
async def test_a_wrong_address_sends_the_operator_to_its_setting(answer: httpx.Response) -> None:
    outcome = await FarSide([answer]).create()
    assert isinstance(outcome, Refused)
    assert "KLINGEL_PROVIDER_URL" in outcome.message


@given(status=st.integers(100, 999), body=st.binary(max_size=200))
def test_any_answer_has_an_outcome(status: int, body: bytes) -> None:
    outcome = create_outcome(Reply(status=status, headers={}, body=body), str, str)
    assert isinstance(outcome, (Refused, Deferred, Unknown))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["code", "message", "data", "error", "task_id", "id", "status", "type", "task_info"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(status=st.sampled_from([200, 400, 401, 429, 500, 503]), document=JSON)
def test_any_json_answer_has_an_outcome(status: int, document: object) -> None:
    body = json.dumps(document).encode()
    assert isinstance(
        create_outcome(Reply(status=status, headers={}, body=body), str, str),
        (Accepted, Refused, Deferred, Unknown),
    )


# --- the wire

REQUEST_SENT = httpx.Request("POST", "https://api.cometapi.com/")
FAULT_ROWS = [
    (httpx.ConnectError("[Errno -2] Name or service not known"), "connect_failed", Deferred),
    (httpx.ConnectTimeout(""), "connect_timeout", Deferred),
    (httpx.PoolTimeout(""), "pool_timeout", Deferred),
    (httpx.ProxyError("407"), "proxy_failed", Deferred),
    (httpx.ReadTimeout(""), "timeout", Unknown),
    (httpx.WriteTimeout(""), "timeout", Unknown),
    (TimeoutError(), "timeout", Unknown),
    (httpx.ReadError("reset"), "connection_lost", Unknown),
    (httpx.WriteError("broken pipe"), "connection_lost", Unknown),
    (httpx.CloseError(""), "connection_lost", Unknown),
    (httpx.RemoteProtocolError("Server disconnected"), "connection_lost", Unknown),
    (httpx.LocalProtocolError(""), "connection_lost", Unknown),
    (httpx.DecodingError("bad gzip"), "unreadable_answer", Unknown),
    (ConnectionResetError(104, "reset"), "connection_lost", Unknown),
]


@pytest.mark.parametrize(("error", "code", "kind"), FAULT_ROWS)
async def test_a_fault_of_the_wire_defers_only_what_was_never_sent(
    error: Exception, code: str, kind: type[Deferred | Unknown]
) -> None:
    far_side = FarSide([error])
    outcome = await far_side.create()
    assert isinstance(outcome, kind)
    assert outcome.code == code
    assert len(far_side.requests) == 1
    assert far_side.calls == [("create", "deferred" if kind is Deferred else "unknown")]


def test_every_fault_leads_to_a_known_fate() -> None:
    assert {code for code, _ in FAULTS.values()} <= FATES.keys()


async def test_an_answer_that_never_ends_is_unknown_when_the_time_is_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"code":0,'
        await asyncio.Event().wait()

    far_side = FarSide([httpx.Response(200, content=endless())])
    outcome = await far_side.create(timeout=timedelta(milliseconds=20))
    assert isinstance(outcome, Unknown)
    assert outcome.code == "timeout"


async def test_an_answer_over_a_mebibyte_is_not_read_to_its_end() -> None:
    chunks = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal chunks
        for _ in range(1000):
            chunks += 1
            yield b" " * 65536

    outcome = await FarSide([httpx.Response(200, content=flood())]).create()
    assert_outcome(outcome, UNKNOWN, "unreadable_answer")
    assert chunks == 17


@pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, Transport])
async def test_a_closed_port_and_a_silent_close_are_told_apart_on_a_real_socket(
    transport: Callable[[], httpx.AsyncBaseTransport],
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(transport=transport()) as client:
        provider = FarSide([]).provider(client, base_url=url)
        hung_up = await provider.create(ORDER)
        await server.close()
        closed = await provider.create(ORDER)
    assert isinstance(hung_up, Unknown)
    assert isinstance(closed, Deferred)
    assert (hung_up.code, closed.code) == ("connection_lost", "connect_failed")


async def test_a_cancelled_create_is_counted_as_unknown() -> None:
    sent = asyncio.Event()

    async def silent(request: httpx.Request) -> httpx.Response:
        sent.set()
        await asyncio.Event().wait()
        raise AssertionError

    far_side = FarSide([])
    async with httpx.AsyncClient(transport=httpx.MockTransport(silent)) as client:
        creating = asyncio.create_task(far_side.provider(client).create(ORDER))
        await sent.wait()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
    assert far_side.calls == [("create", "unknown")]


# --- nothing is sent twice


@pytest.mark.parametrize("answer", [answer for answer, _, _ in GATEWAY_ROWS])
async def test_no_answer_without_a_kling_code_is_followed_by_a_second_create(answer: httpx.Response) -> None:
    far_side = FarSide([answer])
    await far_side.create()
    assert len(far_side.requests) == len(far_side.calls) == 1


@pytest.mark.parametrize(("status", "code", "message", "expected"), KLING_ROWS)
async def test_only_a_refused_token_is_shown_a_second_time(
    status: int, code: int, message: str, expected: tuple[type, object]
) -> None:
    far_side = FarSide([kling(status, code, message)])
    await far_side.create()
    assert len(far_side.requests) == len(far_side.calls) == (2 if code in {1003, 1004} else 1)


async def test_a_redirect_is_not_followed() -> None:
    far_side = FarSide([httpx.Response(308, headers={"location": "https://elsewhere.example.com/"})])
    await far_side.create()
    assert [str(request.url.host) for request in far_side.requests] == ["api.cometapi.com"]


async def test_a_token_not_yet_valid_is_shown_again_as_it_is() -> None:
    far_side = FarSide([kling(401, 1003, "not yet"), httpx.Response(200, json=ENVELOPE)])
    tokens = iter(["Bearer first-token", "Bearer second-token"])
    assert await far_side.create(authorization=lambda: next(tokens)) == Accepted("880000000000000001")
    assert [request.headers["authorization"] for request in far_side.requests] == ["Bearer first-token"] * 2
    assert far_side.calls == [("create", "refused"), ("create", "accepted")]


@pytest.mark.parametrize("code", [1003, 1004])
async def test_a_clock_that_differs_is_set_by_the_providers(code: int) -> None:
    """The refusal says what time it is there: the next token is good by that, without a pause."""
    refusal = kling(401, code, "the token's time is not now")
    refusal.headers["date"] = "Sun, 22 Nov 2026 06:30:00 GMT"  # NOW, and an hour
    far_side = FarSide([refusal, httpx.Response(200, json=ENVELOPE)])
    authorization = authorization_for("access:secret", lambda: NOW)
    outcome = await far_side.create(
        authorization=authorization, correct=authorization.correct, skew_pause=timedelta(days=1)
    )
    assert outcome == Accepted("880000000000000001")
    first, second = (token_of(request) for request in far_side.requests)
    assert second["nbf"] - first["nbf"] == second["exp"] - first["exp"] == 3600


@pytest.mark.parametrize("code", [1003, 1004])
async def test_creates_that_are_refused_together_for_a_clock_that_differs_are_all_sent_again(
    code: int,
) -> None:
    everybody_is_here = asyncio.Barrier(3)

    async def by_their_clock(request: httpx.Request) -> httpx.Response:
        if token_of(request)["nbf"] == (NOW + timedelta(minutes=59, seconds=55)).timestamp():
            return httpx.Response(200, json=ENVELOPE)
        await everybody_is_here.wait()
        refusal = kling(401, code, "the token's time is not now")
        refusal.headers["date"] = "Sun, 22 Nov 2026 06:30:00 GMT"  # NOW, and an hour
        return refusal

    authorization = authorization_for("access:secret", lambda: NOW)
    async with httpx.AsyncClient(transport=httpx.MockTransport(by_their_clock)) as client:
        provider = FarSide([]).provider(
            client,
            authorization=authorization,
            correct=authorization.correct,
            skew_pause=timedelta(days=1),
        )
        outcomes = await asyncio.gather(*(provider.create(ORDER) for _ in range(3)))
    assert outcomes == [Accepted("880000000000000001")] * 3


def token_of(request: httpx.Request) -> Any:
    payload = request.headers["authorization"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def test_an_expired_token_is_replaced_by_a_fresh_one() -> None:
    far_side = FarSide([kling(401, 1004, "expired"), httpx.Response(200, json=ENVELOPE)])
    tokens = iter(["Bearer first-token", "Bearer second-token"])
    assert await far_side.create(authorization=lambda: next(tokens)) == Accepted("880000000000000001")
    assert [request.headers["authorization"] for request in far_side.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]


async def test_an_ambiguous_answer_to_the_second_showing_stays_ambiguous() -> None:
    far_side = FarSide([kling(401, 1004, "expired"), httpx.ReadTimeout("")])
    assert_outcome(await far_side.create(), UNKNOWN, "timeout")
    assert len(far_side.requests) == 2


# --- when to come back


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "0"}, timedelta()),
        ({"retry-after": "86400"}, timedelta(hours=1)),
        ({"retry-after": "9" * 5000}, timedelta(hours=1)),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.5"}, None),
        (
            {"retry-after": "Sun, 22 Nov 2026 05:31:00 GMT", "date": "Sun, 22 Nov 2026 05:30:30 GMT"},
            timedelta(seconds=30),
        ),
        (
            {"retry-after": "Sun, 22 Nov 2026 05:30:00 GMT", "date": "Sun, 22 Nov 2026 05:30:30 GMT"},
            timedelta(),
        ),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, timedelta()),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, timedelta(hours=1)),
    ],
)
@pytest.mark.parametrize("code", [1302, 1303, 5001])
async def test_retry_after_is_honoured_up_to_an_hour(
    code: int, headers: dict[str, str], wait: timedelta | None
) -> None:
    answer = httpx.Response(429, json={"code": code, "message": "slow down"}, headers=headers)
    outcome = await FarSide([answer]).create()
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after == wait


# --- what messages may say


@pytest.mark.parametrize(
    "message",
    [
        f"bad key {KEY}",
        f"callback_url {CALLBACK_URL} is unreachable",
        f"callback_url {CALLBACK_URL}/ is unreachable",
        f"callback_url {CALLBACK_URL.upper()} is unreachable",
        f"cannot reach path /callbacks/cometapi/task_01/{TOKEN}",
        f'cut short: "{CALLBACK_URL[:-10]}"',
        "x" * 480 + KEY,
        "x" * 3990 + KEY,
        KEY * 1000,
    ],
)
@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_messages_are_short_and_hold_neither_key_nor_token(status: int, message: str) -> None:
    for answer in (
        kling(status, 1201, message),
        gateway(status, message),
        httpx.Response(status, text=message),
    ):
        outcome = await FarSide([answer]).create()
        assert not isinstance(outcome, Accepted)
        assert len(outcome.message) <= 500
        assert KEY[:12] not in outcome.message
        assert TOKEN[:12].lower() not in outcome.message.lower()


async def test_a_redirect_that_repeats_the_callback_url_is_redacted_too() -> None:
    far_side = FarSide(
        [httpx.Response(301, headers={"location": f"https://x.example.com/?to={CALLBACK_URL}"})]
    )
    outcome = await far_side.create()
    assert isinstance(outcome, Refused)
    assert TOKEN not in outcome.message
    assert "x.example.com" in outcome.message


async def test_the_innermost_message_is_shown_because_it_is_the_providers_own() -> None:
    body = {
        "code": "fail",
        "message": "upstream error",
        "data": {"code": 1301, "message": "prompt is blocked"},
    }
    outcome = await FarSide([httpx.Response(400, json=body)]).create()
    assert outcome == Refused(Refusal.REQUEST, "1301", "prompt is blocked")


async def test_to_a_create_sent_again_1201_means_that_it_exists_whatever_its_words() -> None:
    """Kling, "Error Codes": the code for a bad value is that for a repeated external_task_id too."""
    answer = httpx.Response(400, json={"code": 1201, "message": "a wording of tomorrow", "request_id": "r"})
    far_side = FarSide([answer])
    async with httpx.AsyncClient(transport=httpx.MockTransport(far_side)) as client:
        kling = far_side.provider(client)
        first = await kling.create(ORDER)
        again = await kling.create(replace(ORDER, is_resend=True))
    assert isinstance(first, Refused)
    assert isinstance(again, Refused)
    assert (first.kind, again.kind) == (Refusal.REQUEST, Refusal.EXISTS)
