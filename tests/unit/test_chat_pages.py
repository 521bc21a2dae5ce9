"""The pages on chats say what is there."""

import re
from pathlib import Path

from handlers.chat.grammar import parse
from handlers.chat.platforms import LISTENING, SPEAKING

PAGES = Path(__file__).parents[2] / "docs" / "chat"
README = (PAGES / "README.md").read_text()


def rows() -> dict[str, str]:
    """Of the table of platforms, by the page that each leads to."""
    return {
        found[1]: found[0] for found in re.finditer(r"^\| \[[^]]+\]\((\w+)\.md\) .*$", README, re.MULTILINE)
    }


def test_every_platform_is_in_the_table_and_says_whether_it_listens_and_edits() -> None:
    table = rows()
    assert table.keys() == {platform.name for platform in (*SPEAKING, *LISTENING)}
    for platform in (*SPEAKING, *LISTENING):
        cells = [cell.strip() for cell in table[platform.name].split("|")[1:-1]]
        assert bool(cells[1]) is (platform in LISTENING), platform.name
        assert cells[3].startswith("yes") is platform.edits, platform.name


def test_every_platform_has_a_page_that_names_all_that_is_configured() -> None:
    for platform in (*SPEAKING, *LISTENING):
        page = (PAGES / f"{platform.name}.md").read_text()
        fields = {*platform.endpoint_model.model_fields}
        if platform in LISTENING:
            fields |= platform.bot_model.model_fields.keys()  # type: ignore[attr-defined]
        missing = {name for name in fields if not re.search(rf"\b{name}\b", page)}
        assert missing == set(), platform.name


def test_every_picture_that_a_page_shows_is_there() -> None:
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_the_commands_of_the_page_are_understood() -> None:
    [block] = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    lines = [re.split(r"\s{3,}(?=pictures|your)", line)[0] for line in block.splitlines()]
    asked = [type(parse(line)).__name__ for line in lines]
    assert asked == ["Ask", "Ask", "AskStatus", "Usage"]
