"""`GET /v1/files/{name}`: who gets a kept file, and how much of it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.links import LINK_LIFE
from tests.integration.cdn import running_cdn, sends
from tests.integration.klingel import Klingel, callback, png, running_klingel

PICTURE = png(33, side=320)
SIZE = len(PICTURE)


@pytest.fixture
async def klingel(tmp_path: Path) -> AsyncIterator[Klingel]:
    async with running_klingel(tmp_path, store_url=None) as klingel:
        yield klingel


@pytest.fixture
async def link(klingel: Klingel) -> httpx.URL:
    """To a picture that is kept."""
    async with running_cdn() as cdn:
        task = await klingel.submit()
        images = [{"index": 0, "url": cdn.at("/out.png", sends(PICTURE))}]
        await klingel.call_back(callback(task, "succeed", task_result={"images": images}))

        async def kept() -> Any:
            return (await klingel.task(task["id"]))["outputs"][0].get("stored_url")

        return httpx.URL(await klingel.until(kept))


@pytest.fixture
async def anyone(klingel: Klingel) -> AsyncIterator[httpx.AsyncClient]:
    async with klingel.client(None) as client:
        yield client


def at(link: httpx.URL) -> str:
    return link.raw_path.decode()


async def test_with_a_key_of_its_account_a_file_needs_no_signature(klingel: Klingel, link: httpx.URL) -> None:
    answer = await klingel.http.get(link.path)
    assert (answer.status_code, answer.content) == (200, PICTURE)
    async with klingel.another_account() as other:
        assert (await other.get(link.path)).status_code == 404
        assert (await other.get(at(link))).status_code == 200  # whoever has the link has the file


async def test_without_key_or_signature_there_is_nothing(anyone: httpx.AsyncClient, link: httpx.URL) -> None:
    assert (await anyone.get(link.path)).status_code == 401
    assert (await anyone.get(link.path, headers={"authorization": "Bearer wrong"})).status_code == 401


async def test_a_link_opens_until_it_ends(
    klingel: Klingel, anyone: httpx.AsyncClient, link: httpx.URL
) -> None:
    klingel.clock.now += LINK_LIFE
    assert (await anyone.get(at(link))).status_code == 200
    klingel.clock.now += timedelta(days=1)
    ended = await anyone.get(at(link))
    assert (ended.status_code, ended.json()["type"]) == (403, "/problems/forbidden")


@pytest.mark.parametrize("part", ["expires", "signature"])
async def test_a_link_that_was_changed_tells_not_even_whether_there_is_a_file(
    anyone: httpx.AsyncClient, link: httpx.URL, part: str
) -> None:
    changed = link.copy_set_param(part, "1" + link.params[part])
    none = changed.copy_with(path="/v1/files/" + "0" * 40 + ".png")
    answers = [await anyone.get(at(url)) for url in (changed, none)]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].json() == answers[1].json()
    without = link.copy_remove_param(part)
    assert (await anyone.get(at(without))).status_code == (403 if part == "expires" else 401)


@pytest.mark.parametrize("name", ["0" * 40 + ".png", "x", "..%2f..%2fklingel.secret", "%00", "a" * 5000])
async def test_what_is_no_file_is_not_found(klingel: Klingel, name: str) -> None:
    assert (await klingel.http.get(f"/v1/files/{name}")).status_code == 404


async def test_an_answer_is_guarded_and_can_be_cached(anyone: httpx.AsyncClient, link: httpx.URL) -> None:
    answer = await anyone.get(at(link))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["content-disposition"] == f"inline; filename={link.path.rpartition('/')[2]}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}', "*"):
        again = await anyone.get(at(link), headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
    assert (await anyone.get(at(link), headers={"if-none-match": '"other"'})).status_code == 200


async def test_head_says_what_get_would_and_sends_nothing(anyone: httpx.AsyncClient, link: httpx.URL) -> None:
    for headers in ({}, {"range": "bytes=10-19"}):
        head = await anyone.head(at(link), headers=headers)
        get = await anyone.get(at(link), headers=headers)
        assert head.content == b""
        said = [
            {name: value for name, value in answer.headers.items() if name != "x-request-id"}
            for answer in (head, get)
        ]
        assert said[0] == said[1]
        assert head.status_code == get.status_code


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=5-", 5, SIZE),
        (f"bytes=0-{SIZE * 10}", 0, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE * 10}", 0, SIZE),
        (f"BYTES={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
async def test_one_range_is_sent_alone(
    anyone: httpx.AsyncClient, link: httpx.URL, asked: str, start: int, end: int
) -> None:
    """RFC 9110, 14.2: what a player needs to begin, and to jump."""
    answer = await anyone.get(at(link), headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, PICTURE[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused(
    anyone: httpx.AsyncClient, link: httpx.URL, asked: str
) -> None:
    answer = await anyone.get(at(link), headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=a-b", "bytes=", "bytes=-", "items=0-1", "bytes=٣-٥", ""]
)
async def test_ranges_that_are_several_or_none_are_answered_with_everything(
    anyone: httpx.AsyncClient, link: httpx.URL, asked: str
) -> None:
    answer = await anyone.get(at(link), headers={"range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, PICTURE)


async def test_a_range_of_another_version_is_not_mixed_with_this_one(
    anyone: httpx.AsyncClient, link: httpx.URL
) -> None:
    tag = (await anyone.head(at(link))).headers["etag"]
    for condition, status in (
        (tag, 206),
        ('"other"', 200),
        (f"W/{tag}", 200),
        ("Sun, 22 Nov 2026 12:00:00 GMT", 200),
    ):
        answer = await anyone.get(at(link), headers={"range": "bytes=0-9", "if-range": condition})
        assert answer.status_code == status, condition


async def test_a_file_that_somebody_took_out_of_the_store_is_not_found(
    klingel: Klingel, anyone: httpx.AsyncClient, link: httpx.URL, tmp_path: Path
) -> None:
    name = link.path.rpartition("/")[2]
    (tmp_path / "files" / name[:2] / name).unlink()
    assert (await anyone.get(at(link))).status_code == 404


async def test_through_a_real_server_a_player_gets_what_it_asks_for(
    klingel: Klingel, link: httpx.URL
) -> None:
    async with klingel.served() as client:
        whole = await client.get(at(link))
        assert (whole.status_code, whole.content) == (200, PICTURE)
        part = await client.get(at(link), headers={"range": "bytes=10-"})
        assert (part.status_code, part.content) == (206, PICTURE[10:])
        head = await client.head(at(link))
        assert (head.headers["content-length"], head.content) == (str(SIZE), b"")
        again = await client.get(at(link), headers={"if-none-match": head.headers["etag"]})
        assert again.status_code == 304
