"""Endpoints and deliveries, from the form to the dead letter and out of it."""

import re

from playwright.sync_api import Page, expect

from tests.browser.chromium import Visitor, live
from tests.e2e.parties import Klingel, Receiver, image_input

SECRET_SHOWN = re.compile(r"^whsec_\S+$")


def make_endpoint(page: Page, url: str, description: str) -> str:
    """By the form. Its signing secret."""
    page.goto("/endpoints")
    page.get_by_role("link", name="webhook").click()
    page.get_by_label("URL required").fill(url)
    page.get_by_label("Description").fill(description)
    page.get_by_role("button", name="Make it").click()
    secret = page.locator("#secret")
    expect(secret).to_have_text(SECRET_SHOWN)
    return secret.inner_text()


def test_an_endpoint_is_made_tested_and_its_secret_verifies(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    secret = make_endpoint(page, receiver.url(hook), "Our shop")
    page.get_by_role("link", name="I have it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Our shop")
    assert "whsec_" not in page.content()  # it was shown once

    page.get_by_role("button", name="Send a test event").click()
    expect(page.locator("#state .pill")).to_have_text("delivered")  # live
    [test] = receiver.received(hook)
    assert test.verified(secret)["type"] == "endpoint.test"


def test_a_delivery_is_seen_with_its_answer_and_replayed(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    make_endpoint(page, receiver.url(hook), "Our shop")
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat"))
    page.goto(f"/tasks/{task['id']}")
    delivery = page.locator("#events > ul > li", has_text="task.succeeded").locator(".deliveries li")
    expect(delivery.locator(".pill")).to_have_text("delivered")
    delivery.get_by_role("link", name="Our shop").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("task.succeeded to Our shop")
    expect(page.locator("#attempts li")).to_have_count(1)
    expect(page.locator("#attempts li")).to_contain_text("Answered 200")
    expect(page.locator("#event-json")).to_contain_text('"type": "task.succeeded"')

    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("This is the replay: the same event, under the same message id.")).to_be_visible()
    expect(page.locator("#state .pill")).to_have_text("delivered")
    same = receiver.until(hook, lambda got: [one.event["type"] for one in got].count("task.succeeded") == 2)
    assert len({one.id for one in same if one.event["type"] == "task.succeeded"}) == 1


def test_a_broken_endpoint_is_seen_and_why_and_its_dead_letter_is_brought_back(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    make_endpoint(page, receiver.url(hook), "Our shop")
    page.get_by_role("link", name="I have it").click()
    endpoint_page = page.url
    receiver.answers(503, 60)  # so that one attempt is all that is made meanwhile
    try:
        page.get_by_role("button", name="Send a test event").click()
        attempt = page.locator("#attempts li").first
        expect(attempt).to_contain_text("Answered 503")
        expect(attempt).to_contain_text("Not a success, so it is tried again.")
        expect(page.locator("#attempts .note")).to_contain_text("Next attempt in")
        expect(page.locator("#state .pill")).to_have_text("pending")
        delivery_page = page.url.partition("?")[0]

        page.goto(endpoint_page)
        expect(page.locator("#state .pill")).to_have_text("failing")
        expect(page.locator("#health")).to_contain_text("1 attempt failed in a row")
        page.goto("/endpoints")
        expect(page.get_by_role("row", name="Our shop").locator(".pill")).to_have_text("failing")

        page.goto(endpoint_page)
        page.get_by_role("button", name="Disable").click()
        expect(page.locator("#state .pill")).to_have_text("disabled")
    finally:
        receiver.answers(200)

    page.goto("/")
    tile = page.locator(".tile", has=page.get_by_role("heading", name="Dead letters"))
    expect(tile.locator(".figure")).to_have_text("1")
    tile.get_by_role("link", name="Look at them").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
    page.get_by_role("link", name="endpoint.test").click()
    expect(page).to_have_url(delivery_page)
    expect(page.get_by_text("It can be replayed once its endpoint is enabled again.")).to_be_visible()

    page.goto(endpoint_page)
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("button", name="Disable")).to_be_visible()
    page.goto(delivery_page)
    page.get_by_role("button", name="Replay").click()
    expect(page.locator("#state .pill")).to_have_text("delivered")


def test_a_delivery_that_is_tried_again_is_followed_live(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    """The receiver says when to come again: in three seconds, and then it is there."""
    make_endpoint(page, receiver.url(hook), "Our shop")
    page.get_by_role("link", name="I have it").click()
    receiver.answers(503, 3)
    try:
        page.get_by_role("button", name="Send a test event").click()
        receiver.until(hook, len)
    finally:
        receiver.answers(200)
    expect(page.locator("#attempts li").first).to_contain_text("Answered 503")
    live(page)
    page.evaluate("window.stayed = true")

    expect(page.locator("#state .pill")).to_have_text("delivered")
    expect(page.locator("#attempts li")).to_have_count(2)
    assert page.evaluate("window.stayed") is True


def test_a_delivery_that_waits_for_its_endpoints_rate_says_so_and_is_read_again_however_long_it_waits(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    body = {"config": {"url": receiver.url(hook)}, "rate_per_minute": 1}
    endpoint = klingel.call("POST", "/endpoints", body, answers=201)
    klingel.call("POST", f"/endpoints/{endpoint['id']}/test", answers=202)
    receiver.until(hook, len)
    waiting = klingel.call("POST", f"/endpoints/{endpoint['id']}/test", answers=202)["delivery"]
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.goto(f"/deliveries/{waiting['id']}")
    live(page)
    expect(page.locator("#attempts .note")).to_contain_text("takes at most 1 attempt a minute.")
    for passed_ms in (120_000, 31_000):
        page.evaluate("document.querySelector('#attempts .note').dataset.before = ''")
        page.clock.run_for(passed_ms)
        expect(page.locator("#attempts .note:not([data-before])")).to_be_visible()


def test_a_secret_is_rotated_and_an_endpoint_deleted(
    page: Page, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    former = make_endpoint(page, receiver.url(hook), "Our shop")
    page.get_by_role("link", name="I have it").click()
    page.get_by_role("button", name="Rotate the secret").click()
    expect(page.locator("#secret")).to_have_text(SECRET_SHOWN)
    assert page.locator("#secret").inner_text() != former
    page.get_by_role("link", name="I have it").click()

    page.get_by_text("Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()

    expect(page.get_by_role("status").filter(has_text="The endpoint is deleted.")).to_be_visible()
    expect(page.get_by_role("heading", name="No endpoints yet")).to_be_visible()


def test_a_fault_in_an_endpoint_stands_at_its_field(visitor: Visitor) -> None:
    page = visitor.page
    page.goto("/endpoints/new/webhook")
    page.get_by_label("URL required").fill("ftp://example.com")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent")
    expect(page.get_by_label("URL required")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("URL required")).to_have_value("ftp://example.com")
    visitor.expects("422")  # the browser's console says it too


def test_keys_are_made_and_revoked(page: Page) -> None:
    page.goto("/keys")
    page.get_by_label("What it is for").fill("the shop")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#new-key")).to_have_text(re.compile(r"^kl_"))
    page.get_by_role("button", name="Revoke the shop").click()
    expect(page.get_by_role("status").filter(has_text="Revoked")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke the shop")).to_have_count(0)
