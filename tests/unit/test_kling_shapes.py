"""Kling's words for tasks: read back by what reads Kling's."""

from typing import Any

import pytest
from pydantic_core import to_json

from handlers.providers.kling.reports import SIGNALS, read_report
from service.domain.kling_shapes import WORDS, callback, created, queried
from service.domain.lifecycle import Status

TASK: dict[str, Any] = {
    "id": "task_1",
    "status": "succeeded",
    "external_task_id": "job-1",
    "outputs": [],
    "error": None,
    "created_at": "2026-11-22T12:00:00.001Z",
    "updated_at": "2026-11-22T12:00:02.999Z",
}


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_word_of_klings(status: Status) -> None:
    assert WORDS[status] in SIGNALS
    assert callback({**TASK, "status": status})["task_status"] == WORDS[status]


def test_moments_are_milliseconds() -> None:
    shown = callback(TASK)
    assert (shown["created_at"], shown["updated_at"]) == (1795348800001, 1795348802999)


def test_a_create_is_answered_as_submitted_however_far_the_task_is() -> None:
    assert created(TASK)["task_status"] == "submitted"


def test_who_gave_no_external_id_is_told_none() -> None:
    assert callback({**TASK, "external_task_id": "task_1"})["task_info"] == {}


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, "5"), (5, "5"), (5.041, "5.041"), (0.5, "0.5"), (None, "")]
)
def test_a_duration_is_a_text_of_seconds(seconds: float | None, text: str) -> None:
    output = {"kind": "video", "index": 0, "url": "https://example.com/v", "duration_s": seconds}
    assert callback({**TASK, "outputs": [output]})["task_result"] == {
        "videos": [{"id": "0", "url": "https://example.com/v", "duration": text}]
    }


def test_the_url_is_the_providers_and_a_query_alone_names_the_watermarked_one() -> None:
    """Kling's callbacks have no `watermark_url`; our own copy is no business of its clients."""
    output = {
        "kind": "image",
        "index": 3,
        "url": "https://example.com/a",
        "watermark_url": "https://example.com/w",
        "stored_url": "https://klingel.example.com/b",
    }
    task = {**TASK, "outputs": [output]}
    bare = {"index": 3, "url": "https://example.com/a"}
    assert callback(task)["task_result"] == {"images": [bare]}
    assert queried(task)["task_result"] == {"images": [bare | {"watermark_url": "https://example.com/w"}]}
    assert queried(task) | {"task_result": {}} == callback(task) | {"task_result": {}}


def test_the_reader_of_klings_callbacks_reads_ours() -> None:
    output = {"kind": "video", "index": 0, "id": "v", "url": "https://example.com/v", "duration_s": 5.1}
    report = read_report(to_json(callback({**TASK, "outputs": [output]})))
    assert (report.provider_task_id, report.external_task_id) == ("task_1", "job-1")
    assert [(one.url, one.duration_s) for one in report.outputs] == [("https://example.com/v", 5.1)]
