"""What somebody has asked for, whatever the type of task."""

from typing import Any

import pytest

from service.domain.prompts import prompt_of


@pytest.mark.parametrize(
    ("input", "prompt"),
    [
        ({"prompt": "a cat", "image": "https://example.com/a.png"}, "a cat"),
        ({"contents": [{"type": "first_frame", "url": "u"}, {"type": "prompt", "text": "a dog"}]}, "a dog"),
        ({"input": {"mode": "text2video", "text": "Welcome"}}, "Welcome"),
        ({"effect_scene": "hug_pro", "input": {"image": "u"}}, "hug_pro"),
        ({"multi_prompt": [{"index": 1, "prompt": "first"}, {"index": 2, "prompt": "second"}]}, "first"),
        ({"path": "/v1/x", "body": {"settings": {"prompt": "raw"}}}, "raw"),
        ({"prompt": " ", "bgm_prompt": "piano"}, "piano"),
        ({"prompt": ["no text"], "session_id": "1"}, None),
        ({}, None),
    ],
)
def test_the_words_are_found_where_the_type_keeps_them(input: dict[str, Any], prompt: str | None) -> None:
    assert prompt_of(input) == prompt
