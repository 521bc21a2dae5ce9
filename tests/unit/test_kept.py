"""Kept outputs: names, links, notices."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.ids import AccountId, TaskId
from service.domain.kept import (
    FILE_NAME,
    FileRole,
    KeptFile,
    archive_endpoint,
    expiry_notice_at,
    let_go,
    new_file_name,
    stored,
)
from service.domain.lifecycle import Status
from service.domain.links import LINK_LIFE, Links
from service.domain.media_types import MP4, PNG
from service.domain.secrets import FileSignatures
from service.domain.tasks import Output, OutputKind, Task

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OLD, NEW = "an-old-secret-0123456789", "a-new-secret-0123456789"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def task(*outputs: Output) -> Task:
    return Task(
        id=TaskId("task_" + "0" * 32),
        account_id=AccountId("acc_" + "a" * 32),
        type="kling.multi-image-to-video",
        provider="sandbox",
        status=Status.SUCCEEDED,
        input={},
        external_task_id="e",
        provider_external_id="e",
        outputs=outputs,
        sequence=3,
        created_at=NOW,
        updated_at=NOW,
        finished_at=NOW,
        deadline_at=NOW,
    )


def output(kind: OutputKind = OutputKind.VIDEO, **more: object) -> Output:
    return Output(kind=kind, index=0, url="https://cdn.example.com/0", **more)  # type: ignore[arg-type]


def file(role: FileRole, name: str, *, place: int = 0) -> KeptFile:
    return KeptFile(
        name=name,
        account_id=AccountId("acc_" + "a" * 32),
        task_id=TaskId("task_" + "0" * 32),
        place=place,
        role=role,
        content_type="video/mp4",
        size=1,
        sha256="00",
        created_at=NOW,
    )


def links(clock: Clock, *secrets: str) -> Links:
    return Links(FileSignatures(secrets or (NEW,)), base_url="https://klingel.example.com", clock=clock)


def asked(url: str) -> tuple[str, dict[str, str]]:
    path, _, query = url.partition("?")
    return path.rpartition("/")[2], dict(part.split("=", 1) for part in query.split("&"))


def test_names_are_never_the_same_and_tell_nothing_of_the_content() -> None:
    names = {new_file_name(PNG) for _ in range(1000)}
    assert len(names) == 1000
    assert all(FILE_NAME.fullmatch(name) and name.endswith(".png") for name in names)


def test_an_account_has_one_archive_whose_id_needs_no_looking_up() -> None:
    first, second = (archive_endpoint(AccountId("acc_" + letter * 32), NOW) for letter in "ab")
    assert first.id == "end_" + "a" * 32
    assert first.id != second.id
    assert archive_endpoint(first.account_id, NOW + timedelta(days=1)).id == first.id


def test_a_film_gets_a_poster_and_a_picture_a_thumbnail() -> None:
    before = task(output(), output(OutputKind.IMAGE))
    film = stored(before, [file(FileRole.OUTPUT, "a.mp4"), file(FileRole.PREVIEW, "b.jpg")], NOW)
    both = stored(
        film, [file(FileRole.OUTPUT, "c.png", place=1), file(FileRole.PREVIEW, "d.jpg", place=1)], NOW
    )
    assert both.sequence == before.sequence + 2
    shown = [
        {name: url for name, url in one.view().items() if url and name.endswith("_url")}
        for one in both.outputs
    ]
    assert shown == [
        {"stored_url": "/v1/files/a.mp4", "poster_url": "/v1/files/b.jpg"},
        {"stored_url": "/v1/files/c.png", "thumbnail_url": "/v1/files/d.jpg"},
    ]


def test_what_is_let_go_is_referred_to_no_more_and_the_rest_still_is() -> None:
    kept = stored(task(output()), [file(FileRole.OUTPUT, "a.mp4"), file(FileRole.PREVIEW, "b.jpg")], NOW)
    left = let_go(kept, [file(FileRole.PREVIEW, "b.jpg")])
    assert (left.outputs[0].stored_url, left.outputs[0].poster_url) == ("/v1/files/a.mp4", None)
    assert left.sequence == kept.sequence


def test_a_preview_whose_output_is_no_longer_kept_is_a_link_too() -> None:
    shown = links(Clock()).shown(task(output(thumbnail_url="/v1/files/b.jpg")))
    url = shown.outputs[0].thumbnail_url
    assert url is not None
    assert url.startswith("https://klingel.example.com/v1/files/b.jpg?expires=")


def test_readers_get_links_that_open_until_they_end() -> None:
    clock = Clock()
    shown = links(clock).shown(task(output(stored_url="/v1/files/a.mp4")))
    url = shown.outputs[0].stored_url
    assert url is not None
    assert url.startswith("https://klingel.example.com/v1/files/a.mp4?expires=")
    name, query = asked(url)
    clock.now += LINK_LIFE
    assert links(clock).is_good(name, **query)
    clock.now += timedelta(days=1)
    assert not links(clock).is_good(name, **query)


def test_a_link_is_the_same_all_day_and_another_on_the_next() -> None:
    clock = Clock()
    seen = []
    for hours in (0, 11, 13):
        clock.now = NOW + timedelta(hours=hours)
        seen.append(links(clock).shown(task(output(stored_url="/v1/files/a.mp4"))).outputs[0].stored_url)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "b.mp4"},
        {"expires": "99999999999"},
        {"expires": "999999999999"},
        {"expires": "9" * 5000},
        {"expires": "-1"},
        {"expires": "٣"},
        {"expires": ""},
        {"signature": ""},
        {"signature": "x" * 43},
        {"signature": "\udcff"},
    ],
)
def test_a_link_that_was_changed_opens_nothing(changed: dict[str, str]) -> None:
    clock = Clock()
    url = links(clock).shown(task(output(stored_url="/v1/files/a.mp4"))).outputs[0].stored_url
    assert url is not None
    name, query = asked(url)
    given = {"name": name, **query, **changed}
    assert not links(clock).is_good(given["name"], expires=given["expires"], signature=given["signature"])


def test_links_survive_a_rotation_of_the_secret() -> None:
    clock = Clock()
    url = links(clock, OLD).shown(task(output(stored_url="/v1/files/a.mp4"))).outputs[0].stored_url
    assert url is not None
    name, query = asked(url)
    assert links(clock, NEW, OLD).is_good(name, **query)
    assert not links(clock, NEW).is_good(name, **query)


@pytest.mark.parametrize(
    ("life", "notice"),
    [
        (timedelta(days=30), timedelta(days=27)),
        (timedelta(days=4), timedelta(days=2)),
        (timedelta(hours=2), timedelta(hours=1)),
        (timedelta(0), None),
        (timedelta(days=-1), None),
        (None, None),
    ],
)
def test_a_notice_comes_three_days_before_and_leaves_half_of_a_short_life_to_keep_it(
    life: timedelta | None, notice: timedelta | None
) -> None:
    made = output(expires_at=None if life is None else NOW + life)
    assert expiry_notice_at(made, NOW) == (None if notice is None else NOW + notice)


def test_extensions_are_those_of_the_type() -> None:
    assert new_file_name(MP4).endswith(".mp4")
