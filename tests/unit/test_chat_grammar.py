"""The grammar of commands: nothing that a person can type breaks it, and what is said is what is submitted."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from handlers.chat.grammar import IMAGE, VIDEO, Ask, AskStatus, Usage, help_text, parse, submitted
from service.domain.inputs import validate
from service.domain.task_types import TASK_TYPES, rows_for
from service.domain.task_types import WORDS as WORDS_TO_MAKE

PICTURES = ["https://example.com/a.png", "https://example.com/b.png"]
SPACES = " \t\n\r\u00a0\u2003\u3000"
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Z", "C"], exclude_characters='=<>|"'), min_size=1
).filter(lambda word: not word.lower().startswith(("http://", "https://")))


def asked(text: str) -> Ask:
    ask = parse(text)
    assert isinstance(ask, Ask), ask
    return ask


@pytest.mark.parametrize(
    ("word", "type"),
    [("image", IMAGE), ("picture", IMAGE), ("Img", IMAGE), ("VIDEO", VIDEO), ("/film", VIDEO)],
)
def test_the_first_word_says_what_to_make(word: str, type: str) -> None:
    assert asked(f"{word} a cat") == Ask(type=type, prompt="a cat", urls=[])


def test_pictures_by_address_are_no_part_of_the_prompt() -> None:
    """Also as Slack writes them, and with what people put between them."""
    ask = asked(
        "video a cat https://example.com/a.png, <https://example.com/b.png|b.png> puts on "
        "<https://example.com/c.png>; a hat"
    )
    assert ask.prompt == "a cat puts on a hat"
    assert ask.urls == ["https://example.com/a.png", "https://example.com/b.png", "https://example.com/c.png"]


def test_an_address_with_an_equals_sign_in_it_is_no_option() -> None:
    assert asked("image a https://example.com/a.png?size=large").urls == [
        "https://example.com/a.png?size=large"
    ]


def test_options_have_the_types_that_the_api_wants() -> None:
    ask = asked('image a cat n=3 aspect_ratio=16:9 model_name="kling-v2" ')
    assert ask.options == {"n": 3, "aspect_ratio": "16:9", "model_name": "kling-v2"}
    ask = asked("video a cat cfg_scale=0.5 duration=10 negative_prompt=“a dog”")
    assert (ask.options["cfg_scale"], ask.options["duration"]) == (0.5, "10")


@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_stay_as_they_were_said(number: str) -> None:
    """As null they would be left out, and something else made than was asked for."""
    assert asked(f"video a cat cfg_scale={number}").options == {"cfg_scale": number}


def test_an_option_that_does_not_exist_is_named_with_those_that_do() -> None:
    told = parse("image a cat colour=red n=1")
    assert isinstance(told, Usage)
    assert "colour" in told.text
    assert "aspect_ratio" in told.text


@pytest.mark.parametrize("text", ["image", "video  ", "image https://example.com/a.png", "image n=2"])
def test_without_words_nothing_is_made(text: str) -> None:
    assert isinstance(parse(text), Usage)


@pytest.mark.parametrize("text", ["", " \n", "help", "/help", "HELP me"])
def test_help_is_what_the_command_can_do(text: str) -> None:
    assert parse(text) == Usage(help_text())


def test_status_is_asked_for_by_its_word() -> None:
    assert parse(" Status") == AskStatus()


def test_what_is_no_command_is_answered_by_help() -> None:
    told = parse("dance")
    assert isinstance(told, Usage)
    assert "dance" in told.text
    assert help_text() in told.text


@pytest.mark.parametrize(
    ("command", "pictures", "type"),
    [
        ("image a cat", 0, "kling.image-generation"),
        ("image a cat", 1, "kling.image-generation"),
        ("image a cat", 2, "kling.multi-image-to-image"),
        ("video a cat", 0, "kling.text-to-video"),
        ("video a cat", 1, "kling.image-to-video"),
        ("video a cat", 4, "kling.multi-image-to-video"),
    ],
)
def test_how_many_pictures_there_are_says_what_the_word_means(command: str, pictures: int, type: str) -> None:
    chosen, given = submitted(asked(command), [f"https://example.com/{one}.png" for one in range(pictures)])
    assert chosen == type
    validate(TASK_TYPES[type].input_model, given)


def test_with_too_many_pictures_it_is_what_takes_most_of_them() -> None:
    assert submitted(asked("video a cat"), PICTURES * 3)[0] == VIDEO


@pytest.mark.parametrize("word", WORDS_TO_MAKE)
def test_every_option_that_help_names_is_one_of_what_the_word_may_mean(word: str) -> None:
    [line] = [line for line in help_text().splitlines() if line.startswith(f"  {word}: ")]
    names = line.partition(": ")[2].split(", ")
    assert "model_name" in names
    known = [row.input_model.model_fields.keys() for row in rows_for(word)]
    assert set(names) <= {name for names in known for name in names}


@given(st.text())
@example("image \ud800 n=1")
@example("video a n=" + "9" * 5000)
@example('image "unclosed n="1 2')
def test_whatever_is_typed_there_is_an_answer(text: str) -> None:
    told = parse(text)
    if isinstance(told, Ask):
        assert told.prompt
        assert not set(told.options) & {"prompt", "image_list", "subject_image_list"}
    elif isinstance(told, Usage):
        assert told.text
        assert len(told.text) < len(text) + 2000


@given(
    st.sampled_from(["image", "video"]),
    st.lists(WORDS, min_size=1, max_size=20),
    st.text(SPACES, min_size=1, max_size=3),
)
def test_the_prompt_is_what_was_typed(word: str, words: list[str], space: str) -> None:
    """Whatever stood between the words."""
    assert asked(space + word + space + space.join(words)).prompt == " ".join(words)


@given(st.sampled_from(["image", "video"]), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_asked_for_can_be_sent_as_json(word: str, rest: str) -> None:
    told = parse(f"{word} {rest}")
    if isinstance(told, Ask):
        _, given = submitted(told, PICTURES)
        assert json.loads(to_json(given)) == given


@pytest.mark.parametrize("word", ["image", "video"])
def test_attached_pictures_come_before_those_by_address(word: str) -> None:
    ask = asked(f"{word} a cat https://example.com/c.png")
    type, given = submitted(ask, PICTURES)
    validate(TASK_TYPES[type].input_model, given)
    pictures = given.get("image_list") or given["subject_image_list"]
    assert [next(iter(picture.values())) for picture in pictures] == [*PICTURES, "https://example.com/c.png"]
