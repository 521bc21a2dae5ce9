"""Signing in with an API key, and out."""

from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.e2e.parties import Klingel, image_input


def test_a_key_signs_in_and_one_comes_out_where_one_wanted_to_go(visit: Visit, klingel: Klingel) -> None:
    task = klingel.submit("kling.multi-image-to-image", image_input("A cat in a hat"))
    visitor = visit()

    visitor.page.goto(f"/tasks/{task['id']}")
    expect(visitor.page).to_have_title("Sign in · Klingel")
    expect(visitor.page.get_by_label("API key")).to_be_focused()
    visitor.page.keyboard.type(klingel.key)
    visitor.page.keyboard.press("Enter")

    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("A cat in a hat")
    assert visitor.page.url == f"{klingel.url}/tasks/{task['id']}"


def test_the_cookie_is_out_of_reach_of_scripts_and_the_key_is_not_in_it(
    visit: Visit, klingel: Klingel
) -> None:
    visitor = visit()
    page = visitor.sign_in(klingel.key)

    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    [cookie] = visitor.context.cookies()
    assert cookie.get("httpOnly") is True
    assert cookie.get("sameSite") == "Strict"
    assert klingel.key not in str(cookie.get("value"))


def test_a_wrong_key_is_told_and_the_next_one_may_be_right(visit: Visit, klingel: Klingel) -> None:
    visitor = visit()
    page = visitor.page
    page.goto("/")
    page.get_by_label("API key").fill("kl_no-key-of-this-house-at-all")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_be_visible()
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(page.get_by_role("alert").inner_text())
    expect(field).to_have_value("")
    visitor.expects("401")  # the browser's console says it too

    field.fill(klingel.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_who_signs_out_is_out(visit: Visit, klingel: Klingel) -> None:
    visitor = visit()
    page = visitor.sign_in(klingel.key, "/tasks")

    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_title("Sign in · Klingel")
    page.goto("/tasks")
    expect(page).to_have_title("Sign in · Klingel")
    page.go_back()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_revoked_key_ends_its_sessions_also_on_a_page_that_is_open(
    visit: Visit, klingel: Klingel, house: Klingel
) -> None:
    """The open page, whose stream ends, asks again and is sent to sign in."""
    made = klingel.call("POST", "/keys", {"name": "for a moment"}, answers=201)
    visitor = visit()
    page = visitor.sign_in(made["key"], "/tasks")
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.reload()  # once it is live it reads itself anew, and then nothing happens any more
    klingel.call("DELETE", f"/keys/{made['id']}", answers=204)

    expect(page).to_have_title("Sign in · Klingel")
    # The page's stream was ended, and may have been asked for again before it left.
    visitor.forgives(r"401 .*/live\)")


def test_a_page_whose_key_is_revoked_before_it_is_live_leads_to_the_sign_in(
    visit: Visit, klingel: Klingel, house: Klingel
) -> None:
    made = klingel.call("POST", "/keys", {"name": "for a moment"}, answers=201)
    visitor = visit()
    page = visitor.sign_in(made["key"], "/tasks")

    def revoke(route: Route) -> None:
        klingel.call("DELETE", f"/keys/{made['id']}", answers=204)
        route.continue_()

    page.route("**/live", revoke, times=1)
    page.reload()

    expect(page).to_have_title("Sign in · Klingel")
    visitor.forgives(r"401 .*/live\)")
