"""Kling's callbacks: both standards, wrapped and bare, and whatever else may be sent to a callback URL.

Sources: Kling "Callback protocol" (2026), CometAPI "callback_url"; the signature vectors are Kling's published one and
one made for a legacy body.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.providers.kling import KlingCallbacks
from handlers.providers.kling.reports import SIGNALS, read_report
from service.domain.costs import Charge
from service.domain.lifecycle import FROM_PROVIDER, Signal
from service.domain.tasks import Output, OutputKind, Report, TaskError, Unreadable

EXPIRES_AT = datetime.fromtimestamp(1790000060, UTC) + timedelta(days=30)

LEGACY = {
    "task_id": "880000000000000001",
    "task_status": "succeed",
    "task_status_msg": "",
    "created_at": 1790000000000,
    "updated_at": 1790000060000,
    "final_unit_deduction": "16",
    "final_balance_deduction": {"quota": "0", "list_price": "0"},
    "task_info": {"external_task_id": "job-42"},
    "task_result": {"images": [{"index": 0, "url": "https://cdn.example.com/0.png"}]},
}
LEGACY_FAILURE = {
    "task_id": "880000000000000002",
    "task_status": "failed",
    "task_status_msg": "blocked by content review",
    "created_at": 1790000000000,
    "updated_at": 1790000030000,
    "task_info": {"external_task_id": "job-43"},
    "task_result": {},
}
NEW = {
    "id": "913000000000000001",
    "status": "succeeded",
    "message": "",
    "create_time": 1790000000000,
    "update_time": 1790000060000,
    "external_id": "job-44",
    "outputs": [
        {
            "type": "video",
            "id": "v1",
            "url": "https://cdn.example.com/v.mp4",
            "watermark_url": "",
            "duration": "5.0",
        }
    ],
    "billing": [{"charge_type": "unit", "amount": "4", "package_type": "video"}],
}

LEGACY_REPORT = Report(
    signal=Signal.COMPLETED,
    provider_task_id="880000000000000001",
    external_task_id="job-42",
    outputs=(
        Output(kind=OutputKind.IMAGE, index=0, url="https://cdn.example.com/0.png", expires_at=EXPIRES_AT),
    ),
    cost=(Charge(amount=Decimal(16), unit="units"),),
)
NEW_REPORT = Report(
    signal=Signal.COMPLETED,
    provider_task_id="913000000000000001",
    external_task_id="job-44",
    outputs=(
        Output(
            kind=OutputKind.VIDEO,
            index=0,
            url="https://cdn.example.com/v.mp4",
            id="v1",
            duration_s=5.0,
            expires_at=EXPIRES_AT,
        ),
    ),
    cost=(Charge(amount=Decimal(4), unit="units", package="video"),),
)


def enveloped(task: object) -> dict[str, object]:
    return {"code": 0, "message": "SUCCEED", "request_id": "q-1", "data": task}


def wrapped(inner: object) -> dict[str, object]:
    """As new-api gateways do, which CometAPI's query page showed in March 2026."""
    task = {"action": "generate", "status": "SUCCESS", "progress": "100%", "data": inner}
    return {"code": "success", "message": "", "data": task}


def read(document: object) -> Report:
    return read_report(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("task", "report"), [(LEGACY, LEGACY_REPORT), (NEW, NEW_REPORT)], ids=["legacy", "new"]
)
@pytest.mark.parametrize(
    "shape",
    [
        lambda task: task,
        enveloped,
        lambda task: enveloped([task]),
        lambda task: {"data": enveloped(task)},
        wrapped,
        lambda task: wrapped(enveloped(task)),
        lambda task: {"data": wrapped(enveloped(task))},
    ],
    ids=[
        "flat",
        "enveloped",
        "a list of one",
        "one deeper",
        "wrapped",
        "wrapped envelope",
        "all and one deeper",
    ],
)
def test_a_callback_says_the_same_in_every_shape(task: object, report: Report, shape: Any) -> None:
    assert read(shape(task)) == report


def test_the_minimal_legacy_body_of_cometapis_page_is_enough() -> None:
    body = {
        "task_id": "1",
        "task_status": "processing",
        "task_status_msg": "",
        "created_at": 1,
        "updated_at": 2,
    }
    assert read(body) == Report(signal=Signal.STARTED, provider_task_id="1", external_task_id=None)


def test_the_consoles_test_callback_is_readable() -> None:
    body = {"id": "1", "status": "submitted", "message": "", "outputs": []}
    assert read(body) == Report(signal=Signal.SUBMITTED, provider_task_id="1", external_task_id=None)


def test_a_failure_carries_the_providers_reason() -> None:
    assert read(LEGACY_FAILURE) == Report(
        signal=Signal.FAILED,
        provider_task_id="880000000000000002",
        external_task_id="job-43",
        error=TaskError("provider_failed", "blocked by content review"),
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"id": "1", "status": "failed", "message": "unsafe"}, "unsafe"),
        (enveloped({"task_status": "failed", "task_status_msg": "too small"}), "too small"),
        (enveloped({"task_status": "failed", "task_status_msg": ""}), "The provider gave no reason."),
        (
            {"data": {"status": "FAILURE", "fail_reason": "upstream gave up", "data": None}},
            "upstream gave up",
        ),
        ({"task_status": "failed", "task_status_msg": "x" * 10_000}, "x" * 500),
        ({"task_status": "failed", "task_status_msg": "a\u0000b"}, "ab"),
    ],
)
def test_the_reason_is_the_tasks_and_never_the_envelopes(body: object, reason: str) -> None:
    assert read(body).error == TaskError("provider_failed", reason)


@pytest.mark.parametrize("name", ["task_status", "status"])
@pytest.mark.parametrize("word", SIGNALS)
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, " {} ".format])
def test_status_words_of_both_standards_count_in_any_case(name: str, word: str, spell: Any) -> None:
    assert read({name: spell(word)}).signal is SIGNALS[word]


def test_each_status_word_is_a_signal_that_a_provider_may_give() -> None:
    assert set(SIGNALS.values()) == FROM_PROVIDER


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ({"task_id": 880000000000000001}, "880000000000000001"),
        ({"id": 913000000000000001}, "913000000000000001"),
        ({"task_id": "  88 "}, "88"),
        ({"id": 7, "task_id": "88"}, "88"),
        ({"task_id": ""}, None),
        ({"task_id": None}, None),
        ({"task_id": False}, None),
        ({"task_id": 8.8e17}, None),
        ({"task_id": ["88"]}, None),
        ({"task_id": "8" * 4096}, None),
        ({"task_id": 10**400}, None),
    ],
)
def test_a_task_id_comes_as_text_or_number_or_not_at_all(body: dict[str, object], known: str | None) -> None:
    assert read({"status": "submitted"} | body).provider_task_id == known


def test_a_gateways_own_id_counts_over_the_one_within() -> None:
    body = {"code": "success", "data": {"id": 7, "task_id": "task_own", "status": "SUCCESS", "data": LEGACY}}
    assert read(body).provider_task_id == "task_own"


def test_klings_own_word_counts_over_the_wrappers() -> None:
    body = wrapped(enveloped(LEGACY | {"task_status": "processing"}))
    assert read(body).signal is Signal.STARTED
    outer = {"updated_at": 1790009999, "external_task_id": "other", "fail_reason": "failed"}
    failed = read({"data": outer | {"status": "FAILURE", "data": LEGACY_FAILURE}})
    assert failed.external_task_id == "job-43"
    assert failed.error == TaskError("provider_failed", "blocked by content review")
    assert read({"data": outer | {"status": "SUCCESS", "data": LEGACY}}).outputs == LEGACY_REPORT.outputs


def test_the_id_of_an_event_around_a_task_is_not_the_tasks() -> None:
    assert read({"id": "evt_1", "data": NEW}).provider_task_id == "913000000000000001"


@pytest.mark.parametrize(
    "body",
    [
        {"task_info": {"external_task_id": "job-1"}},
        {"external_task_id": "job-1"},
        {"external_id": "job-1"},
        {"task_info": {}, "external_task_id": "job-1"},
        {"task_info": {"external_task_id": None}, "external_task_id": "job-1"},
        {"task_info": {"external_task_id": "job-1"}, "external_task_id": "job-2"},
        {"task_info": None, "external_id": "job-1"},
    ],
)
def test_the_external_id_is_found_wherever_it_was_ever_seen(body: dict[str, object]) -> None:
    assert read({"task_status": "submitted"} | body).external_task_id == "job-1"


# --- outputs


def outputs(**body: object) -> tuple[Output, ...]:
    return tuple(read({"task_status": "succeed"} | body).outputs)


def test_videos_have_fractional_durations_and_watermarked_copies() -> None:
    video = {
        "id": "v-1",
        "url": "https://cdn.example.com/v.mp4?sign=a",
        "duration": "5.041",
        "watermark_url": "https://cdn.example.com/w.mp4",
        "session_id": "s-1",
    }
    assert outputs(task_result={"videos": [video]}) == (
        Output(
            kind=OutputKind.VIDEO,
            index=0,
            url="https://cdn.example.com/v.mp4?sign=a",
            id="v-1",
            duration_s=5.041,
            watermark_url="https://cdn.example.com/w.mp4",
        ),
    )


@pytest.mark.parametrize(
    ("item", "url", "duration_s"),
    [
        (
            {
                "url_mp3": "https://c.example/a.mp3",
                "url_wav": "https://c.example/a.wav",
                "duration_mp3": "3.1",
            },
            "https://c.example/a.mp3",
            3.1,
        ),
        ({"url_wav": "https://c.example/a.wav", "duration_wav": 3}, "https://c.example/a.wav", 3.0),
        ({"mp3_url": "https://c.example/a.mp3", "mp3_duration": "3"}, "https://c.example/a.mp3", 3.0),
        ({"url": "https://c.example/a.mp3", "duration": "x"}, "https://c.example/a.mp3", None),
        ({"url": "https://c.example/a.mp3", "duration": "nan"}, "https://c.example/a.mp3", None),
        ({"url": "https://c.example/a.mp3", "duration": -1}, "https://c.example/a.mp3", None),
        ({"url": "https://c.example/a.mp3", "duration": True}, "https://c.example/a.mp3", None),
    ],
)
def test_audio_has_several_spellings(item: dict[str, object], url: str, duration_s: float | None) -> None:
    for body in ({"task_result": {"audios": [item]}}, {"outputs": [{"type": "audio"} | item]}):
        [output] = outputs(**body)
        assert (output.kind, output.url, output.duration_s) == (OutputKind.AUDIO, url, duration_s)


def test_images_keep_their_index_and_else_their_place() -> None:
    images = [
        {"index": 1, "url": "https://c.example/1"},
        {"id": "", "url": "https://c.example/2", "index": None},
    ]
    assert [(output.index, output.id) for output in outputs(task_result={"images": images[:1]})] == [
        (1, None)
    ]
    images = [{"id": "", "url": f"https://c.example/{number}"} for number in range(3)]
    assert [output.index for output in outputs(task_result={"images": images})] == [0, 1, 2]


def test_no_two_outputs_share_an_index() -> None:
    result = {
        "videos": [{"url": "https://c.example/v"}],
        "audios": [{"url": "https://c.example/a"}],
        "images": [{"index": 5, "url": "https://c.example/i"}, {"index": 5, "url": "https://c.example/j"}],
    }
    assert [output.index for output in outputs(task_result=result)] == [0, 1, 2, 3]


@pytest.mark.parametrize("index", ["-1", "1e400", "1" + "0" * 30, "0.5", '"x"', "true", "[]"])
def test_an_index_that_is_none_is_replaced_by_the_place(index: str) -> None:
    image = f'{{"index":{index},"url":"https://c.example/0.png"}}'
    body = f'{{"task_status":"succeed","task_result":{{"images":[{image}]}}}}'
    assert [output.index for output in read_report(body.encode()).outputs] == [0]


@pytest.mark.parametrize(
    "item",
    [
        {"index": 0},
        {"index": 0, "url": ""},
        {"index": 0, "url": None},
        {"index": 0, "url": 5},
        {"index": 0, "url": "javascript:alert(1)"},
        {"index": 0, "url": "file:///etc/passwd"},
        {"index": 0, "url": "https://c.example/a b"},
        {"index": 0, "url": "https://c.example/a\nb"},
        None,
        7,
        [],
    ],
)
def test_an_output_without_a_web_url_is_left_out(item: object) -> None:
    good = {"index": 1, "url": "https://c.example/1"}
    assert [output.url for output in outputs(task_result={"images": [item, good]})] == ["https://c.example/1"]
    new = [item | {"type": "image"} if isinstance(item, dict) else item, good | {"type": "image"}]
    assert [output.url for output in outputs(outputs=new)] == ["https://c.example/1"]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"type": "image", "url": "https://c.example/x", "group_id": "g"}, OutputKind.IMAGE),
        ({"type": "VIDEO", "url": "https://c.example/x"}, OutputKind.VIDEO),
        ({"type": "voice", "url": "https://c.example/x"}, OutputKind.AUDIO),
        ({"type": "element", "url": "https://c.example/x.PNG?sign=1.mp4"}, OutputKind.IMAGE),
        ({"url": "https://c.example/x.mp4?sign=1"}, OutputKind.VIDEO),
        ("https://c.example/x.png", OutputKind.IMAGE),
    ],
)
def test_an_output_of_the_new_standard_has_its_kind_by_type_or_by_ending(
    item: object, kind: OutputKind
) -> None:
    assert [output.kind for output in outputs(outputs=[item])] == [kind]


def test_an_output_of_no_kind_that_we_know_is_left_out() -> None:
    assert outputs(outputs=[{"type": "element", "url": "https://c.example/x"}]) == ()


@pytest.mark.parametrize("result", [None, {}, [], "x", {"images": None}, {"images": {}}, {"images": []}])
def test_a_success_without_outputs_is_a_success(result: object) -> None:
    assert outputs(task_result=result) == ()


def test_outputs_count_only_when_the_task_is_done() -> None:
    assert read(LEGACY | {"task_status": "processing"}).outputs == ()


@pytest.mark.parametrize(
    ("updated", "expires_at"),
    [
        (1790000060000, EXPIRES_AT),
        ("1790000060000", EXPIRES_AT),
        (1790000060, EXPIRES_AT),
        (None, None),
        ("yesterday", None),
        (0, None),
        (-5, None),
        (10**30, None),
        ([], None),
    ],
)
@pytest.mark.parametrize("name", ["updated_at", "update_time"])
def test_outputs_expire_thirty_days_after_the_last_update(
    name: str, updated: object, expires_at: datetime | None
) -> None:
    body = {name: updated, "task_result": {"videos": [{"url": "https://c.example/v"}]}}
    assert [output.expires_at for output in outputs(**body)] == [expires_at]


# --- unreadable


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b'{"task_id":"1","task_status":"succ', "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"task_status":"succeed"}'.encode("utf-16"), "not UTF-8"),
        (b"null", "not a JSON object"),
        (b'[{"task_status":"succeed"}]', "not a JSON object"),
        (b'"succeed"', "not a JSON object"),
        (b"{}", "no task status"),
        (b'{"task_id":"1"}', "no task status"),
        (b'{"task_status":5}', "no task status"),
        (b'{"status":true}', "no task status"),
        (b'{"code":1303,"message":"x","data":null}', "no task status"),
        (b'{"task_status":"canceled"}', "'canceled'"),
        (b'{"task_status":"succeed","x":NaN}', "NaN"),
        (b'{"task_status":"succeed","x":-Infinity}', "-Infinity"),
        (b'{"task_status":"succeed","task_status":"failed"}', "twice"),
        (b'{"task_status":"succeed","x":' + b"1" * 5000 + b"}", "too long"),
        (b'{"task_status":"succeed","x":' + b"[" * 64 + b"]" * 64 + b"}", "64 levels"),
        (b'{"task_status":"succeed","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "64 levels"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "64 levels"),
    ],
)
def test_what_cannot_be_read_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_report(body)


def test_sixty_four_levels_are_not_too_deep() -> None:
    body = b'{"task_status":"succeed","x":' + b"[" * 63 + b"]" * 63 + b"}"
    assert read_report(body).signal is Signal.COMPLETED


def test_a_name_repeated_with_one_value_is_harmless() -> None:
    body = b'\xef\xbb\xbf{"task_status":"succeed","task_id":"1","task_id":"1"}'
    assert read_report(body).provider_task_id == "1"


def test_what_no_database_can_store_is_taken_out() -> None:
    report = read_report(b'{"task_status":"failed","task_id":"a\\u0000b","task_status_msg":"\\ud800!"}')
    assert (report.provider_task_id, report.error) == ("ab", TaskError("provider_failed", "?!"))


NAMES = st.sampled_from(
    [
        *LEGACY,
        *NEW,
        "data",
        "code",
        "images",
        "videos",
        "audios",
        "index",
        "url",
        "type",
        "duration",
        "external_task_id",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["succeed", "FAILED", "succeeded", "https://c.example/x.png", "image", 1790000060000, 1e300]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=30,
)


def assert_readable_or_said_why(body: bytes) -> None:
    try:
        report = read_report(body)
    except Unreadable as unreadable:
        report, reason = None, str(unreadable)
    if report is None:
        assert reason
        return
    assert report.signal in FROM_PROVIDER
    assert len({output.index for output in report.outputs}) == len(report.outputs)
    assert (report.error is not None) == (report.signal is Signal.FAILED)


@given(st.binary(max_size=300))
@example(b"{" * 100_000)
@example(b'{"a":1e999999999}')
def test_any_bytes_are_a_report_or_unreadable(body: bytes) -> None:
    assert_readable_or_said_why(body)


@given(VALUES)
def test_any_json_is_a_report_or_unreadable(document: object) -> None:
    assert_readable_or_said_why(json.dumps(document).encode())


@given(st.dictionaries(NAMES, VALUES, max_size=8), st.sampled_from([LEGACY, NEW]))
def test_a_callback_with_anything_in_its_fields_is_a_report_or_unreadable(
    changes: dict[str, object], callback: dict[str, object]
) -> None:
    for document in (
        callback | changes,
        enveloped(callback | changes),
        wrapped(changes | {"data": callback}),
    ):
        assert_readable_or_said_why(json.dumps(document).encode())


# --- signatures

PUBLISHED_BODY = (
    b'{"id":"1234567890","status":"succeeded","message":"",'
    b'"create_time":1781080778802,"update_time":1781080794151}'
)
LEGACY_BODY = (
    b'{"task_id":"t-1001","task_status":"succeed","task_status_msg":"","created_at":1790000000000,'
    b'"updated_at":1790000060000,"task_result":{"images":[{"index":0,"url":"https://cdn.example.com/a.png"}]}}'
)
VECTORS = {
    "Kling's published sample": (
        "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
        {
            "webhook-id": "9876543210",
            "webhook-timestamp": "1781080794",
            "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
        },
        PUBLISHED_BODY,
    ),
    "a legacy body": (
        "whsec_a2xpbmctd2ViaG9vay1kZW1vLWtleS0wMTIzNDU2Nzg5",
        {
            "webhook-id": "msg-1",
            "webhook-timestamp": "1790000060",
            "webhook-signature": "v1,RgR9tNuaShIF6+mBqJ+tJ2c6KIUEf5kD+Vq5XtE134M=",
        },
        LEGACY_BODY,
    ),
}


def callbacks(*secrets: str) -> KlingCallbacks:
    return KlingCallbacks("kling", webhook_secrets=secrets)


@pytest.fixture(params=list(VECTORS.values()), ids=list(VECTORS))
def vector(request: pytest.FixtureRequest) -> Any:
    return request.param


def signed_at(headers: dict[str, str]) -> datetime:
    return datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)


@pytest.mark.parametrize("skew", [0, 1, 300, -300])
def test_a_signed_callback_verifies_within_five_minutes(
    vector: tuple[str, dict[str, str], bytes], skew: int
) -> None:
    secret, headers, body = vector
    now = signed_at(headers) + timedelta(seconds=skew)
    assert callbacks(secret).verify(headers, body, now=now)
    assert callbacks("whsec_" + "QUJD" * 8, secret).verify(headers, body, now=now)
    assert callbacks(secret).verify({name.title(): value for name, value in headers.items()}, body, now=now)
    assert callbacks(secret).verify(httpx.Headers(headers), body, now=now)
    rotating = headers | {"webhook-signature": "v1,b3RoZXI= " + headers["webhook-signature"]}
    assert callbacks(secret).verify(rotating, body, now=now)
    callbacks(secret).parse(body)


@pytest.mark.parametrize("skew", [301, -301, 10**8])
def test_a_signature_outside_five_minutes_does_not_verify(
    vector: tuple[str, dict[str, str], bytes], skew: int
) -> None:
    secret, headers, body = vector
    assert not callbacks(secret).verify(headers, body, now=signed_at(headers) + timedelta(seconds=skew))


def flips(content: bytes) -> list[bytes]:
    return [
        content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
        for place in range(len(content))
        for bit in range(8)
    ]


def test_one_flipped_bit_anywhere_does_not_verify(vector: tuple[str, dict[str, str], bytes]) -> None:
    secret, headers, body = vector
    now, checked = signed_at(headers), callbacks(secret)
    assert not any(checked.verify(headers, flipped, now=now) for flipped in flips(body))
    for name, value in headers.items():
        for flipped in flips(value.encode()):
            assert not checked.verify(headers | {name: flipped.decode("latin-1")}, body, now=now)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_with_a_secret_set_an_unsigned_callback_does_not_verify(
    vector: tuple[str, dict[str, str], bytes], missing: str
) -> None:
    secret, headers, body = vector
    unsigned = {name: value for name, value in headers.items() if name != missing}
    assert not callbacks(secret).verify(unsigned, body, now=signed_at(headers))
    assert not callbacks(secret).verify({}, body, now=signed_at(headers))


def test_another_secret_does_not_verify(vector: tuple[str, dict[str, str], bytes]) -> None:
    _, headers, body = vector
    assert not callbacks("whsec_" + "QUJD" * 8).verify(headers, body, now=signed_at(headers))


def test_without_a_secret_there_is_nothing_to_verify() -> None:
    assert callbacks().verify({}, b"whatever", now=datetime.now(UTC))
