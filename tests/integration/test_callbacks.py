"""`POST /callbacks/…`: what a provider's word does to a task, and what nobody else's does."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.integration.klingel import (
    FakeKling,
    Klingel,
    ManualClock,
    callback,
    picture,
    running_klingel,
    succeed,
)

SECRET = "whsec_" + base64.b64encode(b"a provider's secret of 32 bytes.").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"the one that it had before this.").decode()


async def post(klingel: Klingel, path: str, body: object = None, **kwargs: Any) -> httpx.Response:
    """As the provider does, without our key."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with klingel.client(None) as provider:
        return await provider.post(path, content=content, **kwargs)


# The shapes that are documented or were seen


async def test_the_legacy_body_ends_a_picture_task(klingel: Klingel) -> None:
    """Kling, "Callback Protocol": flat, `task_status: succeed`, media cleared after 30 days."""
    task = await klingel.submit(external_task_id="job-42")
    body = {
        "task_id": task["provider_task_id"],
        "task_status": "succeed",
        "task_status_msg": "",
        "created_at": 1790000000000,
        "updated_at": 1790000060000,
        "final_unit_deduction": "16",
        "final_balance_deduction": {"quota": "0", "list_price": "0"},
        "task_info": {"external_task_id": "job-42"},
        "task_result": {
            "images": [
                {"index": 0, "url": picture("0")},
                {"index": 1, "url": picture("1"), "watermark_url": ""},
            ]
        },
    }
    response = await klingel.call_back(body)
    assert (response.status_code, response.text) == (200, "ok\n")
    task = await klingel.task(task["id"])
    assert (task["status"], task["error"]) == ("succeeded", None)
    assert task["finished_at"] == task["updated_at"] == "2026-11-22T12:00:00.000Z"
    assert task["outputs"] == [
        {"kind": "image", "index": n, "url": picture(str(n)), "expires_at": "2026-10-21T14:14:20.000Z"}
        for n in (0, 1)
    ]
    [kept] = await klingel.callbacks(task["id"])
    assert json.loads(kept["body"]) == body
    assert (kept["verdict"], kept["received_at"]) == ("advanced", "2026-11-22T12:00:00.000Z")


async def test_the_oldest_body_without_any_info_is_enough(klingel: Klingel) -> None:
    """Kling, "Callback Protocol": CometAPI's published example has no `task_info` and no deductions."""
    task = await klingel.submit("kling.multi-image-to-video")
    body = {
        "task_id": task["provider_task_id"],
        "task_status": "succeed",
        "task_status_msg": "",
        "created_at": 1790000000000,
        "updated_at": 1790000060000,
        "task_result": {"videos": [{"id": "v1", "url": "https://example.com/v.mp4", "duration": "5.041"}]},
    }
    assert (await klingel.call_back(body)).status_code == 200
    [output] = (await klingel.task(task["id"]))["outputs"]
    assert (output["kind"], output["id"], output["duration_s"]) == ("video", "v1", 5.041)


async def test_a_failure_carries_its_reason(klingel: Klingel) -> None:
    """Kling, "Callback Protocol": free text, and no code."""
    task = await klingel.submit()
    await klingel.call_back(callback(task, "failed", task_status_msg="blocked by content review"))
    task = await klingel.task(task["id"])
    assert task["status"] == "failed"
    assert task["error"] == {"code": "provider_failed", "message": "blocked by content review"}
    assert task["outputs"] == []


async def test_the_new_standards_body_is_read_too(klingel: Klingel) -> None:
    """Kling, "Callback protocol", new standard: `id`, `status: succeeded`, `external_id`, `outputs[]`."""
    task = await klingel.submit("kling.multi-image-to-video", external_task_id="job-44")
    body = {
        "id": task["provider_task_id"],
        "status": "succeeded",
        "message": "",
        "create_time": "1790000000000",
        "update_time": 1790000060000,
        "external_id": "job-44",
        "outputs": [{"type": "video", "id": "v1", "url": "https://example.com/v.mp4", "duration": "5.0"}],
        "billing": [{"charge_type": "unit", "amount": "4", "package_type": "video"}],
    }
    assert (await klingel.call_back(body)).status_code == 200
    task = await klingel.task(task["id"])
    assert (task["status"], task["outputs"][0]["duration_s"]) == ("succeeded", 5.0)


async def test_a_body_in_the_envelope_of_a_query_is_read_too(klingel: Klingel) -> None:
    """One third-party doc and one public receiver have it so."""
    task = await klingel.submit()
    body = {"code": 0, "message": "SUCCEED", "request_id": "r", "data": succeed(task)}
    assert (await klingel.call_back(body)).status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "succeeded"


async def test_a_body_in_a_gateways_wrapper_is_read_too(klingel: Klingel) -> None:
    """Kling, query answers, CometAPI nested variant: `data.status` beside the Kling object one level deeper."""
    task = await klingel.submit()
    wrapped = {"action": "generations", "status": "SUCCESS", "progress": "100%", "data": succeed(task)}
    assert (await klingel.call_back({"code": "success", "data": wrapped})).status_code == 200
    task = await klingel.task(task["id"])
    assert (task["status"], len(task["outputs"])) == ("succeeded", 1)


async def test_an_external_id_at_the_top_counts_as_well(klingel: Klingel) -> None:
    """Kling, "Callback Protocol": one production gateway reads it there."""
    task = await klingel.submit()
    body = callback(task, "processing", external_task_id=task["external_task_id"])
    del body["task_info"]
    assert (await klingel.call_back(body)).status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "processing"


async def test_a_gateways_own_id_in_the_create_does_not_contradict_klings_in_the_callback(
    klingel: Klingel,
) -> None:
    """Public gateways: gateways re-mint ids; the external id tells whose callback it is."""
    task = await klingel.submit()
    assert (
        await klingel.call_back(succeed(task | {"provider_task_id": "900000000000000009"}))
    ).status_code == 200
    after = await klingel.task(task["id"])
    assert (after["status"], after["provider_task_id"]) == ("succeeded", task["provider_task_id"])


# What changes nothing

WHOLE_STORY = ["submitted", "processing", "succeed"]


@pytest.mark.parametrize(
    ("before", "word", "verdict"),
    [
        ([], "submitted", "duplicate"),
        (["processing"], "processing", "duplicate"),
        (["succeed"], "succeed", "duplicate"),
        (["failed"], "failed", "duplicate"),
        (["processing"], "submitted", "stale"),
        (["succeed"], "submitted", "stale"),
        (["succeed"], "processing", "stale"),
        (["failed"], "processing", "stale"),
        (["succeed"], "failed", "conflicting"),
        (["failed"], "succeed", "conflicting"),
    ],
)
async def test_a_repeated_late_or_contradicting_callback_is_kept_and_changes_nothing(
    klingel: Klingel, before: list[str], word: str, verdict: str
) -> None:
    """Promise 4; the provider says nothing of order and repetition (Kling, "Callback Protocol")."""
    task = await klingel.submit()

    def told(word: str) -> dict[str, Any]:
        return succeed(task) if word == "succeed" else callback(task, word)

    for earlier in before:
        assert (await klingel.call_back(told(earlier))).status_code == 200
    row, events = klingel.row(task["id"]), await klingel.events(task["id"])
    klingel.clock.advance(seconds=10)
    response = await klingel.call_back(told(word))
    assert (response.status_code, response.text) == (200, "ok\n")
    assert klingel.row(task["id"]) == row
    assert await klingel.events(task["id"]) == events
    assert (await klingel.verdicts(task["id"]))[-1] == verdict
    shown = (await klingel.task(task["id"]))["transitions"]
    assert len(shown) == 1 + len(before)


async def test_a_success_without_outputs_is_completed_by_a_later_one_with_them(klingel: Klingel) -> None:
    """Once: then a repetition is one, and what never had outputs may be told so as often as it pleases."""
    task = await klingel.submit()
    for verdict in ("advanced", "duplicate"):
        assert (await klingel.call_back(callback(task, "succeed"))).status_code == 200
        assert (await klingel.verdicts(task["id"]))[-1] == verdict
    assert (await klingel.task(task["id"]))["outputs"] == []
    for verdict in ("advanced", "duplicate"):
        assert (await klingel.call_back(succeed(task))).status_code == 200
        assert (await klingel.verdicts(task["id"]))[-1] == verdict
    after = await klingel.task(task["id"])
    assert [output["url"] for output in after["outputs"]] == [picture("out")]
    assert [transition["to"] for transition in after["transitions"]] == ["submitted", "succeeded"]
    types = [event["type"] for event in await klingel.events(task["id"])]
    assert types == ["task.submitted", "task.succeeded", "task.outputs_added"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"task_info": {"external_task_id": "another"}}, id="external id"),
        pytest.param({"task_info": {}, "task_id": "another"}, id="provider id"),
        pytest.param({"external_task_id": "another", "task_info": {}}, id="external id at the top"),
    ],
)
async def test_a_callback_whose_ids_are_another_tasks_is_kept_and_changes_nothing(
    klingel: Klingel, change: dict[str, Any]
) -> None:
    """Matched by its URL, but the ids in its body must not contradict the task."""
    task = await klingel.submit()
    row = klingel.row(task["id"])
    assert (await klingel.call_back(succeed(task) | change)).status_code == 200
    assert klingel.row(task["id"]) == row
    [kept] = await klingel.callbacks(task["id"])
    assert kept["verdict"] == "mismatched"
    assert kept["reason"]
    assert await klingel.event_types(task["id"]) == ["task.submitted"]


UNREADABLE = [
    (b"", "not JSON"),
    (b"task_status=succeed", "not JSON"),
    (b"\xff\xfe\x00", "not UTF-8"),
    (b"[]", "not a JSON object"),
    (b"{}", "no task status"),
    (b'{"task_status": "canceled"}', "none that we know"),
    (b'{"task_status": NaN}', "NaN is not JSON"),
    (b'{"task_status": "succeed", "task_status": "failed"}', "occurs twice"),
    (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper"),
]


async def test_an_unreadable_callback_is_kept_and_changes_nothing(klingel: Klingel) -> None:
    """Every callback is evidence, byte for byte; the provider hears that this was none."""
    task = await klingel.submit()
    row = klingel.row(task["id"])
    for body, reason in UNREADABLE:
        response = await post(klingel, klingel.callback_path(), body)
        assert response.status_code == 400, body
        assert reason in response.text
        assert klingel.row(task["id"]) == row
        kept = klingel.rows("select verdict, reason, body from callbacks order by id")[-1]
        assert (kept["verdict"], kept["body"]) == ("unreadable", body)
        assert reason in kept["reason"]
    assert (await klingel.call_back(succeed(task))).status_code == 200


# Who gets in


async def test_whatever_is_not_ours_is_answered_alike_and_leaves_no_trace(klingel: Klingel) -> None:
    """Promise 6: an unguessable URL bound to one task; the answer does not tell what was wrong with it."""
    mine = await klingel.submit()
    theirs = await klingel.submit()
    genuine = klingel.callback_path(0)
    stem, _, token = genuine.rpartition("/")
    other_token = klingel.callback_path(1).rpartition("/")[2]
    wrong = "A" if token[0] != "A" else "B"
    forgeries = [
        f"{stem}/{wrong}{token[1:]}",
        f"{stem}/{token[:-1]}",
        f"{stem}/{token}=",
        f"{stem}/{token.lower()}",
        f"{stem}/{other_token}",
        f"{stem}/x",
        f"{stem}/%C3%BC",
        f"/callbacks/cometapi/{theirs['id']}/{token}",
        f"/callbacks/cometapi/task_{'0' * 32}/{token}",
        f"/callbacks/kling/{mine['id']}/{token}",
        f"/callbacks/nobody/{mine['id']}/{token}",
        f"/callbacks/sandbox/{mine['id']}/{token}/",
    ]
    answers = [await post(klingel, path, succeed(mine)) for path in forgeries]
    seen = {
        (answer.status_code, answer.content, tuple(sorted({**answer.headers, "x-request-id": ""}.items())))
        for answer in answers
    }
    assert len(seen) == 1
    assert answers[0].status_code == 404
    assert klingel.rows("select * from callbacks") == []
    assert (await klingel.task(mine["id"]))["status"] == "submitted"
    assert (await post(klingel, genuine, succeed(mine))).status_code == 200


async def test_the_token_of_a_task_that_is_no_more_opens_nothing(tmp_path: Path) -> None:
    """Its URL is genuine, for it needs no storing; but there is nothing behind it."""
    async with running_klingel(tmp_path / "first") as klingel:
        task = await klingel.submit()
        path = klingel.callback_path()
    async with running_klingel(tmp_path / "second") as klingel:
        answer = await post(klingel, path, succeed(task))
        assert (answer.status_code, answer.text) == (404, "Not found\n")
        assert klingel.rows("select * from callbacks") == []


async def test_a_callback_url_survives_the_rotation_of_the_secret(tmp_path: Path) -> None:
    """`KLINGEL_SECRET` lists several while rotating; tasks on their way keep their URLs."""
    clock, kling = ManualClock(), FakeKling()
    old, new = "the-old-secret-0123456789", "the-new-secret-0123456789"
    async with running_klingel(tmp_path, clock=clock, kling=kling, secret=old) as klingel:
        task = await klingel.submit()
    async with running_klingel(tmp_path, clock=clock, kling=kling, secret=new) as klingel:
        assert (await klingel.call_back(succeed(task))).status_code == 404
    async with running_klingel(tmp_path, clock=clock, kling=kling, secret=f"{new},{old}") as klingel:
        assert (await klingel.call_back(succeed(task))).status_code == 200


async def test_over_1_mib_is_413_announced_or_not(klingel: Klingel) -> None:
    """A callback of Kling's has some hundred bytes."""
    task = await klingel.submit()
    mebibyte = b" " * 1024 * 1024
    body = json.dumps(succeed(task)).encode()
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield mebibyte

    async with klingel.client(None) as provider:
        announced = await provider.post(klingel.callback_path(), content=mebibyte + body)
        streamed = await provider.post(klingel.callback_path(), content=endless())
    assert (announced.status_code, streamed.status_code, read) == (413, 413, 2)
    assert klingel.rows("select * from callbacks") == []
    fits = body.rjust(1024 * 1024)
    assert (await post(klingel, klingel.callback_path(), fits)).status_code == 200


async def test_a_trailing_slash_does_no_harm(klingel: Klingel) -> None:
    """Never a redirect, for a provider may not follow one, or not with its body."""
    task = await klingel.submit()
    response = await post(klingel, klingel.callback_path() + "/", succeed(task))
    assert response.status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "succeeded"


async def test_only_a_post_is_a_callback(klingel: Klingel) -> None:
    """Somebody who looks at the URL in a browser changes nothing."""
    await klingel.submit()
    async with klingel.client(None) as browser:
        response = await browser.get(klingel.callback_path())
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


# Signatures


def signed(klingel: Klingel, body: bytes, *, secret: str = SECRET, off_s: int = 0) -> dict[str, str]:
    """Kling's headers (Kling, "Callback protocol"), at Klingel's own time."""
    sent_at = klingel.clock().timestamp() + off_s
    moment = klingel.clock().fromtimestamp(sent_at, tz=klingel.clock().tzinfo)
    return {
        "Webhook-Id": "9876543210",
        "Webhook-Timestamp": str(int(sent_at)),
        "Webhook-Signature": "v1,bm9uZQ== " + Webhook(secret).sign("9876543210", moment, body.decode()),
    }


async def test_with_a_provider_secret_only_signed_callbacks_count(tmp_path: Path) -> None:
    """Kling, "Callback protocol": `whsec_` HMAC over id, time and body; five minutes; one of several signatures is enough."""
    async with running_klingel(tmp_path, provider_webhook_secret=SECRET) as klingel:
        task = await klingel.submit()
        path, body = klingel.callback_path(), json.dumps(callback(task, "processing")).encode()
        row = klingel.row(task["id"])
        forged: list[dict[str, str]] = [
            {},
            signed(klingel, b"{}"),
            signed(klingel, body, secret=OLD_SECRET),
            signed(klingel, body, off_s=-301),
            signed(klingel, body, off_s=301),
            signed(klingel, body) | {"Webhook-Timestamp": "soon"},
            signed(klingel, body) | {"Webhook-Id": "1"},
        ]
        answers = [await post(klingel, path, body, headers=headers) for headers in forged]
        assert {(answer.status_code, answer.text) for answer in answers} == {(404, "Not found\n")}
        assert klingel.row(task["id"]) == row
        assert await klingel.verdicts(task["id"]) == ["forged"] * len(forged)
        for off_s in (0, -299, 299):
            good = await post(klingel, path, body, headers=signed(klingel, body, off_s=off_s))
            assert good.status_code == 200
        assert (await klingel.task(task["id"]))["status"] == "processing"


async def test_during_a_rotation_both_provider_secrets_verify(tmp_path: Path) -> None:
    """Kling, "Callback protocol": Kling signs with the old secret for 7 days more."""
    async with running_klingel(tmp_path, provider_webhook_secret=f"{SECRET},{OLD_SECRET}") as klingel:
        task = await klingel.submit()
        for word, secret in (("processing", OLD_SECRET), ("succeed", SECRET)):
            body = json.dumps(callback(task, word)).encode()
            headers = signed(klingel, body, secret=secret)
            assert (await post(klingel, klingel.callback_path(), body, headers=headers)).status_code == 200
        assert await klingel.verdicts(task["id"]) == ["advanced", "advanced"]


# A change of providers


async def test_a_callback_of_the_provider_before_the_present_one_still_counts(tmp_path: Path) -> None:
    """Its tasks are paid for; nobody would ask for their results again."""
    async with running_klingel(tmp_path, provider="kling") as klingel:
        task = await klingel.submit()
        path = klingel.callback_path()
    async with running_klingel(tmp_path, provider="cometapi") as klingel:
        assert (await post(klingel, path, succeed(task))).status_code == 200
        assert (await klingel.task(task["id"]))["status"] == "succeeded"
        # The URL names the provider, and its token is good for that one alone.
        for other in ("cometapi", "sandbox", "elsewhere"):
            forged = path.replace("/kling/", f"/{other}/")
            assert (await post(klingel, forged, succeed(task))).status_code == 404


async def test_a_provider_secret_counts_for_the_provider_before_the_present_one_as_well(
    tmp_path: Path,
) -> None:
    """An older name is no way around the signature."""
    async with running_klingel(tmp_path, provider="kling") as klingel:
        task = await klingel.submit()
        path = klingel.callback_path()
    async with running_klingel(tmp_path, provider="cometapi", provider_webhook_secret=SECRET) as klingel:
        body = json.dumps(succeed(task)).encode()
        assert (await post(klingel, path, body)).status_code == 404
        assert await klingel.verdicts(task["id"]) == ["forged"]
        assert (await post(klingel, path, body, headers=signed(klingel, body))).status_code == 200


async def test_what_was_paid_for_at_a_gateway_comes_in_unsigned_after_a_change_to_kling_and_its_secret(
    tmp_path: Path,
) -> None:
    async with running_klingel(tmp_path, provider="cometapi") as klingel:
        task = await klingel.submit()
        path = klingel.callback_path()
    async with running_klingel(tmp_path, provider="kling", provider_webhook_secret=SECRET) as klingel:
        assert (await post(klingel, path, json.dumps(succeed(task)).encode())).status_code == 200
        assert (await klingel.task(task["id"]))["status"] == "succeeded"


# Many at once


async def test_many_callbacks_for_one_task_at_once_make_one_event_for_each_transition(
    klingel: Klingel,
) -> None:
    """Promise 4, under one commit: they share batches, repeat and overtake each other."""
    await klingel.endpoint()
    task = await klingel.submit()
    bodies = [succeed(task) if word == "succeed" else callback(task, word) for word in WHOLE_STORY] * 20
    answers = await asyncio.gather(*(klingel.call_back(body) for body in bodies[::-1] + bodies))
    assert {answer.status_code for answer in answers} == {200}
    verdicts = await all_verdicts(klingel, task["id"])
    assert len(verdicts) == 120
    events = await klingel.events(task["id"])
    assert events[-1]["type"] == "task.succeeded"
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert verdicts.count("advanced") == len(events) - 1
    transitions = (await klingel.task(task["id"]))["transitions"]
    assert [event["data"]["transition"] for event in events] == transitions
    received = await klingel.receiver.until(len(events))
    assert [one.event["id"] for one in received] == [event["id"] for event in events]


async def all_verdicts(klingel: Klingel, task_id: str) -> list[str]:
    rows = klingel.rows("select verdict from callbacks where task_id = ? order by id", task_id)
    return [row["verdict"] for row in rows]


async def test_many_tasks_at_once_each_get_their_own_story(klingel: Klingel) -> None:
    """Promise 4: batches mix tasks; each has its sequence without gaps, and one delivery for each event."""
    await klingel.endpoint()
    tasks = await asyncio.gather(*(klingel.submit() for _ in range(40)))
    number_of = {create["external_task_id"]: n for n, create in enumerate(klingel.kling.creates)}
    calls = [
        klingel.call_back(callback(task, word), number=number_of[task["id"]])
        for word in ("processing", "processing", "failed", "failed")
        for task in tasks
    ]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    for task in tasks:
        events = await klingel.events(task["id"])
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["type"] == "task.failed"
        types = [event["type"] for event in events]
        assert len(set(types)) == len(types)
    positions = [row["position"] for row in klingel.rows("select position from events order by position")]
    assert positions == list(range(1, len(positions) + 1))
    received = await klingel.receiver.until(len(positions))
    assert len({one.event["id"] for one in received}) == len(received) == len(positions)


async def test_a_bad_callback_harms_none_of_its_neighbours(klingel: Klingel) -> None:
    """One bad item never fails those that share its batch."""
    tasks = await asyncio.gather(*(klingel.submit() for _ in range(6)))
    number_of = {create["external_task_id"]: n for n, create in enumerate(klingel.kling.creates)}
    bodies: list[Any] = [succeed(task) for task in tasks]
    bodies[1] = {"task_status": "canceled"}
    bodies[3] = succeed(tasks[0])
    answers = await asyncio.gather(
        *(
            klingel.call_back(body, number=number_of[task["id"]])
            for body, task in zip(bodies, tasks, strict=True)
        )
    )
    assert [answer.status_code for answer in answers] == [200, 400, 200, 200, 200, 200]
    statuses = [(await klingel.task(task["id"]))["status"] for task in tasks]
    assert statuses == [
        "succeeded",
        "submitted",
        "succeeded",
        "submitted",
        "succeeded",
        "succeeded",
    ]


# When the disk is full


@pytest.mark.sqlite_alone
async def test_a_callback_that_cannot_be_stored_is_not_acknowledged(klingel: Klingel) -> None:
    """Promise 2: 5xx, so that the provider may come again; and nothing of it is half there."""
    task = await klingel.submit()
    row = klingel.row(task["id"])
    [[pages]] = await klingel.tamper("pragma page_count")
    await klingel.tamper(f"pragma max_page_count = {pages}")
    body = succeed(task) | {"padding": "x" * 500_000}
    response = await klingel.call_back(body)
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/storage-unavailable"
    assert "retry-after" in response.headers
    assert klingel.row(task["id"]) == row
    assert klingel.rows("select * from callbacks") == []
    assert await klingel.event_types(task["id"]) == ["task.submitted"]
    await klingel.tamper("pragma max_page_count = 1073741823")
    assert (await klingel.call_back(body)).status_code == 200
    assert (await klingel.task(task["id"]))["status"] == "succeeded"


@pytest.mark.sqlite_alone
async def test_a_full_disk_fails_all_that_shared_the_commit_and_none_is_lost(klingel: Klingel) -> None:
    """The disk's trouble is everybody's: each is told, and each succeeds when it comes again."""
    tasks = await asyncio.gather(*(klingel.submit() for _ in range(5)))
    number_of = {create["external_task_id"]: n for n, create in enumerate(klingel.kling.creates)}
    [[pages]] = await klingel.tamper("pragma page_count")
    await klingel.tamper(f"pragma max_page_count = {pages}")

    async def call_back() -> list[int]:
        bodies = [(succeed(task) | {"padding": "x" * 100_000}, number_of[task["id"]]) for task in tasks]
        answers = await asyncio.gather(*(klingel.call_back(body, number=number) for body, number in bodies))
        return [answer.status_code for answer in answers]

    assert await call_back() == [503] * 5
    assert klingel.rows("select * from callbacks") == []
    await klingel.tamper("pragma max_page_count = 1073741823")
    assert await call_back() == [200] * 5
