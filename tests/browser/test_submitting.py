"""Submitting a task by the form, with pictures that are dropped or chosen."""

import base64
import re
import subprocess
import wave
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.chromium import Visitor
from tests.browser.conftest import Visit
from tests.e2e.parties import Klingel, picture

# What a file manager hands over when files are dropped.
DROP = """
    (place, files) => {
        const dataTransfer = new DataTransfer();
        for (const { name, type, content } of files) {
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], name, { type }));
        }
        for (const type of ["dragenter", "dragover", "drop"]) {
            place.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
        }
    }
"""
TASK_PAGE = re.compile(r"/tasks/(task_[0-9a-f]{32})")


def drop(place: Locator, *files: Path, type: str = "image/png") -> None:
    place.evaluate(
        DROP,
        [
            {"name": file.name, "type": type, "content": base64.b64encode(file.read_bytes()).decode()}
            for file in files
        ],
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three, of which one task takes two to four."""
    files = []
    for colour in ("teal", "gold", "navy"):
        file = tmp_path / f"{colour}.png"
        file.write_bytes(picture(colour))
        files.append(file)
    return files


def chosen(place: Locator) -> Locator:
    return place.get_by_role("list", name="Chosen pictures").get_by_role("listitem")


def submitted(page: Page) -> str:
    """The task's id, once its page is shown."""
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url(TASK_PAGE)
    found = TASK_PAGE.search(page.url)
    assert found
    return found[1]


def test_two_pictures_are_dropped_and_become_a_film(
    page: Page, klingel: Klingel, pictures: list[Path]
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Submit", exact=True).click()
    page.get_by_role("link", name="multi image to video").click()
    page.wait_for_url("**/submit/kling.multi-image-to-video#form")  # and its scripts have run
    place = page.get_by_role("group", name="Image list")
    drop(place, pictures[0])
    drop(place, pictures[1])  # the second does not replace the first
    expect(chosen(place)).to_have_text(["teal.png", "gold.png"])
    for preview in chosen(place).locator("img").all():
        expect(preview).to_have_js_property("naturalWidth", 400)
    page.get_by_label("Prompt required").fill("The cat puts on the hat and bows")

    task_id = submitted(page)

    expect(page.get_by_role("heading", level=1)).to_have_text("The cat puts on the hat and bows")
    expect(page.locator("#state .pill")).to_have_text("succeeded")
    expect(page.locator("#outputs video")).to_be_visible()
    task = klingel.task(task_id)
    assert task["type"] == "kling.multi-image-to-video"
    assert len(task["input"]["image_list"]) == 2


def test_two_pictures_are_chosen_and_become_one(page: Page, klingel: Klingel, pictures: list[Path]) -> None:
    page.goto("/submit/kling.multi-image-to-image")
    place = page.get_by_role("group", name="Subject image list")
    place.get_by_label("Files: choose them, or drop them here").set_input_files(pictures[:2])
    expect(chosen(place)).to_have_text(["teal.png", "gold.png"])
    page.get_by_label("Prompt").fill("A cat in a hat")

    task_id = submitted(page)

    expect(page.locator("#outputs img")).to_have_js_property("complete", True)
    task = klingel.task(task_id)
    assert len(task["input"]["subject_image_list"]) == 2
    assert task["status"] == "succeeded"


def said(file: Path) -> Path:
    """A second of a recording."""
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, 8000, 8000, "NONE", "not compressed"))
        sound.writeframes(bytes(16000))
    return file


def test_a_sound_is_dropped_or_chosen_and_submitted(
    page: Page, klingel: Klingel, pictures: list[Path], letter: Path, tmp_path: Path
) -> None:
    page.goto("/submit/kling.avatar")
    face = page.get_by_role("group", name="Image")
    face.get_by_label("File: choose it, or drop it here").set_input_files(pictures[0])
    place = page.get_by_role("group", name="Sound file")
    file = place.get_by_label("File: choose it, or drop it here")
    names = "(input) => [...input.files].map((file) => file.name)"
    file.set_input_files(said(tmp_path / "hello.wav"))
    drop(place, said(tmp_path / "good-bye.wav"), type="audio/wav")
    assert file.evaluate(names) == ["good-bye.wav"]  # in the other's place, as there is one
    drop(place, letter, type="text/plain")
    drop(place, pictures[1])
    assert file.evaluate(names) == ["good-bye.wav"]
    expect(chosen(face)).to_have_text(["teal.png"])

    task_id = submitted(page)

    expect(page.locator("#state .pill")).to_have_text("succeeded")
    assert klingel.task(task_id)["input"]["sound_file"]


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    file = tmp_path / "letter.txt"
    file.write_text("Dear cat")
    return file


def test_what_is_no_picture_is_not_taken_when_it_is_dropped(page: Page, letter: Path) -> None:
    page.goto("/submit/kling.multi-image-to-image")
    place = page.get_by_role("group", name="Subject image list")
    drop(place, letter, type="text/plain")
    expect(chosen(place)).to_have_count(0)
    assert page.url.endswith("/submit/kling.multi-image-to-image")  # nor does the browser go to it


def test_faults_stand_at_their_fields_and_what_was_written_stays(
    visitor: Visitor, klingel: Klingel, pictures: list[Path]
) -> None:
    page = visitor.page
    page.goto("/submit/kling.multi-image-to-image")
    place = page.get_by_role("group", name="Subject image list")
    place.get_by_label("Files: choose them, or drop them here").set_input_files(pictures[0])
    page.get_by_label("Prompt").fill("One picture is too few")
    page.get_by_role("button", name="Submit", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent")
    files = place.get_by_label("Files: choose them, or drop them here")
    expect(files).to_have_attribute("aria-invalid", "true")
    expect(files).to_have_accessible_description(re.compile("2"))
    expect(page.get_by_label("Prompt")).to_have_value("One picture is too few")
    assert klingel.call("GET", "/tasks")["items"] == []
    visitor.expects("422")  # the browser's console says it too

    expect(chosen(place)).to_have_text(["teal.png"])  # the file is still there
    drop(place, pictures[1])
    submitted(page)
    expect(page.locator("#state .pill")).to_have_text("succeeded")


def test_on_a_phone_the_field_that_is_wrong_is_in_sight(visit: Visit, klingel: Klingel) -> None:
    visitor = visit(viewport={"width": 375, "height": 667}, is_mobile=True, has_touch=True)
    page = visitor.sign_in(klingel.key, "/submit/kling.text-to-video")
    page.get_by_label("Multi prompt").fill("A cat bows")
    page.get_by_role("button", name="Submit", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent")
    expect(page.get_by_label("Multi prompt")).to_be_focused()
    expect(page.get_by_label("Multi prompt")).to_be_in_viewport()
    visitor.expects("422")


def test_a_type_that_is_chosen_shows_its_form(page: Page) -> None:
    """Which stands below all the types, and is where Tab goes on."""
    page.set_viewport_size({"width": 375, "height": 667})
    page.goto("/submit")
    page.get_by_role("link", name="multi image to video").click()
    page.wait_for_url("**/submit/kling.multi-image-to-video#form")
    expect(page.locator("#form > p")).to_be_in_viewport()
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('#form').contains(document.activeElement)")


def test_a_double_click_submits_once(visitor: Visitor, klingel: Klingel, pictures: list[Path]) -> None:
    """There is one task to pay for."""
    page = visitor.page
    page.goto("/submit/kling.multi-image-to-image")
    files = page.get_by_role("group", name="Subject image list").get_by_label("Files: choose them")
    files.set_input_files(pictures[:2])
    page.get_by_role("button", name="Submit", exact=True).dblclick()
    page.wait_for_url(TASK_PAGE)

    expect(page.locator("#state .pill")).to_have_text("succeeded")
    expect(page.get_by_role("heading", level=1)).to_have_text("Task")  # which had no prompt
    assert len(klingel.call("GET", "/tasks")["items"]) == 1


def test_the_curl_that_is_shown_does_what_the_form_would(page: Page, klingel: Klingel) -> None:
    page.goto("/submit/kling.multi-image-to-image")
    page.get_by_label("or addresses, one to a line").fill(
        "https://example.com/cat.png\nhttps://example.com/hat.png"
    )
    page.get_by_label("Prompt").fill("It's the cat's \"hat\", isn't it?")
    page.get_by_text("More: external id").click()
    page.get_by_label("External id").fill("by-hand-1")
    page.get_by_role("button", name="Show the curl").click()

    command = page.locator("#curl").inner_text()
    assert klingel.call("GET", "/tasks")["items"] == []
    told = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": "/usr/bin:/bin", "KLINGEL_API_KEY": klingel.key, "KLINGEL_URL": klingel.url},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    [task] = klingel.call("GET", "/tasks")["items"]
    assert task["external_task_id"] == "by-hand-1"
    assert klingel.task(task["id"])["input"]["prompt"] == "It's the cat's \"hat\", isn't it?"


def lost(route: Route) -> None:
    """What a script asks for; what the browser itself sends arrives."""
    request = route.request
    route.abort() if request.method == "POST" and request.resource_type == "fetch" else route.continue_()


def test_a_curl_whose_answer_was_lost_is_shown_and_nothing_is_submitted(
    visitor: Visitor, klingel: Klingel
) -> None:
    page = visitor.page
    page.route("**/*", lost)
    page.goto("/submit/kling.multi-image-to-image")
    addresses = page.get_by_label("or addresses, one to a line")
    addresses.fill("https://example.com/cat.png\nhttps://example.com/hat.png")
    page.get_by_role("button", name="Show the curl").click()
    expect(page.locator("#curl")).to_contain_text("/v1/tasks")
    page.goto("/endpoints/new/webhook")
    page.get_by_label("URL required").fill("https://example.com/hook")
    page.get_by_role("button", name="Show the curl").click()
    expect(page.locator("#curl")).to_contain_text("/v1/endpoints")
    visitor.expects("ERR_FAILED")
    for what in ("/tasks", "/endpoints"):
        assert klingel.call("GET", what)["items"] == []


def test_a_submit_whose_answer_was_lost_is_sent_by_the_browser_itself(
    visitor: Visitor, klingel: Klingel, pictures: list[Path]
) -> None:
    page = visitor.page
    page.route("**/*", lost)
    page.goto("/submit/kling.multi-image-to-image")
    place = page.get_by_role("group", name="Subject image list")
    place.get_by_label("Files: choose them, or drop them here").set_input_files(pictures[:2])
    submitted(page)
    visitor.expects("ERR_FAILED")
    assert len(klingel.call("GET", "/tasks")["items"]) == 1


def test_a_refused_upload_loses_nothing_that_was_entered(
    visitor: Visitor, klingel: Klingel, pictures: list[Path], tmp_path: Path
) -> None:
    page = visitor.page
    page.goto("/submit/kling.multi-image-to-image")
    place = page.get_by_role("group", name="Subject image list")
    files = place.get_by_label("Files: choose them, or drop them here")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(49 * 1024 * 1024))
    files.set_input_files([*pictures[:1], large])
    page.get_by_label("Prompt").fill("A cat in a hat")
    page.get_by_role("button", name="Submit", exact=True).click()

    told = page.get_by_role("alert")
    expect(told).to_contain_text("larger than the 48 MiB")
    expect(told).to_be_focused()
    visitor.expects("413")  # the browser's console says it too
    expect(page.get_by_label("Prompt")).to_have_value("A cat in a hat")
    expect(chosen(place)).to_have_text(["teal.png", "large.png"])

    files.set_input_files(pictures[:2])
    submitted(page)
    assert len(klingel.call("GET", "/tasks")["items"]) == 1


@pytest.mark.parametrize("kind", ["text/html", "application/problem+json"])
def test_an_error_of_whatever_stands_in_front_loses_nothing_that_was_entered(
    visitor: Visitor, klingel: Klingel, kind: str
) -> None:
    page = visitor.page
    page.goto("/endpoints/new/webhook")
    page.route(
        "**/endpoints/new/webhook", lambda route: route.fulfill(status=502, content_type=kind, body="{}")
    )
    page.get_by_label("URL required").fill("https://example.com/hook")
    for _ in range(2):
        page.get_by_role("button", name="Make it").click()
        expect(page.get_by_role("alert")).to_contain_text("502")
    visitor.expects("502")
    expect(page.get_by_label("URL required")).to_have_value("https://example.com/hook")


def test_a_curl_is_copied(page: Page) -> None:
    """The button says so for a moment, also on a page that is read again meanwhile."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.goto("/tasks")
    expect(page.locator("html[data-live=on]")).to_be_attached()
    page.get_by_role("button", name="Copy").click()
    copied = page.get_by_role("button", name="Copied")
    expect(copied).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#first-task").inner_text()
    with page.expect_request_finished(lambda request: request.url.endswith("/tasks")):
        page.clock.run_for(250)
    page.clock.run_for(1000)
    expect(copied).to_be_visible()
    page.clock.run_for(250)
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_nothing_offers_to_copy_where_the_browser_allows_none(page: Page) -> None:
    """As on a page that came over http from another machine."""
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'clipboard', {get: () => undefined})")
    page.goto("/tasks")
    expect(page.locator("html[data-live=on]")).to_be_attached()
    expect(page.locator("#first-task")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
