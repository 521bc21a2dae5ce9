"""Pictures that come as Base64: whom reading them holds up, and what stays of them on disk."""

import asyncio
import base64
import hashlib
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.submits import READERS
from storage.files import Files, kept, sweep
from storage.opening import open_database
from tests.integration.klingel import (
    IMAGE_INPUT,
    Klingel,
    base64_png,
    picture,
    png,
    pointers,
    running_klingel,
    settings_for,
)
from tests.places import Places

TASKS = "/v1/tasks"


def ordered(*pictures: str, **more: Any) -> dict[str, Any]:
    input = {**IMAGE_INPUT, "subject_image_list": [{"subject_image": each} for each in pictures]}
    return {"type": "kling.multi-image-to-image", "input": input, **more}


def digest(shade: int) -> str:
    return hashlib.sha256(png(shade)).hexdigest()


def on_disk(klingel: Klingel) -> set[str]:
    return {path.name for path in (klingel.folder / "inputs").rglob("*") if path.is_file()}


def aged(klingel: Klingel, name: str) -> Path:
    """The file, as it would be two days after it was written."""
    path = klingel.folder / "inputs" / name[:2] / name
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(path, (two_days_ago, two_days_ago))
    return path


# Reading


async def test_submits_without_base64_do_not_wait_behind_pictures(klingel: Klingel) -> None:
    """Pictures are read by few threads at a time; here all of these are taken."""
    readers, let_go = klingel.state["submits"]._readers, threading.Event()
    async with asyncio.TaskGroup() as taken:
        for number in range(READERS):
            taken.create_task(readers.read(number, let_go.wait))
        waiting = taken.create_task(klingel.http.post(TASKS, json=ordered(base64_png(1), picture())))
        try:
            await klingel.submit()
            assert (await klingel.http.post(TASKS, json=ordered(picture()))).status_code == 422
            assert not waiting.done()
        finally:
            let_go.set()
    assert waiting.result().status_code == 201


def test_pictures_are_read_by_two_threads_at_the_most() -> None:
    assert READERS <= 2


async def test_few_bytes_with_many_pixels_are_judged_all_the_same(klingel: Klingel) -> None:
    file = io.BytesIO()
    Image.new("1", (5001, 5000)).save(file, "png")
    text = base64.b64encode(file.getvalue()).decode()
    assert len(text) < 64 * 1024
    response = await klingel.http.post(TASKS, json=ordered(text, picture()))
    assert response.status_code == 422
    assert pointers(response) == ["#/input/subject_image_list/0/subject_image"]
    assert "at most 25 megapixels" in response.text


async def test_a_large_body_is_for_pictures_only(klingel: Klingel) -> None:
    """A parser needs far more room for many small values than they have as JSON."""
    body = b'{"type": "kling.multi-image-to-image", "metadata": [' + b"[]," * 1024 * 1024 + b"1]}"
    response = await klingel.http.post(TASKS, content=body)
    assert response.status_code == 413
    assert response.json()["limit_bytes"] == 1024 * 1024


async def test_large_pictures_arrive_upstream_as_they_were_sent(klingel: Klingel) -> None:
    file = io.BytesIO()
    Image.effect_noise((1500, 1500), 100).save(file, "png")
    text = base64.b64encode(file.getvalue()).decode()
    assert len(text) > 1024 * 1024
    headers = {"idempotency-key": "k"}
    response = await klingel.http.post(TASKS, json=ordered(text, picture()), headers=headers)
    assert response.status_code == 201, response.text
    assert klingel.kling.creates[0]["subject_image_list"] == [
        {"subject_image": text},
        {"subject_image": picture()},
    ]
    sent = klingel.kling.requests[0]
    assert int(sent.headers["content-length"]) == len(sent.content)
    assert "transfer-encoding" not in sent.headers
    again = await klingel.http.post(TASKS, json=ordered(text, picture()), headers=headers)
    assert again.json()["id"] == response.json()["id"]


# On disk


async def test_a_refused_submit_leaves_no_picture_behind(klingel: Klingel) -> None:
    await klingel.submit(external_task_id="job-1")
    body = ordered(base64_png(1), base64_png(2), external_task_id="job-1")
    assert (await klingel.http.post(TASKS, json=body)).status_code == 409
    assert on_disk(klingel) == set()


async def test_a_key_used_for_another_body_leaves_no_picture_behind(klingel: Klingel) -> None:
    headers = {"idempotency-key": "k"}
    first = await klingel.http.post(TASKS, json=ordered(base64_png(1), picture()), headers=headers)
    assert first.status_code == 201
    again = await klingel.http.post(TASKS, json=ordered(base64_png(2), picture()), headers=headers)
    assert again.status_code == 422
    assert on_disk(klingel) == {digest(1)}


async def test_a_refused_submit_leaves_others_their_pictures(klingel: Klingel) -> None:
    await klingel.submit(external_task_id="job-1", input=ordered(base64_png(1), picture())["input"])
    body = ordered(base64_png(1), base64_png(2), external_task_id="job-1")
    assert (await klingel.http.post(TASKS, json=body)).status_code == 409
    assert on_disk(klingel) == {digest(1)}


async def test_of_many_submits_at_once_with_one_picture_the_refused_ones_take_it_from_nobody(
    klingel: Klingel,
) -> None:
    body = ordered(base64_png(1), picture(), external_task_id="job-1")
    responses = await asyncio.gather(*(klingel.http.post(TASKS, json=body) for _ in range(8)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 7
    assert on_disk(klingel) == {digest(1)}


async def test_a_picture_refused_for_one_and_held_by_another_stays(klingel: Klingel) -> None:
    files, database = klingel.state["submitter"]._files, klingel.state["database"]
    content = {digest(1): png(1)}
    async with kept(files, database, content):
        with pytest.raises(LookupError):
            async with kept(files, database, content):
                raise LookupError
        assert on_disk(klingel) == {digest(1)}
    assert on_disk(klingel) == {digest(1)}


async def test_a_picture_about_to_go_stays_for_whoever_brings_it_again(klingel: Klingel) -> None:
    """Between the look into the database and the removal, another submit came and went."""
    files = klingel.state["submitter"]._files
    files.hold([digest(1)])
    files.put(digest(1), png(1))
    left = files.abandon([digest(1)])
    files.hold([digest(1)])
    files.put(digest(1), png(1))
    files.release([digest(1)])
    files.discard(left, needed=set())
    assert on_disk(klingel) == {digest(1)}


@pytest.mark.parametrize("first", ["here", "there"])
async def test_a_picture_that_another_process_is_about_to_need_stays(tmp_path: Path, first: str) -> None:
    """They share the folder, and not what they hold."""
    here, there = Files(tmp_path), Files(tmp_path)
    for files in (here, there) if first == "here" else (there, here):
        files.hold([digest(1)])
        files.put(digest(1), png(1))
    here.discard(here.abandon([digest(1)]), needed=set())
    assert there.get(digest(1)) == png(1)
    there.release([digest(1)])


async def test_a_picture_whose_need_cannot_be_told_stays(klingel: Klingel) -> None:
    files, database = klingel.state["submitter"]._files, klingel.state["database"]
    await klingel.tamper("alter table task_files rename to hidden")
    try:
        with pytest.raises(LookupError):
            async with kept(files, database, {digest(1): png(1)}):
                raise LookupError
    finally:
        await klingel.tamper("alter table hidden rename to task_files")
    assert on_disk(klingel) == {digest(1)}


async def test_a_submit_that_is_given_up_keeps_its_picture_for_it_may_yet_be_stored(klingel: Klingel) -> None:
    files, database = klingel.state["submitter"]._files, klingel.state["database"]
    inside = asyncio.Event()

    async def give_up() -> None:
        async with kept(files, database, {digest(1): png(1)}):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(give_up())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert on_disk(klingel) == {digest(1)}


async def test_what_a_crash_left_for_no_task_is_swept_once_it_is_a_day_old(
    tmp_path: Path, places: Places
) -> None:
    async with running_klingel(tmp_path) as klingel:
        await klingel.submit(input=ordered(base64_png(1), picture())["input"])
    # It has ended, and with it what it sweeps by itself.
    settings = settings_for(tmp_path, await places.at(tmp_path))
    files = Files(settings.inputs_path)
    for shade in (2, 3):
        files.put(digest(shade), png(shade))
    draft = klingel.folder / "inputs" / digest(2)[:2] / "half.part"
    draft.write_bytes(b"half a picture")
    aged(klingel, digest(1))
    aged(klingel, digest(2))
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(draft, (two_days_ago, two_days_ago))
    async with open_database(settings.database_at) as database:
        assert await sweep(files, database) == 1
        assert on_disk(klingel) == {digest(1), digest(3)}
        assert await sweep(files, database) == 0


async def test_nothing_is_swept_while_a_submit_needs_it(klingel: Klingel) -> None:
    files, database = klingel.state["submitter"]._files, klingel.state["database"]
    async with kept(files, database, {digest(1): png(1)}):
        aged(klingel, digest(1))
        assert await sweep(files, database) == 0
    assert on_disk(klingel) == {digest(1)}


async def test_a_folder_that_is_not_there_yet_needs_no_sweeping(klingel: Klingel) -> None:
    assert await sweep(klingel.state["submitter"]._files, klingel.state["database"]) == 0
