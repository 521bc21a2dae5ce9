"""The pictures of the README are there, and tell the story that it tells."""

import re
from xml.etree import ElementTree as ET

from tests.browser.terminal import story
from tests.e2e.processes import ROOT

TEXT = "{http://www.w3.org/2000/svg}text"
MOST_BYTES = 100_000


def test_each_is_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert shown
    assert {path for path in shown if (ROOT / path).stat().st_size > MOST_BYTES} == set()


def test_the_recorded_story_is_the_one_that_is_written() -> None:
    """Else `make screenshots` records it anew."""
    lines = list(ET.parse(ROOT / "docs/images/story.svg").iter(TEXT))
    typed = [(line.text or "")[2:] for line in lines if line.get("class") == "typed"]
    written = story().rstrip().splitlines()
    assert len(typed) == len(written)
    for one, other in zip(typed, written, strict=True):
        assert other.startswith(one.removesuffix("…"))
    told = [line.text or "" for line in lines if line.get("class") == "event"]
    assert [re.findall(r'"type":"(task\.\w+)"', line) for line in told] == [
        ["task.submitted"],
        ["task.processing"],
        ["task.succeeded"],
    ]
