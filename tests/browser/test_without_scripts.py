"""Scripts are for comfort: all can be read, and done, without them."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import Visitor
from tests.browser.conftest import Furnished, Visit
from tests.browser.pages import every_path
from tests.browser.test_submitting import TASK_PAGE
from tests.e2e.parties import Klingel, Receiver, picture


@pytest.fixture
def simple(visit: Visit, klingel: Klingel) -> Visitor:
    """Signed in, with a browser that runs no scripts."""
    visitor = visit(java_script_enabled=False)
    visitor.sign_in(klingel.key)
    return visitor


@pytest.fixture
def plain(simple: Visitor) -> Page:
    return simple.page


def test_every_page_can_be_read(visit: Visit, furnished: Furnished) -> None:
    page = visit(java_script_enabled=False).sign_in(furnished.klingel.key)
    for path in every_path(furnished.house):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        # What does nothing here is not offered.
        expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    page.goto(f"/tasks/{furnished.house.film}")
    expect(page.locator("#outputs video")).to_be_visible()
    expect(page.locator("#timeline time").first).to_have_text(
        re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
    )
    page.goto("/tasks")
    expect(page.locator(".card time").first).to_have_text(re.compile(r"ago|just now"))


def test_a_task_is_submitted_with_two_files_and_seen_after_a_reload(
    plain: Page, klingel: Klingel, tmp_path: Path
) -> None:
    files = [tmp_path / f"{colour}.png" for colour in ("teal", "gold")]
    for file in files:
        file.write_bytes(picture(file.stem))
    plain.goto("/submit/kling.multi-image-to-image")
    place = plain.get_by_role("group", name="Subject image list")
    place.get_by_label("Files: choose them").set_input_files(files)
    plain.get_by_label("Prompt").fill("Without scripts")
    plain.get_by_role("button", name="Submit", exact=True).click()
    plain.wait_for_url(TASK_PAGE)
    klingel.events(plain.url.partition("?")[0].rpartition("/")[2])
    plain.reload()
    expect(plain.locator("#state .pill")).to_have_text("succeeded")


def test_an_endpoint_is_made_and_a_fault_is_told(simple: Visitor, receiver: Receiver, hook: str) -> None:
    plain = simple.page
    plain.goto("/endpoints/new/webhook")
    plain.get_by_label("URL required").fill("nowhere")
    plain.get_by_role("button", name="Make it").click()
    expect(plain.get_by_role("alert")).to_contain_text("Nothing was sent")
    simple.expects("422")  # the browser's console says it too
    plain.get_by_label("URL required").fill(receiver.url(hook))
    plain.get_by_role("button", name="Make it").click()
    expect(plain.locator("#secret")).to_have_text(re.compile("^whsec_"))


@pytest.mark.parametrize("scripts", [False, True])
def test_who_has_changed_an_endpoint_wrongly_is_led_to_the_fault(
    visit: Visit, klingel: Klingel, receiver: Receiver, hook: str, scripts: bool
) -> None:
    """It is far below the top of the page, which looks as if the change had succeeded."""
    body = {"kind": "webhook", "config": {"url": receiver.url(hook), "headers": {"x-shop": "1"}}}
    endpoint = klingel.call("POST", "/endpoints", body, answers=201)
    visitor = visit(java_script_enabled=scripts)
    page = visitor.sign_in(klingel.key, f"/endpoints/{endpoint['id']}")
    page.get_by_text("Change", exact=True).first.click()
    page.get_by_label("URL required").fill(receiver.url(hook).replace("127.0.0.1", "127.0.0.2"))
    page.get_by_role("button", name="Change").click()

    headers = page.get_by_label("Headers")
    expect(headers).to_be_focused()
    expect(headers).to_be_in_viewport()
    expect(headers).to_have_accessible_description(re.compile("Give one for this server, or none"))
    visitor.expects("422")  # the browser's console says it too
    headers.fill("")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_role("status").first).to_have_text("Changed.")
    assert "headers" not in klingel.call("GET", f"/endpoints/{endpoint['id']}")["config"]
