"""Promise 8: a paid result is kept, whole, before the provider drops it; or it is said in time that it was not."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from handlers.sinks import archive
from service.attempt_limits import DOWNLOADS, DOWNLOADS_OF_AN_ACCOUNT
from service.domain.kept import FILE_NAME
from service.domain.media_types import PNG
from service.domain.times import rfc3339
from service.keeping import Content
from service.stopping import DRAIN
from tests.contract.s3 import FakeS3
from tests.integration.cdn import Cdn, chunked, running_cdn, sends
from tests.integration.klingel import (
    START,
    Klingel,
    ManualClock,
    RunningClock,
    callback,
    png,
    running_klingel,
)

STORED = {"types": ["output.*"]}
PICTURE = png(90, side=400)


@pytest.fixture
async def cdn() -> AsyncIterator[Cdn]:
    async with running_cdn() as cdn:
        yield cdn


@asynccontextmanager
async def keeping(folder: Path, **settings: Any) -> AsyncIterator[Klingel]:
    async with running_klingel(folder, **{"store_url": None, **settings}) as klingel:
        yield klingel


@pytest.fixture
async def klingel(tmp_path: Path) -> AsyncIterator[Klingel]:
    async with keeping(tmp_path) as klingel:
        yield klingel


def film() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_image(Image.new("RGB", (320, 240), "teal"))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


async def made(klingel: Klingel, *urls: str, kind: str = "images", **submit: Any) -> dict[str, Any]:
    """A task that has succeeded with what lies there."""
    task = await klingel.submit(**submit)
    outputs = [
        {"index": number, "id": str(number), "url": url, "duration": "5"} for number, url in enumerate(urls)
    ]
    now = round(klingel.clock().timestamp() * 1000)
    response = await klingel.call_back(callback(task, "succeed", task_result={kind: outputs}, updated_at=now))
    assert response.status_code == 200
    return task


async def kept(klingel: Klingel, task: Mapping[str, Any], number: int = 1) -> list[dict[str, Any]]:
    """The task's outputs, once so many of them are kept."""

    async def reached() -> list[dict[str, Any]] | None:
        outputs: list[dict[str, Any]] = (await klingel.task(task["id"]))["outputs"]
        return outputs if sum("stored_url" in output for output in outputs) >= number else None

    outputs: list[dict[str, Any]] = await klingel.until(reached)
    return outputs


async def archived(klingel: Klingel, *statuses: str) -> list[dict[str, Any]]:
    return await klingel.until_deliveries(*statuses, kind="archive")


async def attempted(klingel: Klingel, number: int = 1) -> Sequence[dict[str, Any]]:
    """The attempts of the one delivery to the archive, once there are so many."""
    [delivery] = await klingel.deliveries(kind="archive")
    return await klingel.until_attempts(delivery["id"], number)


def in_store(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (folder / "files").rglob("*") if path.is_file())


async def opened(klingel: Klingel, url: str, **headers: str) -> httpx.Response:
    """As whoever has the link, and no key."""
    async with klingel.client(None) as client:
        return await client.get(
            httpx.URL(url).raw_path.decode(), headers={n.replace("_", "-"): v for n, v in headers.items()}
        )


# What is kept


async def test_a_picture_is_kept_byte_for_byte_and_told(klingel: Klingel, cdn: Cdn) -> None:
    await klingel.endpoint(**STORED)
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE, content_type="text/html")))
    [output] = await kept(klingel, task)
    assert output["url"] == f"{cdn.origin}/out.png"
    answer = await opened(klingel, output["stored_url"])
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["content-type"] == "image/png"
    thumbnail = await opened(klingel, output["thumbnail_url"])
    assert Image.open(io.BytesIO(thumbnail.content)).size == (400, 400)

    [received] = await klingel.receiver.until(1)
    event = received.event
    assert (event["type"], event["sequence"]) == ("output.stored", 3)
    assert event["data"]["output"] == event["data"]["task"]["outputs"][0] == output
    name = httpx.URL(output["stored_url"]).path.rpartition("/")[2]
    assert FILE_NAME.fullmatch(name)
    assert event["data"]["file"] == {
        "name": name,
        "size": len(PICTURE),
        "sha256": hashlib.sha256(PICTURE).hexdigest(),
        "content_type": "image/png",
    }
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.succeeded", "output.stored"]


async def test_a_film_is_kept_with_a_poster(klingel: Klingel, cdn: Cdn) -> None:
    content = film()
    task = await made(
        klingel, cdn.at("/out.mp4", sends(content)), kind="videos", type="kling.multi-image-to-video"
    )
    [output] = await kept(klingel, task)
    assert (await opened(klingel, output["stored_url"])).content == content
    poster = await opened(klingel, output["poster_url"])
    assert poster.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(poster.content)).size == (320, 240)


async def test_a_large_file_in_chunks_is_kept(klingel: Klingel, cdn: Cdn) -> None:
    content = film() + bytes(11 * 1024 * 1024)
    task = await made(klingel, cdn.at("/out.mp4", chunked(content[:5_000_000], content[5_000_000:])))
    [output] = await kept(klingel, task)
    assert (await opened(klingel, output["stored_url"])).content == content


async def test_a_picture_that_cannot_be_decoded_is_kept_without_a_thumbnail(
    klingel: Klingel, cdn: Cdn
) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE[:60])))
    [output] = await kept(klingel, task)
    assert "thumbnail_url" not in output
    assert (await opened(klingel, output["stored_url"])).content == PICTURE[:60]


@pytest.mark.parametrize("content", [b"<svg onload='alert(1)'/>", b"\0\1\2\3" * 100])
async def test_what_is_of_no_known_type_is_kept_and_only_ever_saved(
    klingel: Klingel, cdn: Cdn, content: bytes
) -> None:
    task = await made(klingel, cdn.at("/out.svg", sends(content, content_type="image/svg+xml")))
    [output] = await kept(klingel, task)
    answer = await opened(klingel, output["stored_url"])
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_nothing_waits_until_it_is_kept(klingel: Klingel, cdn: Cdn) -> None:
    await klingel.endpoint()
    answer = sends(PICTURE)
    answer.gate = asyncio.Event()
    task = await made(klingel, cdn.at("/out.png", answer))
    await cdn.until(lambda paths: len(paths) == 1)
    received = await klingel.receiver.until(2)
    assert received[-1].event["type"] == "task.succeeded"
    assert "stored_url" not in (await klingel.task(task["id"]))["outputs"][0]
    answer.gate.set()
    await kept(klingel, task)


async def test_who_has_much_to_fetch_waits_for_itself_first(klingel: Klingel, cdn: Cdn) -> None:
    """Promise 7 holds for the provider's side too: a slow download costs other accounts nothing."""
    slow = sends(PICTURE)
    slow.gate = asyncio.Event()
    tasks = [await made(klingel, cdn.at(f"/slow/{number}.png", slow)) for number in range(6)]
    await cdn.until(lambda paths: len(paths) == DOWNLOADS_OF_AN_ACCOUNT)
    async with klingel.another_account() as other:
        klingel.http, own = other, klingel.http
        await kept(klingel, await made(klingel, cdn.at("/quick.png", sends(PICTURE))))
        klingel.http = own
    assert len(cdn.requests) == DOWNLOADS_OF_AN_ACCOUNT + 1
    slow.gate.set()
    for task in tasks:
        await kept(klingel, task)


async def test_a_slow_cdn_stops_no_webhooks_however_many_accounts_wait_for_it(
    klingel: Klingel, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.delivery.ATTEMPTS_AT_A_TIME", DOWNLOADS + 1)
    slow = sends(PICTURE)
    slow.gate = asyncio.Event()
    url = cdn.at("/slow.png", slow)
    await klingel.endpoint()
    own = klingel.http
    async with AsyncExitStack() as stack:
        for number in range(DOWNLOADS // DOWNLOADS_OF_AN_ACCOUNT + 1):
            klingel.http = await stack.enter_async_context(klingel.another_account(f"other-{number}"))
            for _ in range(DOWNLOADS_OF_AN_ACCOUNT):
                await made(klingel, url)
            klingel.http = own
        await cdn.until(lambda paths: len(paths) == DOWNLOADS)
        await klingel.submit()
        await klingel.receiver.until(1)
    assert len(cdn.requests) == DOWNLOADS
    slow.gate.set()


async def test_outputs_that_come_late_are_kept_too(klingel: Klingel, cdn: Cdn) -> None:
    task = await klingel.submit()
    await klingel.call_back(callback(task, "succeed"))
    await archived(klingel, "delivered")
    url = cdn.at("/out.png", sends(PICTURE))
    await klingel.call_back(callback(task, "succeed", task_result={"images": [{"index": 0, "url": url}]}))
    await kept(klingel, task)
    assert [one["reason"] for one in await archived(klingel, "delivered", "delivered")] == [
        "nothing to keep",
        "kept",
    ]


async def test_what_was_on_its_way_when_klingel_died_is_kept_after_its_start(
    tmp_path: Path, cdn: Cdn
) -> None:
    answer = sends(PICTURE)
    answer.gate = asyncio.Event()
    async with keeping(tmp_path / "first") as klingel:
        task = await made(klingel, cdn.at("/out.png", answer))
        await cdn.until(lambda paths: len(paths) == 1)
        left = await klingel.snapshot(tmp_path / "second")
        answer.gate.set()
        await kept(klingel, task)
    async with keeping(left) as klingel:
        [output] = await kept(klingel, task)
        assert (await opened(klingel, output["stored_url"])).content == PICTURE


async def test_a_download_holds_up_no_stop_and_is_begun_anew_after_the_start(
    tmp_path: Path, cdn: Cdn
) -> None:
    endless = sends(PICTURE, content_length=str(len(PICTURE) * 2))
    endless.hangs = True
    url = cdn.at("/out.png", endless, sends(PICTURE))
    async with keeping(tmp_path) as klingel:
        task = await made(klingel, url)
        await cdn.until(lambda paths: len(paths) == 1)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < DRAIN.total_seconds()
    async with keeping(tmp_path) as klingel:
        await kept(klingel, task)
        [delivery] = await archived(klingel, "delivered")
        assert delivery["attempts"] == 1


async def test_a_replay_of_what_is_kept_keeps_nothing_twice(
    klingel: Klingel, cdn: Cdn, tmp_path: Path
) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
    await kept(klingel, task)
    [delivery] = await archived(klingel, "delivered")
    before = in_store(tmp_path)
    response = await klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay")
    assert response.status_code == 202
    await archived(klingel, "delivered", "delivered")
    assert len(cdn.requests) == 1
    assert in_store(tmp_path) == before


async def test_of_two_that_fetched_the_same_output_one_keeps_it(
    klingel: Klingel, cdn: Cdn, tmp_path: Path
) -> None:
    """As when a lease ends while a slow download goes on elsewhere."""
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
    seen = await klingel.state["keeper"].task(task["id"])
    await kept(klingel, task)
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    late = Content(file=io.BytesIO(PICTURE), type=PNG, size=len(PICTURE), sha256=sha256)
    assert await klingel.state["keeper"].keep(seen, 0, late) is None
    assert await klingel.event_types(task["id"]) == ["task.submitted", "task.succeeded", "output.stored"]
    assert in_store(tmp_path).count(PICTURE) == 1
    assert len(klingel.rows("select * from kept_files")) == 2


async def test_the_same_picture_of_two_accounts_is_two_files(klingel: Klingel, cdn: Cdn) -> None:
    """Nobody finds out by a name, or by how fast it goes, what others have made."""
    url = cdn.at("/out.png", sends(PICTURE))
    first = await kept(klingel, await made(klingel, url))
    async with klingel.another_account() as other:
        klingel.http, own = other, klingel.http
        second = await kept(klingel, await made(klingel, url))
        klingel.http = own
    assert len(cdn.requests) == 2
    assert first[0]["stored_url"].partition("?")[0] != second[0]["stored_url"].partition("?")[0]


async def test_into_a_bucket(tmp_path: Path, cdn: Cdn, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeS3("kept").running() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        async with keeping(tmp_path, store_url="s3://kept/klingel") as klingel:
            content = film() + bytes(9 * 1024 * 1024)
            task = await made(klingel, cdn.at("/out.mp4", sends(content)))
            [output] = await kept(klingel, task)
            answer = await opened(klingel, output["stored_url"], range="bytes=100-8999999")
            assert (answer.status_code, answer.content) == (206, content[100:9_000_000])
            assert content in s3.objects.values()
            assert not (tmp_path / "files").exists()
            s3.fails_with = 500
            assert (await opened(klingel, output["stored_url"])).status_code == 503


# What is not, and why


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sends(b"", "500 Internal Server Error"), "answered"),
        (sends(b"", "403 Forbidden"), "answered"),
        (sends(b"", "302 Found", location="/other.png"), "it redirects"),
        (sends(PICTURE, content_length=str(len(PICTURE) + 1)), "the connection broke"),
        (chunked(PICTURE, ends=False), "the connection broke"),
        (sends(PICTURE, content_length=""), "it does not say how long it is"),
        (sends(PICTURE, content_encoding="gzip"), "it came packed"),
        (sends(b""), "an empty file"),
        (sends(b"<!doctype html><title>Sign in</title>"), "a page came instead of a image"),
        (sends(b'{"code": 1, "message": "expired"}'), "a page came"),
        (sends(b"x", "600 What"), "answered"),
    ],
)  # fmt: skip
async def test_what_is_no_whole_file_is_never_stored_and_tried_again(
    klingel: Klingel, cdn: Cdn, tmp_path: Path, answer: Any, reason: str
) -> None:
    task = await made(klingel, cdn.at("/out.png", answer, sends(PICTURE)))
    [attempt] = await attempted(klingel)
    assert attempt["outcome"] == "retry"
    assert attempt["reason"].startswith(reason)
    assert in_store(tmp_path) == []
    assert "stored_url" not in (await klingel.task(task["id"]))["outputs"][0]
    klingel.clock.advance(seconds=7)
    await kept(klingel, task)


async def test_who_says_nothing_for_long_is_left(
    klingel: Klingel, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "SILENCE", timedelta(seconds=0.2))
    answer = sends(PICTURE, content_length=str(len(PICTURE) * 2))
    answer.hangs = True
    task = await made(klingel, cdn.at("/out.png", answer, sends(PICTURE)))
    [attempt] = await attempted(klingel)
    assert attempt["outcome"] == "retry"
    monkeypatch.setattr(archive, "SILENCE", timedelta(seconds=30))
    klingel.clock.advance(seconds=7)
    await kept(klingel, task)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_who_asks_for_time_gets_it(klingel: Klingel, cdn: Cdn, status: str) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(b"", status, retry_after="600"), sends(PICTURE)))
    await attempted(klingel)
    klingel.clock.advance(seconds=590)
    [delivery] = await klingel.deliveries(kind="archive")
    assert delivery["next_attempt_at"] >= rfc3339(START + timedelta(seconds=600))
    klingel.clock.advance(seconds=60)
    await kept(klingel, task)


async def test_what_is_gone_is_a_dead_letter_at_once_and_can_be_fetched_again(
    klingel: Klingel, cdn: Cdn
) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(b"", "410 Gone"), sends(PICTURE)))
    [delivery] = await archived(klingel, "dead")
    assert delivery["reason"] == "gone at the provider"
    await klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay")
    await kept(klingel, task)


async def test_what_is_not_found_yet_gets_two_more_chances(klingel: Klingel, cdn: Cdn) -> None:
    await made(klingel, cdn.at("/out.png", sends(b"", "404 Not Found")))
    for number, seconds in ((1, 7), (2, 40)):
        await attempted(klingel, number)
        klingel.clock.advance(seconds=seconds)
    [delivery] = await archived(klingel, "dead")
    assert (delivery["attempts"], delivery["reason"]) == (3, "not found at the provider")


@pytest.mark.parametrize(
    "answer", [sends(bytes(1001)), chunked(bytes(600), bytes(600)), chunked(bytes(5_000_000))]
)
async def test_what_is_too_large_is_left_where_it_is(tmp_path: Path, cdn: Cdn, answer: Any) -> None:
    async with keeping(tmp_path, file_max_bytes=1000) as klingel:
        await made(klingel, cdn.at("/out.png", answer))
        [delivery] = await archived(klingel, "dead")
        assert delivery["reason"] == "larger than 1000 bytes (KLINGEL_FILE_MAX_BYTES)"
        assert in_store(tmp_path) == []


async def test_of_several_outputs_each_is_kept_when_it_can_be(klingel: Klingel, cdn: Cdn) -> None:
    first = cdn.at("/0.png", sends(PICTURE))
    second = cdn.at("/1.png", sends(b"", "500 Oops"), sends(PICTURE))
    third = cdn.at("/2.png", sends(b"", "410 Gone"))
    task = await made(klingel, first, second, third)
    [attempt] = await attempted(klingel)
    assert (attempt["outcome"], attempt["reason"]) == ("retry", "2 of 3 not kept: answered")
    assert hashlib.sha256(PICTURE).hexdigest() in attempt["response_excerpt"]
    klingel.clock.advance(seconds=7)
    outputs = await kept(klingel, task, 2)
    assert ["stored_url" in output for output in outputs] == [True, True, False]
    await archived(klingel, "dead")
    assert sorted(cdn.requests) == ["/0.png", "/1.png", "/1.png", "/2.png", "/2.png"]


@pytest.mark.sqlite_alone  # each attempt takes a second
async def test_outputs_that_take_all_of_an_attempt_cost_the_others_of_their_task_nothing_but_time(
    tmp_path: Path, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.ARCHIVE_DEADLINE", timedelta(seconds=1))
    endless = sends(PICTURE, content_length=str(len(PICTURE) * 2))
    endless.hangs = True
    good = sends(PICTURE)
    paths = {"/0": endless, "/1": good, "/2": endless, "/3": good}
    async with keeping(tmp_path) as klingel:
        task = await made(klingel, *(cdn.at(path, answer) for path, answer in paths.items()))
        for number in range(1, 4):
            *_, attempt = await attempted(klingel, number)
            assert attempt["reason"].startswith("no full answer within")
            klingel.clock.advance(hours=13)
        outputs = (await klingel.task(task["id"]))["outputs"]
        assert ["stored_url" in output for output in outputs] == [answer is good for answer in paths.values()]


async def test_private_addresses_are_not_dialled(tmp_path: Path, cdn: Cdn) -> None:
    async with keeping(tmp_path, allow_networks="") as klingel:
        await made(klingel, cdn.at("/out.png", sends(PICTURE)))
        [attempt] = await attempted(klingel)
        assert attempt["reason"].startswith("not dialled: 127.0.0.1 is not allowed")
        assert cdn.requests == []


async def test_the_providers_own_origin_is_dialled_wherever_it_is_and_nothing_else_there(
    tmp_path: Path, cdn: Cdn
) -> None:
    async with (
        running_cdn() as other,
        keeping(tmp_path, allow_networks="", provider_url=f"{cdn.origin}/base") as klingel,
    ):
        await kept(klingel, await made(klingel, cdn.at("/files/out.png", sends(PICTURE))))
        await made(klingel, other.at("/out.png", sends(PICTURE)))
        [_, delivery] = await klingel.deliveries(kind="archive")
        await klingel.until_attempts(delivery["id"], 1)
        assert other.requests == []


async def test_the_provider_gets_neither_key_nor_cookie_and_its_url_is_in_no_log(
    klingel: Klingel, cdn: Cdn, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL of an output is as good as the output."""
    url = cdn.at("/out.png", sends(b"", "500 Oops", set_cookie="a=b"), sends(PICTURE)) + "?token=s3cr3t"
    task = await made(klingel, url)
    [attempt] = await attempted(klingel)
    klingel.clock.advance(seconds=7)
    [output] = await kept(klingel, task)
    await opened(klingel, output["stored_url"])
    heads = b"".join(cdn.heads).lower()
    assert b"authorization" not in heads
    assert b"cookie" not in heads
    logged = "".join(capsys.readouterr())
    assert "delivery.attempted" in logged
    assert "s3cr3t" not in logged + str(attempt)
    assert output["stored_url"].partition("signature=")[2] not in logged


async def test_an_archive_that_fails_for_days_is_never_switched_off(
    klingel: Klingel, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.endpoint_health.DISABLE_AFTER_FAILURES", 2)
    monkeypatch.setattr("service.endpoint_health.DISABLE_AFTER", timedelta(0))
    broken = cdn.at("/broken.png", sends(b"", "410 Gone"))
    for number in range(3):
        await made(klingel, broken)
        await archived(klingel, *["dead"] * (number + 1))
    await kept(klingel, await made(klingel, cdn.at("/out.png", sends(PICTURE))))
    events = (await klingel.http.get("/v1/events")).json()["items"]
    assert "endpoint.disabled" not in {event["type"] for event in events}


# Who sees what


async def test_the_archive_is_nobodys_endpoint(klingel: Klingel, cdn: Cdn) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
    await kept(klingel, task)
    [delivery] = await archived(klingel, "delivered")
    assert await klingel.deliveries() == []
    assert await klingel.deliveries(task_id=task["id"]) == []
    assert await klingel.deliveries(endpoint_id=delivery["endpoint_id"]) == [delivery]
    assert (await klingel.http.get("/v1/endpoints")).json()["items"] == []
    where = f"/v1/endpoints/{delivery['endpoint_id']}"
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate-secret"),
    ):
        response = await klingel.http.request(method, where + path, json={"enabled": False})
        assert response.status_code == 404, (method, path)
    refused = await klingel.http.post("/v1/endpoints", json={"kind": "archive", "config": {}})
    assert refused.status_code == 422
    async with klingel.another_account() as other:
        response = await other.get("/v1/deliveries", params={"kind": "archive"})
        assert response.json()["items"] == []


async def test_with_none_nothing_is_kept_and_nothing_is_tried(tmp_path: Path, cdn: Cdn) -> None:
    async with keeping(tmp_path, store_url="none:") as klingel:
        await klingel.endpoint()
        await made(klingel, cdn.at("/out.png", sends(PICTURE)))
        await klingel.until_deliveries("delivered", "delivered")
        assert klingel.rows("select * from deliveries where event_type = 'task.succeeded'") == klingel.rows(
            "select * from deliveries where event_type = 'task.succeeded' and endpoint_id in "
            "(select id from endpoints where kind = 'webhook')"
        )
        assert cdn.requests == []
        assert not (tmp_path / "files").exists()


# What is about to be lost


async def test_three_days_before_its_end_it_is_said_once_what_could_not_be_kept(
    tmp_path: Path, cdn: Cdn
) -> None:
    async with keeping(tmp_path, retention_days=365) as klingel:
        await klingel.endpoint(**STORED)
        task = await made(klingel, cdn.at("/0.png", sends(PICTURE)), cdn.at("/1.png", sends(b"", "410 Gone")))
        await archived(klingel, "dead")
        await klingel.receiver.until(1)
        klingel.clock.advance(days=26, hours=23)
        klingel.clock.advance(hours=1)
        received = await klingel.receiver.until(2)
        event = received[1].event
        assert event["type"] == "output.expiring"
        assert event["data"]["output"]["url"] == f"{cdn.origin}/1.png"
        assert event["data"]["output"]["expires_at"] == rfc3339(START + timedelta(days=30))
        assert "file" not in event["data"]
        klingel.clock.advance(days=10)
        assert await klingel.event_types(task["id"]) == [
            "task.submitted", "task.succeeded", "output.stored", "output.expiring",
        ]  # fmt: skip
        assert klingel.rows("select * from expiring_outputs") == []


async def test_of_several_outputs_that_are_about_to_be_lost_each_is_told_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of more than are told in one commit."""
    monkeypatch.setattr("service.expiry.PAGE", 2)
    async with keeping(tmp_path, store_url="none:", retention_days=365) as klingel:
        task = await made(klingel, *(f"https://cdn.example.com/{number}.png" for number in range(3)))
        klingel.clock.advance(days=28)

        async def told() -> list[dict[str, Any]] | None:
            events = (await klingel.events(task["id"]))[2:]
            return events if len(events) >= 3 else None

        events = await klingel.until(told)
        assert [(event["sequence"], event["data"]["output"]["index"]) for event in events] == [
            (3, 0),
            (4, 1),
            (5, 2),
        ]
        assert klingel.row(task["id"])["sequence"] == 5


async def test_who_looks_too_early_for_what_is_about_to_be_lost_comes_back_at_the_moment(
    tmp_path: Path,
) -> None:
    """As whenever something else has woken it: nothing wakes it again but the moment itself."""
    clock = RunningClock()
    async with keeping(tmp_path, store_url="none:", clock=clock) as klingel:
        task = await made(klingel, "https://cdn.example.com/out.png")
        clock.advance(days=27, seconds=-0.3)

        async def told() -> bool:
            return "output.expiring" in await klingel.event_types(task["id"])

        await klingel.until(told)


async def test_what_fell_due_while_klingel_was_stopped_is_said_at_its_start(tmp_path: Path) -> None:
    async with keeping(tmp_path, store_url="none:") as klingel:
        clock = klingel.clock
        task = await made(klingel, "https://cdn.example.com/out.png")
    clock.now += timedelta(days=28)
    async with keeping(tmp_path, store_url="none:", clock=clock) as klingel:

        async def told() -> bool:
            return "output.expiring" in await klingel.event_types(task["id"])

        await klingel.until(told)


# How long


async def test_a_file_goes_after_its_days_and_its_task_stays(tmp_path: Path, cdn: Cdn) -> None:
    async with keeping(tmp_path, file_retention_days=10) as klingel:
        await klingel.http.post("/v1/prune")  # after the one that every start begins
        task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
        [output] = await kept(klingel, task)
        klingel.clock.now += timedelta(days=9)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 0
        klingel.clock.now += timedelta(days=2)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 2
        assert in_store(tmp_path) == []
        assert (await opened(klingel, output["stored_url"])).status_code == 404
        [left] = (await klingel.task(task["id"]))["outputs"]
        gone = {"stored_url", "thumbnail_url"}
        assert left == {name: value for name, value in output.items() if name not in gone}
        assert klingel.rows("select * from kept_files") == []


class Ticking(ManualClock):
    """Each look at it takes as long."""

    tick = timedelta(seconds=1)

    def __call__(self) -> datetime:
        self.now += self.tick
        return self.now


async def test_an_output_and_its_preview_go_together(tmp_path: Path, cdn: Cdn) -> None:
    """Without its output a preview is of no use, and the output could not be fetched once more beside it."""
    clock = Ticking()
    async with keeping(tmp_path, file_retention_days=10, clock=clock) as klingel:
        await klingel.http.post("/v1/prune")  # after the one that every start begins
        task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
        await kept(klingel, task)
        clock.tick = timedelta(0)
        [first, *_] = klingel.rows("select created_at from kept_files order by created_at")
        clock.now = datetime.fromtimestamp(first["created_at"] / 1000, UTC) + timedelta(days=10)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 0
        clock.now += timedelta(milliseconds=1)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 2
        [left] = (await klingel.task(task["id"]))["outputs"]
        assert not {"stored_url", "thumbnail_url"} & left.keys()


async def test_files_go_with_their_task(tmp_path: Path, cdn: Cdn) -> None:
    async with keeping(tmp_path, retention_days=1, task_retention_days=5) as klingel:
        await klingel.http.post("/v1/prune")  # after the one that every start begins
        task = await made(
            klingel, cdn.at("/out.png", sends(PICTURE)), cdn.at("/gone.png", sends(b"", "410 Gone"))
        )
        await kept(klingel, task)
        await archived(klingel, "dead")
        later = await klingel.submit()  # the log never loses its newest event
        klingel.clock.now += timedelta(days=6)
        assert (await klingel.http.post("/v1/prune")).json()["tasks"] == 1
        assert in_store(tmp_path) == []
        for table in ("kept_files", "expiring_outputs"):
            assert klingel.rows(f"select * from {table}") == []
        assert (await klingel.task(later["id"]))["status"] == "submitted"


async def test_what_came_late_stays_as_long_as_anything_else(tmp_path: Path, cdn: Cdn) -> None:
    """A task is as old as its end: not one in time would be kept of those that take longer than the retention."""
    async with keeping(tmp_path, retention_days=7, task_retention_days=7) as klingel:
        await klingel.http.post("/v1/prune")  # after the one that every start begins
        task = await klingel.submit()
        klingel.clock.now += timedelta(days=8)
        outputs = [{"index": 0, "url": cdn.at("/out.png", sends(PICTURE))}]
        updated_at = round(klingel.clock().timestamp() * 1000)
        await klingel.call_back(
            callback(task, "succeed", task_result={"images": outputs}, updated_at=updated_at)
        )
        await kept(klingel, task)
        klingel.clock.now += timedelta(days=6)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 0
        assert PICTURE in in_store(tmp_path)
        klingel.clock.now += timedelta(days=2)
        assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 2
        assert in_store(tmp_path) == []


async def test_what_a_crash_left_half_stored_goes_after_a_day(
    klingel: Klingel, cdn: Cdn, tmp_path: Path
) -> None:
    task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
    await kept(klingel, task)
    whole = in_store(tmp_path)
    name = "ff" * 20 + ".png"
    await klingel.tamper(
        "insert into kept_files select 'ff"
        + "ff" * 19
        + ".png', account_id, task_id, place, role, 'arriving', "
        "content_type, size, sha256, created_at from kept_files limit 1"
    )
    (tmp_path / "files" / "ff").mkdir(exist_ok=True)
    (tmp_path / "files" / "ff" / f"{name}#1").write_bytes(b"half of it")
    assert (await klingel.http.get(f"/v1/files/{name}")).status_code == 404
    klingel.clock.now += timedelta(hours=23)
    assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 0
    klingel.clock.now += timedelta(hours=2)
    assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 1
    assert in_store(tmp_path) == whole
    await kept(klingel, task)


async def test_a_store_that_cannot_be_reached_loses_track_of_nothing(
    tmp_path: Path, cdn: Cdn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeS3("kept").running() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        async with keeping(tmp_path, store_url="s3://kept", file_retention_days=1) as klingel:
            task = await made(klingel, cdn.at("/out.png", sends(PICTURE)))
            await kept(klingel, task)
            klingel.clock.now += timedelta(days=2)
            s3.fails_with = 500
            assert (await klingel.http.post("/v1/prune")).json()["kept_files"] == 2
            assert len(klingel.rows("select * from kept_files where status = 'leaving'")) == 2
            s3.fails_with = None
            await klingel.http.post("/v1/prune")
            assert klingel.rows("select * from kept_files") == []
            assert s3.objects == {}
