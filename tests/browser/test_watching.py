"""What people see of a task while it lives, and after."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Event

from playwright.sync_api import Page, Route, expect

from service.dashboard.rendering import show_span
from tests.browser.chromium import live
from tests.browser.conftest import Visit
from tests.browser.provider import call_back
from tests.e2e.parties import Klingel, image_input, video_input
from tests.e2e.processes import until

# Each text that the status had, as long as the page was the same one.
KEEP_STATES = """
    window.seen = [];
    const look = () => {
        const now = document.querySelector("#state .pill").textContent;
        if (window.seen.at(-1) !== now) window.seen.push(now);
    };
    look();
    new MutationObserver(look).observe(document.getElementById("state"), { childList: true, subtree: true });
"""
# Frames are drawn, and the clock of the film runs.
PLAYED = """
    (film) => film.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && film.currentTime > 0.2 && film.videoWidth > 0
"""


def test_a_task_goes_live_to_succeeded_without_a_reload(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat, sandbox:never"))
    page.goto(f"/tasks/{task['id']}")
    live(page)
    page.evaluate(KEEP_STATES)
    call_back(klingel, task["id"], "processing")
    expect(page.locator("#state .pill")).to_have_text("processing")
    until(
        lambda: klingel.call("POST", f"/tasks/{task['id']}/refresh")["status"] == "succeeded",
        "the end that nobody was told of",
    )

    expect(page.locator("#state .pill")).to_have_text("succeeded")
    expect(page.locator("#outputs img")).to_have_count(1)

    # gone, had the page been loaded again
    assert page.evaluate("window.seen") == ["submitted", "processing", "succeeded"]
    picture = page.locator("#outputs img")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("(image) => image.naturalWidth") >= 300
    began, ended = (datetime.fromisoformat(one["at"]) for one in klingel.task(task["id"])["transitions"][-2:])
    expect(page.locator("#timeline svg")).to_have_accessible_name(
        re.compile(rf"submitted .+, processing {re.escape(show_span(ended - began))}")
    )
    expect(page.locator("#events summary strong")).to_have_text(
        ["task.submitted", "task.processing", "task.succeeded", "output.stored"]
    )
    expect(page.locator("#callbacks li")).to_have_count(1)


def test_what_happens_before_a_page_listens_is_not_missed(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat, sandbox:slow"))

    def open_late(route: Route) -> None:
        klingel.events(task["id"])  # which returns when it has ended
        route.continue_()

    page.route("**/live", open_late)
    page.goto(f"/tasks/{task['id']}")

    expect(page.locator("#state .pill")).to_have_text("succeeded")


def test_the_gallery_gets_a_new_task_and_its_picture_without_a_reload(page: Page, klingel: Klingel) -> None:
    page.goto("/tasks")
    expect(page.get_by_role("heading", name="No tasks yet")).to_be_visible()
    live(page)
    page.evaluate("window.stayed = true")

    klingel.submit("kling.multi-image-to-image", image_input("A dog with a bell"))

    card = page.get_by_role("link", name="A dog with a bell")
    expect(card.locator(".pill")).to_have_text("succeeded")
    expect(card.locator("img")).to_be_visible()
    assert page.evaluate("window.stayed") is True


def test_a_page_keeps_up_where_something_happens_all_the_time(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat, sandbox:slow"))
    page.goto(f"/tasks/{task['id']}")
    live(page)
    seen_enough = Event()

    def happen() -> None:
        while not seen_enough.is_set():
            klingel.submit("kling.multi-image-to-image", image_input("Another cat, sandbox:fail"))

    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(happen)
        try:
            expect(page.locator("#state .pill")).to_have_text("succeeded")
        finally:
            seen_enough.set()
    going_on.result()


def test_a_film_is_played_where_it_was_kept(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-video", video_input("The cat bows"))
    page.goto(f"/tasks/{task['id']}")
    film = page.locator("#outputs video")
    expect(film).to_be_visible()
    assert re.search(r"^/v1/files/", film.get_attribute("src") or "")
    poster = film.get_attribute("poster")
    assert poster
    assert page.request.get(poster).headers["content-type"].startswith("image/")

    film.evaluate("(film) => { film.muted = true; return film.play(); }")

    page.wait_for_function(PLAYED, arg=film.element_handle())
    film.evaluate(
        "(film) => { film.currentTime = film.duration - 0.5; return film.play(); }"
    )  # a range of the file
    page.wait_for_function("(film) => film.ended", arg=film.element_handle())


def test_a_film_that_plays_is_not_taken_away_by_what_happens_meanwhile(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-video", video_input("The cat bows"))
    page.goto(f"/tasks/{task['id']}")
    live(page)
    film = page.locator("#outputs video").element_handle()
    page.evaluate("(film) => { film.muted = true; film.loop = true; return film.play(); }", film)

    follow_up = klingel.submit("kling.multi-image-to-image", image_input("Another one"))
    with page.expect_response(f"{klingel.url}/tasks/{task['id']}"):  # read again, as something happened
        klingel.events(follow_up["id"])

    page.wait_for_function(PLAYED, arg=film)
    assert page.evaluate("(film) => film.isConnected && !film.paused", film)


def test_a_task_that_failed_says_why(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("sandbox:fail"))
    page.goto(f"/tasks/{task['id']}")
    expect(page.locator("#state .pill")).to_have_text("failed")
    expect(page.locator("#outputs .faults")).to_contain_text("blocked by content review")


def test_what_was_opened_stays_open_when_the_page_is_brought_up_to_date(page: Page, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat, sandbox:slow"))
    page.goto(f"/tasks/{task['id']}")
    live(page)
    first = page.locator("#events details").first
    first.locator("summary").click()
    expect(first.locator("pre")).to_be_visible()

    expect(page.locator("#events summary strong")).to_have_count(4)

    expect(first.locator("pre")).to_be_visible()
    expect(first.locator("pre")).to_contain_text('"type": "task.submitted"')
    expect(first.locator("summary")).to_be_focused()


def test_a_click_counts_although_something_happens_while_the_button_is_down(
    page: Page, klingel: Klingel
) -> None:
    """And what happened is shown once it is up."""
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat, sandbox:never"))
    page.goto(f"/tasks/{task['id']}")
    live(page)
    details = page.locator("#events details").first
    details.locator("summary").hover()
    page.mouse.down()
    with page.expect_response(f"{klingel.url}/tasks/{task['id']}"):
        call_back(klingel, task["id"], "processing")
    expect(page.locator("#state .pill")).to_have_text("processing")
    expect(page.locator("#events summary strong")).to_have_count(1)
    details.locator("summary").hover()  # which has moved down
    page.mouse.up()

    expect(details.locator("pre")).to_be_visible()
    expect(page.locator("#events summary strong")).to_have_text(["task.submitted", "task.processing"])
    expect(details.locator("pre")).to_be_visible()


def test_a_page_that_was_cut_off_reads_what_it_missed(visit: Visit, klingel: Klingel) -> None:
    visitor = visit()
    page = visitor.sign_in(klingel.key, "/tasks")
    live(page)
    visitor.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    klingel.submit("kling.multi-image-to-image", image_input("Meanwhile"))
    visitor.context.set_offline(False)
    page.evaluate("dispatchEvent(new Event('pageshow'))")

    expect(page.get_by_role("link", name="Meanwhile").locator(".pill")).to_have_text("succeeded")
    visitor.forgives("ERR_INTERNET_DISCONNECTED")
