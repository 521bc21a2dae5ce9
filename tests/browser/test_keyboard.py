"""Everything by keyboard alone: no click in this file."""

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.test_submitting import TASK_PAGE
from tests.e2e.parties import Klingel, Receiver, image_input, picture

MOST_STEPS = 80
# What is focused is called, and whether that is seen; null between the end and the beginning, in the browser's own controls.
FOCUS = """() => {
    const focused = document.activeElement;
    if (focused === document.body) return null;
    const label = focused.labels?.[0]?.innerText ?? focused.getAttribute("aria-label") ?? focused.innerText;
    const name = (label || (focused.querySelector("img")?.alt ?? "")).trim().replace(/\\s+/g, " ");
    if (focused.matches("video, audio")) return [name, true];  // its controls are the browser's, and show it themselves
    const box = focused.getBoundingClientRect();
    const { outlineStyle, outlineWidth } = getComputedStyle(focused);
    const isOutlined = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    return [name, isOutlined && box.width > 0 && box.bottom > 0];
}"""


def tab_to(page: Page, name: str) -> None:
    """With Tab, until what is focused is called so; the focus is seen at each step."""
    passed: list[str] = []
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        if (focus := page.evaluate(FOCUS)) is None:
            continue
        focused, is_seen = focus
        passed.append(focused)
        assert is_seen, f"the focus is not seen at {focused!r}"
        if focused.startswith(name):
            return
    raise AssertionError(f"no way by Tab to {name!r}: {passed}")


def test_one_signs_in_submits_and_looks_at_the_result(visit: Visit, klingel: Klingel, tmp_path: Path) -> None:
    files = [tmp_path / f"{colour}.png" for colour in ("teal", "gold")]
    for file in files:
        file.write_bytes(picture(file.stem))
    page = visit().page
    page.on("filechooser", lambda _: None)  # who listens only just before may be too late for it
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(klingel.key)
    page.keyboard.press("Enter")
    page.wait_for_url("/")
    tab_to(page, "Skip to content")
    tab_to(page, "Submit")
    page.keyboard.press("Enter")
    page.wait_for_url("**/submit**")
    tab_to(page, "multi image to video")
    page.keyboard.press("Enter")
    page.wait_for_url("**/submit/kling.multi-image-to-video#form")
    tab_to(page, "Files: choose them")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(files)
    tab_to(page, "Prompt")
    page.keyboard.type("By hand")
    tab_to(page, "Submit")
    page.keyboard.press("Enter")
    page.wait_for_url(TASK_PAGE)
    expect(page.locator("#state .pill")).to_have_text("succeeded")
    expect(page.get_by_text("Download").first).to_be_visible()  # once the output is kept
    tab_to(page, "Download")


def test_the_skip_link_leads_past_the_navigation(page: Page, klingel: Klingel) -> None:
    page.goto("/tasks")
    tab_to(page, "Skip to content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_picture_is_focused_while_it_still_loads(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat"))
    page.route("**/v1/files/**", lambda _: None)  # never answered
    page.goto(f"/tasks/{task['id']}", wait_until="commit")
    expect(page.locator("#outputs img")).to_have_count(1)
    tab_to(page, "Picture 1 of this task")


def test_a_delivery_is_opened_and_replayed(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    body = {"kind": "webhook", "config": {"url": receiver.url(hook)}, "description": "Our shop"}
    klingel.call("POST", "/endpoints", body, answers=201)
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat"))
    klingel.events(task["id"])
    klingel.until_delivered(3)
    page.goto(f"/tasks/{task['id']}")
    tab_to(page, "task.submitted")
    page.keyboard.press("Enter")
    expect(page.locator("#events details").first.locator("pre")).to_be_visible()
    tab_to(page, "Our shop")
    page.keyboard.press("Enter")
    page.wait_for_url("**/deliveries/dlv_**")
    tab_to(page, "Replay")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This is the replay")).to_be_visible()
    expect(page.locator("#state .pill")).to_have_text("delivered")
    receiver.until(hook, lambda got: [one.event["type"] for one in got].count("task.submitted") == 2)
