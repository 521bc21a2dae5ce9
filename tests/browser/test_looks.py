"""Every page: what is wrong for those who see it little, on a phone, in the dark, or not at all."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect

from service.app import CONFIGS
from service.dashboard.routes import routes
from tests.browser.chromium import wider_than_the_window
from tests.browser.conftest import Furnished, Visit
from tests.browser.pages import every_path, paths
from tests.tools import node_package

PHONE: ViewportSize = {"width": 360, "height": 740}
DESK: ViewportSize = {"width": 1280, "height": 800}
NO_PAGES = {"/sign-in", "/live", "/static/{version}/{name}", "/service-worker.js", "/favicon.ico"}
EVERY_RULE: Mapping[str, Any] = {}
# The dark differs in nothing else from the light, and the phone in all but these, which cost axe most.
OF_COLOURS = ("color-contrast", "link-in-text-block")
LOOKS: Sequence[tuple[Literal["light", "dark"], ViewportSize, Mapping[str, Any]]] = (
    ("light", DESK, EVERY_RULE),
    ("dark", DESK, {"runOnly": {"type": "rule", "values": OF_COLOURS}}),
    ("light", PHONE, {"rules": {name: {"enabled": False} for name in OF_COLOURS}}),
)
# What one taps, but for ticks, whose labels are tapped with them.
SMALLER = """(least) =>
    [...document.querySelectorAll("button, select, input:not([type=checkbox]), textarea, summary, .button, nav a")]
        .filter((each) => each.checkVisibility({ visibilityProperty: true }))
        .map((each) => [each.outerHTML.slice(0, 100), each.getBoundingClientRect()])
        .filter(([, { width, height }]) => Math.min(width, height) < least)
        .map(([text, { width, height }]) => `${text} ${width} x ${height}`)
"""


def test_every_page_of_the_dashboard_is_looked_at_here(furnished: Furnished) -> None:
    opened = {route.path for route in routes(CONFIGS) if "GET" in (route.methods or ())}
    assert opened - NO_PAGES == set(paths(furnished.house))


@pytest.fixture(scope="module")
def axe() -> str:
    return Path(node_package("axe-core") / "axe.min.js").read_text()


def findings(page: Page, options: Mapping[str, Any] = EVERY_RULE) -> list[str]:
    """What axe-core holds against a page, but for what it calls moderate or minor."""
    found: dict[str, Any] = page.evaluate(
        "(options) => axe.run(document, options)", {**options, "resultTypes": ["violations"]}
    )
    return [
        f"{page.url}: {one['impact']}: {one['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


def findings_of_each_look(page: Page) -> list[str]:
    """At a desk, in the dark and on a phone; the page is opened once, and turned to each."""
    found: list[str] = []
    for color_scheme, viewport, options in LOOKS:
        page.emulate_media(color_scheme=color_scheme)
        page.set_viewport_size(viewport)
        found += findings(page, options)
    return found


def test_axe_finds_nothing_serious(visit: Visit, furnished: Furnished, axe: str) -> None:
    visitor = visit(reduced_motion="reduce")
    visitor.context.add_init_script(axe)
    visitor.page.goto("/sign-in")
    found = findings_of_each_look(visitor.page)
    page = visitor.sign_in(furnished.klingel.key)
    for path in every_path(furnished.house):
        page.goto(path)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found += findings_of_each_look(page)
    assert not found, "\n".join(found)


def test_axe_finds_nothing_serious_where_nothing_is_yet(visit: Visit, klingel: Any, axe: str) -> None:
    visitor = visit(reduced_motion="reduce")
    visitor.context.add_init_script(axe)
    page = visitor.sign_in(klingel.key)
    found = []
    for path in ("/", "/tasks", "/endpoints", "/deliveries", "/deliveries?status=dead", "/bots"):
        page.goto(path)
        found += findings(page)
    page.goto("/tasks/task_that-is-not-there")
    found += findings(page)
    visitor.expects("404")
    assert not found, "\n".join(found)


def test_every_page_fits_a_phone_and_its_buttons_a_fingertip(visit: Visit, furnished: Furnished) -> None:
    """WCAG 2.2, 2.5.8: 24 by 24 CSS pixels; links within a text are exempt."""
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True).sign_in(furnished.klingel.key)
    wrong: list[str] = []
    for path in every_path(furnished.house):
        page.goto(path)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        wrong += [f"{path}: {each}" for each in wider_than_the_window(page)]
        wrong += [f"{path}: {each}" for each in page.evaluate(SMALLER, 24)]
    assert not wrong, "\n".join(wrong)


# Words of tables that stand in more than one line, but for what is written by strangers, such as addresses.
BROKEN = """() => {
    const words = [];
    for (const cell of document.querySelectorAll("th, td:not(.long)")) {
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            for (const { 0: word, index } of texts.currentNode.data.matchAll(/\\S+/g)) {
                const range = document.createRange();
                range.setStart(texts.currentNode, index);
                range.setEnd(texts.currentNode, index + word.length);
                if (range.getClientRects().length > 1) words.push(word);
            }
        }
    }
    return words;
}"""


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1024, "height": 800}, DESK])
def test_tables_break_no_word_and_the_menu_is_all_in_sight(
    visit: Visit, furnished: Furnished, viewport: ViewportSize
) -> None:
    page = visit(viewport=viewport).sign_in(furnished.klingel.key)
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    for path in ("/endpoints", "/deliveries", "/usage", "/keys"):
        page.goto(path)
        assert page.evaluate(BROKEN) == []
        for link in links.all():
            expect(link).to_be_in_viewport(ratio=1)


def test_a_table_that_is_too_wide_shows_on_which_side_there_is_more(
    visit: Visit, furnished: Furnished
) -> None:
    page = visit(viewport=PHONE).sign_in(furnished.klingel.key, "/deliveries")
    table = page.locator(".scroll")

    def is_shadowed() -> list[bool]:
        """At the left and at the right edge, of which the less part is text."""
        with Image.open(BytesIO(table.screenshot())) as shown:
            grey = shown.convert("L")
        columns = ([grey.getpixel((x, y)) for y in range(grey.height)] for x in (1, grey.width - 2))
        return [median(column) < 245 for column in columns]

    assert is_shadowed() == [False, True]
    table.evaluate("(each) => each.scrollTo(each.scrollWidth, 0)")
    assert is_shadowed() == [True, False]


def test_the_dark_is_dark_and_the_light_is_light(visit: Visit, furnished: Furnished) -> None:
    brightness = """() => {
        const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
        return (red + green + blue) / 3;
    }"""
    page = visit(color_scheme="light").sign_in(furnished.klingel.key, "/tasks")
    assert page.evaluate(brightness) > 220
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(brightness) < 60


def test_nothing_turns_for_who_wants_no_motion(visit: Visit, klingel: Any) -> None:
    """A task that runs has a turning mark, but for them."""
    page = visit(reduced_motion="reduce").sign_in(klingel.key, "/tasks")
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches") is False


def test_pages_are_private_and_in_no_frame(visit: Visit, furnished: Furnished) -> None:
    page = visit().sign_in(furnished.klingel.key)
    for path in every_path(furnished.house):
        response = page.request.get(path)
        assert response.status == 200, path
        assert response.headers["cache-control"] == "private, no-store", path
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"], path
        assert "unsafe" not in response.headers["content-security-policy"], path
