"""What an event says to a person."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from handlers.messages import Mood, Urgency, cut, cut_bytes, message_of
from service.domain.events import EventType
from service.domain.tasks import Output, OutputKind, TaskError
from service.domain.values import replace
from tests.contract.push_services import NOW, TASK, endpoint_event_of, event_of, picture, video


@pytest.mark.parametrize("type", [type for type in EventType if type.startswith("task.")])
def test_every_change_of_a_task_has_words_of_its_own(type: EventType) -> None:
    message = message_of(event_of(type, outputs=[video()]))
    assert message.title.startswith("Video ")
    assert type not in message.title
    assert message.body


@pytest.mark.parametrize("type", EventType)
def test_whatever_happens_something_is_said(type: EventType) -> None:
    for event in (
        event_of(type),
        endpoint_event_of(
            type,
            endpoint={"id": "end_1", "kind": "x", "disabled_reason": "y"},
            budget={"spent": "10", "limit": "9.5", "unit": "units", "period": "month"},
        ),
    ):
        message = message_of(event)
        assert message.title
        assert message.body


def test_results_are_final_and_progress_is_not() -> None:
    final = {type for type in EventType if message_of(event_of(type)).is_final}
    assert final >= {EventType.TASK_SUCCEEDED, EventType.TASK_FAILED, EventType.TASK_REJECTED}
    assert not final & {EventType.TASK_SUBMITTED, EventType.TASK_PROCESSING, EventType.TASK_OVERDUE}


def test_bad_news_is_urgent() -> None:
    failed = message_of(event_of(EventType.TASK_FAILED, error=TaskError("1301", "No")))
    assert (failed.mood, failed.urgency) == (Mood.BAD, Urgency.HIGH)


def test_a_video_has_a_link_and_no_picture() -> None:
    """No service shows a video by its URL."""
    message = message_of(event_of(outputs=[video()]))
    assert (message.link, message.picture) == (video().url, None)


def test_among_many_the_first_picture_is_shown() -> None:
    message = message_of(event_of(outputs=[video(), picture(1), picture(2)]))
    assert (message.link, message.picture) == (video().url, picture(1).url)
    assert [made.label for made in message.made] == ["Video 1", "Picture 2", "Picture 3"]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "", "//example.com/a"]
)
def test_only_what_a_browser_may_open_is_linked(url: str) -> None:
    assert message_of(event_of(outputs=[Output(kind=OutputKind.VIDEO, index=0, url=url)])).link is None


def test_the_first_to_expire_says_until_when() -> None:
    made = [picture(0, expires_at=NOW + timedelta(days=2)), picture(1, expires_at=NOW + timedelta(days=1))]
    assert "until 2026-11-23 12:00 UTC" in message_of(event_of(outputs=made)).body


def test_a_task_is_told_by_the_callers_name_for_it_or_else_by_its_id() -> None:
    """Who gets news of many tasks must know of which one it is."""
    own = TASK
    for external_task_id, named in [("order-1", "order-1"), (own, own), ("cmd_" + "0" * 32, own)]:
        body = message_of(event_of(external_task_id=external_task_id)).body
        assert body == f"{named} · kling.multi-image-to-video"


def test_who_asked_for_a_task_in_a_chat_is_told_no_id() -> None:
    event = event_of(external_task_id="cmd_" + "0" * 32)
    assert message_of(event, to_asker=True).body == "kling.multi-image-to-video"


def test_what_others_wrote_stays_on_its_line_and_turns_nothing_around() -> None:
    body = message_of(event_of(external_task_id="a\r\nb\x00\u202e\u2066c" + "d" * 600)).body
    assert body.startswith("a b c")
    assert len(body.splitlines()) == 1
    assert len(body) < 560


def test_of_an_output_that_goes_only_that_one_is_linked() -> None:
    event = event_of(outputs=[picture(0), picture(1)])
    data = event.content()["data"] | {"output": picture(1).view()}
    expiring = replace(event, type=EventType.OUTPUT_EXPIRING, body=to_json({"data": data}))
    message = message_of(expiring)
    assert (message.title, message.link) == ("Video about to be lost", picture(1).url)
    assert message.urgency is Urgency.HIGH


def test_a_test_says_that_it_is_one() -> None:
    event = endpoint_event_of(
        EventType.ENDPOINT_TEST, endpoint={}, message="This is a test. No task has changed."
    )
    assert message_of(event).body == "This is a test. No task has changed."


@given(st.text(max_size=50), st.integers(1, 60))
def test_what_is_cut_fits(text: str, most: int) -> None:
    assert len(cut(text, most)) <= most
    assert len(cut_bytes(text, most).encode()) <= most
    if len(text.encode()) <= most:
        assert cut_bytes(text, most) == text


def test_a_film_is_shown_by_a_still_of_it_where_there_is_one() -> None:
    kept = replace(video(), poster_url="https://klingel.example.com/v1/files/still.jpg")
    assert message_of(event_of(outputs=[kept])).picture == kept.poster_url
    assert message_of(event_of(outputs=[kept, picture(1)])).picture == picture(1).url
    assert message_of(event_of(outputs=[replace(kept, poster_url="file:///still.jpg")])).picture is None


def test_a_kept_copy_can_be_told_as_the_whole_task() -> None:
    """For what stands in a chat: that a copy is kept must not hide that the film is ready."""
    stored = event_of(EventType.OUTPUT_STORED, outputs=[video(), picture(1)])
    whole = message_of(stored, as_it_stands=True)
    assert (whole.title, whole.is_final, len(whole.made)) == ("2 videos ready", True, 2)
    assert message_of(stored).title.endswith("kept")


SOUND = Output(kind=OutputKind.AUDIO, index=1, url="https://example.com/a.mp3")


@pytest.mark.parametrize(
    ("task_type", "outputs", "title"),
    [
        ("kling.video-to-audio", [video(), SOUND], "2 outputs ready"),
        ("kling.video-to-audio", [SOUND], "Audio ready"),
        ("kling.raw", [picture(1), picture(2)], "2 pictures ready"),
        ("kling.raw", [], "Task ready"),
        ("of.another-version", [video()], "Task ready"),
    ],
)
def test_where_several_kinds_of_things_may_come_they_are_named_as_they_are(
    task_type: str, outputs: list[Output], title: str
) -> None:
    assert message_of(event_of(task_type=task_type, outputs=outputs)).title == title


def test_the_name_that_a_command_gave_its_task_is_for_machines() -> None:
    assert "cmd_" not in message_of(event_of(external_task_id="cmd_" + "0" * 32)).body
    assert "cmd_1 · " in message_of(event_of(external_task_id="cmd_1")).body
